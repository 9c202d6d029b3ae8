"""CDA documents (C-CDA, and those of the Chinese standards): what their sections say as a note, and
everyone whom the header names.

Elements are those of HL7 CDA R2 (``ClinicalDocument``, ``recordTarget``, ``structuredBody``).
Entities, document types and the network are off.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from residency.core.types import RawNote
from residency.ingest.decode import Unreadable
from residency.ingest.documents import blank, narrative
from residency.ingest.hl7 import moment, note_id, order_name
from residency.ingest.rows import NO_TEXT, RowOutcome
from residency.ingest.safe_xml import V3, root_of
from residency.ingest.shared_documents import IDENTIFIERS, ROOT, is_shared
from residency.ingest.sources import Ccda

NATIONAL = frozenset({"2.16.840.1.113883.4.1"})
"""Roots of identifiers that are national ones: the US social security number."""
KINDS = dict.fromkeys(NATIONAL, "national_id") | IDENTIFIERS
"""Root of an identifier -> its kind, where it is no record number."""

REPLACED = "the document is replaced by another (relatedDocument RPLC)"
Gone = Mapping[str, str]
"""Note -> name of the file that replaces it."""
DEPARTMENT = f"{ROOT}1.26"
CHINESE_ADDRESS = ("state", "city", "county", "township", "streetName", "houseNumber")


def documents(settings: Ccda, data: bytes, name: str, gone: Gone) -> Iterator[RowOutcome]:
    """What became of a document, and of those that it replaces. ``gone``: see ``replaced``."""
    found = document(settings, data, name)
    if found.note and found.note.id in gone:
        id, version = found.note.id, found.version
        found = RowOutcome(skipped=REPLACED, id=id, version=version, deleted=True)
    yield found
    for before in (one for one, by in gone.items() if by == name):
        yield RowOutcome(skipped=REPLACED, id=before, rows=0, deleted=True)


def replaced(files: Mapping[str, Path]) -> Gone:
    """Notes that a document of another set of the same patient replaces (RPLC)."""
    if not any(b"relatedDocument" in path.read_bytes() for path in files.values()):
        return {}
    notes: dict[tuple[str, str, str], str] = {}
    parents: list[tuple[str, str, tuple[str, str, str], str]] = []
    for name, path in files.items():
        with suppress(Unreadable):  # said where it is read for its words
            root = root_of(path.read_bytes())
            patient = people(root, "")[0]
            own, _ = _version(root, name, patient)
            notes[patient, *_pair(root, "id")] = own
            for parent in root.iterfind(_parent("RPLC")):
                set_id = _pair(parent, "setId")
                by_set = note_id("cda", *set_id, patient) if any(set_id) else ""
                parents.append((name, own, (patient, *_pair(parent, "id")), by_set))
    found = [(by_set or notes.get(id, own), own, name) for name, own, id, by_set in parents]
    return {before: name for before, own, name in found if before != own}


def _parent(how: str) -> str:
    return f"{V3}relatedDocument[@typeCode='{how}']/{V3}parentDocument"


def _pair(node: Any, tag: str) -> tuple[str, str]:
    """Root and extension of an identifier of an element."""
    found = node.find(f"{V3}{tag}")
    return ("", "") if found is None else (found.get("root", ""), found.get("extension", ""))


def _version(root: Any, name: str, patient: str) -> tuple[str, str]:
    """(id of the note, version) of a document: by its set, which is of one patient, and its number
    or time; by its file where it is in none. An addendum that says the set of its document is a
    note of its own."""
    set_id = _pair(root, "setId")
    if not any(set_id):
        return name, ""
    number, time = root.find(f"{V3}versionNumber"), root.find(f"{V3}effectiveTime")
    version = number.get("value", "") if number is not None else ""
    if any(_pair(one, "setId") in (set_id, ("", "")) for one in root.iterfind(_parent("APND"))):
        return note_id("cda", *set_id, patient, *_pair(root, "id"), version), version
    when = moment(time.get("value", "")) if time is not None and not version.isdecimal() else None
    return note_id("cda", *set_id, patient), when.isoformat() if when else version


def document(settings: Ccda, data: bytes, name: str) -> RowOutcome:
    """What became of a document."""
    left: Counter[str] = Counter()
    try:
        root = root_of(data)
        code = root.find(f"{V3}languageCode")
        lang = (code.get("code", "") if code is not None else "")[:2].lower()
        lang = lang if lang in ("vi", "zh", "en") else settings.lang
        patient, identifiers = people(root, lang)
        id, version = _version(root, name, patient)
        text = narrative(root, settings.lang, left)
    except Unreadable as error:
        return RowOutcome(skipped=str(error), id=f"\0{name}")
    if not text:
        why = next(iter(left), NO_TEXT)
        return RowOutcome(skipped=why, id=f"\0{name}", remarks=dict(left))
    code, time = root.find(f"{V3}code"), root.find(f"{V3}effectiveTime")
    title = blank(root.findtext(f"{V3}title")).strip() if is_shared(root) else ""
    return RowOutcome(
        note=RawNote(
            id=id,
            patient=patient,
            text=text,
            lang=lang,
            kind=(code.get("displayName", "") if code is not None else "") or title,
            written_at=moment(time.get("value", "")) if time is not None else None,
            department=_department(root) if title else "",
            identifiers=identifiers,
        ),
        remarks=dict(left),
        version=version,
    )


def _department(root: Any) -> str:
    """The department of a visit, as Chinese documents name it."""
    for place in root.iterfind(f"{V3}componentOf//{V3}wholeOrganization"):
        if any(id.get("root") == DEPARTMENT for id in place.iterfind(f"{V3}id")):
            return blank(place.findtext(f"{V3}name")).strip()
    return ""


def people(root: Any, lang: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """(patient, known identifiers) of a document's header and entries."""
    found: list[tuple[str, str]] = []
    patient = ""
    for role in root.iterfind(f"{V3}recordTarget/{V3}patientRole"):
        every = [*role.iterfind(f"{V3}id"), *role.iterfind(f"{V3}patient/{V3}id")]
        ids = [(KINDS.get(id.get("root"), "record"), id.get("extension", "")) for id in every]
        # A number of a visit says of nobody that it is the one of the visit before.
        for of in ("record", "national_id", "insurance", "admission"):
            patient = patient or next((value for kind, value in ids if kind == of and value), "")
        found += ids + list(_reached(role))
        for person in role.iterfind(f"{V3}patient"):
            found += [("name", name) for name in _names(person, lang)]
            for born in person.iterfind(f"{V3}birthTime"):
                if when := moment(born.get("value", "")):
                    found.append(("birth_date", when.date().isoformat()))
            for guardian in person.iterfind(f"{V3}guardian"):
                found += list(_reached(guardian))
                found += [
                    ("relative", name)
                    for one in guardian.iterfind(f"{V3}guardianPerson")
                    for name in _names(one, lang)
                ]
    for tag in ("relatedPerson", "associatedPerson", "subject"):
        found += [
            ("relative", name)
            for person in root.iter(f"{V3}{tag}")
            for name in _names(person, lang)
        ]
    for tag in ("associatedEntity", "relatedEntity"):
        found += [pair for entity in root.iter(f"{V3}{tag}") for pair in _reached(entity)]
    found += [
        ("clinician", name)
        for person in root.iter(f"{V3}assignedPerson")
        for name in _names(person, lang)
    ]
    for encounter in root.iterfind(f"{V3}componentOf/{V3}encompassingEncounter/{V3}id"):
        found.append(("admission", encounter.get("extension", "")))
    return patient, tuple(dict.fromkeys(pair for pair in found if len(pair[1].strip()) > 1))


def _names(person: Any, lang: str) -> Iterator[str]:
    for name in person.iterfind(f"{V3}name"):
        given = [blank("".join(part.itertext())).strip() for part in name.iterfind(f"{V3}given")]
        family = " ".join(
            blank("".join(part.itertext())).strip() for part in name.iterfind(f"{V3}family")
        )
        yield order_name(family, (given or [""])[0], "", lang)
        if len(given) > 1:
            yield order_name(family, given[0], " ".join(given[1:]), lang)
            yield order_name(family, given[1], "", lang)
        if not given and not family:
            yield blank("".join(name.itertext())).strip()


def _reached(element: Any) -> Iterator[tuple[str, str]]:
    """Addresses and ways to call of a role."""
    for address in element.iterfind(f"{V3}addr"):
        parts = list(_parts(address, ("streetAddressLine", "city", "state", "postalCode")))
        chinese = list(_parts(address, CHINESE_ADDRESS))
        if address.find(f"{V3}houseNumber") is not None and chinese:
            yield "address", "".join(chinese)
        elif len(parts) > 1:
            yield "address", ", ".join(parts)
        yield from (
            ("address", line)
            for line in _parts(address, ("streetAddressLine",))
            if re.search(r"\d", line)
        )
    for way in element.iterfind(f"{V3}telecom"):
        value = way.get("value", "")
        if value.startswith("mailto:"):
            yield "email", value[7:].strip()
        elif len(re.sub(r"\D", "", value)) > 5:
            yield "phone", value.removeprefix("tel:").strip()


def _parts(element: Any, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        for part in element.iterfind(f"{V3}{name}"):
            if text := blank("".join(part.itertext())).strip():
                yield text
