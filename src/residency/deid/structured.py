"""The identifiers that a hospital's database holds of the patient of a note, found however the note writes them.

Both are compared without case, width, marks and separators: ``Nguyễn Văn An`` is found as NGUYEN VAN AN, nguyen-van-an or
NguyenVanAn, 0912.345.678 as 0912 345 678. Names are also found reordered, as initials, and by the given name alone.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache, cached_property, lru_cache

from residency.core.types import Value
from residency.deid.dates import find_dates
from residency.deid.find import STRUCTURED, Finding, narrow, plain
from residency.deid.names import name_data

NAMES = frozenset({"name", "relative", "clinician"})
CODES = frozenset({"record", "admission", "national_id", "insurance", "phone", "account", "plate"})
DATES = frozenset({"birth_date", "date"})
SEPARATORS = re.compile(r"[\s.\-_/,·・()\[\]'’]+")
SEPARATOR = frozenset(" \t\n\r.-_/,·・()[]'’\u3000\xa0")
SHORTEST_CODE = 4


class Variant(Value, frozen=True):
    """One way to write an identifier."""

    key: str
    """Without separators; plain, save where ``exact``."""
    kind: str
    exact: bool = False
    """Case and marks count: a given name alone, which may also be a common word."""
    dotted: bool = False
    """Only where its signs are parted: initials."""
    cued: bool = False
    """Only behind a word of address or a role."""


class Known:
    """Finds one patient's identifiers."""

    name = STRUCTURED

    def __init__(self, identifiers: Sequence[tuple[str, str]], lang: str) -> None:
        self.variants = tuple(dict.fromkeys(v for kind, value in identifiers for v in variants(kind, value, lang)))
        self.days = frozenset(day for kind, value in identifiers if kind in DATES for day in days_of(value, lang))
        self.exact = tuple(v for v in self.variants if v.exact)
        self.loose = tuple(v for v in self.variants if not v.exact)

    def find(self, text: str, lang: str) -> Iterator[Finding]:
        """Where the identifiers stand; dates of the row (birth) in whatever form."""
        yield from self.written(text)
        if self.days:
            for mention in find_dates(text, lang):
                if mention.value in self.days and mention.precision == "day":
                    yield Finding(mention.start, mention.end, "birth_date", STRUCTURED, 2)

    def written(self, text: str) -> Iterator[Finding]:
        """Where the identifiers stand that are no dates."""
        shown = narrow(text)
        yield from _located(shown, SEPARATORS.sub("", shown), self.exact)
        folded = plain(shown)
        yield from _located(folded, SEPARATORS.sub("", folded), self.loose, shown)

    @cached_property
    def keys(self) -> frozenset[str]:
        """Plain forms without separators: what no surrogate may hold."""
        return frozenset(plain(variant.key) for variant in self.variants)


@lru_cache(maxsize=64)  # the notes of a patient follow each other
def known(identifiers: tuple[tuple[str, str], ...], lang: str) -> Known:
    """What finds the identifiers of one row: (kind, value) each."""
    return Known(identifiers, lang)


def _located(text: str, squeezed: str, wanted: Sequence[Variant], shown: str = "") -> Iterator[Finding]:
    gaps: tuple[list[int], list[int]] | None = None
    for variant in wanted:
        at = squeezed.find(variant.key)
        while at >= 0:
            if gaps is None:
                gaps = _gaps(text)
            start = at + gaps[1][bisect_right(gaps[0], at) - 1]
            last = at + len(variant.key) - 1
            end = last + gaps[1][bisect_right(gaps[0], last) - 1] + 1
            if _stands(text, start, end) and _fits(variant, (shown or text), start, end):
                yield Finding(start, end, variant.kind, STRUCTURED)
            at = squeezed.find(variant.key, at + 1)


def _gaps(text: str) -> tuple[list[int], list[int]]:
    """Places in the squeezed text, and by how much the text is ahead from there on."""
    places, ahead, total = [0], [0], 0
    for match in SEPARATORS.finditer(text):
        places.append(match.start() - total)
        total += match.end() - match.start()
        ahead.append(total)
    return places, ahead


def _stands(text: str, start: int, end: int) -> bool:
    """Whether a stretch is not a part of a longer word or number, and is not spread over the text."""
    if (start and _same(text[start - 1], text[start])) or (end < len(text) and _same(text[end - 1], text[end])):
        return False
    gap = 0
    for sign in text[start:end]:
        gap = gap + 1 if sign in SEPARATOR else 0
        if gap > 3:
            return False
    return True


def _same(left: str, right: str) -> bool:
    if left.isdigit() and right.isdigit():
        return True
    return left.isalpha() and right.isalpha() and left < "\u2e80" and right < "\u2e80"


def _fits(variant: Variant, shown: str, start: int, end: int) -> bool:
    found = shown[start:end]
    if variant.dotted:
        return "." in found and found[0].isupper()
    if variant.cued:
        before = plain(shown[max(0, start - 14) : start]).rstrip(" .:")
        return found[0].isupper() and before.endswith(ADDRESSING)
    return True


ADDRESSING = (
    "ong",
    "ba",
    "anh",
    "chi",
    "em",
    "chau",
    "be",
    "cu",
    "co",
    "chu",
    "bac",
    "bn",
    "benh nhan",
    "con",
    "vo",
    "chong",
    "me",
    "bo",
    "ten",
    "mr",
    "mrs",
    "ms",
    "miss",
    "patient",
    "患者",
)
"""Words in front of a given name, plain."""


def variants(kind: str, value: str, lang: str) -> Iterator[Variant]:
    """The ways in which an identifier may be written."""
    bare = narrow(value).strip()
    if kind in NAMES:
        yield from _name_variants(kind, bare, lang)
    elif kind in CODES:
        key = SEPARATORS.sub("", plain(bare))
        if len(key) >= SHORTEST_CODE and any(sign.isdigit() for sign in key):
            yield Variant(key, kind)
            digits = re.sub(r"\D", "", key)
            if kind == "phone" and len(digits) >= 8:
                local = re.sub(
                    r"^(?:84|86|1(?=\d{10}$))", "", digits.lstrip("0") if digits.startswith("00") else digits
                ).lstrip("0")
                for lead in ("", "0", "84", "+84", "86", "+86", "1", "+1"):
                    yield Variant(lead + local, kind)
            elif digits != key and len(digits) >= 6:
                yield Variant(digits, kind)
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
            yield Variant(folded[0] + folded[-1], kind)
            yield Variant(folded[-1] + folded[0], kind)
            short = "".join(folded[1:])
            if len(short) >= 5:
                yield Variant(short, kind)
        yield Variant("".join(part[0] for part in folded), kind, dotted=True)
        yield Variant("".join(part[0] for part in folded[:-1]) + folded[-1], kind, dotted=True)
    given = {parts[-1], *(parts[:1] if lang == "en" else ())} if len(parts) > 1 else {parts[0]}
    family = {parts[-1]} if lang == "en" and len(parts) > 1 else set()
    for word in sorted(given | family):
        for shown in dict.fromkeys((word, word.capitalize(), word.upper())):
            if len(word) >= 2 and not shown.islower():
                yield Variant(shown, kind, exact=True, cued=plain(word) in common(lang))


@cache
def common(lang: str) -> frozenset[str]:
    """Plain words that are names and common words alike."""
    words: set[str] = set()
    for own in (lang,) if lang in ("vi", "en") else ("vi", "en"):
        data = name_data(own)
        words |= {plain(word) for word in (*data.get("common", ()), *data.get("ambiguous", ()), *data["stops"])}
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
