"""Annotators that do not exist, with the errors that real ones make: for the demo, tests and
rehearsals."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from msgspec.structs import replace

from residency.core.types import Note, Span, Value
from residency.core.units import units
from residency.label.annotations import Annotation
from residency.tasks.card import Card


class Habits(Value, frozen=True):
    """How often an annotator errs, per span of the truth, and how fast they are."""

    missed: float = 0.05
    boundary: float = 0.05
    """One end a unit too far or too near."""
    label: float = 0.03
    attributes: float = 0.04
    """Attributes forgotten."""
    invented: float = 0.02
    """Spans that are none, per span of the truth."""
    tires: float = 0.5
    """By what share errors have grown at the last note."""
    seconds: float = 0.12
    """For each character."""


PEOPLE = (
    Habits(),
    Habits(missed=0.09, boundary=0.03, seconds=0.09),
    Habits(missed=0.03, boundary=0.08, label=0.06, seconds=0.15),
)
"""Three of different temper: even, hasty, and one who reads the guideline in a way of their own."""
BEGAN = datetime(2026, 1, 5, 8, tzinfo=UTC)


def simulate(
    notes: Sequence[Note], card: Card, name: str, seed: int = 0, habits: Habits | None = None
) -> Iterator[Annotation]:
    """What one annotator makes of notes whose spans are the truth, in the order given. Equal
    arguments, equal result."""
    number = int(name.lstrip("a") or 1) - 1 if name.lstrip("a").isdecimal() else 0
    habits = habits or PEOPLE[number % len(PEOPLE)]
    clock = BEGAN
    for position, note in enumerate(notes):
        drawn = blake2b(f"{seed}/{name}/{note.id}".encode(), digest_size=8).digest()
        rng = random.Random(int.from_bytes(drawn, "big"))
        more = 1 + habits.tires * position / max(1, len(notes) - 1)
        marked = (_marked(note, span, card, habits, more, rng) for span in note.spans)
        spans = [span for span in marked if span is not None]
        spans += _invented(note, card, habits, more, rng)
        seconds = round((5 + habits.seconds * len(note.text)) * rng.lognormvariate(0, 0.35), 1)
        clock += timedelta(seconds=seconds)
        at = clock.isoformat(timespec="seconds")
        yield Annotation(note.id, name, tuple(_apart(spans)), at, seconds)


def _marked(
    note: Note, span: Span, card: Card, habits: Habits, more: float, rng: random.Random
) -> Span | None:
    """A span of the truth as the annotator has it; None where they overlook it."""
    if rng.random() < habits.missed * more:
        return None
    found = replace(span, by=None, score=None)
    if rng.random() < habits.boundary * more:
        found = _moved(note, found, rng)
    if rng.random() < habits.label * more and len(card.names) > 1:
        place = card.names.index(found.label)  # cards list alike labels side by side
        near = [number for number in (place - 1, place + 1) if 0 <= number < len(card.names)]
        found = replace(found, label=card.names[rng.choice(near)])
    if found.attributes and rng.random() < habits.attributes * more:
        found = replace(found, attributes=())
    return found


def _moved(note: Note, span: Span, rng: random.Random) -> Span:
    bounds = units(note.text)
    first = next(i for i, (_, end) in enumerate(bounds) if end > span.start)
    last = max(i for i, (start, _) in enumerate(bounds) if start < span.end)
    ends = [(first - 1, last), (first + 1, last), (first, last - 1), (first, last + 1)]
    fits = [(low, high) for low, high in ends if 0 <= low <= high < len(bounds)]
    low, high = rng.choice(fits or [(first, last)])
    start, end = bounds[low][0], bounds[high][1]
    return replace(span, start=start, end=end, quote=note.text[start:end])


def _invented(
    note: Note, card: Card, habits: Habits, more: float, rng: random.Random
) -> Iterator[Span]:
    bounds = [place for place in units(note.text) if note.text[place[0]].isalnum()]
    for _ in note.spans:
        if bounds and rng.random() < habits.invented * more:
            start, end = rng.choice(bounds)
            if not any(start < span.end and end > span.start for span in note.spans):
                label, quote = rng.choice(card.names), note.text[start:end]
                yield Span(start=start, end=end, label=label, quote=quote)


def _apart(spans: Sequence[Span]) -> list[Span]:
    """Without spans that overlap an earlier one: who moves a boundary does not run into the next
    entity."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept
