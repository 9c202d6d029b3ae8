"""Marks by people and by a model that is named as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from residency.core.errors import DataError
from residency.core.types import Example, Note, Prediction, PredictorInfo, Text
from residency.evals.ratings import Mark, judged, read_sheet, scored, write_sheet

NOTES = [
    Note(
        id=str(i),
        text="q",
        profile="public",
        lang="en",
        fields={"question": f"Q{i}?", "points": "- oxygen", "answer": "x"},
    )
    for i in range(3)
]
PREDICTIONS = [Prediction(id=str(i), answer=Text(text=f"Answer, {i}")) for i in range(3)]


def filled(path: Path, rater: str, marks: list[str]) -> Path:
    write_sheet(NOTES, PREDICTIONS, path)
    head, *rows = path.read_text("utf-8").splitlines()
    path.write_text(
        "\n".join(
            [head, *(row[:-1] + f"{rater},{mark}" for row, mark in zip(rows, marks, strict=True))]
        ),
        "utf-8",
    )
    return path


def test_a_sheet_that_was_filled_in_is_read_back(tmp_path: Path) -> None:
    path = filled(tmp_path / "sheet.csv", "ann", ["7", "8.5", "10"])
    assert "tuned" not in path.read_text("utf-8") and '"Answer, 1"' in path.read_text("utf-8")
    assert read_sheet(path) == [
        Mark(id="0", rater="ann", mark=7),
        Mark(id="1", rater="ann", mark=8.5),
        Mark(id="2", rater="ann", mark=10),
    ]


@pytest.mark.parametrize(
    ("rater", "marks", "words"),
    [
        ("ann", ["7", "", "1"], r"sheet.csv:3: mark must be a number from 0 to 10"),
        ("ann", ["7", "11", "1"], r"sheet.csv:3: mark must be"),
        ("", ["7", "8", "1"], r"sheet.csv:2: says not who marked"),
    ],
)
def test_marks_that_are_missing_or_out_of_range_are_one_sentence(
    tmp_path: Path, rater: str, marks: list[str], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read_sheet(filled(tmp_path / "sheet.csv", rater, marks))


def test_an_item_without_an_answer_makes_no_sheet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 3 items have no answer \(the first is 2\)"):
        write_sheet(NOTES, PREDICTIONS[:2], tmp_path / "sheet.csv")


class Judge:
    """Writes what it is told to."""

    info = PredictorInfo(name="judge", base="m")

    def __init__(self, *words: str) -> None:
        self.words = iter(words)

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        for one in examples:
            assert "- oxygen" in one.input and "Answer, " in one.input
            yield Prediction(id=one.id, text=next(self.words))


def test_a_model_marks_under_its_own_name_and_never_joins_people() -> None:
    marks, unread = judged(Judge("8", "Mark: 6.5/10", "very good"), NOTES, PREDICTIONS)
    assert marks == [
        Mark(id="0", rater="model:judge", mark=8),
        Mark(id="1", rater="model:judge", mark=6.5),
    ]
    assert unread == 1
    people, model = scored(
        [Mark(id="0", rater="ann", mark=2), Mark(id="1", rater="bob", mark=4), *marks]
    )
    assert (people.metric, people.value, people.n) == ("mark/people", 3, 2)
    assert (model.metric, model.value) == ("mark/model:judge", 7.25)
    assert (
        people.low is not None
        and people.high is not None
        and 0 <= people.low < 3 < people.high <= 10
    )
