"""How far annotators agree: alpha on characters, F1 of spans, by label and annotator, over time,
with intervals over patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from msgspec.structs import replace

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
    said = {
        name: {id: one.spans for id, one in given.items() if one.counts}
        for name, given in annotations.items()
    }
    shared = [id for id in notes if sum(id in given for given in said.values()) >= 2]
    if not shared:
        done = ", ".join(f"{name} {len(given)}" for name, given in said.items())
        raise UserError(
            f"label: no two annotators have labelled the same note (notes that count: {done}); "
            "pull again when they have."
        )
    names = [name for name in said if any(id in said[name] for id in shared)]
    groups = [notes[id].group or id for id in shared]
    by = f"bootstrap over groups, {samples} samples, 95 %"

    def scored(
        titles: Sequence[str],
        stats: Array,
        statistic: Callable[[Array], Array],
        where: Sequence[str],
    ) -> list[Score]:
        value, low, high = bootstrap(stats, where, statistic, samples, seed)
        return [
            Score(
                metric=title,
                value=float(value[i]),
                low=None if math.isnan(low[i]) else float(low[i]),
                high=None if math.isnan(high[i]) else float(high[i]),
                n=len(where),
                groups=len(set(where)),
                procedure=by,
            )
            for i, title in enumerate(titles)
        ]

    versions = [{name: said[name][id] for name in names if id in said[name]} for id in shared]
    alpha = _alpha([notes[id].text for id in shared], versions, labels, groups, scored)
    counts = _Counts(versions, names, labels)
    pooled, pairs, people = [], [], []
    for mode in MODES:
        every = counts.of(mode)
        pooled += scored([f"{mode}_f1"], every.sum(axis=(1, 2)), _f1, groups)
        pooled += scored(
            [f"{mode}_f1/{label}" for label in labels],
            every.sum(axis=1).reshape(len(shared), -1),
            _f1,
            groups,
        )
        titles = [f"{mode}_f1/{a}~{b}" for a, b in counts.pairs]
        pairs += scored(titles, every.sum(axis=2).reshape(len(shared), -1), _f1, groups)
        own = [every[:, counts.with_(name)].sum(axis=(1, 2)) for name in names]
        people += [
            score
            for name, stats in zip(names, own, strict=True)
            for score in scored([f"{mode}_f1/{name}"], stats, _f1, groups)
        ]
    strict = counts.of("strict").sum(axis=2)
    drift = []
    for name in names:
        order = sorted(
            (i for i, id in enumerate(shared) if id in said[name]),
            key=lambda i: (annotations[name][shared[i]].at, list(said[name]).index(shared[i])),
        )
        timed = any(annotations[name][shared[i]].at for i in order)
        if timed and len(order) >= FEWEST:
            drift.append(
                _drift(
                    name,
                    strict[:, counts.with_(name)].sum(axis=1)[order],
                    [groups[i] for i in order],
                    scored,
                )
            )
    return Agreement(
        notes=len(shared),
        groups=len(set(groups)),
        done={name: len(given) for name, given in said.items()},
        alpha=tuple(alpha),
        pooled=tuple(pooled),
        pairs=tuple(pairs),
        annotators=tuple(people),
        confusion=counts.confusion,
        drift=tuple(drift),
        worst=_worst(shared, versions, strict.sum(axis=1), worst),
    )


Scored = Callable[[Sequence[str], "Array", "Callable[[Array], Array]", Sequence[str]], list[Score]]


def _f1(counts: Array) -> Array:
    """F1 of counts laid side by side: [..., k * 3] -> [..., k]."""
    return f1(counts.reshape(*counts.shape[:-1], -1, 3))


def _alpha(
    texts: Sequence[str],
    versions: Sequence[Mapping[str, Version]],
    labels: Sequence[str],
    groups: Sequence[str],
    scored: Scored,
) -> list[Score]:
    """Alpha of all labels together, then of each."""
    matrices = [
        metric.coincidences(text, list(given.values()))
        for text, given in zip(texts, versions, strict=True)
    ]
    found = []
    for title, chosen in [
        ("alpha", matrices),
        *(
            (f"alpha/{label}", [metric.of_label(matrix, label) for matrix in matrices])
            for label in labels
        ),
    ]:
        rows, values = metric.table(chosen)
        found += scored(
            [title],
            rows,
            lambda counts, values=values: metric.alpha(counts, values)[..., None],  # type: ignore[misc]
            groups,
        )
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
                if a in given and b in given:
                    for (one, other), number in confusion(given[a], given[b]).items():
                        self._add(one, other, number)
                        self._add(other, one, number)

    def _add(self, one: str, other: str, number: int) -> None:
        row = self.confusion.setdefault(one, {})
        row[other] = row.get(other, 0) + number

    def with_(self, name: str) -> list[int]:
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


def _drift(name: str, stats: Array, groups: Sequence[str], scored: Scored) -> Drift:
    """F1 with the others in equal parts of the notes in their order, and of the second half against
    the first."""
    import numpy as np

    bounds = [round(len(stats) * part / PERIODS) for part in range(PERIODS + 1)]
    parts = [
        scored([f"part {number + 1}"], stats[start:end], _f1, groups[start:end])[0]
        for number, (start, end) in enumerate(pairwise(bounds))
    ]
    half = len(stats) // 2
    wide = np.zeros((len(stats), 6))
    wide[:half, :3], wide[half:, 3:] = stats[:half], stats[half:]
    change = scored(["change"], wide, lambda counts: np.diff(_f1(counts), axis=-1), groups)[0]
    return Drift(annotator=name, periods=tuple(parts), change=change)


def _worst(
    shared: Sequence[str], versions: Sequence[Mapping[str, Version]], strict: Array, most: int
) -> tuple[Disagreement, ...]:
    """Notes with the lowest F1 first; of equals those with more places."""
    found = []
    for id, given, counts in zip(shared, versions, strict, strict=True):
        odd = tuple(_without_text(place) for place in places(id, given) if not place.unanimous)
        if odd:
            found.append(Disagreement(note=id, f1=float(f1(counts)), places=odd))
    return tuple(sorted(found, key=lambda one: (one.f1, -len(one.places), one.note))[:most])


def _without_text(place: Place) -> Place:
    """The figures are kept beside the report, and hold no stretch of a note."""
    versions = {
        name: tuple(replace(span, quote="") for span in spans)
        for name, spans in place.versions.items()
    }
    return replace(place, versions=versions)
