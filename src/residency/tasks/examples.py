"""From notes to the examples of a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from residency.core.errors import DataError
from residency.core.types import Answer, Example, Labels, Note, RawNote, Spans, Text, Turn
from residency.tasks.card import Card
from residency.tasks.codec import fill


def examples(notes: Iterable[Note], card: Card) -> list[Example]:
    """One example per note, gold included; of a conversation, the last answer is gold.

    Raises ``DataError`` where a card of family ``answers`` needs turns or columns that a note does not have.
    """
    return [_answered(note, card) if card.family == "answers" else _marked(note, card) for note in notes]


def question(note: Note | RawNote, card: Card) -> Example:
    """What a note asks of a model, its answer unknown: its turns up to the last question, its columns as the card puts them
    into words, or its text."""
    turns: tuple[Turn, ...] = ()
    text = note.text
    if card.family == "answers":
        if card.prompt and note.fields:
            text = fill(card.prompt, note.fields, f"row {note.id}: the prompt of card {card.name}")
        elif note.turns:
            turns = note.turns if note.turns[-1].role == "user" else note.turns[:-1]
            text = turns[-1].text
    return Example(id=note.id, task=card.name, input=text, turns=turns, lang=note.lang)


def _marked(note: Note, card: Card) -> Example:
    return _example(note, card, note.text, gold(note, card), ())


def _answered(note: Note, card: Card) -> Example:
    """An example of a conversation, or of a row whose columns the card puts into words."""
    if card.prompt:
        if not note.fields:
            raise DataError(
                f"row {note.id}: has no columns for the prompt of card {card.name}; read the data with format: "
                "instructions and name them under fields."
            )
        question = fill(card.prompt, note.fields, f"row {note.id}: the prompt of card {card.name}")
        answer = fill(card.answer, note.fields, f"row {note.id}: the answer of card {card.name}")
        turns: tuple[Turn, ...] = (Turn(role="user", text=question),)
    elif note.turns:
        *before, last = note.turns
        turns, question, answer = tuple(before), before[-1].text, last.text
    else:
        raise DataError(
            f"row {note.id}: is no conversation; card {card.name} needs data of format alpaca, sharegpt, messages, "
            "promptcblue or instructions."
        )
    if not answer.strip():
        raise DataError(f"row {note.id}: the answer is empty; complete the row or leave it out.")
    return _example(note, card, question, Text(text=answer), turns)


def _example(note: Note, card: Card, input: str, gold: Answer, turns: tuple[Turn, ...]) -> Example:
    return Example(
        id=note.id,
        task=card.name,
        input=input,
        gold=gold,
        turns=turns,
        group=note.group or note.id,
        note=note.id,
        lang=note.lang,
        kind=note.kind,
        profile=note.profile,
        origin=note.origin,
    )


def gold(note: Note, card: Card) -> Answer:
    """What the note says the answer is, for tasks about marks on the note."""
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
    if card.family == "answers":
        return card
    found = labels_found(train, card)
    if not found:
        what = "entities" if card.family == "spans" else "labels"
        raise DataError(f"{where}: the training notes hold no {what}; check the field names and data.NAME.labels.")
    return card.with_labels(found)


def unknown_labels(notes: Sequence[Note], card: Card) -> list[str]:
    """Labels of notes that the card does not have."""
    if card.family == "answers":
        return []
    return [label for label in labels_found(notes, card) if label not in card.names]
