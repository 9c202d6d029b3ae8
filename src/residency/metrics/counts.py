"""True positives, false positives and false negatives, and what is computed from them.

Arrays of counts have the last axis (tp, fp, fn) and, before it, where there is one, the axis of
labels. All ratios are 0.0 where their denominator is 0, so a resampled table without any item of a
label scores 0 for it: an interval is then too wide rather than too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from residency.core.types import Value

Array = NDArray[np.float64]


class Counts(Value, frozen=True):
    """Items found (tp), invented (fp) and missed (fn)."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(tp=self.tp + other.tp, fp=self.fp + other.fp, fn=self.fn + other.fn)

    @property
    def precision(self) -> float:
        """tp / (tp + fp); 0.0 where nothing was predicted."""
        return self.tp / predicted if (predicted := self.tp + self.fp) else 0.0

    @property
    def recall(self) -> float:
        """tp / (tp + fn); 0.0 where there is nothing to find."""
        return self.tp / gold if (gold := self.tp + self.fn) else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn); 0.0 where there is
        neither gold nor prediction."""
        return 2 * self.tp / items if (items := 2 * self.tp + self.fp + self.fn) else 0.0


def table(counts: Mapping[str, Counts]) -> Array:
    """Counts per label as an array [labels, 3], in the mapping's order."""
    rows = [(count.tp, count.fp, count.fn) for count in counts.values()]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def precision(counts: Array) -> Array:
    """Precision for each row of [..., 3]."""
    found = counts[..., 0] + counts[..., 1]
    return np.divide(counts[..., 0], found, out=np.zeros(found.shape), where=found != 0)


def recall(counts: Array) -> Array:
    """Recall for each row of [..., 3]."""
    gold = counts[..., 0] + counts[..., 2]
    return np.divide(counts[..., 0], gold, out=np.zeros(gold.shape), where=gold != 0)


def f1(counts: Array) -> Array:
    """F1 for each row of [..., 3]."""
    twice = 2 * counts[..., 0]
    items = twice + counts[..., 1] + counts[..., 2]
    return np.divide(twice, items, out=np.zeros(items.shape), where=items != 0)


def macro_f1(counts: Array, each: Array) -> Array:
    """Mean F1 over the labels that occur in gold: [..., labels, 3] and the F1 of each label,
    [..., labels] -> [...].

    scikit-learn and seqeval average over every label that occurs in gold *or* predictions, so there
    an invented label pulls the mean down; here it costs precision in the micro average only.
    """
    occurs = counts[..., 0] + counts[..., 2] > 0
    labels = occurs.sum(axis=-1)
    total: Array = (each * occurs).sum(axis=-1)
    mean: Array = np.divide(total, labels, out=np.zeros(labels.shape), where=labels != 0)
    return mean


def weighted_f1(counts: Array, each: Array) -> Array:
    """Mean F1 weighted by the number of gold items of each label: as for ``macro_f1``."""
    support = counts[..., 0] + counts[..., 2]
    gold = support.sum(axis=-1)
    total: Array = (each * support).sum(axis=-1)
    mean: Array = np.divide(total, gold, out=np.zeros(gold.shape), where=gold != 0)
    return mean


def ratio(part: Array, whole: Array) -> Array:
    """``part / whole``, 0.0 where ``whole`` is 0."""
    part = np.asarray(part, dtype=np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=np.asarray(whole) != 0)
