"""Confidence intervals by resampling patients.

Notes of one patient resemble each other, so the unit that is drawn is the group, not the note (cluster bootstrap:
Field and Welsh 2007). Any metric that is a function of added-up counts is covered: pass the counts of each example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Maps summed counts [..., k] to metrics [..., m]."""

CELLS = 1_000_000
"""Most draws held in memory at once (8 MB each for the draws and the weights)."""


def bootstrap(
    stats: Array,
    groups: Sequence[str],
    statistic: Statistic,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Array, Array, Array]:
    """Metrics with the bounds of their percentile interval: (value, low, high), each [m].

    ``stats`` [n, k] holds what each example adds to the counts, ``groups`` its group. The bounds are nan for fewer than
    two groups or no samples. Equal seed, equal result, whatever the order of the examples.
    """
    sums = group_sums(stats, groups)
    value = statistic(sums.sum(axis=0))
    if len(sums) < 2 or samples < 1:
        unknown = np.full_like(value, np.nan)
        return value, unknown, unknown.copy()
    drawn = np.concatenate([statistic(block) for block in _resampled(sums, samples, seed)])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return value, low, high


def group_sums(stats: Array, groups: Sequence[str]) -> Array:
    """The rows of each group added up: [groups, k], in alphabetical order of the groups."""
    if len(stats) != len(groups):
        raise ValueError(f"{len(stats)} rows of counts but {len(groups)} groups")
    names, position = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), np.shape(stats)[1]))
    np.add.at(sums, position, stats)
    return sums


def blocks(samples: int, groups: int) -> Iterator[int]:
    """How many samples to draw at a time so that memory stays bounded; adds up to ``samples``."""
    step = max(1, CELLS // max(1, groups))
    for start in range(0, samples, step):
        yield min(step, samples - start)


def _resampled(sums: Array, samples: int, seed: int) -> Iterator[Array]:
    """Summed counts of resampled groups, in blocks [b, k]."""
    generator, size = np.random.default_rng(seed), len(sums)
    for rows in blocks(samples, size):
        drawn = generator.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        yield times.astype(np.float64) @ sums
