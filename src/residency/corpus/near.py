"""Near-duplicates: notes that say nearly the same, found without comparing every pair.

A note is the set of its character 5-grams. One-permutation MinHash (Li, Owen, Zhang 2012) with
optimal densification (Shrivastava 2017) gives 128 values per note, bands of them (Leskovec et al.,
Mining of Massive Datasets, ch. 3) give the candidates, and each candidate pair is then compared
exactly: no pair that is called near falls short of the threshold. Lines that different notes of
many patients hold are taken out before: a form that a department fills in makes nobody's notes
alike.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING
from unicodedata import normalize

from residency.core.types import Note
from residency.corpus.groups import DisjointSets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

GRAM = 5
BINS = 128
MISSED = 1e-3
"""Largest chance that two notes just at the threshold share no band."""
FEWEST = 10
"""Patients that must hold a line, at the least, before it counts as boilerplate."""
LINES = re.compile(r"[\n\r。]+")


def near_duplicates(
    notes: Sequence[Note], threshold: float, boilerplate: float = 0.01
) -> list[list[str]]:
    """Clusters of notes whose Jaccard similarity is at least the threshold, as ids, in the order of
    ``notes``.

    A cluster holds notes joined directly or through others. ``boilerplate``: a line that notes of
    so large a share of patients hold (and of ten at the least) is left out; a note that holds
    nothing else is like no other.
    """
    texts = distinct_texts(notes, boilerplate)
    clusters = DisjointSets(len(notes))
    first = [positions[0] for positions in texts.values()]
    for positions in texts.values():
        for other in positions[1:]:
            clusters.join(positions[0], other)
    kept = list(texts)
    for a, b in near_pairs(kept, threshold):
        clusters.join(first[a], first[b])
    sets = (members for members in clusters.sets() if len(members) > 1)
    return [[notes[position].id for position in members] for members in sets]


def near_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Pairs of texts at or above the threshold, enough of them that all near ones are joined: a
    pair that others join already is not compared again."""
    import numpy as np

    if len(texts) < 2:
        return
    signatures = np.stack([signature(grams(text)) for text in texts])
    joined, failed = DisjointSets(len(texts)), set[tuple[int, int]]()
    exact = _comparer(texts, threshold)

    def near(a: int, b: int) -> bool:
        alike = np.count_nonzero(signatures[a] == signatures[b])
        if (a, b) in failed or alike < (threshold - 0.3) * BINS:
            return False
        if exact(a, b):
            joined.join(a, b)
            return True
        failed.add((a, b))
        return False

    for bucket in _buckets(signatures, _rows(threshold)):
        yield from _within(bucket, joined, near)


def _within(
    bucket: list[int], joined: DisjointSets, near: Callable[[int, int], bool]
) -> Iterator[tuple[int, int]]:
    """Near pairs of a bucket. Everything is compared with one note first, which settles a bucket of
    copies in one pass."""
    for other in bucket[1:]:
        if joined.root(bucket[0]) != joined.root(other) and near(bucket[0], other):
            yield bucket[0], other
    parts: dict[int, list[int]] = defaultdict(list)
    for position in bucket:
        parts[joined.root(position)].append(position)
    for one, two in combinations(parts.values(), 2):
        for a, b in ((min(a, b), max(a, b)) for a in one for b in two):
            if joined.root(a) == joined.root(b):
                break
            if near(a, b):
                yield a, b


def grams(text: str) -> Hashes:
    """Hashes of the character 5-grams of a text (of the whole where it is shorter): sorted, each
    once."""
    import numpy as np

    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    if len(points) < GRAM:
        points = np.concatenate([points, np.zeros(GRAM - len(points), np.uint64)])
    count = len(points) - GRAM + 1
    hashes = points[:count].copy()
    for offset in range(1, GRAM):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) ^ points[offset : offset + count]
    # The finaliser of SplitMix64.
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return np.unique(hashes ^ (hashes >> np.uint64(31)))


def signature(hashes: Hashes) -> NDArray[np.uint32]:
    """One-permutation MinHash: the least hash of each of 128 equal ranges; an empty range borrows
    from one that is not."""
    import numpy as np

    edges = np.arange(BINS, dtype=np.uint64) << np.uint64(64 - BINS.bit_length() + 1)
    starts = np.append(np.searchsorted(hashes, edges), len(hashes))
    values: NDArray[np.uint32] = hashes[np.minimum(starts[:-1], len(hashes) - 1)].astype(np.uint32)
    filled = starts[:-1] < starts[1:]
    empty = np.flatnonzero(~filled)
    for donors in _donors():
        if not len(empty):
            break
        found = filled[donors[empty]]
        values[empty[found]] = values[donors[empty[found]]]
        empty = empty[~found]
    values[empty] = values[filled][0]
    return values


@lru_cache(maxsize=1)
def _donors() -> NDArray[np.int64]:
    """From which range an empty one borrows, attempt by attempt."""
    import numpy as np

    return np.random.default_rng(5).integers(0, BINS, size=(16 * BINS, BINS))


def _rows(threshold: float) -> int:
    """Most values per band with which a pair at the threshold is missed no more often than
    ``MISSED``."""
    fit = [rows for rows in range(1, 17) if (1 - threshold**rows) ** (BINS // rows) <= MISSED]
    return max(fit, default=1)


def _buckets(signatures: NDArray[np.uint32], rows: int) -> Iterator[list[int]]:
    """Positions whose signatures agree in a band, in order, for every band."""
    import numpy as np

    factors = np.random.default_rng(7).integers(1, 2**63, size=rows, dtype=np.uint64) | np.uint64(1)
    for begin in range(0, BINS - rows + 1, rows):
        keys = (signatures[:, begin : begin + rows].astype(np.uint64) * factors).sum(
            axis=1, dtype=np.uint64
        )
        order = np.argsort(keys, kind="stable")
        cuts = np.flatnonzero(np.diff(keys[order])) + 1
        bounds = np.concatenate([[0], cuts, [len(order)]])
        for number in np.flatnonzero(np.diff(bounds) > 1):
            yield order[bounds[number] : bounds[number + 1]].tolist()


def _comparer(texts: Sequence[str], threshold: float) -> Callable[[int, int], bool]:
    """Whether two texts are near, exactly."""
    import numpy as np

    @lru_cache(maxsize=8192)
    def of(position: int) -> Hashes:
        return grams(texts[position])

    def near(a: int, b: int) -> bool:
        one, two = of(a), of(b)
        if min(len(one), len(two)) < threshold * max(len(one), len(two)):
            return False
        common = len(np.intersect1d(one, two, assume_unique=True))
        return common >= threshold * (len(one) + len(two) - common)

    return near


def distinct_texts(notes: Sequence[Note], boilerplate: float) -> dict[str, list[int]]:
    """What remains of the texts without boilerplate -> the notes of which it remains; notes of
    which nothing does are out."""
    lined = [tuple(_lines(note.text)) for note in notes]
    first: dict[tuple[str, ...], str] = {}
    for note, found in zip(notes, lined, strict=True):
        first.setdefault(found, note.group or note.id)
    by_patient: dict[str, set[str]] = defaultdict(set)
    # Copies of one text count once: they make none of its lines a form.
    for found, patient in first.items():
        by_patient[patient].update(found)
    held = Counter(line for lines in by_patient.values() for line in lines)
    most = max(FEWEST, boilerplate * len(by_patient))
    texts: dict[str, list[int]] = {}
    for position, found in enumerate(lined):
        text = "\n".join(line for line in found if held[line] < most)
        if text:
            texts.setdefault(text, []).append(position)
    return texts


def _lines(text: str) -> list[str]:
    """The lines of a text as they are compared: composed, case folded, blanks collapsed, empty ones
    left out."""
    found = (" ".join(line.split()) for line in LINES.split(normalize("NFC", text).casefold()))
    return [line for line in found if line]
