"""Measure models on the test part of a task, test the differences, and write the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from residency.core.errors import UserError
from residency.core.files import digest, read_json, read_jsonl, write_json, write_jsonl
from residency.core.progress import Silent, Tracker
from residency.core.run_folder import Run, Step, hardware, now, packages
from residency.core.types import (
    DataSummary,
    Example,
    PartName,
    Prediction,
    Predictor,
    Report,
    RunFacts,
    StageResult,
    Value,
)
from residency.corpus import splitfile
from residency.corpus.ledger import LedgerEntry
from residency.corpus.summary import summary, with_entries
from residency.evals.floor import shortfall
from residency.evals.ratings import rated
from residency.evals.verdicts import below_floor, too_few_steps
from residency.models import erased
from residency.models.base import silent
from residency.models.predictors import kind_of
from residency.recipe import Recipe, read_yaml
from residency.tasks.card import Card, rule_of
from residency.tasks.examples import few_shot, fixed, with_shots
from residency.tasks.families import of
from residency.workflows.finished import artefact_of, finished_facts, open_run
from residency.workflows.material import (
    Material,
    TaskOnData,
    examples_of,
    material_of,
    measured_examples,
    read_data,
)
from residency.workflows.steps import (
    EvaluationTask,
    Inputs,
    baselines_of,
    data_step,
    evaluation_step,
    read_inputs,
    report_step,
    under_way,
)

if TYPE_CHECKING:
    from residency.models.predictors import Answering, Trained

DEMO_CAVEAT = (
    "These records are invented: a generator wrote them, and the bundled model has seen text of "
    "the same generator when it was pre-trained. The scores show that the road works; they say "
    "nothing about real notes."
)
INVENTED_CAVEAT = (
    "These records are invented: a generator wrote them. The scores show that the road works; they "
    "say nothing about real notes."
)
LEXICAL_CAVEAT = (
    "The CRF's files hold words of its training notes, and every span that was labelled there, as "
    "they are written: keep and share the model as you would the notes."
)
BUNDLED_CAVEAT = (
    "The bundled base is a very small model for learning the tool and for tests, never for care; "
    "a larger base is one line of the recipe."
)


PREDICTIONS = ".predictions.jsonl"
"""How the file of a system's predictions ends."""


class Evaluation(Value, frozen=True):
    """A run's model and what it is measured on."""

    inputs: Inputs
    asked: EvaluationTask
    artefact: Path
    trained_in: Path
    """The folder that predict takes."""
    card: Card | None
    """The card as the model learned it; None where the recipe now asks another, whose labels the
    test notes give."""


def evaluate(
    run: Run | Path | str, overrides: Sequence[str] = (), tracker: Tracker | None = None
) -> tuple[RunFacts, Path]:
    """Measure a run's model again, with other settings or on other data (``data.NAME.test=...``).

    Files named by an override are relative to the recipe's folder, and a test part takes the place
    of all that was named for that data set before. Writes a report of its own under
    ``RUN/evaluations`` and returns the facts in it and its folder.
    """
    wanted = read_evaluation(run, overrides)
    recipe, done = wanted.inputs.recipe, Run(wanted.inputs.folder)
    data = data_step(wanted.inputs)
    asked = evaluation_step(recipe, wanted.asked, trained_keys(wanted))
    report = report_step(recipe, data, [asked], done.folder)
    with under_way(done, [data, asked, report], wanted.inputs) as unfinished:
        if unfinished:
            tracker = tracker or Silent()
            material = material_of(wanted.inputs, read_data(recipe, tracker), tracker)
            one = task_of_evaluation(wanted, material)
            systems = {"tuned": wanted.artefact}
            done.do(data, partial(write_data, material))
            done.do(asked, partial(measure, material, one, systems))
            done.do(report, partial(write_report, material, one, systems, [asked], wanted))
    return finished_facts(done), done.folder


def read_evaluation(
    run: Run | Path | str, overrides: Sequence[str] = (), runs: Path | None = None
) -> Evaluation:
    """A run's model and what it is measured on, with a recipe that may be changed; reads no row.

    Raises ``UserError`` where the recipe now asks what the model did not learn.
    """
    from residency.models.artefact import read

    folder = run.folder if isinstance(run, Run) else Path(run)
    _, before = open_run(folder)
    value = read_yaml(folder / "recipe.yaml")
    own = set(value["data"])
    for name, data in value["data"].items():
        if any(text.startswith(f"data.{name}.test=") for text in overrides):
            for key in ("path", "train", "dev", "shares", "stop", "limit"):
                data.pop(key, None)
    recipe = Recipe.from_mapping(value, before.root, overrides, where="recipe")
    artefact = artefact_of(folder)
    found = read(artefact)
    learned = found.task().name
    named = (task for task in recipe.tasks if learned in (task.name, recipe.card(task).name))
    task = next(named, recipe.tasks[0])
    if strange := sorted(recipe.data.keys() - own - {task.data}):
        raise UserError(
            f"data.{strange[0]}: nothing is asked of it; the task {task.title} asks "
            f"data.{task.data}: write data.{task.data}=..., or name it with "
            f"tasks[0].data={strange[0]}."
        )
    inputs = read_inputs(recipe, runs or folder / "evaluations")
    return Evaluation(
        inputs=inputs,
        asked=EvaluationTask(name="", task=task, data=task.data),
        artefact=artefact,
        trained_in=folder,
        card=kind_of(found).learned_card(found, recipe.card(task), inputs.base),
    )


def task_of_evaluation(wanted: Evaluation, material: Material) -> TaskOnData:
    """What a trained model is asked: the card that it learned, or another one in words."""
    from residency.models.predictors import output_of

    task, data = wanted.asked.task, wanted.asked.data
    corpus, card, wish = material.corpora[data], wanted.card, task.output
    if card is None:
        card = fixed(material.inputs.recipe.card(task), corpus.part("test"), f"data.{data}")
        wish = "text"  # the model has no head for it
    output = output_of(wish, material.inputs.base, card)
    return TaskOnData(task=task, data=data, corpus=corpus, card=card, output=output)


def trained_keys(wanted: Evaluation) -> list[str]:
    """In place of the keys of a run's stages: what the trained model and the data are, once for
    each stage of its recipe."""
    artefact = msgspec.json.decode((wanted.artefact / "artefact.json").read_bytes())
    step = Step(
        name="train",
        settings={},
        inputs={"artefact": digest(artefact), **wanted.inputs.files},
        into=str(wanted.artefact.resolve()),
    )
    return [step.key] * len(wanted.inputs.recipe.stages)


def examples_of_run(run: Run | Path | str, *parts: PartName) -> list[Example]:
    """The examples of some parts of a run's data, as its model is asked them."""
    wanted = read_evaluation(run)
    corpora = read_data(wanted.inputs.recipe, Silent())
    one = task_of_evaluation(wanted, material_of(wanted.inputs, corpora, Silent()))
    return [example for part in parts for example in examples_of(one, part)]


# The steps that a run shares with an evaluation and a comparison; each writes to the empty folder
# that it is given.


def write_data(material: Material, folder: Path) -> None:
    """Account for every row, and write the split."""
    recipe, corpora = material.inputs.recipe, material.corpora
    for name, corpus in corpora.items():
        write_jsonl(folder / f"{name}.ledger.jsonl", corpus.ledger)
    splitfile.write(corpora, recipe.data, recipe.root, folder, material.inputs.files, now())
    summaries = [summary(recipe.data[name], recipe.root, one) for name, one in corpora.items()]
    write_json(folder / "summary.json", summaries)


def measure(
    material: Material, one: TaskOnData, systems: Mapping[str, Path], folder: Path, title: str = ""
) -> None:
    """Measure the baselines and every trained system that answers the task, and compare each with
    the last. ``systems``: name -> artefact; ``title``: what the tracker is told after a name."""
    from residency.evals import safety
    from residency.evals.paired_tests import compare, corrected
    from residency.models.causal import CausalPredictor

    recipe, tracker = material.inputs.recipe, material.tracker
    settings, test = recipe.evaluate, measured_examples(one, recipe)
    if settings.safety:
        kind_of(one.head).check_able("safety", "evaluate.safety")
    able = able_systems(one, systems)
    shots = questions_with_shots(one, test, recipe.seed)
    reports, answered, safe = [], [], []
    for name in (*measured_baselines(material, one), *shots, *able):
        tracker.start(f"evaluating {name}{title}", len(test))
        with silent():
            predictor = predictor_of(material, one, able, name)
            report, predictions = ask(material, one.card, predictor, shots.get(name, test), folder)
            # Of a written task too a baseline may not write; only what writes can be asked this.
            if settings.safety and name not in shots and isinstance(predictor, CausalPredictor):
                show = material.show_text
                safe.append(safety.ask_questions(predictor.for_card(safety.card()), show_text=show))
                _keep(folder / safety.TASK, name, safe[-1].predictions, safety.card(), show)
        reports.append(report)
        answered.append((report.system, predictions))
        tracker.end(main_score(report, one.card))
    last = answered[-1]
    tests = [compare(test, other, last, one.card, seed=recipe.seed) for other in answered[:-1]]
    found = corrected([one for several in tests for one in several])
    reports[-1] = msgspec.structs.replace(reports[-1], comparisons=found)
    write_json(folder / "reports.json", [*reports, *safety.reports_of(safe, recipe.seed)])


def predictor_of(
    material: Material, one: TaskOnData, able: Mapping[str, Path], name: str
) -> Answering:
    """A system by the name that reports have for it: a trained one of ``able``, a baseline that
    learns from the training part, or else the base, with or without worked examples."""
    from residency.models import baselines, predictors

    longest, trainable = predictors.longest_answer(able.values()), 0
    predictor: Answering
    if name in able:
        predictor = predictors.trained(able[name], one.card, name, longest)
        trainable = read_json(able[name] / "stage.json", StageResult).trainable
    elif name in baselines.KINDS:
        seed = material.inputs.recipe.seed
        rows = examples_of(one, "train")
        predictor = baselines.learn(name, rows, one.card, seed, able.values())
    else:
        predictor = untuned(material.inputs, one, list(able.values())[-1], longest)
    predictor.info = msgspec.structs.replace(predictor.info, name=name, trainable=trainable)
    return predictor


def measured_baselines(material: Material, one: TaskOnData) -> list[str]:
    """The baselines of a task; where data has no training part, only those that need none."""
    wanted = baselines_of(material.inputs.recipe, one.card)
    return [name for name in wanted if name == "base" or one.corpus.part("train")]


def able_systems(one: TaskOnData, systems: Mapping[str, Path]) -> dict[str, Path]:
    """The trained systems that can be asked a task; raises ``UserError`` where there is none."""
    from residency.models import predictors

    able = {
        name: path
        for name, path in systems.items()
        if predictors.answers(path, one.card, one.output)
    }
    if not able:
        raise UserError(
            f"tasks: no stage makes a model that answers {one.card.name}; name it in the tasks of "
            "one."
        )
    return able


def questions_with_shots(
    one: TaskOnData, test: list[Example], seed: int
) -> dict[str, list[Example]]:
    """The questions behind worked examples of the training part, under the name of the system that
    is asked so; none unless wanted."""
    shots = one.task.shots
    if not shots or "shots" in kind_of(one.head).cannot:
        return {}
    return {few_shot(shots): with_shots(test, examples_of(one, "train"), one.card, shots, seed)}


def untuned(inputs: Inputs, one: TaskOnData, artefact: Path, most: int | None = None) -> Trained:
    """The base as it is, asked as a trained model of it is."""
    seed = inputs.recipe.seed
    return kind_of(one.head).untuned(inputs.base, one.card, seed, artefact, most)


def ask(
    material: Material, card: Card, predictor: Predictor, test: Sequence[Example], folder: Path
) -> tuple[Report, tuple[Prediction, ...]]:
    """Ask a system all examples, score its answers, and keep them in a file of its name."""
    from residency.evals.measure import evaluate

    recipe, show = material.inputs.recipe, material.show_text
    report, predictions = evaluate(
        predictor,
        test,
        card,
        bootstrap=recipe.evaluate.bootstrap,
        seed=recipe.seed,
        show_text=show,
        metrics=recipe.evaluate.metrics,
        prevalence=recipe.evaluate.prevalence,
        progress=material.tracker.update,
    )
    _keep(folder, report.system.name, predictions, card, show)
    return report, predictions


def _keep(
    folder: Path, system: str, predictions: Iterable[Prediction], card: Card, show_text: bool
) -> None:
    """Write the predictions of a system to a file of its name."""
    file = folder / f"{system.replace(':', '-')}{PREDICTIONS}"
    write_jsonl(file, (kept_prediction(one, card, show_text) for one in predictions))


def main_score(report: Report, card: Card) -> str:
    """The card's main score in words."""
    from residency.evals.formats import metric_value

    found = [score for score in report.scores if score.metric == card.main_metric]
    return " ".join(f"{score.metric} {metric_value(score.value)}" for score in found)


def kept_prediction(prediction: Prediction, card: Card, show_text: bool) -> Prediction:
    """A prediction as a run keeps it: offsets and labels, what was written only where notes may be
    shown."""
    family, answer = of(card), prediction.answer
    if answer is not None and (family.classifier or not show_text):
        answer = family.without_text(answer)
    text = prediction.text if show_text else ""
    return msgspec.structs.replace(prediction, answer=answer, text=text, uncalibrated=None)


def write_report(
    material: Material,
    one: TaskOnData,
    systems: Mapping[str, Path],
    measured: Sequence[Step],
    evaluation: Evaluation | None,
    folder: Path,
) -> None:
    """Write the report of a run (or of an ``evaluation`` of one), its plots and the model card, and
    the facts that they were made from. ``measured``: the steps that hold the scores."""
    facts = report_facts(material, one, systems, measured, evaluation)
    write_facts(material, facts, folder)


def write_facts(material: Material, facts: RunFacts, folder: Path) -> None:
    """Write a report and the facts that it was made from."""
    from residency.evals.report import render

    material.tracker.start("writing the report")
    render(facts, folder)
    write_json(folder / "facts.json", facts)
    material.tracker.end()


def report_facts(
    material: Material,
    one: TaskOnData,
    systems: Mapping[str, Path],
    measured: Sequence[Step],
    evaluation: Evaluation | None = None,
) -> RunFacts:
    """Everything that the report shows, read from the finished steps."""
    inputs, recipe, trained = material.inputs, material.inputs.recipe, list(systems.values())
    data = read_json(inputs.folder / "data/summary.json", list[DataSummary])
    stages = tuple(read_json(path / "stage.json", StageResult) for path in trained)
    if not material.show_text:  # features are words of notes
        stages = tuple(
            msgspec.structs.replace(stage, heaviest=dict.fromkeys(stage.heaviest, ()))
            for stage in stages
        )
    reports = tuple(
        report
        for step in measured
        for report in read_json(inputs.folder / step.into / "reports.json", list[Report])
    )
    marked, judged = rated(Run(inputs.folder), reports)
    caveats = list(dict.fromkeys(words for path in trained if (words := erased.warning(path))))
    caveats += [f"data.{each.name}: {words}" for each in data for words in each.warnings]
    if all(note.origin.startswith("synthetic:") for note in one.corpus.notes):
        bundled = inputs.base.id.startswith("bundled:")
        caveats.append(DEMO_CAVEAT if bundled else INVENTED_CAVEAT)
    if left := set(baselines_of(recipe, one.card)) - {*measured_baselines(material, one)}:
        caveats.append(
            f"Not compared with {', '.join(sorted(left))}: this data has no training part to learn "
            "them from."
        )
    caveats += below_floor(reports)
    caveats += [words for stage in stages if (words := too_few_steps(stage))]
    holds_words = any(stage.heaviest or "lexical" in stage.settings for stage in stages)
    caveats += [LEXICAL_CAVEAT] if holds_words else []
    if inputs.base.id.startswith("bundled:"):
        caveats.append(BUNDLED_CAVEAT)
    caveats += rule_of(one.card, stages[-1].trainable, stages[-1].parameters)
    caveats += shortfall([*reports, *judged], recipe.evaluate.floor)
    entries = _training_entries(recipe, trained, evaluation)
    return RunFacts(
        name=recipe.name,
        folder=(evaluation.trained_in if evaluation else inputs.folder).as_posix(),
        created=Run(inputs.folder).manifest.created,
        recipe=recipe.yaml(),
        base=inputs.base.id,
        base_digest=inputs.base.digest,
        hardware=hardware(),
        packages=packages(),
        data=tuple(with_entries(each, entries.get(each.name, [])) for each in data),
        stages=stages,
        reports=(*reports, *judged),
        ratings=marked,
        caveats=tuple(caveats),
        language=recipe.report.for_data(
            next((each.lang for each in data if each.name == one.data), "")
        ),
        show_text=material.show_text,
    )


def _training_entries(
    recipe: Recipe, trained: Sequence[Path], evaluation: Evaluation | None
) -> dict[str, list[LedgerEntry]]:
    """Data set -> what became of its rows in training: of each trained system, under the data that
    its own stage learned from (the first of several tasks')."""
    if evaluation is not None:
        learned_from = [evaluation.asked.data]
    else:
        learned_from = [one.data or recipe.tasks_of(one)[0].data for one in recipe.stages]
    found: dict[str, list[LedgerEntry]] = {}
    for name, path in zip(learned_from, trained, strict=True):
        found.setdefault(name, []).extend(read_jsonl(path / "ledger.jsonl", LedgerEntry))
    return found
