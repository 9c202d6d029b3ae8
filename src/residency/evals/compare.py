"""A paired test of two systems on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residency.core.types import Comparison, Example, Prediction, PredictorInfo
from residency.evals.evaluate import LEVEL, groups_of
from residency.tasks import scoring
from residency.tasks.card import Card

if TYPE_CHECKING:
    from residency.tasks.scoring import Array

System = tuple[PredictorInfo, Sequence[Prediction]]


def compare(
    examples: Sequence[Example], a: System, b: System, card: Card, *, samples: int = 2000, seed: int = 0
) -> tuple[Comparison, ...]:
    """Whether ``b`` differs from ``a`` in the card's main metric: difference ``b - a``, its interval and p.

    Interval by paired bootstrap, p by approximate randomisation, both over groups (patients). Empty where there are
    fewer than two groups: one patient says nothing about the next. Raises as ``evaluate.score``.
    """
    from residency.metrics.paired import approximate_randomisation, paired_bootstrap

    (info_a, predictions_a), (info_b, predictions_b) = a, b
    labels = scoring.labels_of(card, examples, predictions_a, predictions_b)
    rows_a, columns = scoring.statistics(examples, predictions_a, card, labels)
    rows_b, _ = scoring.statistics(examples, predictions_b, card, labels)
    groups = groups_of(examples)
    main, measure = scoring.position_of_main(card, columns), scoring.statistic(card, columns)
    if len(set(groups)) < 2:
        return ()

    def statistic(sums: Array) -> Array:
        return measure(sums)[..., main : main + 1]

    difference, low, high = paired_bootstrap(rows_a, rows_b, groups, statistic, samples, seed, LEVEL)
    return (
        Comparison(
            metric=card.main_metric,
            a=info_a.name,
            b=info_b.name,
            difference=difference,
            low=low,
            high=high,
            p=approximate_randomisation(rows_a, rows_b, groups, statistic, samples, seed),
            procedure=f"paired bootstrap ({LEVEL:.0%}) and approximate randomisation over groups, {samples} samples",
        ),
    )
