"""A paired test of two systems on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from residency.core.types import Comparison, Example, Prediction, PredictorInfo
from residency.evals.measure import LEVEL, groups_of
from residency.tasks import scoring
from residency.tasks.card import Card
from residency.tasks.families import of

if TYPE_CHECKING:
    from residency.tasks.families import Array

System = tuple[PredictorInfo, Sequence[Prediction]]


def compare(
    examples: Sequence[Example],
    a: System,
    b: System,
    card: Card,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Whether ``b`` differs from ``a``: difference ``b - a``, its interval and p, in the card's
    main metric, then for written answers also in the loss per token (which falls where ``b`` is
    better), where both give it for the same tokens.

    Interval by paired bootstrap, p by approximate randomisation, both over groups (patients). Empty
    where there are fewer than two groups: one patient says nothing about the next. Raises as
    ``evaluate.score``.
    """
    metrics = of(card).compared_by(card, a[1], b[1])
    compared = (_compared(examples, a, b, card, metric, samples, seed) for metric in metrics)
    return tuple(comparison for comparison in compared if comparison is not None)


def corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Comparisons with p also corrected for their number (Holm); one alone stays as it is."""
    from residency.metrics.paired import holm

    if len(comparisons) < 2:
        return tuple(comparisons)
    together = holm([comparison.p for comparison in comparisons])
    return tuple(
        msgspec.structs.replace(comparison, p_corrected=p)
        for comparison, p in zip(comparisons, together, strict=True)
    )


def _compared(
    examples: Sequence[Example],
    a: System,
    b: System,
    card: Card,
    metric: str,
    samples: int,
    seed: int,
) -> Comparison | None:
    """The comparison in one metric; None for fewer than two groups, or where the metric does not
    apply to one of the systems."""
    from residency.metrics.intervals import procedure
    from residency.metrics.paired import approximate_randomisation, paired_bootstrap, smallest_p

    (info_a, predictions_a), (info_b, predictions_b) = a, b
    card = card.model_copy(update={"metric": metric})
    scoring.check_gold(examples, card)
    family, tallies = of(card), []
    labels = family.occurring(card, examples, predictions_a, predictions_b)
    for predictions in (predictions_a, predictions_b):
        scoring.check_aligned(examples, predictions)
        tally = family.tally(examples, predictions, card, labels=labels, metrics=[metric])
        main = family.position(metric, tally, card)  # raises where one system lacks the metric
        tallies.append(tally)
    groups = groups_of(examples)
    applies = all(tally.basis(tally.rows)[main].n for tally in tallies)
    if len(set(groups)) < 2 or not applies:
        return None
    rows_a, rows_b = (tally.rows for tally in tallies)

    def statistic(sums: Array) -> Array:
        return tallies[0].statistic(sums)[..., main : main + 1]

    difference, low, high = paired_bootstrap(
        rows_a, rows_b, groups, statistic, samples, seed, LEVEL
    )
    if metric not in tallies[0].unbounded:  # a difference of shares
        low, high = max(low, -1.0), min(high, 1.0)
    units = len(set(groups))
    return Comparison(
        metric=metric,
        a=info_a.name,
        b=info_b.name,
        difference=difference,
        low=low,
        high=high,
        p=approximate_randomisation(rows_a, rows_b, groups, statistic, samples, seed),
        procedure=f"paired {procedure(units, samples, LEVEL)}; approximate randomisation over "
        f"groups, p at least {smallest_p(units, samples):.2g}",
    )
