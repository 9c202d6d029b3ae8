"""What a trained model must beat: systems that learn from the training part in no time.

One class each, found by its name; ``base``, the untuned base, is the predictors' matter.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from residency.core.errors import UserError, allowed
from residency.core.types import (
    Answer,
    Example,
    Labels,
    Prediction,
    PredictorInfo,
    Span,
    Spans,
)
from residency.core.units import units
from residency.models import crf
from residency.models.adapters.crf import Crf
from residency.models.lexical import Slots, Terms, word
from residency.tasks.bio import decode
from residency.tasks.card import Card
from residency.tasks.families import classifier_of, of
from residency.tasks.heads import SEQUENCE, TOKENS, Head

BaselineName = Literal["base", "crf", "dictionary", "majority", "chance"]


class Baseline:
    """A system that learned from examples."""

    heads: ClassVar[tuple[Head, ...]] = ()
    """The classifiers whose tasks it answers."""
    title: ClassVar[str] = ""

    @classmethod
    def learned(
        cls, examples: Sequence[Example], card: Card, seed: int, fitted: Iterable[Path] = ()
    ) -> Baseline | crf.CrfPredictor:
        """The system, ready to answer; see ``learn``."""
        return cls(examples, card, seed)

    def __init__(self, examples: Sequence[Example], card: Card, seed: int) -> None:
        self.card, self.seed = card, seed
        self.info = PredictorInfo(name=self.title, base="none", method=self.title)
        self.learn(crf.learned(examples, card))

    def learn(self, rows: Sequence[crf.Learned]) -> None:
        """Take up the training part."""
        raise NotImplementedError

    def answer(self, example: Example, slots: Slots) -> Answer:
        """The answer to an example."""
        raise NotImplementedError

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """One prediction per example, in order."""
        for example in examples:
            started, slots = time.perf_counter(), units(example.input)
            found = self.answer(example, slots)
            took = (time.perf_counter() - started) * 1000
            yield Prediction(id=example.id, answer=found, latency_ms=took, tokens=len(slots))


class Dictionary(Baseline):
    """The spans of the training part, each with its commonest label, by the longest match."""

    heads, title = (TOKENS,), "dictionary"

    def learn(self, rows: Sequence[crf.Learned]) -> None:
        self.terms = Terms(crf.count_terms(crf.own_terms(rows, self.card)))

    def answer(self, example: Example, slots: Slots) -> Answer:
        text = example.input
        found = self.terms.find([word(text[start:end]) for start, end in slots])
        return Spans(
            spans=tuple(
                span_of(text, slots[first][0], slots[behind - 1][1], label)
                for first, behind, label in found
            )
        )


class Majority(Baseline):
    """The commonest labels of the training part."""

    heads, title = (SEQUENCE,), "majority"

    def learn(self, rows: Sequence[crf.Learned]) -> None:
        said = label_sets(rows, self.card)
        counts = Counter(name for labels in said for name in labels)
        self.shares = {name: counts[name] / len(said) for name in self.card.names}
        self.commonest = max(sorted(set(said)), key=Counter(said).__getitem__)

    def answer(self, example: Example, slots: Slots) -> Answer:
        scores = tuple(self.shares[name] for name in self.commonest)
        return Labels(labels=self.commonest, scores=scores, chances=self.shares)


class Chance(Baseline):
    """Labels, or spans anywhere, drawn as often as they occur in the training part."""

    heads, title = (SEQUENCE, TOKENS), "chance"

    def learn(self, rows: Sequence[crf.Learned]) -> None:
        self.marks = classifier_of(self.card).by_token
        if self.marks:
            self.lengths = [found for row in rows for found in span_lengths(row, self.card)]
            slots = sum(len(row.slots) for row in rows)
            inside = sum(length for length, _ in self.lengths)
            self.rate = len(self.lengths) / max(1, slots - inside + len(self.lengths))
        else:
            self.sets = label_sets(rows, self.card)

    def answer(self, example: Example, slots: Slots) -> Answer:
        drawn = random.Random(f"{self.seed} {example.id}")
        if not self.marks:
            return Labels(labels=drawn.choice(self.sets))
        found, at = [], 0
        while at < len(slots):
            length = 1
            if drawn.random() < self.rate:
                length, label = drawn.choice(self.lengths)
                last = min(at + length, len(slots)) - 1
                found.append(span_of(example.input, slots[at][0], slots[last][1], label))
            at += length
        return Spans(spans=tuple(found))


class CrfBaseline(Baseline):
    """A CRF by its defaults (``method: {kind: crf}``)."""

    heads, title = (TOKENS, SEQUENCE), "crf"

    @classmethod
    def learned(
        cls, examples: Sequence[Example], card: Card, seed: int, fitted: Iterable[Path] = ()
    ) -> Baseline | crf.CrfPredictor:
        for folder in fitted:
            if crf.is_fitted(folder, examples, card, Crf()):
                return crf.CrfPredictor.of_files(folder, card, cls.title, cls.title)
        with tempfile.TemporaryDirectory(prefix="residency-") as made:
            crf.fit(examples, card, Crf(), Path(made))
            return crf.CrfPredictor.of_files(Path(made), card, cls.title, cls.title)


KINDS: dict[str, type[Baseline]] = {
    one.title: one for one in (CrfBaseline, Dictionary, Majority, Chance)
}


def learn(
    name: str, examples: Sequence[Example], card: Card, seed: int, fitted: Iterable[Path] = ()
) -> Baseline | crf.CrfPredictor:
    """A baseline by its name, learned from the training part; the same seed, the same answers.

    ``fitted``: artefacts that may hold the CRF already, fitted to these very examples. Raises
    ``UserError`` where it does not answer the card.
    """
    head = of(card).classifier
    able = [title for title, kind in KINDS.items() if head in kind.heads]
    if name not in able:
        raise UserError(
            f"evaluate.baselines: {name} does not answer card {card.name}; "
            f"{allowed(['base', *able], name)}."
        )
    # a row may bring choices of its own, which the card does not have
    known = [
        one
        for one in examples
        if one.gold is not None and set(of(card).labels(one.gold, card)) <= {*card.names}
    ]
    return KINDS[name].learned(known, card, seed, fitted)


def label_sets(rows: Sequence[crf.Learned], card: Card) -> list[tuple[str, ...]]:
    """The labels of each text of the training part."""
    head = classifier_of(card)
    return [tuple(head.trained(list(row.targets), card)) for row in rows]


def span_lengths(row: crf.Learned, card: Card) -> list[tuple[int, str]]:
    """(slots, label) of each span of an example."""
    tags, places = [int(tag) for tag in row.targets], [(at, at + 1) for at in range(len(row.slots))]
    found = decode(" " * len(places), tags, places, card.names)
    return [(span.end - span.start, span.label) for span in found]


def span_of(text: str, start: int, end: int, label: str) -> Span:
    """A stretch of a text as a span."""
    return Span(start=start, end=end, label=label, quote=text[start:end])
