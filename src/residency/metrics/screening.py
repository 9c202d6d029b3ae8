"""What a screening test is judged by: sensitivity and its kin, the area under the ROC curve, and
calibration."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from residency.core.types import Bin
from residency.metrics.intervals import Array, Statistic, group_sums, wilson
from residency.metrics.quantiles import NORMAL, student

BINS = 10
"""Equal parts of 0..1 in which calibration is looked at."""

Interval = tuple[float, float, float]
"""Value and bounds; nan where there is nothing to say."""


def proportion(
    right: Sequence[bool], among: Sequence[bool], groups: Sequence[str], level: float = 0.95
) -> Interval:
    """The share of ``right`` among the items that are ``among`` (sensitivity: found, among the
    diseased), with Wilson's interval (1927).

    Where a group holds several items, their number is divided by the design effect, the variance
    between groups over the binomial one (Korn and Graubard 1998), and t takes the place of the
    normal quantile.
    """
    chosen, whole = np.asarray(among, dtype=bool), float(np.sum(among))
    if not whole:
        return float("nan"), float("nan"), float("nan")
    hits = np.asarray(right, dtype=bool) & chosen
    share = float(hits.sum() / whole)
    names = [group for group, one in zip(groups, chosen, strict=True) if one]
    size, z = whole, NORMAL.inv_cdf((1 + level) / 2)
    if len(set(names)) < len(names):
        sums = group_sums(
            np.stack([hits[chosen], np.ones(len(names))], axis=1).astype(float), names
        )
        z = student(level, len(sums) - 1)
        size = _effective(sums, share, whole)
    low, high = wilson(share, size, z)
    return share, float(low), float(high)


def _effective(sums: Array, share: float, whole: float) -> float:
    """How many independent items say as much about a share as those of the groups: [groups, (hits,
    items)]."""
    count = len(sums)
    if count < 2 or share in (0, 1):
        return float(count)
    variance = (
        count / (count - 1) * float(((sums[:, 0] - share * sums[:, 1]) ** 2).sum()) / whole**2
    )
    return min(whole, share * (1 - share) / variance) if variance else whole


def auroc(
    scores: Sequence[float], positive: Sequence[bool], groups: Sequence[str], level: float = 0.95
) -> Interval:
    """The chance that a positive item has a higher score than a negative one, ties counted half.

    Its interval is that of Obuchowski (1997) for clustered data (DeLong's where every item is its
    own group), on the logit scale. nan where there is only one kind of item, and for the bounds
    where the two kinds are told apart without a fault.
    """
    values, wanted = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    above, below = values[wanted], values[~wanted]
    if not len(above) or not len(below):
        return float("nan"), float("nan"), float("nan")
    of_positive = _beaten(above, below)
    of_negative = 1 - _beaten(below, above)
    area = float(of_positive.mean())
    components = np.zeros((len(values), 4))
    components[wanted, 0], components[wanted, 2] = of_positive - area, 1
    components[~wanted, 1], components[~wanted, 3] = of_negative - area, 1
    sums = group_sums(components, groups)
    variance = _variance(sums, len(above), len(below))
    if not 0 < area < 1 or not variance > 0:
        return area, float("nan"), float("nan")
    reach = student(level, len(sums) - 1) * sqrt(variance) / (area * (1 - area))
    low, high = (
        1 / (1 + exp(min(700.0, -log(area / (1 - area)) - way * reach))) for way in (-1, 1)
    )
    return area, low, high


def _beaten(ones: Array, others: Array) -> Array:
    """Of each of ``ones`` the share of ``others`` that it exceeds, ties half."""
    ordered = np.sort(others)
    left, right = np.searchsorted(ordered, ones, "left"), np.searchsorted(ordered, ones, "right")
    return np.asarray((left + right) / (2 * len(ordered)))


def _variance(sums: Array, positives: int, negatives: int) -> float:
    """Variance of the area, of the deviations of positive and negative items and their numbers,
    added up by group [groups, 4]."""
    with_positive, with_negative, count = (sums[:, 2] > 0).sum(), (sums[:, 3] > 0).sum(), len(sums)
    if min(with_positive, with_negative) < 2:
        return float("nan")
    ten = with_positive / ((with_positive - 1) * positives) * (sums[:, 0] ** 2).sum()
    one = with_negative / ((with_negative - 1) * negatives) * (sums[:, 1] ** 2).sum()
    both = count / (count - 1) * (sums[:, 0] * sums[:, 1]).sum()
    return float(ten / positives + one / negatives + 2 * both / (positives * negatives))


def binned(chances: Sequence[float], right: Sequence[bool]) -> Array:
    """What each item adds to its bin: [items, 3 * BINS], for each bin items, chances and how many
    were right."""
    rows = np.zeros((len(chances), BINS, 3))
    places: NDArray[np.intp] = np.minimum(
        (np.asarray(chances, dtype=float) * BINS).astype(np.intp), BINS - 1
    )
    rows[np.arange(len(chances)), places] = np.stack(
        [np.ones(len(chances)), np.asarray(chances, dtype=float), np.asarray(right, dtype=float)],
        axis=1,
    )
    return rows.reshape(len(chances), 3 * BINS)


def calibration_error() -> Statistic:
    """Expected calibration error (Naeini et al. 2015) of summed bins: [..., 3 * BINS] -> [..., 1].
    Chance alone makes it larger than 0, the more so the fewer the items."""

    def measure(sums: Array) -> Array:
        table = sums.reshape(*sums.shape[:-1], BINS, 3)
        apart = np.abs(table[..., 1] - table[..., 2]).sum(axis=-1)
        return np.asarray((apart / table[..., 0].sum(axis=-1))[..., None])

    return measure


def bins(
    chances: Sequence[float], right: Sequence[bool], groups: Sequence[str], level: float = 0.95
) -> tuple[Bin, ...]:
    """The reliability curve: of each part of 0..1 that holds items, their mean chance and the share
    that was right."""
    sums = binned(chances, right).sum(axis=0).reshape(BINS, 3)
    inside = np.minimum((np.asarray(chances, dtype=float) * BINS).astype(int), BINS - 1)
    found = []
    for number, (count, chance, _) in enumerate(sums.tolist()):
        if count:
            share, low, high = proportion(right, (inside == number).tolist(), groups, level)
            found.append(
                Bin(
                    start=number / BINS,
                    end=(number + 1) / BINS,
                    n=int(count),
                    chance=chance / count,
                    right=share,
                    low=low,
                    high=high,
                )
            )
    return tuple(found)
