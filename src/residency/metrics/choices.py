"""Metrics of chosen labels, single or several per item. An item's answer is a collection of labels;
the empty collection is no answer (or, with several labels, none of them)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from residency.metrics.counts import Counts
from residency.metrics.spans import NOTHING

Choice = Collection[str]


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
