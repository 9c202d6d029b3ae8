"""Looks at everything that a run would need, reports every problem, and trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from residency.core.errors import ResidencyError
from residency.core.types import PARTS, DataSummary, Note, PartName, Value
from residency.corpus import load
from residency.corpus.load import Corpus
from residency.corpus.summary import summary
from residency.models import erased
from residency.models.base import Base, resolve
from residency.models.predictors import output_of
from residency.recipe import Recipe, Task
from residency.tasks.card import Card
from residency.tasks.examples import examples, fixed, unknown_labels
from residency.workflows.steps import evaluation_tasks, trained_on

T = TypeVar("T")
LossOn = Literal["all", "last"]


class Finding(Value, frozen=True):
    """One thing that ``check`` found."""

    level: str
    """``error`` (a run would stop), ``refused`` (a gate would stop it) or ``note``"""
    message: str


def check(recipe: Recipe, runs: Path = Path("runs")) -> tuple[list[Finding], list[DataSummary]]:
    """Read all data and look for every problem; trains nothing and writes nothing. ``runs``: where
    models of the recipe lie."""
    findings: list[Finding] = []
    summaries: list[DataSummary] = []

    def attempt(action: Callable[[], T]) -> T | None:
        try:
            return action()
        except ResidencyError as error:
            findings.extend(
                Finding(level="error", message=line) for line in str(error).splitlines()
            )
            return None

    base = attempt(lambda: resolve(recipe.base, recipe.root))
    corpora: dict[str, Corpus] = {}
    for name, data in recipe.data.items():
        # Lenient, so that all is named, not what is met first.
        lenient = data.model_copy(update={"max_rejected": 1.0, "leak": "warn"})
        corpus = attempt(partial(load.load, lenient, name, recipe.root, recipe.seed))
        if corpus is not None:
            corpora[name] = corpus
            summaries.append(summary(data, recipe.root, corpus))
            findings.extend(_rejections(corpus, data.max_rejected, name))
            refuses = bool(corpus.leaks) and data.leak == "refuse"
            findings.extend(
                Finding(level="refused" if refuses else "note", message=f"data.{name}: {words}.")
                for words in corpus.warnings
            )
    for asked in evaluation_tasks(recipe):
        task, data_name = asked.task, asked.data
        card = attempt(partial(recipe.card, task))
        output = attempt(partial(output_of, task.output, base, card)) if base and card else None
        if recipe.evaluate.safety and output == "head":
            words = (
                "evaluate.safety: is about generative models, and this one marks or chooses; "
                "set it to false."
            )
            findings.append(Finding(level="error", message=words))
        if card is None or not {data_name, task.data, *trained_on(recipe, task)} <= corpora.keys():
            continue
        corpus = corpora[data_name]
        learns = [stage for stage in recipe.stages if data_name in trained_on(recipe, task, stage)]
        needed: tuple[PartName, ...] = ("train", "test") if learns else ("test",)
        empty = [part for part in needed if not corpus.part(part)]
        findings.extend(
            Finding(level="error", message=f"data.{data_name}: the {part} part is empty.")
            for part in empty
        )
        labelled = attempt(lambda: fixed(card, _train(recipe, corpora, task), f"data.{task.data}"))  # noqa: B023
        if labelled is not None:
            names = ", ".join(labelled.names)
            findings.extend(
                Finding(
                    level="error",
                    message=f"data.{data_name}: label {label!r} is not in card {labelled.name}; "
                    f"allowed: {names}.",
                )
                for label in unknown_labels(corpus.notes, labelled)
            )
            if base is not None and output == "text":
                loss_on = learns[0].loss_on if learns else "all"
                about = (task, data_name, loss_on)
                learned = attempt(partial(_learned, recipe, base, labelled, corpus, about))
                findings.extend(Finding(level="note", message=words) for words in learned or ())
        if learns and not corpus.part("dev") and any(stage.stop for stage in learns):
            findings.append(
                Finding(
                    level="note",
                    message=f"data.{data_name}: no stop part, so the last model is kept.",
                )
            )
    findings.extend(
        _erased(
            [*sorted(runs.glob(f"{recipe.name}-*/train/*")), *([Path(base.path)] if base else [])]
        )
    )
    return findings, summaries


def _train(recipe: Recipe, corpora: dict[str, Corpus], task: Task) -> list[Note]:
    """The training notes of every data set that a task is trained on."""
    sets = dict.fromkeys([task.data, *trained_on(recipe, task)])
    return [note for name in sets for note in corpora[name].part("train")]


def _erased(models: Iterable[Path]) -> list[Finding]:
    """Models that learned from notes which are gone."""
    warnings = [(folder, erased.warning(folder)) for folder in models]
    return [
        Finding(level="note", message=f"{folder}: {words}") for folder, words in warnings if words
    ]


def _learned(
    recipe: Recipe, base: Base, card: Card, corpus: Corpus, about: tuple[Task, str, LossOn]
) -> list[str]:
    """What becomes of the training conversations on their way to the model; every part is put into
    words."""
    from residency.models import artefact
    from residency.train import conversation_items

    task, data, loss_on = about
    for part in PARTS[1:]:
        examples(corpus.part(part), card)
    chat = artefact.chat(base, task.limits)
    rows = examples(corpus.part("train"), card)
    if not rows:
        return []
    items = conversation_items.build(rows, chat, card, loss_on, recipe.data[data].max_rejected)
    changed = [
        f"data.{data}: {times} training rows: {why}." for why, times in items.changed.items()
    ]
    left = Counter(items.rejected.values())
    return changed + [
        f"data.{data}: {times} training rows left out: {why}." for why, times in left.items()
    ]


def _rejections(corpus: Corpus, limit: float, name: str) -> list[Finding]:
    rejected = [entry for entry in corpus.ledger if entry.status == "rejected"]
    rows = sum(entry.status in ("kept", "repaired", "rejected") for entry in corpus.ledger)
    level = "error" if rows and len(rejected) / rows > limit else "note"
    found = [
        Finding(level=level, message=f"{entry.file}:{entry.line}: row rejected: {entry.reason}.")
        for entry in rejected
    ]
    if level == "error":
        share = (
            f"data.{name}: {len(rejected)} of {rows} rows are rejected, more than "
            f"data.{name}.max_rejected = {limit:.1%}."
        )
        found.append(Finding(level="error", message=share))
    return found
