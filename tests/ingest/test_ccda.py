"""C-CDA documents: the narrative of their sections, and everyone whom the header names; no entity
is followed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from residency.core.part import parse
from residency.core.progress import Silent
from residency.ingest.ccda import document
from residency.ingest.rows import NO_TEXT
from residency.ingest.safe_xml import BROKEN, ENTITIES
from residency.ingest.sources import Ccda, Extract
from residency.ingest.store import Store
from residency.ingest.transfer import take

SETTINGS = Ccda(kind="ccda", path="x", lang="en")
HEADER = """
<languageCode code="en-US"/><code displayName="Discharge summary"/><effectiveTime value="20240501093000"/>
<recordTarget><patientRole><id root="1.2.3" extension="MRN-7781"/><id root="2.16.840.1.113883.4.1" extension="111-22-3333"/>
<addr><streetAddressLine>12 Elm Street</streetAddressLine><city>Springfield</city></addr><telecom value="tel:(555)010-2233"/><telecom value="mailto:ann@example.com"/>
<patient><name><given>Ann</given><given>Marie</given><family>Doe</family></name><birthTime value="19500214"/>
<guardian><telecom value="tel:5550104455"/><guardianPerson><name><given>Ralph</given><family>Doe</family></name></guardianPerson></guardian></patient></patientRole></recordTarget>
<author><assignedAuthor><assignedPerson><name><given>Henry</given><family>Seven</family></name></assignedPerson></assignedAuthor></author>
<participant><associatedEntity><associatedPerson><name><given>Rose</given><family>Doe</family></name></associatedPerson></associatedEntity></participant>
<componentOf><encompassingEncounter><id extension="ADM-99"/></encompassingEncounter></componentOf>
"""
BODY = """
<component><structuredBody><component><section><title>HISTORY</title><text><paragraph>Fever for <content>three</content> days.</paragraph>
<list><item>cough</item><item>pain</item></list></text><entry><observation><text>not narrative</text></observation></entry></section></component>
<component><section><title>VITALS</title><text><table><tbody><tr><td>Pulse</td><td>80</td></tr><tr><td>Temp</td><td>38.5</td></tr></tbody></table>a<br/>b</text></section></component>
</structuredBody></component>
"""


def xml(inside: str, before: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{before}<ClinicalDocument '
        f'xmlns="urn:hl7-org:v3">{inside}</ClinicalDocument>'
    ).encode()


def test_the_narrative_is_read_section_by_section() -> None:
    note = document(SETTINGS, xml(HEADER + BODY), "a.xml").note
    assert (
        note
        and note.text
        == "HISTORY\nFever for three days.\ncough\npain\nVITALS\nPulse\t80\nTemp\t38.5\na\nb"
    )
    assert (note.kind, note.lang, note.patient, note.written_at) == (
        "Discharge summary",
        "en",
        "MRN-7781",
        datetime(2024, 5, 1, 9, 30),
    )


def test_everyone_in_the_header_is_a_known_identifier() -> None:
    note = document(SETTINGS, xml(HEADER + BODY), "a.xml").note
    assert note and set(note.identifiers) == {
        ("record", "MRN-7781"),
        ("national_id", "111-22-3333"),
        ("address", "12 Elm Street, Springfield"),
        ("address", "12 Elm Street"),
        ("phone", "(555)010-2233"),
        ("email", "ann@example.com"),
        ("name", "Ann Doe"),
        ("name", "Ann Marie Doe"),
        ("name", "Marie Doe"),
        ("birth_date", "1950-02-14"),
        ("phone", "5550104455"),
        ("relative", "Ralph Doe"),
        ("relative", "Rose Doe"),
        ("clinician", "Henry Seven"),
        ("admission", "ADM-99"),
    }


def test_entities_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("Zyxwvutsrq")
    declared = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
    found = document(SETTINGS, xml(f"{BODY.replace('three', '&e;')}", declared), "a.xml")
    assert found.note is None and found.skipped == ENTITIES


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"<x/>", BROKEN), (b"no xml", BROKEN), (b"", BROKEN), (xml(HEADER), NO_TEXT)],
)
def test_what_is_no_document_is_accounted_for(data: bytes, reason: str) -> None:
    assert document(SETTINGS, data, "a.xml").skipped == reason


# Versions: each row of a case is a file, (set, number, how it is related, to which document).


def of_set(
    words: str, id: str, set_id: str = "", number: str = "", related: tuple[str, str, str] = ("", "", ""),
    patient: str = "MRN-1",
) -> bytes:  # fmt: skip
    """A document of one paragraph; ``related``: how, the parent's id, the parent's set."""
    how, parent, parent_set = related
    inside = f'<id root="1.9" extension="{id}"/><effectiveTime value="20240501"/>'
    inside += f'<setId root="1.8" extension="{set_id}"/>' if set_id else ""
    inside += f'<versionNumber value="{number}"/>' if number else ""
    inside += f'<recordTarget><patientRole><id root="1.2" extension="{patient}"/></patientRole></recordTarget>'
    if how:
        inside += f'<relatedDocument typeCode="{how}"><parentDocument><id root="1.9" extension="{parent}"/>'
        inside += f'<setId root="1.8" extension="{parent_set}"/>' if parent_set else ""
        inside += "</parentDocument></relatedDocument>"
    return xml(
        f"{inside}<component><structuredBody><component><section><text>{words}</text></section>"
        "</component></structuredBody></component>"
    )


VERSIONS: dict[str, tuple[list[bytes], set[str]]] = {
    "the higher number of a set stands": (
        [of_set("Sốt.", "a", "s", "9"), of_set("Sốt cao.", "b", "s", "10", ("RPLC", "a", "s"))],
        {"Sốt cao."},
    ),
    "a set without relations has versions too": (
        [of_set("Old.", "a", "s", "1"), of_set("New.", "b", "s", "2")],
        {"New."},
    ),
    "what is replaced by id leaves": (
        [of_set("Old.", "a"), of_set("New.", "b", related=("RPLC", "a", ""))],
        {"New."},
    ),
    "what is replaced from another set leaves": (
        [of_set("Old.", "a", "s", "1"), of_set("New.", "b", "t", "1", ("RPLC", "a", "s"))],
        {"New."},
    ),
    "a chain leaves its last": (
        [
            of_set("One.", "a"),
            of_set("Two.", "b", related=("RPLC", "a", "")),
            of_set("Three.", "c", related=("RPLC", "b", "")),
        ],
        {"Three."},
    ),
    "an addendum stands beside its document": (
        [of_set("First.", "a", "s", "1"), of_set("Also.", "b", "s", "2", ("APND", "a", "s"))],
        {"First.", "Also."},
    ),
    "an addendum by id": (
        [of_set("First.", "a"), of_set("Also.", "b", related=("APND", "a", ""))],
        {"First.", "Also."},
    ),
    "one set of two patients is of two": (
        [of_set("Of An.", "a", "s", "1"), of_set("Of Ba.", "b", "s", "2", patient="MRN-2")],
        {"Of An.", "Of Ba."},
    ),
    "another patient's document replaces nothing": (
        [of_set("Of An.", "a"), of_set("Of Ba.", "b", related=("RPLC", "a", ""), patient="MRN-2")],
        {"Of An.", "Of Ba."},
    ),
}


@pytest.mark.parametrize("later", [False, True], ids=["at once", "one by one"])
@pytest.mark.parametrize("turned", [False, True], ids=["in order", "turned round"])
@pytest.mark.parametrize("name", VERSIONS)
def test_versions_and_replaced_documents_leave_what_stands(
    name: str, turned: bool, later: bool, tmp_path: Path
) -> None:
    files, wanted = VERSIONS[name]
    for folder in ("in", "zone"):
        (tmp_path / folder).mkdir()
    store = Store.open(tmp_path / "zone", "t", b"k" * 32)
    source = parse(Extract, {"kind": "ccda", "path": "in", "lang": "en"}, "extract")  # type: ignore[arg-type]
    numbered = list(enumerate(reversed(files) if turned else files))
    for number, data in numbered:
        (tmp_path / f"in/{number}.xml").write_bytes(data)
        if later or number == numbered[-1][0]:
            take(source, tmp_path, store, Silent())
    held = [note.text for number in store.numbers(0) for note in store.read(number)]
    assert sorted(held) == sorted(wanted)
    store.close()
