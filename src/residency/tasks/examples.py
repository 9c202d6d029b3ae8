"""From notes to the examples of a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from residency.core.errors import DataError
from residency.core.types import Answer, Example, Labels, Note, Spans
from residency.tasks.card import Card


def examples(notes: Iterable[Note], card: Card) -> list[Example]:
    """One example per note, gold included."""
    return [
        Example(
            id=note.id,
            task=card.name,
            input=note.text,
            gold=gold(note, card),
            group=note.group or note.id,
            note=note.id,
            lang=note.lang,
            kind=note.kind,
            profile=note.profile,
            origin=note.origin,
        )
        for note in notes
    ]


def gold(note: Note, card: Card) -> Answer:
    """What the note says the answer is."""
    return Spans(spans=note.spans) if card.family == "spans" else Labels(labels=note.labels)


def labels_found(notes: Sequence[Note], card: Card) -> tuple[str, ...]:
    """Labels that occur, in alphabetical order."""
    counts: Counter[str] = Counter()
    for note in notes:
        counts.update(span.label for span in note.spans) if card.family == "spans" else counts.update(note.labels)
    return tuple(sorted(counts))


def fixed(card: Card, train: Sequence[Note], where: str) -> Card:
    """The card with its labels: its own, or those of the training notes.

    Raises ``DataError`` where there are none to learn.
    """
    found = labels_found(train, card)
    if not found:
        what = "entities" if card.family == "spans" else "labels"
        raise DataError(f"{where}: the training notes hold no {what}; check the field names and data.NAME.labels.")
    return card.with_labels(found)


def unknown_labels(notes: Sequence[Note], card: Card) -> list[str]:
    """Labels of notes that the card does not have."""
    return [label for label in labels_found(notes, card) if label not in card.names]
