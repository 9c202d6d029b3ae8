"""Answers as text and back: what a generative model is given, and how its answer is read.

``parse(render(answer, text), text, card).answer == answer`` for every answer that a card allows. An
answer that cannot be read is ``None``: it counts as wrong, and its rate is reported. Nothing that a
model writes is ever evaluated as code.
"""

from __future__ import annotations

from residency.core.types import Answer, Example, Turn
from residency.tasks.card import Card
from residency.tasks.families import of


def conversation(example: Example, card: Card) -> tuple[Turn, ...]:
    """What a model that writes is given: the system turn, if any, and all turns up to the question
    that it answers."""
    turns = example.turns or (Turn(role="user", text=of(card).prompt(example, card)),)
    if card.system and turns[0].role != "system":
        return (Turn(role="system", text=card.system), *turns)
    return turns


def read(words: str, example: Example, card: Card) -> tuple[Answer | None, str | None]:
    """The answer in a model's words, and why there is none or what had to be repaired."""
    parsed = of(card).parse(words, example.input, card.for_example(example))
    if parsed.answer is None:
        return None, "the answer cannot be read" if words.strip() else "the answer is empty"
    return parsed.answer, f"repaired: {', '.join(parsed.repairs)}" if parsed.repairs else None


def in_words(answer: Answer | None, card: Card) -> str:
    """An answer as people read it: in the words that a model would write; none for no answer."""
    return "" if answer is None else of(card).render(answer, "")
