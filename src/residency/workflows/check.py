"""Looks at everything that a run would need, reports every problem, and trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from residency.core.errors import ResidencyError
from residency.core.types import DataSummary, PartName, Value
from residency.corpus import load
from residency.corpus.ledger import ROWS
from residency.corpus.load import Corpus
from residency.corpus.reader import told
from residency.corpus.summary import summary
from residency.models.base import Base
from residency.models.erased import warning
from residency.models.predictors import kind_of, output_of
from residency.recipe import Recipe
from residency.tasks.examples import examples, fixed, unknown_labels
from residency.tasks.families import head_of
from residency.train.stage import Stage
from residency.workflows.steps import EvaluationTask, base_of, evaluation_tasks, trained_on

MOST_TOLD = 5
"""Rows and labels of a data set that are told one by one; the others are counted."""


class CheckFinding(Value, frozen=True):
    """One thing that ``check`` found."""

    level: str
    """``error`` (a run would stop), ``refused`` (a gate would stop it) or ``note``"""
    message: str


def check(
    recipe: Recipe, runs: Path = Path("runs")
) -> tuple[list[CheckFinding], list[DataSummary]]:
    """Read all data and look for every problem; trains nothing and writes nothing. ``runs``: where
    models of the recipe lie."""
    findings: list[CheckFinding] = []
    summaries: list[DataSummary] = []
    base, corpora = None, {}
    with _reported(findings):
        base = base_of(recipe)
    for name, data in recipe.data.items():
        # so that all is named, not what is met first
        lenient = data.model_copy(update={"max_rejected": 1.0, "leak": "warn"})
        with _reported(findings):
            corpora[name] = corpus = load.load(lenient, name, recipe.root, recipe.seed)
            summaries.append(summary(data, recipe.root, corpus))
            findings += _rejections(corpus, data.max_rejected, name)
            level = "refused" if corpus.leaks and data.leak == "refuse" else "note"
            findings += [
                _found(level, f"data.{name}: {words.rstrip('.')}.") for words in corpus.warnings
            ]
    for asked in evaluation_tasks(recipe):
        _check_task(recipe, asked, base, corpora, findings)
    models = sorted(runs.glob(f"{recipe.name}-*/train/*"))
    models += [Path(base.path)] if base and base.path else []
    for stage in recipe.stages:
        with _reported(findings):
            _check_lexical(recipe, stage)
    findings += [
        _found("note", f"{folder}: {words}") for folder in models if (words := warning(folder))
    ]
    return findings, summaries


def _check_lexical(recipe: Recipe, stage: Stage) -> None:
    """Whether a stage without a base has its library and its files."""
    from residency.models import crf

    if not stage.needs_base:
        crf.crfsuite()
        for name in getattr(stage.method, "dictionaries", ()):
            crf.read_terms(recipe.root / name)


def _found(level: str, message: str) -> CheckFinding:
    return CheckFinding(level=level, message=message)


@contextmanager
def _reported(findings: list[CheckFinding]) -> Iterator[None]:
    """Add what stands in the way to the findings, in place of ending there."""
    try:
        yield
    except ResidencyError as error:
        findings += [_found("error", line) for line in str(error).splitlines()]


def _check_task(
    recipe: Recipe,
    asked: EvaluationTask,
    base: Base | None,
    corpora: Mapping[str, Corpus],
    findings: list[CheckFinding],
) -> None:
    """Look at a task: its card and base, the parts and labels of its data, what is learned."""
    from residency.train.kinds import Reading, training_of

    task, where, card, head = asked.task, f"data.{asked.data}", None, None
    with _reported(findings):
        card = recipe.card(task)
        head = head_of(card, output_of(task.output, base, card)) if base else None
    if recipe.evaluate.safety and head:
        with _reported(findings):
            kind_of(head).check_able("safety", "evaluate.safety")
    sets = dict.fromkeys([task.data, *trained_on(recipe, task)])
    if card is None or not {asked.data, *sets} <= corpora.keys():
        return
    corpus = corpora[asked.data]
    learns = [stage for stage in recipe.stages if asked.data in trained_on(recipe, task, stage)]
    needed: tuple[PartName, ...] = ("train", "test") if learns else ("test",)
    empty = [part for part in needed if not corpus.part(part)]
    findings += [_found("error", f"{where}: the {part} part is empty.") for part in empty]
    with _reported(findings):
        train = [note for name in sets for note in corpora[name].part("train")]
        labelled = fixed(card, train, f"data.{task.data}")
        allowed = f"is not in card {labelled.name}; allowed: {', '.join(labelled.names)}."
        if len(recipe.tasks) == 1 and (odd := recipe.evaluate.prevalence.keys() - labelled.names):
            told_odd = ", ".join(sorted(odd))
            findings.append(_found("error", f"evaluate.prevalence: {told_odd} {allowed}"))
        unknown = unknown_labels(corpus.notes, labelled)
        more = len(unknown) - MOST_TOLD
        unknown = unknown[:MOST_TOLD]
        findings += [_found("error", f"{where}: {told(one)} {allowed}") for one in unknown]
        if more > 0:
            findings.append(_found("error", f"{where}: {more} more labels are not in the card."))
        if base and base.path and head:
            changed = training_of(head).changes(
                lambda part: examples(
                    corpus.part(part) if learns or part != "train" else [], labelled
                ),
                Reading(
                    base,
                    labelled,
                    task.limits,
                    learns[0].loss_on if learns else "all",
                    recipe.data[asked.data].max_rejected,
                ),
            )
            findings += [_found("note", f"{where}: {words}.") for words in changed]
    stopped = [stage for stage in learns if stage.stop and stage.needs_base]
    if stopped and not corpus.part("dev"):
        findings.append(_found("note", f"{where}: no stop part, so the last model is kept."))


def _rejections(corpus: Corpus, limit: float, name: str) -> list[CheckFinding]:
    """What became of rows, one by one where they are few: a file of another form has thousands."""
    rejected = [entry for entry in corpus.ledger if entry.status == "rejected"]
    rows = sum(entry.status in ROWS for entry in corpus.ledger)
    level = "error" if rows and len(rejected) / rows > limit else "note"
    found = [
        _found(level, f"{entry.file}:{entry.line}: row rejected: {entry.reason}.")
        for entry in rejected[:MOST_TOLD]
    ]
    reasons = Counter(entry.reason for entry in rejected[MOST_TOLD:])
    found += [
        _found(level, f"data.{name}: {count} more rows rejected: {reason}.")
        for reason, count in reasons.most_common(MOST_TOLD)
    ]
    if level == "error":
        share = f"data.{name}: {len(rejected)} of {rows} rows are rejected, more than"
        found.append(_found("error", f"{share} data.{name}.max_rejected = {limit:.1%}."))
    return found
