"""Two systems on the same items: is the difference more than chance?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from residency.metrics.intervals import Array, Statistic, blocks, bootstrap, group_sums


def approximate_randomisation(
    a: Array,
    b: Array,
    groups: Sequence[str],
    statistic: Statistic,
    samples: int = 2000,
    seed: int = 0,
) -> float:
    """Two-sided p of the difference in a metric (Noreen 1989; Yeh 2000), systems swapped by whole
    groups.

    ``a`` and ``b`` [n, k] are the counts of the two systems with equal columns, ``statistic`` gives
    one metric [..., 1]. p = (1 + hits) / (1 + samples), so never 0; identical systems give 1.
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


def smallest_p(groups: int, samples: int) -> float:
    """The smallest p that so many groups can give: of their 2^n ways to be swapped two are as
    extreme as the one that was seen, and so many samples find none below 1 / (1 + samples)."""
    return max(2.0 ** (1 - groups), 1 / (1 + samples))


def paired_bootstrap(
    a: Array,
    b: Array,
    groups: Sequence[str],
    statistic: Statistic,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """The difference ``b - a`` in a metric with its interval, both systems on the same groups.

    Arguments as for ``approximate_randomisation``; the bounds are nan for fewer than two groups.
    """
    columns = np.shape(a)[1]
    if np.shape(a) != np.shape(b):
        raise ValueError(
            f"counts of the two systems differ in shape: {np.shape(a)} and {np.shape(b)}"
        )
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


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979): the smallest is multiplied by all, the next
    by one fewer, and none falls below one before it. The chance that any true null hypothesis is
    rejected stays below the level."""
    corrected, largest = [0.0] * len(ps), 0.0
    for place, position in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[position]))
        corrected[position] = largest
    return corrected


def _difference(a: Array, b: Array, statistic: Statistic) -> Array:
    return statistic(b) - statistic(a)


def _aligned_sums(a: Array, b: Array, groups: Sequence[str]) -> tuple[Array, Array]:
    if np.shape(a) != np.shape(b):
        raise ValueError(
            f"counts of the two systems differ in shape: {np.shape(a)} and {np.shape(b)}"
        )
    return group_sums(a, groups), group_sums(b, groups)
