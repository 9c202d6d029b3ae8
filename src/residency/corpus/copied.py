"""Notes that were copied forward and written on: they share stretches of words that hardly any
other note has, however much else was changed.

Beside the likeness of whole texts (``near``), which a note that was copied and rewritten by a third
does not reach. Every text is its sequences of three words (characters of Chinese); texts that share
some that few texts have are candidates. Of these the words that they share are weighed, rare ones
more (by the logarithm of how few texts have them), against those of the shorter (containment), and
then only those that stand in one order in both: what a template brings in is common or stands
anywhere, what was copied stands where it stood.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from residency.core.types import Note
from residency.corpus.groups import DisjointSets
from residency.corpus.near import distinct_texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WORDS = 3
FEW = 8
"""Most texts that a sequence may stand in; what more have says nothing of a copy."""
FEWEST = 2
"""Shared sequences from which on two texts are compared."""
SHARE = 0.5
"""Weight of the words of the shorter text that the longer has, from which on one is a copy."""
ALIGNED = 0.53
"""The same, of the words that stand in one order in both texts."""
SIZE = 0.4
"""Weight of the shorter text by the longer's below which neither is made from the other."""
TOKEN = re.compile(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+")


def copied_forward(notes: Sequence[Note], boilerplate: float = 0.01) -> list[list[str]]:
    """Clusters of notes of which one was made from another, as ids, in the order of ``notes``;
    lines that many patients' notes hold are left out as in ``near_duplicates``."""
    texts = distinct_texts(notes, boilerplate)
    joined = DisjointSets(len(notes))
    first = [positions[0] for positions in texts.values()]
    for positions in texts.values():
        for other in positions[1:]:
            joined.join(positions[0], other)
    for a, b in copied_pairs(list(texts)):
        joined.join(first[a], first[b])
    sets = (members for members in joined.sets() if len(members) > 1)
    return [[notes[position].id for position in members] for members in sets]


def copied_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of texts of which one was made from the other."""
    import numpy as np

    keys, owners, words = _sequences(texts)
    if not len(keys):
        return []
    order = np.lexsort((owners, keys))
    keys, owners = keys[order], owners[order]
    fresh = np.concatenate([[True], (keys[1:] != keys[:-1]) | (owners[1:] != owners[:-1])])
    keys, owners = keys[fresh], owners[fresh]  # each sequence once for a text
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    counts = np.diff(np.append(starts, len(keys)))
    shared: Counter[tuple[int, int]] = Counter()
    for size in range(2, FEW + 1):
        sets = starts[counts == size]
        for a, b in combinations(range(size), 2):
            shared.update(zip(owners[sets + a].tolist(), owners[sets + b].tolist(), strict=True))
    weights = _weights(words)
    candidates = sorted(pair for pair, count in shared.items() if count >= FEWEST)
    return [
        (a, b)
        for a, b in candidates
        if _contained(np.unique(words[a]), np.unique(words[b]), weights) >= SHARE
        and _aligned(words[a], words[b], weights) >= ALIGNED
    ]


def _weights(words: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Of each word, the logarithm of how few texts have it."""
    import numpy as np

    counts = np.bincount(np.concatenate([*map(np.unique, words)]))
    return np.log(len(words) / np.maximum(counts, 1))


def _contained(
    one: NDArray[np.int64], two: NDArray[np.int64], weights: NDArray[np.float64]
) -> float:
    """Weight of the words that two texts share, in that of the one with less."""
    import numpy as np

    least, most = sorted((weights[one].sum(), weights[two].sum()))
    if least < SIZE * most or not most:
        return 0.0
    common = np.intersect1d(one, two, assume_unique=True)
    return float(weights[common].sum() / least)


def _aligned(one: NDArray[np.int64], two: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    """Weight of the heaviest words that stand in both texts in one order (a longest common
    subsequence, each word with its weight), in that of the text with less."""
    import numpy as np

    least = min(weights[one].sum(), weights[two].sum())
    first, second = one[np.isin(one, two)], two[np.isin(two, one)]
    adds = {word: np.where(second == word, weights[word], 0.0) for word in np.unique(first)}
    best = np.zeros(len(second) + 1)  # with the words of one so far, up to each of the other
    for word in first:
        np.maximum(best[1:], best[:-1] + adds[word], out=best[1:])
        np.maximum.accumulate(best, out=best)
    return float(best[-1] / least)


def _sequences(
    texts: Sequence[str],
) -> tuple[NDArray[np.uint64], NDArray[np.int64], list[NDArray[np.int64]]]:
    """Hashes of the sequences of three words of all texts, whose each is, and the words of each
    text in their order."""
    import numpy as np

    numbers: dict[str, int] = {}
    words: list[int] = []
    lengths: list[int] = []
    texts_words: list[NDArray[np.int64]] = []
    for text in texts:
        found = TOKEN.findall(text)
        own = [numbers.setdefault(word, len(numbers)) for word in found]
        words += own
        texts_words.append(np.array(own, np.int64))
        lengths.append(len(found))
    every, owner = (
        np.array(words, np.uint64) + np.uint64(1),
        np.repeat(np.arange(len(texts)), lengths),
    )
    count = len(every) - WORDS + 1
    if count < 1:
        return np.array([], np.uint64), np.array([], np.int64), texts_words
    keys = every[:count].copy()
    for offset in range(1, WORDS):
        keys = (keys ^ (keys >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
        keys += every[offset : offset + count]
    inside = owner[:count] == owner[WORDS - 1 :]
    return keys[inside], owner[:count][inside], texts_words
