"""The identifiers that a hospital's database holds of the patient of a note, found however the note
writes them.

Both are compared without case, width, marks and separators: ``Nguyễn Văn An`` is found as NGUYEN
VAN AN, nguyen-van-an or NguyenVanAn, 0912.345.678 as 0912 345 678. Names are also found reordered,
as initials, and by the given name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache, cached_property, lru_cache
from typing import Literal

import numpy as np

from residency.core.types import Value
from residency.deid.dates import find_dates
from residency.deid.find import STRUCTURED, Finding, View, narrow, plain, small, text_of
from residency.deid.names.lists import name_data

NAMES = frozenset({"name", "relative", "clinician"})
CODES = frozenset({"record", "admission", "national_id", "insurance", "phone", "account", "plate"})
DATES = frozenset({"birth_date", "date"})
SIGNS = (
    ".-_/,·・()[]'’‘`*|~\u2010\u2011\u2012\u2013\u2014\u2212\u200b\u200c\u200d\u2060\ufeff\u00ad"
)
SEPARATORS = re.compile(rf"[\s{re.escape(SIGNS)}\u0300-\u036f]+")
"""What may stand between the signs of an identifier; marks that compose with nothing and signs
without width too."""
SHORTEST_CODE = 4
WIDEST_GAP = 3
CONFUSED = str.maketrans("oil", "011")
"""Letters that stand for digits in a code that was typed or read badly."""
Form = Literal["plain", "code", "exact"]


class Variant(Value, frozen=True):
    """One way to write an identifier."""

    key: str
    """Without separators; plain, save where ``exact``."""
    kind: str
    form: Form = "plain"
    """``exact``: case and marks count (a given name alone, which may also be a common word);
    ``code``: O is 0, I and l are 1."""
    dotted: bool = False
    """Only where its signs are parted: initials."""
    marked: str = ""
    """With its marks: where the text has other marks, it is another word (``định đặt`` is not Đình
    Đạt)."""
    cued: bool = False
    """Only behind a word of address or a role."""


@cache
def _kept() -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Code point -> whether it is no separator."""
    kept = np.ones(0x110000, dtype=bool)
    for code in range(0x3100):
        kept[code] = not SEPARATORS.fullmatch(chr(code))
    kept[[0xFEFF]] = False
    return kept


class _Squeezed:
    """A text without separators, and where its signs stand in the whole one."""

    def __init__(self, view: View) -> None:
        self.kept = _kept()[view.codes]
        self.forms: dict[Form, str] = {"plain": text_of(view.folded_codes[self.kept])}
        self.forms["exact"] = text_of(view.codes[self.kept])
        self.forms["code"] = _confused(self.forms["plain"])

    @cached_property
    def places(self) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Place in the squeezed text -> place in the whole one."""
        return np.flatnonzero(self.kept)


def _confused(text: str) -> str:
    return text.replace("o", "0").replace("i", "1").replace("l", "1")


class Known:
    """Finds one patient's identifiers."""

    name = STRUCTURED

    forms: list[tuple[Form, list[Variant]]]

    def __init__(self, identifiers: Sequence[tuple[str, str]], lang: str) -> None:
        self.variants = tuple(
            dict.fromkeys(v for kind, value in identifiers for v in variants(kind, value, lang))
        )
        self.forms = [
            (form, [v for v in self.variants if v.form == form])
            for form in ("plain", "code", "exact")
        ]
        self.days = frozenset(
            day for kind, value in identifiers if kind in DATES for day in days_of(value, lang)
        )

    def find(self, text: str, lang: str) -> Iterator[Finding]:
        """Where the identifiers stand; dates of the row (birth) in whatever form."""
        return self.search(View(text, lang))

    def search(self, view: View) -> Iterator[Finding]:
        """The same, in a text whose other forms may be there already."""
        yield from self.written(view)
        if self.days:
            for mention in view.dates:
                if mention.value in self.days and mention.precision == "day":
                    yield Finding(mention.start, mention.end, "birth_date", STRUCTURED, 2)

    def written(self, view: View) -> Iterator[Finding]:
        """Where the identifiers stand that are no dates."""
        if not self.variants:
            return
        squeezed = _Squeezed(view)
        for form, variants_of in self.forms:
            within = squeezed.forms[form]
            for variant in variants_of:
                if (at := within.find(variant.key)) >= 0:
                    yield from _standing(view, squeezed, within, variant, at)

    @cached_property
    def keys(self) -> frozenset[str]:
        """Plain forms without separators: what no surrogate may hold."""
        return frozenset(v.key if v.form == "code" else plain(v.key) for v in self.variants)


@lru_cache(maxsize=64)  # the notes of a patient follow each other
def known(identifiers: tuple[tuple[str, str], ...], lang: str) -> Known:
    """What finds the identifiers of one row: (kind, value) each."""
    return Known(identifiers, lang)


def _standing(
    view: View, squeezed: _Squeezed, within: str, variant: Variant, at: int
) -> Iterator[Finding]:
    """Where a way to write an identifier stands by itself, from a place of the squeezed text on
    where it stands."""
    length, place, text = len(variant.key), squeezed.places.item, view.folded
    while at >= 0:
        start, end = place(at), place(at + length - 1) + 1
        if not (
            (start and _same(text[start - 1], text[start]))
            or (end < len(text) and _same(text[end - 1], text[end]))
            or (
                end - start > length + WIDEST_GAP and GAP.search(text, start, end)
            )  # it is spread over the text
        ) and _fits(variant, view.shown, start, end):
            yield Finding(start, end, variant.kind, STRUCTURED)
        at = within.find(variant.key, at + 1)


GAP = re.compile(rf"(?:\s|[{re.escape(SIGNS)}]){{{WIDEST_GAP + 1},}}")


def _same(left: str, right: str) -> bool:
    """Whether two signs belong to one word or number."""
    if left.isdigit() and right.isdigit():
        return True
    return left.isalpha() and right.isalpha() and left < "\u2e80" and right < "\u2e80"


def _fits(variant: Variant, shown: str, start: int, end: int) -> bool:
    found = shown[start:end]
    if variant.dotted:
        return "." in found and found[0].isupper()
    if variant.marked:
        written = SEPARATORS.sub("", small(found))
        if written != variant.marked and any(
            "\u00c0" <= s < "\u0370" or "\u1e00" <= s < "\u1f00" for s in written
        ):
            return False
    if variant.cued:
        before = plain(shown[max(0, start - 14) : start]).rstrip(" .:")
        return found[0].isupper() and before.endswith(addressing())
    return True


@cache
def addressing() -> tuple[str, ...]:
    """Words in front of a given name, plain."""
    return tuple(plain(word) for lang in ("vi", "zh", "en") for word in name_data(lang)["called"])


def variants(kind: str, value: str, lang: str) -> Iterator[Variant]:
    """The ways in which an identifier may be written."""
    bare = narrow(value).strip()
    if kind in NAMES:
        yield from _name_variants(kind, bare, lang)
    elif kind in CODES:
        key = SEPARATORS.sub("", plain(bare))
        if len(key) >= SHORTEST_CODE and any(sign.isdigit() for sign in key):
            yield Variant(key.translate(CONFUSED), kind, "code")
            digits = re.sub(r"\D", "", key)
            if kind == "phone" and len(digits) >= 8:
                bare = digits[2:] if digits.startswith("00") else digits
                local = re.sub(
                    r"^1(?=\d{10}$)" if lang == "en" else r"^(?:84|86)", "", bare
                ).lstrip("0")
                for lead in ("", "0", "84", "+84", "86", "+86", "1", "+1"):
                    yield Variant(lead + local, kind, "code")
            elif digits != key and len(digits) >= 6:
                yield Variant(digits, kind, "code")
    elif kind == "address":
        for part in (bare, *re.split(r"[,，;]", bare)):
            key = SEPARATORS.sub("", plain(part))
            if (len(key) >= 8 or (not key.isascii() and len(key) >= 5)) and (
                part == bare or any(s.isdigit() for s in key)
            ):
                yield Variant(key, kind)
    elif kind not in DATES:
        key = SEPARATORS.sub("", plain(bare))
        if len(key) >= SHORTEST_CODE:
            yield Variant(key, kind)


def _name_variants(kind: str, name: str, lang: str) -> Iterator[Variant]:
    parts = [part for part in re.split(r"[\s,·・\-]+", name) if part]
    if len(parts) <= 1 and not name.isascii() and len(name) <= 4 and name >= "\u4e00":  # Chinese
        yield Variant(name, kind)
        return
    if not parts:
        return
    folded = [plain(part).strip(".") for part in parts]
    whole = "".join(folded)
    if len(whole) >= 4:
        yield Variant(whole, kind)
    if len(folded) > 1:
        yield Variant("".join([folded[-1], *folded[:-1]]), kind)  # given name first, or last
        yield Variant("".join([*folded[1:], folded[0]]), kind)
        if len(folded) > 2:
            low = [small(part).strip(".") for part in parts]
            yield Variant(folded[0] + folded[-1], kind, marked=low[0] + low[-1])
            yield Variant(folded[-1] + folded[0], kind, marked=low[-1] + low[0])
            for first in range(1, len(folded) - 1):
                if len(short := "".join(folded[first:])) >= 5:
                    yield Variant(short, kind, marked="".join(low[first:]))
        yield Variant("".join(part[0] for part in folded), kind, dotted=True)
        yield Variant("".join(part[0] for part in folded[:-1]) + folded[-1], kind, dotted=True)
    given = {parts[-1], *(parts[:1] if lang == "en" else ())} if len(parts) > 1 else {parts[0]}
    family = {parts[-1]} if lang == "en" and len(parts) > 1 else set()
    for word in sorted(given | family):
        for shown in dict.fromkeys((word, word.capitalize(), word.upper())):
            if len(word) >= 2 and not shown.islower():
                yield Variant(shown, kind, "exact", cued=plain(word) in common(lang))


@cache
def common(lang: str) -> frozenset[str]:
    """Plain words that are names and common words alike."""
    words: set[str] = set()
    for own in (lang,) if lang in ("vi", "en") else ("vi", "en"):
        data = name_data(own)
        words |= {
            plain(word)
            for word in (*data.get("common", ()), *data.get("ambiguous", ()), *data["stops"])
        }
    return frozenset(words)


def days_of(value: str, lang: str) -> Iterator[date]:
    """The days that a value of the row may mean; several where day and month could be either."""
    try:
        yield date.fromisoformat(value.strip()[:10])
    except ValueError:
        for own in dict.fromkeys((lang, "vi", "en")):
            for mention in find_dates(value, own):
                if mention.value is not None and mention.precision == "day":
                    yield mention.value
