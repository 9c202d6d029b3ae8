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
from residency.deid.view import View, narrow, plain
from residency.deid.words import is_one_word

Precision = Literal["day", "month", "monthday"]
DIGITS = "〇一二三四五六七八九"
ZEROS = str.maketrans("○零O", "〇〇〇")
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

    path = Path(__file__).parent / "data/dates.yaml"
    found: Mapping[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


@cache
def _form(group: str, lang: str = "") -> Any:
    """The forms of a group as one pattern, tried at one place; the first that fits counts."""
    import regex

    names = {*_data()["months"]["en"], *_data()["months"]["short"], "sept"}
    months = "|".join(sorted(names, key=len, reverse=True))
    forms = _data()[group][lang] if lang else _data()[group]
    flags = regex.IGNORECASE if "MONTH" in "".join(forms) else 0
    return regex.compile("|".join(f"(?:{form.replace('MONTH', months)})" for form in forms), flags)


ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
"""Months as some countries write them: ``13.VII.2009``."""
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
    "en": re.compile(
        rf"(?:st|nd|rd|th)?[\s\-/]*(?:(?:day\s+)?of\s+)?(?:{MONTHS})|\s?[./\-]\s?[ivx]{{1,4}}\s?[./\-]"
    ),
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
ORDINAL = re.compile(rf"(?:st|nd|rd|th)\s+(?:(?:day\s+)?of\s+)?(?:{MONTHS})")
NUMERAL = re.compile(r"[〇○零O一二三四五六七八九十]{1,4}(?=\s?[年月])")


def find_dates(text: str, lang: str) -> tuple[DateMention, ...]:
    """Every date of a text, in order, without overlaps; of two forms at one place the longer. Years
    alone are none."""
    return dates_of(View(text, lang))


def dates_of(view: View) -> tuple[DateMention, ...]:
    """Every date of a text whose other forms may be there already, as ``find_dates`` has them."""
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
            dashed = "-" in match.group()
            if before and before in "./:-" and (before != "-" or dashed):
                continue
            if follows[:1] == "-" and follows[1:].isalpha() and SENTENCES.fullmatch(match.group()):
                continue
            if follows[:1] in ("/", ".", "-") and follows[1:].isdigit() and dashed:
                continue
            if mentions := _mention(view, match, "all"):
                last = mentions[0].end
                yield from mentions
                continue
        if before and before in "./:-,":
            continue
        match = near.match(shown, start)
        if match and _is_near(view, match, last):
            if mentions := _mention(view, match, "near"):
                last = mentions[0].end
                yield from mentions
        elif view.lang == "zh" and shown[max(0, start - 1) : start] in ("于", "自", "从"):
            match = _form("near_zh").match(shown, start)
            yield from _mention(view, match, "near") if match else ()


def _is_near(view: View, match: Any, last: int) -> bool:
    """Whether a day and a month stand where a date is meant: behind a cue or another date, at the
    begin of a line, before a range."""
    start, end, shown = match.start(), match.end(), view.shown
    behind = shown[end : end + 12]
    if behind[:1] in "./" and behind[1:2].isdigit():
        return False
    if _unit_behind().match(behind):
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
    marked = before if unmarked else view.low[max(0, start - 30) : start]
    return _cue_before(view.lang, unmarked).search(marked) is not None


@cache
def _unit_behind() -> re.Pattern[str]:
    units = "|".join(map(re.escape, _data()["units"]))
    return re.compile(rf"\s*(?:{units})(?![a-zà-ỹ])", re.IGNORECASE)


@cache
def _cue_before(lang: str, unmarked: bool) -> re.Pattern[str]:
    """A cue at the end of what stands before a number."""
    cues = _data()["cues"]
    words = {cue for own in ((lang, "en") if lang in cues else cues) for cue in cues[own]}
    either = "|".join(map(re.escape, sorted(set(map(plain, words)) if unmarked else words)))
    return re.compile(rf"(?:(?<![a-zà-ỹ])(?:{either}))[\s:(]*\Z")


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
            for place in ORDINAL.finditer(low):
                match = _form("ordinals_first").search(shown, max(0, place.start() - 24))
                if match and match.start() <= place.start():
                    yield from _mention(view, match, own)


def _numbered(view: View, own: str) -> Iterator[DateMention]:
    """Dates that begin with a number and hold a word."""
    behind, form, low = NUMBERED[own], _form("numbered", own), view.low
    for start, end, _ in view.numbers:
        if end - start > 4 or not behind.match(low, end):
            continue
        if own != "zh" and start and (low[start - 1] in "./" or is_one_word("a", low[start - 1])):
            continue
        if match := form.match(view.shown, start):
            yield from _mention(view, match, own)


def _tried(view: View, places: re.Pattern[str], form: Any, own: str) -> Iterator[DateMention]:
    low = view.low
    for place in places.finditer(low):
        start = place.start()
        if start and own != "zh" and low[start - 1].isalpha():
            continue  # within a word
        if match := form.match(view.shown, start):
            yield from _mention(view, match, own)


def _mention(view: View, match: Any, own: str) -> tuple[DateMention, ...]:
    """The date that a form's match is; nothing where it is none."""
    start, end = match.span()
    text, names = view.text[start:end], ("d", "m", "y", "M", "o", "cy", "cm", "cd")
    groups = {n: match.span(n) for n in names if n in match.re.groupindex and match.group(n)}
    if groups.keys().isdisjoint(("m", "M", "cm")):  # lunar, or all in words
        return (DateMention(start, end, text, None, "day", ()),)
    words = {name: narrow(view.text[a:b]) for name, (a, b) in groups.items()}
    day, month, year = _numbers(words)
    american = (view.lang == "en" and own in ("all", "near")) or (view.lang, own) == ("zh", "near")
    american = american and "d" in groups and groups["d"] < groups["m"]
    swapped = american and ("y" not in groups or groups["y"] > groups["m"])
    if swapped:
        day, month = month, day
    if day and month and month > 12 >= day:  # written in the other order
        day, month, swapped = month, day, not swapped
    if swapped:
        groups["d"], groups["m"] = groups["m"], groups["d"]
    if own == "near" and not _is_date(day, month, year):
        return ()  # a fraction, a grade, a pressure
    if words.get("M", "").lower() == "may" and year is None and words["M"] != "May":
        return ()  # the verb
    precision: Precision = "month" if day is None else "monthday" if year is None else "day"
    value = date(year or LEAP, month or 1, day or 1) if _is_date(day, month, year) else None
    if value is None and own == "all" and len(words.get("y", "")) == 2:
        return ()  # three numbers that are no date: a score, a version
    pieces = tuple(sorted((a - start, b - start, name) for name, (a, b) in groups.items()))
    return (DateMention(start, end, text, value, precision, pieces),)


def _numbers(words: Mapping[str, str]) -> tuple[int | None, int | None, int | None]:
    """Day, month, year."""
    year = int(words["y"]) if "y" in words else None
    if "cm" in words:
        if "cy" in words:
            signs = words["cy"].translate(ZEROS)
            year = int("".join(str(DIGITS.index(sign)) for sign in signs))
        return _chinese(words["cd"]) if "cd" in words else None, _chinese(words["cm"]), year
    if year is not None and len(words["y"]) == 2:
        year += 2000 if year <= NEWEST % 100 else 1900
    if "M" in words:
        names = ROMAN if words["M"] in ROMAN else _data()["months"]["short"]
        month = names.index(words["M"] if names is ROMAN else words["M"].lower()[:3]) + 1
    else:
        month = int(words["m"]) if "m" in words else None
    return int(words["d"]) if "d" in words else None, month, year


def _chinese(word: str) -> int:
    """二十三 -> 23"""
    tens, ten, ones = word.partition("十")
    if not ten:
        return DIGITS.index(word)
    return (DIGITS.index(tens) if tens else 1) * 10 + (DIGITS.index(ones) if ones else 0)


def in_chinese(number: int) -> str:
    """23 -> 二十三; of 1 to 99."""
    tens, ones = divmod(number, 10)
    return f"{DIGITS[tens] if tens > 1 else ''}{'十' if tens else ''}{DIGITS[ones] if ones else ''}"


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
    if what == "M" and old in ROMAN:
        return ROMAN[new.month - 1]
    if what == "M":
        short = len(old) <= 4 and old.lower() not in ("june", "july")
        name = str(_data()["months"]["short" if short else "en"][new.month - 1])
        return name.upper() if old.isupper() else name.capitalize() if old[0].isupper() else name
    if what == "o":
        word = "th" if 10 < new.day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(new.day % 10, "th")
        return word.upper() if old.isupper() else word
    if what == "cy":
        zero = next((s for s in old if s in "○零O"), "〇")
        return "".join(DIGITS[int(s)] for s in str(new.year)).replace("〇", zero)
    if what in ("cm", "cd"):
        return in_chinese(new.month if what == "cm" else new.day)
    whole = len(old) != 2 or not NEWEST - 100 < new.year <= NEWEST
    year = new.year if whole else new.year % 100
    number = {"d": new.day, "m": new.month, "y": year}[what]
    padded = what == "y" or (len(old) == 2 and (narrow(old)[0] == "0" or number < 10))
    word = f"{number:02d}" if padded else str(number)
    return word if old.isascii() else "".join(chr(ord(sign) + 0xFEE0) for sign in word)


def year_only(mention: DateMention, lang: str) -> str:
    """What is left of a date where only its year may stay."""
    if mention.precision == "monthday" or mention.value is None:
        return {"vi": "[ngày]", "zh": "[日期]"}.get(lang, "[date]")
    year = str(mention.value.year)
    return f"{year}年" if lang == "zh" and "年" in mention.text else year
