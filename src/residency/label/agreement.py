"""How far annotators agree (alpha on characters, F1 of spans, by label and annotator, over time,
with intervals over patients), and how long the rest of their work will take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations, pairwise
from math import isnan
from statistics import median
from typing import TYPE_CHECKING

from residency.core.errors import UserError
from residency.core.types import Note, Score, Value
from residency.label.annotations import Annotation, Version
from residency.label.differences import Place, places
from residency.metrics import alpha as metric
from residency.metrics.counts import f1
from residency.metrics.intervals import bootstrap
from residency.metrics.spans import Mode, confusion, count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

PERIODS = 4
"""Equal parts of an annotator's notes, in the order in which they were done, for drift."""
FEWEST = 12
"""Notes below which drift is not looked for."""
MODES: tuple[Mode, ...] = ("strict", "relaxed")


class Drift(Value, frozen=True):
    """How an annotator's agreement with the others moves."""

    annotator: str
    periods: tuple[Score, ...]
    """Strict F1 with the others in each part of their notes."""
    change: Score
    """F1 of the second half minus that of the first."""


class Disagreement(Value, frozen=True):
    """A note on which annotators differ much."""

    note: str
    f1: float
    """Strict F1 of all pairs together."""
    places: tuple[Place, ...]
    """Where they differ."""


class Agreement(Value, frozen=True):
    """What annotators have in common."""

    notes: int
    """Notes that two or more have labelled."""
    groups: int
    done: dict[str, int]
    """Annotator -> notes that count."""
    alpha: tuple[Score, ...]
    """Of all labels together (``alpha``), then of each (``alpha/drug``)."""
    pooled: tuple[Score, ...]
    """``strict_f1`` and ``relaxed_f1`` of all pairs together, then of each label
    (``strict_f1/drug``)."""
    pairs: tuple[Score, ...]
    """``strict_f1/a1~a2``, ``relaxed_f1/a1~a2`` ..."""
    annotators: tuple[Score, ...]
    """``strict_f1/a1``: with all others together; ``relaxed_f1/a1``."""
    confusion: dict[str, dict[str, int]]
    """Label of one -> label of the other -> spans; both directions, so it is symmetric. ``-`` is
    nothing."""
    drift: tuple[Drift, ...] = ()
    worst: tuple[Disagreement, ...] = ()


def agree(
    notes: Mapping[str, Note],
    annotations: Mapping[str, Mapping[str, Annotation]],
    labels: Sequence[str],
    samples: int = 1000,
    seed: int = 0,
    worst: int = 20,
) -> Agreement:
    """Agreement on all notes that two or more annotators have labelled; what is skipped or faulty
    does not count.

    Raises ``UserError`` where fewer than two annotators have a note in common.
    """
    done = {
        name: {id: one.spans for id, one in given.items() if one.counts}
        for name, given in annotations.items()
    }
    shared = [id for id in notes if sum(id in given for given in done.values()) >= 2]
    if not shared:
        counted = ", ".join(f"{name} {len(given)}" for name, given in done.items())
        raise UserError(
            f"label: no two annotators have labelled the same note (notes that count: {counted}); "
            "pull again when they have."
        )
    names = [name for name in done if any(id in done[name] for id in shared)]
    groups = [notes[id].group or id for id in shared]
    score = partial(_score, samples=samples, seed=seed)
    versions = [{name: done[name][id] for name in names if id in done[name]} for id in shared]
    counts = _Counts(versions, names, labels)
    pooled, pairs, people = [], [], []
    for mode in MODES:
        every = counts.of(mode)
        pooled += score([f"{mode}_f1"], every.sum(axis=(1, 2)), _f1, groups)
        by_label = every.sum(axis=1).reshape(len(shared), -1)
        pooled += score([f"{mode}_f1/{label}" for label in labels], by_label, _f1, groups)
        by_pair = every.sum(axis=2).reshape(len(shared), -1)
        pairs += score([f"{mode}_f1/{a}~{b}" for a, b in counts.pairs], by_pair, _f1, groups)
        for name in names:
            own = every[:, counts.pairs_with(name)].sum(axis=(1, 2))
            people += score([f"{mode}_f1/{name}"], own, _f1, groups)
    strict = counts.of("strict").sum(axis=2)
    drift = [
        _drift(name, strict[:, counts.pairs_with(name)].sum(axis=1), order, groups, score)
        for name in names
        if (order := _order(shared, annotations[name], list(done[name])))
    ]
    texts = [notes[id].text for id in shared]
    return Agreement(
        notes=len(shared),
        groups=len(set(groups)),
        done={name: len(given) for name, given in done.items()},
        alpha=tuple(_alpha(texts, versions, labels, groups, score)),
        pooled=tuple(pooled),
        pairs=tuple(pairs),
        annotators=tuple(people),
        confusion=counts.confusion,
        drift=tuple(drift),
        worst=_worst(shared, versions, strict.sum(axis=1), worst),
    )


Scorer = Callable[[Sequence[str], "Array", "Callable[[Array], Array]", Sequence[str]], list[Score]]
"""(names of scores, counts of notes, statistic of summed counts, groups of notes) -> scores."""


def _score(
    metrics: Sequence[str],
    stats: Array,
    statistic: Callable[[Array], Array],
    groups: Sequence[str],
    samples: int,
    seed: int,
) -> list[Score]:
    """Scores with intervals over groups; one of a label that nobody used has no value."""
    value, low, high = bootstrap(stats, groups, statistic, samples, seed)
    used = stats.reshape(len(stats), len(metrics), -1).sum(axis=(0, 2))
    return [
        Score(
            metric=metric,
            value=float(value[i]) if used[i] and not isnan(value[i]) else None,
            low=float(low[i]) if used[i] and not isnan(low[i]) else None,
            high=float(high[i]) if used[i] and not isnan(high[i]) else None,
            n=len(groups),
            groups=len(set(groups)),
            procedure=f"bootstrap over groups, {samples} samples, 95 %",
        )
        for i, metric in enumerate(metrics)
    ]


def _f1(counts: Array) -> Array:
    """F1 of counts laid side by side: [..., k * 3] -> [..., k]."""
    return f1(counts.reshape(*counts.shape[:-1], -1, 3))


def _alpha(
    texts: Sequence[str],
    versions: Sequence[Mapping[str, Version]],
    labels: Sequence[str],
    groups: Sequence[str],
    score: Scorer,
) -> list[Score]:
    """Alpha of all labels together, then of each."""
    pairs = zip(texts, versions, strict=True)
    matrices = [metric.coincidences(text, list(given.values())) for text, given in pairs]
    chosen = {"alpha": matrices}
    chosen |= {f"alpha/{name}": [metric.of_label(one, name) for one in matrices] for name in labels}
    found = []
    for title, counted in chosen.items():
        rows, values = metric.table(counted)

        def statistic(counts: Array, values: list[metric.Labels] = values) -> Array:
            return metric.alpha(counts, values)[..., None]

        found += score([title], rows, statistic, groups)
    return found


class _Counts:
    """Span counts of every note, pair and label: [notes, pairs, labels, 3]."""

    def __init__(
        self, versions: Sequence[Mapping[str, Version]], names: Sequence[str], labels: Sequence[str]
    ) -> None:
        self.versions, self.labels = versions, list(labels)
        self.pairs = list(combinations(names, 2))
        self.confusion: dict[str, dict[str, int]] = {}
        for given in versions:
            for a, b in self.pairs:
                if a not in given or b not in given:
                    continue
                for (one, other), number in confusion(given[a], given[b]).items():
                    self._add(one, other, number)
                    self._add(other, one, number)

    def _add(self, one: str, other: str, number: int) -> None:
        row = self.confusion.setdefault(one, {})
        row[other] = row.get(other, 0) + number

    def pairs_with(self, name: str) -> list[int]:
        """Positions of the pairs that an annotator is in."""
        return [number for number, pair in enumerate(self.pairs) if name in pair]

    def of(self, mode: Mode) -> Array:
        """Counts by one way of matching; the first of a pair stands in the place of gold, which F1
        does not mind."""
        import numpy as np

        found = np.zeros((len(self.versions), len(self.pairs), len(self.labels), 3))
        place = {label: number for number, label in enumerate(self.labels)}
        for i, given in enumerate(self.versions):
            for j, (a, b) in enumerate(self.pairs):
                if a in given and b in given:
                    for label, counts in count(given[a], given[b], mode).items():
                        found[i, j, place[label]] = (counts.tp, counts.fp, counts.fn)
        return found


def _order(
    shared: Sequence[str], given: Mapping[str, Annotation], done: Sequence[str]
) -> list[int]:
    """Positions of an annotator's shared notes in the order in which they were done; nothing where
    no time is known, or there are too few to look for drift."""
    place = {id: number for number, id in enumerate(done)}
    timed = sorted((given[id].at, place[id], i) for i, id in enumerate(shared) if id in place)
    enough = len(timed) >= FEWEST and any(at for at, *_ in timed)
    return [i for *_, i in timed] if enough else []


def _drift(
    name: str, counts: Array, order: Sequence[int], groups: Sequence[str], score: Scorer
) -> Drift:
    """F1 with the others in equal parts of the notes in their order, and of the second half against
    the first."""
    import numpy as np

    stats, where = counts[order], [groups[i] for i in order]
    bounds = [round(len(stats) * part / PERIODS) for part in range(PERIODS + 1)]
    parts = [
        score([f"part {number + 1}"], stats[start:end], _f1, where[start:end])[0]
        for number, (start, end) in enumerate(pairwise(bounds))
    ]
    half = len(stats) // 2
    wide = np.zeros((len(stats), 6))
    wide[:half, :3], wide[half:, 3:] = stats[:half], stats[half:]
    change = score(["change"], wide, lambda counts: np.diff(_f1(counts), axis=-1), where)[0]
    return Drift(name, tuple(parts), change)


def _worst(
    shared: Sequence[str], versions: Sequence[Mapping[str, Version]], strict: Array, most: int
) -> tuple[Disagreement, ...]:
    """Notes with the lowest F1 first; of equals those with more places."""
    found = []
    for id, given, counts in zip(shared, versions, strict, strict=True):
        odd = tuple(one.without_text() for one in places(id, given) if not one.unanimous)
        if odd:
            found.append(Disagreement(note=id, f1=float(f1(counts)), places=odd))
    return tuple(sorted(found, key=lambda one: (one.f1, -len(one.places), one.note))[:most])


FIRST = 20
"""Notes that an estimate is made from."""
FEWEST_TIMED = 5


class TimeEstimate(Value, frozen=True):
    """How long one annotator needs for the notes that are left."""

    annotator: str
    notes: int
    """Notes that it is made from."""
    median: float
    """Seconds a note."""
    left: int
    """Notes that are left."""
    hours: float
    low: float
    high: float
    """Hours for them, with the 95 % interval."""


def estimate(
    annotator: str, done: Mapping[str, Annotation], notes: Mapping[str, Note]
) -> TimeEstimate | None:
    """Seconds per character in the first notes, times the characters that are left; None where
    fewer than ``FEWEST_TIMED`` have a time."""
    import numpy as np

    every = (one for one in done.values() if one.seconds and one.note in notes)
    timed = sorted(every, key=lambda one: one.at)[:FIRST]
    if len(timed) < FEWEST_TIMED:
        return None
    seconds = [one.seconds or 0.0 for one in timed]
    lengths = [max(1, len(notes[one.note].text)) for one in timed]
    left = [len(note.text) for id, note in notes.items() if id not in done]
    value, low, high = bootstrap(
        np.column_stack([seconds, lengths]),
        list(map(str, range(len(timed)))),
        lambda sums: (sums[..., 0] / sums[..., 1])[..., None] * sum(left) / 3600,
        samples=1000,
    )
    return TimeEstimate(
        annotator=annotator,
        notes=len(timed),
        median=median(seconds),
        left=len(left),
        hours=float(value[0]),
        low=float(low[0]),
        high=float(high[0]),
    )
