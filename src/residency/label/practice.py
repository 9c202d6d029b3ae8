"""A practice round: notes whose answer is known, and what each annotator is told about theirs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from residency.core.errors import UserError
from residency.core.page import Page, Section
from residency.core.types import Note, Value
from residency.label.annotations import Annotation
from residency.label.guideline import Guide, hints
from residency.label.pages import CONTEXT
from residency.metrics.counts import Counts
from residency.metrics.spans import SpanError, count, errors
from residency.tasks.card import Card

NOTES = 10
ADVICE = {
    "missed": "overlooked",
    "invented": "marked, but nothing is there",
    "boundary": "right label, other bounds",
    "type": "right place, other label",
}


class Feedback(Value, frozen=True):
    """How an annotator did in the practice round."""

    annotator: str
    notes: int
    strict: float
    relaxed: float
    """F1 against the known answers."""
    page: Page


def draw(gold: Sequence[Note], seed: int, number: int = NOTES) -> list[Note]:
    """Notes for practice, drawn by the seed among those with a span, in a fixed order."""
    able = [note for note in gold if note.spans]
    if len(able) < number:
        raise UserError(
            f"--gold: holds {len(able)} notes with spans, and practice needs {number}; give more, "
            "for example written by the lead."
        )
    return random.Random(seed).sample(able, number)


def feedback(
    annotator: str,
    gold: Sequence[Note],
    done: Mapping[str, Annotation],
    card: Card,
    guide: Guide | None,
    show: bool,
) -> Feedback | None:
    """What differs from the known answers, with the definitions that it touches; None where nothing
    is done yet."""
    there = [note for note in gold if note.id in done and done[note.id].counts]
    if not there:
        return None
    spans = [(note, done[note.id].spans) for note in there]
    strict, relaxed, by_label = Counts(), Counts(), dict[str, Counts]()
    for note, given in spans:
        relaxed += sum(count(note.spans, given, "relaxed").values(), Counts())
        for label, counts in count(note.spans, given, "strict").items():
            strict += counts
            by_label[label] = by_label.get(label, Counts()) + counts
    wrong = [(note, one) for note, given in spans for one in errors(note.spans, given)]
    touched = Counter(label for _, one in wrong for label in _labels(one))
    defined = hints(card, guide)
    most = sorted(touched.items(), key=lambda one: (-one[1], one[0]))
    page = Page(
        title=f"Practice: {annotator}",
        eyebrow=f"{len(there)} notes whose answer is known",
        lead=f"{strict.tp} of {strict.tp + strict.fn} entities are exactly as they should be.",
        facts=(("strict F1", f"{strict.f1:.3f}"), ("relaxed F1", f"{relaxed.f1:.3f}")),
        sections=(
            Section(
                title="By label",
                columns=("label", "right", "overlooked", "too many", "F1"),
                numeric=(1, 2, 3, 4),
                rows=tuple(
                    (label, str(one.tp), str(one.fn), str(one.fp), f"{one.f1:.3f}")
                    for label, one in sorted(by_label.items())
                ),
            ),
            Section(
                title="What to read again",
                columns=("label", "differences", "what it means"),
                numeric=(1,),
                rows=tuple((label, str(number), defined[label]) for label, number in most),
            ),
            Section(
                title="Every difference",
                columns=("note", "what", "known answer", "yours", *(("text",) if show else ())),
                rows=tuple(_row(note, one, show) for note, one in wrong),
            ),
        ),
    )
    return Feedback(annotator, len(there), strict.f1, relaxed.f1, page)


def _labels(error: SpanError) -> set[str]:
    return {span.label for span in (error.gold, error.predicted) if span is not None}


def _row(note: Note, error: SpanError, show: bool) -> tuple[str, ...]:
    """A difference in cells: the note, what it is, the known answer, the given one, the text."""
    sides = (error.gold, error.predicted)
    cells = (f"{span.label} {span.start} to {span.end}" if span else "-" for span in sides)
    spans = [span for span in sides if span is not None]
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    before, after = note.text[max(0, start - CONTEXT) : start], note.text[end : end + CONTEXT]
    text = (f"{before}[{note.text[start:end]}]{after}",) if show else ()
    return (note.id, ADVICE[error.kind], *cells, *text)
