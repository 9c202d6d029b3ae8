"""Files are taken once, by name and content; rows and documents are all accounted for."""

from __future__ import annotations

import csv
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest

from residency.core.errors import DataError, UserError
from residency.core.part import parse
from residency.core.progress import Silent
from residency.corpus.known_forms import detect
from residency.ingest.rows import DELETED, NO_ID, NO_TEXT
from residency.ingest.sources import AnySource, Extract
from residency.ingest.store import Store
from residency.ingest.transfer import Extraction, take

HEADER = "id,patient,text,name\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "zone").mkdir()
    return Store.open(tmp_path / "zone", "ward", b"k" * 32)


def source(**values: Any) -> AnySource:
    made: AnySource = parse(Extract, values, "extract")
    return made


def csv_source(**more: Any) -> AnySource:
    return source(kind="csv", path="in", identifiers={"name": "name"}, lang="vi", **more)


def write(root: Path, name: str, text: str) -> Path:
    path = root / "in" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def taken(store: Store, settings: AnySource, root: Path) -> Extraction:
    return take(settings, root, store, Silent())


def ids(store: Store) -> list[str]:
    return [note.id for number in store.numbers(0) for note in store.read(number)]


def test_every_row_of_a_table_is_taken_or_counted_with_its_reason(
    tmp_path: Path, store: Store
) -> None:
    write(
        tmp_path,
        "a.csv",
        HEADER + '1,P1,"sốt, ""cao""\nho",An\n2,P1,,An\n,P1,text,An\n\n3,P2,đau,\n',
    )
    done = taken(store, csv_source(), tmp_path)
    assert (done.taken, done.skipped) == (2, {NO_TEXT: 1, NO_ID: 1})
    first, last = store.read(1)
    assert (
        first.text == 'sốt, "cao"\nho'
        and first.identifiers == (("name", "An"),)
        and first.lang == "vi"
    )
    assert last.identifiers == ()


def test_a_file_is_taken_once_and_new_files_after_it(tmp_path: Path, store: Store) -> None:
    write(tmp_path, "a.csv", HEADER + "1,P1,sốt,An\n")
    assert taken(store, csv_source(), tmp_path).files == 1
    assert taken(store, csv_source(), tmp_path).files == 0
    write(tmp_path, "b.csv", HEADER + "2,P1,ho,An\n")
    assert taken(store, csv_source(), tmp_path).taken == 1
    assert ids(store) == ["1", "2"]


def test_a_file_that_changed_is_refused_and_not_named(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, "NguyenVanAn.csv", HEADER + "1,P1,sốt,An\n")
    taken(store, csv_source(), tmp_path)
    path.write_text(HEADER + "1,P1,sốt cao,An\n2,P1,ho,An\n", "utf-8")
    with pytest.raises(
        UserError, match=r"file 1 of 1 \(by name\) changed after it was taken"
    ) as refused:
        taken(store, csv_source(), tmp_path)
    assert "Nguyen" not in str(refused.value)
    done = taken(store, csv_source(changed="new"), tmp_path)
    assert (done.taken, done.amended, done.skipped) == (1, 1, {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,patient\n1,P1\n", "extract.columns.text: file 1 of 1 (by name) has no column 'text'"),
        (HEADER + "1,P1\n", "row 2: has 2 cells and the header 4"),
        (HEADER + '1,P1,"x,An\n', "is not CSV"),
    ],
)
def test_a_table_that_does_not_fit_is_one_sentence(
    tmp_path: Path, store: Store, text: str, sentence: str
) -> None:
    write(tmp_path, "a.csv", text)
    with pytest.raises(UserError) as refused:
        taken(store, csv_source(), tmp_path)
    assert sentence in str(refused.value)
    assert ids(store) == []


def test_a_table_without_names_shows_nobody(tmp_path: Path, store: Store) -> None:
    write(tmp_path, "a.csv", "1,P1,Nguyễn Văn An bị sốt,Nguyễn Văn An\n")
    with pytest.raises(UserError, match="no column 'id' among its 4") as refused:
        taken(store, csv_source(), tmp_path)
    assert "Nguyễn" not in str(refused.value)


def test_a_table_in_an_old_encoding_is_read_when_it_is_named(tmp_path: Path, store: Store) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_bytes((HEADER + "1,P1,患者发热,王芳\n").encode("gb18030"))
    with pytest.raises(DataError, match="is not UTF-8"):
        taken(store, csv_source(), tmp_path)
    taken(store, csv_source(encoding="gb18030"), tmp_path)
    assert store.read(1)[0].text == "患者发热" and store.read(1)[0].identifiers == (
        ("name", "王芳"),
    )


def test_identifiers_in_a_font_encoding_are_letters_too(tmp_path: Path, store: Store) -> None:
    write(tmp_path, "a.csv", HEADER + "1,P1,NguyÔn V¨n Tó bÞ sèt,NguyÔn V¨n Tó\n2,P1,Nguyễn,x\n")
    done = taken(store, csv_source(encoding="tcvn3"), tmp_path)
    assert store.read(1)[0].text == "Nguyễn Văn Tú bị sốt" and store.read(1)[0].identifiers == (
        ("name", "Nguyễn Văn Tú"),
    )
    assert done.skipped == {"the text cannot be read in this encoding": 1}


def test_json_lines_bring_their_labels(tmp_path: Path, store: Store) -> None:
    rows = [
        {
            "id": 1,
            "patient": "P1",
            "text": "đau bụng",
            "spans": [{"start": 0, "end": 3, "label": "SYMPTOM"}],
        },
        {
            "id": 2,
            "patient": "P1",
            "text": "<p>đau</p>",
            "spans": [{"start": 3, "end": 6, "label": "SYMPTOM"}],
        },
    ]
    write(tmp_path, "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    done = taken(store, source(kind="jsonl", path="in/*.jsonl", lang="vi"), tmp_path)
    first, second = store.read(1)
    assert [(span.quote, span.label) for span in first.spans] == [("đau", "SYMPTOM")]
    assert second.text == "đau" and not second.spans and done.labels_left == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"id": 1', "line 1: is not a JSON object"),
        ('{"id": 1, "text": "x"}', "has no column 'patient'"),
        ('{"id": 1, "patient": 1, "text": "x", "spans": [{"start": 0}]}', "a span needs"),
    ],
)
def test_json_lines_that_do_not_fit_are_one_sentence(
    tmp_path: Path, store: Store, line: str, sentence: str
) -> None:
    write(tmp_path, "a.jsonl", line)
    with pytest.raises(UserError) as refused:
        taken(store, source(kind="jsonl", path="in"), tmp_path)
    assert sentence in str(refused.value)


TABLE = [
    {
        "id": 1,
        "patient": "P1",
        "text": "Sốt cao\nho 😀",
        "at": datetime(2026, 5, 1, 9, 30),
        "name": "An",
    },
    {"id": 2, "patient": "P2", "text": "", "at": None, "name": "Ba"},
    {"id": 3, "patient": "P2", "text": "患者发热", "at": datetime(2026, 5, 2), "name": "Ba"},
]


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as the library of each kind of file writes them."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".xlsx":
        book = openpyxl.Workbook()
        for cells in [list(rows[0]), *(list(row.values()) for row in rows)]:
            book.active.append(cells)
        book.save(path)
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        feather.write_feather(
            pyarrow.Table.from_pylist(rows), str(path), compression="uncompressed"
        )


@pytest.mark.parametrize(
    ("kind", "name"), [("xlsx", "a.xlsx"), ("arrow", "a.parquet"), ("arrow", "a.feather")]
)
def test_rows_of_workbooks_and_columnar_files_are_notes(
    tmp_path: Path, store: Store, kind: str, name: str
) -> None:
    write_table(tmp_path / "in" / name, TABLE)
    found = detect(tmp_path / "in" / name)
    assert found and found.kind == kind
    settings = source(
        kind=kind, path="in", lang="vi", columns={"written_at": "at"}, identifiers={"name": "name"}
    )
    done = taken(store, settings, tmp_path)
    assert (done.taken, done.skipped, done.files) == (2, {NO_TEXT: 1}, 1)
    told = [
        (one.id, one.patient, one.text, one.written_at, one.identifiers) for one in store.read(1)
    ]
    assert told == [
        (str(row["id"]), row["patient"], row["text"], row["at"], (("name", row["name"]),))
        for row in TABLE
        if row["text"]
    ]


@pytest.mark.parametrize(
    ("kind", "name"), [("xlsx", "NguyenVanAn.xlsx"), ("arrow", "NguyenVanAn.parquet")]
)
def test_a_workbook_that_does_not_fit_is_one_sentence_without_its_name(
    tmp_path: Path, store: Store, kind: str, name: str
) -> None:
    write_table(tmp_path / "in" / name, [{"id": 1, "patient": "Trần An"}])
    with pytest.raises(UserError, match="has no column 'text' among its 2") as lacking:
        taken(store, source(kind=kind, path="in"), tmp_path)
    (tmp_path / "in" / name).write_bytes(b"PAR1 Tr\xc3\xa2n An")
    with pytest.raises(DataError, match=r"file 1 of 1 \(by name\): is no whole") as broken:
        taken(store, source(kind=kind, path="in"), tmp_path)
    told = f"{lacking.value}{broken.value}"
    assert "Nguyen" not in told and "Trần" not in told


def test_notes_of_mimic_are_read_by_their_columns_and_errors_are_not_taken(
    tmp_path: Path, store: Store
) -> None:
    head = "ROW_ID,SUBJECT_ID,CHARTTIME,CATEGORY,ISERROR,TEXT\n"
    rows = '1,22,2150-01-02 03:04:00,Nursing,,"Fever, ""high""."\n2,22,,Nursing,1,Wrong patient.\n'
    columns = detect(write(tmp_path, "NOTEEVENTS.csv", head + rows))
    assert columns and columns.name == "notes of MIMIC"
    done = taken(store, source(kind="csv", path="in", columns=columns.columns), tmp_path)
    (note,) = store.read(1)
    assert (note.id, note.patient, note.text, note.kind) == ("1", "22", 'Fever, "high".', "Nursing")
    assert (done.taken, done.skipped) == (1, {DELETED: 1})


def test_no_file_is_one_sentence(tmp_path: Path, store: Store) -> None:
    with pytest.raises(UserError, match="there is no file"):
        taken(store, csv_source(), tmp_path)


def test_labels_do_not_go_with_a_format_that_is_taken_apart() -> None:
    with pytest.raises(UserError, match="their offsets count the RTF text"):
        source(
            url="env:X",
            notes="SELECT 1 AS id",
            labels="SELECT 1, 2, 3, 4",
            columns={"format": "rtf"},
        )


def test_a_source_without_a_kind_is_sql_and_an_unknown_one_is_named() -> None:
    assert source(url="env:X", notes="SELECT 1 AS id").kind == "sql"
    with pytest.raises(UserError, match=r"kind: 'cvs' is not known"):
        source(kind="cvs", path="x")


HIS = (
    Path(
        os.environ.get("RESIDENCY_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared/data")
    )
    / "his"
)
needs_his = pytest.mark.skipif(
    not HIS.is_dir(),
    reason="the public records are not here; name their folder in RESIDENCY_SHARED_DATA",
)


@pytest.mark.data
@needs_his
def test_public_messages_give_their_notes_and_name_their_patients(store: Store) -> None:
    done = taken(store, source(kind="hl7", path=str(HIS / "hl7v2"), lang="en"), HIS)
    assert (done.taken, done.skipped, done.files) == (3, {NO_TEXT: 2}, 5)
    clark = next(note for note in store.read(1) if note.patient == "3196695816")
    assert ("name", "Frederick Clark") in clark.identifiers and (
        "birth_date",
        "1930-01-22",
    ) in clark.identifiers
    assert clark.text.count("\n") >= 22


@pytest.mark.data
@needs_his
def test_public_documents_give_their_narrative_and_name_their_people(store: Store) -> None:
    done = taken(store, source(kind="ccda", path=str(HIS / "ccda"), lang="en"), HIS)
    assert done.taken == 2
    discharge, progress = store.read(1)
    assert (
        "CHIEF COMPLAINT\nDark stools." in discharge.text
        and ("name", "Isabella Jones") in discharge.identifiers
    )
    assert {
        ("name", "Adam Everyman"),
        ("national_id", "111-00-1234"),
        ("relative", "Ralph Relative"),
    } <= set(progress.identifiers)


@pytest.mark.data
@needs_his
def test_public_tables_are_read_to_their_last_row(tmp_path: Path, store: Store) -> None:
    settings = source(
        kind="csv",
        path=str(HIS / "synthea_csv/encounters.csv"),
        lang="en",
        columns={
            "id": "Id",
            "patient": "PATIENT",
            "text": "DESCRIPTION",
            "written_at": "START",
            "kind": "ENCOUNTERCLASS",
        },
        identifiers={"other": "PROVIDER"},
    )
    with (HIS / "synthea_csv/encounters.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    done = taken(store, settings, HIS)
    assert done.taken + sum(done.skipped.values()) == len(rows)
    assert {note.patient for number in store.numbers(0) for note in store.read(number)} == {
        row["PATIENT"] for row in rows
    }
