"""Looks at everything that a run would need, reports every problem, and trains nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from residency.core.errors import ResidencyError
from residency.core.types import PARTS, DataSummary, PartName, Value
from residency.corpus import sources
from residency.corpus.sources import Corpus
from residency.corpus.summary import summary
from residency.models.base import Base, resolve
from residency.models.predictors import output_of
from residency.recipe import Recipe
from residency.tasks.card import Card
from residency.tasks.examples import examples, fixed, unknown_labels

T = TypeVar("T")


class Finding(Value, frozen=True):
    """One thing that ``check`` found."""

    level: str
    """``error`` (a run would stop) or ``note``"""
    message: str


def check(recipe: Recipe) -> tuple[list[Finding], list[DataSummary]]:
    """Read all data and look for every problem; trains nothing and writes nothing."""
    findings: list[Finding] = []
    summaries: list[DataSummary] = []
    task = recipe.tasks[0]

    def attempt(action: Callable[[], T]) -> T | None:
        try:
            return action()
        except ResidencyError as error:
            findings.extend(Finding(level="error", message=line) for line in str(error).splitlines())
            return None

    base = attempt(lambda: resolve(recipe.base, recipe.root))
    card = attempt(lambda: recipe.card(task))
    output = attempt(lambda: output_of(task.output, base, card)) if base and card else None
    if recipe.evaluate.safety and output == "head":
        words = "evaluate.safety: is about models that write, and this one marks or chooses; set it to false."
        findings.append(Finding(level="error", message=words))
    corpora: dict[str, Corpus] = {}
    for name, data in recipe.data.items():
        lenient = data.model_copy(update={"loss": 1.0})  # so that every bad row is named, not the first share of them
        corpus = attempt(partial(sources.load, lenient, name, recipe.root, recipe.seed))
        if corpus is not None:
            corpora[name] = corpus
            summaries.append(summary(data, recipe.root, corpus))
            findings.extend(_rejections(corpus, data.loss, name))
    corpus = corpora.get(task.data)
    if card is not None and corpus is not None:
        needed: tuple[PartName, ...] = ("train", "test")
        empty = [part for part in needed if not corpus.part(part)]
        findings.extend(
            Finding(level="error", message=f"data.{task.data}: the {part} part is empty.") for part in empty
        )
        labelled = attempt(lambda: fixed(card, corpus.part("train"), f"data.{task.data}"))
        if labelled is not None:
            names = ", ".join(labelled.names)
            findings.extend(
                Finding(
                    level="error",
                    message=f"data.{task.data}: label {label!r} is not in card {labelled.name}; allowed: {names}.",
                )
                for label in unknown_labels(corpus.notes, labelled)
            )
            if base is not None and output == "text":
                loss = recipe.data[task.data].loss
                learned = attempt(lambda: _learned(recipe, base, labelled, corpus, loss))
                findings.extend(Finding(level="note", message=words) for words in learned or ())
        if not corpus.part("dev") and recipe.stages[0].stop:
            findings.append(
                Finding(level="note", message=f"data.{task.data}: no stop part, so the last model is kept.")
            )
    return findings, summaries


def _learned(recipe: Recipe, base: Base, card: Card, corpus: Corpus, loss: float) -> list[str]:
    """What becomes of the training conversations on their way to the model; every part is put into words."""
    from residency.models import artefact
    from residency.train import conversations

    task, stage = recipe.tasks[0], recipe.stages[0]
    for part in PARTS[1:]:
        examples(corpus.part(part), card)
    chat = artefact.chat(base, task.limits)
    items = conversations.build(examples(corpus.part("train"), card), chat, card, stage.loss_on, loss)
    changed = [f"data.{task.data}: {times} training rows: {why}." for why, times in items.changed.items()]
    left = Counter(items.rejected.values())
    return changed + [f"data.{task.data}: {times} training rows left out: {why}." for why, times in left.items()]


def _rejections(corpus: Corpus, limit: float, name: str) -> list[Finding]:
    rejected = [entry for entry in corpus.ledger if entry.status == "rejected"]
    rows = sum(entry.status in ("kept", "repaired", "rejected") for entry in corpus.ledger)
    level = "error" if rows and len(rejected) / rows > limit else "note"
    found = [
        Finding(level=level, message=f"{entry.file}:{entry.line}: row rejected: {entry.reason}.") for entry in rejected
    ]
    if level == "error":
        share = f"data.{name}: {len(rejected)} of {rows} rows are rejected, more than data.{name}.loss = {limit:.1%}."
        found.append(Finding(level="error", message=share))
    return found
