"""Dates as notes write them: found, read, and written back in the form that they came in."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

from residency.core.types import Value
from residency.deid.find import View, narrow, plain

Precision = Literal["day", "month", "monthday"]
DIGITS = "〇一二三四五六七八九"
NEWEST = 2030
"""Latest year that two figures may mean; 31 is 1931. A date that is moved out of the hundred years
before gets four."""
LEAP = 2024
"""Year in which a day and a month without a year are looked at."""


class DateMention(Value, frozen=True):
    """A date in a text. ``value`` is None where its numbers are no date: then nothing can be said
    about it, save that it is one."""

    start: int
    end: int
    text: str
    value: date | None
    """The first of the month, and year 2024, where day or year are not said."""
    precision: Precision
    pieces: tuple[tuple[int, int, str], ...]
    """(start, end, what) of its numbers within ``text``; ``what``: d, m, y, M (month in words), o
    (ordinal), cy, cm, cd."""


@cache
def _data() -> Mapping[str, Any]:
    import yaml

    found: Mapping[str, Any] = yaml.safe_load(
        (Path(__file__).parent / "data/dates.yaml").read_text("utf-8")
    )
    return found


@cache
def _form(group: str, lang: str = "") -> Any:
    """The forms of a group as one pattern, tried at one place; the first that fits counts."""
    import regex

    months = "|".join(
        sorted(
            {*_data()["months"]["en"], *_data()["months"]["short"], "sept"}, key=len, reverse=True
        )
    )
    forms = _data()[group][lang] if lang else _data()[group]
    flags = regex.IGNORECASE if "MONTH" in "".join(forms) else 0
    return regex.compile("|".join(f"(?:{form.replace('MONTH', months)})" for form in forms), flags)


MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
SIGNED = re.compile(r"\s?[./\-]\s?\d")
"""What stands behind the first number of a date in figures."""
SENTENCES = re.compile(r"\d{1,2}\.\d{1,2}\.\s\d{2}")
"""A decimal, the end of its sentence and a number, where a word is joined to that (``INR of 1.1.
12-lead ECG``)."""
# Words where a date may begin, in small letters. They look at nothing before them, to be quick: the
# caller does.
NUMBERED = {
    "vi": re.compile(r"\s*(?:tháng|thang|/\s?\d{1,2}\s+n[ăa]m)"),
    "zh": re.compile(r"\s?[年月]"),
    "en": re.compile(rf"(?:st|nd|rd|th)?[\s\-/]*(?:of\s+)?(?:{MONTHS})"),
}
"""What stands behind a number of a date with words."""
WORDED = {
    "vi": re.compile(
        r"ng(?:ày(?=\s+[\dmhbtnscl])|ay(?=\s+\d))|th[áa]ng(?=\s*\d)|(?:mùng|mồng|rằm)(?=\s+\w)"
        r"|t(?=\d{1,2}\s?[/.\-]\s?(?:19|20)\d)"
    ),
    "zh": re.compile(r"农历|阴历|旧历|正月|腊月|冬月|闰"),
}
MONTH = re.compile(
    rf"(?:{MONTHS})[a-z]{{0,6}}\.?,?[\s\-/]*(?:(?:of\s+)?'?\d|(?:of\s+)?(?:the\s+)?(?:tw|th|fi|se|fo|si|ei|ni|te|el)[a-z])"
)
ORDINAL = re.compile(rf"(?:st|nd|rd|th)\s+of\s+(?:{MONTHS})")
NUMERAL = re.compile(r"[〇○零O一二三四五六七八九十]{1,4}(?=\s?[年月])")


def find_dates(text: str, lang: str) -> tuple[DateMention, ...]:
    """Every date of a text, in order, without overlaps; of two forms at one place the longer. Years
    alone are none."""
    return View(text, lang).dates


def dates_of(view: View) -> tuple[DateMention, ...]:
    """The same for a text whose other forms may be there already."""
    found = [*_in_figures(view), *_in_words(view)]
    found.sort(key=lambda one: (one.start, -one.end))
    kept: list[DateMention] = []
    for one in found:
        if kept and one.start < kept[-1].end:
            if one.end - one.start > kept[-1].end - kept[-1].start:
                kept[-1] = one
            continue
        kept.append(one)
    return tuple(kept)


def _in_figures(view: View) -> Iterator[DateMention]:
    shown, whole, near, last = view.shown, _form("all"), _form("near"), -1
    for start, stop, digits in view.numbers:
        if digits < 2 or stop - start in (3, 5, 6, 7) or stop - start > 8:
            continue
        if stop - start != 8 and not SIGNED.match(shown, stop):
            continue
        if start and (sign := shown[start - 1]).isascii() and sign.isalnum():
            continue
        before = shown[start - 1] if start > 1 and shown[start - 2].isdigit() else ""
        if match := whole.match(shown, start):
            end = match.end()
            follows = shown[end : end + 2]
            parted = (
                before and before in "./:-" and not (before == "-" and "-" not in match.group())
            )
            if parted or (
                shown[end : end + 1] == "-"
                and SENTENCES.fullmatch(match.group())
                and shown[end + 1 : end + 2].isalpha()
            ):
                continue
            if follows[:1] in ("/", ".", "-") and follows[1:].isdigit() and "-" in match.group():
                continue
            if mention := _mention(view, match, "all"):
                last = mention.end
                yield mention
                continue
        if before and before in "./:-,":
            continue
        match = near.match(shown, start)
        if match and _is_near(view, match, last):
            if mention := _mention(view, match, "near"):
                last = mention.end
                yield mention
        elif view.lang == "zh" and shown[:start].endswith(("于", "自", "从")):
            match = _form("near_zh").match(shown, start)
            if match and (mention := _mention(view, match, "near")):
                yield mention


def _is_near(view: View, match: Any, last: int) -> bool:
    """Whether a day and a month stand where a date is meant: behind a cue or another date, at the
    begin of a line, before a range."""
    start, end, shown = match.start(), match.end(), view.shown
    behind = shown[end : end + 12]
    if behind[:1] in "./" and behind[1:2].isdigit():
        return False
    unit = _unit_behind().match(behind)
    if unit:
        return False
    before = view.folded[max(0, start - 30) : start]
    if any(score in before[-18:].rpartition(". ")[2] for score in _data()["scores"]):
        return False
    if 0 <= last <= start and re.fullmatch(
        r"\s*(?:[,、;\-–&+]|và|and|đến|至|到|~)?\s*", shown[last:start]
    ):
        return True
    if re.match(r":(?:\s|$)", behind):
        return True
    line = before.rpartition("\n")[2]
    unmarked = view.unmarked_at(start - 12, end)
    if not line.strip(" -*•+") and behind.lstrip(" ")[:1] in (":", "-", "–", ","):
        return True
    return (
        _cue_before(view.lang, unmarked).search(
            before if unmarked else view.low[max(0, start - 30) : start]
        )
        is not None
    )


@cache
def _unit_behind() -> re.Pattern[str]:
    return re.compile(
        r"\s*(?:" + "|".join(map(re.escape, _data()["units"])) + r")(?![a-zà-ỹ])", re.IGNORECASE
    )


@cache
def _cue_before(lang: str, unmarked: bool) -> re.Pattern[str]:
    """A cue at the end of what stands before a number."""
    cues = _data()["cues"]
    words = {cue for own in ((lang, "en") if lang in cues else cues) for cue in cues[own]}
    words = set(map(plain, words)) if unmarked else words
    return re.compile(
        r"(?:(?<![a-zà-ỹ])(?:" + "|".join(map(re.escape, sorted(words))) + r"))[\s:(]*\Z"
    )


def _in_words(view: View) -> Iterator[DateMention]:
    shown, low = view.shown, view.low
    for own in ("vi", "zh", "en"):
        if view.lang in ("vi", "zh", "en") and own not in (view.lang, "en"):
            continue
        if own == "zh" and "月" not in low and "历" not in low:
            continue
        yield from _numbered(view, own)
        if own in WORDED:
            yield from _tried(view, WORDED[own], _form("worded", own), own)
        if own == "zh":
            yield from _tried(view, NUMERAL, _form("numerals", own), own)
        if own == "en":
            yield from _tried(view, MONTH, _form("months_first"), own)
            for place in ORDINAL.finditer(low) if "of" in low else ():
                match = _form("ordinals_first").search(shown, max(0, place.start() - 24))
                if (
                    match
                    and match.start() <= place.start()
                    and (mention := _mention(view, match, own))
                ):
                    yield mention


def _numbered(view: View, own: str) -> Iterator[DateMention]:
    """Dates that begin with a number and hold a word."""
    behind, form, low = NUMBERED[own], _form("numbered", own), view.low
    for start, end, _ in view.numbers:
        if end - start > 4 or not behind.match(low, end):
            continue
        if own != "zh" and start and (low[start - 1] in "./" or low[start - 1].isalpha()):
            continue
        if (match := form.match(view.shown, start)) and (mention := _mention(view, match, own)):
            yield mention


def _tried(view: View, places: re.Pattern[str], form: Any, own: str) -> Iterator[DateMention]:
    low = view.low
    for place in places.finditer(low):
        start = place.start()
        if start and own != "zh" and low[start - 1].isalpha():
            continue  # within a word
        if (match := form.match(view.shown, start)) and (mention := _mention(view, match, own)):
            yield mention


def _mention(view: View, match: Any, own: str) -> DateMention | None:
    text, lang = view.text, view.lang
    start, end = match.span()
    groups: dict[str, tuple[int, int]] = {}
    for name in ("d", "m", "y", "M", "o", "cy", "cm", "cd"):
        if name in match.re.groupindex and match.group(name):
            groups[name] = match.span(name)
    if not groups or not groups.keys() & {"m", "M", "cm"}:  # lunar, or all in words
        return DateMention(
            start=start, end=end, text=text[start:end], value=None, precision="day", pieces=()
        )
    words = {name: narrow(text[a:b]) for name, (a, b) in groups.items()}
    day, month, year = _numbers(words)
    american = (lang == "en" and own in ("all", "near")) or (lang == "zh" and own == "near")
    american = american and "d" in groups and groups["d"][0] < groups["m"][0]
    if american and ("y" not in groups or groups["y"][0] > groups["m"][0]):
        day, month = month, day
        groups["d"], groups["m"] = groups["m"], groups["d"]
    if day and month and month > 12 >= day:  # written in the other order
        day, month = month, day
        first, second = ("d", "m")
        groups[first], groups[second] = groups[second], groups[first]
    if own == "near" and not _is_date(day, month, year):
        return None  # a fraction, a grade, a pressure
    if words.get("M", "").lower() == "may" and year is None and words["M"] != "May":
        return None  # the verb
    precision: Precision = "month" if day is None else "monthday" if year is None else "day"
    value = date(year or LEAP, month or 1, day or 1) if _is_date(day, month, year) else None
    if value is None and own == "all" and len(words.get("y", "")) == 2:
        return None  # three numbers that are no date: a score, a version
    pieces = tuple(sorted((a - start, b - start, name) for name, (a, b) in groups.items()))
    return DateMention(
        start=start, end=end, text=text[start:end], value=value, precision=precision, pieces=pieces
    )


def _numbers(words: Mapping[str, str]) -> tuple[int | None, int | None, int | None]:
    """Day, month, year."""
    if "cm" in words:
        year = (
            int(
                "".join(
                    str(DIGITS.index({"○": "〇", "零": "〇", "O": "〇"}.get(s, s)))
                    for s in words["cy"]
                )
            )
            if "cy" in words
            else None
        )
        return (_chinese(words["cd"]) if "cd" in words else None), _chinese(words["cm"]), year
    year = int(words["y"]) if "y" in words else None
    if year is not None and len(words["y"]) == 2:
        year += 2000 if year <= NEWEST % 100 else 1900
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
    return ("" if tens == 0 else "十" if tens == 1 else f"{DIGITS[tens]}十") + (
        DIGITS[ones] if ones else ""
    )


def _is_date(day: int | None, month: int | None, year: int | None) -> bool:
    if month is None or not 1 <= month <= 12 or (year is not None and not 1900 <= year <= 2099):
        return False
    return day is None or 1 <= day <= monthrange(year or LEAP, month)[1]


def write(mention: DateMention, new: date) -> str:
    """Another date in the form of a mention: order, signs, leading zeros, words, numerals and width
    stay."""
    made, position = "", 0
    for start, end, what in mention.pieces:
        old = mention.text[start:end]
        made += mention.text[position:start] + _piece(what, old, new)
        position = end
    return made + mention.text[position:]


def _piece(what: str, old: str, new: date) -> str:
    if what == "M":
        names = _data()["months"][
            "short" if len(old) <= 4 and old.lower() not in ("june", "july") else "en"
        ]
        name = str(names[new.month - 1])
        return name.upper() if old.isupper() else name.capitalize() if old[0].isupper() else name
    if what == "o":
        word = "th" if 10 < new.day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(new.day % 10, "th")
        return word.upper() if old.isupper() else word
    if what == "cy":
        zero = next((s for s in old if s in "○零O"), "〇")
        return "".join(DIGITS[int(s)] for s in str(new.year)).replace("〇", zero)
    if what in ("cm", "cd"):
        return _in_chinese(new.month if what == "cm" else new.day)
    number = {
        "d": new.day,
        "m": new.month,
        "y": new.year % 100 if len(old) == 2 and NEWEST - 100 < new.year <= NEWEST else new.year,
    }[what]
    padded = what == "y" or (len(old) == 2 and (narrow(old)[0] == "0" or number < 10))
    word = f"{number:02d}" if padded else str(number)
    return word if old.isascii() else "".join(chr(ord(sign) + 0xFEE0) for sign in word)


def year_only(mention: DateMention, lang: str) -> str:
    """What is left of a date where only its year may stay."""
    if mention.precision == "monthday" or mention.value is None:
        return {"vi": "[ngày]", "zh": "[日期]"}.get(lang, "[date]")
    return (
        f"{mention.value.year}年"
        if lang == "zh" and "年" in mention.text
        else str(mention.value.year)
    )
