"""Marks made beforehand by a list of terms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from residency.core.errors import DataError, UserError
from residency.core.files import csv_records
from residency.core.types import Span, Value
from residency.locale.tokenise import units
from residency.tasks.card import Card


class Term(Value, frozen=True):
    """A term with what it is marked as."""

    label: str
    code: str = ""


class TermFinder:
    """Finds the terms of a list: the longest at each place, whatever the case, never inside a word."""

    def __init__(self, automaton: Any) -> None:
        self.automaton = automaton

    @classmethod
    def read(cls, path: Path, card: Card) -> TermFinder:
        """The terms of a CSV file with the columns term, label and perhaps code.

        Raises ``UserError`` where there is no such file, ``DataError`` for a missing column or a
        label that the card does not have.
        """
        import ahocorasick

        if not path.is_file():
            raise UserError(
                f"label.prelabel.path: {path} does not exist; give a CSV file with the columns "
                "term, label, code."
            )
        found = ahocorasick.Automaton()
        advice = "it needs term and label, and may have code."
        for line, row in csv_records(path, ("term", "label"), advice):
            term, label = row["term"], row["label"]
            if label not in card.names:
                raise DataError(
                    f"{path}:{line}: the label is not in card {card.name}; allowed: "
                    f"{', '.join(card.names)}."
                )
            if term:
                code = row.get("code", "")
                found.add_word(lower(term), (len(term), Term(label=label, code=code)))
        if not len(found):
            raise DataError(f"{path}: holds no terms.")
        found.make_automaton()
        return cls(found)

    def find(self, text: str) -> tuple[Span, ...]:
        """The terms in a text, in order, without overlap."""
        bounds = units(text)
        starts, ends = {start for start, _ in bounds}, {end for _, end in bounds}
        spans: list[Span] = []
        for start, end, term in sorted(self._hits(text), key=lambda hit: (hit[0], -hit[1])):
            if start in starts and end in ends and (not spans or start >= spans[-1].end):
                spans.append(
                    Span(
                        start=start,
                        end=end,
                        label=term.label,
                        quote=text[start:end],
                        code=term.code or None,
                        by="terms",
                    )
                )
        return tuple(spans)

    def _hits(self, text: str) -> Iterator[tuple[int, int, Term]]:
        for last, (length, term) in self.automaton.iter(lower(text)):
            yield last + 1 - length, last + 1, term


def lower(text: str) -> str:
    """Small letters, one for one: what has two in their place stays as it is, so that offsets hold."""
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
