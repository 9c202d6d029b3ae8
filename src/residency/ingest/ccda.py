"""C-CDA documents: the narrative of their sections as a note, and everyone whom the header names.

Elements are those of HL7 CDA R2 (``ClinicalDocument``, ``recordTarget``, ``structuredBody``).
Entities, document types and the network are off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from residency.core.types import RawNote
from residency.ingest.decode import tidy
from residency.ingest.hl7 import moment, order_name
from residency.ingest.rows import NO_TEXT, RowOutcome
from residency.ingest.sources import Ccda

BROKEN = "the document cannot be read"
ENTITIES = "the document declares a document type or entities"
V3 = "{urn:hl7-org:v3}"
NATIONAL = frozenset({"2.16.840.1.113883.4.1"})
"""Roots of identifiers that are national ones: the US social security number."""
LINES = frozenset(
    {"paragraph", "item", "tr", "br", "title", "caption", "list", "table", "text", "thead", "tbody"}
)


def document(settings: Ccda, data: bytes, name: str) -> RowOutcome:
    """What became of a document."""
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        return RowOutcome(skipped=BROKEN, id=f"\0{name}")
    if root.getroottree().docinfo.doctype:
        return RowOutcome(skipped=ENTITIES, id=f"\0{name}")
    if root.tag != f"{V3}ClinicalDocument":
        return RowOutcome(skipped=BROKEN, id=f"\0{name}")
    text = narrative(root)
    if not text:
        return RowOutcome(skipped=NO_TEXT, id=f"\0{name}")
    lang = (
        root.find(f"{V3}languageCode").get("code", "")
        if root.find(f"{V3}languageCode") is not None
        else ""
    )[:2].lower()
    lang = lang if lang in ("vi", "zh", "en") else settings.lang
    patient, identifiers = people(root, lang)
    code, time = root.find(f"{V3}code"), root.find(f"{V3}effectiveTime")
    return RowOutcome(
        note=RawNote(
            id=name,
            patient=patient,
            text=text,
            lang=lang,
            kind=code.get("displayName", "") if code is not None else "",
            written_at=moment(time.get("value", "")) if time is not None else None,
            identifiers=identifiers,
        )
    )


def narrative(root: Any) -> str:
    """Titles and texts of all sections in order, a line for each paragraph, item and row."""
    parts = []
    for section in root.iter(f"{V3}section"):
        for name in ("title", "text"):
            element = section.find(f"{V3}{name}")
            if element is not None:
                out: list[str] = []
                _words(element, out)
                parts.append(tidy("".join(out)))
    return "\n".join(part for part in parts if part)


def _words(node: Any, out: list[str]) -> None:
    tag = node.tag.rpartition("}")[2] if isinstance(node.tag, str) else ""
    if not tag or tag == "renderMultiMedia":
        return
    if tag in LINES:
        out.append("\n")
    out.append(_blank(node.text))
    for child in node:
        _words(child, out)
        out.append(_blank(child.tail))
    if tag in LINES:
        out.append("\n")
    elif tag in ("td", "th"):
        out.append("\t")


def _blank(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "")


def people(root: Any, lang: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """(patient, known identifiers) of a document's header and entries."""
    found: list[tuple[str, str]] = []
    patient = ""
    for role in root.iterfind(f"{V3}recordTarget/{V3}patientRole"):
        ids = [
            ("national_id" if id.get("root") in NATIONAL else "record", id.get("extension", ""))
            for id in role.iterfind(f"{V3}id")
        ]
        patient = patient or next((value for kind, value in ids if kind == "record" and value), "")
        patient = patient or next((value for _, value in ids if value), "")
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
        given = [_blank("".join(part.itertext())).strip() for part in name.iterfind(f"{V3}given")]
        family = " ".join(
            _blank("".join(part.itertext())).strip() for part in name.iterfind(f"{V3}family")
        )
        yield order_name(family, (given or [""])[0], "", lang)
        if len(given) > 1:
            yield order_name(family, given[0], " ".join(given[1:]), lang)
            yield order_name(family, given[1], "", lang)
        if not given and not family:
            yield _blank("".join(name.itertext())).strip()


def _reached(element: Any) -> Iterator[tuple[str, str]]:
    """Addresses and ways to call of a role."""
    for address in element.iterfind(f"{V3}addr"):
        parts = list(_parts(address, ("streetAddressLine", "city", "state", "postalCode")))
        if len(parts) > 1:
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
            if text := _blank("".join(part.itertext())).strip():
                yield text
