"""Several systems on the same items: trained runs, the base, models behind a server; which
differences are real."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.errors import GateRefused, UserError
from residency.core.files import digest, read_json, write_json, write_jsonl
from residency.core.progress import Silent, Tracker
from residency.core.run_folder import Run, Step, hardware
from residency.core.types import (
    Comparison,
    Cost,
    Prediction,
    Predictor,
    Report,
    RunFacts,
    StageResult,
)
from residency.models.base import silent
from residency.workflows.run import Evaluation, artefact_of, as_kept, evaluation, finished_facts

if TYPE_CHECKING:
    from residency.tasks.card import Card

BASE = "base"
API = "api:"


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
    folders = [name for name in systems if name != BASE and not name.startswith(API)]
    if not folders:
        raise UserError(
            "compare: name at least one run's folder; its test items are what all systems are "
            "asked."
        )
    if len(set(systems)) < 2:
        raise UserError("compare: name at least two systems: folders of runs, base, or api:NAME.")
    work = evaluation(folders[0], overrides, tracker or Silent(), Path(runs))
    kind = {name: 0 if name == BASE else 1 if name.startswith(API) else 2 for name in systems}
    contest = Contest(work, tuple(sorted(kind, key=lambda name: kind[name])))
    done = contest.through()
    return finished_facts(done), done.folder


class Contest:
    """One comparison on its way; its folder depends on what is compared."""

    def __init__(self, work: Evaluation, systems: tuple[str, ...]) -> None:
        self.work, self.systems = work, systems
        self.names = {system: _shown(system, systems) for system in systems}
        key = digest([work.recipe.digest, *sorted(systems)])[:8]
        work.run = Run(work.runs / f"compare-{work.recipe.name}-{key}")

    def through(self) -> Run:
        """Data, answers and tests, report; what is done already is not done again."""
        for system in self.systems:  # what is missing is said before the first hour of prediction
            self.check(system)
        work = self.work
        work.eval_step = self.step  # type: ignore[method-assign, assignment]
        work.facts = self.facts  # type: ignore[method-assign]
        return work.through((work.do_data, self.ask, work.do_report))

    def step(self) -> Step:
        """What the answers depend on."""
        inputs = {system: self.digest_of(system) for system in self.systems}
        settings = {
            "evaluate": self.work.recipe.model_dump(mode="json")["evaluate"],
            "seed": self.work.recipe.seed,
        }
        return Step(
            name="compare",
            settings=settings,
            inputs={**inputs, **self.work.input_digests},
            into="compare",
        )

    def digest_of(self, system: str) -> str:
        """Hash of what answers."""
        if system.startswith(API):
            api = self.api(system)
            return digest([api.url, api.model])
        if system == BASE:
            return self.work.base.digest
        return digest(msgspec.json.decode((artefact_of(system) / "artefact.json").read_bytes()))

    def api(self, system: str) -> Any:
        """The settings of a server."""
        from residency.core.errors import allowed

        apis, name = self.work.recipe.evaluate.apis, system.removeprefix(API)
        if name not in apis:
            known = allowed(apis, name) if apis else "none is configured"
            raise UserError(
                f"{system}: is no entry of evaluate.apis ({known}); add one, e.g. "
                f"evaluate.apis.{name or 'NAME'}={{url: https://..., model: ..., key: API_KEY}}."
            )
        return apis[name]

    def check(self, system: str) -> None:
        """Whether a system can be asked the first run's questions."""
        from residency.models import artefact as artefacts

        if system.startswith(API):
            api = self.api(system)
            barred = sorted(
                {example.profile for example in self.work.test_part()} - {*api.profiles}
            )
            if barred:
                raise GateRefused(
                    f"{system}: notes of profile {', '.join(barred)} may not leave this machine "
                    "(evaluate.apis."
                    f"{system.removeprefix(API)}.profiles allows {', '.join(api.profiles)}); "
                    "nothing was sent."
                )
        elif system != BASE:
            learned, asked = artefacts.read(artefact_of(system)).task(), self.work.card
            if (learned.family, sorted(learned.names)) != (asked.family, sorted(asked.names)):
                raise UserError(
                    f"{system}: learned card {learned.name} ({learned.family}; "
                    f"{', '.join(learned.names) or 'no labels'}), but what is "
                    f"compared is card {asked.name} ({asked.family}; "
                    f"{', '.join(asked.names) or 'no labels'}); compare runs of one task."
                )

    def predictor(self, system: str) -> Predictor:
        """Who answers."""
        from residency.models import predictors
        from residency.models.remote import RemotePredictor

        if system.startswith(API):
            kept = self.work.run.scratch(self.step()) / f"{system.removeprefix(API)}.jsonl"
            return RemotePredictor(self.api(system), system.removeprefix(API), self.work.card, kept)
        if system == BASE:
            return self.work.untuned(self.work.trained)
        return predictors.trained(artefact_of(system))

    def ask(self, folder: Path) -> None:
        """Every system on every item, then every pair of systems tested."""
        from residency.evals.measure import evaluate

        work, test = self.work, self.work.test_part()
        if not test:
            raise UserError(
                f"data.{work.task.data}.test: there is nothing to compare on; give a test part."
            )
        reports: list[Report] = []
        answered: list[tuple[Any, Sequence[Prediction]]] = []
        costs = []
        for system in self.systems:
            name = self.names[system]
            work.tracker.start(f"asking {name}", len(test))
            with silent():
                predictor = self.predictor(system)
                report, predictions = evaluate(
                    predictor,
                    test,
                    work.card,
                    bootstrap=work.recipe.evaluate.bootstrap,
                    seed=work.recipe.seed,
                    show_text=work.show_text,
                    progress=work.tracker.update,
                )
            info = msgspec.structs.replace(report.system, name=name)
            reports.append(msgspec.structs.replace(report, system=info))
            answered.append((info, predictions))
            costs.append(cost(system, name, info.method, predictions))
            write_jsonl(
                folder / f"{name.replace(':', '-')}.predictions.jsonl",
                (as_kept(one, work.show_text) for one in predictions),
            )
            work.tracker.end(
                " ".join(
                    f"{s.metric} {s.value:.3f}"
                    for s in report.scores
                    if s.metric == work.card.main_metric
                )
            )
        tests = tested(test, answered, work.card, work.recipe.seed)
        reports[-1] = msgspec.structs.replace(reports[-1], comparisons=tests)
        write_json(folder / "reports.json", reports)
        write_json(folder / "costs.json", costs)

    def facts(self) -> RunFacts:
        """Everything that the report shows."""
        folder = self.work.run.folder
        facts = Evaluation.facts(self.work)
        return msgspec.structs.replace(
            facts,
            name=f"{self.work.recipe.name}: {len(self.systems)} systems compared",
            folder=folder.as_posix(),
            stages=(),
            reports=tuple(read_json(folder / "compare/reports.json", list[Report])),
            costs=tuple(read_json(folder / "compare/costs.json", list[Cost])),
        )


def tested(
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
    )


def _shown(system: str, systems: Sequence[str]) -> str:
    """A run by its folder's name, with the one above where two are called alike."""
    if system == BASE or system.startswith(API):
        return system
    path = Path(system).resolve()
    alike = [
        other for other in systems if other != system and Path(other).resolve().name == path.name
    ]
    return f"{path.parent.name}/{path.name}" if alike else path.name
