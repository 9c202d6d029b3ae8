"""Metrics of chosen labels, single or several per item. An item's answer is a collection of labels;
the empty collection is no answer (or, with several labels, none of them)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from residency.metrics import counts as arrays
from residency.metrics.counts import Counts
from residency.metrics.spans import NOTHING

Choice = Collection[str]


def accuracy(gold: Sequence[Choice], predicted: Sequence[Choice]) -> float:
    """Share of items whose set of labels is exactly right (exact match, subset accuracy); 0.0 for
    no items."""
    right = sum(set(one) == set(other) for one, other in zip(gold, predicted, strict=True))
    return right / len(gold) if gold else 0.0


def count(gold: Sequence[Choice], predicted: Sequence[Choice]) -> dict[str, Counts]:
    """Counts per label over all items, for every label that occurs, in alphabetical order."""
    tally: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for one, other in zip(gold, predicted, strict=True):
        right, wrong = set(one), set(other)
        for label in right:
            tally[label][0 if label in wrong else 2] += 1
        for label in wrong - right:
            tally[label][1] += 1
    return {label: Counts(tp=tp, fp=fp, fn=fn) for label, (tp, fp, fn) in sorted(tally.items())}


def micro_f1(gold: Sequence[Choice], predicted: Sequence[Choice]) -> float:
    """F1 of the pooled counts; equals accuracy where each item has one gold and one predicted
    label."""
    return float(arrays.f1(arrays.table(count(gold, predicted)).sum(axis=0)))


def macro_f1(gold: Sequence[Choice], predicted: Sequence[Choice]) -> float:
    """Mean F1 over the labels that occur in gold (scikit-learn's mean also takes labels that were
    only predicted)."""
    table = arrays.table(count(gold, predicted))
    return float(arrays.macro_f1(table, arrays.f1(table)))


def weighted_f1(gold: Sequence[Choice], predicted: Sequence[Choice]) -> float:
    """Mean F1 weighted by gold frequency."""
    table = arrays.table(count(gold, predicted))
    return float(arrays.weighted_f1(table, arrays.f1(table)))


def pairs(gold: Choice, predicted: Choice) -> list[tuple[str, str]]:
    """One item's (gold, predicted) labels side by side, ``-`` for nothing.

    Equal labels meet; where exactly one of each is left, one was taken for the other; all else
    stands alone.
    """
    both = sorted(set(gold) & set(predicted))
    missed, invented = sorted(set(gold) - set(predicted)), sorted(set(predicted) - set(gold))
    same = [(label, label) for label in both]
    if len(missed) == len(invented) == 1:
        return [*same, (missed[0], invented[0])]
    return [
        *same,
        *((label, NOTHING) for label in missed),
        *((NOTHING, label) for label in invented),
    ]
