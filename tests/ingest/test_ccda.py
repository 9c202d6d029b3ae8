"""C-CDA documents: the narrative of their sections, and everyone whom the header names; no entity
is followed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from residency.ingest.ccda import document
from residency.ingest.rows import NO_TEXT
from residency.ingest.safe_xml import BROKEN, ENTITIES
from residency.ingest.sources import Ccda

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
