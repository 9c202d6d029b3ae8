"""Notes of many kinds without a structured source: nearly all that identifies is found, and hardly
anything else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from residency.deid.find import resolve
from residency.deid.rules import rules_of

NOTES: dict[str, list[str]] = yaml.safe_load(
    (Path(__file__).parent / "notes.yaml").read_text("utf-8")
)


def parsed(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without brackets, and where they were."""
    text, marks = "", []
    for number, piece in enumerate(re.split(r"\[\[|\]\]", marked)):
        if number % 2:
            marks.append((len(text), len(text) + len(piece)))
        text += piece
    return text, marks


@pytest.mark.parametrize("lang", sorted(NOTES))
def test_identifiers_of_notes_of_many_kinds_are_found_and_little_else(lang: str) -> None:
    missed, false, found = [], [], 0
    for marked in NOTES[lang]:
        text, marks = parsed(marked)
        findings = resolve(rules_of(lang).find(text, lang))
        covered = {i for one in findings for i in range(one.start, one.end)}
        missed += [
            text[a:b]
            for a, b in marks
            if not all(i in covered for i in range(a, b) if text[i].isalnum())
        ]
        false += [
            text[f.start : f.end]
            for f in findings
            if not any(a < f.end and f.start < b for a, b in marks)
        ]
        found += len(findings)
    assert not missed
    assert len(false) <= 0.03 * found, false
