"""Entities: labelled stretches of a text, as a JSON list or as tags."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.types import (
    Answer,
    ErrorItem,
    Example,
    Note,
    Prediction,
    RawNote,
    Span,
    Spans,
)
from residency.metrics import counts as arrays
from residency.metrics import spans as matching
from residency.metrics.counts import Counts
from residency.tasks import answer_repair
from residency.tasks.by_label import ByLabel
from residency.tasks.families import checked
from residency.tasks.heads import TOKENS
from residency.tasks.prompts import Parsed, ask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from residency.tasks.card import Card

    Array = NDArray[np.float64]


class SpanFamily(ByLabel):
    """Entities as a JSON list; a quote that occurs several times says which occurrence is meant."""

    answer, classifier, metric, marks = Spans, TOKENS, "span_f1", "entities"
    baselines = ("base", "crf", "dictionary")
    marks_shown = True
    kinds = ("span_f1", "span_precision", "span_recall")

    def check(self, card: Card) -> None:
        if card.answer:
            raise ValueError(
                "answer: a card of family spans has none; its answers are marked on the note"
            )

    def in_words(self, note: Note | RawNote, card: Card) -> bool:
        return False

    def marked(self, note: Note) -> Answer:
        return Spans(spans=note.spans)

    def labels(self, answer: Answer | None, card: Card) -> Iterable[str]:
        return (span.label for span in spans_of(answer))

    def prompt(self, example: Example, card: Card) -> str:
        return ask("spans", example, card)

    def render(self, answer: Answer, text: str) -> str:
        rows: list[dict[str, Any]] = []
        for span in spans_of(answer):
            quote = text[span.start : span.end]
            row: dict[str, Any] = {"label": span.label, "text": quote}
            if (number := occurrence(text, quote, span.start)) > 1:
                row["n"] = number
            if span.code:
                row["code"] = span.code
            if span.attributes:
                row["attributes"] = list(span.attributes)
            rows.append(row)
        return json.dumps(rows, ensure_ascii=False)

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        """Perfect JSON as it is; else mended, each thing that was mended or left out named
        (``tasks/answer_repair.py``)."""
        names = answer_repair.Names(card.names, [label.title for label in card.labels])
        found = answer_repair.first_list(words)
        if found is not None and (not found[0] or any(isinstance(row, dict) for row in found[0])):
            rows, repairs = found[0], [answer_repair.AROUND] if found[1] else []
        elif (lines := answer_repair.by_line(words, names)) is not None and "{" not in words:
            rows, repairs = lines, [answer_repair.LINES]
        elif (mended := answer_repair.items(words)) is not None:
            rows, repairs = mended
        elif answer_repair.says_nothing(words):
            rows, repairs = [], [answer_repair.NONE]
        else:
            return Parsed()
        spans, faults = _read(rows, text, names)
        if rows and not spans:
            return Parsed()
        return Parsed(
            answer=Spans(spans=tuple(spans)), repairs=answer_repair.unique([*repairs, *faults])
        )

    def overall(self, card: Card) -> tuple[str, ...]:
        return (*self.kinds, "span_f1_relaxed", "span_f1_macro")

    def measure(self, table: Array, end: Array, each: Array) -> list[Array]:
        """``end`` holds the counts of all labels where any overlap of equal labels is a hit."""
        pooled = table.sum(axis=-2)
        return [
            arrays.f1(pooled),
            arrays.precision(pooled),
            arrays.recall(pooled),
            arrays.f1(end),
            arrays.macro_f1(table, each),
        ]

    def count(
        self, gold: Answer | None, said: Answer | None, card: Card
    ) -> tuple[dict[str, Counts], tuple[float, ...]]:
        wanted, given = spans_of(gold), spans_of(said)
        relaxed = sum(matching.count(wanted, given, "relaxed").values(), Counts())
        return matching.count(wanted, given, "strict"), (relaxed.tp, relaxed.fp, relaxed.fn)

    def confused(
        self, gold: Answer | None, said: Answer | None, card: Card
    ) -> Counter[tuple[str, str]]:
        return matching.confusion(spans_of(gold), spans_of(said))

    def errors(self, example: Example, prediction: Prediction, card: Card) -> Iterator[ErrorItem]:
        for error in matching.errors(spans_of(example.gold), spans_of(prediction.answer)):
            gold, said = (
                (span.start, span.end) if span else (0, 0) for span in (error.gold, error.predicted)
            )
            sides = [at for at in (gold, said) if at[1]]
            yield ErrorItem(
                example=example.id,
                kind=error.kind,
                gold=error.gold.label if error.gold else "",
                predicted=error.predicted.label if error.predicted else "",
                start=min(start for start, _ in sides),
                end=max(end for _, end in sides),
                gold_at=gold,
                said_at=said,
            )

    def sure(
        self, example: Example, answer: Answer | None, card: Card
    ) -> list[tuple[float, bool, bool]]:
        """Each span; right is one that gold has with the same label and ends."""
        gold = {(one.start, one.end, card.canonical(one.label)) for one in spans_of(example.gold)}
        return [
            (one.score, (one.start, one.end, card.canonical(one.label)) in gold, True)
            for one in spans_of(answer)
            if one.score is not None
        ]

    def columns(self, answer: Answer) -> dict[str, Any]:
        rows = [
            {"start": span.start, "end": span.end, "label": span.label, "text": span.quote}
            for span in spans_of(answer)
        ]
        return {"entities": rows}

    def without_text(self, answer: Answer) -> Answer:
        spans = (msgspec.structs.replace(span, quote="") for span in spans_of(answer))
        return Spans(spans=tuple(spans))


FAMILY = SpanFamily()


def spans_of(answer: Answer | None) -> tuple[Span, ...]:
    """The spans of an answer, none for no answer."""
    found = checked(answer, Spans, "family spans")
    return found.spans if found else ()


def _read(
    rows: Sequence[object], text: str, names: answer_repair.Names
) -> tuple[list[Span], list[str]]:
    """What the items say about the text, and what had to be mended or left out."""
    spans: dict[Span, None] = {}
    faults: list[str] = []
    folded = answer_repair.Folded(text)
    for row in rows:
        label = names.of(row.get("label")) if isinstance(row, dict) else None
        quote = row.get("text") if isinstance(row, dict) else None
        if (
            not isinstance(row, dict)
            or "label" not in row
            or not isinstance(quote, str)
            or not quote
        ):
            faults.append(answer_repair.UNREAD)
            continue
        if label is None:
            faults.append(answer_repair.UNKNOWN)
            continue
        if label != row["label"]:
            faults.append(answer_repair.LABEL)
        number = row.get("n", 1)
        number = number if isinstance(number, int) and not isinstance(number, bool) else 1
        at = _located(text, quote, number, folded, faults)
        if at is None:
            faults.append(answer_repair.ABSENT)
            continue
        span = _span(row, label, text, at)
        if span in spans:
            later = _located(text, quote, number + 1, folded, []) if "n" not in row else None
            while later is not None and _span(row, label, text, later) in spans:
                number += 1
                later = _located(text, quote, number + 1, folded, [])
            faults.append(answer_repair.TWICE if later is None else answer_repair.NEXT)
            span = span if later is None else _span(row, label, text, later)
        spans[span] = None
    return list(spans), faults


def _located(
    text: str, quote: str, number: int, folded: answer_repair.Folded, faults: list[str]
) -> tuple[int, int] | None:
    """Where an occurrence of a quote stands in the text: as it is written, else folded."""
    if quote in text:
        start = place(text, quote, number)
        return None if start is None else (start, start + len(quote))
    for at in islice(folded.places(quote), number - 1, number) if number > 0 else ():
        faults.append(answer_repair.FOLDED)
        return at
    return None


def _span(row: Mapping[str, Any], label: str, text: str, at: tuple[int, int]) -> Span:
    code, attributes = row.get("code"), row.get("attributes", ())
    return Span(
        start=at[0],
        end=at[1],
        label=label,
        quote=text[at[0] : at[1]],
        code=code if isinstance(code, str) else None,
        attributes=tuple(a for a in attributes if isinstance(a, str))
        if isinstance(attributes, list)
        else (),
    )


def occurrence(text: str, quote: str, start: int) -> int:
    """Which occurrence of ``quote`` begins at ``start``, from 1; occurrences may overlap."""
    number, position = 1, text.find(quote)
    while 0 <= position < start:
        position = text.find(quote, position + 1)
        number += position <= start
    return number


def place(text: str, quote: str, number: int) -> int | None:
    """Where the ``number``-th occurrence of ``quote`` begins; ``None`` where there is no such
    occurrence."""
    position = text.find(quote)
    while position >= 0 and number > 1:
        position, number = text.find(quote, position + 1), number - 1
    return position if position >= 0 and number == 1 else None
