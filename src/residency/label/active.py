"""What to label next: notes that a model is unsure of and that are unlike what is labelled, with a
share drawn at random."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

from residency.core.types import Note, Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

DIMENSIONS = 2048
"""Buckets that character trigrams are hashed into."""
CANDIDATES = 5000
"""The most uncertain notes among which unlike ones are looked for; bounds time and memory for a
pool of any size."""


class Choice(Value, frozen=True):
    """A note to label next."""

    note: str
    how: str
    """``model``: the model is unsure of it; ``random``: drawn from the whole pool, so that
    estimates made on these are honest."""
    uncertainty: float
    """As ``uncertainty`` has it."""
    novelty: float
    """1 - cosine similarity to the nearest labelled or chosen note, 0 to 1."""


def uncertainty(log_probabilities: Array) -> float:
    """How much a model has wrong by its own account: 1 - p of each slot's best tag, summed, over
    the root of the number of slots.

    Least confidence (Culotta and McCallum 2005). The plain sum takes the longest notes, the mean
    the shortest; between the two lies what taught most on the development corpus
    (docs/benchmarks.md). ``log_probabilities`` is [slots, tags].
    """
    import numpy as np

    doubts = 1 - np.exp(log_probabilities.max(axis=1, initial=-np.inf))
    return float(doubts.sum() / math.sqrt(len(doubts))) if len(doubts) else 0.0


def profiles(texts: Iterable[str]) -> Array:
    """Texts as unit vectors [texts, DIMENSIONS] of hashed character trigrams, each count damped to
    1 + log.

    Characters rather than words, so that no language needs a segmenter.
    """
    import numpy as np

    rows = []
    for text in texts:
        folded = " ".join(text.casefold().split())
        row = np.zeros(DIMENSIONS, dtype=np.float32)
        for start in range(max(1, len(folded) - 2)):
            row[crc32(folded[start : start + 3].encode()) % DIMENSIONS] += 1
        row[row > 0] = 1 + np.log(row[row > 0])
        length = math.sqrt(float(row @ row))
        rows.append(row / length if length else row)
    return np.stack(rows) if rows else np.zeros((0, DIMENSIONS), dtype=np.float32)


def choose(
    pool: Sequence[Note],
    uncertain: Sequence[float],
    count: int,
    labelled: Sequence[str] = (),
    at_random: float = 0.2,
    diverse: bool = True,
    seed: int = 0,
) -> list[Choice]:
    """``count`` notes of a pool (all of it where it is smaller), each once, in the order in which
    to label them.

    A share ``at_random`` is drawn evenly from the whole pool. The rest is taken one by one: the
    note with the largest product of uncertainty and novelty against the texts ``labelled`` and
    those chosen so far. ``uncertain`` holds ``uncertainty`` of each.
    """
    rng = random.Random(seed)
    count = min(count, len(pool))
    drawn = sorted(rng.sample(range(len(pool)), round(count * at_random)))
    order = sorted(set(range(len(pool))) - {*drawn}, key=lambda i: (-uncertain[i], pool[i].id))
    wanted = count - len(drawn)
    if diverse:
        known = [*labelled, *(pool[i].text for i in drawn)]
        order = order[: max(CANDIDATES, count)]
        texts, doubts = [pool[i].text for i in order], [uncertain[i] for i in order]
        unlike = _unlike(texts, doubts, known, wanted)
        found = [Choice(pool[order[at]].id, "model", doubt, new) for at, doubt, new in unlike]
    else:
        found = [Choice(pool[i].id, "model", uncertain[i], 1.0) for i in order[:wanted]]
    found += [Choice(pool[i].id, "random", uncertain[i], 0.0) for i in drawn]
    rng.shuffle(found)  # whoever labels cannot tell which are which
    return found


def _unlike(
    texts: Sequence[str], uncertain: Sequence[float], known: Sequence[str], count: int
) -> Iterator[tuple[int, float, float]]:
    """(position, uncertainty, novelty) of texts, one by one: the largest product of uncertainty and
    novelty against the known texts and those before."""
    import numpy as np

    vectors = profiles(texts)
    nearest = np.zeros(len(texts), dtype=np.float32)
    for start in range(0, len(known), 512):
        alike = vectors @ profiles(known[start : start + 512]).T
        nearest = np.maximum(nearest, alike.max(axis=1, initial=0))
    weight = np.array(uncertain, dtype=np.float32)
    left = np.ones(len(texts), dtype=bool)
    for _ in range(count):
        best = int(np.where(left, weight * (1 - nearest), -1).argmax())
        left[best] = False
        yield best, float(weight[best]), float(max(0.0, 1 - nearest[best]))
        nearest = np.maximum(nearest, vectors @ vectors[best])
