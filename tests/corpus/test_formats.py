"""Each format with its warts, on hand-made files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import DataError
from residency.core.part import parse
from residency.core.types import Note, Relation
from residency.corpus.formats.conll import decode
from residency.corpus.ledger import Ledger, count_entries
from residency.corpus.load import Data, read_parts
from residency.corpus.reader import Source


def read(path: Path, format: str, **settings: Any) -> tuple[list[Note], Ledger]:
    source: Source = parse(Data, {"format": format, "path": path.name, **settings}, "data.x")
    ledger = Ledger(path.parent)
    notes = [ledger.add_row(row, path, source) for row in source.rows(path)]
    return [note for note in notes if note], ledger


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def found(note: Note) -> list[tuple[str, str]]:
    return [(span.quote, span.label) for span in note.spans]


# CoNLL


@pytest.mark.parametrize(
    ("scheme", "tags", "entities", "repairs"),
    [
        ("bio", "O B-X I-X B-X I-Y", [(1, 2, "X"), (3, 3, "X"), (4, 4, "Y")], 1),
        ("bio", "I-X I-X O I-X", [(0, 1, "X"), (3, 3, "X")], 2),
        ("iob1", "I-X B-X I-X I-Y", [(0, 0, "X"), (1, 2, "X"), (3, 3, "Y")], 0),
        ("io", "I-X I-X I-Y O I-X", [(0, 1, "X"), (2, 2, "Y"), (4, 4, "X")], 0),
        ("io", "X X O Y", [(0, 1, "X"), (3, 3, "Y")], 0),
        ("bioes", "B-X I-X E-X S-X S-Y O", [(0, 2, "X"), (3, 3, "X"), (4, 4, "Y")], 0),
        ("bioes", "B-X O E-X B-Y S-Y", [(0, 0, "X"), (2, 2, "X"), (3, 3, "Y"), (4, 4, "Y")], 3),
        ("bioes", "B_X M_X E_X", [(0, 2, "X")], 0),
        ("bioes", "B-X L-X U-X", [(0, 1, "X"), (2, 2, "X")], 0),
    ],
)
def test_tags_are_read_by_their_scheme(scheme: Any, tags: str, entities: list[Any], repairs: int):
    assert decode(tags.split(), scheme)[0] == entities
    assert len(decode(tags.split(), scheme)[1]) == repairs


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("I-X I-X O", ["a b"]),  # IO
        ("B-X B-X I-X", ["a", "b c"]),  # BIO
        ("I-X B-X O", ["a", "b"]),  # IOB1
        ("B-X E-X S-X", ["a b", "c"]),  # BIOES
    ],
)
def test_the_scheme_is_found_from_the_tags(tmp_path: Path, tags: str, entities: list[str]):
    lines = "\n".join(f"{token} {tag}" for token, tag in zip("abc", tags.split(), strict=True))
    notes, ledger = read(write(tmp_path, "a.txt", lines), "conll")
    assert [span.quote for span in notes[0].spans] == entities
    assert count_entries(ledger.entries) == {"kept": {"": 1}}


def test_tabs_blanks_line_ends_and_a_byte_order_mark_make_no_difference(tmp_path: Path):
    for content in (
        "a O\nb I-X\n\nc O\n",
        "a\tO\r\nb\tI-X\r\n\r\nc\tO",
        "\ufeffa  O \nb   I-X\n \n\n\nc O",
    ):
        notes, _ = read(write(tmp_path, "a.txt", content), "conll")
        assert [note.text for note in notes] == ["a b", "c"]
        assert found(notes[0]) == [("b", "X")]


def test_sentences_are_named_by_file_and_line_and_grouped_by_document(tmp_path: Path):
    notes, _ = read(
        write(tmp_path, "a.txt", "-DOCSTART- O\n\na O\n\nb O\n\n-DOCSTART- O\n\nc O\n"), "conll"
    )
    assert [note.id for note in notes] == ["a-3", "a-5", "a-9"]
    assert [note.group for note in notes] == ["document 1", "document 1", "document 2"]


def test_chinese_tokens_are_joined_without_blanks_and_a_blank_may_be_a_token(tmp_path: Path):
    notes, _ = read(write(tmp_path, "a.txt", "肝 B-X\n癌 I-X\n  O\n痛 B-Y\n"), "conll", joiner="")
    assert (notes[0].text, found(notes[0])) == ("肝癌 痛", [("肝癌", "X"), ("痛", "Y")])


def test_columns_are_chosen_by_index(tmp_path: Path):
    notes, _ = read(write(tmp_path, "a.txt", "1 a B-X NN\n2 b O NN\n"), "conll", token=1, tag=2)
    assert (notes[0].text, found(notes[0])) == ("a b", [("a", "X")])


def test_a_column_that_is_not_there_names_those_that_are(tmp_path: Path):
    with pytest.raises(DataError, match=r"a.txt:1: has no column '3'; present: 0, 1; set tag"):
        read(write(tmp_path, "a.txt", "a O\n"), "conll", tag=3)


def test_a_line_without_a_tag_rejects_its_sentence_only(tmp_path: Path):
    notes, ledger = read(write(tmp_path, "a.txt", "a O\n\nb\nc O\n\nd O\n"), "conll")
    assert [note.text for note in notes] == ["a", "d"]
    assert [(e.line, e.status, e.reason) for e in ledger.entries][1] == (
        3,
        "rejected",
        "a line has too few columns",
    )


def test_an_entity_without_a_start_tag_is_a_repair_that_is_counted(tmp_path: Path):
    notes, ledger = read(write(tmp_path, "a.txt", "a B-X\nb O\nc I-X\n"), "conll")
    assert found(notes[0]) == [("a", "X"), ("c", "X")]
    assert count_entries(ledger.entries) == {"repaired": {"entity without a start tag": 1}}


# brat


def brat(folder: Path, text: str, annotations: str, **settings: Any) -> tuple[list[Note], Ledger]:
    write(folder, "7.ann", annotations)
    return read(write(folder, "7.txt", text), "brat", **settings)


def test_brat_reads_entities_codes_attributes_and_relations(tmp_path: Path):
    notes, ledger = brat(
        tmp_path,
        "no fever, cough",
        "T2\tSign 10 15\tcough\nT1\tSign 3 8\tfever\nA1\tNegated T1\nA2\tCertainty T2 "
        "high\nN1\tReference T1 ICD:R50\tx\n"
        "N2\tReference T1 ICD:R51\nR1\tWith Arg1:T1 Arg2:T2\n#1\tAnnotatorNotes "
        "T1\tsure?\nE1\tSign:T1\n*\tEquiv T1 T2\n",
    )
    note = notes[0]
    assert (note.id, note.group) == ("7", "7")
    assert found(note) == [("fever", "Sign"), ("cough", "Sign")]
    assert (note.spans[0].code, note.spans[0].attributes) == ("ICD:R50|ICD:R51", ("Negated",))
    assert note.spans[1].attributes == ("Certainty=high",)
    assert note.relations == (Relation(head=0, tail=1, label="With"),)
    assert count_entries(ledger.entries) == {
        "kept": {"": 1},
        "not taken": {"event not taken": 1, "equivalence not taken": 1},
    }


@pytest.mark.parametrize("offsets", ["4 9", "5 10"])  # CRLF counted as one character, then as two
def test_brat_texts_with_crlf_are_read_exactly_however_they_were_counted(
    tmp_path: Path, offsets: str
):
    notes, _ = brat(tmp_path, "abc\r\nfever", f"T1\tSign {offsets}\tfever\n")
    assert notes[0].text == "abc\r\nfever"
    assert found(notes[0]) == [("fever", "Sign")]


def test_a_remark_with_a_t_number_is_no_entity(tmp_path: Path):
    notes, ledger = brat(tmp_path, "fever", "T1\tSign 0 5\tfever\nT2\tAnnotatorNotes T1\t(?)\n")
    assert found(notes[0]) == [("fever", "Sign")]
    assert count_entries(ledger.entries) == {"kept": {"": 1}}


def test_any_other_t_line_that_cannot_be_read_rejects_the_note_and_names_its_line(tmp_path: Path):
    notes, ledger = brat(tmp_path, "fever", "T1\tSign 0 5\tfever\nT2\tSign zero 5\tfever\n")
    assert notes == []
    entry = ledger.entries[0]
    assert (entry.file, entry.line, entry.reason) == ("7.ann", 2, "entity line cannot be read")


BROKEN = "T1\tSign 0 5;6 10\tchest pain\nT2\tSign 11 16\tfever\n"


def test_a_discontinuous_span_rejects_its_note_unless_dropping_is_asked_for(tmp_path: Path):
    notes, ledger = brat(tmp_path, "chest\npain fever", BROKEN)
    assert notes == []
    assert count_entries(ledger.entries) == {"rejected": {"span is discontinuous": 1}}
    notes, ledger = brat(tmp_path, "chest\npain fever", BROKEN, on_bad_span="drop_span")
    assert found(notes[0]) == [("fever", "Sign")]
    assert count_entries(ledger.entries) == {"repaired": {"span dropped: span is discontinuous": 1}}


def test_a_span_that_brat_broke_at_a_line_end_is_joined_where_that_is_asked_for(tmp_path: Path):
    notes, _ = brat(tmp_path, "chest\npain fever", BROKEN, join_lines=True)
    assert found(notes[0]) == [("chest\npain", "Sign"), ("fever", "Sign")]


def test_a_text_without_annotation_file_is_rejected(tmp_path: Path):
    notes, ledger = read(write(tmp_path, "7.txt", "fever"), "brat")
    assert notes == []
    assert next(iter(count_entries(ledger.entries)["rejected"])).startswith("there is no .ann file")


# PubTator

PUBTATOR = (
    "1|t|Title x\n1|a|Has "
    "fever.\n1\t12\t17\tfever\tSign\tR50\n1\tCID\tD1\tD2\n\n2|t|Two\n2|a|B\n2\t0\t3\tTwo\tSign\t-1\n"
)


def test_pubtator_reads_title_and_abstract_with_offsets_across_both(tmp_path: Path):
    notes, ledger = read(write(tmp_path, "a.txt", PUBTATOR), "pubtator")
    assert [(note.id, note.group) for note in notes] == [("1", "1"), ("2", "2")]
    assert notes[0].text == "Title x\nHas fever."
    assert [(s.quote, s.label, s.code) for n in notes for s in n.spans] == [
        ("fever", "Sign", "R50"),
        ("Two", "Sign", None),
    ]
    assert count_entries(ledger.entries) == {"kept": {"": 2}}


def test_pubtator_documents_need_no_blank_line_between_them(tmp_path: Path):
    notes, _ = read(write(tmp_path, "a.txt", PUBTATOR.replace("\n\n", "\r\n")), "pubtator")
    assert [note.id for note in notes] == ["1", "2"]


def test_a_mention_line_that_cannot_be_read_rejects_its_document(tmp_path: Path):
    _, ledger = read(
        write(tmp_path, "a.txt", "1|t|Title\n1|a|B\n1\tx\t5\tTitle\tSign\tZ\n"), "pubtator"
    )
    assert [(e.line, e.status, e.reason) for e in ledger.entries] == [
        (3, "rejected", "mention line cannot be read")
    ]


# JSON lines


def jsonl(folder: Path, *rows: object, **settings: Any) -> tuple[list[Note], Ledger]:
    return read(
        write(folder, "a.jsonl", "\n".join(json.dumps(row) for row in rows)), "jsonl", **settings
    )


def test_json_entities_may_be_dicts_or_lists_and_offsets_strings(tmp_path: Path):
    notes, ledger = jsonl(
        tmp_path,
        {"text": "no fever", "entities": [{"start": "3", "end": "8", "label": "Sign"}]},
        {"text": "no fever", "entities": [[3, 8, "Sign"]]},
        {"text": "no fever", "entities": [["3", 8.0, "Sign"]]},
        {"text": "no fever", "entities": None},
    )
    assert [found(note) for note in notes] == [[("fever", "Sign")]] * 3 + [[]]
    assert [note.id for note in notes] == ["a-1", "a-2", "a-3", "a-4"]
    assert count_entries(ledger.entries) == {"kept": {"": 4}}


def test_keys_have_any_name_and_an_end_may_follow_from_the_quote(tmp_path: Path):
    row = {
        "note": "做ct检查",
        "m": [{"offset": "1", "mention": "CT", "type": "test"}],
        "who": 4,
        "nr": 9,
        "l": "zh",
    }
    fields = {
        "text": "note",
        "entities": "m",
        "start": "offset",
        "quote": "mention",
        "label": "type",
    }
    notes, ledger = jsonl(tmp_path, row, fields={**fields, "group": "who", "id": "nr", "lang": "l"})
    assert found(notes[0]) == [("ct", "test")]
    assert (notes[0].id, notes[0].group, notes[0].lang) == ("9", "4", "zh")
    assert count_entries(ledger.entries) == {
        "repaired": {"quote differs from the text by case only": 1}
    }


def test_a_field_that_is_not_there_names_those_that_are(tmp_path: Path):
    with pytest.raises(
        DataError, match=r"a.jsonl:1: has no field 'text'; present: entities, note; set fields.text"
    ):
        jsonl(tmp_path, {"note": "x", "entities": []})
    with pytest.raises(
        DataError,
        match=r"has no key of an entity 'start'; present: end, from, label; set fields.start",
    ):
        jsonl(tmp_path, {"text": "x", "entities": [{"from": 0, "end": 1, "label": "X"}]})
    with pytest.raises(DataError, match="has no field 'spans'"):
        jsonl(tmp_path, {"text": "x"}, fields={"entities": "spans"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": None, "entities": []}, "text is not a string"),
        ({"text": " \n", "entities": []}, "text is empty"),
        ({"text": "x", "entities": "[]"}, "entities are not a list"),
        ([1], "is not a JSON object"),
        (
            {"text": "x", "entities": [{"start": "1.5", "end": 1, "label": "X"}]},
            "offset of a span is not a whole number",
        ),
        (
            {"text": "x", "entities": [{"start": 0, "label": "X"}]},
            "span has neither an end nor a quote",
        ),
        ({"text": "x", "entities": [{"start": 0, "end": 1, "label": ""}]}, "span has no label"),
        (
            {"text": "x", "entities": [7]},
            "span is neither a dict nor a list of start, end and label",
        ),
    ],
)
def test_a_row_of_which_nothing_can_be_made_is_rejected_with_its_reason(
    tmp_path: Path, row: object, reason: str
):
    notes, ledger = jsonl(tmp_path, {"text": "y", "entities": []}, row)
    assert len(notes) == 1
    assert [(e.line, e.reason) for e in ledger.entries if e.status == "rejected"] == [(2, reason)]


def test_a_line_that_is_cut_off_is_rejected(tmp_path: Path):
    notes, ledger = read(write(tmp_path, "a.jsonl", '{"text": "x"}\n\n{"text": "y'), "jsonl")
    assert [note.text for note in notes] == ["x"]
    assert [(e.line, e.reason) for e in ledger.entries][1] == (3, "is not valid JSON")


def test_a_file_may_be_one_list(tmp_path: Path):
    notes, _ = read(write(tmp_path, "a.json", '[\n {"text": "x"},\n {"text": "y"}]'), "jsonl")
    assert [(note.id, note.text) for note in notes] == [("a-1", "x"), ("a-2", "y")]


def test_labels_are_renamed_left_out_and_merged(tmp_path: Path):
    entities = [[0, 2, "A"], [0, 2, "B"], [3, 4, "C"], [9, 9, "C"]]
    notes, ledger = jsonl(
        tmp_path,
        {"text": "ab c", "entities": entities, "labels": ["A", "D"]},
        labels={"A": "B", "C": ""},
    )
    assert found(notes[0]) == [("ab", "B")]
    assert notes[0].labels == ("B", "D")
    assert count_entries(ledger.entries) == {"repaired": {"equal spans merged": 1}}


def test_a_row_never_gets_a_laxer_profile_than_its_source(tmp_path: Path):
    notes, _ = jsonl(
        tmp_path,
        {"text": "x", "profile": "public"},
        {"text": "y", "profile": "pseudonymised"},
        profile="synthetic",
    )
    assert [note.profile for note in notes] == ["synthetic", "pseudonymised"]


# CSV


def test_csv_reads_labels_and_entities_with_line_breaks_in_cells(tmp_path: Path):
    content = 'nr,note,a,b,spans\n1,"no\nfever, none",X;Y,Z,"[[3, 8, ""Sign""]]"\n2,b,,,\n'
    columns = {"text": "note", "labels": ["a", "b"], "entities": "spans", "id": "nr", "group": "nr"}
    notes, ledger = read(write(tmp_path, "a.csv", content), "csv", columns=columns, separator=";")
    assert [(n.id, n.text, n.labels) for n in notes] == [
        ("1", "no\nfever, none", ("X", "Y", "Z")),
        ("2", "b", ()),
    ]
    assert found(notes[0]) == [("fever", "Sign")]
    assert [entry.line for entry in ledger.entries] == [2, 4]


def test_a_missing_csv_column_names_those_that_are_there(tmp_path: Path):
    with pytest.raises(
        DataError,
        match=r"a.csv:1: has no column 'note'; present: id, text; set columns.text or the "
        r"delimiter",
    ):
        read(write(tmp_path, "a.csv", "id,text\n1,x\n"), "csv", columns={"text": "note"})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,x,y", "number of cells differs from the header's"),
        ("1,", "label is empty"),
        (",X", "text is empty"),
    ],
)
def test_csv_rows_that_do_not_fit_are_rejected(tmp_path: Path, line: str, reason: str):
    _, ledger = read(
        write(tmp_path, "a.csv", f"text,label\nz,X\n{line}\n"), "csv", columns={"labels": "label"}
    )
    assert [(e.line, e.reason) for e in ledger.entries if e.status == "rejected"] == [(3, reason)]


def test_a_csv_file_without_a_header_does_not_show_its_first_note(tmp_path: Path):
    with pytest.raises(DataError, match=r"present: none that reads like a name") as error:
        read(write(tmp_path, "a.csv", "the patient was seen for fever\n"), "csv")
    assert "fever" not in str(error.value)


def test_a_quote_that_is_never_closed_is_named_by_the_line_where_it_opens(tmp_path: Path):
    with pytest.raises(DataError, match=r"a.csv:3: is not CSV"):
        read(write(tmp_path, "a.csv", 'text\nx\n"y\nz\n'), "csv")


# Label Studio


def task(id: int, *annotations: dict[str, Any], text: str = "no fever") -> dict[str, Any]:
    return {"id": id, "data": {"text": text, "doc": f"d{id}"}, "annotations": list(annotations)}


def annotation(start: int, end: int, label: str = "Sign", **more: Any) -> dict[str, Any]:
    value = {"start": start, "end": end, "labels": [label], "text": "no fever"[start:end]}
    return {"completed_by": 3, "result": [{"id": "a", "type": "labels", "value": value}], **more}


def label_studio(folder: Path, *tasks: object, **settings: Any) -> tuple[list[Note], Ledger]:
    content = {
        "projects": [{"project": {"id": 1}, "tasks": []}, {"project": {"id": 2}, "tasks": tasks}]
    }
    return read(write(folder, "a.json", json.dumps(content)), "label_studio", **settings)


def test_label_studio_projects_and_plain_lists_are_read_alike(tmp_path: Path):
    wrapped, ledger = label_studio(tmp_path, task(5, annotation(2, 8)), group="doc")
    plain, _ = read(
        write(tmp_path, "b.json", json.dumps([task(5, annotation(2, 8))])),
        "label_studio",
        group="doc",
    )
    assert wrapped == plain
    assert (wrapped[0].id, wrapped[0].group, wrapped[0].spans[0].by) == ("5", "d5", "3")
    assert found(wrapped[0]) == [("fever", "Sign")]
    assert count_entries(ledger.entries) == {
        "repaired": {"blanks at the edges of a span trimmed": 1}
    }


def test_label_studio_reads_choices_and_relations(tmp_path: Path):
    regions = [
        {"id": "a", "type": "labels", "value": {"start": 0, "end": 2, "labels": ["Neg"]}},
        {"id": "b", "type": "labels", "value": {"start": 3, "end": 8, "labels": ["Sign"]}},
        {"type": "relation", "from_id": "b", "to_id": "a", "direction": "left", "labels": ["of"]},
        {"type": "choices", "value": {"choices": ["acute"]}},
    ]
    notes, _ = label_studio(tmp_path, task(1, {"result": regions}))
    assert notes[0].labels == ("acute",)
    assert notes[0].relations == (Relation(head=0, tail=1, label="of"),)


def test_annotations_that_differ_are_not_chosen_from(tmp_path: Path):
    a, b = annotation(3, 8), annotation(3, 8, "Drug")
    notes, ledger = label_studio(
        tmp_path,
        task(1, a, b),
        task(2, a, a),
        task(3, a, {**b, "ground_truth": True}),
        task(4, {**a, "was_cancelled": True}, b),
        task(5),
    )
    assert [(note.id, found(note)[0][1]) for note in notes] == [
        ("2", "Sign"),
        ("3", "Drug"),
        ("4", "Drug"),
    ]
    assert count_entries(ledger.entries)["rejected"] == {
        "annotations of the task differ; adjudicate them first": 1,
        "task has no annotation": 1,
    }


def test_one_annotator_can_be_read_alone(tmp_path: Path):
    notes, _ = label_studio(
        tmp_path, task(1, annotation(3, 8), annotation(0, 2, completed_by={"id": 4})), annotator="4"
    )
    assert found(notes[0]) == [("no", "Sign")]


# All of them

FORMATS = ["conll", "brat", "pubtator", "jsonl", "csv", "label_studio"]


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_that_are_not_utf8_are_named_with_line_and_remedy(tmp_path: Path, format: str):
    write(tmp_path, "a.ann", "")
    with pytest.raises(
        DataError, match=r"a.txt:2: is not UTF-8 \(byte 3\); convert it, .* iconv -f GB18030 "
    ):
        first = b"text\n" if format == "csv" else b"text O\n"
        read(write(tmp_path, "a.txt", first + b"abc" + "患者发热 O\n".encode("gb18030")), format)


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "brat"])
@pytest.mark.parametrize("content", ["", "\ufeff", "\n\n"])
def test_a_file_without_a_record_is_an_error(tmp_path: Path, format: str, content: str):
    if format == "label_studio":
        content = "[]"
    source = parse(Data, {"format": format, "path": "a.txt"}, "data.x")
    write(tmp_path, "a.txt", content)
    with pytest.raises(DataError, match=r"a.txt: holds no records"):
        read_parts(source, "x", tmp_path)


def test_text_that_is_not_nfc_is_kept_as_it_is(tmp_path: Path):
    notes, _ = jsonl(tmp_path, {"text": "so\u0302\u0301t"})
    assert notes[0].text == "so\u0302\u0301t"
