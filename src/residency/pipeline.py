"""From a recipe to a measured model: composes the library's functions into steps, and nothing else.

pipeline.run(recipe)  ->  data  ->  train/1-lora  ->  eval/TASK  ->  report
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.errors import DataError, UserError
from residency.core.files import digest, read_json, sha256, write_json, write_jsonl, write_text
from residency.core.progress import Silent, Tracker
from residency.core.run import SCHEMA, Manifest, Run, Step, hardware, memoised_digest, now, packages
from residency.core.types import (
    PARTS,
    SHOWABLE,
    DataSummary,
    Example,
    Note,
    PartName,
    Prediction,
    Profile,
    RawNote,
    Report,
    RunFacts,
    Spans,
    StageResult,
    Text,
)
from residency.core.zones import assert_outside
from residency.corpus import sources
from residency.corpus.ledger import Entry
from residency.corpus.sources import Corpus
from residency.corpus.summary import shown, strictest, summary, with_entries
from residency.models.base import Base, resolve, silent
from residency.models.predictors import output_of
from residency.recipe import Recipe, Task
from residency.tasks.card import Card
from residency.tasks.examples import examples, fixed, question, unknown_labels
from residency.train import launch

if TYPE_CHECKING:
    from residency.models.artefact import Output
    from residency.models.causal import CausalPredictor
    from residency.models.encoder import EncoderPredictor

DEMO_CAVEAT = (
    "These records are invented: a generator wrote them, and the bundled model has seen text of the same generator when "
    "it was pre-trained. The scores show that the road works; they say nothing about real notes."
)
BUNDLED_CAVEAT = (
    "The bundled base is a very small model for learning the tool and for tests, never for care; "
    "a larger base is one line of the recipe."
)


class Work:
    """One recipe on its way through the steps; reads nothing before a step needs it."""

    def __init__(self, recipe: Recipe, runs: Path, tracker: Tracker) -> None:
        self.recipe, self.runs, self.tracker = recipe, runs, tracker
        self.run = Run(runs / f"{recipe.name}-{recipe.digest[:8]}")
        self.task: Task = recipe.tasks[0]

    @cached_property
    def base(self) -> Base:
        """The base, found on this machine."""
        return resolve(self.recipe.base, self.recipe.root)

    @cached_property
    def input_digests(self) -> dict[str, str]:
        """Input file -> hash."""
        found = {
            path for name, data in self.recipe.data.items() for path in sources.files(data, self.recipe.root, name)
        }
        memo = self.runs / ".digests.json"
        return {shown(path, self.recipe.root): memoised_digest(path, memo) for path in sorted(found)}

    @cached_property
    def corpora(self) -> dict[str, Corpus]:
        """Every data set, read."""
        return {
            name: sources.load(data, name, self.recipe.root, self.recipe.seed)
            for name, data in self.recipe.data.items()
        }

    @cached_property
    def corpus(self) -> Corpus:
        """The task's data set."""
        return self.corpora[self.task.data]

    @cached_property
    def card(self) -> Card:
        """The task's card, its labels fixed."""
        where = f"data.{self.task.data}"
        card = fixed(self.recipe.card(self.task), self.corpus.part("train"), where)
        unknown = unknown_labels(self.corpus.notes, card)
        if unknown:
            raise DataError(
                f"{where}: label {unknown[0]!r} is not in card {card.name}; allowed: {', '.join(card.names)}; "
                f"add it to the card, or rename it with {where}.labels."
            )
        return card

    @cached_property
    def output(self) -> Output:
        """How the task is answered: with a head, or in words."""
        return output_of(self.task.output, self.base, self.card)

    def part(self, name: PartName) -> list[Example]:
        """The task's examples of a part."""
        return examples(self.corpus.part(name), self.card)

    def test_part(self) -> list[Example]:
        """What is measured: the test part, or so many of it as the recipe wants, the same for every system and run."""
        test, most = self.part("test"), self.recipe.evaluate.limit
        if most is None or len(test) <= most:
            return test
        chosen = set(random.Random(self.recipe.seed).sample(range(len(test)), most))
        return [example for number, example in enumerate(test) if number in chosen]

    @cached_property
    def profile(self) -> Profile:
        """The strictest profile among the notes."""
        return strictest(note.profile for corpus in self.corpora.values() for note in corpus.notes)

    def through(self, actions: Sequence[Action]) -> Run:
        """Have the result of every step in the run, one action for each."""
        steps, run = self.steps(), self.run  # finds missing files and bases before anything is written
        assert_outside(run.folder)
        with run.locked():
            before = run.manifest if (run.folder / "manifest.json").is_file() else None
            created = before.created if before else now()
            keys = {step.name: step.key for step in steps}
            if before and (before.status, before.steps) == ("done", keys) and all(map(run.is_done, steps)):
                run.done = dict.fromkeys(keys, "cached")
                return run
            write_text(run.folder / "recipe.yaml", self.recipe.yaml())
            run.write_manifest(self.manifest(created, "running"))
            try:
                for step, action in zip(steps, actions, strict=True):
                    run.do(step, action)
            except Exception:
                with suppress(UserError):  # a full disk may refuse this too; the first error is the one to tell
                    run.write_manifest(self.manifest(created, "failed"))
                raise
            run.clear_scratch()
            run.write_manifest(self.manifest(created, "done"))
        return run

    # The steps: what each depends on. ``dump`` leaves out what cannot change a result.

    @property
    def _data_settings(self) -> dict[str, Any]:
        return {"data": _dump(self.recipe)["data"], "seed": self.recipe.seed}

    @property
    def _card_settings(self) -> dict[str, Any]:
        return self.recipe.card(self.task).model_dump(mode="json")

    def data_step(self) -> Step:
        return Step(name="data", settings=self._data_settings, inputs=self.input_digests, into="data")

    def train_step(self) -> Step:
        stage = _dump(self.recipe)["stages"][0]
        stage.pop("track")
        task = self.task.model_dump(mode="json", include={"data", "output", "limits", "generate"})
        settings = {**self._data_settings, "stage": stage, "card": self._card_settings, "task": task}
        base = {"base": self.base.digest, "base.segmenter": self.base.segmenter, "base.window": str(self.base.window)}
        if self.base.chat_template:
            base["base.chat_template"] = sha256(self.base.chat_template.encode())
        into = f"train/{self.recipe.stages[0].title(1)}"
        return Step(name=into, settings=settings, inputs={**self.input_digests, **base}, into=into)

    def eval_step(self) -> Step:
        into = f"eval/{self.recipe.card(self.task).name}"
        settings = {"evaluate": _dump(self.recipe)["evaluate"], "seed": self.recipe.seed}
        return Step(name=into, settings=settings, inputs={"train": self.train_step().key}, into=into)

    def report_step(self) -> Step:
        inputs = {"data": self.data_step().key, "eval": self.eval_step().key}
        return Step(name="report", settings={"recipe": _dump(self.recipe)}, inputs=inputs)

    def steps(self) -> list[Step]:
        """All steps in their order."""
        return [self.data_step(), self.train_step(), self.eval_step(), self.report_step()]

    # What each does: writes to the empty folder that it is given.

    def do_data(self, folder: Path) -> None:
        """Read everything, account for every row, split."""
        self.tracker.start("reading the data")
        for name, corpus in self.corpora.items():
            write_jsonl(folder / f"{name}.ledger.jsonl", corpus.ledger)
            write_json(folder / f"{name}.split.json", corpus.split)
        data = self.recipe.data
        summaries = [summary(data[name], self.recipe.root, corpus) for name, corpus in self.corpora.items()]
        write_json(folder / "summary.json", summaries)
        counts = {part: sum(len(corpus.part(part)) for corpus in self.corpora.values()) for part in PARTS}
        self.tracker.end(", ".join(f"{count} {part}" for part, count in counts.items()))

    def do_train(self, folder: Path) -> None:
        """Train the stage."""
        if self.recipe.launch.processes > 1 and launch.world() == 1:
            self.tracker.start(f"training in {self.recipe.launch.processes} processes")
            given = [str(path.resolve()) for path in (self.run.folder, self.recipe.root, folder)]
            launch.start(self.recipe.launch.processes, "residency.worker", given)
            self.tracker.end()
            return
        from residency.train.trainer import Job, train

        stage, step = self.recipe.stages[0], self.train_step()
        self.tracker.start(f"training {stage.title(1)}")
        scratch = self.run.scratch(step)
        scratch.mkdir(parents=True, exist_ok=True)
        with silent():
            result, items = train(
                Job(
                    stage=stage,
                    name=stage.title(1),
                    base=self.base,
                    card=self.card,
                    train=self.part("train"),
                    dev=self.part("dev"),
                    seed=self.recipe.seed,
                    profile=self.profile,
                    work=scratch,
                    out=folder,
                    progress=self.tracker.update,
                    output=self.output,
                    limits=self.task.limits,
                    generate=self.task.generate,
                    loss=self.recipe.data[self.task.data].loss,
                    forecast=True,
                )
            )
        if not launch.first():
            return
        entries = [
            Entry(file="", line=0, id=id, status="windowed", reason="longer than the model reads at once", count=n)
            for id, n in items.windowed.items()
        ]
        entries += [
            Entry(file="", line=0, status="repaired", reason=f"for training: {why}", count=n)
            for why, n in items.changed.items()
        ]
        entries += [
            Entry(file="", line=0, id=id, status="rejected", reason=f"for training: {why}")
            for id, why in items.rejected.items()
        ]
        write_jsonl(folder / "ledger.jsonl", entries)
        best = (
            f"best {result.metric} {result.best:.3f} at epoch {result.best_epoch:g}"
            if result.best
            else "last model kept"
        )
        self.tracker.end(best)

    def do_eval(self, folder: Path) -> None:
        """Measure the baselines and the tuned model on the test part."""
        from residency.evals.compare import compare
        from residency.evals.evaluate import evaluate
        from residency.models import predictors

        test = self.test_part()
        if not test:
            raise UserError(
                f"data.{self.task.data}.test: there is nothing to measure on; give a test part, or path with shares."
            )
        settings = self.recipe.evaluate
        artefact = self.run.folder / self.train_step().into
        reports, answered = [], []
        for name in (*settings.baselines, "tuned"):
            self.tracker.start(f"evaluating {name}", len(test))
            with silent():
                predictor = self.untuned(artefact) if name == "base" else predictors.trained(artefact)
                report, predictions = evaluate(
                    predictor,
                    test,
                    self.card,
                    bootstrap=settings.bootstrap,
                    seed=self.recipe.seed,
                    show_text=self.show_text,
                    progress=self.tracker.update,
                )
            write_jsonl(folder / f"{name}.predictions.jsonl", (as_kept(one, self.show_text) for one in predictions))
            reports.append(report)
            answered.append((report.system, predictions))
            self.tracker.end(
                " ".join(f"{s.metric} {s.value:.3f}" for s in report.scores if s.metric == self.card.main_metric)
            )
        tuned = answered[-1]
        tests = [compare(test, other, tuned, self.card, seed=self.recipe.seed) for other in answered[:-1]]
        reports[-1] = msgspec.structs.replace(reports[-1], comparisons=tuple(one for found in tests for one in found))
        write_json(folder / "reports.json", reports)

    def untuned(self, artefact: Path) -> EncoderPredictor | CausalPredictor:
        """The base as it is; a model that writes has the template and settings of the tuned one."""
        from residency.models.causal import CausalPredictor
        from residency.models.encoder import EncoderPredictor

        if self.output == "text":
            return CausalPredictor.untuned_of(artefact)
        return EncoderPredictor.untuned(self.base, self.card, self.recipe.seed)

    @property
    def show_text(self) -> bool:
        """Whether a report may quote notes."""
        asked = self.recipe.evaluate.show_text
        return self.profile in SHOWABLE if asked == "auto" else bool(asked)

    def do_report(self, folder: Path) -> None:
        """Write the report, its plots and the model card, and what they were made from."""
        from residency.evals.report import render

        self.tracker.start("writing the report")
        facts = self.facts()
        render(facts, folder)
        write_json(folder / "facts.json", facts)
        self.tracker.end()

    def facts(self) -> RunFacts:
        """Everything that the report shows, read from the finished steps."""
        folder, train = self.run.folder, self.run.folder / self.train_step().into
        data = read_json(folder / "data/summary.json", list[DataSummary])
        more = [msgspec.json.decode(line, type=Entry) for line in (train / "ledger.jsonl").read_bytes().splitlines()]
        caveats = []
        if all(note.origin.startswith("synthetic:") for note in self.corpus.notes):
            caveats.append(DEMO_CAVEAT)
        if self.base.id.startswith("bundled:"):
            caveats.append(BUNDLED_CAVEAT)
        return RunFacts(
            name=self.recipe.name,
            folder=folder.as_posix(),
            created=self.run.manifest.created,
            recipe=self.recipe.yaml(),
            base=self.base.id,
            base_digest=self.base.digest,
            hardware=hardware(),
            packages=packages(),
            data=tuple(with_entries(one, more) if one.name == self.task.data else one for one in data),
            stages=(read_json(train / "stage.json", StageResult),),
            reports=tuple(read_json(folder / self.eval_step().into / "reports.json", list[Report])),
            caveats=tuple(caveats),
            show_text=self.show_text,
        )

    def manifest(self, created: str, status: str) -> Manifest:
        """The run's manifest; the profile is what the recipe says until the data was read."""
        read = self.run.folder / "data/summary.json"
        known = read_json(read, list[DataSummary]) if status == "done" else self.recipe.data.values()
        return Manifest(
            schema=SCHEMA,
            name=self.recipe.name,
            recipe_digest=self.recipe.digest,
            root=str(self.recipe.root),
            created=created,
            code=packages().get("residency", ""),
            packages=packages(),
            hardware=hardware(),
            inputs=self.input_digests,
            profile=strictest(data.profile for data in known),
            status=status,
            steps={step.name: step.key for step in self.steps()},
            launch=launch.described(self.recipe.launch),
        )


Action = Callable[[Path], None]
"""The work of a step; writes to the empty folder that it is given."""


def run(recipe: Recipe, runs: Path | str = "runs", tracker: Tracker | None = None) -> Run:
    """Run a recipe; what is there already is not done again. Returns the run, whose folder holds ``report.html``."""
    work = Work(recipe, Path(runs), (tracker if launch.first() else None) or Silent())
    if launch.world() > 1:
        return together(work)
    return work.through((work.do_data, work.do_train, work.do_eval, work.do_report))


def together(work: Work) -> Run:
    """The same under torchrun: the first process does everything, the others join it where it trains, and end after that."""
    if not launch.first():
        if folder := launch.shared(str):
            work.do_train(Path(folder))
        raise SystemExit(0)
    told = False

    def train(folder: Path) -> None:
        nonlocal told
        told = True
        launch.shared(lambda: str(folder))
        work.do_train(folder)

    try:
        return work.through((work.do_data, train, work.do_eval, work.do_report))
    finally:
        if not told:
            launch.shared(str)


def finished_facts(run: Run) -> RunFacts:
    """What the report of a finished run was made from."""
    return read_json(run.folder / "facts.json", RunFacts)


def explain(recipe: Recipe, runs: Path | str = "runs") -> list[tuple[str, str]]:
    """For each step whether it will run, and what about it changed."""
    work = Work(recipe, Path(runs), Silent())
    return [(step.name, work.run.explain(step)) for step in work.steps()]


def open_run(folder: Path | str) -> tuple[Run, Recipe]:
    """A finished run and its recipe, from its folder."""
    found = Run(Path(folder))
    manifest = found.manifest
    from residency.recipe import read_yaml

    recipe = Recipe.from_mapping(
        read_yaml(found.folder / "recipe.yaml"), Path(manifest.root), where=str(found.folder / "recipe.yaml")
    )
    return found, recipe


def artefact_of(folder: Path | str) -> Path:
    """The trained model of a run's folder (or the artefact itself)."""
    folder = Path(folder)
    if (folder / "artefact.json").is_file():
        return folder
    Run(folder).manifest  # noqa: B018 - says what is wrong with the folder
    found = sorted(folder.glob("train/*/artefact.json"))
    if not found:
        raise UserError(f"{folder}: has no trained model yet; finish it with residency run.")
    return found[-1].parent


def predict(run: Run | Path | str, notes: Iterable[Note | RawNote | str]) -> Iterator[Prediction]:
    """Answers of a run's model, one per note, in order, in constant memory. Identified notes stay in memory only.

    A model that writes is given the note's turns or columns where it has some, else its text as the question. The model is
    loaded, and its faults are raised, before the first answer is asked for.
    """
    from residency.models import predictors

    folder = run.folder if isinstance(run, Run) else run
    with silent():
        predictor = predictors.trained(artefact_of(folder))
    return predictor.predict(
        question(
            Note(id=str(number), text=note, profile="pseudonymised") if isinstance(note, str) else note, predictor.card
        )
        for number, note in enumerate(notes)
    )


def evaluate(
    run: Run | Path | str, overrides: Sequence[str] = (), tracker: Tracker | None = None
) -> tuple[RunFacts, Path]:
    """Measure a run's model again, with other settings or on other data (``data.NAME.test=...``).

    Files named by an override are relative to the recipe's folder, and a test part takes the place of all that was named
    for that data set before. Writes a report of its own under ``RUN/evaluations`` and returns the facts in it and its
    folder.
    """
    work = evaluation(run, overrides, tracker)
    done = work.through((work.do_data, work.do_eval, work.do_report))
    return finished_facts(done), done.folder


def evaluation(
    run: Run | Path | str, overrides: Sequence[str] = (), tracker: Tracker | None = None, runs: Path | None = None
) -> Evaluation:
    """A run's model and what it is measured on, with a recipe that may be changed; nothing is done yet."""
    from residency.recipe import read_yaml

    folder = run.folder if isinstance(run, Run) else Path(run)
    _, trained = open_run(folder)
    value = read_yaml(folder / "recipe.yaml")
    for name, data in value["data"].items():
        if any(text.startswith(f"data.{name}.test=") for text in overrides):
            for key in ("path", "train", "dev", "shares", "stop", "limit"):
                data.pop(key, None)
    recipe = Recipe.from_mapping(value, trained.root, overrides, where="recipe")
    return Evaluation(recipe, runs or folder / "evaluations", tracker or Silent(), artefact_of(folder), folder)


class Evaluation(Work):
    """A trained model measured once more; its training is taken as it is."""

    def __init__(self, recipe: Recipe, runs: Path, tracker: Tracker, artefact: Path, run: Path) -> None:
        super().__init__(recipe, runs, tracker)
        self.trained, self.trained_run = artefact, run

    def steps(self) -> list[Step]:
        return [self.data_step(), self.eval_step(), self.report_step()]

    def facts(self) -> RunFacts:
        """As of a run; the folder is the one that predict takes."""
        return msgspec.structs.replace(super().facts(), folder=self.trained_run.as_posix())

    @cached_property
    def card(self) -> Card:
        """The card as the model learned it; raises ``UserError`` where the recipe's now asks something else."""
        from residency.models.artefact import read

        artefact = read(self.trained)
        learned, now = artefact.task(), self.recipe.card(self.task)
        if artefact.output == "text":
            changed = [part for part in ("system", "prompt", "answer") if getattr(learned, part) != getattr(now, part)]
            changed += ["chat_template"] if artefact.base.chat_template != self.base.chat_template else []
            if changed:
                raise UserError(
                    f"card {learned.name}: {' and '.join(changed)} changed after training, so the model would be asked what it "
                    "did not learn; restore the file, or train again with residency run."
                )
        return learned

    def train_step(self) -> Step:
        artefact = {"artefact": digest(msgspec.json.decode((self.trained / "artefact.json").read_bytes()))}
        return Step(
            name="train", settings={}, inputs={**artefact, **self.input_digests}, into=str(self.trained.resolve())
        )


def as_kept(prediction: Prediction, show_text: bool) -> Prediction:
    """A prediction as a run keeps it: offsets and labels, what was written only where notes may be shown."""
    answer = prediction.answer
    if isinstance(answer, Spans):
        answer = Spans(spans=tuple(msgspec.structs.replace(span, quote="") for span in answer.spans))
    elif isinstance(answer, Text) and not show_text:
        answer = Text()
    return msgspec.structs.replace(prediction, answer=answer, text=prediction.text if show_text else "")


def _dump(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", by_alias=True)
