"""Findings: where a text holds something that identifies a person, and how overlapping ones become
one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, cached_property, lru_cache
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from residency.core.types import Value

if TYPE_CHECKING:
    from residency.deid.dates import DateMention

KINDS = (
    "name",
    "relative",
    "clinician",
    "organisation",
    "record",
    "admission",
    "national_id",
    "insurance",
    "phone",
    "email",
    "address",
    "birth_date",
    "date",
    "age",
    "url",
    "account",
    "plate",
    "other",
)
"""What identifies a person, directly or with other things."""
STRUCTURED = "structured"


class Finding(Value, frozen=True):
    """``text[start:end]`` identifies somebody."""

    start: int
    end: int
    kind: str
    by: str
    """``structured`` (an identifier of the row), ``rule:ID`` or ``plugin:NAME``"""
    priority: int = 0


class Recogniser(Protocol):
    """Anything that finds identifiers in a text (NFC)."""

    name: str

    def find(self, text: str, lang: str) -> Iterable[Finding]:
        """Findings in any order; they may overlap."""


def resolve(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without overlaps, in the order of the text; nothing that any of them covers is left
    uncovered.

    Findings that overlap become one. Its kind is that of the one with the highest priority, then
    the longest, then one of the row's own identifiers.
    """
    merged: list[Finding] = []
    group: list[Finding] = []
    reach = 0
    for finding in sorted(findings, key=attrgetter("start")):
        if group and finding.start >= reach:
            merged.append(_one(group, reach))
            group = []
        reach = max(reach, finding.end) if group else finding.end
        group.append(finding)
    if group:
        merged.append(_one(group, reach))
    return merged


def _one(group: list[Finding], end: int) -> Finding:
    if len(group) == 1:
        return group[0]
    best = max(group, key=lambda one: (one.priority, one.end - one.start, one.by == STRUCTURED))
    return Finding(
        start=group[0].start, end=end, kind=best.kind, by=best.by, priority=best.priority
    )


# Folding: one character for one, so that every offset stays. Long texts go through tables of numpy:
# some microseconds a note.

Codes = NDArray[np.uint32]
LOOKALIKES = dict(zip("аеорсухіѕјкмтвнзαοινρτκυ", "aeopcyxisjkmtbh3aoivptku", strict=True))
"""Small letters of other scripts that look like Latin ones."""


def codes_of(text: str) -> Codes:
    """The code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def text_of(codes: Codes) -> str:
    """The text of code points."""
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


@cache
def _narrow_map() -> dict[int, str]:
    return {**{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}, 0x3000: " ", 0xA0: " "}


@cache
def _plain_map() -> dict[int, str]:
    """Characters -> their plain small form: width, case, marks and look-alike scripts gone."""
    table: dict[int, str] = {}
    for code in (
        *range(0x41, 0x250),
        *range(0x370, 0x530),
        *range(0x1E00, 0x1F00),
        *range(0xFF01, 0xFF5F),
        0x3000,
        0xA0,
    ):
        sign = chr(code)
        base = normalize("NFKD", sign)[0].lower()
        base = {"đ": "d", "ð": "d", **LOOKALIKES}.get(base, base)
        if len(base) == 1 and base != sign:
            table[code] = base
    return table


@cache
def _blank_map() -> dict[int, str]:
    return {
        code: " " for code in range(0x3100) if not (chr(code).isalpha() or 0x300 <= code < 0x370)
    }


@cache
def _table(made: Callable[[], dict[int, str]]) -> Codes:
    table = np.arange(0x110000, dtype=np.uint32)
    for code, sign in made().items():
        table[code] = ord(sign)
    return table


def plain(text: str) -> str:
    """A text of the same length without case, width and marks (``Nguyễn Văn Ánh`` -> ``nguyen van
    anh``)."""
    if text.isascii():
        return text.lower()
    return _plain_word(text) if len(text) < 150 else text_of(_table(_plain_map)[codes_of(text)])


@lru_cache(maxsize=1 << 14)  # the same words come again and again
def _plain_word(text: str) -> str:
    return text.translate(_plain_map())


def narrow(text: str) -> str:
    """A text of the same length with full-width letters, digits and signs as plain ones."""
    if text.isascii():
        return text
    return (
        text.translate(_narrow_map())
        if len(text) < 150
        else text_of(_table(_narrow_map)[codes_of(text)])
    )


def small(text: str) -> str:
    """A text of the same length in small letters."""
    made = text.lower()
    return (
        made
        if len(made) == len(text)
        else "".join(low if len(low := sign.lower()) == 1 else sign for sign in text)
    )


class View:
    """A text and its other forms, each made once and of the same length, for all that look for
    something in it."""

    def __init__(self, text: str, lang: str = "") -> None:
        self.text, self.lang = text, lang

    @cached_property
    def codes(self) -> Codes:
        """The code points of ``shown``."""
        return _table(_narrow_map)[codes_of(self.text)]

    @cached_property
    def shown(self) -> str:
        """Narrow."""
        return self.text if self.text.isascii() else text_of(self.codes)

    @cached_property
    def low(self) -> str:
        """Narrow and in small letters."""
        return small(self.shown)

    @cached_property
    def folded_codes(self) -> Codes:
        """The code points of ``folded``."""
        return _table(_plain_map)[self.codes]

    @cached_property
    def folded(self) -> str:
        """Plain."""
        return text_of(self.folded_codes)

    @cached_property
    def low_words(self) -> str:
        """In small letters, whatever is no letter as a blank, one blank more on both sides: every
        word stands between blanks."""
        return f" {text_of(_table(_blank_map)[codes_of(self.low)])} "

    @cached_property
    def folded_words(self) -> str:
        """The same of the plain text."""
        return f" {text_of(_table(_blank_map)[self.folded_codes])} "

    @cached_property
    def unmarked(self) -> bool:
        """Whether it is written without Vietnamese marks."""
        return bool((self.codes > 127).sum() * 50 < len(self.codes))

    def unmarked_at(self, start: int, end: int) -> bool:
        """Whether the words around a place are written without Vietnamese marks; not the whole text
        need be."""
        return self.unmarked or self.shown[max(0, start) : end + 16].isascii()

    @cached_property
    def numbers(self) -> list[tuple[int, int, int]]:
        """(start, end, digits from there on, those of further numbers that at most two separators
        part from it) of every number."""
        codes = self.codes
        digit = np.zeros(len(codes) + 2, dtype=np.int8)
        digit[1:-1] = codes - np.uint32(48) < 10
        edges = np.flatnonzero(np.diff(digit)).tolist()
        found, digits, after = [], 0, -9
        for at in range(len(edges) - 2, -1, -2):
            start, end = edges[at], edges[at + 1]
            apart = after - end
            if apart > 2 or apart < 0 or (apart and not JOINS.issuperset(self.shown[end:after])):
                digits = 0
            digits += end - start
            found.append((start, end, digits))
            after = start
        found.reverse()
        return found

    @cached_property
    def dates(self) -> tuple[DateMention, ...]:
        """Every date in it."""
        from residency.deid.dates import dates_of

        return dates_of(self)


JOINS = frozenset(" .-/()")
"""What may stand between the numbers of one identifier."""
Meaning = TypeVar("Meaning")


class Words(Generic[Meaning]):
    """Words that are looked for all at once, each with what it means. Words of letters are found
    whole, save beside Chinese signs and digits."""

    def __init__(self, words: Iterable[tuple[str, Meaning]], between_blanks: bool = False) -> None:
        """``between_blanks``: the text will be one whose words stand between blanks, and so do
        these."""
        self.between_blanks = between_blanks
        meanings: dict[str, list[Meaning]] = {}
        for word, meaning in words:
            key = (
                "".join(sign if sign.isalpha() else " " for sign in word).strip()
                if between_blanks
                else word
            )
            meant = meanings.setdefault(f" {key} " if between_blanks else key, [])
            if meaning not in meant:
                meant.append(meaning)
        if between_blanks:
            import ahocorasick

            self.automaton: Any = ahocorasick.Automaton()
            for word, meant in meanings.items():
                self.automaton.add_word(word, (len(word), tuple(meant)))
            self.automaton.make_automaton()
        else:
            self.begins = _Begins(meanings)
            self.longer: dict[str, list[tuple[str, int, bool, tuple[Meaning, ...]]]] = {}
            for word, meant in meanings.items():
                latin = word[0] < "\u2e80" or word[-1] < "\u2e80"
                self.longer.setdefault(word[:2], []).append((word, len(word), latin, tuple(meant)))

    def find(
        self, text: str, codes: Codes | None = None
    ) -> Iterable[tuple[int, int, tuple[Meaning, ...]]]:
        """(start, end, meanings) of every word, by their ends; ``codes``: the text's code points
        where they are there already."""
        if self.between_blanks:  # the blank before the text shifts everything by one
            return (
                (last + 1 - size, last - 1, meant)
                for last, (size, meant) in self.automaton.iter(text)
            )
        found: list[tuple[int, int, tuple[Meaning, ...]]] = []
        for start in self.begins.places(codes_of(text) if codes is None else codes):
            for key in (
                (text[start : start + 2], text[start]) if start + 1 < len(text) else (text[start],)
            ):
                for word, size, latin, meant in self.longer.get(key, ()):
                    end = start + size
                    if (size > 2 and not text.startswith(word, start)) or (
                        latin and not _whole(text, start, end)
                    ):
                        continue
                    found.append((end, start, meant))
        found.sort(key=itemgetter(0, 1))
        return [(start, end, meant) for end, start, meant in found]


class _Begins:
    """Where a text may hold one of several words: by their first two signs, for thousands of places
    at once. (An automaton looks through all signs with which Chinese words begin, one after
    another, at every place.)"""

    SINGLE = np.uint64(1 << 63)

    def __init__(self, words: Iterable[str]) -> None:
        firsts: dict[str, np.uint64] = {}
        self.first, self.second = (
            np.zeros(0x110000, np.uint64),
            np.zeros(0x110000, np.uint64),
        )  # only what is used is in memory
        for word in words:
            if len(word) == 1:
                self.first[ord(word)] |= self.SINGLE
                continue
            mark = firsts.setdefault(word[0], np.uint64(1 << len(firsts) % 63))
            self.first[ord(word[0])] |= mark
            self.second[ord(word[1])] |= mark

    def places(self, codes: Codes) -> list[int]:
        """Places in order; a few where none stands may be among them."""
        marks = self.first[codes]
        marks[:-1] &= self.second[codes[1:]] | self.SINGLE
        marks[-1:] &= self.SINGLE
        found: list[int] = np.flatnonzero(marks).tolist()
        return found


def _whole(text: str, start: int, end: int) -> bool:
    """Whether a word of letters is no part of a longer one."""
    return not (
        (start and _joined(text[start - 1], text[start]))
        or (end < len(text) and _joined(text[end - 1], text[end]))
    )


def _joined(left: str, right: str) -> bool:
    """Whether two signs belong to one word of letters."""
    return left.isalpha() and right.isalpha() and left < "\u2e80" and right < "\u2e80"
