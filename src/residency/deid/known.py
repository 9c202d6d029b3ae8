"""The identifiers that a hospital's database holds of the patient of a note, found however the note
writes them.

Both are compared without case, width, marks and separators: ``Nguyễn Văn An`` is found as NGUYEN
VAN AN, nguyen-van-an or NguyenVanAn, 0912.345.678 as 0912 345 678. Names are also found reordered,
as initials, and by the given name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import cache, cached_property, lru_cache
from typing import Literal

import numpy as np

from residency.core.types import Value
from residency.deid.dates import DateMention, dates_of, find_dates
from residency.deid.find import STRUCTURED, Finding
from residency.deid.names.lists import name_data
from residency.deid.view import View, narrow, plain, small, text_of
from residency.deid.words import is_one_word

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
FORMS: tuple[Form, ...] = ("plain", "code", "exact")
Places = np.ndarray[tuple[int], np.dtype[np.intp]]


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


def _squeeze(view: View) -> tuple[dict[Form, str], Places]:
    """A text without separators in every form, and where its signs stand in the whole one."""
    kept = _kept()[view.codes]
    folded = text_of(view.folded_codes[kept])
    code = folded.replace("o", "0").replace("i", "1").replace("l", "1")
    forms: dict[Form, str] = {"plain": folded, "code": code, "exact": text_of(view.codes[kept])}
    return forms, np.flatnonzero(kept)


class KnownFinder:
    """Finds one patient's identifiers."""

    name = STRUCTURED

    def __init__(self, identifiers: Sequence[tuple[str, str]], lang: str) -> None:
        every = (one for kind, value in identifiers for one in variants(kind, value, lang))
        self.variants = sorted(dict.fromkeys(every), key=lambda one: FORMS.index(one.form))
        dates = (value for kind, value in identifiers if kind in DATES)
        self.days = frozenset(day for value in dates for day in days_of(value, lang))

    def find(self, text: str, lang: str) -> Iterator[Finding]:
        """Where the identifiers stand; dates of the row (birth) in whatever form."""
        view = View(text, lang)
        return self.search(view, dates_of(view))

    def search(self, view: View, dates: Iterable[DateMention]) -> Iterator[Finding]:
        """The same, in a text whose other forms and dates are there already."""
        yield from self.written(view)
        for mention in dates if self.days else ():
            if mention.value in self.days and mention.precision == "day":
                yield Finding(mention.start, mention.end, "birth_date", STRUCTURED, 2)

    def written(self, view: View) -> Iterator[Finding]:
        """Where the identifiers stand that are no dates."""
        if not self.variants:
            return
        squeezed, places = _squeeze(view)
        for variant in self.variants:
            within = squeezed[variant.form]
            if (at := within.find(variant.key)) >= 0:
                yield from _standing(view, places, within, variant, at)

    @cached_property
    def keys(self) -> frozenset[str]:
        """Plain forms without separators: what no surrogate may hold."""
        return frozenset(v.key if v.form == "code" else plain(v.key) for v in self.variants)


@lru_cache(maxsize=64)  # the notes of a patient follow each other
def known_finder(identifiers: tuple[tuple[str, str], ...], lang: str) -> KnownFinder:
    """What finds the identifiers of one row: (kind, value) each."""
    return KnownFinder(identifiers, lang)


def _standing(
    view: View, places: Places, within: str, variant: Variant, at: int
) -> Iterator[Finding]:
    """Where a way to write an identifier stands by itself, from a place of the squeezed text on
    where it stands."""
    length, place, text = len(variant.key), places.item, view.folded
    while at >= 0:
        start, end = place(at), place(at + length - 1) + 1
        cut = (start and _is_one(text[start - 1], text[start])) or (
            end < len(text) and _is_one(text[end - 1], text[end])
        )
        spread = end - start > length + WIDEST_GAP and GAP.search(text, start, end)
        if not cut and not spread and _fits(variant, view.shown, start, end):
            yield Finding(start, end, variant.kind, STRUCTURED)
        at = within.find(variant.key, at + 1)


GAP = re.compile(rf"(?:\s|[{re.escape(SIGNS)}]){{{WIDEST_GAP + 1},}}")


MARKED = re.compile("[\u00c0-\u036f\u1e00-\u1eff]")


def _is_one(left: str, right: str) -> bool:
    """Whether two signs belong to one word or number."""
    return (left.isdigit() and right.isdigit()) or is_one_word(left, right)


def _fits(variant: Variant, shown: str, start: int, end: int) -> bool:
    found = shown[start:end]
    if variant.dotted:
        return "." in found and found[0].isupper()
    if variant.marked:
        written = SEPARATORS.sub("", small(found))
        if written != variant.marked and MARKED.search(written):
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
                code = r"^1(?=\d{10}$)" if lang == "en" else r"^(?:84|86)"
                local = re.sub(code, "", digits.removeprefix("00")).lstrip("0")
                for lead in ("", "0", "84", "+84", "86", "+86", "1", "+1"):
                    yield Variant(lead + local, kind, "code")
            elif digits != key and len(digits) >= 6:
                yield Variant(digits, kind, "code")
    elif kind == "address":
        for part in (bare, *re.split(r"[,，;]", bare)):
            key = SEPARATORS.sub("", plain(part))
            long = len(key) >= (8 if key.isascii() else 5)
            if long and (part == bare or any(sign.isdigit() for sign in key)):
                yield Variant(key, kind)
    elif kind not in DATES:
        key = SEPARATORS.sub("", plain(bare))
        if len(key) >= SHORTEST_CODE:
            yield Variant(key, kind)


def _name_variants(kind: str, name: str, lang: str) -> Iterator[Variant]:
    parts = [part for part in re.split(r"[\s,·・\-]+", name) if part.strip(".")]
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
        initials = "".join(part[0] for part in folded)
        yield Variant(initials, kind, dotted=True)
        yield Variant(initials[:-1] + folded[-1], kind, dotted=True)
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
        for name in ("common", "ambiguous", "stops"):
            words.update(map(plain, name_data(own).get(name, ())))
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
