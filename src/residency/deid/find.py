"""Findings: where a text holds something that identifies a person, and how overlapping ones become
one."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Protocol

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
UNDECIDED = "undecided"
"""What found a word of the row that is also an ordinary one, where nothing around it tells
which."""


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
    """Findings without overlaps, in the order of the text; nothing that any of them covers is left
    uncovered.

    Findings that overlap become one. Its kind is that of the one with the highest priority, then
    the longest, then one of the row's own identifiers.
    """
    merged: list[Finding] = []
    group: list[Finding] = []
    reach = 0
    for finding in sorted(findings, key=attrgetter("start")):
        if group and finding.start >= reach:
            merged.append(_merge(group, reach))
            group, reach = [], 0
        reach = max(reach, finding.end)
        group.append(finding)
    return [*merged, _merge(group, reach)] if group else merged


def _merge(group: list[Finding], end: int) -> Finding:
    if len(group) == 1:
        return group[0]
    best = max(group, key=lambda one: (one.priority, one.end - one.start, one.by == STRUCTURED))
    return Finding(group[0].start, end, best.kind, best.by, best.priority)
