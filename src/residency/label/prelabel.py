"""Marks made beforehand by a list of terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from residency.core.errors import DataError, UserError
from residency.core.files import csv_records
from residency.core.types import Span
from residency.core.units import units
from residency.tasks.card import Card


class TermFinder:
    """Finds the terms of a list: the longest at each place, in any case, never inside a word."""

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
                found.add_word(lower(term), (len(term), label, row.get("code") or None))
        if not len(found):
            raise DataError(f"{path}: holds no terms.")
        found.make_automaton()
        return cls(found)

    def find(self, text: str) -> tuple[Span, ...]:
        """The terms in a text, in order, without overlap."""
        bounds = units(text)
        starts, ends = {start for start, _ in bounds}, {end for _, end in bounds}
        hits = (
            Span(
                start=last + 1 - length,
                end=last + 1,
                label=label,
                quote=text[last + 1 - length : last + 1],
                code=code,
                by="terms",
            )
            for last, (length, label, code) in self.automaton.iter(lower(text))
        )
        spans: list[Span] = []
        for span in sorted(hits, key=lambda span: (span.start, -span.end)):
            apart = not spans or span.start >= spans[-1].end
            if apart and span.start in starts and span.end in ends:
                spans.append(span)
        return tuple(spans)


def lower(text: str) -> str:
    """Small letters, one for one: what has two in their place stays, so that offsets hold."""
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
