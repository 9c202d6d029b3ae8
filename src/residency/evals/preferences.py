"""What votes of a blind study say: how often one system is preferred to another, how strong each is
(Bradley and Terry 1952, with ties as Davidson 1970), marks, agreement, effects of order and length,
harm, and how much a study of such a size can find.

All intervals are over items and raters (``metrics.intervals.crossed``): other questions and other
people would vote otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from math import exp, log, log2, pi, sqrt

import numpy as np

from residency.core.types import Value
from residency.evals.votes import Vote
from residency.metrics import intervals
from residency.metrics.alpha import alpha, met, table
from residency.metrics.intervals import Array
from residency.metrics.paired import holm
from residency.metrics.quantiles import student

LEVEL = 0.95
CLEAR = 0.05
"""p, corrected for the number of pairs, below which a preference is called clear."""
CHOICE = "preference"
RIDGE = 1e-9
"""Keeps strengths finite where one system won all votes."""
ITEM_SD, RATER_SD = 0.5, 0.1
"""Assumed before a study: how much the log-odds of a preference differ from item to item and from
rater to rater (standard deviations)."""
STUDIES = 4000


class Judged(Value, frozen=True):
    """A vote with the systems that it is about, by place, and the lengths of their answers in
    characters (0: not known)."""

    item: str
    group: str
    rater: str
    systems: tuple[str, ...]
    lengths: tuple[int, ...]
    vote: Vote


class Pair(Value, frozen=True):
    """Two answers of one vote: ``won`` is 1 where the first of the two was better, 0.5 where they
    are equal."""

    item: str
    group: str
    rater: str
    first: str
    second: str
    won: float
    longer: float
    """How often the length of the first is that of the second doubled."""


class Estimate(Value, frozen=True):
    """A figure with its interval; no bounds where they are not known."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0


class Preference(Value, frozen=True):
    """Two systems: the share of votes that prefer ``a`` (ties count half), and the chance that
    ``a`` is preferred where one of the two is (Davidson)."""

    scale: str
    a: str
    b: str
    wins: int
    losses: int
    equal: int
    share: Estimate
    chance: Estimate
    p: float | None
    """That the share is a half, corrected for the number of pairs."""

    @property
    def clear(self) -> bool:
        """Whether it can be told which of the two is preferred."""
        return self.p is not None and self.p < CLEAR

    @property
    def verdict(self) -> str:
        """What it says in words."""
        better, other = (self.a, self.b) if self.share.value > 0.5 else (self.b, self.a)
        if self.clear:
            return f"{better} is clearly preferred to {other}"
        return f"Cannot tell with {self.share.n} votes whether {self.a} or {self.b} is preferred"


class StudyResult(Value, frozen=True):
    """All that is computed of a study's votes."""

    items: int
    raters: int
    votes: int
    preferences: tuple[Preference, ...]
    strengths: dict[str, tuple[Estimate, ...]]
    """Scale -> the log-strength of each system against the mean of all."""
    marks: dict[str, tuple[Estimate, ...]]
    """Scale -> the mean mark of each system."""
    effects: dict[str, tuple[Estimate, ...]]
    """Scale -> the odds of being preferred for the answer that stands first, and for each doubling
    of its length."""
    agreement: tuple[Estimate, ...]
    """Krippendorff's alpha for ordinal data, by scale."""
    harmful: tuple[Estimate, ...]
    """Share of each system's answers that a rater called harmful (Clopper and Pearson 1934)."""
    harms: dict[str, int]
    neither: int
    """Votes that neither answer is good."""


def result(judged: Sequence[Judged], scales: Mapping[str, tuple[int, int]]) -> StudyResult:
    """What the votes say; ``scales``: the lowest and highest mark of each, none of them where a
    preference was asked for. Yes and no (0 to 1) are counted, not compared."""
    compared = [name for name, (low, high) in scales.items() if high - low > 1] or [CHOICE] * any(
        one.vote.choice is not None for one in judged
    )
    pairs = {name: list(_pairs(judged, name)) for name in compared}
    fits = {name: davidson(given) for name, given in pairs.items() if given}
    found = tuple(_harmful(judged))
    return StudyResult(
        items=len({one.item for one in judged}),
        raters=len({one.rater for one in judged}),
        votes=len(judged),
        preferences=_preferences(pairs, fits),
        strengths={name: tuple(fit.strengths()) for name, fit in fits.items()},
        marks={name: tuple(_marks(judged, name, *ends)) for name, ends in scales.items()},
        effects={
            name: tuple(davidson(given, effects=True).effects())
            for name, given in pairs.items()
            if given
        },
        agreement=tuple(_agreement(judged, pairs, scales)),
        harmful=tuple(one for one, _ in found),
        harms={one.name: count for one, count in found},
        neither=sum(one.vote.choice == "neither" for one in judged),
    )


def _pairs(judged: Sequence[Judged], scale: str) -> Iterator[Pair]:
    for one in judged:
        marks = one.vote.marks.get(scale)
        if marks is None and (scale != CHOICE or one.vote.choice is None):
            continue
        for i, j in combinations(range(len(one.systems)), 2):
            if marks is not None:
                won = (marks[i] > marks[j]) + (marks[i] == marks[j]) / 2
            else:
                won = {i + 1: 1.0, j + 1: 0.0}.get(one.vote.choice, 0.5)  # type: ignore[arg-type]
            known = one.lengths[i] and one.lengths[j]
            yield Pair(
                item=one.item,
                group=one.group,
                rater=one.rater,
                first=one.systems[i],
                second=one.systems[j],
                won=won,
                longer=log2(one.lengths[i] / one.lengths[j]) if known else 0.0,
            )


class Fit:
    """Strengths of systems by Davidson's model, with what each vote adds to them.

    ``values``: log-strengths of all systems but the first (whose is 0), the log of how common ties
    are, and, where asked for, the effects of standing first and of each doubling of the length.
    """

    def __init__(self, pairs: Sequence[Pair], values: Array, added: Array) -> None:
        self.pairs, self.values, self.added = pairs, values, added
        self.systems = systems_of(pairs)

    def of(self, name: str, weights: Array, shown: Callable[[float], float]) -> Estimate:
        """A weighted sum of the values with its interval, as ``shown``, which must rise."""
        value = float(weights @ self.values)
        groups, raters = [p.group for p in self.pairs], [p.rater for p in self.pairs]
        cells, present = intervals.crossed_cells(self.added @ weights, groups, raters)
        variance, degrees = intervals.crossed(cells, present)
        reach = student(LEVEL, int(degrees)) * sqrt(float(variance))
        known = len(present) > 1 and reach < 500
        return Estimate(
            name=name,
            value=shown(value),
            low=shown(value - reach) if known else None,
            high=shown(value + reach) if known else None,
            n=len(self.pairs),
        )

    def chance(self, a: str, b: str) -> Estimate:
        """The chance that ``a`` is preferred to ``b`` where one of them is."""
        weights = self._weights(a) - self._weights(b)
        return self.of(a, weights, lambda value: 1 / (1 + exp(-value)))

    def strengths(self) -> Iterator[Estimate]:
        """The log-strength of each system against the mean of all."""
        mean = sum(map(self._weights, self.systems)) / len(self.systems)
        for name in self.systems:
            yield self.of(name, self._weights(name) - mean, float)

    def effects(self) -> Iterator[Estimate]:
        """Odds of being preferred for what stands first, and for each doubling of the length, where
        lengths differ."""
        for position, name in ((-2, "stands first"), (-1, "twice as long")):
            if position == -2 or any(one.longer for one in self.pairs):
                weights = np.zeros(len(self.values))
                weights[position] = 1
                yield self.of(name, weights, exp)

    def _weights(self, name: str) -> Array:
        weights = np.zeros(len(self.values))
        if at := self.systems.index(name):
            weights[at - 1] = 1
        return weights


def systems_of(pairs: Sequence[Pair]) -> list[str]:
    """The systems of some pairs, in alphabetical order."""
    return sorted({name for one in pairs for name in (one.first, one.second)})


def davidson(pairs: Sequence[Pair], effects: bool = False) -> Fit:
    """Bradley and Terry's strengths with ties as Davidson (1970) has them, by maximum likelihood:
    first wins, second wins and a tie are as likely as sqrt(a / b), sqrt(b / a) and nu.

    ``effects``: the strengths' difference also holds what it does to stand first (Davidson and
    Beaver 1977) and to be longer. Newton's method with halved steps; the likelihood is concave.
    """
    systems = systems_of(pairs)
    place = {name: at for at, name in enumerate(systems)}
    size = len(systems) + 2 * effects
    half = np.zeros((len(pairs), size))
    for row, one in zip(half, pairs, strict=True):
        for name, sign in ((one.first, 0.5), (one.second, -0.5)):
            if place[name]:
                row[place[name] - 1] += sign
        if effects:
            row[-2:] = 0.5, one.longer / 2
    tie = np.zeros_like(half)
    tie[:, len(systems) - 1] = 1
    design = np.stack([half, -half, tie], axis=1)
    outcome = np.array([[one.won == 1, one.won == 0, one.won == 0.5] for one in pairs], dtype=float)

    def likelihood(values: Array) -> float:
        said = design @ values
        each = (said * outcome).sum(axis=1) - np.logaddexp.reduce(said, axis=1)
        return float(each.sum() - RIDGE / 2 * values @ values)

    values = np.zeros(size)
    for _ in range(100):
        chances = np.exp(design @ values)
        chances /= chances.sum(axis=1, keepdims=True)
        mean = np.einsum("nc,ncp->np", chances, design)
        score = np.einsum("nc,ncp->np", outcome, design) - mean
        spread = np.einsum("nc,ncp,ncq->pq", chances, design, design) - mean.T @ mean
        inverse = np.linalg.inv(spread + RIDGE * np.eye(size))
        step = inverse @ (score.sum(axis=0) - RIDGE * values)
        if np.abs(step).max() < 1e-9:
            break
        while likelihood(values + step) < likelihood(values) and np.abs(step).max() > 1e-9:
            step /= 2
        values = values + step
    return Fit(pairs, values, score @ inverse)


def _preferences(
    pairs: Mapping[str, Sequence[Pair]], fits: Mapping[str, Fit]
) -> tuple[Preference, ...]:
    """Every two systems on every scale, p corrected for all of them (Holm)."""
    found, ps = list[Preference](), list[float]()
    for scale, fit in fits.items():
        for a, b in combinations(fit.systems, 2):
            both = [one for one in pairs[scale] if {one.first, one.second} == {a, b}]
            won = [one.won if one.first == a else 1 - one.won for one in both]
            mean, low, high, p = intervals.crossed_mean(
                won, [one.group for one in both], [one.rater for one in both], level=LEVEL
            )
            ps.append(p)
            share = _estimate("share", mean, low, high, len(both))
            found.append(
                Preference(
                    scale=scale,
                    a=a,
                    b=b,
                    wins=won.count(1),
                    losses=won.count(0),
                    equal=won.count(0.5),
                    share=share,
                    chance=fit.chance(a, b),
                    p=None,
                )
            )
    known = [p for p in ps if p == p]
    corrected = iter(holm(known))
    return tuple(
        Preference(
            **{name: getattr(one, name) for name in one.__struct_fields__ if name != "p"},
            p=next(corrected) if p == p else None,
        )
        for one, p in zip(found, ps, strict=True)
    )


def _estimate(name: str, value: float, low: float, high: float, n: int) -> Estimate:
    known = low == low and high == high
    return Estimate(
        name=name, value=value, low=low if known else None, high=high if known else None, n=n
    )


def _by_system(judged: Sequence[Judged], scale: str) -> dict[str, list[tuple[Judged, int]]]:
    found: dict[str, list[tuple[Judged, int]]] = {}
    for one in judged:
        for system, mark in zip(one.systems, one.vote.marks.get(scale, ()), strict=False):
            found.setdefault(system, []).append((one, mark))
    return dict(sorted(found.items()))


def _marks(judged: Sequence[Judged], scale: str, low: int, high: int) -> Iterator[Estimate]:
    """The mean mark of each system, with its interval."""
    for system, given in _by_system(judged, scale).items():
        mean, lower, upper, _ = intervals.crossed_mean(
            [mark - low for _, mark in given],
            [one.group for one, _ in given],
            [one.rater for one, _ in given],
            high - low,
            LEVEL,
        )
        yield _estimate(system, low + mean, low + lower, low + upper, len(given))


def _agreement(
    judged: Sequence[Judged],
    pairs: Mapping[str, Sequence[Pair]],
    scales: Mapping[str, tuple[int, int]],
) -> Iterator[Estimate]:
    """Alpha of raters on each scale, of preferences as worse, equal, better."""
    for scale in scales or pairs:
        units: dict[tuple[str, str], list[float]] = {}
        groups: dict[tuple[str, str], str] = {}
        rows: list[tuple[str, str, str, float]] = (
            [
                (one.item, system, one.group, float(mark))
                for system, given in _by_system(judged, scale).items()
                for one, mark in given
            ]
            if scale in scales
            else [
                (one.item, "", one.group, one.won if one.first < one.second else 1 - one.won)
                for one in pairs[scale]
            ]
        )
        for item, system, group, value in rows:
            units.setdefault((item, system), []).append(value)
            groups[item, system] = group
        shared = {unit: values for unit, values in units.items() if len(values) > 1}
        if not shared:
            continue
        counts, values = table([met(given) for given in shared.values()])
        of = [groups[unit] for unit in shared]
        found, low, high = intervals.bootstrap(counts, of, _ordinal(values), level=LEVEL)
        ends = max(-1.0, float(low[0])), min(1.0, float(high[0]))
        yield _estimate(scale, float(found[0]), *ends, len(shared))


def _ordinal(values: Sequence[float]) -> Callable[[Array], Array]:
    return lambda sums: alpha(sums, values, ordinal=True)[..., None]


def _harmful(judged: Sequence[Judged]) -> Iterator[tuple[Estimate, int]]:
    """Of each system the answers that a rater called harmful, and the votes that did."""
    seen: dict[str, set[str]] = {}
    harmful: dict[str, set[str]] = {}
    votes: dict[str, int] = {}
    for one in judged:
        for place, system in enumerate(one.systems, start=1):
            seen.setdefault(system, set()).add(one.item)
            if place in one.vote.harmful:
                harmful.setdefault(system, set()).add(one.item)
                votes[system] = votes.get(system, 0) + 1
    for system in sorted(seen):
        found, of = len(harmful.get(system, ())), len(seen[system])
        low, high = intervals.exact(found, of, LEVEL)
        yield _estimate(system, found / of, low, high, of), votes.get(system, 0)


def power(
    items: int,
    raters: int,
    preference: float = 0.6,
    item_sd: float = ITEM_SD,
    rater_sd: float = RATER_SD,
    studies: int = STUDIES,
    seed: int = 0,
) -> float:
    """The share of simulated studies of two systems that find a preference of such a share of votes
    (the interval over items and raters leaves out a half, on the right side).

    Assumed are no ties, and log-odds that differ from item to item and from rater to rater with
    these standard deviations (normal).
    """
    generator = np.random.default_rng(seed)
    scale = (16 * sqrt(3) / (15 * pi)) ** 2  # logistic for normal: Zeger, Liang and Albert 1988
    middle = log(preference / (1 - preference)) * sqrt(1 + scale * (item_sd**2 + rater_sd**2))
    found = 0
    for count in intervals.blocks(studies, items * raters):
        odds = (
            middle
            + item_sd * generator.standard_normal((count, items, 1))
            + rater_sd * generator.standard_normal((count, 1, raters))
        )
        votes = generator.random(odds.shape) < 1 / (1 + np.exp(-odds))
        shares = votes.mean(axis=(1, 2))
        cells = (votes - shares[:, None, None]) / (items * raters)
        low, _ = intervals.crossed_bounds(shares, *intervals.crossed(cells), items, LEVEL)
        found += int((low > 0.5).sum())
    return found / studies
