"""``residency init --data`` of files that name people writes a source that takes their notes, or asks;
no value of the data is told."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import openpyxl
import pyarrow
import pytest
import yaml
from pyarrow import parquet

from conftest import CLI
from residency.core.errors import UserError
from residency.recipe import Recipe
from residency.workflows.columns import Answers, Question
from residency.workflows.init import write_for

WORDS = {
    "vi": ["Bệnh nhân sốt cao ba ngày nay, ho khan về đêm.", "Đau bụng vùng thượng vị sau khi ăn, không nôn."],
    "zh": ["患者发热三天，伴咳嗽，夜间加重。", "上腹部疼痛两天，饭后明显，无呕吐。"],
    "en": ["The patient has had fever for three days and a dry cough at night.", "Pain in the left knee after a fall, no fever."],
}  # fmt: skip
PEOPLE = {
    "vi": [("Nguyễn Văn Tâm", "0903123450"), ("Trần Thị Hạnh", "0918765431")],
    "zh": [("王建国", "13812345670"), ("李秀英", "13987654321")],
    "en": [("Zebulon Quist", "555-01-2233"), ("Wilma Ostrander", "555-01-4466")],
}


def rows(lang: str, *names: str, count: int = 24) -> list[dict[str, Any]]:
    """Notes with what a hospital's table holds beside them, under names in this order: number,
    patient, name, birth date, phone, time, text."""
    made = []
    for number in range(count):
        person, phone = PEOPLE[lang][number % 2]
        cells = (
            f"N{number:04d}",
            f"P{number % 8:03d}",
            f"{person} {'ABCDEFGH'[number % 8]}",
            f"19{50 + number % 8}-03-04",
            f"{phone[:-1]}{number % 8}",
            f"2024-05-{number % 28 + 1:02d} 09:30:00",
            f"{WORDS[lang][number % 2]} {number}",
        )
        made.append(dict(zip(names, cells, strict=True)))
    return made


EN = ("note_id", "patient_id", "patient_name", "dob", "phone", "written_at", "note")
VI = ("số phiếu", "mã BN", "Họ và tên", "Ngày sinh", "SĐT", "ngày ghi", "nội dung")
ZH = ("编号", "患者编号", "姓名", "出生日期", "联系电话", "记录时间", "病历")


def sheet(path: Path, made: list[dict[str, Any]], sign: str = ",", codec: str = "utf-8") -> Path:
    with path.open("w", encoding=codec, newline="") as file:
        out = csv.DictWriter(file, list(made[0]), delimiter=sign)
        out.writeheader()
        out.writerows(made)
    return path


def workbook(path: Path, made: list[dict[str, Any]]) -> Path:
    book = openpyxl.Workbook()
    for cells in [list(made[0]), *(list(row.values()) for row in made)]:
        book.active.append(cells)
    book.save(path)
    return path


def columnar(path: Path, made: list[dict[str, Any]]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(made), path)
    return path


def lines(path: Path, made: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), "utf-8")
    return path


def messages(path: Path) -> Path:
    path.write_text(
        "".join(
            f"MSH|^~\\&|A|B|C|D|202405010930||MDM^T02|M{n}|P|2.5\rPID|1||P{n}^^^H^MR||Quist^Zebulon\r"
            f"TXA|1|PN|TX|202405010930|||||||D{n}\rOBX|1|TX|1^note||{WORDS['en'][n % 2]}\r"
            for n in range(12)
        ),
        "utf-8",
    )
    return path


def documents(folder: Path) -> Path:
    folder.mkdir()
    for n in range(12):
        (folder / f"{n}.xml").write_text(
            '<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"><recordTarget><patientRole>'
            f'<id root="1" extension="P{n}"/></patientRole></recordTarget><component><structuredBody><component>'
            f"<section><title>History</title><text>{WORDS['en'][n % 2]}</text></section></component></structuredBody>"
            "</component></ClinicalDocument>",
            "utf-8",
        )
    return folder


def fhir_xml(path: Path) -> Path:
    inside = "".join(
        f'<entry><resource><Observation><id value="o{n}"/><status value="final"/><code><text value="x"/></code>'
        f'<subject><reference value="Patient/p{n}"/></subject><note><text value="{WORDS["vi"][n % 2]}"/></note>'
        "</Observation></resource></entry>"
        for n in range(12)
    )
    path.write_text(f'<Bundle xmlns="http://hl7.org/fhir">{inside}</Bundle>', "utf-8")
    return path


class Case(NamedTuple):
    make: Callable[[Path], Path]
    wanted: dict[str, Any]


COLUMNS_EN = {"id": "note_id", "patient": "patient_id", "text": "note", "written_at": "written_at"}
IDENTIFIERS_EN = {"name": "patient_name", "birth_date": "dob", "phone": "phone"}
CASES = {
    "csv, en": Case(
        lambda r: sheet(r / "a.csv", rows("en", *EN)),
        {"kind": "csv", "lang": "en", "columns": COLUMNS_EN, "identifiers": {**IDENTIFIERS_EN}},
    ),
    "csv, vi, semicolons, in utf-16": Case(
        lambda r: sheet(
            r / "a.csv",
            rows("vi", "so phieu", "ma BN", "Ho va ten", "Ngay sinh", "SDT", "ngay ghi", "noi dung"),
            ";",
            "utf-16",
        ),
        {
            "kind": "csv",
            "lang": "vi",
            "delimiter": ";",
            "encoding": "utf-16",
            "columns": {
                "id": "so phieu",
                "patient": "ma BN",
                "text": "noi dung",
                "written_at": "ngay ghi",
            },
            "identifiers": {
                "record": "ma BN",
                "name": "Ho va ten",
                "birth_date": "Ngay sinh",
                "phone": "SDT",
            },
        },
    ),
    "csv, zh, in gb18030": Case(
        lambda r: sheet(r / "a.csv", rows("zh", *ZH), codec="gb18030"),
        {
            "kind": "csv",
            "lang": "zh",
            "encoding": "gb18030",
            "columns": {"id": "编号", "patient": "患者编号", "text": "病历", "written_at": "记录时间"},
            "identifiers": {"name": "姓名", "birth_date": "出生日期", "phone": "联系电话"},
        },
    ),
    "workbook, vi": Case(
        lambda r: workbook(r / "a.xlsx", rows("vi", *VI)),
        {
            "kind": "xlsx",
            "lang": "vi",
            "columns": {
                "id": "số phiếu",
                "patient": "mã BN",
                "text": "nội dung",
                "written_at": "ngày ghi",
            },
            "identifiers": {
                "record": "mã BN",
                "name": "Họ và tên",
                "birth_date": "Ngày sinh",
                "phone": "SĐT",
            },
        },
    ),
    "parquet, en": Case(
        lambda r: columnar(r / "a.parquet", rows("en", *EN)),
        {"kind": "arrow", "lang": "en", "columns": COLUMNS_EN, "identifiers": IDENTIFIERS_EN},
    ),
    "json lines, zh": Case(
        lambda r: lines(r / "a.jsonl", rows("zh", *ZH)),
        {
            "kind": "jsonl",
            "lang": "zh",
            "columns": {"id": "编号", "patient": "患者编号", "text": "病历", "written_at": "记录时间"},
            "identifiers": {"name": "姓名", "birth_date": "出生日期", "phone": "联系电话"},
        },
    ),
    "a phone under a name that says nothing": Case(
        lambda r: sheet(
            r / "a.csv",
            rows("vi", "note_id", "patient_id", "x1", "x2", "x3", "written_at", "note"),
        ),
        {
            "kind": "csv",
            "lang": "vi",
            "columns": COLUMNS_EN | {"written_at": "written_at"},
            "identifiers": {"phone": "x3"},
        },
    ),
    "hl7": Case(lambda r: messages(r / "a.hl7"), {"kind": "hl7", "lang": "en"}),
    "documents": Case(
        lambda r: documents(r / "in"), {"kind": "ccda", "path": "../in", "lang": "en"}
    ),
    "fhir in xml": Case(lambda r: fhir_xml(r / "a.xml"), {"kind": "fhir", "lang": "vi"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_right_source_without_a_question(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    write_for([case.make(tmp_path)], tmp_path / "project", Answers({}))
    recipe = Recipe.load(tmp_path / "project/recipe.yaml")
    assert recipe.extract is not None and recipe.deid is not None
    found = yaml.safe_load((tmp_path / "project/recipe.yaml").read_text("utf-8"))["extract"]
    assert found == {"path": found["path"], **case.wanted}


LEFT_OPEN: dict[str, tuple[list[dict[str, Any]], str, str, str]] = {
    "labels beside names": (
        [row | {"label": "ab"[n % 2]} for n, row in enumerate(rows("en", *EN))],
        "do its notes identify people",
        "identified",
        "yes",
    ),
    "no number of a patient": (
        [{k: v for k, v in row.items() if k != "patient_id"} for row in rows("en", *EN)],
        "which column tells patients apart",
        "patient",
        "phone",
    ),
    "two times": (
        [row | {"written_at2": f"2023-01-{n + 1:02d}"} for n, row in enumerate(rows("en", "note_id", "patient_id", "patient_name", "dob", "phone", "seen", "note"))],
        "which says when the note was written",
        "written_at",
        "seen",
    ),
    "no number of a note": (
        [{"a": f"Z{n}Q", **{k: v for k, v in row.items() if k != "note_id"}} for n, row in enumerate(rows("en", *EN))],
        "which column holds the number of the note itself",
        "id",
        "a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OPEN)
def test_what_a_source_leaves_open_is_asked_and_no_value_is_told(name: str, tmp_path: Path) -> None:
    made, question, key, answer = LEFT_OPEN[name]
    file = sheet(tmp_path / "a.csv", made)
    with pytest.raises(UserError, match=f"{question}.*--answer {key}=") as error:
        write_for([file], tmp_path / "p", Answers({}))
    assert not (tmp_path / "p").exists()
    asked: list[Question] = []
    write_for([file], tmp_path / "p", Answers({}, lambda one: asked.append(one) or answer))  # type: ignore[func-returns-value]
    assert [one.key for one in asked] == [key]
    told = str(error.value) + "".join(one.words + " ".join(one.choices) for one in asked)
    told += (tmp_path / "p/recipe.yaml").read_text("utf-8")
    values = {str(value) for row in made for value in row.values() if len(str(value)) > 3}
    assert not [value for value in values if value in told]


def test_a_table_whose_first_row_is_a_patient_is_refused_without_a_word_of_it(
    tmp_path: Path,
) -> None:
    made = rows("en", *EN)
    for left in (0, 3, 5):  # whichever columns a file has
        path = tmp_path / f"{left}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([*row.values()][left:] for row in made)
        with pytest.raises(UserError) as error:
            write_for([path], tmp_path / "p", Answers({}))
        assert not re.search("Quist|555|fever|N000|P00|195", str(error.value))


def test_identified_no_reads_the_table_as_a_data_set(tmp_path: Path) -> None:
    made = [row | {"label": "ab"[n % 2]} for n, row in enumerate(rows("en", *EN))]
    write_for([sheet(tmp_path / "a.csv", made)], tmp_path / "p", Answers({"identified": "no", "near": "off"}))  # fmt: skip
    recipe = Recipe.load(tmp_path / "p/recipe.yaml")
    assert recipe.extract is None and recipe.tasks[0].card == "classify"


def test_the_next_command_is_named_and_takes_the_notes(
    tmp_path: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDENCY_KEY", "ab" * 32)
    done = cli(
        "init", tmp_path / "p", "--data", sheet(tmp_path / "a.csv", rows("vi", *VI)), check=0
    )
    assert "Nguyễn" not in done.stdout and "0903" not in done.stdout
    assert f"residency deid {tmp_path / 'p/recipe.yaml'}" in done.stdout.replace("\n", "")
    taken = cli("extract", tmp_path / "p/recipe.yaml", check=0)
    assert "24" in taken.stdout
