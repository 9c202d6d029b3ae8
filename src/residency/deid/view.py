"""The forms of a text in which identifiers are looked for: narrow, small, plain. Each sign stands
for one sign, so that every offset stays. Long texts go through tables of numpy: some microseconds a
note."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property, lru_cache
from itertools import chain
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint32]
LOOKALIKES = dict(zip("аеорсухіѕјкмтвнзαοινρτκυ", "aeopcyxisjkmtbh3aoivptku", strict=True))
"""Small letters of other scripts that look like Latin ones."""
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2e3a\u30fc"
"""Dashes that stand for a hyphen in numbers."""
LETTERS = dict(zip("đðłøıħŧɓɗƙɲŋəɛɔ", "ddloihtbdknneeo", strict=True))
"""Small letters with a stroke or the like, which do not decompose."""
JOINS = frozenset(" .-/()")
"""What may stand between the numbers of one identifier."""


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
    letters = chain(range(0x41, 0x250), range(0x370, 0x530), range(0x1E00, 0x1F00))
    table: dict[int, str] = {}
    for code in chain(letters, range(0xFF01, 0xFF5F), (0x3000, 0xA0)):
        base = normalize("NFKD", chr(code))[0].lower()
        base = LETTERS.get(base, LOOKALIKES.get(base, base))
        if len(base) == 1 and base != chr(code):
            table[code] = base
    return table


@cache
def _blank_map() -> dict[int, str]:
    kept = range(0x300, 0x370)
    return {code: " " for code in range(0x3100) if code not in kept and not chr(code).isalpha()}


@cache
def _ascii_blanks() -> bytes:
    """The same for the bytes of ASCII: what most English notes are, ten times as fast."""
    return bytes(ord(_blank_map().get(code, chr(code))) for code in range(128)) + bytes(128)


@cache
def _table(mapping: Callable[[], dict[int, str]]) -> Codes:
    table = np.arange(0x110000, dtype=np.uint32)
    for code, sign in mapping().items():
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
    return text if text.isascii() else text.translate(_narrow_map())


def small(text: str) -> str:
    """A text of the same length in small letters: a letter whose small form has two signs stays."""
    made = text.lower()
    if len(made) == len(text):
        return made
    return "".join(low if len(low := sign.lower()) == 1 else sign for sign in text)


class View:
    """A text and its other forms, each made once and of the same length, for all that look for
    something in it."""

    def __init__(self, text: str, lang: str = "") -> None:
        self.text, self.lang = text, lang

    @cached_property
    def codes(self) -> Codes:
        """The code points of ``shown``. A dash of any kind between two digits is a hyphen."""
        if self.text.isascii():
            return codes_of(self.text)
        codes = _table(_narrow_map)[codes_of(self.text)]
        if len(codes) > 2 and any(dash in self.text for dash in DASHES):
            dashes = np.isin(codes, codes_of(DASHES))
            before, behind = codes[:-2], codes[2:]
            digits = (before - np.uint32(48) < 10) | (before == 41)
            codes[1:-1][dashes[1:-1] & digits & (behind - np.uint32(48) < 10)] = 45
        return codes

    @cached_property
    def shown(self) -> str:
        """The narrow text."""
        return self.text if self.text.isascii() else text_of(self.codes)

    @cached_property
    def low(self) -> str:
        """The narrow text in small letters."""
        return small(self.shown)

    @cached_property
    def folded_codes(self) -> Codes:
        """The code points of ``folded``."""
        return _table(_plain_map)[self.codes]

    @cached_property
    def folded(self) -> str:
        """The plain text."""
        return self.low if self.shown.isascii() else text_of(self.folded_codes)

    @cached_property
    def low_words(self) -> str:
        """The text in small letters, whatever is no letter as a blank, one blank more on both
        sides: every word stands between blanks."""
        if self.low.isascii():
            return f" {self.low.encode().translate(_ascii_blanks()).decode()} "
        return f" {text_of(_table(_blank_map)[codes_of(self.low)])} "

    @cached_property
    def folded_words(self) -> str:
        """The plain text with its words between blanks, as in ``low_words``."""
        if self.shown.isascii():
            return self.low_words
        return f" {text_of(_table(_blank_map)[self.folded_codes])} "

    @cached_property
    def unmarked(self) -> bool:
        """Whether the text is written without Vietnamese marks."""
        return bool((self.codes > 127).sum() * 50 < len(self.codes))

    def unmarked_at(self, start: int, end: int) -> bool:
        """Whether the words around a place are written without Vietnamese marks; not the whole text
        need be."""
        return self.unmarked or self.shown[max(0, start) : end + 16].isascii()

    @cached_property
    def numbers(self) -> list[tuple[int, int, int]]:
        """(start, end, digits from there on, those of further numbers that at most two separators
        part from it) of every number."""
        digit = np.zeros(len(self.codes) + 2, dtype=np.int8)
        digit[1:-1] = self.codes - np.uint32(48) < 10
        edges = np.flatnonzero(np.diff(digit)).tolist()
        found, digits, after = [], 0, -9
        for start, end in zip(reversed(edges[::2]), reversed(edges[1::2]), strict=True):
            apart = after - end
            if apart > 2 or apart < 0 or (apart and not JOINS.issuperset(self.shown[end:after])):
                digits = 0
            digits += end - start
            found.append((start, end, digits))
            after = start
        found.reverse()
        return found
