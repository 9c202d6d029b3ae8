"""Files that people come with: tables, data sets of Hugging Face, exports of annotation tools; and
files of kinds that are known and not read, which are refused by their name."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from test_label_files import (
    COUGH,
    DRUG,
    MARKED,
    TEXT,
    found,
    parquet_of,
    put,
    read,
    rows,
    xlsx_of,
    xmi_of,
)

from residency.core.errors import DataError
from residency.core.types import Relation
from residency.corpus.known_forms import SUFFIXES, Form, detect, unread
from residency.corpus.ledger import count_entries

NER = ["O", "B-S", "I-S", "B-D"]
SENTENCES = [(["Bé", "ho", "khan", ","], [0, 1, 2, 0]), (["uống", "ibuprofen"], [0, 3])]
LABEL = {"names": NER, "_type": "ClassLabel"}


def sentences() -> dict[str, list[Any]]:
    return {
        "id": ["1", "2"],
        "tokens": [tokens for tokens, _ in SENTENCES],
        "ner_tags": [tags for _, tags in SENTENCES],
    }


def features(kind: str) -> dict[str, Any]:
    text = {"dtype": "string", "_type": "Value"}
    return {
        "id": text,
        "tokens": {"feature": text, "_type": kind},
        "ner_tags": {"feature": LABEL, "_type": kind},
    }


# Tables


def test_a_workbook_is_read_below_its_header(tmp_path: Path) -> None:
    from datetime import datetime

    path = xlsx_of(
        tmp_path / "a.xlsx",
        [
            [],
            ["id", "body", "ward", "seen"],
            [7, TEXT, "A", datetime(2024, 5, 1)],
            [8.0, "Bé sốt.\nĐã khám.", "B", None],
        ],
    )
    notes, ledger = read(path, "xlsx", columns={"text": "body", "labels": "ward", "id": "id"})
    assert [(note.id, note.text, note.labels) for note in notes] == [
        ("7", TEXT, ("A",)),
        ("8", "Bé sốt.\nĐã khám.", ("B",)),
    ]
    assert count_entries(ledger.entries) == {"kept": {"": 2}}


def test_of_several_sheets_one_is_named(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    path = xlsx_of(tmp_path / "a.xlsx", [["text"], ["một"]])
    book = openpyxl.load_workbook(path)
    book.create_sheet("More").append(["text"])
    book["More"].append(["hai"])
    book.create_sheet("Empty")
    book.save(path)
    with pytest.raises(DataError, match=r"holds 2 sheets that are not empty \(More, Sheet\)"):
        read(path, "xlsx")
    notes, _ = read(path, "xlsx", sheet="More")
    assert [note.text for note in notes] == ["hai"]


@pytest.mark.parametrize(("format", "name"), [("xlsx", "a.xlsx"), ("arrow", "a.parquet")])
def test_a_file_that_is_cut_is_one_sentence(tmp_path: Path, format: str, name: str) -> None:
    pytest.importorskip("openpyxl")
    whole = (
        xlsx_of(tmp_path / name, [["text"], ["Nguyễn Văn An"]])
        if format == "xlsx"
        else parquet_of(tmp_path / name, {"text": ["Nguyễn Văn An"]})
    )
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(DataError) as refused:
        read(whole, format)
    assert "write it again" in str(refused.value) or "set format" in str(refused.value)
    assert "Nguyễn" not in str(refused.value)


@pytest.mark.parametrize("kind", ["Sequence", "List"])
def test_tags_of_a_hugging_face_data_set_have_their_names(tmp_path: Path, kind: str) -> None:
    path = parquet_of(tmp_path / "a.parquet", sentences(), features(kind))
    notes, ledger = read(path, "arrow")
    assert [(note.id, note.text, found(note)) for note in notes] == [
        ("1", "Bé ho khan ,", [("ho khan", "S")]),
        ("2", "uống ibuprofen", [("ibuprofen", "D")]),
    ]
    assert count_entries(ledger.entries) == {"kept": {"": 2}}


def test_a_folder_that_datasets_saved_is_read_without_its_caches(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    folder = tmp_path / "saved"
    folder.mkdir()
    table = pa.table(sentences())
    for name in ("data-00000-of-00001.arrow", "cache-0123456789abcdef.arrow"):
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as out,
        ):
            out.write_table(table)
    put(folder, json.dumps({"features": features("Sequence")}), "dataset_info.json")
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    put(folder, json.dumps(state), "state.json")
    notes, ledger = read(folder, "arrow")
    assert count_entries(ledger.entries)["left out"] == {"a cache beside a saved data set": 1}
    assert [found(note) for note in notes] == [[("ho khan", "S")], [("ibuprofen", "D")]]


def test_tags_that_are_numbers_without_names_are_refused(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "a.parquet", sentences())
    with pytest.raises(DataError, match="2 x tags are numbers, and the file does not name them"):
        read(path, "arrow")


def test_labels_of_texts_and_entities_in_columns_have_their_names(tmp_path: Path) -> None:
    told = {
        "labels": {"names": ["chronic", "acute"], "_type": "ClassLabel"},
        "entities": {
            "feature": {
                "start": {"dtype": "int32", "_type": "Value"},
                "end": {"dtype": "int32", "_type": "Value"},
                "label": {"names": ["S", "D"], "_type": "ClassLabel"},
            },
            "_type": "Sequence",
        },
    }
    marks = [[COUGH[0], DRUG[0]], [COUGH[1], DRUG[1]], [0, 1]]
    columns = {
        "text": [TEXT],
        "labels": [1],
        "entities": [dict(zip(("start", "end", "label"), marks, strict=True))],
    }
    (note,), _ = read(
        parquet_of(tmp_path / "a.parquet", columns, told), "arrow", offsets="characters"
    )
    assert (note.labels, found(note)) == (("acute",), MARKED)


# Label Studio's short exports


def short(id: int, *marks: tuple[tuple[int, int], str], **more: object) -> dict[str, object]:
    regions = [
        {"start": s, "end": e, "text": TEXT[s:e], "labels": [label]} for (s, e), label in marks
    ]
    return {"id": id, "text": TEXT, "label": regions, "annotator": 1, "annotation_id": id, **more}


def test_json_min_and_csv_of_label_studio_say_what_json_says(tmp_path: Path) -> None:
    tasks = [
        short(1, (COUGH, "S"), (DRUG, "D"), sentiment="good"),
        short(2, sentiment={"choices": ["good", "bad"]}),
    ]
    names = list(tasks[0])
    lines = [names] + [
        [
            one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)
            for one in (task[name] for name in names)
        ]
        for task in tasks
    ]
    import csv

    out = StringIO()
    csv.writer(out).writerows(lines)
    for name, content in (("a.json", json.dumps(tasks)), ("a.csv", out.getvalue())):
        notes, ledger = read(put(tmp_path, content, name), "label_studio", choice="sentiment")
        assert [(note.id, found(note), note.labels) for note in notes] == [
            ("1", MARKED, ("good",)),
            ("2", [], ("good", "bad")),
        ]
        assert count_entries(ledger.entries) == {"kept": {"": 2}}


def test_two_annotations_of_a_task_in_json_min_that_differ_are_for_people_to_settle(
    tmp_path: Path,
) -> None:
    two = [short(1, (COUGH, "S")), short(1, (DRUG, "D"), annotator=2), short(2, (DRUG, "D"))]
    notes, ledger = read(put(tmp_path, json.dumps(two), "a.json"), "label_studio", max_rejected=0.5)
    assert [note.id for note in notes] == ["2"]
    assert count_entries(ledger.entries)["rejected"] == {
        "annotations of the task differ; adjudicate them first": 1
    }
    notes, _ = read(tmp_path / "a.json", "label_studio", annotator="2", max_rejected=0.5)
    assert [found(note) for note in notes] == [[("ibuprofen", "D")]]


# XMI


def test_xmi_spans_stand_where_utf_16_units_say(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    path = put(tmp_path, xmi_of(TEXT, [COUGH, DRUG]), "a.xmi")
    root = ElementTree.parse(path).getroot()
    units = next(one.get("sofaString", "") for one in root if one.get("sofaString")).encode(
        "utf-16-le"
    )
    marked = [one.attrib for one in root if one.get("value")]
    words = [
        units[2 * int(one["begin"]) : 2 * int(one["end"])].decode("utf-16-le") for one in marked
    ]
    (note,), _ = read(path, "xmi")
    assert note.text == units.decode("utf-16-le") == TEXT
    assert [span.quote for span in note.spans] == words == ["ho khan", "ibuprofen"]
    assert [(span.start, span.end) for span in note.spans] == [COUGH, DRUG]


def test_xmi_layers_of_its_users_and_relations_are_read(tmp_path: Path) -> None:
    whole = (
        xmi_of("ho ibuprofen", [])
        .replace("xmi:version", 'xmlns:custom="http:///webanno/custom.ecore" xmi:version')
        .replace(
            "<cas:Sofa",
            '<custom:Finding xmi:id="7" sofa="1" begin="0" end="2" Kind="S" identifier="C1"/>'
            '<custom:Finding xmi:id="8" sofa="1" begin="3" end="12" Kind="D"/>'
            '<custom:Link xmi:id="9" sofa="1" Governor="8" Dependent="7" label="treats"/><cas:Sofa',
        )
    )
    path = put(tmp_path, whole, "a.xmi")
    (note,), _ = read(path, "xmi")
    assert [(one.quote, one.label, one.code) for one in note.spans] == [
        ("ho", "S", "C1"),
        ("ibuprofen", "D", None),
    ]
    assert note.relations == (Relation(head=1, tail=0, label="treats"),)
    with pytest.raises(DataError, match="has span layers Finding; set layer"):
        read(path, "xmi", layer="Other")


# CCKS


def test_ccks_2017_is_read_in_pairs_by_its_words(tmp_path: Path) -> None:
    text = "患者右髋部疼痛3天，行CT检查。"
    put(tmp_path, text, "现病史-1.txtoriginal.txt")
    put(tmp_path, "右髋部\t2\t4\t身体部位\n疼痛\t5\t6\t症状和体征\n", "现病史-1.txt")
    (note,), ledger = read(tmp_path, "ccks")
    assert [(one.start, one.end, one.quote, one.label) for one in note.spans] == [
        (2, 5, "右髋部", "身体部位"),
        (5, 7, "疼痛", "症状和体征"),
    ]
    assert (note.text, count_entries(ledger.entries)) == (
        text,
        {"kept": {"": 1}, "left out": {"entities, read together with their text": 1}},
    )


def test_ccks_2019_is_read_by_line_and_nested_entities_stay(tmp_path: Path) -> None:
    text = "直肠癌根治术后。"
    marks = [
        {"start_pos": 0, "end_pos": 6, "label_type": "手术", "overlap": 0},
        {"start_pos": 0, "end_pos": 3, "label_type": "疾病和诊断", "overlap": 1},
    ]
    path = put(tmp_path, "\ufeff" + rows({"originalText": text, "entities": marks}), "a.txt")
    (note,), _ = read(path, "ccks")
    assert [(one.quote, one.label) for one in note.spans] == [
        ("直肠癌", "疾病和诊断"),
        ("直肠癌根治术", "手术"),
    ]


def test_cmeee_is_read_with_ends_that_count_the_last_character(tmp_path: Path) -> None:
    text = "房室结消融治疗心动过速"
    marks = [
        {"start_idx": 0, "end_idx": 4, "type": "pro", "entity": "房室结消融"},
        {"start_idx": 0, "end_idx": 2, "type": "bod", "entity": "房室结"},
    ]
    path = put(tmp_path, json.dumps([{"text": text, "entities": marks}]), "a.json")
    (note,), _ = read(path, "jsonl")
    assert found(note) == [("房室结", "bod"), ("房室结消融", "pro")]


# What a file is

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def docx(path: Path) -> None:
    with ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", "<w/>")


@pytest.mark.parametrize(
    ("name", "begins", "told"),
    [
        ("a.dat", OLE, "old Excel or Word"),
        ("a.dat", b"%PDF-1.7", "a PDF"),
        ("a.dat", b"\0" * 128 + b"DICM", "DICOM"),
        ("a.dat", b"\x00\x01\x00\x00Standard Jet DB\x00", "Access"),
        ("a.dat", b"\x00\x01\x00\x00Standard ACE DB\x00", "Access"),
        ("a.dat", b"$FL2@(#) SPSS DATA FILE", "SPSS"),
        ("a.dat", b"\0" * 12 + b"\xc2\xea\x81\x60\xb3\x14\x11\xcf", "SAS"),
        ("a.dat", b"<stata_dta><header>", "Stata"),
        ("a.dat", b"RDX3\nX\n", "a file of R"),
        ("a.dat", b"SQLite format 3\0", "SQLite"),
        ("a.dat", b"\x89HDF\r\n", "HDF5"),
        ("a.dat", b"7z\xbc\xaf'\x1c", "packed"),
    ],
)
def test_a_file_that_is_known_and_not_read_is_refused_by_how_it_begins(
    tmp_path: Path, name: str, begins: bytes, told: str
) -> None:
    path = put(tmp_path, begins + b"\0" * 32, name)
    assert told in unread(path)
    with pytest.raises(DataError, match=f"is .*{told}.*; it is not read as a data set"):
        read(path, "jsonl")


def test_a_word_document_is_refused_by_its_name(tmp_path: Path) -> None:
    docx(tmp_path / "a.dat")
    with pytest.raises(DataError, match=r"is a Word document \(docx\); it is not read"):
        read(tmp_path / "a.dat", "jsonl")


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_a_file_that_is_known_and_not_read_is_refused_by_its_suffix(
    tmp_path: Path, suffix: str
) -> None:
    path = put(tmp_path, b"\x07\x08\x09", f"a{suffix.upper()}")
    with pytest.raises(DataError, match="it is not read as a data set"):
        read(path, "jsonl")
    assert unread(path) == SUFFIXES[suffix]


@pytest.mark.parametrize(
    ("name", "content", "format", "kind"),
    [
        ("a.jsonl", rows({"text": TEXT, "label": [[*COUGH, "S"]]}), "doccano", ""),
        (
            "a.jsonl",
            rows({"text": TEXT, "spans": [{"start": 0, "end": 2}], "answer": "accept"}),
            "prodigy",
            "",
        ),
        ("a.json", json.dumps([{"data": {"text": TEXT}, "annotations": []}]), "label_studio", ""),
        ("a.json", json.dumps([short(1, (COUGH, "S"))]), "label_studio", ""),
        ("a.csv", "annotation_id,annotator,id,text\n", "label_studio", ""),
        ("a.xmi", xmi_of(TEXT, [COUGH]), "xmi", ""),
        ("a.txt", rows({"originalText": TEXT, "entities": []}), "ccks", ""),
        ("a.json", rows({"words": ["a"], "tags": ["O"]}), "phoner", ""),
        ("a.jsonl", rows({"text": TEXT, "entities": []}), "jsonl", "jsonl"),
        ("a.ndjson", rows({"resourceType": "DocumentReference"}), "fhir", "fhir"),
        ("a.csv", "ROW_ID,SUBJECT_ID,CHARTTIME,CATEGORY,ISERROR,TEXT\n", "csv", "csv"),
        ("a.csv", "note_id\tperson_id\tnote_datetime\tnote_title\tnote_text\n", "csv", "csv"),
        ("a.csv", "id,text\n", "csv", "csv"),
        ("a.xml", '<?xml version="1.0"?><GIAMDINHHS>', "", "claims"),
        ("a.xml", '<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3">', "", "ccda"),
        ("a.hl7", "MSH|^~\\&|A", "", "hl7"),
        ("a.hl7", "FHS|^~\\&|A\rBHS|^~\\&|A\rMSH|^~\\&|A", "", "hl7"),
        ("a.xml", '<Bundle xmlns="http://hl7.org/fhir"><entry/></Bundle>', "", "fhir"),
        ("a.json", '{"resourceType":\n "Bundle"}', "fhir", "fhir"),
        ("a.json", json.dumps({"projects": [{"project": {}, "tasks": []}]}), "label_studio", ""),
        ("a.json", json.dumps({"version": "1", "data": [{"text": TEXT, "label": "x"}]}), "", ""),
        ("a.json", json.dumps({"data": [{"title": "x", "paragraphs": []}]}, indent=1), "", ""),
        ("a.json", rows({"turns": [{"who": "a"}]}, {"turns": [{"who": "a"}]}), "jsonl", "jsonl"),
        ("a.xml", '<?xml version="1.0"?>\n<GateDocument version="3">', "", ""),
        ("a.spacy", "anything", "", ""),
        ("a.txt", "1|t|Ho\n1|a|Khan\n", "pubtator", ""),
        ("a.tsv", "Ho\tB-S\nkhan\tI-S\n.\tO\n", "conll", ""),
    ],
)
def test_what_a_file_is_is_told(
    tmp_path: Path, name: str, content: str, format: str, kind: str
) -> None:
    seen = detect(put(tmp_path, content, name))
    assert isinstance(seen, Form) and (seen.format, seen.kind) == (format, kind)


def test_tables_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    workbook = detect(xlsx_of(tmp_path / "a.dat", [["text"]]))
    columns = detect(parquet_of(tmp_path / "b.dat", {"text": ["x"]}))
    assert workbook and (workbook.format, workbook.kind) == ("xlsx", "xlsx")
    assert columns and (columns.format, columns.kind) == ("arrow", "arrow")
    assert detect(put(tmp_path, "Bé sốt.", "c.txt")) is None
    for content in ("", "[]", "[", "{", "[[]]", "{}", "[1]", "\n"):  # said where it is read
        seen = detect(put(tmp_path, content, "d.json"))
        assert seen is None or seen.format == "jsonl", content


def test_the_columns_of_a_known_table_are_named_as_the_file_writes_them(tmp_path: Path) -> None:
    path = put(tmp_path, "Note_Id,PERSON_ID,NOTE_DATETIME,NOTE_TITLE,NOTE_TEXT\n", "a.csv")
    seen = detect(path)
    assert seen and seen.name == "notes of OMOP"
    assert seen.columns == {
        "id": "Note_Id",
        "patient": "PERSON_ID",
        "text": "NOTE_TEXT",
        "kind": "NOTE_TITLE",
        "written_at": "NOTE_DATETIME",
    }
