"""What is written is read back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from residency.core.part import parse
from residency.core.types import Note, Relation, Span
from residency.corpus.ledger import Ledger
from residency.corpus.load import Data
from residency.corpus.reader import Source
from residency.corpus.write import write_jsonl


def read(path: Path, format: str, **more: str) -> list[Note]:
    source: Source = parse(
        Data, {"format": format, "path": path.name, "profile": "public", **more}, "data.x"
    )
    ledger = Ledger()
    notes = [ledger.add_row(row, path, source) for row in source.rows(path)]
    return [note for note in notes if note]


def note(text: str, *spans: tuple[int, int, str], id: str = "n") -> Note:
    marked = tuple(
        Span(start=start, end=end, label=label, quote=text[start:end])
        for start, end, label in spans
    )
    return Note(id=id, group=id, text=text, profile="public", spans=marked)


FULL = Note(
    id="n",
    group="p",
    text="không sốt, ho 😷\r\n",
    profile="synthetic",
    lang="vi",
    kind="discharge",
    written_at=datetime(2024, 5, 6, 7, 8, tzinfo=UTC),
    spans=(
        Span(
            start=6,
            end=9,
            label="Sign",
            quote="sốt",
            code="R50",
            attributes=("negated",),
            by="a",
            score=0.5,
        ),
        Span(start=11, end=13, label="Sign", quote="ho"),
    ),
    relations=(Relation(head=0, tail=1, label="with"),),
    labels=("acute", "mild"),
    origin="synthetic:graph",
)


def test_json_lines_bring_every_field_back(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    assert write_jsonl([FULL, note("x", id="m")], path) == 2
    assert read(path, "jsonl") == [FULL, note("x", id="m")]
    first = json.loads(path.read_text("utf-8").splitlines()[0])
    assert first["entities"][1] == {"start": 11, "end": 13, "label": "Sign", "text": "ho"}


@st.composite
def notes(draw: st.DrawFn) -> Note:
    text = draw(
        st.text("ab1. \n\r中ệ\u0301😷", min_size=1, max_size=20).filter(lambda text: text.strip())
    )
    spans = set()
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, len(text)))
        if text[start:end] == text[start:end].strip():
            spans.add((start, end, draw(st.sampled_from("XY"))))
    return note(text, *sorted(spans))


@given(notes())
def test_json_lines_bring_any_note_back(tmp_path: Path, one: Note):
    write_jsonl([one], tmp_path / "a.jsonl")
    assert read(tmp_path / "a.jsonl", "jsonl") == [one]
