"""From notes to the examples of a task."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import msgspec

from residency.core.errors import DataError
from residency.core.types import Answer, Example, Note, RawNote, Turn
from residency.tasks.card import Card
from residency.tasks.families import of
from residency.tasks.prompts import fill, separator


def examples(notes: Iterable[Note], card: Card) -> list[Example]:
    """One example per note, gold included; of a conversation, the last answer is gold.

    Raises ``DataError`` where a card needs turns or columns that a note does not have, or where the
    answer of a row is not in the form of the card.
    """
    family = of(card)
    return [
        _in_words(note, card)
        if family.in_words(note, card)
        else _example(note, card, note.text, family.marked(note), ())
        for note in notes
    ]


def question(note: Note | RawNote, card: Card) -> Example:
    """What a note asks of a model, its answer unknown: its turns up to the last question, its
    columns as the card puts them into words, or its text."""
    turns: tuple[Turn, ...] = ()
    text = note.text
    if card.prompt and note.fields and of(card).in_words(note, card):
        text = fill(
            card.prompt, _values(note, card), f"row {note.id}: the prompt of card {card.name}"
        )
        turns = (Turn(role="user", text=text),)
    elif note.turns and of(card).in_words(note, card):
        turns = note.turns if note.turns[-1].role == "user" else note.turns[:-1]
        text = turns[-1].text
    return Example(
        id=note.id, task=card.name, input=text, turns=turns, lang=note.lang, choices=note.choices
    )


def _values(note: Note | RawNote, card: Card) -> dict[str, str | tuple[str, ...]]:
    """What a card's prompt may name: the columns of the row, its language, what it may be answered
    with, as one text (``labels``) and as a list (``choices``)."""
    names = card.for_example(
        Example(id=note.id, task=card.name, input="", choices=note.choices)
    ).names
    lang = (note.lang or card.language).split("-")[0]
    return {"labels": separator(card).join(names), "choices": names, "lang": lang, **note.fields}


def _in_words(note: Note, card: Card) -> Example:
    """An example of a conversation, or of a row whose columns the card puts into words."""
    question, answer, turns = _words(note, card)
    made = _example(note, card, question, None, turns)
    found = of(card).gold_of(answer, question, card.for_example(made))
    if found is None:
        raise DataError(
            f"row {note.id}: its answer is not in the form of card {card.name} ({card.family}); "
            "name the card of the task that the row belongs to, or correct the row."
        )
    return msgspec.structs.replace(made, gold=found)


def _words(note: Note, card: Card) -> tuple[str, str, tuple[Turn, ...]]:
    """The question of a row, its answer, and the turns that ask it."""
    if card.prompt and note.fields:
        where = f"row {note.id}: the {{}} of card {card.name}"
        question = fill(card.prompt, _values(note, card), where.format("prompt"))
        answer = fill(card.answer, note.fields, where.format("answer"))
        turns: tuple[Turn, ...] = (Turn(role="user", text=question),)
    elif note.turns:
        *before, last = note.turns
        turns, question, answer = tuple(before), before[-1].text, last.text
    elif card.prompt:
        raise DataError(
            f"row {note.id}: has no columns for the prompt of card {card.name}; read the data with "
            "format: instructions and name them under fields."
        )
    else:
        raise DataError(
            f"row {note.id}: is no conversation; card {card.name} needs data of format alpaca, "
            "sharegpt, messages, promptcblue or instructions."
        )
    if not answer.strip():
        raise DataError(f"row {note.id}: the answer is empty; complete the row or leave it out.")
    return question, answer, turns


def few_shot(shots: int) -> str:
    """What a base with worked examples before each question is called."""
    return f"base-{shots}-shot"


def with_shots(
    asked: Sequence[Example], pool: Sequence[Example], card: Card, shots: int, seed: int
) -> list[Example]:
    """Questions behind so many worked ones, drawn from ``pool`` (the training part) for each by the
    seed; never of its own group. Fewer where the pool has fewer. They are earlier turns, so what
    does not fit is left out oldest first."""
    made = []
    for example in asked:
        others = [one for one in pool if one.group != example.group or not example.group]
        chosen = random.Random(f"{seed}/{example.id}").sample(others, min(shots, len(others)))
        before = tuple(
            turn
            for shot in chosen
            if shot.gold is not None
            for turn in (
                asking(shot, card)[-1],
                Turn(role="assistant", text=of(card).render(shot.gold, shot.input)),
            )
        )
        own = asking(example, card)
        first = own[:1] if own[0].role == "system" else ()
        made.append(msgspec.structs.replace(example, turns=(*first, *before, *own[len(first) :])))
    return made


def asking(example: Example, card: Card) -> tuple[Turn, ...]:
    """The turns that ask an example: its own, else the card's prompt about it."""
    return example.turns or (Turn(role="user", text=of(card).prompt(example, card)),)


def _example(
    note: Note, card: Card, input: str, gold: Answer | None, turns: tuple[Turn, ...]
) -> Example:
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
        department=note.department,
        choices=note.choices,
        profile=note.profile,
        origin=note.origin,
    )


def labels_found(notes: Iterable[Note], card: Card) -> tuple[str, ...]:
    """Labels that occur, in alphabetical order."""
    return tuple(sorted({label for note in notes for label in _labels_of(note, card)}))


def _labels_of(note: Note, card: Card) -> Iterable[str]:
    family = of(card)
    if not family.in_words(note, card):
        return family.labels(family.marked(note), card)
    return _stated(note, card)


def _stated(note: Note, card: Card) -> tuple[str, ...]:
    """The label that a row states in words: one of the card's, else the whole answer, which is then
    a label."""
    question, answer, turns = _words(note, card)
    made = _example(note, card, question, None, turns)
    named = of(card).parse(answer.strip(), "", card.for_example(made)).answer
    return (answer.strip(),) if named is None else tuple(of(card).labels(named, card))


def fixed(card: Card, train: Sequence[Note], where: str) -> Card:
    """The card with its labels: its own, or those of the training notes.

    Raises ``DataError`` where there are none to learn.
    """
    if of(card).classifier is None:
        return card
    found = labels_found(train, card)
    if not found:
        raise DataError(
            f"{where}: the training notes hold no {of(card).marks}; check the field names and "
            "data.NAME.labels."
        )
    return card.with_labels(found)


def unknown_labels(notes: Sequence[Note], card: Card) -> list[str]:
    """Labels of notes that the card does not have; rows with choices of their own bring their
    labels along."""
    if of(card).classifier is None:
        return []
    known = {*card.names, *(other for label in card.labels for other in label.also), card.otherwise}
    open_ones = [note for note in notes if not note.choices]
    return [label for label in labels_found(open_ones, card) if label not in known]
