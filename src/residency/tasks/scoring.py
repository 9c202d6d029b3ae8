"""How a task is scored: what must hold of the examples and predictions, and the card's main metric.

What is counted and which metrics are made of it is the matter of the card's family
(``tasks/families``).
"""

from __future__ import annotations

from collections.abc import Sequence

from residency.core.errors import UserError
from residency.core.types import Example, Prediction
from residency.metrics import answers
from residency.tasks.card import Card
from residency.tasks.families import of
from residency.tasks.families.answers import LOSSES


def falls(metric: str) -> bool:
    """Whether the lower value of a metric is the better one."""
    known = ":" in metric or metric in answers.names()
    return metric in LOSSES or (known and answers.named(metric).lower_is_better)


def main_metric(
    examples: Sequence[Example], predictions: Sequence[Prediction], card: Card
) -> float | None:
    """The card's main metric, without an interval: what early stopping looks at; ``None`` where it
    applies to no example.

    Raises ``UserError`` for no examples, examples without gold or an unknown metric, ``ValueError``
    for predictions that do not belong to the examples.
    """
    check_gold(examples, card)
    check_aligned(examples, predictions)
    family = of(card)
    family.check_metric(card)
    tally = family.tally(examples, predictions, card, metrics=[card.main_metric])
    at = family.position(card.main_metric, tally, card)
    applies = tally.basis(tally.rows)[at].n > 0
    return float(tally.statistic(tally.rows.sum(axis=0))[at]) if applies else None


def check_gold(examples: Sequence[Example], card: Card) -> None:
    """Raises ``UserError`` where there is nothing to score, or gold is missing or of another
    family."""
    if not examples:
        raise UserError(
            f"task {card.name}: there are no examples to evaluate; check the split, or give a part "
            "that has some."
        )
    wanted = of(card).answer
    without = [example.id for example in examples if example.gold is None]
    if without:
        raise UserError(
            f"task {card.name}: evaluation needs gold answers; {len(without)} of {len(examples)} "
            f"examples have none (the first is {without[0]}); label them, or use predict."
        )
    other = next((example for example in examples if not isinstance(example.gold, wanted)), None)
    if other is not None:
        raise UserError(
            f"task {card.name}: the gold answer of example {other.id} is of type "
            f"{type(other.gold).__name__}, but the card's family is {card.family}; use a card of "
            "the family of the data."
        )


def check_aligned(examples: Sequence[Example], predictions: Sequence[Prediction]) -> None:
    """Raises ``ValueError`` unless there is one prediction per example, in the same order (a fault
    of the program)."""
    if len(examples) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(examples)} examples")
    for number, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
        if example.id != prediction.id:
            raise ValueError(
                f"prediction {number} is for example {prediction.id}, expected {example.id}"
            )
