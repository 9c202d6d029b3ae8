"""Text taken apart, always with offsets in code points: sentences, tokens, and the language
it is in."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from residency.core.units import CJK, CLOSERS, HAN, LINE_BREAKS, OPENERS, units
from residency.locale import Locale, load


def sentences(text: str, lang: str = "") -> list[tuple[int, int]]:
    """Sentences without the white space around them: together they cover all other characters, in
    order.

    A line break always ends one. So does a run of the locale's sentence ends with the quotes and
    brackets that close behind it, except: a full stop inside a number or word, after an
    abbreviation or after the number of a list item; dots of omission, or a closing bracket or
    quote, before a small letter; the marks of doubt in ``(?)`` and ``?pneumonia``.
    """
    locale = load(lang)
    found, start = [], 0
    for match in _ends(locale.sentence_ends).finditer(text):
        if match["line"] or _is_end(text, start, match, locale):
            found.append((start, match.end()))
            start = match.end()
    found.append((start, len(text)))
    return [trimmed for place in found if (trimmed := _trim(text, *place))]


@cache
def _ends(characters: str) -> re.Pattern[str]:
    ends, closers = re.escape(characters), re.escape(CLOSERS)
    return re.compile(
        rf"(?P<line>[{LINE_BREAKS}])|(?P<end>[{ends}]+)(?P<closed>(?:[{closers}]+[{ends}]*)?)"
    )


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    part = text[start:end]
    start, end = start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())
    return (start, end) if start < end else None


def _is_end(text: str, start: int, match: re.Match[str], locale: Locale) -> bool:
    """Whether what looks like the end of the sentence that began at ``start`` is one."""
    end, closed = match["end"], match["closed"]
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    glued = bool(after) and not after.isspace()
    if end == "." and not closed:
        return _is_full_stop(text, start, match.start(), locale)
    if _next_is_small(text, match.end()) and (closed or set(end) <= set(".…")):
        return False
    if set(end) <= set("!?") and (not before or before.isspace() or before in OPENERS):
        return not (closed or glued)
    return True


def _is_full_stop(text: str, start: int, dot: int, locale: Locale) -> bool:
    if dot - start < 12 and re.fullmatch(r"\s*[\d.]*", text[start:dot]):
        return False  # "1. " opens a list item
    stem = re.split(rf"[\s{re.escape(OPENERS)}/,;:]", text[max(start, dot - 24) : dot])[-1]
    if unicodedata.normalize("NFC", stem) + "." in locale.abbreviations:
        return False
    before, after = text[dot - 1], text[dot + 1 : dot + 2]
    if not after or after.isspace():
        return not ("." in stem and _next_is_small(text, dot + 1))  # "p.o. twice"
    if _is_cjk(before) or _is_cjk(after):
        return not before.isdecimal()
    return before.islower() and after.isupper()  # the space was forgotten


def _next_is_small(text: str, position: int) -> bool:
    following = re.compile(r"\s*(\S)").match(text, position)
    return following is not None and following[1].islower()


def _is_cjk(character: str) -> bool:
    return re.match(f"[{CJK}]", character) is not None


def tokens(text: str, lang: str = "") -> list[str]:
    """What text overlap (ROUGE, BLEU) is counted in: words with their diacritics, CJK characters,
    runs of digits.

    NFC and lower case, without punctuation and symbols. With the language, its two spellings of one
    word (Vietnamese "hòa", "hoà") become one. Tokens have no offsets: lower case may be longer
    ("İ").
    """
    spellings = load(lang).spellings
    lower = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    words = [lower[start:end] for start, end in units(lower) if lower[start].isalnum()]
    if not spellings:
        return words
    ending = re.compile(f"(?:{'|'.join(map(re.escape, spellings))})$")
    return [ending.sub(lambda match: spellings[match[0]], word) for word in words]


LATIN = "[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"
# The letters that only Vietnamese has among the languages here, and those that it shares with
# French or Portuguese.
VIETNAMESE = re.compile("[ĂăĐđƠơƯư\u1ea0-\u1ef9]")
ACCENTED = re.compile("[ÀÁÂÃÈÉÊÌÍÒÓÔÕÙÚÝàáâãèéêìíòóôõùúýĨĩŨũ]")


def detect(text: str) -> str:
    """``zh``, ``vi`` or ``en``, told by script and Vietnamese diacritics; empty where there are no
    such letters.

    Chinese: at least as many Han characters as Latin words. Vietnamese: letters of its own in a
    tenth of the Latin words, or any of its diacritics in three tenths (one a word: "ngày" may be,
    "Ménière" is not). Vietnamese written without diacritics counts as English.
    """
    composed = unicodedata.normalize("NFC", text)
    han = latin = own = shared = 0
    for start, end in units(composed):
        unit = composed[start:end]
        if re.match(f"[{HAN}]", unit):
            han += 1
        elif re.match(LATIN, unit):
            latin += 1
            if VIETNAMESE.search(unit):
                own += 1
            elif len(ACCENTED.findall(unit)) == 1:
                shared += 1
    if not han and not latin:
        return ""
    if han >= latin:
        return "zh"
    return "vi" if own >= 0.1 * latin or own + shared >= 0.3 * latin else "en"
