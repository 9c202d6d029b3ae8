"""The one normal form in which the row's identifiers and a text are compared: no case, width, marks
or separators; letters of other scripts as the Latin ones that they look like; traditional Chinese
as simplified. Key and text pass the same steps, so that what differs in either is gone from both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from html import unescape
from itertools import chain
from unicodedata import category, decimal, normalize

import numpy as np

from residency.core.types import Value
from residency.deid.view import LETTERS, LOOKALIKES, Codes, View, codes_of, text_of

Places = np.ndarray[tuple[int], np.dtype[np.intp]]
ENTITY = re.compile(r"&(?:#\d{2,6}|#[xX][\da-fA-F]{2,5}|[A-Za-z]{2,8});")
"""A sign as a web page's source has it."""
EXPANDED = {"ß": "ss", "æ": "ae", "œ": "oe", "þ": "th", "ĳ": "ij"}
"""Letters that are written as two elsewhere."""
CONFUSED = str.maketrans(
    "oil〇零一二三四五六七八九幺壹贰叁肆伍陆柒捌玖", "01100123456789" + "1" + "123456789"
)
"""What stands for digits in a code that was typed or read badly, or is written in Chinese."""
CHINESE = range(0x3400, 0xA000)


class Squeezed(Value, frozen=True):
    """A text in its normal form."""

    text: str
    code: str
    """The same with what stands for digits as digits."""
    places: Places
    """Where each sign of it stands in the whole text."""


def _width(sign: str) -> str:
    digit, plain = decimal(sign, None), normalize("NFKC", sign)
    wide = "\uff00" <= sign <= "\uffef" or "\ufb00" <= sign <= "\ufb06"
    if wide or (len(plain) == 1 and plain.isascii() and plain.isalpha()):
        return plain
    return sign if digit is None else str(digit)


def _marks(sign: str) -> str:
    return "" if category(sign) == "Mn" else normalize("NFD", sign)[0]


def _letters(sign: str) -> str:
    return EXPANDED.get(sign, LETTERS.get(sign, sign))


def _scripts(sign: str) -> str:
    return LOOKALIKES.get(sign, sign)


def _signs(sign: str) -> str:
    return sign if sign.isalnum() and not "\u02b0" <= sign <= "\u02ff" else ""


@cache
def _simplified() -> dict[str, str]:
    import opencc

    signs = [chr(code) for code in CHINESE]
    found = opencc.OpenCC("t2s").convert("\n".join(signs)).split("\n")
    return {sign: new for sign, new in zip(signs, found, strict=True) if sign != new}


def _traditional(sign: str) -> str:
    return _simplified().get(sign, sign) if sign >= "\u3400" else sign


STEPS: dict[str, Callable[[str], str]] = {
    "width": _width,
    "case": str.lower,
    "marks": _marks,
    "letters": _letters,
    "scripts": _scripts,
    "traditional": _traditional,
    "signs": _signs,
}
"""What is done to each sign, in order; every step may see several signs of one before."""


@cache
def _changed() -> dict[int, str]:
    """Code point -> its normal form, where it is another."""
    made: dict[int, str] = {}
    for code in chain(
        range(0x3400),
        _simplified_codes(),
        range(0xA000, 0xAC00),
        range(0xFB00, 0xFB07),
        range(0xFE00, 0x12000),
        range(0x16A00, 0x17000),
        range(0x1D000, 0x20000),
    ):
        new = sign = chr(code)
        for step in STEPS.values():
            new = "".join(map(step, new))
        if new != sign:
            made[code] = new
    return made


def _simplified_codes() -> list[int]:
    return [ord(sign) for sign in _simplified()]


@cache
def _tables() -> tuple[Codes, Codes, Codes]:
    """Code point -> the first sign of its normal form, or 0; the second one, or 0; a sign of a
    normal form -> the digit for which it stands."""
    first, second = np.arange(0x110000, dtype=np.uint32), np.zeros(0x110000, dtype=np.uint32)
    for code, new in _changed().items():
        first[code] = ord(new[0]) if new else 0
        second[code] = ord(new[1]) if len(new) > 1 else 0
    digits = np.arange(0x110000, dtype=np.uint32)
    digits[list(CONFUSED)] = list(CONFUSED.values())
    return first, second, digits


def reset() -> None:
    """Read the steps anew."""
    for made in (_changed, _tables, squeeze):
        made.cache_clear()


@lru_cache(maxsize=1 << 14)  # the same words come again and again
def squeeze(text: str) -> str:
    """The normal form of a short text."""
    return text.translate(_changed())


def squeezed(view: View) -> Squeezed:
    """The normal form of a text, and where its signs stand."""
    first, second, digits = _tables()
    given = codes_of(view.text)
    codes = first[given]
    for entity in ENTITY.finditer(view.text) if "&" in view.text else ():
        codes[entity.start() : entity.end()] = 0
        if sign := squeeze(unescape(entity[0]))[:1]:
            codes[entity.start()] = ord(sign)
    places = np.flatnonzero(codes)
    kept = codes[places]
    more = second[given[places]]
    if more.any():
        at = np.flatnonzero(more)
        kept, places = np.insert(kept, at + 1, more[at]), np.insert(places, at + 1, places[at])
    return Squeezed(text_of(kept), text_of(digits[kept]), places)
