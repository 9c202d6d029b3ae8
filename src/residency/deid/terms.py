"""What a tagger takes for an identifier and is none, told by the form of the place and by what
stands around it: scores, sizes, public codes, a sign of a Chinese word, what a disease is called
by."""

from __future__ import annotations

import re
from functools import cache

from residency.deid.checks import coded
from residency.deid.names.en_shape import KNOWN, Shapes, is_eponym
from residency.deid.names.lists import PEOPLE, any_of, name_data

HAN = re.compile("[\u3400-\u9fff]")
SCORED = re.compile(
    r"(?:gcs|glasgow|bp|ha|huyet ap|huyết áp|sức cơ|suc co|cơ lực|thị lực|thi luc|mrc|power"
    r"|strength|vas|nrs|pain|điểm đau|apgar|grade|血压|肌力|评分|视力|疼痛)[ :：=]{0,3}\Z",
    re.I,
)
"""What stands before a score or a pressure that looks like a day of a month (``GCS 15/15``)."""
MEASURED = re.compile(
    r"\d{1,3},\d{1,2}|(?!\d+-(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))\d{1,2}-[a-z]{3,}",
    re.I,
)
"""A number with a decimal comma, or of a thing (``12-lead``), and no date."""
SIZE = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)?\s?[x×]\s?\d|\A[cgmnpr]\.[\d_*(+\-]")
"""A size (``3.0x28``), or a variant of a gene (``c.3927_3931del``)."""
FEWEST = 3
"""Signs of a number that identifies somebody, at the least."""


def is_term(text: str, start: int, end: int, kind: str) -> bool:
    """Whether a place that was tagged is a term of medicine, a measurement or a public code."""
    quote = text[start:end].strip(" .,;:()")
    if coded(text, end):
        return True
    if kind in PEOPLE:
        return is_eponym(text, end) or _in_word(text, start, end) or _is_word(quote)
    if kind in ("date", "birth_date"):
        score = "/" in quote and SCORED.search(text[max(0, start - 12) : start])
        alone = len(quote) == 1 and not quote.isdigit()
        return bool(score) or alone or MEASURED.fullmatch(quote) is not None
    if kind in ("record", "admission", "account", "other"):
        return sum(map(str.isalnum, quote)) < FEWEST or SIZE.search(quote) is not None
    return False


def _in_word(text: str, start: int, end: int) -> bool:
    """Whether one Chinese sign belongs to the word around it, and is no family name that somebody
    is called by (``老李主任``)."""
    signs = text[max(0, start - 1) : end + 1]
    within = end - start == 1 and len(signs) == 3 and all(map(HAN.match, signs))
    return within and signs[0] not in "小老阿姓" and not _called().match(text, end)


@cache
def _called() -> re.Pattern[str]:
    return re.compile(any_of([*name_data("zh")["titles"], "某", "工", "总", "姓", "院", "队"]))


@cache
def _english() -> Shapes:
    return Shapes(name_data("en"))


def _is_word(quote: str) -> bool:
    """Whether a place in small letters holds nothing but English words of the ward, none a name
    too."""
    words = re.findall(r"[^\W\d_]+", quote) if quote.islower() else []
    return bool(words) and all(
        len(word) > 3 and _english().kinds.get(word) == KNOWN for word in words
    )
