"""A practice round: notes whose answer is known, and what each annotator is told about theirs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from residency.core.errors import UserError
from residency.core.page import Page, Section
from residency.core.types import Note, Value
from residency.label.annotations import Annotation
from residency.label.guideline import Guide, hints
from residency.label.pages import CONTEXT
from residency.metrics.counts import Counts
from residency.metrics.spans import count, errors
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
    """Notes for practice, drawn by the seed among those with at least one span, in a fixed order."""
    able = [note for note in gold if note.spans]
    if len(able) < number:
        raise UserError(
            f"--gold: holds {len(able)} notes with spans, and practice needs {number}; give more, "
            "for example written by "
            "the lead."
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
    totals = {mode: Counts() for mode in ("strict", "relaxed")}
    by_label: dict[str, Counts] = {}
    rows, touched = [], dict.fromkeys(card.names, 0)
    for note in there:
        said = done[note.id].spans
        for label, counts in count(note.spans, said, "strict").items():
            totals["strict"] += counts
            by_label[label] = by_label.get(label, Counts()) + counts
        for counts in count(note.spans, said, "relaxed").values():
            totals["relaxed"] += counts
        for one in errors(note.spans, said):
            spans = [span for span in (one.gold, one.predicted) if span is not None]
            start, end = min(span.start for span in spans), max(span.end for span in spans)
            for label in {span.label for span in spans}:
                touched[label] += 1
            right = f"{one.gold.label} {one.gold.start} to {one.gold.end}" if one.gold else "-"
            yours = (
                f"{one.predicted.label} {one.predicted.start} to {one.predicted.end}"
                if one.predicted
                else "-"
            )
            rows.append(
                (
                    note.id,
                    ADVICE[one.kind],
                    right,
                    yours,
                    *((_around(note.text, start, end),) if show else ()),
                )
            )
    defined = hints(card, guide)
    page = Page(
        title=f"Practice: {annotator}",
        eyebrow=f"{len(there)} notes whose answer is known",
        lead=f"{totals['strict'].tp} of {totals['strict'].tp + totals['strict'].fn} entities are "
        "exactly as they should be.",
        facts=(
            ("strict F1", f"{totals['strict'].f1:.3f}"),
            ("relaxed F1", f"{totals['relaxed'].f1:.3f}"),
        ),
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
                rows=tuple(
                    (label, str(number), defined[label])
                    for label, number in sorted(touched.items(), key=lambda one: (-one[1], one[0]))
                    if number
                ),
            ),
            Section(
                title="Every difference",
                columns=("note", "what", "known answer", "yours", *(("text",) if show else ())),
                rows=tuple(rows),
            ),
        ),
    )
    return Feedback(
        annotator=annotator,
        notes=len(there),
        strict=totals["strict"].f1,
        relaxed=totals["relaxed"].f1,
        page=page,
    )


def _around(text: str, start: int, end: int) -> str:
    return f"{text[max(0, start - CONTEXT) : start]}[{text[start:end]}]{text[end : end + CONTEXT]}"
