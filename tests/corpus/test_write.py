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
from residency.corpus.load import Data, Source
from residency.corpus.write import write_conll, write_jsonl


def read(path: Path, format: str, **more: str) -> list[Note]:
    source: Source = parse(
        Data, {"format": format, "path": path.name, "profile": "public", **more}, "data.x"
    )
    return list(source.read(path, Ledger()))


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


def test_conll_is_written_by_the_smallest_units(tmp_path: Path):
    ledger = write_conll(
        [note("No HbA1c.", (3, 8, "Test")), note("肝癌 ok", (0, 2, "Dis"), id="m")],
        tmp_path / "a.txt",
    )
    lines = (tmp_path / "a.txt").read_text("utf-8")
    assert (
        lines == "No\tO\nHbA\tB-Test\n1\tI-Test\nc\tI-Test\n.\tO\n\n肝\tB-Dis\n癌\tI-Dis\nok\tO\n"
    )
    assert [(e.line, e.status, e.id) for e in ledger.entries] == [
        (1, "kept", "n"),
        (7, "kept", "m"),
    ]


def test_spans_that_bio_cannot_express_are_named(tmp_path: Path):
    spans = [(0, 10, "A"), (5, 10, "B"), (11, 13, "C"), (0, 4, "D")]
    ledger = write_conll([note("high fever now", *spans), note(" ", id="m")], tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "high\tB-A\nfever\tI-A\nnow\tO\n"
    entry, empty = ledger.entries
    assert (entry.reason, entry.count) == (
        "span left out: begins or ends inside a token; span left out: overlaps another",
        3,
    )
    assert (empty.status, empty.reason) == ("rejected", "text is empty")


def test_conll_brings_tokens_and_entities_back(tmp_path: Path):
    write_conll(
        [note("sốt cao , ho", (0, 7, "X"), (10, 12, "X")), note("ho", id="m")], tmp_path / "a.txt"
    )
    back = read(tmp_path / "a.txt", "conll")
    assert [n.text for n in back] == ["sốt cao , ho", "ho"]
    assert [(s.start, s.end, s.label) for s in back[0].spans] == [(0, 7, "X"), (10, 12, "X")]
