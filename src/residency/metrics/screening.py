"""What a screening test is judged by: sensitivity and its kin, the area under the ROC curve, and
calibration."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, isnan, log, sqrt

import numpy as np
from numpy.typing import NDArray

from residency.core.types import Bin, Score
from residency.metrics.intervals import (
    Array,
    Statistic,
    bootstrap,
    group_sums,
    jackknife,
    of_share,
    procedure,
    wilson,
)
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

    Where a group holds several items, it is that of every other share (``intervals.of_share``),
    with the variance between groups.
    """
    chosen, whole = np.asarray(among, dtype=bool), float(np.sum(among))
    if not whole:
        return float("nan"), float("nan"), float("nan")
    hits = np.asarray(right, dtype=bool) & chosen
    share = float(hits.sum() / whole)
    names = [group for group, one in zip(groups, chosen, strict=True) if one]
    if len(set(names)) == len(names):
        low, high = wilson(share, whole, NORMAL.inv_cdf((1 + level) / 2))
        return share, float(low), float(high)
    sums = group_sums(np.stack([hits[chosen], np.ones(len(names))], axis=1).astype(float), names)
    if len(sums) < 2:
        return share, 0.0, 1.0
    error, reach = jackknife(sums, _ratio), student(level, len(sums) - 1)
    low, high = of_share(np.array(share), error, len(sums), reach)
    return share, float(low), float(high)


def _ratio(sums: Array) -> Array:
    """The share of summed (hits, items)."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def predictive_value(ill: Interval, well: Interval, prevalence: float) -> Interval:
    """PPV where so large a share is ill, of sensitivity and specificity with their intervals.

    Its bounds are those of the ratio of false alarms to sensitivity, recovered from the bounds of
    both (MOVER: Donner and Zou 2012). NPV: the two shares changed over, and 1 - ``prevalence``. nan
    where there is nothing to say.
    """
    (hit, hit_low, hit_high), (well_share, well_low, well_high) = ill, well
    alarm, low, high = 1 - well_share, 1 - well_high, 1 - well_low
    odds, both = (1 - prevalence) / prevalence, alarm * hit
    if isnan(both) or alarm == hit == 0:
        return float("nan"), float("nan"), float("nan")

    def value(above: float, below: float) -> float:
        return below / (below + odds * above)

    def root(inner: float, outer: float) -> float:
        return sqrt(max(0.0, both**2 - inner * (2 * alarm - inner) * outer * (2 * hit - outer)))

    # (both -+ root) / (outer (2 hit - outer)), each written so that nothing is divided by 0
    least = low * (2 * alarm - low), both + root(low, hit_high)
    most = both + root(high, hit_low), hit_low * (2 * hit - hit_low)
    lower = value(*most) if most[0] else 0.0
    upper = value(*least) if least[1] else 1.0
    return value(alarm, hit), lower, upper


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


def reliability(
    pairs: Sequence[tuple[float, bool, str]], samples: int, seed: int, level: float = 0.95
) -> tuple[tuple[Bin, ...], Score | None]:
    """The reliability curve of (chance, whether right, group) and the expected calibration error
    with its interval over groups; nothing of nothing."""
    if not pairs:
        return (), None
    chances, right, groups = map(list, zip(*pairs, strict=True))
    rows = binned(chances, right)
    value, low, high = bootstrap(rows, groups, calibration_error(), samples, seed, level, True)
    units = len(set(groups))
    known = units > 1 and samples > 0
    error = Score(
        metric="ece",
        value=float(value[0]),
        low=float(low[0]) if known else None,
        high=float(high[0]) if known else None,
        n=len(pairs),
        groups=units,
        procedure=procedure(units, samples, level),
    )
    return bins(chances, right, groups, level), error


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
