"""FHIR R4 as notes: what documents, reports, compositions and observations say comes out, code point
by code point, with the patient whom they name; the rest is counted with its reason."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections import Counter
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import html

from residency.core.part import parse
from residency.core.progress import Silent
from residency.core.types import RawNote
from residency.ingest.decode import STRUCK
from residency.ingest.documents import ELSEWHERE
from residency.ingest.fhir import (
    ABOUT,
    BROKEN,
    DELETED,
    NO_NOTES,
    REPLACED,
    SAME,
    SUMMARY,
    TAKEN_BACK,
    known_of,
    outcomes,
)
from residency.ingest.rows import NO_TEXT, RowOutcome
from residency.ingest.sources import Extract, Fhir
from residency.ingest.store import Store
from residency.ingest.transfer import take

VI = Fhir(kind="fhir", path="x", lang="vi")
Made = dict[str, Any]
AN = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [
        {"type": {"coding": [{"code": "MR"}]}, "system": "urn:bv", "value": "BN-1001"},
        {"type": {"coding": [{"code": "NI"}]}, "value": "079081002345"},
    ],
    "name": [{"family": "Trần", "given": ["An", "Thị"]}],
    "birthDate": "1950-02-14",
    "telecom": [{"system": "phone", "value": "0903 123 456"}, {"value": "an@vidu.vn"}],
    "address": [{"line": ["12 Lê Lợi"], "district": "Quận 1", "city": "TP HCM"}],
    "contact": [{"name": {"text": "Lê Văn Ba"}}],
}
BA = {"resourceType": "Patient", "id": "p2", "name": [{"text": "Nguyễn Thị Ba"}]}


def coded(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


def attached(data: str | bytes, kind: str = "text/plain; charset=utf-8") -> Made:
    return {"attachment": {"contentType": kind, "data": coded(data)}}


def document(id: str = "d1", *contents: Made, patient: str = "Patient/p1", **more: Any) -> Made:
    made = {"resourceType": "DocumentReference", "id": id, "status": "current"}
    return made | {"subject": {"reference": patient}, "content": list(contents)} | more


def report(id: str = "r1", **more: Any) -> Made:
    made = {"resourceType": "DiagnosticReport", "id": id, "status": "final"}
    return made | {"code": {"text": "X-quang ngực"}, "subject": {"reference": "Patient/p1"}} | more


def bundle(*resources: Made, base: str = "urn:uuid:") -> Made:
    entries = [
        {"fullUrl": f"{base}{one.get('id', n)}", "resource": one} for n, one in enumerate(resources)
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def read(folder: Path, made: Made | str | bytes, name: str = "a.json") -> list[RowOutcome]:
    path = folder / name
    data = json.dumps(made, ensure_ascii=False) if isinstance(made, dict) else made
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(outcomes(VI, path, name, known_of([path])))


def only(folder: Path, *resources: Made) -> tuple[RawNote, dict[str, int]]:
    (found,) = (one for one in read(folder, bundle(*resources)) if one.skipped != NO_NOTES)
    assert found.note is not None
    return found.note, found.remarks


def test_a_document_is_its_attachment_with_its_patient(tmp_path: Path) -> None:
    note, remarks = only(
        tmp_path,
        AN,
        BA,
        {"resourceType": "Practitioner", "id": "s1", "name": [{"text": "Phạm Văn Tư"}]},
        {"resourceType": "Encounter", "id": "e1", "identifier": [{"value": "NV-77"}]},
        {
            "resourceType": "RelatedPerson",
            "id": "x",
            "patient": {"reference": "Patient/p1"},
            "name": [{"text": "Trần Văn Năm"}],
        },
        document(
            "d1",
            attached("Sốt cao 3 ngày.\nHo 😀"),
            type={"text": "Bệnh án"},
            date="2026-05-01T09:30:00+07:00",
            description="Bệnh án nội khoa",
            author=[{"reference": "Practitioner/s1"}, {"display": "BS. Lê Sáu"}],
            context={"encounter": [{"reference": "Encounter/e1"}]},
        ),
    )
    assert (note.text, note.patient, note.kind) == ("Sốt cao 3 ngày.\nHo 😀", "p1", "Bệnh án")
    assert (note.lang, note.written_at) == ("vi", datetime(2026, 5, 1, 9, 30))
    assert set(note.identifiers) == {
        ("record", "BN-1001"),
        ("national_id", "079081002345"),
        ("name", "Trần Thị An"),
        ("name", "Trần An"),
        ("birth_date", "1950-02-14"),
        ("phone", "0903 123 456"),
        ("email", "an@vidu.vn"),
        ("address", "12 Lê Lợi, Quận 1, TP HCM"),
        ("address", "12 Lê Lợi"),
        ("relative", "Lê Văn Ba"),
        ("relative", "Trần Văn Năm"),
        ("clinician", "Phạm Văn Tư"),
        ("clinician", "BS. Lê Sáu"),
        ("admission", "NV-77"),
    }
    assert remarks == {ABOUT: len("Bệnhánnộikhoa")}


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ("sốt".encode("cp1258", "ignore") + b"\xf3", "text/plain; charset=windows-1258", "stó"),
        ("发热三天，誠".encode("gb18030"), "text/plain;charset=GB2312", "发热三天，誠"),
        ("prix 5 €".encode("iso8859-15"), 'text/plain; charset="iso-8859-15"', "prix 5 €"),
        ("sốt".encode("utf-16"), "text/plain; charset=UTF-16", "sốt"),
        (b"\xef\xbb\xbf" + "sốt".encode(), "text/plain; charset=UTF8", "sốt"),
        ("<p>BC 10<sup>9</sup>/L</p>", "text/html", "BC 10^9/L"),
        (b"{\\rtf1\\ansi s\\'e9dation}", "application/rtf", "sédation"),
        (
            '<ClinicalDocument xmlns="urn:hl7-org:v3"><component><section><text>Phổi trong'
            "</text></section></component></ClinicalDocument>",
            "application/xml",
            "Phổi trong",
        ),
    ],
)
def test_an_attachment_is_decoded_as_its_type_and_character_set_say(
    tmp_path: Path, data: str | bytes, kind: str, words: str
) -> None:
    assert only(tmp_path, AN, document("d", attached(data, kind)))[0].text == words


@pytest.mark.parametrize(
    ("attachment", "reason"),
    [
        ({"contentType": "text/plain", "data": "U*kh"}, "its base64 cannot be read"),
        ({"contentType": "text/plain", "data": "U29uZwo"}, "its base64 cannot be read"),
        ({"contentType": "text/plain; charset=klingon", "data": coded("x")}, "character set"),
        ({"contentType": "text/plain; charset=utf-8", "data": coded(b"\xff\xe1")}, "encoding"),
        ({"contentType": "application/dicom", "data": coded(b"\0" * 128 + b"DICM")}, "DICOM"),
        ({"contentType": "image/png", "data": coded(b"\x89PNG\r\n")}, "PNG"),
        ({"contentType": "text/plain", "url": "Binary/none"}, ELSEWHERE),
        ({"contentType": "text/plain", "url": "https://example.org/a.txt"}, ELSEWHERE),
    ],
)
def test_an_attachment_that_cannot_be_read_is_counted_with_its_reason(
    tmp_path: Path, attachment: Made, reason: str
) -> None:
    (alone,) = read(tmp_path, document("d", {"attachment": attachment}))
    assert alone.note is None and reason in alone.skipped
    note, remarks = only(tmp_path, AN, report(conclusion="Phổi trong", presentedForm=[attachment]))
    assert note.text == "Phổi trong" and [why for why in remarks if reason in why]


def test_an_attachment_may_stand_in_a_binary_of_the_bundle_or_of_another_file(
    tmp_path: Path,
) -> None:
    binary = {"resourceType": "Binary", "id": "b1", "contentType": "text/html; charset=utf-8"}
    binary["data"] = coded("<p>Đau ngực</p>")
    pointing = document("d", {"attachment": {"url": "http://his/fhir/Binary/b1"}})
    assert only(tmp_path, AN, binary, pointing)[0].text == "Đau ngực"
    by_urn = document("d", {"attachment": {"url": "urn:uuid:b1"}})
    assert only(tmp_path, AN, binary, by_urn)[0].text == "Đau ngực"
    source = tmp_path / "in"
    source.mkdir()
    for name, lines in {
        "Binary": [{"resourceType": "Binary", "id": "b0", "data": coded("ô")}, binary],
        "DocumentReference": [pointing],
        "Patient": [BA, AN],
    }.items():
        text = "\n".join(json.dumps(one, ensure_ascii=False) for one in lines)
        (source / f"{name}.ndjson").write_text(text, "utf-8")
    (note,) = held(tmp_path, source)
    assert (note.text, note.patient) == ("Đau ngực", "p1")
    assert ("name", "Trần Thị An") in note.identifiers


def held(root: Path, path: Path) -> list[RawNote]:
    """What a store holds after an extraction."""
    (root / "zone").mkdir(exist_ok=True)
    store = Store.open(root / "zone", "t", b"k" * 32)
    take(
        parse(Extract, {"kind": "fhir", "path": str(path), "lang": "vi"}, "extract"),
        root,
        store,
        Silent(),
    )
    found = [note for number in store.numbers(0) for note in store.read(number)]
    store.close()
    return found


def test_each_patient_of_a_bundle_has_their_own_notes(tmp_path: Path) -> None:
    notes = [
        one.note
        for one in read(
            tmp_path,
            bundle(
                AN,
                document("d1", attached("một"), patient="urn:uuid:p1"),
                document("d2", attached("hai"), patient="http://his/fhir/Patient/p2/_history/3"),
                document("d3", attached("ba"), patient="Patient/nobody"),
                BA,
            ),
        )
        if one.note
    ]
    assert [(one.text, one.patient) for one in notes] == [
        ("một", "p1"),
        ("hai", "p2"),
        ("ba", "nobody"),
    ]
    assert not {value for _, value in notes[1].identifiers} & {"BN-1001", "Trần Thị An"}
    assert notes[2].identifiers == ()


def test_patients_inside_of_resources_are_not_taken_for_one_another(tmp_path: Path) -> None:
    def inside(id: str, text: str, **patient: Any) -> Made:
        held = {"resourceType": "Patient", "id": "me"} | patient
        return document(id, attached(text), patient="#me", contained=[held])

    first, second, third = (
        one.note
        for one in read(
            tmp_path,
            bundle(
                inside("d1", "một", name=[{"text": "Trần An"}]),
                inside("d2", "hai", name=[{"text": "Lê Ba"}]),
                inside("d3", "ba", identifier=[{"value": "BN-9"}]),
            ),
        )
    )
    assert first and second and third
    assert len({first.patient, second.patient, third.patient, "me", ""}) == 5
    assert third.patient == "BN-9" and first.identifiers == (("name", "Trần An"),)


def test_a_patient_may_be_named_by_number_alone(tmp_path: Path) -> None:
    by_number = document("d", attached("một"))
    by_number["subject"] = {"identifier": {"system": "urn:bv", "value": "BN-1001"}}
    assert only(tmp_path, AN, by_number)[0].patient == "p1"
    assert only(tmp_path, by_number)[0].patient == "BN-1001"
    by_number["subject"]["display"] = "Trần Thị An"
    assert ("name", "Trần Thị An") in only(tmp_path, by_number)[0].identifiers


def test_a_report_is_its_forms_and_its_conclusion(tmp_path: Path) -> None:
    forms = [
        attached("Tim to.\nPhổi trong.")["attachment"],
        attached("<p>Tim to.</p><p>Phổi trong.</p>", "text/html")["attachment"],
    ]
    note, remarks = only(
        tmp_path,
        AN,
        report(presentedForm=forms, conclusion="Tim to", issued="2026-01-02T03:04:05Z"),
    )
    assert (note.text, note.kind) == ("Tim to.\nPhổi trong.\nTim to", "X-quang ngực")
    assert note.written_at == datetime(2026, 1, 2, 3, 4, 5)
    assert remarks == {SAME: len("Timto.Phổitrong.")}


def test_an_observation_is_its_notes_and_none_without_them(tmp_path: Path) -> None:
    seen = {"resourceType": "Observation", "id": "o1", "status": "final"}
    seen |= {"subject": {"reference": "Patient/p1"}, "valueString": "dương tính"}
    notes = [
        {"text": "Mẫu vỡ hồng cầu.", "authorString": "Lê Thị Bảy"},
        {"text": "Làm lại."},
    ]
    note, remarks = only(tmp_path, AN, seen | {"note": notes})
    assert note.text == "Mẫu vỡ hồng cầu.\nLàm lại." and remarks == {ABOUT: len("dươngtính")}
    assert ("clinician", "Lê Thị Bảy") in note.identifiers
    (none,) = read(tmp_path, seen)
    assert (none.note, none.skipped, none.remarks) == (None, NO_TEXT, {ABOUT: len("dươngtính")})


def test_a_composition_is_its_sections_in_their_order(tmp_path: Path) -> None:
    def section(title: str, div: str, *inner: Made) -> Made:
        text = {
            "status": "additional",
            "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{div}</div>',
        }
        return {"title": title, "text": text, "section": list(inner)}

    made = {
        "resourceType": "Composition",
        "id": "c1",
        "status": "final",
        "title": "Tóm tắt",
        "identifier": {"value": "C-1"},
        "subject": {"reference": "Patient/p1"},
        "text": {"div": "<div>Tóm tắt máy làm</div>"},
        "section": [
            section(
                "Bệnh sử",
                "<p>Sốt <b>3</b> ngày</p><p><s>không</s> ho</p>",
                section("Thuốc", "a<br/>b"),
            ),
            section("Khám", "<table><tr><td>M</td><td>80</td></tr></table>"),
        ],
    }
    note, remarks = only(tmp_path, AN, made)
    assert note.text == "Bệnh sử\nSốt 3 ngày\nho\nThuốc\na\nb\nKhám\nM\t80"
    assert note.kind == "Tóm tắt" and remarks == {SUMMARY: len("Tómtắtmáylàm"), STRUCK: 5}
    alone = {key: value for key, value in made.items() if key != "section"}
    assert only(tmp_path, AN, alone)[0].text == "Tóm tắt máy làm"


@pytest.mark.parametrize(
    "status",
    [{"status": "entered-in-error"}, {"status": "superseded"}, {"docStatus": "entered-in-error"}],
)
def test_what_was_entered_in_error_is_taken_back(tmp_path: Path, status: Made) -> None:
    (before,) = read(tmp_path, document("d", attached("một")))
    (after,) = read(tmp_path, document("d", attached("một")) | status)
    assert before.note and (after.id, after.skipped, after.deleted) == (
        before.note.id,
        TAKEN_BACK,
        True,
    )


def at(time: str, made: Made) -> Made:
    return made | {"meta": {"lastUpdated": time}}


def test_a_store_holds_what_the_resources_leave_standing(tmp_path: Path) -> None:
    """In one file and in several: amended, replaced, taken back, deleted, sent again; times in two
    zones."""
    replaces = [{"code": "replaces", "target": {"reference": "DocumentReference/d3"}}]
    sent: list[Made] = [
        at("2026-01-01T08:00:00Z", document("d1", attached("một"))),
        at("2026-01-01T07:00:00Z", document("d2", attached("hai"))),
        at("2026-01-01T08:02:00Z", document("d3", attached("ba"))),
        at("2026-01-01T14:30:00+07:00", document("d2", attached("hai rõ"), docStatus="amended")),
        at("2026-01-01T09:00:00Z", document("d1", attached("một"), status="entered-in-error")),
        at("2026-01-01T09:00:00Z", document("d4", attached("ba mới"), relatesTo=replaces)),
        at("2026-01-01T08:00:00Z", document("d1", attached("một"))),
        at("2026-01-01T08:02:00Z", document("d3", attached("ba"))),
        at("2026-01-01T07:00:00Z", document("d2", attached("hai"))),
        at("2026-01-01T07:00:00Z", report("r1", conclusion="bốn")),
    ]
    gone = {"request": {"method": "DELETE", "url": "DiagnosticReport/r1"}}
    for name, files in (
        ("whole", [bundle(*sent) | {}]),
        ("apart", [bundle(one) for one in sent]),
    ):
        files[-1]["entry"].append(gone)
        folder = tmp_path / name / "in"
        folder.mkdir(parents=True)
        for number, made in enumerate(files):
            (folder / f"{number:02}.json").write_text(json.dumps(made), "utf-8")
        assert sorted(note.text for note in held(tmp_path / name, folder)) == ["ba mới", "hai rõ"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"meta": {"versionId": "9"}}, {"meta": {"versionId": "10"}}),
        ({"issued": "2026-01-01T08:00:00Z"}, {"issued": "2026-01-01T15:00:01+07:00"}),
        (
            {"issued": "2026-01-01T08:00:00Z"},
            {"issued": "2026-01-01T08:00:00Z", "status": "amended"},
        ),
        ({}, {"status": "corrected"}),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_later_version_stands_whichever_comes_first(
    tmp_path: Path, before: Made, after: Made, order: int
) -> None:
    both = [report("r1", conclusion="cũ") | before, report("r1", conclusion="mới") | after]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.json").write_text(json.dumps(bundle(*both[::order])), "utf-8")
    assert [note.text for note in held(tmp_path, tmp_path / "in")] == ["mới"]


def test_a_replaced_document_is_named_and_no_row_of_its_own(tmp_path: Path) -> None:
    relates = [{"code": "replaces", "target": {"reference": "DocumentReference/d1"}}]
    (first,) = read(tmp_path, document("d1", attached("một")))
    gone, second = read(tmp_path, document("d2", attached("hai"), relatesTo=relates))
    assert first.note and (gone.id, gone.skipped, gone.rows) == (first.note.id, REPLACED, 0)
    assert second.note and second.note.text == "hai"


def test_a_resource_deleted_at_the_server_is_taken_back(tmp_path: Path) -> None:
    (before,) = read(tmp_path, document("d1", attached("một")))
    (gone,) = read(
        tmp_path,
        {
            "resourceType": "Bundle",
            "type": "history",
            "entry": [{"request": {"method": "DELETE", "url": "DocumentReference/d1"}}],
        },
    )
    assert before.note and (gone.id, gone.skipped, gone.deleted) == (before.note.id, DELETED, True)


def test_lines_lists_and_bundles_of_bundles_are_read_alike(tmp_path: Path) -> None:
    made = [AN, document("d1", attached("một")), report("r1", conclusion="hai")]
    lines = "\ufeff" + "\r\n\r\n".join(json.dumps(one, ensure_ascii=False) for one in made)
    every = [
        read(tmp_path, lines, "a.ndjson"),
        read(tmp_path, lines, "a.json"),
        read(tmp_path, json.dumps(made)),
        read(tmp_path, bundle(bundle(*made))),
        read(tmp_path, "\n".join(json.dumps(bundle(one)) for one in made), "b.jsonl"),
    ]
    for found in every:
        told = [(one.note.id, one.note.text, one.note.patient) for one in found if one.note]
        assert [text for _, text, _ in told] == ["một", "hai"] and {one[2] for one in told} == {
            "p1"
        }
        assert told == [
            (one.note.id, one.note.text, one.note.patient) for one in every[0] if one.note
        ]
        assert [(one.skipped, one.rows) for one in found if not one.note] == [(NO_NOTES, 1)]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '{"resourceType": "Composition", "section": 7}',
        '"x"',
        '{"resourceType": "Observation", "note": [{"text": 5}]}',
    ],
)
def test_what_is_no_resource_is_counted_and_the_next_line_read(tmp_path: Path, line: str) -> None:
    good = json.dumps(document("d1", attached("một")))
    found = read(tmp_path, f"{line}\n{good}", "a.ndjson")
    assert [one.skipped for one in found] == [BROKEN, ""] and found[1].note


# Nothing is lost

many = settings(suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**64).map(Random)
"""What examples are made with: drawing each piece by a strategy takes ten times as long."""
CHARSETS = ["utf-8", "utf-16", "gb18030", "utf-32"]


def solid(text: str) -> str:
    return "".join(text.split())


def characters(made: Made) -> str:
    """The characters of everything in a resource that is words, by a parse of its own."""
    found = [made.get("description", ""), made.get("valueString", ""), made.get("conclusion", "")]
    for one in [
        *(content["attachment"] for content in made.get("content", ())),
        *made.get("presentedForm", ()),
    ]:
        charset = re.search("charset=([^;]+)", one["contentType"])
        assert charset
        found.append(b64decode(one["data"]).decode(charset[1]))
    found += [one["text"] for one in made.get("note", ())]
    waiting = [*made.get("section", ()), {"text": made["text"]} if "text" in made else {}]
    for one in waiting:
        found.append(one.get("title", ""))
        if "text" in one:
            found.append(html.fragment_fromstring(one["text"]["div"]).text_content())
        waiting += one.get("section", ())
    return solid("".join(found))


def words_of(chance: Random) -> str:
    """Some text that does not look like HTML."""
    signs = 'ab đêổ5 9-+\n\t.,患者😀\\"{}&<>'
    return "".join(chance.choices(signs, k=chance.randint(1, 12))).replace("<b", "b")


def resource(chance: Random) -> Made:
    def div(text: str) -> Made:
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"div": f"<div><p>{escaped}</p></div>"}

    def attachment(text: str) -> Made:
        charset = chance.choice(CHARSETS)
        kind = f"text/plain; charset={charset}"
        return {"contentType": kind, "data": coded(text.encode(charset))}

    kind = chance.choice(["DocumentReference", "DiagnosticReport", "Observation", "Composition"])
    texts = [words_of(chance) for _ in range(chance.randint(1, 4))]
    made: Made = {"resourceType": kind, "id": "x", "subject": {"reference": "Patient/p1"}}
    if chance.random() < 0.5:
        made["text"] = div(words_of(chance))
    if kind == "DocumentReference":
        made |= {"description": words_of(chance)}
        made |= {"content": [{"attachment": attachment(one)} for one in texts]}
    elif kind == "DiagnosticReport":
        made |= {"conclusion": texts[0], "presentedForm": [attachment(one) for one in texts[1:]]}
    elif kind == "Observation":
        made |= {"note": [{"text": one} for one in texts], "valueString": words_of(chance)}
    else:
        inner = [{"title": one, "text": div(one)} for one in texts[1:]]
        made |= {"section": [{"title": texts[0], "section": inner}]}
    return made


def resources(chance: Random) -> list[Made]:
    return [resource(chance) for _ in range(chance.randint(1, 3))]


@many
@given(SEEDS.map(resources))
def test_no_character_of_a_resource_is_lost(
    tmp_path_factory: pytest.TempPathFactory, made: list[Made]
) -> None:
    found = read(tmp_path_factory.getbasetemp(), bundle(*made))
    assert len(found) == len(made)
    for one, given_ in zip(found, made, strict=True):
        out = len(solid(one.note.text)) if one.note else 0
        assert out + sum(one.remarks.values()) == len(characters(given_))
        if one.note:  # and no character is another
            assert not Counter(solid(one.note.text)) - Counter(characters(given_))


# XML


def as_xml(made: Made, tag: str = "") -> str:
    """A resource in XML as the standard writes it: an attribute for a value, an element for each
    item of a list, in any order of lists."""
    out = ET.Element(tag or str(made["resourceType"]))
    if not tag:
        out.set("xmlns", "http://hl7.org/fhir")
    for key, value in made.items():
        for one in value if isinstance(value, list) else [value]:
            if key == "resourceType":
                continue
            if key == "div":
                inside = one.replace("<div>", '<div xmlns="http://www.w3.org/1999/xhtml">', 1)
                out.append(ET.fromstring(inside))
            elif key in ("resource", "contained"):
                ET.SubElement(out, key).append(ET.fromstring(as_xml(one)))
            elif isinstance(one, dict):
                out.append(ET.fromstring(as_xml(one, key)))
            else:
                ET.SubElement(out, key, value=str(one))
    return ET.tostring(out, encoding="unicode")


def told(found: list[RowOutcome]) -> list[tuple[RawNote | None, str, dict[str, int], str, bool]]:
    return [(one.note, one.skipped, one.remarks, one.version, one.deleted) for one in found]


@many
@given(SEEDS.map(resources))
def test_xml_says_what_json_says(
    tmp_path_factory: pytest.TempPathFactory, made: list[Made]
) -> None:
    folder, whole = tmp_path_factory.getbasetemp(), bundle(AN, BA, *made)
    by_json, by_xml = read(folder, whole), read(folder, as_xml(whole), "a.xml")
    assert [solid(one.note.text) if one.note else "" for one in by_xml] == [
        solid(one.note.text) if one.note else "" for one in by_json
    ]
    lost = [len(solid(one.note.text)) if one.note else 0 for one in by_xml]
    for kept, one, given_ in zip(lost, by_xml, made, strict=False):
        assert kept + sum(one.remarks.values()) == len(characters(given_))


def test_a_bundle_in_xml_has_its_people_visits_versions_and_what_is_taken_back(
    tmp_path: Path,
) -> None:
    inside = document("d9", attached("Ho."), contained=[AN | {"id": "c"}], patient="#c")
    entries = bundle(
        AN,
        {"resourceType": "Encounter", "id": "e1", "identifier": [{"value": "NV-77"}]},
        {"resourceType": "Binary", "id": "b1", "contentType": "text/plain", "data": coded("Đau đầu.")},
        at(
            "2026-05-01T09:30:00+07:00",
            document(
                "d1",
                {"attachment": {"contentType": "text/plain", "url": "Binary/b1"}},
                context={"encounter": [{"reference": "Encounter/e1"}]},
                relatesTo=[{"code": "replaces", "target": {"reference": "DocumentReference/d0"}}],
                type={"coding": [{"code": "x", "display": "Bệnh án"}]},
            ),
        ),
        document("d2", attached("hai"), status="entered-in-error"),
        inside,
    )  # fmt: skip
    entries["entry"].append({"request": {"method": "DELETE", "url": "DiagnosticReport/r1"}})
    assert told(read(tmp_path, as_xml(entries), "a.xml")) == told(read(tmp_path, entries))
    notes = [one.note for one in read(tmp_path, as_xml(entries), "a.xml") if one.note]
    assert [(n.text, n.kind) for n in notes] == [
        ("Đau đầu.", "Bệnh án"),
        ("Ho.", "DocumentReference"),
    ]
    assert ("admission", "NV-77") in notes[0].identifiers
    assert ("record", "BN-1001") in notes[1].identifiers


@pytest.mark.parametrize(
    "data",
    [
        b"<Bundle",
        b"<ClinicalDocument xmlns='urn:hl7-org:v3'/>",
        b"<!DOCTYPE a [<!ENTITY e 'x'>]><Composition xmlns='http://hl7.org/fhir'/>",
        b"<Bundle xmlns='http://hl7.org/fhir'><entry><resource><x xmlns='urn:other'/></resource></entry></Bundle>",
        b"",
    ],
)
def test_xml_that_is_no_resource_is_counted(tmp_path: Path, data: bytes) -> None:
    assert [one.skipped for one in read(tmp_path, data, "a.xml")] == [BROKEN]


def test_a_resource_in_xml_written_by_hand(tmp_path: Path) -> None:
    written = """<?xml version="1.0" encoding="UTF-8"?>
<!-- a report --><DiagnosticReport xmlns="http://hl7.org/fhir"><id value="r7"/><text><status value="generated"/>
<div xmlns="http://www.w3.org/1999/xhtml"><p>X-quang</p></div></text><status value="final"/>
<code><coding><system value="urn:x"/><code value="36643-5"/><display value="X-quang ngực"/></coding></code>
<subject><reference value="Patient/p1"/><display value="Trần Thị An"/></subject>
<conclusion value="Mờ đáy phổi phải &amp; trái&#10;😀"><extension url="urn:e"><valueString value="no"/></extension></conclusion>
</DiagnosticReport>"""
    (found,) = read(tmp_path, written, "r.xml")
    assert found.note and found.note.text == "Mờ đáy phổi phải & trái\n😀"
    assert (found.note.patient, found.note.kind) == ("p1", "X-quang ngực")
    assert ("name", "Trần Thị An") in found.note.identifiers
    assert found.remarks == {SUMMARY: len("X-quang")}
