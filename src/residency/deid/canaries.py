"""Canaries: a patient's own identifiers written into a copy of a note as people write them, to see
whether they come out.

What came out is read from the places where they were written, not looked for with the finder's own
means.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from unicodedata import normalize

from residency.core.types import RawNote, Value
from residency.deid.engine import DeidentifiedNote
from residency.deid.residual import NUMBERS, OTHER, PEOPLE, converter, form_of
from residency.deid.variants import CODES, NAMES

PEOPLES_PLACES: Mapping[str, Sequence[str]] = {
    "vi": (
        "hôm nay {} đỡ mệt hơn",
        "| giường 4 | {} | ổn |",
        "- {}\n- theo dõi tiếp",
        "đã giải thích cho {}, đồng ý",
        "{}",
    ),
    "zh": (
        "今日{}病情平稳",
        "| 4床 | {} | 平稳 |",
        "- {}\n- 继续观察",
        "已向{}交代病情，表示理解",
        "{}",
    ),
    "en": (
        "so {} is seen again today",
        "| bed 4 | {} | stable |",
        "- {}\n- continue",
        "the plan was explained to {}, who agrees",
        "{}",
    ),
}
"""Where a person may stand: within a sentence, in a cell of a table, in a list, alone."""
OTHER_PLACES = ("({})", "| 4 | {} | x |", "- {}\n- ", "ref. {} / copy", "{}")
LIKE = str.maketrans("aeocp", "аеоср")
"""Latin letters to Cyrillic ones that look like them."""


class Canary(Value, frozen=True):
    """An identifier of the row at a place of a text in which it was written."""

    start: int
    end: int
    kind: str
    what: str
    """Kind and form, as the reasons of refusals have them."""


def plant(raw: RawNote, rng: random.Random) -> tuple[str, list[Canary]]:
    """A note's text with lines between its own in which each identifier of the row stands, as it is
    and in another form; and where."""
    lines: list[tuple[str, str, str, str]] = []
    for kind, value in raw.identifiers:
        if kind in NAMES | CODES | OTHER.keys() and sum(map(str.isalnum, value)) > 1:
            places = (
                PEOPLES_PLACES.get(raw.lang, PEOPLES_PLACES["en"])
                if kind in NAMES
                else OTHER_PLACES
            )
            what = f"{(PEOPLE | NUMBERS | OTHER)[kind]} {form_of(value)}"
            forms = _forms(kind, value)
            lines += (
                (rng.choice(places), form, kind, what) for form in (value, rng.choice(forms)(value))
            )
    rng.shuffle(lines)
    own, parts, canaries = raw.text.split("\n"), list[str](), list[Canary]()
    at, cuts = 0, sorted(rng.randrange(len(own) + 1) for _ in lines)
    for number in range(len(own) + 1):
        while cuts and cuts[0] == number:
            cuts.pop(0)
            place, form, kind, what = lines.pop()
            start = at + place.index("{}")
            canaries.append(Canary(start, start + len(form), kind, what))
            parts.append(place.format(form))
            at += len(parts[-1]) + 1
        if number < len(own):
            parts.append(own[number])
            at += len(parts[-1]) + 1
    return "\n".join(parts), canaries


def came_out(text: str, canaries: Sequence[Canary], done: DeidentifiedNote) -> set[str]:
    """Kinds and forms of the identifiers that stand in the result where they were written: a word
    of a name, or half of the signs of anything else."""
    return {one.what for one in canaries if _survives(text, one, done)}


def _survives(text: str, one: Canary, done: DeidentifiedNote) -> bool:
    whole = left = 0
    for word in re.finditer(r"[^\W_][\w\u0300-\u036f]*", text[one.start : one.end]):
        start, end = one.start + word.start(), one.start + word.end()
        size = sum(map(str.isalnum, word[0]))
        place = done.edits.project(start, end)
        kept = place is not None and done.note.text[slice(*place)] == normalize("NFC", word[0])
        whole, left = whole + size, left + size * kept
        if kept and size > 1 and one.kind in NAMES:
            return True
    return left * 2 > whole


def _forms(kind: str, value: str) -> list[Callable[[str], str]]:
    """Other ways to write a value that it allows."""
    if any("\u3400" <= sign < "\ua000" for sign in value):
        return [_spaced, _traditional, _traditional, _broken]
    if kind not in NAMES:
        return [_wide, str.upper if kind == "email" else _spaced, str.lower, _wide]
    forms = [str.lower, str.upper, _wide, _unmarked, _like, _broken, _decomposed]
    return [*forms, *([_curled] * 4 if re.search("['’]", value) else [])]


def _wide(value: str) -> str:
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in value)


def _spaced(value: str) -> str:
    return " ".join(value.replace(" ", ""))


def _unmarked(value: str) -> str:
    bare = "".join(sign for sign in normalize("NFD", value) if not "\u0300" <= sign < "\u0370")
    return bare.translate(str.maketrans("đĐłŁøØı", "dDlLoOi"))


def _decomposed(value: str) -> str:
    return normalize("NFD", value)


def _like(value: str) -> str:
    return value.translate(LIKE)


def _broken(value: str) -> str:
    return value.replace(" ", "\n") if " " in value else value


def _curled(value: str) -> str:
    return value.replace("'", "’") if "'" in value else value.replace("’", "`")


def _traditional(value: str) -> str:
    return str(converter("s2t").convert(value))
