"""Candidates for a free text out of thousands of terms: BM25 over character n-grams, and ICD-10
codes compared.

Characters need no segmentation and bear misspellings, in Chinese as in Vietnamese (facts: word
indexes miss two-character words and conflate marks). Terms of equal score keep their order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from unicodedata import normalize

import msgspec
import numpy as np
from numpy.typing import NDArray

from residency.core.errors import DataError
from residency.core.files import csv_records
from residency.core.types import Note, Value

GRAMS = (2, 3)
K1, B = 1.2, 0.75
"""Robertson and Zaragoza (2009)."""


class Term(Value, frozen=True):
    """An entry of a terminology."""

    code: str
    name: str


class Candidate(Value, frozen=True):
    """A term that was found, with its score."""

    term: Term
    score: float


def read_terms(
    path: Path, code: str = "code_with_dots", name: str = "vietnamese_name"
) -> list[Term]:
    """The entries of a CSV file with a column of codes and one of names; raises ``DataError`` where
    one is not there."""
    rows = csv_records(path, (code, name))
    return [Term(code=row[code], name=row[name]) for _, row in rows if row[name]]


def grams(text: str) -> Counter[str]:
    """Character n-grams of a text in NFC and lower case, words fenced by blanks."""
    words = re.findall(r"[^\W_]+", normalize("NFC", text).lower())
    plain = f" {' '.join(words)} "
    return Counter(plain[at : at + size] for size in GRAMS for at in range(len(plain) - size + 1))


class Index:
    """Terms, found by what they share with a text."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)
        counted = [grams(term.name) for term in self.terms]
        lengths = np.array([sum(one.values()) for one in counted], dtype=np.float64)
        mean = float(lengths.mean()) if len(lengths) else 1.0
        places: dict[str, list[int]] = {}
        for number, one in enumerate(counted):
            for gram in one:
                places.setdefault(gram, []).append(number)
        self.postings: dict[str, tuple[NDArray[np.intp], NDArray[np.float64]]] = {}
        for gram, numbers in places.items():
            rows = np.array(numbers, dtype=np.intp)
            times = np.array([counted[number][gram] for number in numbers], dtype=np.float64)
            rarity = np.log(1 + (len(self.terms) - len(numbers) + 0.5) / (len(numbers) + 0.5))
            weight = times * (K1 + 1) / (times + K1 * (1 - B + B * lengths[rows] / mean))
            self.postings[gram] = (rows, rarity * weight)

    def find(self, text: str, most: int = 10) -> list[Candidate]:
        """The terms nearest to a text, best first; fewer where fewer share anything with it."""
        scores = np.zeros(len(self.terms))
        for gram, times in grams(text).items():
            if gram in self.postings:
                rows, weights = self.postings[gram]
                scores[rows] += min(times, 3) * weights
        best = np.argsort(-scores, kind="stable")[:most]
        return [
            Candidate(term=self.terms[i], score=float(scores[i])) for i in best if scores[i] > 0
        ]


def offered(
    notes: Iterable[Note], index: Index, most: int = 10, field: str = "text"
) -> Iterator[Note]:
    """Notes with the names of the nearest terms as their choices, for a card that lets a model
    choose; looked up by a column of the row, or by the note's text where it has no columns."""
    for note in notes:
        found = index.find(note.fields.get(field, note.text), most)
        yield msgspec.structs.replace(
            note, choices=tuple(dict.fromkeys(one.term.name for one in found))
        )


class Mapped(Value, frozen=True):
    """How well free texts were mapped to codes."""

    n: int
    top: dict[int, float]
    """k -> share whose code is among the first k candidates."""
    three: float
    """Share whose first candidate has the right category, the first three characters of the
    code."""
    four: float
    """Share whose first candidate has the right subcategory, four characters."""
    unmappable: float
    """Share for which there is no candidate at all."""


def same_code(one: str, other: str, characters: int) -> bool:
    """Whether two ICD-10 codes agree in their first characters, without dots; a code that is
    shorter agrees only as a whole."""
    a, b = (re.sub(r"[^A-Z0-9]", "", code.upper())[:characters] for code in (one, other))
    return bool(a) and a == b


def mapped(
    wanted: Sequence[str], found: Iterable[Sequence[Candidate]], tops: Sequence[int] = (1, 5, 10)
) -> Mapped:
    """The right code of each text beside the candidates for it."""
    pairs = list(zip(wanted, found, strict=True))
    if not pairs:
        raise DataError("there are no texts to map.")

    def share(hits: Iterable[bool]) -> float:
        return sum(hits) / len(pairs)

    return Mapped(
        n=len(pairs),
        top={
            k: share(any(same_code(code, c.term.code, 9) for c in some[:k]) for code, some in pairs)
            for k in tops
        },
        three=share(bool(some) and same_code(code, some[0].term.code, 3) for code, some in pairs),
        four=share(bool(some) and same_code(code, some[0].term.code, 4) for code, some in pairs),
        unmappable=share(not some for _, some in pairs),
    )
