"""Spans as tags (BIO) and back: the codec of entity extraction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residency.core.types import Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OUTSIDE = 0


def tag_names(labels: Sequence[str]) -> tuple[str, ...]:
    """``O``, then ``B-x`` and ``I-x`` of each label."""
    return ("O", *(f"{kind}-{label}" for label in labels for kind in "BI"))


def encode(
    spans: Sequence[Span], slots: Sequence[tuple[int, int]], labels: Sequence[str]
) -> tuple[list[int], dict[str, int]]:
    """Tags of slots, and how many spans could not be said exactly, by reason.

    A span that begins or ends inside a slot is widened to the slot; of overlapping spans the
    longest is kept.
    """
    tags = [OUTSIDE] * len(slots)
    changed: dict[str, int] = {}
    for span in sorted(spans, key=lambda s: (s.start - s.end, s.start)):
        inside = _covered(slots, span)
        if not inside:
            _count(changed, "span without a token")
            continue
        if any(tags[i] != OUTSIDE for i in inside):
            _count(changed, "overlaps a longer span")
            continue
        if slots[inside[0]][0] != span.start or slots[inside[-1]][1] != span.end:
            _count(changed, "boundary inside a token, widened")
        number = labels.index(span.label)
        for i in inside:
            tags[i] = 2 + 2 * number
        tags[inside[0]] = 1 + 2 * number
    return tags, changed


def _covered(slots: Sequence[tuple[int, int]], span: Span) -> range:
    from bisect import bisect_left, bisect_right

    first = bisect_right(slots, span.start, key=lambda slot: slot[1])
    last = bisect_left(slots, span.end, key=lambda slot: slot[0])
    return range(first, last)


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1


def decode(
    text: str, tags: Sequence[int], slots: Sequence[tuple[int, int]], labels: Sequence[str]
) -> tuple[Span, ...]:
    """Spans of legal tags; an ``I-x`` that follows no ``x`` begins a span."""
    found: list[Span] = []
    start = end = current = -1
    for tag, (left, right) in zip(tags, slots, strict=True):
        label = (tag - 1) // 2 if tag else -1
        if current >= 0 and (label != current or tag % 2 == 1):
            found.append(Span(start=start, end=end, label=labels[current], quote=text[start:end]))
            current = -1
        if label >= 0:
            if current < 0:
                start, current = left, label
            end = right
    if current >= 0:
        found.append(Span(start=start, end=end, label=labels[current], quote=text[start:end]))
    return tuple(found)


def legal(tags: NDArray[np.intp]) -> bool:
    """Whether every ``I-x`` follows ``B-x`` or ``I-x``."""
    import numpy as np

    before = np.concatenate(([OUTSIDE], tags[:-1]))
    inside = (tags > 0) & (tags % 2 == 0)
    return bool(np.all(~inside | (before == tags) | (before == tags - 1)))


def best_tags(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """The best legal tags for scores ``[slots, tags]`` (log-probabilities): greedy where that is
    legal, else Viterbi."""
    import numpy as np

    greedy: NDArray[np.intp] = scores.argmax(axis=1)
    if legal(greedy):
        return greedy
    count = scores.shape[1]
    number = np.arange(count)
    inside = (number > 0) & (number % 2 == 0)
    allowed = (
        ~inside[None, :]
        | (number[:, None] == number[None, :])
        | (number[:, None] == number[None, :] - 1)
    )
    barrier = np.where(allowed, 0.0, -1e9).astype(np.float32)
    best = scores[0] + barrier[OUTSIDE]
    back = np.empty((len(scores), count), dtype=np.intp)
    for position in range(1, len(scores)):
        through = best[:, None] + barrier
        back[position] = through.argmax(axis=0)
        best = through.max(axis=0) + scores[position]
    path = [int(best.argmax())]
    for position in range(len(scores) - 1, 0, -1):
        path.append(int(back[position, path[-1]]))
    return np.array(path[::-1], dtype=np.intp)
