"""Several systems on the same items: trained runs, the base, models behind a server; which
differences are real."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from residency.core.errors import GateRefused, UserError, allowed
from residency.core.files import digest, read_json, write_json
from residency.core.progress import Silent, Tracker
from residency.core.run_folder import Run, Step, hardware
from residency.core.types import Comparison, Cost, Prediction, RunFacts, StageResult, Value
from residency.models.base import NO_BASE, silent
from residency.models.remote import Api
from residency.recipe import Recipe
from residency.workflows.evaluate import (
    Evaluation,
    ask,
    main_score,
    read_evaluation,
    report_facts,
    task_of_evaluation,
    untuned,
    write_data,
    write_facts,
)
from residency.workflows.finished import artefact_of, finished_facts
from residency.workflows.material import (
    Material,
    TaskOnData,
    material_of,
    measured_examples,
    read_data,
)
from residency.workflows.steps import Inputs, data_step, is_finished, report_step, under_way

if TYPE_CHECKING:
    from residency.models.predictors import Answering
    from residency.models.remote import RemotePredictor
    from residency.tasks.card import Card

    AnyPredictor = Answering | RemotePredictor

WARM = 2
"""Answers of a system on this machine before time is taken."""
BASE = "base"
API = "api:"


class Contest(Value, frozen=True):
    """What is compared: the systems in their order, on the test items of the first run, and in
    ``wanted.inputs`` the folder of the comparison."""

    wanted: Evaluation
    names: dict[str, str]
    """System, as it was given -> what the report calls it."""


def compare(
    systems: Sequence[str],
    overrides: Sequence[str] = (),
    runs: Path | str = "runs",
    tracker: Tracker | None = None,
) -> tuple[RunFacts, Path]:
    """Ask every system the test items of the first run among ``systems``, score, and test each
    pair.

    ``systems``: folders of runs, ``base`` (of the first run), ``api:NAME`` (of ``evaluate.apis``).
    ``overrides`` change the first run's recipe. Returns the facts of the report and its folder.
    Raises ``UserError`` for systems that are not there or were made for another task;
    ``GateRefused`` where notes may not go to a server.
    """
    return hold(contest_of(systems, overrides, runs), tracker)


def contest_of(
    systems: Sequence[str], overrides: Sequence[str] = (), runs: Path | str = "runs"
) -> Contest:
    """What ``compare`` would compare, and its folder; asks nothing of any system. Raises
    ``UserError`` for systems that are not there, are one, or are too few."""
    folders = [name for name in systems if name != BASE and not name.startswith(API)]
    if not folders:
        raise UserError(
            "compare: name at least one run's folder; its test items are what all systems are "
            "asked."
        )
    if len(set(systems)) < 2:
        raise UserError("compare: name at least two systems: folders of runs, base, or api:NAME.")
    models: dict[Path, str] = {}
    for name in folders:
        other = models.setdefault(artefact_of(name).resolve(), name)
        if other != name:
            raise UserError(
                f"compare: {other} and {name} are one run, and a run does not differ from itself; "
                "name another one, base, or api:NAME."
            )
    wanted = read_evaluation(folders[0], overrides, Path(runs))
    recipe = wanted.inputs.recipe
    key = digest([recipe.digest, *sorted(systems)])[:8]
    folder = Path(runs) / f"compare-{recipe.name}-{key}"
    wanted = replace(wanted, inputs=replace(wanted.inputs, folder=folder))
    kind = {name: 0 if name == BASE else 1 if name.startswith(API) else 2 for name in systems}
    ordered = sorted(kind, key=lambda name: kind[name])
    return Contest(wanted=wanted, names={name: _name_of(name, ordered) for name in ordered})


def hold(contest: Contest, tracker: Tracker | None = None) -> tuple[RunFacts, Path]:
    """Compare the systems of a contest, as ``compare`` does; what is there is not done again."""
    wanted, recipe = contest.wanted, contest.wanted.inputs.recipe
    folder = wanted.inputs.folder
    done, data, asked = Run(folder), data_step(wanted.inputs), _step(contest)
    report = report_step(recipe, data, [asked])
    material = None
    if not is_finished(done, [data, asked, report]):
        # what is missing, and what may not leave, is said before anything is written
        tracker = tracker or Silent()
        material = material_of(wanted.inputs, read_data(recipe, tracker), tracker)
        one = task_of_evaluation(wanted, material)
        for system in contest.names:
            _check(contest, one, system)
    with under_way(done, [data, asked, report], wanted.inputs) as unfinished:
        if unfinished and material is not None:
            done.do(data, partial(write_data, material))
            done.do(asked, partial(_ask_all, contest, material, one))
            done.do(report, partial(_report, contest, material, one, asked))
    return finished_facts(done), done.folder


def _step(contest: Contest) -> Step:
    """What the answers depend on."""
    recipe, inputs = contest.wanted.inputs.recipe, contest.wanted.inputs
    return Step(
        name="compare",
        settings={key: recipe.settings[key] for key in ("evaluate", "seed", "data", "tasks")},
        inputs={**{one: _digest_of(one, inputs) for one in contest.names}, **inputs.files},
        into="compare",
    )


def _digest_of(system: str, inputs: Inputs) -> str:
    """Hash of what answers."""
    if system.startswith(API):
        api = _api(system, inputs.recipe)
        return digest([api.url, api.model])
    if system == BASE:
        return inputs.base.digest
    return digest(msgspec.json.decode((artefact_of(system) / "artefact.json").read_bytes()))


def _api(system: str, recipe: Recipe) -> Api:
    """The settings of a server."""
    apis, name = recipe.evaluate.apis, system.removeprefix(API)
    if name not in apis:
        known = allowed(apis, name) if apis else "none is configured"
        raise UserError(
            f"{system}: is no entry of evaluate.apis ({known}); add one, e.g. "
            f"evaluate.apis.{name or 'NAME'}={{url: https://..., model: ..., key: API_KEY}}."
        )
    return apis[name]


def _check(contest: Contest, one: TaskOnData, system: str) -> None:
    """Whether a system can be asked the first run's questions."""
    from residency.models import artefact as artefacts

    recipe = contest.wanted.inputs.recipe
    if system.startswith(API):
        api = _api(system, recipe)
        profiles = {example.profile for example in measured_examples(one, recipe)}
        if barred := sorted(profiles - {*api.profiles}):
            raise GateRefused(
                f"{system}: notes of profile {', '.join(barred)} may not leave this machine "
                f"(evaluate.apis.{system.removeprefix(API)}.profiles allows "
                f"{', '.join(api.profiles)}); nothing was sent."
            )
    elif system == BASE:
        if contest.wanted.inputs.base is NO_BASE:
            raise UserError(
                "base: the first run starts from no base; leave it out, or name a run that has one "
                "first."
            )
    else:
        learned, asked = artefacts.read(artefact_of(system)).task(), one.card
        if (learned.family, sorted(learned.names)) != (asked.family, sorted(asked.names)):
            raise UserError(
                f"{system}: learned card {learned.name} ({learned.family}; "
                f"{', '.join(learned.names) or 'no labels'}), but what is compared is card "
                f"{asked.name} ({asked.family}; {', '.join(asked.names) or 'no labels'}); compare "
                "runs of one task."
            )


def _predictor(contest: Contest, one: TaskOnData, system: str) -> AnyPredictor:
    """Who answers, under the name that the report uses."""
    from residency.models import predictors
    from residency.models.remote import RemotePredictor

    wanted = contest.wanted
    predictor: AnyPredictor
    if system.startswith(API):
        name = system.removeprefix(API)
        kept = Run(wanted.inputs.folder).scratch(_step(contest)) / f"{name}.jsonl"
        predictor = RemotePredictor(_api(system, wanted.inputs.recipe), name, one.card, kept)
    elif system == BASE:
        predictor = untuned(wanted.inputs, one, wanted.artefact)
    else:
        predictor = predictors.trained(artefact_of(system))
    predictor.info = replace(predictor.info, name=contest.names[system])
    return predictor


def _ask_all(contest: Contest, material: Material, one: TaskOnData, folder: Path) -> None:
    """Every system on every item, then every pair of systems tested."""
    recipe = contest.wanted.inputs.recipe
    test = measured_examples(one, recipe)
    reports, answered, costs = [], [], []
    for system, name in contest.names.items():
        with silent():
            predictor = _predictor(contest, one, system)
            if not system.startswith(
                API
            ):  # a server's first answers may cost as much as the others
                material.tracker.start(f"warming {name} up")
                deque(predictor.predict(test[:WARM]), maxlen=0)
                material.tracker.end()
            material.tracker.start(f"asking {name}", len(test))
            report, predictions = ask(material, one.card, predictor, test, folder)
        reports.append(report)
        answered.append((report.system, predictions))
        costs.append(cost(system, name, report.system.method, predictions))
        material.tracker.end(main_score(report, one.card))
    tests = test_pairs(test, answered, one.card, recipe.seed)
    reports[-1] = replace(reports[-1], comparisons=tests)
    write_json(folder / "reports.json", reports)
    write_json(folder / "costs.json", costs)


def _report(
    contest: Contest, material: Material, one: TaskOnData, asked: Step, folder: Path
) -> None:
    """Write the report on all systems."""
    wanted = contest.wanted
    facts = report_facts(material, one, {"tuned": wanted.artefact}, [asked], wanted)
    facts = replace(
        facts,
        caveats=(*facts.caveats, *(words for words in _seen(contest, one) if words)),
        name=f"{wanted.inputs.recipe.name}: {len(contest.names)} systems compared",
        folder=wanted.inputs.folder.as_posix(),
        stages=(),
        costs=tuple(read_json(wanted.inputs.folder / "compare/costs.json", list[Cost])),
    )
    write_facts(material, facts, folder)


def _seen(contest: Contest, one: TaskOnData) -> Iterator[str]:
    """A sentence for each run that learned from notes on which the systems are compared."""
    recipe = contest.wanted.inputs.recipe
    asked = {example.note or example.id for example in measured_examples(one, recipe)}
    files = set(contest.wanted.inputs.files.values())
    for system, name in contest.names.items():
        if system == BASE or system.startswith(API):
            continue
        parts = learned_from(run_of(system), files)
        trained, stopped = (len(asked & parts[part]) for part in ("train", "dev"))
        if trained or stopped:
            yield (
                f"{name} was trained on {trained:,} of the {len(asked):,} notes that the systems "
                f"are compared on, and {stopped:,} more told it when to stop: its score is too "
                "high, and no difference to it is evidence. Compare runs of one split (residency "
                "split), or on notes that none of them saw."
            )


def run_of(system: str) -> Path:
    """The run's folder of a system that was given as that, or as its artefact."""
    folder = Path(system)
    return folder.parents[1] if (folder / "artefact.json").is_file() else folder


def learned_from(run: Path, files: set[str]) -> dict[str, set[str]]:
    """The notes in the parts train and dev of a run, by id; only of data whose files (SHA-256) are
    among ``files``, since elsewhere an id is another note's."""
    from residency.corpus import splitfile

    found: dict[str, set[str]] = {"train": set(), "dev": set()}
    for path in sorted((run / "data").glob(f"*{splitfile.SUFFIX}")):
        split = splitfile.read(path)
        if files.isdisjoint(split.files.values()):
            continue
        for id, part in split.split.parts.items():
            if part in found:
                found[part].add(id)
    return found


def test_pairs(
    examples: Sequence[Any],
    answered: Sequence[tuple[Any, Sequence[Prediction]]],
    card: Card,
    seed: int,
) -> tuple[Comparison, ...]:
    """Every pair of systems, p also corrected for their number (Holm), metric by metric."""
    from residency.evals.paired_tests import compare as pair
    from residency.evals.paired_tests import corrected

    found = [
        test for a, b in combinations(answered, 2) for test in pair(examples, a, b, card, seed=seed)
    ]
    metrics = dict.fromkeys(test.metric for test in found)
    return tuple(
        one
        for metric in metrics
        for one in corrected([test for test in found if test.metric == metric])
    )


def cost(system: str, name: str, method: str, predictions: Iterable[Prediction]) -> Cost:
    """What a system takes to ask, and, where it is a run, took to make."""
    timed = [
        (one.latency_ms, one.tokens)
        for one in predictions
        if one.latency_ms is not None and one.tokens
    ]
    tokens = sum(count or 0 for _, count in timed)
    speed = 100 * sum(took or 0.0 for took, _ in timed) / tokens if tokens else None
    asked = Cost(
        system=name,
        method=method,
        ms_per_100_tokens=speed,
        hardware="" if system.startswith(API) else hardware(),
    )
    stage = (
        artefact_of(system) / "stage.json"
        if system != BASE and not system.startswith(API)
        else None
    )
    if stage is None or not stage.is_file():
        return asked
    made = read_json(stage, StageResult)
    return msgspec.structs.replace(
        asked,
        trainable=made.trainable,
        train_seconds=made.seconds,
        train_memory_mb=made.peak_memory_mb,
        train_joules=made.joules,
    )


def _name_of(system: str, systems: Sequence[str]) -> str:
    """A run by its folder's name, with the one above where two are called alike."""
    if system == BASE or system.startswith(API):
        return system
    path = Path(system).resolve()
    alike = [
        other for other in systems if other != system and Path(other).resolve().name == path.name
    ]
    return f"{path.parent.name}/{path.name}" if alike else path.name
