"""Files that annotators have: what is marked in them is read whole, or the file is refused with its
reason; no text of a note becomes a label. ``RESIDENCY_EXAMPLES`` says how many are made."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import normalize
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from residency.cli import app
from residency.core.encodings import candidates
from residency.core.errors import DataError, UserError
from residency.core.part import parse
from residency.core.types import Note, Relation
from residency.corpus import span_repair
from residency.corpus.known_forms import detect
from residency.corpus.ledger import Ledger, count_entries
from residency.corpus.load import Data, read_parts
from residency.corpus.reader import Source

many = settings(suppress_health_check=list(HealthCheck))
CASES = Path(os.environ.get("RESIDENCY_SHARED_DATA", "/nowhere")).parent / "cases/label_files"
TEXT = "Bé 😀 ho khan hai ngày, uống ibuprofen 200mg."
COUGH, DRUG = ((TEXT.index(one), TEXT.index(one) + len(one)) for one in ("ho khan", "ibuprofen"))


def scratch(factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples."""
    folder = factory.getbasetemp() / "examples"
    folder.mkdir(exist_ok=True)
    return folder


@cache
def source_of(format: str, name: str, **settings: Any) -> Source:
    return parse(Data, {"format": format, "path": name, **settings}, "data.x")


def read(path: Path, format: str, **settings: Any) -> tuple[list[Note], Ledger]:
    hashable = all(not isinstance(one, dict) for one in settings.values())
    make = source_of if hashable else source_of.__wrapped__
    source = make(format, path.name, **settings)
    read, ledger = read_parts(source, "x", path.parent)
    return read["path"], ledger


def put(folder: Path, content: str | bytes, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(*records: object) -> str:
    return "\n".join(json.dumps(one, ensure_ascii=False) for one in records)


def found(note: Note) -> list[tuple[str, str]]:
    return [(span.quote, span.label) for span in note.spans]


MARKED = [("ho khan", "S"), ("ibuprofen", "D")]


# Tools


def test_doccano_is_read_in_its_forms(tmp_path: Path) -> None:
    triples = [[*COUGH, "S"], [*DRUG, "D"]]
    entities = [
        {"id": 7, "label": "S", "start_offset": COUGH[0], "end_offset": COUGH[1]},
        {"id": 9, "label": "D", "start_offset": DRUG[0], "end_offset": DRUG[1]},
    ]
    relation = {"id": 1, "from_id": 9, "to_id": 7, "type": "treats"}
    notes, ledger = read(
        put(
            tmp_path,
            rows(
                {"id": 1, "text": TEXT, "label": triples},
                {"id": 2, "text": TEXT, "labels": triples, "Comments": []},
                {"id": 3, "text": TEXT, "entities": entities, "relations": [relation]},
                {"id": 4, "text": TEXT, "label": ["acute"]},
                {"id": 5, "text": TEXT, "label": []},
            ),
        ),
        "doccano",
    )
    assert [found(note) for note in notes] == [MARKED] * 3 + [[], []]
    assert notes[2].relations == (Relation(head=1, tail=0, label="treats"),)
    assert notes[3].labels == ("acute",)
    assert count_entries(ledger.entries) == {"kept": {"": 5}}


def prodigy(**more: object) -> dict[str, object]:
    spans = [{"start": COUGH[0], "end": COUGH[1], "label": "S", "token_start": 2, "token_end": 3}]
    return {"text": TEXT, "spans": spans, "answer": "accept", "_input_hash": 1, **more}


@pytest.mark.parametrize("format", ["prodigy", "jsonl"])
def test_only_what_was_accepted_in_prodigy_is_learned_from(tmp_path: Path, format: str) -> None:
    path = put(
        tmp_path, rows(prodigy(), prodigy(answer="reject"), prodigy(answer="ignore", spans=[]))
    )
    fields = {"fields": {"entities": "spans"}} if format == "jsonl" else {}
    notes, ledger = read(path, format, **fields)
    assert [found(note) for note in notes] == [[("ho khan", "S")]]
    assert count_entries(ledger.entries) == {
        "kept": {"": 1},
        "left out": {"answered reject": 1, "answered ignore": 1},
    }


def test_a_row_accepted_in_prodigy_without_spans_holds_none_where_other_rows_have_some(
    tmp_path: Path,
) -> None:
    bare = {"text": "Khám lại sau một tuần.", "answer": "accept", "_input_hash": 2}
    notes, ledger = read(put(tmp_path, rows(prodigy(), bare)), "prodigy")
    assert [found(note) for note in notes] == [[("ho khan", "S")], []]
    unmarked = "accepted without spans: nothing is marked in it"
    assert count_entries(ledger.entries) == {"kept": {"": 1}, "repaired": {unmarked: 1}}
    with pytest.raises(DataError, match='none of the keys "spans", "accept", "label"'):
        read(put(tmp_path, rows(bare)), "prodigy")


def test_prodigy_relations_and_choices_are_read(tmp_path: Path) -> None:
    ends = [
        {"start": start, "end": end, "label": label}
        for (start, end), label in ((COUGH, "S"), (DRUG, "D"))
    ]
    relation = {
        "head_span": ends[1],
        "child_span": ends[0],
        "label": "treats",
        "head": 8,
        "child": 3,
    }
    notes, _ = read(
        put(
            tmp_path,
            rows(
                prodigy(spans=ends, relations=[relation], meta={"patient": "P1"}),
                {"text": TEXT, "accept": ["acute"], "options": [], "answer": "accept"},
            ),
        ),
        "prodigy",
        group="patient",
    )
    assert (found(notes[0]), notes[0].group) == (MARKED, "P1")
    assert notes[0].relations == (Relation(head=1, tail=0, label="treats"),)
    assert notes[1].labels == ("acute",)


def test_i2b2_concepts_stand_by_line_and_token(tmp_path: Path) -> None:
    text = "He has Chest pain today .\nGiven aspirin , aspirin again .\n"
    put(tmp_path, text, "r.txt")
    concepts = put(
        tmp_path,
        'c="chest pain" 1:2 1:3||t="problem"\nc="aspirin" 2:3 2:3||t="treatment"\n',
        "r.con",
    )
    notes, _ = read(concepts, "i2b2")
    assert found(notes[0]) == [("Chest pain", "problem"), ("aspirin", "treatment")]
    assert notes[0].spans[1].start == text.rindex("aspirin")
    (tmp_path / "concept").mkdir()
    (tmp_path / "txt").mkdir()
    put(tmp_path / "txt", text, "r.txt")
    apart = put(tmp_path / "concept", concepts.read_bytes(), "r.con")
    assert found(read(apart, "i2b2")[0][0]) == found(notes[0])


def test_i2b2_relations_and_assertions_are_counted_where_they_are_not_taken(tmp_path: Path) -> None:
    put(tmp_path, "She has a fever .\n", "r.txt")
    (tmp_path / "rel").mkdir()
    (tmp_path / "concept").mkdir()
    put(tmp_path / "rel", 'c="x" 1:3 1:3||r="TrIP"||c="fever" 1:3 1:3\n\n' * 2, "r.rel")
    one = put(tmp_path / "concept", 'c="fever" 1:3 1:3||t="problem"\n', "r.con")
    put(tmp_path / "concept", "She has a fever .\n", "r.txt")
    put(tmp_path / "concept", 'c="fever" 1:3 1:3||t="problem"||a="present"\n', "r.ast")
    _, ledger = read(one, "i2b2")
    assert count_entries(ledger.entries) == {
        "kept": {"": 1},
        "not taken": {"relation not taken": 2, "assertion not taken": 1},
    }


def test_an_i2b2_token_that_is_counted_otherwise_is_found_by_its_words_or_refused(
    tmp_path: Path,
) -> None:
    put(tmp_path, "She has a fever , no cough , cough later .\n", "r.txt")
    one = put(tmp_path, 'c="fever" 1:2 1:2||t="problem"\n', "r.con")
    assert found(read(one, "i2b2")[0][0]) == [("fever", "problem")]
    two = put(tmp_path, 'c="cough" 1:2 1:2||t="problem"\n', "r.con")
    with pytest.raises(DataError, match="in several places"):
        read(two, "i2b2")
    none = put(tmp_path, 'c="cough" 1:40 1:40||t="problem"\n', "r.con")
    with pytest.raises(DataError, match="a token that the text does not have"):
        read(none, "i2b2")


WEBANNO = (
    "#FORMAT=WebAnno TSV 3.3\n#T_SP=webanno.custom.Entity|value|note\n"
    "#T_RL=webanno.custom.Link|kind|BT_webanno.custom.Entity\n\n\n"
    "#Text=😀 chest pain today\n"
    "1-1\t0-2\t😀\t_\t_\t_\t_\t\n"
    "1-2\t3-8\tchest\tSYM[1]|LOC\t*[1]|x\t_\t_\t\n"
    "1-3\t9-13\tpain\tSYM[1]\t*[1]\t_\t_\t\n"
    "1-4\t14-19\ttoday\t_\t_\t_\t_\t\n\n"
    "#Text=No fever .\n"
    "2-1\t20-22\tNo\t_\t_\t_\t_\t\n"
    "2-2\t23-28\tfever\tSYM\t_\t_\t_\t\n"
    "2-3\t29-30\t.\t_\t_\t_\t_\t\n"
)


def test_webanno_spans_of_several_tokens_and_stacked_ones_are_read(tmp_path: Path) -> None:
    notes, _ = read(put(tmp_path, WEBANNO, "a.tsv"), "webanno")
    assert [note.text for note in notes] == ["😀 chest pain today", "No fever ."]
    assert [sorted(found(note)) for note in notes] == [
        [("chest", "LOC"), ("chest pain", "SYM")],
        [("fever", "SYM")],
    ]


def test_webanno_relations_and_chains_are_counted(tmp_path: Path) -> None:
    text = (
        "#FORMAT=WebAnno TSV 3.3\n#T_SP=custom.Entity|value\n"
        "#T_RL=custom.Link|kind|BT_custom.Entity\n#T_CH=custom.CorefLink|type|relation\n"
        "#T_SP=custom.Later|value\n\n\n#Text=chest pain today\n"
        "1-1\t0-5\tchest\tLOC\t_\t_\tx[1-1]\t_\t_\t\n"
        "1-2\t6-10\tpain\tSYM\tat|in\t1-1|1-3\tx[1-2]\t_\tA\t\n"
        "1-3\t11-16\ttoday\tTIME\tcause\t1-2[0_0]\tx[1-2]\t_\t_\t\n"
    )
    path = put(tmp_path, text, "a.tsv")
    notes, ledger = read(path, "webanno")
    assert found(notes[0]) == [("chest", "LOC"), ("pain", "SYM"), ("today", "TIME")]
    assert count_entries(ledger.entries)["not taken"] == {
        "relation not taken": 3,
        "link of a chain not taken": 2,
    }
    later, _ = read(path, "webanno", layer="Later")
    assert found(later[0]) == [("pain", "A")]


def test_webanno_layers_are_chosen_by_name(tmp_path: Path) -> None:
    path = put(tmp_path, WEBANNO, "a.tsv")
    assert found(read(path, "webanno", layer="Entity", feature="value")[0][1]) == [("fever", "SYM")]
    with pytest.raises(DataError, match=r"present: Entity.value, Entity.note; set layer"):
        read(path, "webanno", layer="Token")


def test_a_webanno_token_that_does_not_stand_at_its_offsets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a token does not stand where its offsets say"):
        read(put(tmp_path, WEBANNO.replace("23-28", "22-27"), "a.tsv"), "webanno")


BIOC = {
    "documents": [
        {
            "id": "d1",
            "passages": [
                {"offset": 0, "text": "Ho 😀.", "annotations": [], "relations": []},
                {
                    "offset": 7,
                    "text": "Dùng aspirin vì sốt",
                    "annotations": [
                        {
                            "id": "a",
                            "infons": {"type": "D", "identifier": "C1"},
                            "text": "aspirin",
                            "locations": [{"offset": 12, "length": 7}],
                        },
                        {
                            "id": "b",
                            "infons": {"type": "S"},
                            "text": "sốt",
                            "locations": [{"offset": 23, "length": 3}],
                        },
                    ],
                },
            ],
            "relations": [
                {
                    "id": "r",
                    "infons": {"type": "treats"},
                    "nodes": [{"refid": "a", "role": ""}, {"refid": "b", "role": ""}],
                }
            ],
        }
    ]
}


def bioc_xml() -> str:
    (document,) = BIOC["documents"]

    def infons(of: dict[str, Any]) -> str:
        return "".join(f'<infon key="{key}">{value}</infon>' for key, value in of.items())

    passages = ""
    for one in document["passages"]:
        inside = "".join(
            f'<annotation id="{a["id"]}">{infons(a["infons"])}'
            f'<location offset="{a["locations"][0]["offset"]}" '
            f'length="{a["locations"][0]["length"]}"/><text>{a["text"]}</text></annotation>'
            for a in one["annotations"]
        )
        passages += (
            f"<passage><offset>{one['offset']}</offset><text>{one['text']}</text>{inside}</passage>"
        )
    relation = (
        '<relation id="r"><infon key="type">treats</infon><node refid="a" role=""/>'
        '<node refid="b" role=""/></relation>'
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE collection SYSTEM "BioC.dtd">\n'
        "<collection><source>x</source><date/><key/><document><id>d1</id>"
        f"{passages}{relation}</document></collection>"
    )


@pytest.mark.parametrize("name", ["a.json", "a.xml"])
def test_bioc_passages_stand_at_their_offsets_in_json_and_xml(tmp_path: Path, name: str) -> None:
    content = bioc_xml() if name == "a.xml" else json.dumps(BIOC)
    (note,), _ = read(put(tmp_path, content, name), "bioc")
    assert (note.id, note.group, note.text) == ("d1", "d1", "Ho 😀.\n Dùng aspirin vì sốt")
    assert [(s.start, s.quote, s.label, s.code) for s in note.spans] == [
        (12, "aspirin", "D", "C1"),
        (23, "sốt", "S", None),
    ]
    assert note.relations == (Relation(head=0, tail=1, label="treats"),)


def test_a_list_of_bioc_collections_is_read_as_the_collections(tmp_path: Path) -> None:
    """As the web service of PubMed gives them."""
    mark = {"infons": {"type": "S"}, "locations": [{"offset": COUGH[0], "length": 7}]}
    passage = {"offset": 0, "infons": {}, "text": TEXT, "annotations": [mark]}
    whole = [{"source": "x", "documents": [{"id": str(n), "passages": [passage]}]} for n in (1, 2)]
    path = put(tmp_path, json.dumps(whole, ensure_ascii=False), "a.json")
    seen = detect(path)
    assert seen and seen.format == "bioc"
    notes, _ = read(path, "bioc")
    assert [found(note) for note in notes] == [[("ho khan", "S")]] * 2


def test_brat_is_read_where_the_marks_are_named(tmp_path: Path) -> None:
    put(tmp_path, TEXT, "a.txt")
    path = put(tmp_path, f"T1\tS {COUGH[0]} {COUGH[1]}\tho khan\r\n", "a.ann")
    (note,), _ = read(path, "brat")
    assert (note.text, found(note)) == (TEXT, [("ho khan", "S")])


def test_i2b2_xml_tags_are_spans_by_type_or_name(tmp_path: Path) -> None:
    content = (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<deIdi2b2>\n<TEXT><![CDATA[Seen 2 May by Dr Oak <b>]]>'
        '</TEXT>\n<TAGS>\n<DATE id="P0" start="5" end="10" text="2 May" TYPE="DATE" comment=""/>\n'
        '<NAME id="P1" start="17" end="20" text="Oak" TYPE="DOCTOR" comment=""/>\n'
        '<TLINK id="TL0" fromID="P0" toID="P1" type="BEFORE"/>\n</TAGS>\n</deIdi2b2>\n'
    )
    path = put(tmp_path, content, "110-01.xml")
    (note,), ledger = read(path, "i2b2_xml")
    assert count_entries(ledger.entries)["not taken"] == {"link not taken": 1}
    assert (note.id, note.text) == ("110-01", "Seen 2 May by Dr Oak <b>")
    assert found(note) == [("2 May", "DATE"), ("Oak", "DOCTOR")]
    assert found(read(path, "i2b2_xml", label="name")[0][0])[1] == ("Oak", "NAME")


def test_lists_of_words_and_tags_are_sentences(tmp_path: Path) -> None:
    good = {"words": ["Bé", "ho", "khan"], "tags": ["O", "B-S", "I-S"]}
    path = put(
        tmp_path, rows(good, {"words": ["a"], "tags": ["O", "O"]}, {"words": ["a"], "tags": ["B"]})
    )
    notes, ledger = read(path, "phoner", max_rejected=0.9)
    assert (notes[0].text, found(notes[0])) == ("Bé ho khan", [("ho khan", "S")])
    assert set(count_entries(ledger.entries)["rejected"]) == {
        "words and tags are no lists of one length",
        "a tag has no type",
    }


def test_conllu_plus_columns_are_known_by_their_names(tmp_path: Path) -> None:
    content = (
        "# global.columns = ID FORM MISC x:NER\n# newdoc id = 1\n# text = Bé ho, khan\n"
        "1\tBé\t_\tO\n2-3\tho,\t_\t_\n2\tho\tSpaceAfter=No\tB-S\n3\t,\t_\tI-S\n4\tkhan\t_\tI-S\n\n"
        "# newdoc id = 2\n1\tsốt\t_\tB-S\n\n"
    )
    path = put(tmp_path, content, "a.conllup")
    notes, _ = read(path, "conllu")
    assert [(note.text, note.group, found(note)) for note in notes] == [
        ("Bé ho, khan", "document 1", [("ho, khan", "S")]),
        ("sốt", "document 2", [("sốt", "S")]),
    ]
    with pytest.raises(DataError, match=r"has no column 'X'; present: FORM, ID, MISC, NER, x:NER"):
        read(path, "conllu", tag="X")


@pytest.mark.parametrize(
    ("content", "format", "told"),
    [
        (WEBANNO, "conll", "set format to webanno"),
        ('c="fever" 1:2 1:2||t="problem"\n', "conll", "set format to i2b2"),
        (rows({"text": TEXT, "label": [[*COUGH, "S"]]}), "jsonl", "set format to doccano"),
        (rows({"text": TEXT, "labels": [[*COUGH, "S"]]}), "jsonl", "set format to doccano"),
        (rows(prodigy()), "jsonl", "set format to prodigy"),
        (
            rows({"text": TEXT, "label": [{"start": 0, "end": 2, "labels": ["S"]}]}),
            "jsonl",
            "JSON-MIN: set format to label_studio",
        ),
        (rows({"text": TEXT, "notes": [[*COUGH, "S"]]}), "jsonl", 'set fields.entities to "notes"'),
        ("PAR1x", "jsonl", "is a Parquet file; set format to arrow"),
        ("PK\x03\x04x", "csv", r"Excel workbook"),
        (
            "<?xml version='1.0'?>\n<xmi:XMI xmi:version='2.0'>",
            "jsonl",
            "UIMA XMI .*set format to xmi",
        ),
        (
            '<?xml version="1.0"?>\n<collection><source/><document>',
            "jsonl",
            "BioC XML; set format to bioc",
        ),
        (
            '{"source": "x", "documents": [{"id": "1", "passages": []}]}',
            "jsonl",
            "set format to bioc",
        ),
        ('<?xml version="1.0"?>\n<deIdi2b2>\n<TEXT>', "brat", "set format to i2b2_xml"),
        ('{"words": ["a"], "tags": ["O"]}', "jsonl", "PhoNER JSON.*set format to phoner"),
        ("# global.columns = ID FORM\n1\ta\n", "conll", "set format to conllu"),
    ],
)
def test_a_file_of_another_format_is_refused_by_its_name(
    tmp_path: Path, content: str, format: str, told: str
) -> None:
    path = put(tmp_path, content, "a.txt" if format == "brat" else "a.jsonl")
    with pytest.raises(DataError, match=told):
        read(path, format)


# Keys and offsets


def test_a_key_that_some_rows_lack_is_counted_and_named(tmp_path: Path) -> None:
    half = [{"id": str(n), "text": TEXT, ("entities" if n % 2 else "spans"): []} for n in range(8)]
    path = put(tmp_path, rows(*half))
    with pytest.raises(
        DataError,
        match=r'4 of 8 rows .* 4 x has no key "entities" \(keys found: id, spans, text\)',
    ):
        read(path, "jsonl")
    notes, ledger = read(path, "jsonl", max_rejected=0.5)
    assert len(notes) == 4 and len(count_entries(ledger.entries)["rejected"]) == 1


def test_a_file_in_which_no_row_has_entities_holds_none(tmp_path: Path) -> None:
    notes, _ = read(
        put(tmp_path, rows({"text": "a", "labels": ["x"]}, {"text": "b", "labels": []})), "jsonl"
    )
    assert [note.labels for note in notes] == [("x",), ()]


@pytest.mark.parametrize(
    ("start", "end", "label", "quote"),
    [
        ("start_idx", "end_idx", "type", "entity"),
        ("start_offset", "end_offset", "label", "mention"),
        ("begin", "end", "entity_group", "word"),
    ],
)
def test_other_names_of_keys_are_known_and_inclusive_ends_found_by_the_quote(
    tmp_path: Path, start: str, end: str, label: str, quote: str
) -> None:
    one = {start: COUGH[0], end: COUGH[1] - 1, label: "S", quote: "ho khan"}
    notes, _ = read(put(tmp_path, rows({"text": TEXT, "entities": [one]})), "jsonl")
    assert found(notes[0]) == [("ho khan", "S")]


CRLF_TEXT = "Khám:\r\nĐau đầu\r\nMất ngủ"
COUNTED = {
    "characters": ([[7, 14], [16, 23]], CRLF_TEXT),
    "crlf": ([[6, 13], [14, 21]], CRLF_TEXT),
    "utf-16": ([[6, 13], [32, 41]], TEXT.replace("Bé 😀 ho khan", "😀😀 ho khan")),
    "utf-8": ([[7, 17], [19, 31]], CRLF_TEXT),
}


@pytest.mark.parametrize("counted", ["crlf", "utf-8"])
def test_offsets_that_cut_words_are_refused_until_it_is_said_how_they_count(
    tmp_path: Path, counted: str
) -> None:
    places, text = COUNTED[counted]
    words = ["Đau đầu", "Mất ngủ"]
    path = put(tmp_path, rows({"text": text, "entities": [[*place, "S"] for place in places]}))
    with pytest.raises(DataError, match=r"without a quote|outside the text") as refused:
        read(path, "jsonl")
    assert not any(word in str(refused.value) for word in text.split())
    if counted == "crlf":
        assert found(read(path, "jsonl", offsets="crlf")[0][0]) == [(word, "S") for word in words]


def test_offsets_in_utf16_units_are_read_where_that_is_said(tmp_path: Path) -> None:
    text = "😀 ho khan, sốt"
    path = put(tmp_path, rows({"text": text, "entities": [[3, 10, "S"], [12, 15, "S"]]}))
    with pytest.raises(DataError, match=span_repair.INSIDE):
        read(path, "jsonl")
    assert found(read(path, "jsonl", offsets="utf-16")[0][0]) == [("ho khan", "S"), ("sốt", "S")]


def test_ends_that_count_the_last_character_are_read_where_that_is_said(tmp_path: Path) -> None:
    path = put(tmp_path, rows({"text": "ho khan, sốt", "entities": [[0, 6, "S"], [9, 11, "S"]]}))
    with pytest.raises(DataError, match=span_repair.INCLUSIVE):
        read(path, "jsonl")
    assert found(read(path, "jsonl", ends="inclusive")[0][0]) == [("ho khan", "S"), ("sốt", "S")]


def test_in_chinese_a_span_before_an_emoji_is_certain_and_one_behind_it_is_not(
    tmp_path: Path,
) -> None:
    before = put(tmp_path, rows({"text": "发热三天😀头痛", "entities": [[0, 2, "S"]]}))
    assert found(read(before, "jsonl")[0][0]) == [("发热", "S")]
    behind = put(tmp_path, rows({"text": "😀发热三天头痛", "entities": [[2, 4, "S"]]}))
    with pytest.raises(DataError, match=span_repair.UNPROVED):
        read(behind, "jsonl")
    assert found(read(behind, "jsonl", offsets="characters")[0][0]) == [("热三", "S")]


# Columns of tags


def conll(folder: Path, content: str, **settings: Any) -> tuple[list[Note], Ledger]:
    return read(put(folder, content, "a.conll"), "conll", **settings)


def test_tabs_and_blanks_behind_a_tag_are_none(tmp_path: Path) -> None:
    notes, _ = conll(tmp_path, "ho\tB-S\t\nkhan\tI-S\t \n\nđau\tO\n")
    assert [found(note) for note in notes] == [[("ho khan", "S")], []]


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("B", "a tag has no type"),
        ("-", "the column of the tags holds something else"),
        ("b-S", "the prefix of a tag is a small letter"),
        ("B-S|B-D", "a line holds two tags in one"),
        ("B-S,B-D", "a line holds two tags in one"),
        ("S", "a tag has no type"),
        ("viêm", "the column of the tags holds something else"),
    ],
)
def test_what_is_no_tag_rejects_its_sentence_and_is_no_label(
    tmp_path: Path, tag: str, reason: str
) -> None:
    content = "ho\tB-S\nkhan\tI-S\n\n" * 4 + f"đau\t{tag}\n"
    with pytest.raises(DataError, match=reason):
        conll(tmp_path, content)
    notes, ledger = conll(tmp_path, content, max_rejected=0.2)
    assert {label for note in notes for _, label in found(note)} == {"S"}
    assert count_entries(ledger.entries)["rejected"] == {reason: 1}


def test_a_line_with_other_columns_is_not_read_by_counting_from_its_end(tmp_path: Path) -> None:
    content = "ho\tN\tB-S\nkhan\tA\tI-S\n\n" * 3 + "đau\tB-X\n"
    _, ledger = conll(tmp_path, content, max_rejected=0.5)
    assert count_entries(ledger.entries)["rejected"] == {"a line has too few columns": 1}


@pytest.mark.parametrize(
    "content",
    [
        "Bà Lêthử Nghiệmthử 0123456789\nvàoviện vì\u00a0ho khanthử\n\nra việnthử\n",
        "hothử khanthử\nsốtthử caothử\n\nđauthử đầuthử\n",
        "nhómthử O\nhothử khanthử\nsốtthử caothử\n",
        "Lêthử\nKhanthử\n",
    ],
)
def test_plain_notes_are_refused_by_line_without_a_word_of_them(
    tmp_path: Path, content: str
) -> None:
    told = r"line \d: the last column is no tag|:1: has no column '-1'"
    with pytest.raises(DataError, match=told) as refused:
        conll(tmp_path, content)
    assert "thử" not in str(refused.value) and "0123" not in str(refused.value)


def test_no_word_of_plain_notes_reaches_the_screen_or_a_file(tmp_path: Path) -> None:
    put(
        tmp_path, "Bà Thửmột 0123456789\nho khan\n\nÔng Thửhai 0987654321\nra viện\n", "notes.conll"
    )
    recipe = put(
        tmp_path,
        "name: t\nbase: bundled:tiny-encoder\ndata:\n  x: {format: conll, path: notes.conll}\n"
        "tasks: [{card: ner, data: x}]\nstages: [{method: {kind: crf}}]\n",
        "t.yaml",
    )
    for verb in (["check"], ["run", "--runs", str(tmp_path / "runs")]):
        result = CliRunner().invoke(app, [verb[0], str(recipe), *verb[1:]])
        shown = f"{result.output}{result.exception}"
        assert result.exit_code == 1 and "line 1: the last column is no tag" in shown
        whole = shown + "".join(
            path.read_text("utf-8", "replace")
            for path in tmp_path.rglob("*")
            if path.is_file() and path.name not in ("notes.conll",)
        )
        assert not any(word in whole for word in ("Thửmột", "Thửhai", "0123456789", "khan", "viện"))


def test_a_column_of_texts_is_no_column_of_labels(tmp_path: Path) -> None:
    lines = "".join(f"note {n},bệnh nhân số {n} ho\n" for n in range(60))
    path = put(tmp_path, f"text,label\n{lines}", "a.csv")
    with pytest.raises(DataError, match="are no labels") as refused:
        read(path, "csv", columns={"labels": "label"})
    assert "bệnh" not in str(refused.value)


# Quotes in files with tabs, and encodings


def test_quotes_that_stand_in_the_text_of_a_tsv_lose_no_row(tmp_path: Path) -> None:
    content = 'text\tlabel\n"ho khan" nhiều\tA\n5" sẹo\tB\n"đau\tA\nmột "hai"\tB\n'
    notes, ledger = read(
        put(tmp_path, content, "a.tsv"), "csv", delimiter="\t", columns={"labels": "label"}
    )
    assert [note.text for note in notes] == ['"ho khan" nhiều', '5" sẹo', '"đau', 'một "hai"']
    assert count_entries(ledger.entries) == {"kept": {"": 4}}


def test_a_tsv_that_is_quoted_is_read_by_its_quotes(tmp_path: Path) -> None:
    content = 'text\tlabel\n"ho\nkhan"\tA\n"một ""hai"""\tB\n'
    notes, _ = read(put(tmp_path, content, "a.tsv"), "csv", delimiter="\t")
    assert [note.text for note in notes] == ["ho\nkhan", 'một "hai"']


def in_cp1258(text: str) -> bytes:
    """Letters composed, tones behind them, as Windows writes Vietnamese."""
    out = b""
    for sign in text:
        apart = normalize("NFD", sign)
        tones = [mark for mark in apart[1:] if mark in "\u0300\u0301\u0303\u0309\u0323"]
        base = normalize("NFC", "".join(mark for mark in apart if mark not in tones))
        out += (base + "".join(tones)).encode("cp1258")
    return out


@pytest.mark.parametrize(
    ("data", "codec"),
    [
        (in_cp1258("bệnh nhân ho khan, đau ngực, khó thở nhẹ về đêm"), "cp1258"),
        (in_cp1258("sốt"), "cp1258"),
        ("患者咳嗽三天，发热，诊断为肺炎".encode("gb18030"), "gb18030"),
        ("患者咳嗽三天，發熱，診斷為肺炎".encode("big5"), "big5"),
        ("fièvre élevée, douleur à l'épaule".encode("cp1252"), "cp1252"),
        ("ho khan".encode("utf-16"), "utf-16"),
    ],
)
def test_the_encoding_that_reads_as_words_comes_first(data: bytes, codec: str) -> None:
    assert candidates(data)[0].codec == codec


def test_vietnamese_bytes_that_are_valid_gb18030_are_not_taken_for_chinese(tmp_path: Path) -> None:
    data = in_cp1258("đau bụng")
    data.decode("gb18030")
    with pytest.raises(UserError, match=r"iconv -f CP1258 .*GB18030 \(0%\)"):
        read(put(tmp_path, b'{"text": "' + data + b'"}'), "jsonl")


# Characters in are characters out


WORDS = st.text(st.sampled_from("abđêổ9 😀患,\r\n\u0301"), min_size=1, max_size=30)


@st.composite
def marked(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]]]:
    """A text and places of whole stretches in it."""
    text = "x" + draw(WORDS)
    ends = st.tuples(st.integers(0, len(text) - 1), st.integers(1, len(text)))
    places = draw(st.lists(ends.filter(lambda one: one[0] < one[1]), max_size=3))
    return text, places


@many
@given(marked(), st.sampled_from(["characters", "utf-16", "utf-8", "crlf"]))
def test_a_quoted_span_is_where_its_quote_stands_or_is_counted(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[str, list[tuple[int, int]]],
    counted: str,
) -> None:
    text, places = made
    width = {
        "characters": len,
        "utf-16": lambda part: len(part.encode("utf-16-le")) // 2,
        "utf-8": lambda part: len(part.encode()),
        "crlf": lambda part: len(part.replace("\r\n", "\n")),
    }[counted]
    entities = [
        {
            "start": width(text[:start]),
            "end": width(text[:end]),
            "label": "X",
            "text": text[start:end],
        }
        for start, end in places
    ]
    path = put(scratch(tmp_path_factory), rows({"text": text, "entities": entities}))
    notes, ledger = read(path, "jsonl", on_bad_span="drop_span", max_rejected=0.99)
    (note,) = notes
    assert note.text == text
    wanted = {text[start:end].strip() for start, end in places}
    assert {quote for quote, _ in found(note)} <= wanted
    (entry,) = ledger.entries
    assert len(note.spans) == len(places) or entry.status == "repaired"


@many
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.text(st.sampled_from("abđổ患'\"-#"), min_size=1, max_size=5),
                st.sampled_from(["O", "B-X", "I-X", "B-Y", "B", "-", "b-X", "B-X|B-Y", ""]),
            ),
            min_size=1,
            max_size=5,
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\t"]),
)
def test_every_sentence_of_a_column_file_is_whole_or_counted(
    tmp_path_factory: pytest.TempPathFactory,
    sentences: list[list[tuple[str, str]]],
    end: str,
    tail: str,
) -> None:
    lines = [[f"{token}\t{tag}{tail}" for token, tag in one] for one in sentences]
    content = (end * 2).join(end.join(one) for one in lines) + end
    path = put(scratch(tmp_path_factory), content, "a.conll")
    source = source_of("conll", path.name)
    try:
        made = list(source.rows(path))
    except DataError as refused:
        assert "is no tag" in str(refused) or "has no column '-1'" in str(refused)
        return
    assert len(made) == len(sentences)
    for row, sentence in zip(made, sentences, strict=True):
        good = all(tag in ("O", "B-X", "I-X", "B-Y") for _, tag in sentence)
        assert bool(row.fault) != good
        assert row.text == (" ".join(token for token, _ in sentence) if good else "")
        assert {raw.label for raw in row.spans} <= {"X", "Y"}


@many
@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from("abđ \"'患"), min_size=1, max_size=8).filter(str.strip),
            st.sampled_from(["A", "B"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_every_line_of_a_file_with_tabs_is_a_row(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, str]]
) -> None:
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in made)
    path = put(scratch(tmp_path_factory), content, "a.tsv")
    source = source_of("csv", path.name, delimiter="\t")
    texts = [row.text for row in source.rows(path)]
    quoted = [text for text, _ in made if text.startswith('"')]
    if any(text.count('"') % 2 or not text.endswith('"') for text in quoted) or not quoted:
        assert texts == [text for text, _ in made]
    assert len(texts) == len(made)


@many
@given(st.lists(st.tuples(st.sampled_from("ab đ😀患"), st.booleans()), min_size=1, max_size=12))
def test_every_token_of_a_webanno_file_stands_in_its_note(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, bool]]
) -> None:
    text, lines, at, expected = "", "", 7, []
    for number, (sign, is_marked) in enumerate(made, 1):
        if not sign.strip():
            text, at = text + " ", at + 1
            continue
        units = len(sign.encode("utf-16-le")) // 2
        value = f"X[{number}]" if is_marked else "_"
        lines += f"1-{number}\t{at}-{at + units}\t{sign}\t{value}\t\n"
        expected += [(len(text), len(text) + 1)] if is_marked else []
        text, at = text + sign, at + units
    first = next((sign for sign, _ in made), "")
    if not text.strip() or first == " ":
        return
    content = f"#FORMAT=WebAnno TSV 3.2\n#T_SP=a.E|value\n\n\n#Text={text}\n{lines}\n"
    path = put(scratch(tmp_path_factory), content, "a.tsv")
    (note,), _ = read(path, "webanno")
    assert note.text == text
    assert [(span.start, span.end) for span in note.spans] == expected


def xmi_of(text: str, places: list[tuple[int, int]]) -> str:
    """UIMA CAS XMI, written by hand: offsets are those of UTF-16."""

    def unit(at: int) -> int:
        return len(text[:at].encode("utf-16-le")) // 2

    marked = "".join(
        f'<type:NamedEntity xmi:id="{n}" sofa="1" begin="{unit(s)}" end="{unit(e)}" value="X"/>'
        for n, (s, e) in enumerate(places, start=10)
    )
    whole = escape(text, {'"': "&quot;", "\n": "&#10;", "\r": "&#13;"})
    return (
        '<?xml version="1.0" encoding="UTF-8"?><xmi:XMI xmlns:xmi="http://www.omg.org/XMI" '
        'xmlns:cas="http:///uima/cas.ecore" xmi:version="2.0" '
        'xmlns:type="http:///de/tudarmstadt/ukp/dkpro/core/api/ner/type.ecore">'
        f'<cas:NULL xmi:id="0"/>{marked}<cas:Sofa xmi:id="1" sofaNum="1" sofaID="_InitialView" '
        f'mimeType="text" sofaString="{whole}"/><cas:View sofa="1" members=""/></xmi:XMI>'
    )


def xlsx_of(path: Path, cells: list[list[object]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in cells:
        book.active.append(row)
    book.save(path)
    return path


def parquet_of(
    path: Path, columns: dict[str, list[Any]], features: dict[str, Any] | None = None
) -> Path:
    """A Parquet file, with the features as Hugging Face's datasets writes them beside the schema."""
    pa = pytest.importorskip("pyarrow")
    table = pa.table(columns)
    if features:
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    pytest.importorskip("pyarrow.parquet").write_table(table, path)
    return path


def written(format: str, folder: Path, text: str, places: list[tuple[int, int]]) -> Path:
    """A text with marked places in one of the formats, written by hand."""
    quotes = [text[start:end] for start, end in places]
    triples = [[start, end, "X"] for start, end in places]
    full = [
        {"start": start, "end": end, "label": "X", "text": quote}
        for (start, end), quote in zip(places, quotes, strict=True)
    ]
    values = [{**one, "labels": ["X"]} for one in full]
    result = [{"id": f"r{n}", "type": "labels", "value": one} for n, one in enumerate(values)]
    task = {"id": 1, "data": {"text": text}, "annotations": [{"result": result}]}
    cell = json.dumps(full, ensure_ascii=False).replace('"', '""')
    lines = [
        f"T{n}\tX {s} {e}\t{q}" for n, ((s, e), q) in enumerate(zip(places, quotes, strict=True))
    ]
    tags = "".join(
        f'<X id="P{n}" start="{s}" end="{e}" text={quoteattr(q)} TYPE="X"/>'
        for n, ((s, e), q) in enumerate(zip(places, quotes, strict=True))
    )
    bioc = [
        {"infons": {"type": "X"}, "text": q, "locations": [{"offset": s, "length": e - s}]}
        for (s, e), q in zip(places, quotes, strict=True)
    ]
    passage = {"offset": 0, "text": text, "annotations": bioc}
    contents = {
        "jsonl": ("a.jsonl", rows({"text": text, "entities": full})),
        "doccano": ("a.jsonl", rows({"text": text, "label": triples})),
        "prodigy": ("a.jsonl", rows({"text": text, "spans": full, "answer": "accept"})),
        "label_studio": ("a.json", json.dumps([task])),
        "csv": ("a.csv", f'text,spans\n"{text.replace(chr(34), chr(34) * 2)}","{cell}"\n'),
        "brat": ("a.ann", "\n".join(lines)),
        "i2b2_xml": (
            "a.xml",
            f"<deIdi2b2><TEXT>{escape(text)}</TEXT><TAGS>{tags}</TAGS></deIdi2b2>",
        ),
        "bioc": ("a.json", json.dumps({"documents": [{"id": "1", "passages": [passage]}]})),
        "pubtator": (
            "a.txt",
            f"1|t|{text}\n"
            + "".join(f"1\t{s}\t{e}\t{q}\tX\n" for (s, e), q in zip(places, quotes, strict=True)),
        ),
    }
    contents["ccks"] = (
        "a.jsonl",
        rows(
            {
                "originalText": text,
                "entities": [{"start_pos": s, "end_pos": e, "label_type": "X"} for s, e in places],
            }
        ),
    )
    contents["xmi"] = ("a.xmi", xmi_of(text, places))
    if format == "xlsx":
        return xlsx_of(folder / "a.xlsx", [["text", "spans"], [text, json.dumps(full)]])
    if format == "arrow":
        return parquet_of(folder / "a.parquet", {"text": [text], "entities": [full]})
    name, content = contents[format]
    path = put(folder, content, name)
    return put(folder, text, "a.txt") if format == "brat" else path


@pytest.mark.parametrize(
    "format",
    [
        "jsonl",
        "doccano",
        "prodigy",
        "label_studio",
        "csv",
        "brat",
        "i2b2_xml",
        "bioc",
        "pubtator",
        "ccks",
        "xmi",
        "xlsx",
        "arrow",
    ],
)
@many
@given(
    st.lists(
        st.text(st.sampled_from("abđêổ9😀患<&\"'"), min_size=1, max_size=5), min_size=1, max_size=8
    ),
    st.data(),
)
def test_every_format_gives_the_text_and_the_spans_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, format: str, words: list[str], data: st.DataObject
) -> None:
    text = " ".join(words)
    ends = [0]
    for word in words:
        ends.append(ends[-1] + len(word) + 1)
    numbers = st.integers(0, len(words) - 1)
    drawn = data.draw(st.lists(st.tuples(numbers, numbers), max_size=3))
    places = sorted({(ends[min(one)], ends[max(one) + 0] + len(words[max(one)])) for one in drawn})
    path = written(format, scratch(tmp_path_factory), text, places)
    extra = {"columns": {"entities": "spans"}} if format in ("csv", "xlsx") else {}
    (note,), _ = read(path, format, **extra)
    assert note.text == text
    assert [(span.start, span.end, span.quote) for span in note.spans] == [
        (start, end, text[start:end]) for start, end in places
    ]


# What was tried from outside


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "format", "spans"),
    [
        ("prodigy_answers.jsonl", "prodigy", [("sốt cao", "SYMPTOM")]),
        ("doccano_triples.jsonl", "doccano", [("sốt cao", "SYMPTOM"), ("paracetamol", "DRUG")]),
        ("doccano_relations.jsonl", "doccano", [("sốt cao", "SYMPTOM"), ("paracetamol", "DRUG")]),
        ("inclusive_ends.jsonl", "jsonl", [("成人SARS", "dis"), ("发热", "sym")]),
        ("trailing_tab.conll", "conll", [("sốt", "S")]),
        ("i2b2.con", "i2b2", [("fever", "problem"), ("ibuprofen", "treatment")]),
        ("webanno.tsv", "webanno", [("fever", "SYM")]),
    ],
)
def test_cases_that_are_read(name: str, format: str, spans: list[tuple[str, str]]) -> None:
    if not (CASES / name).is_file():
        pytest.skip("the cases are not on this machine")
    notes, _ = read(CASES / name, format)
    assert [one for note in notes for one in found(note)] == spans
    if "relations" in name:
        assert notes[0].relations == (Relation(head=0, tail=1, label="treats"),)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "format", "reason"),
    [
        ("doccano_triples.jsonl", "jsonl", "set format to doccano"),
        ("offsets_after_crlf_folding.jsonl", "jsonl", "begins or ends inside a word"),
        (
            "half_the_rows_another_key.jsonl",
            "jsonl",
            r'5 x has no key "entities" \(keys found: id, spans, text\)',
        ),
        ("plain_text_as.conll", "conll", "line 1: the last column is no tag"),
        ("two_tags_in_one.conll", "conll", "two tags in one"),
    ],
)
def test_cases_that_are_refused(name: str, format: str, reason: str) -> None:
    if not (CASES / name).is_file():
        pytest.skip("the cases are not on this machine")
    with pytest.raises(DataError, match=reason):
        read(CASES / name, format)
