"""Batch prediction: every line answered or refused before the work begins; what was answered is
kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from residency.core.errors import DataError, UserError
from residency.core.types import Labels, Prediction, RawNote, Span, Spans
from residency.tasks.card import load_card
from residency.workflows import predict

KEY = "k" * 64


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose model finds the first letter of every note."""
    card = {"name": "letters", "family": "spans"}
    (tmp_path / "artefact.json").write_text(json.dumps({"card": card}), "utf-8")

    def answers(folder: Path, notes: Iterable[RawNote]) -> Iterator[Prediction]:
        for note in notes:
            spans = (Span(start=0, end=1, label="first", quote=note.text[:1]),) if note.text else ()
            yield Prediction(id=note.id, answer=Spans(spans=spans))

    monkeypatch.setattr(predict, "predict", answers)
    return tmp_path


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()]


def test_ids_are_the_rows_own_or_their_line_numbers(run: Path) -> None:
    source = run / "in.jsonl"
    source.write_text(
        '\ufeff{"id": 7, "text": "a"}\n\n{"id": null, "text": ""}\n{"text": "患者"}\n', "utf-8"
    )
    assert predict.predict_file(run, source, run / "out.jsonl") == 3
    assert ids(run / "out.jsonl") == ["7", "3", "4"]
    last = (run / "out.jsonl").read_text("utf-8").splitlines()[-1]
    assert last == '{"id":"4","entities":[{"start":0,"end":1,"label":"first","text":"患"}]}'


def test_fields_may_have_other_names(run: Path) -> None:
    source = run / "in.jsonl"
    source.write_text('{"nr": "x1", "note": "a"}\n', "utf-8")
    predict.predict_file(run, source, run / "out.jsonl", "note", "nr")
    assert ids(run / "out.jsonl") == ["x1"]


def test_an_existing_output_is_never_overwritten_and_no_folder_is_made(run: Path) -> None:
    source, output = run / "in.jsonl", run / "out.jsonl"
    source.write_text('{"text": "a"}\n', "utf-8")
    output.write_text("before", "utf-8")
    with pytest.raises(UserError, match=r"out\.jsonl: is there already; name another file"):
        predict.predict_file(run, source, output)
    assert output.read_text("utf-8") == "before"
    with pytest.raises(UserError, match="new: is no folder; make it first"):
        predict.predict_file(run, source, run / "new" / "out.jsonl")
    assert not (run / "new").exists()


def test_another_input_begins_anew(run: Path) -> None:
    source, output = run / "in.jsonl", run / "out.jsonl"
    source.write_text('{"text": "a"}\n{"text": "b"}\n', "utf-8")
    (run / "out.jsonl.partial").write_text(f"{KEY}\n{{}}\n", "utf-8")
    assert predict.predict_file(run, source, output) == 2
    assert ids(output) == ["1", "2"]


@pytest.mark.parametrize(
    ("left", "done", "kept"),
    [
        (f"{KEY}\n", 0, f"{KEY}\n"),
        (f"{KEY}\n{{1}}\n{{2}}\n", 2, f"{KEY}\n{{1}}\n{{2}}\n"),
        (f"{KEY}\n{{1}}\n{{2", 1, f"{KEY}\n{{1}}\n"),
        ("other\n{1}\n", 0, "other\n{1}\n"),
        (KEY[:10], 0, KEY[:10]),
        ("", 0, ""),
    ],
)
def test_whole_lines_of_the_same_work_count_as_done(
    tmp_path: Path, left: str, done: int, kept: str
) -> None:
    partial = tmp_path / "p"
    partial.write_text(left, "utf-8")
    assert predict.resume(partial, KEY) == done
    assert partial.read_text("utf-8") == kept
    assert predict.resume(tmp_path / "none", KEY) == 0


def test_a_bad_line_is_found_before_the_first_answer(run: Path) -> None:
    source = run / "in.jsonl"
    source.write_text('{"text": "a"}\n[1]\n', "utf-8")
    with pytest.raises(
        DataError, match=r"in\.jsonl:2: has no text in the field text; name the field with --text"
    ):
        predict.predict_file(run, source, run / "out.jsonl")
    assert not (run / "out.jsonl.partial").exists()


def test_an_answer_is_written_as_users_read_it() -> None:
    span = Span(start=1, end=3, label="drug", quote="bc")
    assert predict.answer(Prediction(id="1", answer=Spans(spans=(span,))), load_card("ner")) == {
        "id": "1",
        "entities": [{"start": 1, "end": 3, "label": "drug", "text": "bc"}],
    }
    assert predict.answer(
        Prediction(id="2", answer=Labels(labels=("a",), scores=(0.5,))), load_card("classify")
    ) == {
        "id": "2",
        "labels": ["a"],
        "scores": [0.5],
    }
    assert predict.answer(Prediction(id="3", answer=None), load_card("ner")) == {
        "id": "3",
        "failure": "no answer",
    }
