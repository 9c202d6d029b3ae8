"""Two systems on the same items: is the difference more than chance?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from residency.metrics.intervals import Array, Statistic, blocks, bootstrap, group_sums


def approximate_randomisation(
    a: Array, b: Array, groups: Sequence[str], statistic: Statistic, samples: int = 2000, seed: int = 0
) -> float:
    """Two-sided p of the difference in a metric (Noreen 1989; Yeh 2000), systems swapped by whole groups.

    ``a`` and ``b`` [n, k] are the counts of the two systems with equal columns, ``statistic`` gives one metric
    [..., 1]. p = (1 + hits) / (1 + samples), so never 0; identical systems give 1.
    """
    first, second = _aligned_sums(a, b, groups)
    swap = second - first
    total_first, total_second = first.sum(axis=0), second.sum(axis=0)
    observed = abs(_difference(total_first, total_second, statistic).item())
    generator, hits = np.random.default_rng(seed), 0
    for rows in blocks(samples, len(swap)):
        swapped = generator.integers(2, size=(rows, len(swap))).astype(np.float64) @ swap
        difference = np.abs(_difference(total_first + swapped, total_second - swapped, statistic))
        hits += int((difference >= observed - 1e-12).sum())
    return (1 + hits) / (1 + samples)


def paired_bootstrap(
    a: Array,
    b: Array,
    groups: Sequence[str],
    statistic: Statistic,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """The difference ``b - a`` in a metric with its percentile interval, both systems on the same resampled groups.

    Arguments as for ``approximate_randomisation``; the bounds are nan for fewer than two groups.
    """
    columns = np.shape(a)[1]
    if np.shape(a) != np.shape(b):
        raise ValueError(f"counts of the two systems differ in shape: {np.shape(a)} and {np.shape(b)}")
    both = np.concatenate([a, b], axis=1)
    value, low, high = bootstrap(
        both,
        groups,
        lambda sums: _difference(sums[..., :columns], sums[..., columns:], statistic),
        samples,
        seed,
        level,
    )
    return value.item(), low.item(), high.item()


def holm(probabilities: Sequence[float]) -> list[float]:
    """p of several tests, adjusted so that the chance of one false alarm among them all stays what it says (Holm 1979)."""
    order = sorted(range(len(probabilities)), key=lambda i: probabilities[i])
    adjusted, running = [0.0] * len(order), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * probabilities[i]))
        adjusted[i] = running
    return adjusted


def _difference(a: Array, b: Array, statistic: Statistic) -> Array:
    return statistic(b) - statistic(a)


def _aligned_sums(a: Array, b: Array, groups: Sequence[str]) -> tuple[Array, Array]:
    if np.shape(a) != np.shape(b):
        raise ValueError(f"counts of the two systems differ in shape: {np.shape(a)} and {np.shape(b)}")
    return group_sums(a, groups), group_sums(b, groups)
