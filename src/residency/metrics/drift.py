"""Has a model become worse than its baseline? Evidence week by week, from counts of each note.

A week's F1 against a baseline F0 is linear in the counts of its notes: with x = 2 tp - F0 (2 tp +
fp + fn), the sum of x over that of 2 tp + fp + fn is F1 - F0. For every week in which a change may
have begun, a Bayes factor weighs the falls (half normal, of scale ``SCALE``) against none, on the
difference between what came since and the baseline, whose own sampling error is in both: the
likelihood ratio of what is left when the unknown true F1 is taken away, so it may be read at any
time (Robbins 1970; Perez-Ortiz et al. 2024). Their sum is the Shiryaev-Roberts e-detector (Shin,
Ramdas and Rinaldo 2023): without a change its mean after t weeks is at most t.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, erfc, inf, sqrt
from typing import Literal

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from residency.core.types import Value
from residency.metrics import counts as ratios
from residency.metrics.quantiles import NORMAL

Array = NDArray[np.float64]

SCALE = 0.05
"""Of the falls that are weighed."""
THRESHOLD = 200.0
"""Evidence that is called drift; what it alarms at without a change was measured on real notes
(docs/benchmarks.md)."""
LEAST = 20
"""Hits, and errors, of a label in the baseline, below which it is not watched by itself."""
ITEMS = 20
"""2 tp + fp + fn of a label since a change may have begun, below which it says nothing."""
ONE = 4.0
"""x^2 of one error more than were seen: a baseline without any is not sure to make none."""
CORRELATED = 0.3
"""Correlation of a proxy with the score, from which it takes part."""
YEAR = 52

_erfc = np.frompyfunc(erfc, 1, 1)


class Baseline(Value, frozen=True):
    """What a model reached on notes that it did not learn from, over all labels and for each."""

    sums: tuple[tuple[float, ...], ...]
    """Of each label, over all first: ``moments`` added up."""
    notes: int

    @property
    def f1(self) -> Array:
        """F1 of each label."""
        return f1_of(np.array(self.sums))

    @property
    def errors(self) -> Array:
        """Standard error of each."""
        sums = np.array(self.sums)
        items = items_of(sums)
        spread = np.sqrt(squares_of(sums, self.f1) / max(1, self.notes - 1))
        found = np.full(len(items), inf)
        np.divide(spread * sqrt(self.notes), items, out=found, where=items > 0)
        return found

    @property
    def known(self) -> NDArray[np.bool_]:
        """Labels of which it holds hits and errors enough to watch them; of all labels together
        hits are enough."""
        sums = np.array(self.sums)
        errors = sums[:, 1] + sums[:, 2]
        errors[0] = LEAST
        return np.asarray((sums[:, 0] >= LEAST) & (errors >= LEAST))


def moments(counts: Array) -> Array:
    """Counts of notes [..., labels, 3] with what adds up beside them, over all labels first: [...,
    1 + labels, 6]; the last three are (2 tp)^2, 2 tp times items and items^2 of a note."""
    both = np.concatenate([counts.sum(axis=-2, keepdims=True), counts], axis=-2)
    twice, items = 2 * both[..., 0], items_of(both)
    more = np.stack([twice**2, twice * items, items**2], axis=-1)
    return np.concatenate([both, more], axis=-1)


def items_of(counts: Array) -> Array:
    """2 tp + fp + fn."""
    return 2 * counts[..., 0] + counts[..., 1] + counts[..., 2]


def f1_of(sums: Array) -> Array:
    """F1 of each label."""
    return np.asarray(ratios.f1(sums[..., :3]), dtype=np.float64)


def linear(counts: Array, f1: Array) -> Array:
    """x of each label against its F1."""
    return np.asarray(2 * counts[..., 0] - f1 * items_of(counts))


def squares_of(sums: Array, f1: Array) -> Array:
    """x^2 added up over notes."""
    return np.asarray(sums[..., 3] - 2 * f1 * sums[..., 4] + f1**2 * sums[..., 5])


def baseline_of(counts: Array) -> Baseline:
    """The baseline of notes, or of patients where several notes are of one: [n, labels, 3]."""
    return Baseline(tuple(map(tuple, moments(counts).sum(axis=0).tolist())), len(counts))


def evidence(baseline: Baseline, weeks: Array, notes: Array) -> Array:
    """The e-detector after each week [weeks, labels], from the ``moments`` of each week [weeks,
    labels, 6] and how many notes they are of [weeks]."""
    f1, own, size = baseline.f1, np.array(baseline.sums), baseline.notes
    known = baseline.known
    shift, items = linear(weeks, f1), items_of(weeks)
    squares = squares_of(weeks, f1)
    before, whole = squares_of(own, f1), np.where(known, items_of(own), 1.0)
    found = np.ones_like(shift)
    for week in range(len(weeks)):
        # from every week that the change may have begun in
        moved, seen, spread = (np.cumsum(of[week::-1], axis=0) for of in (shift, items, squares))
        count = np.cumsum(notes[week::-1])[:, None]
        # of the baseline and the field together: where few errors were seen, one tells too little
        each = (before + spread + ONE) / (size + count)
        enough = known & (seen >= ITEMS)
        safe = np.where(enough, seen, 1.0)
        variance = each * (count / safe**2 + size / whole**2)
        found[week] = np.where(enough, bayes_factor(moved / safe, variance), 1.0).sum(axis=0)
    return found


def bayes_factor(change: Array, variance: Array) -> Array:
    """How much likelier a change of F1 is by a fall than by none."""
    variance = np.maximum(variance, 1e-12)
    both = variance + SCALE**2
    x = np.clip(change * SCALE / np.sqrt(2 * variance * both), -26, 26)
    return np.asarray(np.sqrt(variance / both) * np.exp(x * x) * np.asarray(_erfc(x), dtype=float))


def combined(baseline: Baseline, evidence: Array) -> Array:
    """One e-detector of all [weeks]: half on the whole, half shared by the labels that are watched,
    so that many labels do not alarm more often."""
    watched = np.flatnonzero(baseline.known[1:]) + 1
    if evidence.shape[-1] < 3 or not len(watched):  # one label is the whole
        return np.asarray(evidence[:, 0])
    return np.asarray((evidence[:, 0] + evidence[:, watched].mean(axis=1)) / 2)


def judge(
    baseline: Baseline, weeks: Array, notes: Array, margin: float, last: int = 8
) -> tuple[Reading, ...]:
    """What weeks say of all labels together and, after it, of each."""
    found = evidence(baseline, weeks, notes)
    each = len(baseline.sums) > 2
    share = np.where(baseline.known, 2.0 * max(1, baseline.known[1:].sum()), np.inf)
    shown = found / share if each else found
    shown[:, 0] = combined(baseline, found)
    return tuple(
        read(baseline, weeks, notes, shown[:, label], label, margin, last)
        for label in range(len(baseline.sums))
    )


def literal(baseline: Baseline, weeks: Array, fall: float, relative: bool) -> Array:
    """Which weeks [weeks], each read by itself, have an F1 that is more than ``fall`` below the
    baseline: a share of that, or points (0.05: five)."""
    own = float(baseline.f1[0])
    limit = own * (1 - fall) if relative else own - fall
    return np.asarray((ratios.f1(weeks[:, 0, :3]) < limit) & (items_of(weeks[:, 0]) > 0))


class Reading(Value, frozen=True):
    """What the weeks so far say of one label, or of all."""

    verdict: Literal["drift", "no drift", "undecided"]
    f1: float | None
    """Of the weeks that are read; none where they hold nothing of the label."""
    fall: float
    """Of F1 below the baseline; negative where it rose."""
    low: float
    high: float
    """Bounds of the fall, 95 % each."""
    evidence: float
    """The largest so far."""
    needed: int = 0
    """Undecided: about so many more labelled notes decide it; 0 where none would, as the baseline
    itself is of too few."""


def read(
    baseline: Baseline,
    weeks: Array,
    notes: Array,
    evidence: Array,
    label: int,
    margin: float,
    last: int = 8,
) -> Reading:
    """What weeks [weeks, labels, 6] of so many ``notes`` [weeks] say of a label (0: all): *drift*
    where the ``evidence`` [weeks] ever reached the threshold, *no drift* where the ``last`` weeks
    exclude a fall of ``margin``."""
    f1, own = float(baseline.f1[label]), np.array(baseline.sums)[label]
    recent, size = weeks[-last:, label].sum(axis=0), float(notes[-last:].sum())
    items, peak = float(items_of(recent)), float(evidence.max(initial=0.0))
    if not items or not items_of(own):
        verdict: Literal["drift", "undecided"] = "drift" if peak >= THRESHOLD else "undecided"
        return Reading(verdict=verdict, f1=None, fall=0.0, low=-1.0, high=1.0, evidence=peak)
    squares = float(squares_of(own, np.array(f1)) + squares_of(recent, np.array(f1)))
    each = (squares + ONE) / (baseline.notes + size)
    field, error = each * size / items**2, each * baseline.notes / float(items_of(own)) ** 2
    z = NORMAL.inv_cdf(0.95)
    now = float(ratios.f1(recent[:3]))
    fall, reach = f1 - now, z * sqrt(field + error)
    found = Reading(
        verdict="undecided", f1=now, fall=fall, low=fall - reach, high=fall + reach, evidence=peak
    )
    if peak >= THRESHOLD:
        return replace(found, verdict="drift")
    if items >= ITEMS and fall + reach < margin:
        return replace(found, verdict="no drift")
    # until the bounds leave out the margin, or nothing, with what the baseline leaves of room
    room = max(abs(margin - fall), abs(fall)) ** 2 / z**2 - error
    more = size * (field / room - 1) if room > 0 else 0.0
    return replace(found, needed=max(1, ceil(more)) if room > 0 else 0)


# A proxy that is known of all notes, such as how sure the model was.


class Proxy(Value, frozen=True):
    """What a proxy tells of x, by the notes of the baseline."""

    correlation: float
    slope: float
    """0 where the correlation is below ``CORRELATED``: the correction would cost more than it
    tells."""


def proxy_of(x: Array, proxy: Array) -> Proxy:
    """Of x [n] and the proxy [n] of the baseline's notes."""
    if len(x) < ITEMS or not x.std() or not proxy.std():
        return Proxy(correlation=0.0, slope=0.0)
    found = float(np.corrcoef(x, proxy)[0, 1])
    helps = found >= CORRELATED
    return Proxy(correlation=found, slope=found * float(x.std() / proxy.std()) if helps else 0.0)


def powered(x: Array, proxy: Array, every: Array, known: Proxy) -> tuple[float, float]:
    """The mean of x over all notes of a week, and its variance, from labelled notes [n] and the
    proxy of these [n] and of all [m], of which the labelled were drawn at random
    (prediction-powered inference: Angelopoulos et al. 2023)."""
    rest = x - known.slope * proxy
    mean = float(rest.mean() + known.slope * every.mean())
    variance = float(rest.var(ddof=1)) / len(x)
    return mean, variance + known.slope**2 * float(every.var(ddof=1)) / len(every)


# Years without a change, and with one, resampled from the notes of a baseline.


def years(
    counts: Array,
    labelled: int,
    repeats: int,
    size: int = 0,
    fall: float = 0.0,
    begins: int = 0,
    weeks: int = YEAR,
    seed: int = 0,
) -> Iterator[tuple[Baseline, Array]]:
    """Baselines of ``size`` notes (as many as there are where 0) and the moments of weeks [weeks,
    labels, 6] of ``labelled`` notes each, both drawn from notes [n, labels, 3].

    From week ``begins`` on, F1 falls by so much: hits of a note become a miss and an invention.
    """
    chance, size = np.random.default_rng(seed), size or len(counts)
    level = float(ratios.f1(counts.sum(axis=(0, 1))))
    for _ in range(repeats):
        baseline = baseline_of(counts[chance.integers(len(counts), size=size)])
        drawn = counts[chance.integers(len(counts), size=(weeks, labelled))].astype(float)
        if fall:
            hits = drawn[begins:, ..., 0].astype(int)
            lost = chance.binomial(hits, min(1.0, fall / level))
            drawn[begins:] += lost[..., None] * np.array([-1, 1, 1])
        yield baseline, moments(drawn).sum(axis=1)
