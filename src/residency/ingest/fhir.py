"""FHIR R4: what documents, reports, compositions and the notes of observations say in words, and
whom the record knows of.

Resources are those of the standard: DocumentReference, DiagnosticReport, Composition and
Observation are notes; Patient, RelatedPerson, Practitioner and Encounter say who is named; Binary
holds what an attachment refers to.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC
from email.message import Message
from pathlib import Path

import msgspec

from residency.core.files import NO_JSON
from residency.core.types import RawNote
from residency.ingest.decode import Unreadable, read
from residency.ingest.documents import ELSEWHERE, words_of
from residency.ingest.fhir_people import (
    PEOPLE,
    Attachment,
    Entry,
    Head,
    Known,
    Meta,
    Place,
    Reference,
    Request,
    Resource,
    people,
)
from residency.ingest.fhir_xml import as_json
from residency.ingest.hl7 import note_id
from residency.ingest.rows import NO_TEXT, RowOutcome, when
from residency.ingest.sources import Fhir, Format

BROKEN = "the resource cannot be read"
NO_NOTES = "resources of types that hold no notes"
TAKEN_BACK = "the resource is cancelled, superseded or was entered in error (status)"
REPLACED = "the document is replaced by another (relatesTo)"
DELETED = "the resource is deleted at the source (request)"
SUMMARY = "characters left out: the summary beside the words themselves (Narrative)"
ABOUT = "characters left out: the description of a document, the value of an observation"
SAME = "characters left out: the same words in another form (attachments)"
NOTES = frozenset({"DocumentReference", "DiagnosticReport", "Composition", "Observation"})
GONE = frozenset({"entered-in-error", "cancelled", "superseded"})
AMENDED = frozenset({"amended", "corrected", "appended"})


def outcomes(settings: Fhir, path: Path, name: str, known: Known) -> Iterator[RowOutcome]:
    """What became of each resource of a file that is a bundle, one resource, or one to a line.

    ``known``: the people and binaries of all files of the source; those of this file go first.
    """
    here = known_of([path], known)
    others = 0
    for number, (raw, entry, _) in enumerate(_entries(path), 1):
        place = f"{name}#{number}"
        try:
            head = msgspec.json.decode(raw, type=Head | None)
            request = entry.request or Request()
            if request.method.upper() == "DELETE" and (own := _known_as(request.url)):
                yield RowOutcome(skipped=DELETED, id=own, deleted=True)
            elif head is None or head.resource_type not in NOTES:
                others += 1
            else:
                found = msgspec.json.decode(raw, type=Resource)
                full = entry.full_url or ""
                local = here.with_contained(head.contained or ())
                yield from _outcomes(settings, found, full, place, local)
        except NO_JSON:
            yield RowOutcome(skipped=BROKEN, id=f"\0{place}")
    if others:
        yield RowOutcome(skipped=NO_NOTES, rows=others)


def known_of(paths: Iterable[Path], beside: Known | None = None) -> Known:
    """The people and binaries that files hold; what is not there is looked for ``beside``."""
    found = Known(beside=beside)
    for path in paths:
        for raw, entry, place in _entries(path):
            try:
                head = msgspec.json.decode(raw, type=Head | None)
                if head is None:
                    continue
                if head.resource_type in PEOPLE:
                    found.add(msgspec.json.decode(raw, type=Resource), entry.full_url)
                elif head.resource_type == "Binary" and (place or beside is not None):
                    found.add_binary(head.id, entry.full_url, place or raw)
            except NO_JSON:
                continue  # counted where the file is read for its notes
    return found


def _entries(path: Path) -> Iterator[tuple[bytes | msgspec.Raw, Entry, Place | None]]:
    """The resources of a file, each as it is written (XML: as JSON), with its entry in a bundle, or
    its place in a file of lines."""
    if path.suffix.lower() == ".xml":
        try:
            yield from ((*one, None) for one in _opened(as_json(path.read_bytes()), Entry()))
        except (Unreadable, *NO_JSON):
            yield b"", Entry(), None  # counted as broken
        return
    if path.suffix.lower() == ".json":
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        try:
            found = list(_opened(data, Entry()))
        except NO_JSON:
            found = []  # lines under another name, or nothing that can be read
        if found:
            yield from ((raw, entry, None) for raw, entry in found)
            return
    at = 0
    with path.open("rb") as file:
        for line in file:
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            try:
                for raw, entry in _opened(text, Entry()) if text else ():
                    yield raw, entry, None if raw is not text else (path, at, len(line))
            except NO_JSON:
                yield text, Entry(), None
            at += len(line)


def _opened(raw: bytes | msgspec.Raw, entry: Entry) -> Iterator[tuple[bytes | msgspec.Raw, Entry]]:
    """A resource with its entry; of a bundle or a list those that it holds."""
    found = msgspec.json.decode(raw, type=Head | list[msgspec.Raw] | None)
    if isinstance(found, list):
        for one in found:
            yield from _opened(one, Entry())
    elif found is not None and found.resource_type == "Bundle":
        for inner in found.entry or ():
            yield from _opened(inner.resource, inner)
    else:
        yield raw, entry


def _known_as(reference: str) -> str:
    """The id of the note that a reference names; the empty string where it names none."""
    found = re.search(r"([A-Z]\w+)/([\w.\-]+)(?:/_history/.*)?$", reference)
    return note_id("fhir", found[1], found[2]) if found and found[1] in NOTES else ""


def _outcomes(
    settings: Fhir, found: Resource, full_url: str, place: str, known: Known
) -> Iterator[RowOutcome]:
    """What becomes of a resource that may be a note, and of the one that it replaces."""
    own = (found.id and _known_as(f"{found.resource_type}/{found.id}")) or (
        note_id("fhir", full_url) if full_url else ""
    )
    version = _version(found)
    for relation in found.relates_to or ():
        target = relation.target or relation.target_reference or Reference()
        if relation.code == "replaces" and (before := _known_as(target.reference or "")):
            yield RowOutcome(skipped=REPLACED, id=before, rows=0, version=version, deleted=True)
    id = own or f"\0{place}"
    if GONE & {found.status, found.doc_status}:
        yield RowOutcome(skipped=TAKEN_BACK, id=id, version=version, deleted=bool(own))
        return
    lang = (found.language or "")[:2].lower()
    lang = lang if lang in ("vi", "zh", "en") else settings.lang
    left: Counter[str] = Counter()
    pieces = [piece for piece in _pieces(found, lang, known, left) if piece.strip()]
    if not pieces:
        why = next((one for one in left if not one.startswith("characters")), NO_TEXT)
        yield RowOutcome(skipped=why, id=id, version=version, remarks=dict(left))
        return
    patient, identifiers = people(found, lang, known, place)
    times = (found.date, found.effective_date_time, found.effective_period, found.issued)
    moments = (when(one if isinstance(one, str) else one and one.start) for one in times)
    written = next((one for one in moments if one), None)
    note = RawNote(
        id=own or place,
        patient=patient,
        text="\n".join(pieces),
        lang=lang,
        kind=found.called,
        written_at=written and written.replace(tzinfo=None),
        identifiers=identifiers,
    )
    yield RowOutcome(note=note, version=version if own else "", remarks=dict(left))


def _version(found: Resource) -> str:
    """When a resource was last changed, in one time zone, so that times as text stand in order;
    else the number that the server gives, or when it was issued. Of what is of one time the amended
    is the later."""
    meta = found.meta or Meta()
    if not meta.last_updated and (meta.version_id or "").isdecimal():
        return meta.version_id or ""
    amended = "2" if AMENDED & {found.status, found.doc_status} else ""
    times = (when(one) for one in (meta.last_updated, found.issued, found.date))
    time = next((one for one in times if one), None)
    if time is None:
        return amended
    time = time.astimezone(UTC) if time.tzinfo else time
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f") + amended


# Words


def _pieces(found: Resource, lang: str, known: Known, left: Counter[str]) -> Iterator[str]:
    """What a resource says in words; characters of what is left out are counted in ``left``."""
    said = False
    for piece in _said(found, lang, known, left):
        said = said or bool(piece.strip())
        yield piece
    summary = (found.text and found.text.div) or ""
    words = _read(summary, lang, "html", Counter() if said else left) if summary else ""
    if words and not said and found.resource_type != "Observation":
        yield words
    else:
        _count(words, SUMMARY, left)
    _count(f"{found.description or ''}{found.value_string or ''}", ABOUT, left)


def _said(found: Resource, lang: str, known: Known, left: Counter[str]) -> Iterator[str]:
    contents = found.content if isinstance(found.content, list) else ()
    attachments = [one.attachment for one in contents if one.attachment]
    seen: set[str] = set()
    for one in (*attachments, *(found.presented_form or ())):
        try:
            words = _attached(one, lang, known, left)
        except Unreadable as error:
            left[str(error)] += 1
            continue
        solid = "".join(words.split())
        if solid in seen:
            _count(words, SAME, left)
        else:
            seen.add(solid)
            yield words
    yield _read(found.conclusion or "", lang, "auto", left)
    for note in found.note or ():
        yield _read(note.text or "", lang, "auto", left)
    sections = list(found.section or ())
    while sections:
        section = sections.pop(0)
        yield section.title or ""
        if section.text and section.text.div:
            yield _read(section.text.div, lang, "html", left)
        sections[:0] = section.section or ()


def _attached(found: Attachment, lang: str, known: Known, left: Counter[str]) -> str:
    """The words of an attachment, or of the binary that it refers to; raises ``Unreadable``."""
    data, named = found.data, found.content_type
    if not data and found.url:
        binary = known.binary(found.url)
        if binary is None:
            left[ELSEWHERE] += 1
            return ""
        data, named = binary.data, binary.content_type or named
    header = Message()
    header["content-type"] = named or "application/octet-stream"
    charset = header.get_content_charset("")
    return words_of(data or "", "base64", header.get_content_type(), lang, left, charset)


def _read(text: str, lang: str, format: Format, left: Counter[str]) -> str:
    try:
        return read(text, "utf-8", lang, format, left)[0]
    except Unreadable as error:
        _count(text, f"characters left out: {error}", left)
        return ""


def _count(words: str, why: str, left: Counter[str]) -> None:
    if count := len("".join(words.split())):
        left[why] += count
