"""A second look at the finished text for the identifiers of the row, by other means than the
finder: letters as a transliteration has them, whole words in a row, one letter more or less.

It shares no code with ``known`` and ``squeeze``, so that a fault there is seen here. A hit refuses
the note; what is said of it is a kind and a form, never the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property, lru_cache
from html import unescape
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from residency.core.types import Value
from residency.deid.names.lists import name_data

BLANK = "\ue000"
"""Stands for what was replaced, or left on purpose: nothing is found across it."""
PEOPLE = {"name": "names", "relative": "names of relatives", "clinician": "names of clinicians"}
NUMBERS = {
    "record": "record numbers",
    "admission": "admission numbers",
    "national_id": "identity numbers",
    "insurance": "insurance numbers",
    "phone": "phone numbers",
    "account": "account numbers",
    "plate": "number plates",
}
OTHER = {"email": "e-mail addresses", "address": "addresses"}
TOKEN = re.compile(r"[a-z]+|[0-9]+|[^\x00-\x7f]")
BETWEEN = re.compile(r"[\x00-/:-`{-\x7f]+")
"""What is no part of a token."""
HAN = re.compile(r"[\u3400-\u9fff]+")
NEAR = 9
"""Letters of a name from which on one more, less or other is no chance."""


class Trace(Value, frozen=True):
    """What would tell that an identifier is left."""

    key: str
    """Letters and digits of the transliteration, without what parts them; or Chinese signs."""
    what: str
    """Its kind and form, for the reason."""
    how: str = "words"
    """``words``, ``near`` (or one letter away), ``number``, ``phone``, ``email``, ``chinese``, or
    ``beside``: directly beside what was put in, as where a name was found in part."""


class _Latin(dict[int, str]):
    """Code point -> small Latin letters and digits; Chinese, Japanese and Korean signs stay."""

    def __missing__(self, code: int) -> str:
        from anyascii import anyascii

        sign = chr(code)
        kept = "\u2e80" <= sign < "\uf900"
        made = self[code] = sign if kept else anyascii(sign).lower()
        return made


_LATIN = _Latin()


@cache
def _table() -> NDArray[np.uint32]:
    """Code point -> that of the one sign for which it stands; 0 where that is none, or several."""
    table = np.zeros(0x110000, np.uint32)
    for code in range(0x10000):
        if len(made := _LATIN[code]) == 1:
            table[code] = ord(made)
    return table


def _latin(text: str) -> str:
    """A text in small Latin letters, digits and Chinese, Japanese and Korean signs."""
    codes = _table()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
    row = codes.tobytes().decode("utf-32-le", "surrogatepass")
    parts: list[str] = []
    at = 0
    for place in np.flatnonzero(codes == 0).tolist():
        parts += (row[at:place], _LATIN[ord(text[place])])
        at = place + 1
    return "".join((*parts, row[at:]))


def residue(text: str, identifiers: tuple[tuple[str, str], ...], lang: str) -> str:
    """The kind and form of an identifier of the row that is left in a text; nothing where none is.

    ``text``: with ``BLANK`` in the place of what was put in.
    """
    traces = _traces(identifiers, lang)
    if not traces:
        return ""
    text = unescape(text) if "&" in text else text
    latin, other = _latin(text), _in_wrong_letters(text)
    page, han = _Page(latin), _Han(text)
    beside = _beside(latin if other is None else other)
    unread = [word for word in beside if "?" in word]
    for trace in traces:
        if trace.how == "chinese":
            found = han.holds(trace.key)
        elif trace.how == "beside":
            found = trace.key in beside or any(_alike(word, trace.key) for word in unread)
        else:
            found = page.holds(trace)
            if other is not None and trace.how in ("words", "near"):
                found = found or _looks_like(other, trace.key)
        if found:
            return trace.what
    return ""


def _beside(text: str) -> set[str]:
    """The words directly before and behind what was put in."""
    found = set[str]()
    for part in text.split(BLANK):
        for form in (FIRST.match(part), LAST.search(part[-24:])):
            if form:
                found.add(form[1])
    return found


FIRST, LAST = (
    re.compile(form) for form in (r"[ .,'`-]{0,2}([a-z?]+)", r"([a-z?]+)[ .,'`-]{0,2}\Z")
)


def _alike(word: str, key: str) -> bool:
    return len(word) == len(key) and all(a in ("?", b) for a, b in zip(word, key, strict=True))


class _Page:
    """The words of a text in a row, and where each begins."""

    def __init__(self, latin: str) -> None:
        self.latin, self.row = latin, BETWEEN.sub("", latin)

    @cached_property
    def tokens(self) -> list[str]:
        """Its words, numbers and signs."""
        return TOKEN.findall(self.latin)

    @cached_property
    def bounds(self) -> frozenset[int]:
        """Where a word begins or ends."""
        return frozenset(accumulate(map(len, self.tokens), initial=0))

    @cached_property
    def numbers(self) -> str:
        """The row with digits for the letters that look like them."""
        return self.row.replace("o", "0").replace("i", "1").replace("l", "1")

    @cached_property
    def unspoken(self) -> str:
        """The row without what speaks the signs of an e-mail address."""
        spoken = {"at", "dot", "cham", "a", "cong", "acong"}
        return "".join(token for token in self.tokens if token not in spoken)

    def holds(self, trace: Trace) -> bool:
        """Whether a trace stands here, from the beginning of a word to the end of one."""
        if trace.how == "email":
            return trace.key in self.unspoken
        row = self.numbers if trace.how in ("number", "phone") else self.row
        size, at = len(trace.key), row.find(trace.key)
        while at >= 0:
            ends = at + size in self.bounds
            if ends and (at in self.bounds or (trace.how == "phone" and self._led(at))):
                return True
            at = row.find(trace.key, at + 1)
        return trace.how == "near" and self._near(trace.key)

    def _led(self, at: int) -> bool:
        """Whether only a country's code and a nought stand before a phone number."""
        return not self.bounds.isdisjoint(range(at - 5, at)) and self.row[at - 1].isdigit()

    def _near(self, key: str) -> bool:
        """Whether words in a row are one letter away: one half of them then stands here whole."""
        from rapidfuzz.distance import Levenshtein

        row, size, half = self.row, len(key), len(key) // 2
        for part, first in ((key[:half], True), (key[half:], False)):
            at = row.find(part)
            while at >= 0:
                for length in (size - 1, size, size + 1):
                    start = at if first else at + len(part) - length
                    if start >= 0 and {start, start + length} <= self.bounds:
                        found = row[start : start + length]
                        if Levenshtein.distance(found, key, score_cutoff=1) <= 1:
                            return True
                at = row.find(part, at + 1)
        return False


FOREIGN = re.compile("[\u0370-\u052f]")


def _in_wrong_letters(text: str) -> str | None:
    """The words of a text with ``?`` for each Greek or Cyrillic letter; None where there is
    none."""
    if not FOREIGN.search(text) or not re.search(
        r"[a-zA-Z][\u0370-\u052f]|[\u0370-\u052f]{2}|[\u0370-\u052f][a-zA-Z]", text
    ):
        return None
    marked = re.sub(r"[\u0370-\u052f]", "\ue001", text).translate(_LATIN)
    return re.sub(r"[^a-z0-9\ue000\ue001]+", " ", marked).replace("\ue001", "?")


def _looks_like(text: str, key: str) -> bool:
    """Whether a name stands in a text in which some of its letters are of another script."""
    form = "[ ]?".join(f"[{sign}?]" for sign in key)
    found = re.finditer(rf"(?<![a-z0-9?]){form}(?![a-z0-9?])", text)
    return any("?" in match[0] and match[0].count("?") * 2 <= len(key) for match in found)


class _Han:
    """The Chinese signs of a text."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def laid_out(self) -> str:
        """Parted by nothing but blanks and signs of layout."""
        return re.sub(r"[\s\u00b7\u200b-\u200f\u2060\ufeff\u00ad_*|]+", "", self.text)

    @cached_property
    def alone(self) -> str:
        """Parted by anything."""
        return re.sub(r"[^\u3400-\u9fff\ue000]+", "", self.text)

    def holds(self, key: str) -> bool:
        """Whether Chinese signs stand here in a row; a name of three may be parted by anything."""
        return key in (self.alone if len(key) > 2 else self.laid_out)


# What would tell


@lru_cache(maxsize=64)  # the notes of a patient follow each other
def _traces(identifiers: tuple[tuple[str, str], ...], lang: str) -> tuple[Trace, ...]:
    return tuple(
        dict.fromkeys(one for kind, value in identifiers for one in _of(kind, value, lang))
    )


@lru_cache(maxsize=1 << 10)  # clinicians and places come again
def _of(kind: str, value: str, lang: str) -> tuple[Trace, ...]:
    return tuple(_made(kind, value, lang))


def _made(kind: str, value: str, lang: str) -> Iterator[Trace]:
    words = [word for word in map(_row, re.split(r"[\s,]+", value)) if word]
    pieces = {word for word in map(_row, re.split(r"[\W_]+", value)) if len(word) > 2}
    if kind in PEOPLE:
        what = f"{PEOPLE[kind]} {form_of(value)}"
        yield from _of_chinese(value, what) if HAN.search(value) else _of_name(words, what, lang)
        for piece in sorted(pieces - _ordinary() - _ordinary("vi")):
            if lang == "vi" and _is_syllable(piece):
                continue
            yield Trace(piece, what, "beside")
    elif kind in NUMBERS:
        what, key = f"{NUMBERS[kind]} {form_of(value)}", _row(value)
        digits = re.sub(r"\D", "", key)
        if len(digits) >= 5:
            yield Trace(key.replace("o", "0").replace("i", "1").replace("l", "1"), what, "number")
        if kind == "phone" and len(digits) >= 8:
            yield Trace(digits[-9:], what, "phone")
    elif kind == "email" and len(key := _row(value)) > 7:
        yield Trace(key, f"e-mail addresses {form_of(value)}", "email")
    elif kind == "address":
        yield from _of_address(value, f"addresses {form_of(value)}", lang)
    elif kind == "birth_date" and (match := re.match(r"(\d{4})-(\d\d)-(\d\d)", value)):
        year, month, day = match.groups()
        for parts in ((year, month, day), (day, month, year), (month, day, year)):
            for key in ("".join(parts), "".join(part.lstrip("0") for part in parts)):
                yield Trace(key, "dates of birth", "number")


def _row(value: str) -> str:
    return BETWEEN.sub("", value.translate(_LATIN))


def _of_name(words: list[str], what: str, lang: str) -> Iterator[Trace]:
    """A name of words: in its orders, and its longer words alone where they are no ordinary
    ones."""
    count, syllables = len(words), lang == "vi" and all(map(_is_syllable, words))
    orders = [words, [*words[-1:], *words[:-1]], [*words[1:], *words[:1]]] if count > 1 else []
    if count > 2 and not syllables:
        orders.append([words[0], words[-1]])
    for order in orders:
        key = "".join(order)
        if len(key) >= (7 if count == 2 else 6) if syllables else len(key) > 4:
            ordinary = all(word in _ordinary() for word in order)
            if not ordinary or order is words:
                yield Trace(key, what, "near" if len(key) >= NEAR and order is words else "words")
    for word in () if syllables else words:
        if len(word) > 3 and word not in _ordinary() and not (lang == "vi" and _is_syllable(word)):
            yield Trace(word, what)


def _is_syllable(word: str) -> bool:
    return bool(
        re.fullmatch(
            r"(?:ngh?|[cgknpt]h|gi|qu|tr|[bcdghklmnpqrstvx])?[aeiouy]{1,3}(?:ch|ng|nh|[cmnpt])?",
            word,
        )
    )


@cache
def _ordinary(lang: str = "en") -> frozenset[str]:
    """Words that say nothing alone."""
    import yaml

    own = yaml.safe_load((Path(__file__).parent / "data/known.yaml").read_text("utf-8"))["words"]
    names = name_data(lang)
    lists: list[Iterable[str]] = [
        names.get(key, ()) for key in ("words", "stops", "ambiguous", "common")
    ]
    vetoes = names["vetoes"] if lang == "en" else ("van",)
    return frozenset(_row(word) for words in (*lists, vetoes, own[lang]) for word in words)


@cache
def converter(way: str) -> Any:
    """What writes Chinese in the signs of another place (``s2t``: traditional ones)."""
    import opencc

    return opencc.OpenCC(way)


def _of_chinese(value: str, what: str) -> Iterator[Trace]:
    """A name in Chinese signs: as it is, in the signs of other places, and in pinyin."""
    from anyascii import anyascii

    name = "".join(HAN.findall(value))
    if len(name) < 2:
        return
    written = (converter(way).convert(name) for way in ("s2t", "s2tw", "s2hk", "t2s"))
    for key in dict.fromkeys((name, *written)):
        yield Trace(key, what, "chinese")
    sounds = re.findall(r"[A-Z][a-z]*", anyascii(name))
    for order in (sounds, [*sounds[1:], *sounds[:1]]):
        if len(key := "".join(order).lower()) > 6:
            yield Trace(key, what)


def _of_address(value: str, what: str, lang: str) -> Iterator[Trace]:
    """An address's parts of several words or with a number, and its longer words."""
    for part in (value, *re.split(r"[,，;；\n]", value)):
        if HAN.search(part):
            if len(name := "".join(HAN.findall(part))) > 4:
                yield Trace(name, what, "chinese")
            continue
        words, key = part.split(), _row(part)
        if len(key) >= 8 and (len(words) > 2 or any(map(str.isdigit, key))):
            yield Trace(key, what)
        for word in map(_row, words):
            postcode = word.isdigit() and len(word) > 4
            alone = lang == "en" and len(words) == 1 and len(word) > 4 and word not in _ordinary()
            if postcode or alone:
                yield Trace(word, what, "number" if postcode else "words")


def form_of(value: str) -> str:
    """How a value is written, as a phrase behind its kind (``with an apostrophe``)."""
    if re.search(r"['’‘`´ʻʼʹ＇]", value):
        return "with an apostrophe"
    if HAN.search(value):
        return "in Chinese signs"
    if re.search(r"[-\u2010-\u2015]", value):
        return "with a hyphen"
    if re.search(r"[._@/]", value):
        return "with a dot or slash"
    if not value.isascii():
        return "with marks"
    return "of several words" if " " in value.strip() else "of one word"
