"""Conversations in every form become the same turns, and every row is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import DataError
from residency.core.part import parse
from residency.corpus.load import Corpus, Data, load

GOOD = [("user", "什么是肝炎？"), ("assistant", "肝脏的炎症。")]
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alpaca": ({}, {"instruction": GOOD[0][1], "input": "", "output": GOOD[1][1]}),
    "sharegpt": (
        {},
        {
            "conversations": [
                {"from": "human", "value": GOOD[0][1]},
                {"from": "gpt", "value": GOOD[1][1]},
            ]
        },
    ),
    "messages": ({}, {"messages": [{"role": role, "content": text} for role, text in GOOD]}),
    "promptcblue": (
        {},
        {"input": GOOD[0][1], "target": GOOD[1][1], "type": "x", "answer_choices": ["secret"]},
    ),
    "instructions": ({}, {"prompt": GOOD[0][1], "response": GOOD[1][1]}),
}


def read(folder: Path, rows: list[Any], settings: dict[str, Any]) -> Corpus:
    (folder / "a.jsonl").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8"
    )
    data = parse(Data, {"train": "a.jsonl", "stop": 0, "max_rejected": 0.9, **settings}, "data.a")
    return load(data, "a", folder, 0)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_turns(form: str, tmp_path: Path) -> None:
    settings, row = FORMS[form]
    (note,) = read(tmp_path, [row], {"format": form, **settings}).notes
    assert [(turn.role, turn.text) for turn in note.turns] == GOOD
    assert note.text == GOOD[0][1]


def test_turns_packed_in_one_text_are_unpacked(tmp_path: Path) -> None:
    row = {"instruction": " <user>: a <bot>: b <user>: c", "output": "d"}
    (note,) = read(tmp_path, [row], {"format": "alpaca", "packed": {}}).notes
    assert [(turn.role, turn.text) for turn in note.turns] == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
    ]
    assert note.text == "a\nc"


def test_history_and_input_of_alpaca(tmp_path: Path) -> None:
    row = {"instruction": "c", "input": "x", "output": "d", "history": [["a", "b"]], "system": "s"}
    (note,) = read(tmp_path, [row], {"format": "alpaca"}).notes
    assert [turn.text for turn in note.turns] == ["s", "a", "b", "c\nx", "d"]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([("assistant", "a")], "conversation begins with the assistant"),
        ([("user", "a"), ("assistant", " ")], "an answer is empty"),
        ([("user", " "), ("assistant", "a")], "a question is empty"),
        (
            [("user", "a"), ("tool", "b")],
            "unknown role (allowed: user, assistant, system, developer)",
        ),
        (
            [("user", "a"), ("user", "b"), ("assistant", "c")],
            "two turns of one side follow each other",
        ),
        (
            [("user", "a"), ("system", "b"), ("assistant", "c")],
            "system turn is not at the beginning",
        ),
        ([("user", "a")], "conversation has no answer"),
        ([], "conversation has no turns"),
    ],
)
def test_what_is_no_conversation_is_rejected_with_its_reason(
    turns: list[tuple[str, str]], reason: str, tmp_path: Path
) -> None:
    rows = [
        {"messages": [{"role": role, "content": text} for role, text in some]}
        for some in (turns, GOOD)
    ]
    corpus = read(tmp_path, rows, {"format": "messages"})
    assert [(entry.status, entry.reason) for entry in corpus.ledger] == [
        ("rejected", reason),
        ("kept", ""),
    ]
    with pytest.raises(DataError, match=r"1 of 2 rows \(50\.0%\) would be lost"):
        read(tmp_path, rows, {"format": "messages", "max_rejected": 0.01})


def test_a_last_question_without_answer_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": role, "content": text} for role, text in [*GOOD, ("user", "more?")]]}
    ]
    corpus = read(tmp_path, rows, {"format": "messages"})
    assert corpus.ledger[0].status == "repaired"
    assert len(corpus.notes[0].turns) == 2


def test_columns_fill_the_fields_of_a_card(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('who,what,"is"\n"A, 40","ho\nsốt",cúm\n', "utf-8")
    settings = {
        "format": "instructions",
        "train": "a.csv",
        "stop": 0,
        "fields": {"patient": "who", "diagnosis": "is"},
    }
    (note,) = load(parse(Data, settings, "d"), "a", tmp_path, 0).notes
    assert note.fields == {"patient": "A, 40", "diagnosis": "cúm"}


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'output'; present: answer, instruction"):
        read(tmp_path, [{"instruction": "a", "answer": "b"}], {"format": "alpaca"})


def test_the_writer_of_the_answers_is_kept(tmp_path: Path) -> None:
    row = FORMS["alpaca"][1]
    rows = [row, {**row, "instruction": "b", "origin": "real"}]
    notes = read(tmp_path, rows, {"format": "alpaca", "origin": "model:x"}).notes
    assert [note.origin for note in notes] == ["model:x", "real"]
