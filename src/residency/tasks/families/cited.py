"""Answers and the FHIR resources that they rest on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from unicodedata import normalize

from residency.tasks.facts import Fact, FactFamily, Found, Reader

if TYPE_CHECKING:
    from residency.tasks.card import Card

ANSWER, REFERENCE = "answer", "reference"
RESOURCE = re.compile(r"\b[A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64}\b")
"""A reference to a FHIR resource."""


class CitedFamily(FactFamily):
    """An answer and what it rests on: ``answer: 2011-08-09``, then ``references: Condition/3,
    Condition/7``. A fact is (answer, words), in lower case, or (reference, type and id of a
    resource)."""

    label_at = 0
    nothing = "answer:\nreferences:"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        yield from (f"{ANSWER}: {words}" for kind, words in facts if kind == ANSWER)
        yield f"{REFERENCE}s: " + ", ".join(words for kind, words in facts if kind == REFERENCE)

    def reader(self, card: Card) -> Reader:
        def read(line: str) -> Found | None:
            found = re.match(r"(answer|references?)\s*[:：]\s*(.*)$", line, re.I)
            if found is None:
                return None
            if found[1].lower() == ANSWER:
                words = normalize("NFC", found[2]).strip().rstrip(".。").strip().lower()
                return ([(ANSWER, words)], []) if words else ([], [])
            return [(REFERENCE, one) for one in dict.fromkeys(RESOURCE.findall(found[2]))], []

        return read


FAMILY = CitedFamily()
