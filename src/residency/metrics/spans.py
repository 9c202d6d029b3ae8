"""Span metrics on the gold and predicted spans of one text; counts of several texts are added up.

Duplicates (equal start, end and label) count once. A prediction is matched to at most one gold span
and the reverse.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from residency.core.types import Span, Value
from residency.metrics.counts import Counts as Counts

Mode = Literal["strict", "relaxed", "boundary"]
"""``strict``: start, end and label equal. ``relaxed``: label equal, any overlap. ``boundary``:
start and end equal."""

ErrorKind = Literal["missed", "invented", "boundary", "type"]

NOTHING = "-"
"""Stands for no span (or no label) in a confusion table."""

Key = tuple[int, int, str]
Pair = tuple[int, int]
"""Positions in the sorted gold and predicted keys."""


class SpanError(Value, frozen=True):
    """One thing that is wrong; ``gold`` is None for an invented span, ``predicted`` for a missed
    one."""

    kind: ErrorKind
    gold: Span | None = None
    predicted: Span | None = None


def count(
    gold: Sequence[Span], predicted: Sequence[Span], mode: Mode = "strict"
) -> dict[str, Counts]:
    """Counts per label, for every label that occurs in gold or predictions, in alphabetical order.

    ``relaxed`` takes a maximum matching, so that no greedy order loses a hit. ``boundary`` pairs
    equal labels first and books a hit under its gold label, a false positive under its predicted
    label: read its total, not its labels.
    """
    golds, predictions = _distinct(gold), _distinct(predicted)
    if mode == "relaxed" and golds != predictions:
        edges: list[list[int]] = [[] for _ in golds]
        for g, p in _overlaps(golds, predictions):
            if golds[g][2] == predictions[p][2]:
                edges[g].append(p)
        pairs = _maximum_matching(edges)
    else:
        pairs = (_boundary if mode == "boundary" else _strict)(golds, predictions)
    hit_gold, hit_predicted = {g for g, _ in pairs}, {p for _, p in pairs}
    tally: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for position, (_, _, label) in enumerate(golds):
        tally[label][0 if position in hit_gold else 2] += 1
    for position, (_, _, label) in enumerate(predictions):
        if position not in hit_predicted:
            tally[label][1] += 1
    return {label: Counts(tp=tp, fp=fp, fn=fn) for label, (tp, fp, fn) in sorted(tally.items())}


def confusion(gold: Sequence[Span], predicted: Sequence[Span]) -> Counter[tuple[str, str]]:
    """(gold label, predicted label) -> number of spans; ``-`` is nothing.

    Overlapping spans are paired whatever their labels, the largest intersection over union first
    (equal labels first among equals).
    """
    golds, predictions = _distinct(gold), _distinct(predicted)
    pairs = _closest(golds, predictions, _overlaps(golds, predictions))
    found = Counter((golds[g][2], predictions[p][2]) for g, p in pairs)
    found.update((golds[g][2], NOTHING) for g in _left(len(golds), (g for g, _ in pairs)))
    invented = _left(len(predictions), (p for _, p in pairs))
    found.update((NOTHING, predictions[p][2]) for p in invented)
    return found


def errors(gold: Sequence[Span], predicted: Sequence[Span]) -> list[SpanError]:
    """What is wrong, in order of position.

    ``type``: same offsets, other label. ``boundary``: same label, overlapping, other offsets.
    ``missed`` and ``invented``: all the rest; a prediction with another label *and* other offsets
    is one of each. So missed + boundary + type are the strict false negatives, invented + boundary
    + type the strict false positives.
    """
    by_gold = {_key(span): span for span in gold}
    by_predicted = {_key(span): span for span in predicted}
    golds, predictions = (
        sorted(by_gold.keys() - by_predicted.keys()),
        sorted(by_predicted.keys() - by_gold.keys()),
    )
    near = (
        (g, p)
        for g, p in _overlaps(golds, predictions)
        if golds[g][2] == predictions[p][2] or golds[g][:2] == predictions[p][:2]
    )
    pairs = _closest(golds, predictions, near)
    found = [
        SpanError(
            kind="boundary" if golds[g][2] == predictions[p][2] else "type",
            gold=by_gold[golds[g]],
            predicted=by_predicted[predictions[p]],
        )
        for g, p in pairs
    ]
    found += [
        SpanError(kind="missed", gold=by_gold[golds[g]])
        for g in _left(len(golds), (g for g, _ in pairs))
    ]
    found += [
        SpanError(kind="invented", predicted=by_predicted[predictions[p]])
        for p in _left(len(predictions), (p for _, p in pairs))
    ]
    return sorted(found, key=_position)


def _position(error: SpanError) -> tuple[Key, str]:
    span = error.gold or error.predicted
    assert span is not None
    return _key(span), error.kind


def _key(span: Span) -> Key:
    return span.start, span.end, span.label


def _distinct(spans: Iterable[Span]) -> list[Key]:
    return sorted({(span.start, span.end, span.label) for span in spans})


def _left(size: int, taken: Iterable[int]) -> list[int]:
    used = set(taken)
    return [position for position in range(size) if position not in used]


def _overlaps(golds: Sequence[Key], predictions: Sequence[Key]) -> Iterator[Pair]:
    """All pairs that share at least one character; both sides are sorted."""
    starts = [start for start, _, _ in predictions]
    longest = max((end - start for start, end, _ in predictions), default=0)
    for g, (start, end, _) in enumerate(golds):
        for p in range(bisect_right(starts, start - longest), bisect_left(starts, end)):
            if predictions[p][1] > start:
                yield g, p


def _closest(golds: Sequence[Key], predictions: Sequence[Key], pairs: Iterable[Pair]) -> list[Pair]:
    """One-to-one pairs, taken greedily by intersection over union, equal labels first among
    equals."""

    def rank(pair: Pair) -> tuple[float, bool, Pair]:
        (start, end, label), (other_start, other_end, other) = golds[pair[0]], predictions[pair[1]]
        shared = min(end, other_end) - max(start, other_start)
        return -shared / (end - start + other_end - other_start - shared), label != other, pair

    taken: list[Pair] = []
    used_gold: set[int] = set()
    used_predicted: set[int] = set()
    for g, p in sorted(pairs, key=rank):
        if g not in used_gold and p not in used_predicted:
            used_gold.add(g)
            used_predicted.add(p)
            taken.append((g, p))
    return taken


def _strict(golds: list[Key], predictions: list[Key]) -> list[Pair]:
    positions = {key: p for p, key in enumerate(predictions)}
    return [(g, positions[key]) for g, key in enumerate(golds) if key in positions]


def _boundary(golds: list[Key], predictions: list[Key]) -> list[Pair]:
    pairs = _strict(golds, predictions)
    waiting: defaultdict[tuple[int, int], deque[int]] = defaultdict(deque)
    for p in _left(len(predictions), (p for _, p in pairs)):
        waiting[predictions[p][:2]].append(p)
    for g in _left(len(golds), (g for g, _ in pairs)):
        if free := waiting.get(golds[g][:2]):
            pairs.append((g, free.popleft()))
    return pairs


def _maximum_matching(edges: Sequence[Sequence[int]]) -> list[Pair]:
    """A maximum bipartite matching by augmenting paths (Berge 1957), breadth first; ``edges[left]``
    lists the right ends."""
    partner: dict[int, int] = {}  # left -> right
    holder: dict[int, int] = {}  # right -> left
    for root in range(len(edges)):
        came_from: dict[int, int] = {}  # right -> the left that reached it
        queue = deque([root])
        free: int | None = None
        while queue and free is None:
            left = queue.popleft()
            for right in edges[left]:
                if right not in came_from:
                    came_from[right] = left
                    if right not in holder:
                        free = right
                        break
                    queue.append(holder[right])
        while free is not None:  # walk back to the root, each left handing its old partner on
            left = came_from[free]
            handed_on = partner.get(left)
            partner[left], holder[free] = free, left
            free = handed_on
    return sorted(partner.items())
