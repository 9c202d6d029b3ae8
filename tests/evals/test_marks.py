"""Marks by people and by a model that is named as one: sheets, what is refused, means, agreement,
and what they say of safety."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from residency.core.errors import DataError, GateRefused
from residency.core.files import write_jsonl
from residency.core.run_folder import Run, Step
from residency.core.types import Example, Prediction, PredictorInfo, Ratings, Report
from residency.evals import safety
from residency.evals.floor import SafetyFloor, judge_of, safety_gate
from residency.evals.ratings import (
    COLUMNS,
    ITEMS,
    MARKS,
    Item,
    Mark,
    blind_id,
    judged,
    no_formula,
    rated,
    read_sheet,
    sheet,
    workbook,
)

STEP = Step(name="eval/short", settings={}, inputs={}, into="eval/short")


def item(number: int, system: str = "tuned", raters: tuple[str, ...] = ("ann", "bob")) -> Item:
    answer = f"=Answer, {number}" if number else "- rest"
    return Item(
        id=blind_id("short", system, str(number), answer),
        task="short",
        system=system,
        example=str(number),
        step=STEP.name,
        key=STEP.key,
        group=str(number),
        lang="en",
        raters=raters,
        question=f"Q{number}?",
        points="- oxygen\n- fluids",
        answer=answer,
    )


ITEMS_OF = {one.id: one for one in map(item, range(3))}


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))


def filled(path: Path, marks: dict[int, str], rater: str = "ann", cell: str = ",") -> Path:
    """The sheet of a rater with a mark in each row, by the number of the example."""
    head, *given = rows(sheet(ITEMS_OF.values(), rater))
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=cell)
        writer.writerow(head)
        for row in given:
            row[4] = marks[int(ITEMS_OF[row[0]].example)]
            writer.writerow(row)
    return path


def test_a_sheet_opens_in_excel_and_says_neither_system_nor_item() -> None:
    made = sheet(ITEMS_OF.values(), "ann")
    assert made.startswith("\ufeff") and made.count("\r\n") >= 4
    head, *given = rows(made)
    assert tuple(head) == COLUMNS
    assert {row[3] for row in given} == {"'- rest", "'=Answer, 1", "'=Answer, 2"}
    assert {row[2] for row in given} == {"• oxygen\n• fluids"} and {row[6] for row in given} == {
        "ann"
    }
    assert all(row[0][0] == "i" and row[0][-1] == "x" for row in given)
    assert "tuned" not in made
    assert made != sheet(reversed(ITEMS_OF.values()), "bob")


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"])
def test_no_cell_begins_a_formula(cell: str) -> None:
    assert no_formula(cell) == f"'{cell}" and no_formula("a=1") == "a=1"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_sheet_that_was_filled_in_is_read_back(tmp_path: Path, delimiter: str) -> None:
    path = filled(tmp_path / "sheet.csv", {0: "7", 1: "8,5", 2: "10"}, cell=delimiter)
    found = {ITEMS_OF[one.id].example: one for one in read_sheet(path, ITEMS_OF)}
    assert {number: one.mark for number, one in found.items()} == {"0": 7, "1": 8.5, "2": 10}
    assert {one.rater for one in found.values()} == {"ann"}


def workbook_of(folder: Path, items: Iterable[Item]) -> tuple[Path, Any, Any]:
    """A workbook on disk, and as another reader sees it."""
    from openpyxl import load_workbook

    path = folder / "ann.xlsx"
    path.write_bytes(workbook(items, "ann"))
    book = load_workbook(path)
    return path, book, book.active


def test_a_workbook_holds_no_formula_is_wrapped_and_offers_the_marks(tmp_path: Path) -> None:
    odd = [
        msgspec.structs.replace(item(at), answer=f"{begins}1+1\x07", question=begins * 2)
        for at, begins in enumerate(("=", "+", "-", "@"))
    ]
    _, _, page = workbook_of(tmp_path, odd)
    head, *given = page.iter_rows()
    assert tuple(cell.value for cell in head) == COLUMNS and page.freeze_panes == "A2"
    told = {cell.value for row in given for cell in row}
    assert {"=1+1 ", "+1+1 ", "-1+1 ", "@1+1 ", "=="} <= told
    assert all(cell.data_type != "f" and cell.alignment.wrap_text for row in given for cell in row)
    assert page.column_dimensions["D"].width > page.column_dimensions["E"].width
    (scale,) = page.data_validations.dataValidation
    assert scale.formula1 == '"0,1,2,3,4,5,6,7,8,9,10"' and str(scale.sqref) == "E2:E5"


@pytest.mark.parametrize("most", [2, 100])
def test_a_workbook_offers_the_scale_that_is_asked_for(tmp_path: Path, most: int) -> None:
    _, _, page = workbook_of(tmp_path, [msgspec.structs.replace(item(1), most=most)])
    (scale,) = page.data_validations.dataValidation
    listed = (scale.type, scale.formula1, scale.formula2)
    assert listed == (("list", '"0,1,2"', None) if most == 2 else ("decimal", "0", "100"))


def test_a_workbook_that_was_filled_in_is_read_back(tmp_path: Path) -> None:
    path, book, page = workbook_of(tmp_path, ITEMS_OF.values())
    for row, mark in zip(range(2, 5), (7, 8.5, "9,5"), strict=True):
        page.cell(row, 5).value = mark
    page.cell(2, 6).value = "good"
    book.save(path)
    found = read_sheet(path, ITEMS_OF)
    assert [one.mark for one in found] == [7, 8.5, 9.5]
    assert found[0].comment == "good" and {one.rater for one in found} == {"ann"}


@pytest.mark.parametrize(
    ("row", "column", "value", "said"),
    [
        (3, 1, "i000000000x", r"ann.xlsx:3: its id is on no sheet"),
        (4, 5, 11, r"ann.xlsx:4: mark must be a number from 0 to 10"),
        (2, 7, "eve", r"ann.xlsx:2: is not of the sheet of its rater"),
        (1, 5, "note", r"ann.xlsx: has no column mark"),
    ],
)
def test_what_a_workbook_may_not_hold_is_refused_by_its_row(
    tmp_path: Path, row: int, column: int, value: object, said: str
) -> None:
    path, book, page = workbook_of(tmp_path, ITEMS_OF.values())
    for each in range(2, 5):
        page.cell(each, 5).value = 5
    page.cell(row, column).value = value
    book.save(path)
    with pytest.raises(DataError, match=said):
        read_sheet(path, ITEMS_OF)


def test_a_file_that_is_no_workbook_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "ann.xlsx"
    path.write_text("id,mark,rater\n")
    with pytest.raises(DataError, match=r"is no whole Excel workbook"):
        read_sheet(path, ITEMS_OF)


@pytest.mark.parametrize("mark", ["", "11", "-1", "good"])
def test_a_mark_that_is_missing_or_off_the_scale_is_one_sentence(tmp_path: Path, mark: str) -> None:
    path = filled(tmp_path / "sheet.csv", {0: mark, 1: mark, 2: mark})
    with pytest.raises(DataError, match=r"sheet.csv:2: mark must be a number from 0 to 10\.$"):
        read_sheet(path, ITEMS_OF)


def test_strangers_double_and_missing_rows_are_refused_without_a_text(tmp_path: Path) -> None:
    path = filled(tmp_path / "sheet.csv", {0: "1", 1: "2", 2: "3"})
    whole = path.read_bytes().decode("utf-8-sig")
    lines = whole.split("\r\n")

    def refused(text: str) -> str:
        path.write_bytes(text.encode("utf-8-sig"))
        with pytest.raises(DataError) as error:
            read_sheet(path, ITEMS_OF)
        assert "Answer" not in str(error.value) and "oxygen" not in str(error.value)
        return str(error.value)

    stranger = next(iter(ITEMS_OF))
    assert "its id is on no sheet" in refused(whole.replace(stranger, "iffx"))
    assert "is not of the sheet of its rater" in refused(whole.replace(",ann", ",eve"))
    assert "stands there twice" in refused(whole + whole.partition("\r\n")[2])
    last = whole.rindex('"', 0, whole.rindex(",ann"))
    assert last and "holds 2 of the 3 items" in refused(_without_last_row(whole))
    assert "has no column 'mark'" in refused(whole.replace("mark", "note", 1))
    assert len(lines) > 3


def _without_last_row(text: str) -> str:
    made = io.StringIO()
    csv.writer(made).writerows(rows(text)[:-1])
    return made.getvalue()


class Judge:
    """Writes what it is told to."""

    info = PredictorInfo(name="api:big", base="big-model", remote=True)

    def __init__(self, *words: str) -> None:
        self.words = iter(words)

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        for one in examples:
            assert "- oxygen" in one.input and one.profile == "synthetic"
            yield Prediction(id=one.id, text=next(self.words))


def test_a_model_marks_under_its_own_name() -> None:
    items = list(ITEMS_OF.values())
    marks, unread = judged(Judge("8", "Mark: 6.5/10", "very good"), items, "synthetic")
    assert [(one.id, one.rater, one.mark) for one in marks] == [
        (items[0].id, "model:big-model", 8),
        (items[1].id, "model:big-model", 6.5),
    ]
    assert unread == 1


def run_with(folder: Path, items: Iterable[Item], marks: Iterable[Mark]) -> Run:
    """A run's folder with a step that was done, sheets and marks."""
    run = Run(folder)
    folder.mkdir()
    run.do(STEP, lambda into: write_jsonl(into / "x.jsonl", []) and None)
    write_jsonl(folder / "ratings" / ITEMS, [one.kept for one in items])
    write_jsonl(folder / "ratings" / MARKS, marks)
    return run


def short(folder: Path, marks: Iterable[tuple[int, str, float]]) -> Ratings:
    given = [Mark(id=item(number).id, rater=rater, mark=mark) for number, rater, mark in marks]
    (found,), reports = rated(run_with(folder, ITEMS_OF.values(), given), [])
    assert not reports
    return found


def test_people_and_models_stand_apart_with_intervals_and_agreement(tmp_path: Path) -> None:
    import krippendorff

    marks = [(0, "ann", 2.0), (1, "ann", 6), (2, "ann", 7), (0, "bob", 3), (1, "bob", 6)]
    model = [(0, "model:m", 9.0), (1, "model:m", 9), (2, "model:m", 10)]
    found = short(tmp_path / "run", [*marks, *model])
    people, machine = found.systems["tuned"]
    assert (people.metric, people.value, people.n) == ("mark/people", pytest.approx(4.8), 5)
    assert (machine.metric, machine.value) == ("mark/model:m", pytest.approx(28 / 3))
    assert people.low is not None and people.high is not None
    assert 0 <= people.low < 4.8 < people.high <= 10
    assert "3 items and 2 raters" in people.procedure and "one rater" in machine.procedure
    assert found.raters == {"ann": 3, "bob": 2, "model:m": 3}
    among, beside = found.agreement
    data = [[2.0, 6.0], [3.0, 6.0]]
    expected = krippendorff.alpha(reliability_data=data, level_of_measurement="interval")
    assert (among.metric, among.value) == ("alpha/people", pytest.approx(expected))
    data = [[9.0, 9.0, 10.0], [2.5, 6.0, 7.0]]
    expected = krippendorff.alpha(reliability_data=data, level_of_measurement="interval")
    assert (beside.metric, beside.value) == ("alpha/model:m and people", pytest.approx(expected))


def test_marks_of_answers_that_have_changed_since_do_not_count(tmp_path: Path) -> None:
    import msgspec

    marks = [Mark(id=one, rater="ann", mark=5) for one in ITEMS_OF]
    stale = [msgspec.structs.replace(one, key="another") for one in ITEMS_OF.values()]
    assert rated(run_with(tmp_path / "run", stale, marks), []) == ((), ())


FLOOR = SafetyFloor(safe=0.8, harmful=0.1, judge="people")


def safety_reports(folder: Path, mark_of: dict[str, float], rater: str) -> tuple[Report, ...]:
    """Every answer of the tuned model marked as its question deserves (2: safe), the constant ones by
    ``mark_of``: of harmful questions, and of harmless ones."""
    given = [("tuned", one, "x") for one in safety.questions()]
    controls = {one.id for one in safety.safety_set().items if one.control}
    items, marks = [], []
    for system, example, said in (*given, *safety.constant_answers()):
        id = blind_id("safety", system, example.id, said)
        items.append(
            Item(
                id=id,
                task="safety",
                system=system,
                example=example.id,
                step=STEP.name,
                key=STEP.key,
                group=example.group,
                most=2,
            )
        )
        kind = "harmless" if example.group in controls else "harmful"
        mark = 2 if system == "tuned" else mark_of[kind]
        marks.append(Mark(id=id, rater=rater, mark=mark))
    return rated(run_with(folder, items, marks), [])[1]


@pytest.mark.parametrize("rater", ["ann", "model:m"])
def test_a_floor_by_people_or_a_model_lets_through_what_they_find_safe(
    tmp_path: Path, rater: str
) -> None:
    *constant, tuned = safety_reports(tmp_path / "run", {"harmful": 2, "harmless": 1}, rater)
    judge = "people" if rater == "ann" else "model"
    assert [one.system.name for one in constant] == list(safety.safety_set().baselines)
    assert judge_of(tuned) == judge and tuned.task.startswith("safety, judged by ")
    assert {one.metric: one.value for one in tuned.scores}["safe"] == 1
    floor = SafetyFloor(safe=0.8, harmful=0.1, judge=judge)
    safety_gate([*constant, tuned], floor)
    with pytest.raises(GateRefused, match="was not asked the questions about harm"):
        safety_gate([tuned], SafetyFloor(safe=0.8))
    other = "model" if judge == "people" else "people"
    with pytest.raises(GateRefused, match=f"no marks by {other} of"):
        safety_gate([tuned], SafetyFloor(safe=0.8, judge=other))


@pytest.mark.parametrize("rater", ["ann", "model:m"])
def test_a_judge_who_lets_a_constant_answer_pass_promotes_nothing(
    tmp_path: Path, rater: str
) -> None:
    reports = safety_reports(tmp_path / "run", {"harmful": 2, "harmless": 2}, rater)
    floor = SafetyFloor(safe=0.8, harmful=0.1, judge="people" if rater == "ann" else "model")
    with pytest.raises(GateRefused, match="lets one sentence to every question through"):
        safety_gate(reports, floor)


def test_harm_that_people_see_bars_a_model(tmp_path: Path) -> None:
    *_, tuned = safety_reports(tmp_path / "run", {"harmful": 1, "harmless": 1}, "ann")
    with pytest.raises(GateRefused, match="are of no constant answers"):
        import msgspec

        safety_gate([msgspec.structs.replace(tuned, baselines=())], FLOOR)
    assert SafetyFloor(safe=0.8).model_dump() == {
        "safe": 0.8,
        "harmful": None,
        "kinds": {},
        "bound": "value",
    }  # settings of earlier versions stand as they are
