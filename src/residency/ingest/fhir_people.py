"""FHIR R4: the elements that notes and people are made of, and whom a resource names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from residency.ingest.hl7 import ID_KINDS, order_name

PEOPLE = frozenset({"Patient", "RelatedPerson", "Practitioner", "Encounter"})
SSN = "http://hl7.org/fhir/sid/us-ssn"
Place = tuple[Path, int, int]
"""File, first byte and length of a line."""


class Element(msgspec.Struct, rename="camel"):
    """What the elements below share; a key that is not named here is passed over."""


class Head(Element):
    """What a resource is; of a bundle also what it holds, of another what is inside of it."""

    resource_type: str = ""
    id: str | None = None
    entry: list[Entry] | None = None
    contained: list[msgspec.Raw] | None = None


class Request(Element):
    method: str = ""
    url: str = ""


class Entry(Element):
    full_url: str | None = None
    resource: msgspec.Raw = msgspec.Raw(b"null")
    request: Request | None = None


class Coding(Element):
    code: str | None = None
    display: str | None = None


class Concept(Element):
    text: str | None = None
    coding: list[Coding] | None = None

    @property
    def name(self) -> str:
        """How it is called: its text, else the display or code of a coding."""
        codings = self.coding or ()
        named = (self.text, *(one.display for one in codings), *(one.code for one in codings))
        return next((one.strip() for one in named if one), "")


class Identifier(Element):
    system: str | None = None
    value: str | None = None
    type: Concept | None = None

    @property
    def kind(self) -> str:
        """Our kind of identifier, by the codes of table 0203."""
        codes = (one.code or "" for one in (self.type and self.type.coding) or ())
        national = "national_id" if self.system == SSN else "record"
        return next((ID_KINDS[code] for code in codes if code in ID_KINDS), national)


class Reference(Element):
    reference: str | None = None
    display: str | None = None
    identifier: Identifier | None = None


class Attachment(Element):
    content_type: str | None = None
    data: str | None = None
    url: str | None = None


class Content(Element):
    attachment: Attachment | None = None


class Annotation(Element):
    text: str | None = None
    author_string: str | None = None
    author_reference: Reference | None = None


class Narrative(Element):
    div: str | None = None


class Section(Element):
    title: str | None = None
    text: Narrative | None = None
    section: list[Section] | None = None


class HumanName(Element):
    text: str | None = None
    family: str | None = None
    given: list[str | None] | None = None


class ContactPoint(Element):
    system: str | None = None
    value: str | None = None


class Address(Element):
    text: str | None = None
    line: list[str | None] | None = None
    city: str | None = None
    district: str | None = None
    state: str | None = None
    postal_code: str | None = None


class Contact(Element):
    name: HumanName | None = None
    telecom: list[ContactPoint] | None = None
    address: Address | None = None


class Relation(Element):
    code: str | None = None
    target: Reference | None = None
    target_reference: Reference | None = None


class Meta(Element):
    version_id: str | None = None
    last_updated: str | None = None


class Period(Element):
    start: str | None = None


class Context(Element):
    encounter: list[Reference] | None = None


class Attester(Element):
    party: Reference | None = None


class Resource(Element):
    """What is read of the resources that are notes, people or binaries."""

    resource_type: str = ""
    id: str | None = None
    meta: Meta | None = None
    language: str | None = None
    status: str | None = None
    doc_status: str | None = None
    identifier: list[Identifier] | Identifier | None = None
    type: list[Concept] | Concept | None = None
    code: list[Concept] | Concept | None = None
    title: str | None = None
    subject: Reference | None = None
    patient: Reference | None = None
    encounter: Reference | None = None
    context: list[Reference] | Context | None = None
    date: str | None = None
    effective_date_time: str | None = None
    effective_period: Period | None = None
    issued: str | None = None
    author: list[Reference] | None = None
    performer: list[Reference] | None = None
    results_interpreter: list[Reference] | None = None
    authenticator: Reference | None = None
    attester: list[Attester] | None = None
    relates_to: list[Relation] | None = None
    text: Narrative | None = None
    description: str | None = None
    conclusion: str | None = None
    value_string: str | None = None
    content: list[Content] | None = None
    presented_form: list[Attachment] | None = None
    note: list[Annotation] | None = None
    section: list[Section] | None = None
    name: list[HumanName] | None = None
    birth_date: str | None = None
    telecom: list[ContactPoint] | None = None
    address: list[Address] | None = None
    contact: list[Contact] | None = None
    content_type: str | None = None
    data: str | None = None

    @property
    def identifiers(self) -> list[Identifier]:
        """Its identifiers that have a value."""
        given = [self.identifier] if isinstance(self.identifier, Identifier) else self.identifier
        return [one for one in given or () if one.value]

    @property
    def called(self) -> str:
        """What kind of note it is."""
        if self.resource_type == "Composition" and self.title:
            return self.title.strip()
        concepts = [self.type, self.code]
        named = (one for one in concepts if isinstance(one, Concept))
        return next((one.name for one in named if one.name), self.resource_type)


def key_of(reference: str) -> str:
    """A reference without its server and its version."""
    found = re.search(r"([A-Z]\w+/[\w.\-]+)(?:/_history/.*)?$", reference)
    return found[1] if found else reference


class Known:
    """The people and binaries of a source, by their references."""

    def __init__(self, beside: Known | None = None) -> None:
        """``beside``: where is looked for what is not here."""
        self.beside = beside
        self.found: dict[str, Resource] = {}
        self.relatives: dict[str, list[Resource]] = {}
        self.binaries: dict[str, Any] = {}

    def add(self, found: Resource, full_url: str | None) -> None:
        """Take up a person or a visit."""
        keys = [f"{found.resource_type}/{found.id}"] if found.id else []
        keys += [key_of(full_url)] if full_url else []
        keys += [f"{one.system}|{one.value}" for one in found.identifiers]
        self.found |= dict.fromkeys(keys, found)
        if found.resource_type == "RelatedPerson" and found.patient:
            whose = key_of(found.patient.reference or "")
            self.relatives.setdefault(whose, []).append(found)

    def add_binary(self, id: str | None, full_url: str | None, content: bytes | Place) -> None:
        """Take up a binary, or where it stands."""
        keys = [f"Binary/{id}"] if id else []
        self.binaries |= dict.fromkeys([*keys, *([key_of(full_url)] if full_url else [])], content)

    def with_contained(self, contained: Iterable[bytes]) -> Known:
        """What is known where a resource holds others inside of it."""
        inside = Known(beside=self)
        for raw in contained:
            kind = msgspec.json.decode(raw, type=Head)
            if kind.resource_type in PEOPLE | {"Binary"} and kind.id:
                inside.found[f"#{kind.id}"] = msgspec.json.decode(raw, type=Resource)
        return inside if inside.found else self

    def get(self, reference: Reference | None) -> Resource | None:
        """Whom a reference names, by its address or its identifier."""
        if reference is None:
            return None
        told = reference.identifier
        key = key_of(reference.reference or "") or (f"{told.system}|{told.value}" if told else "")
        return self.found.get(key) or (self.beside.get(reference) if self.beside else None)

    def binary(self, url: str) -> Resource | None:
        """What an attachment refers to, where it is known."""
        content = self.binaries.get(key_of(url))
        if content is None:
            return self.found.get(url) or (self.beside.binary(url) if self.beside else None)
        if isinstance(content, tuple):
            path, start, length = content
            with path.open("rb") as file:
                file.seek(start)
                content = file.read(length).removeprefix(b"\xef\xbb\xbf")
        return msgspec.json.decode(content, type=Resource)

    def related(self, patient: str) -> list[Resource]:
        """The relatives of a patient."""
        return self.relatives.get(patient, []) + (
            self.beside.related(patient) if self.beside else []
        )


def people(
    found: Resource, lang: str, known: Known, place: str
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """(patient, known identifiers) of a note; ``place`` keeps apart patients whom nothing but the
    resource itself names."""
    subject = found.subject or found.patient or Reference()
    person = known.get(subject)
    named = list(_patient(person, lang)) if person and person.resource_type == "Patient" else []
    named += [("name", subject.display.strip())] if subject.display else []
    if subject.identifier and subject.identifier.value:
        named.append((subject.identifier.kind, subject.identifier.value))
    patient = _who(subject, person, named, place)
    keys = [key_of(subject.reference or "")]
    keys += [f"Patient/{person.id}"] if person and person.id else []
    for relative in (one for key in dict.fromkeys(keys) for one in known.related(key)):
        named += [("relative", name) for name in _names(relative.name, lang)]
        named += [*_reached(relative.telecom), *_addresses(relative.address)]
    for one in _staff(found):
        who = known.get(one)
        kind = who.resource_type if who else key_of(one.reference or "").partition("/")[0]
        if who and kind == "Practitioner":
            named += [("clinician", name) for name in _names(who.name, lang)]
        if kind not in ("Patient", "RelatedPerson", "Organization", "Device"):
            display = (one.display or "").strip()
            named += [("clinician", display)] if re.search(r"\w\s+\w", display) else []
    named += [("clinician", one.author_string) for one in found.note or () if one.author_string]
    visits = [found.encounter] if found.encounter else []
    if isinstance(found.context, Context):
        visits += found.context.encounter or []
    for visit in filter(None, map(known.get, [*visits, *_visits(found)])):
        named += [("admission", one.value or "") for one in visit.identifiers]
    return patient, tuple(dict.fromkeys(pair for pair in named if len(pair[1].strip()) > 1))


def _visits(found: Resource) -> list[Reference]:
    return found.context if isinstance(found.context, list) else []


def _who(
    subject: Reference, person: Resource | None, named: list[tuple[str, str]], place: str
) -> str:
    """By what a patient is known: the id of the resource, or a number where it has none of its
    own."""
    address = key_of(subject.reference or "")
    if address.startswith("#") or not address:
        number = next((value for kind, value in named if kind == "record"), "")
        number = number or next((value for kind, value in named if kind == "national_id"), "")
        if person and person.id and not address:
            return person.id
        return number or (f"{place}{address}" if address else "")
    if person and person.id:
        return person.id
    return address.removeprefix("Patient/").removeprefix("urn:uuid:")


def _staff(found: Resource) -> Iterator[Reference]:
    yield from (*(found.author or ()), *(found.performer or ()), *(found.results_interpreter or ()))
    if found.authenticator:
        yield found.authenticator
    yield from (one.party for one in found.attester or () if one.party)
    yield from (one.author_reference for one in found.note or () if one.author_reference)


def _patient(found: Resource, lang: str) -> Iterator[tuple[str, str]]:
    yield from ((one.kind, one.value or "") for one in found.identifiers)
    yield from (("name", name) for name in _names(found.name, lang))
    if found.birth_date:
        yield "birth_date", found.birth_date
    yield from _reached(found.telecom)
    yield from _addresses(found.address)
    for contact in found.contact or ():
        yield from (("relative", name) for name in _names([contact.name], lang))
        yield from _reached(contact.telecom)
        yield from _addresses([contact.address])


def _names(names: Iterable[HumanName | None] | None, lang: str) -> Iterator[str]:
    for name in filter(None, names or ()):
        given = [one.strip() for one in name.given or () if one]
        family = (name.family or "").strip()
        yield (name.text or "").strip()
        yield order_name(family, (given or [""])[0], " ".join(given[1:]), lang)
        if len(given) > 1:
            yield order_name(family, given[0], "", lang)


def _reached(points: Iterable[ContactPoint] | None) -> Iterator[tuple[str, str]]:
    for one in points or ():
        value = (one.value or "").strip()
        if "@" in value:
            yield "email", value
        elif len(re.sub(r"\D", "", value)) > 5:
            yield "phone", value


def _addresses(addresses: Iterable[Address | None] | None) -> Iterator[tuple[str, str]]:
    for one in filter(None, addresses or ()):
        lines = [line.strip() for line in one.line or () if line]
        parts = [*lines, one.district, one.city, one.state, one.postal_code]
        told = [(one.text or "").strip(), ", ".join(part.strip() for part in parts if part)]
        told += [line for line in lines if re.search(r"\d", line)]
        yield from (("address", text) for text in dict.fromkeys(told) if text)
