"""Findings: where a text holds something that identifies a person, and how overlapping ones become one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Protocol
from unicodedata import normalize

from residency.core.types import Value

KINDS = (
    "name",
    "relative",
    "clinician",
    "organisation",
    "record",
    "admission",
    "national_id",
    "insurance",
    "phone",
    "email",
    "address",
    "birth_date",
    "date",
    "age",
    "url",
    "account",
    "plate",
    "other",
)
"""What identifies a person, directly or with other things."""
STRUCTURED = "structured"


class Finding(Value, frozen=True):
    """``text[start:end]`` identifies somebody."""

    start: int
    end: int
    kind: str
    by: str
    """``structured`` (an identifier of the row), ``rule:ID`` or ``plugin:NAME``"""
    priority: int = 0


class Recogniser(Protocol):
    """Anything that finds identifiers in a text (NFC)."""

    name: str

    def find(self, text: str, lang: str) -> Iterable[Finding]:
        """Findings in any order; they may overlap."""


def resolve(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without overlaps, in the order of the text; nothing that any of them covers is left uncovered.

    Findings that overlap become one. Its kind is that of the one with the highest priority, then the longest, then one of the
    row's own identifiers.
    """
    merged: list[Finding] = []
    group: list[Finding] = []
    reach = -1
    for finding in sorted(findings, key=lambda one: (one.start, -one.end)):
        if group and finding.start >= reach:
            merged.append(_one(group, reach))
            group = []
        reach = max(reach, finding.end) if group else finding.end
        group.append(finding)
    if group:
        merged.append(_one(group, reach))
    return merged


def _one(group: list[Finding], end: int) -> Finding:
    if len(group) == 1:
        return group[0]
    best = max(group, key=lambda one: (one.priority, one.end - one.start, one.by == STRUCTURED))
    return Finding(start=group[0].start, end=end, kind=best.kind, by=best.by, priority=best.priority)


@cache
def _plain_table() -> dict[int, str]:
    """Characters -> their plain small form, one for one: width, case and Vietnamese marks gone."""
    table: dict[int, str] = {}
    for code in (*range(0x41, 0x250), *range(0x1E00, 0x1F00), *range(0xFF01, 0xFF5F), 0x3000):
        sign = chr(code)
        base = normalize("NFKD", sign)[0].lower()
        base = {"đ": "d", "ð": "d"}.get(base, base)
        if len(base) == 1 and base != sign:
            table[code] = base
    return table


def plain(text: str) -> str:
    """A text of the same length without case, width and marks (``Nguyễn Văn Ánh`` -> ``nguyen van anh``)."""
    return text.translate(_plain_table())


WIDE = re.compile("[\uff01-\uff5e\u3000\xa0]")


@cache
def _narrow_table() -> dict[int, str]:
    return {**{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}, 0x3000: " ", 0xA0: " "}


def narrow(text: str) -> str:
    """A text of the same length with full-width letters, digits and signs as plain ones."""
    return text.translate(_narrow_table()) if WIDE.search(text) else text


def small(text: str) -> str:
    """A text of the same length in small letters."""
    made = text.lower()
    return made if len(made) == len(text) else "".join(low if len(low := sign.lower()) == 1 else sign for sign in text)


class Words:
    """Words that are looked for all at once in a text of small letters; whole words, save beside Chinese signs and digits."""

    def __init__(self, words: Iterable[str]) -> None:
        import ahocorasick

        self.automaton = ahocorasick.Automaton()
        for word in words:
            self.automaton.add_word(word, len(word))
        self.automaton.make_automaton()

    def find(self, low: str) -> Iterator[tuple[int, int]]:
        """(start, end) of every word."""
        for last, length in self.automaton.iter(low):
            start, end = last + 1 - length, last + 1
            if start and _joined(low[start - 1], low[start]):
                continue
            if end < len(low) and _joined(low[last], low[end]):
                continue
            yield start, end


def _joined(left: str, right: str) -> bool:
    """Whether two signs belong to one word of letters."""
    return left.isalpha() and right.isalpha() and left < "\u2e80" and right < "\u2e80"
