"""Dates as notes write them: found, read, and written back in the form that they came in."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping
from datetime import date
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from residency.core.types import Value
from residency.deid.find import Words, narrow, small

Precision = Literal["day", "month", "monthday"]
DIGITS = "〇一二三四五六七八九"
LEAP = 2024
"""Year in which a day and a month without a year are looked at."""


class DateMention(Value, frozen=True):
    """A date in a text. ``value`` is None where its numbers are no date: then nothing can be said about it, save that it is one."""

    start: int
    end: int
    text: str
    value: date | None
    """The first of the month, and year 2024, where day or year are not said."""
    precision: Precision
    pieces: tuple[tuple[int, int, str], ...]
    """(start, end, what) of its numbers within ``text``; ``what``: d, m, y, M (month in words), o (ordinal), cy, cm, cd."""


@cache
def _forms(own: str) -> tuple[Any, ...]:
    """Compiled forms of a language, of all (``all``), or that count behind a cue only (``near``)."""
    import regex

    data = _data()
    before, behind = r"(?<!\d[./\-:,]?)", r"(?!\d)"
    if own == "all":
        before, behind = r"(?<!\w)(?<!\d[./\-:,])", r"(?!\d)(?![./\-]\d)(?!\w*%)"
    elif own == "en":
        before, behind = r"(?<!\w)(?<!\d[./\-])", r"(?!\w)"
    elif own == "near":
        before, behind = "", r"(?!\d)(?![./\-]\d)(?!\s*(?:mm|mg|ml|viên|%|liều|lần|ống|gói|tab|片|kg|cm|l\b))"
    month = "|".join(sorted({*data["months"]["en"], *data["months"]["short"], "sept"}, key=len, reverse=True))
    flags = regex.IGNORECASE if own == "en" else 0
    return tuple(regex.compile(f"{before}(?:{form.replace('MONTH', month)}){behind}", flags) for form in data[own])


@cache
def _cues(lang: str) -> Words:
    """Words behind which a day and a month are a date."""
    cues = _data()["cues"]
    return Words({cue for own in ((lang, "en") if lang in cues else cues) for cue in cues[own]})


NUMBERS = re.compile(r"(?<!\d)\d{1,2}(?=\s?[./\-]\s?\d)|(?<!\d)(?:19|20)\d{2}(?=[./\-]\d)|(?<!\d)(?:19|20)\d{6}(?!\d)")
"""Where a date in figures may begin."""


@cache
def _data() -> Mapping[str, Any]:
    import yaml

    found: Mapping[str, Any] = yaml.safe_load((Path(__file__).parent / "data/dates.yaml").read_text("utf-8"))
    return found


@lru_cache(maxsize=4)  # several ask about the same note
def find_dates(text: str, lang: str) -> tuple[DateMention, ...]:
    """Every date of a text, in order, without overlaps; of two forms at one place the longer. Years alone are none."""
    shown = narrow(text)
    low = small(shown)
    found: list[DateMention] = []

    def add(match: Any, own: str) -> None:
        mention = _mention(text, match, lang, own)
        if mention is not None:
            found.append(mention)

    for number in NUMBERS.finditer(shown):
        for pattern in _forms("all"):
            if match := pattern.match(shown, number.start()):
                add(match, "all")
    for _, end in _cues(lang).find(low):
        at = end
        while at < len(shown) and shown[at] in " :：\n":
            at += 1
        if at < len(shown) and shown[at].isdigit():
            for pattern in _forms("near"):
                if match := pattern.match(shown, at):
                    add(match, "near")
    for own in ("vi", "zh", "en"):
        if (lang in ("vi", "zh", "en") and own not in (lang, "en")) or not any(
            word in low for word in _data()["words"][own]
        ):
            continue
        for pattern in _forms(own):
            for match in pattern.finditer(shown):
                add(match, own)
    found.sort(key=lambda one: (one.start, -one.end))
    kept: list[DateMention] = []
    for one in found:
        if kept and one.start < kept[-1].end:
            if one.end - one.start > kept[-1].end - kept[-1].start:
                kept[-1] = one
            continue
        kept.append(one)
    return tuple(kept)


def _mention(text: str, match: Any, lang: str, own: str) -> DateMention | None:
    start, end = match.span()
    groups: dict[str, tuple[int, int]] = {}
    for name in ("d", "m", "y", "M", "o", "cy", "cm", "cd"):
        if name in match.re.groupindex and match.group(name):
            groups[name] = match.span(name)
    words = {name: narrow(text[a:b]) for name, (a, b) in groups.items()}
    day, month, year = _numbers(words)
    american = lang == "en" and own in ("all", "near") and "d" in groups and groups["d"][0] < groups["m"][0]
    if american and ("y" not in groups or groups["y"][0] > groups["m"][0]):
        day, month = month, day
        groups["d"], groups["m"] = groups["m"], groups["d"]
    if day and month and month > 12 >= day:  # written in the other order
        day, month = month, day
        first, second = ("d", "m")
        groups[first], groups[second] = groups[second], groups[first]
    if own == "near" and not _is_date(day, month, year):
        return None  # a fraction, a grade, a pressure
    if own == "en" and words.get("M", "").lower() == "may" and year is None and words["M"] != "May":
        return None  # the verb
    precision: Precision = "month" if day is None else "monthday" if year is None else "day"
    value = date(year or LEAP, month or 1, day or 1) if _is_date(day, month, year) else None
    if value is None and own == "all" and len(words.get("y", "")) == 2:
        return None  # three numbers that are no date: a score, a version
    pieces = tuple(sorted((a - start, b - start, name) for name, (a, b) in groups.items()))
    return DateMention(start=start, end=end, text=text[start:end], value=value, precision=precision, pieces=pieces)


def _numbers(words: Mapping[str, str]) -> tuple[int | None, int | None, int | None]:
    """Day, month, year."""
    if "cm" in words:
        year = (
            int("".join(str(DIGITS.index({"○": "〇", "零": "〇"}.get(s, s))) for s in words["cy"]))
            if "cy" in words
            else None
        )
        return (_chinese(words["cd"]) if "cd" in words else None), _chinese(words["cm"]), year
    year = int(words["y"]) if "y" in words else None
    if year is not None and len(words["y"]) == 2:
        year += 2000 if year < 50 else 1900
    if "M" in words:
        month = _data()["months"]["short"].index(words["M"].lower()[:3]) + 1
    else:
        month = int(words["m"]) if "m" in words else None
    return (int(words["d"]) if "d" in words else None), month, year


def _chinese(word: str) -> int:
    """二十三 -> 23"""
    tens, ten, ones = word.partition("十")
    if not ten:
        return DIGITS.index(word)
    return (DIGITS.index(tens) if tens else 1) * 10 + (DIGITS.index(ones) if ones else 0)


def _in_chinese(number: int) -> str:
    tens, ones = divmod(number, 10)
    return ("" if tens == 0 else "十" if tens == 1 else f"{DIGITS[tens]}十") + (DIGITS[ones] if ones else "")


def _is_date(day: int | None, month: int | None, year: int | None) -> bool:
    if month is None or not 1 <= month <= 12 or (year is not None and not 1900 <= year <= 2099):
        return False
    return day is None or 1 <= day <= monthrange(year or LEAP, month)[1]


def write(mention: DateMention, new: date) -> str:
    """Another date in the form of a mention: order, signs, leading zeros, words, numerals and width stay."""
    made, position = "", 0
    for start, end, what in mention.pieces:
        old = mention.text[start:end]
        made += mention.text[position:start] + _piece(what, old, new)
        position = end
    return made + mention.text[position:]


def _piece(what: str, old: str, new: date) -> str:
    if what == "M":
        names = _data()["months"]["short" if len(old) <= 4 and old.lower() not in ("june", "july") else "en"]
        name = str(names[new.month - 1])
        return name.upper() if old.isupper() else name.capitalize() if old[0].isupper() else name
    if what == "o":
        word = "th" if 10 < new.day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(new.day % 10, "th")
        return word.upper() if old.isupper() else word
    if what == "cy":
        zero = next((s for s in old if s in "○零"), "〇")
        return "".join(DIGITS[int(s)] for s in str(new.year)).replace("〇", zero)
    if what in ("cm", "cd"):
        return _in_chinese(new.month if what == "cm" else new.day)
    number = {"d": new.day, "m": new.month, "y": new.year % 100 if len(old) == 2 else new.year}[what]
    padded = what == "y" or (len(old) == 2 and (narrow(old)[0] == "0" or number < 10))
    word = f"{number:02d}" if padded else str(number)
    return word if old.isascii() else "".join(chr(ord(sign) + 0xFEE0) for sign in word)


def year_only(mention: DateMention, lang: str) -> str:
    """What is left of a date where only its year may stay."""
    if mention.precision == "monthday" or mention.value is None:
        return {"vi": "[ngày]", "zh": "[日期]"}.get(lang, "[date]")
    return f"{mention.value.year}年" if lang == "zh" and "年" in mention.text else str(mention.value.year)
