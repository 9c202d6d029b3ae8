"""What the finders of names of every language share: their data, and patterns of letters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PEOPLE = ("name", "relative", "clinician")
"""Kinds of people, in the order in which a cue that may mean several counts."""


@cache
def name_data(lang: str) -> Mapping[str, Any]:
    """Names, cues, stop words and vetoes of a language."""
    import yaml

    path = Path(__file__).parent / f"{lang}.yaml"
    found: Mapping[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


@cache
def known_data() -> Mapping[str, Any]:
    """Words around identifiers of the row, and those that are names and words (``known.yaml``)."""
    import yaml

    path = Path(__file__).parent.parent / "data/known.yaml"
    found: Mapping[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


@cache
def ordinary(lang: str) -> frozenset[str]:
    """Words in small letters that are names too."""
    return frozenset(known_data()["words"].get(lang, ()))


def any_of(words: Collection[str]) -> str:
    """A pattern of words, the longest first; in groups of one first sign, so that most places are
    left after a look at it."""
    groups: dict[str, list[str]] = {}
    longest_first = sorted(words, key=len, reverse=True)
    for word in longest_first:
        groups.setdefault(word[:1], []).append(re.escape(word[1:]))
    if len(groups) < 3 or "" in groups:
        return "|".join(map(re.escape, longest_first))
    made = [
        re.escape(first) + (rest[0] if len(rest) == 1 else f"(?:{'|'.join(rest)})")
        for first, rest in groups.items()
    ]
    return f"(?=[{''.join(map(re.escape, groups))}])(?:{'|'.join(made)})"


def _classes() -> tuple[str, str, str]:
    """Latin letters for patterns of re, which is faster than regex: capital, small, any."""
    signs = [chr(code) for code in (*range(0x41, 0x250), *range(0x1E00, 0x1F00))]
    upper, lower = "".join(filter(str.isupper, signs)), "".join(filter(str.islower, signs))
    return upper, lower, f"{upper}{lower}\u0300-\u036f"


UPPER, LOWER, LETTER = _classes()


def runs_of(form: re.Pattern[str], text: str) -> Iterator[tuple[str, int]]:
    """Runs of capitalised words, without a first one that begins within a word (the form looks at
    nothing before it, to be quick)."""
    for match in form.finditer(text):
        found, at = match.group(), match.start()
        if at and text[at - 1].isalnum():
            first, _, found = found.partition(" ")
            at += len(first) + 1
        if " " in found:
            yield found, at
