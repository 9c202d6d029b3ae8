"""Exams: items by kind, options by letter; what cannot be used is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from residency.core.types import Labels, Text
from residency.corpus.formats.exam import Exam
from residency.corpus.load import load
from residency.tasks.card import load_card
from residency.tasks.codec import read
from residency.tasks.examples import examples

CHOICE = {
    "id": "1",
    "kind": "treatment",
    "question": "Which drug?",
    "options": {"a": "aspirin", "B": "heparin"},
    "answer": "b",
}
LISTED = {
    "id": "2",
    "question": "Chọn thuốc nào?",
    "options": ["aspirin", "heparin", "insulin"],
    "answer": "C",
    "lang": "vi",
}
SHORT = {
    "id": "3",
    "question": "What comes first?",
    "answer": "Oxygen.",
    "points": ["gives oxygen", "calls for help"],
}


def corpus(folder: Path, rows: list[Any], **settings: Any) -> Any:
    (folder / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return load(
        Exam(format="exam", test="exam.jsonl", profile="public", **settings), "x", folder, 0
    )


def test_items_with_options_are_asked_by_letter_and_kind(tmp_path: Path) -> None:
    one, other = examples(corpus(tmp_path, [CHOICE, SHORT, LISTED]).notes, load_card("exam"))
    assert (
        one.input
        == "Which drug?\nA. aspirin\nB. heparin\nAnswer with the letter of the right option only."
    )
    assert other.input.endswith("Chỉ trả lời bằng chữ cái của phương án đúng.")
    assert (one.gold, one.choices, one.kind) == (Labels(labels=("B",)), ("A", "B"), "treatment")
    assert other.choices == ("A", "B", "C")


def test_a_written_letter_is_read_and_one_that_is_no_option_is_no_answer(tmp_path: Path) -> None:
    (one,) = examples(corpus(tmp_path, [CHOICE]).notes, load_card("exam"))
    assert read("B", one, load_card("exam")) == (Labels(labels=("B",)), None)
    assert read("The answer is B.", one, load_card("exam"))[0] == Labels(labels=("B",))
    assert read("C", one, load_card("exam"))[0] is None


def test_items_to_be_answered_in_words_have_marking_points(tmp_path: Path) -> None:
    notes = corpus(tmp_path, [CHOICE, SHORT], items="short").notes
    (one,) = examples(notes, load_card("short-answers"))
    assert (
        one.gold == Text(text="Oxygen.")
        and one.input == "What comes first?\nAnswer in a few sentences."
    )
    assert notes[0].fields["points"] == "- gives oxygen\n- calls for help"


def test_items_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    bad = [
        CHOICE | {"id": "4", "answer": "D"},
        CHOICE | {"id": "5", "options": ["one"]},
        CHOICE | {"id": "6", "options": ["one", ""]},
        CHOICE | {"id": "7", "question": " "},
        7,
    ]
    found = corpus(tmp_path, [CHOICE, *bad], max_rejected=0.9)
    assert len(found.notes) == 1
    assert [entry.reason for entry in found.ledger if entry.status == "rejected"] == [
        "answer is not the letter of an option",
        "options are not two or more, a mapping of letters or a list",
        "an option is empty, not text, or its letter stands twice",
        "question or answer is empty or not text",
        "is not a JSON object",
    ]
