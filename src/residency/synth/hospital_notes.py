"""An invented hospital: identified notes with every identifier's place known, and its database.

The clinical words of a note are an invented record (``records``) with its labels; around and
between its lines stand the words of a hospital's administration, full of identifiers. Positions of
both are exact by construction. A world (templates and lists of names, a YAML file for each
language) lies in a folder; the packaged one is what the rules are developed on.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import normalize

import msgspec

from residency.core.types import Note, RawNote, Span, Value
from residency.synth.clinical_notes import records, seed_of
from residency.synth.people import NOW, Person, draw
from residency.synth.planting import IdentifiedText, IdentifierSlots, PlantedIdentifier

WORLD = Path(__file__).parent / "data/hospital"
"""The packaged world: templates and lists of names, by language."""


class Planted(Value, frozen=True):
    """An identified note and where its identifiers are."""

    note: RawNote
    marks: tuple[PlantedIdentifier, ...]


@cache
def world(lang: str, folder: Path = WORLD) -> Mapping[str, Any]:
    """Templates and names of a language."""
    import yaml

    found: Mapping[str, Any] = yaml.safe_load((folder / f"{lang}.yaml").read_text("utf-8"))
    return found


def notes(
    lang: str, count: int, seed: int = 0, folder: Path = WORLD, first: int = 0
) -> Iterator[Planted]:
    """``count`` identified notes, patient by patient, the same for the same arguments; ``first``:
    begin with that patient.

    Note ``k`` of a patient depends on language, seed and patient only.
    """
    data, made, number = world(lang, folder), 0, first
    while made < count:
        rng = random.Random(seed_of(lang, seed, number))
        person = draw(data, lang, rng, f"P{number:07d}")
        clinical = list(records(lang, rng.choice((1, 2, 2, 3)), seed=rng.randrange(2**31)))
        when = NOW - timedelta(days=rng.randint(30, 1500))
        for k, record in enumerate(clinical):
            if made == count:
                return
            when += timedelta(days=rng.randint(1, 40))
            yield _planted(data, lang, rng, person, record, f"{person.id}-{k}", when)
            made += 1
        number += 1


def _planted(
    data: Mapping[str, Any],
    lang: str,
    rng: random.Random,
    person: Person,
    record: Note,
    id: str,
    when: date,
) -> Planted:
    page, slots = IdentifiedText(), IdentifierSlots(data, lang, rng, person, when)
    shape, loose = data.get("shape", {}), [*data["inserts"], *data.get("clinical", ())]
    head = [rng.choice(data["headers"])]
    head += rng.sample(data["lines"], _between(rng, shape.get("lines", (2, 2))))
    for template in head:
        page.fill_line(template, slots)
    lines = record.text.splitlines(keepends=True)
    number = rng.randint(1, 3) if lines else 0
    between = {rng.randrange(1, len(lines) + 1) for _ in range(number)}
    offset = 0
    for number, line in enumerate(lines, 1):
        page.clinical(line, record.spans, offset)
        offset += len(line)
        if number in between:
            page.end_line()
            page.fill_line(rng.choice(loose), slots)
    page.end_line()
    for template in rng.sample(loose, _between(rng, shape.get("after", (0, 0)))):
        page.fill_line(template, slots)
    page.fill(rng.choice(data["footers"]), slots)
    text, marks, spans = "".join(page.parts), page.marks, page.spans
    if lang == "vi" and rng.random() < 0.1:
        text, marks, spans = _decomposed(text, marks, spans)
    spans = [msgspec.structs.replace(span, quote=text[span.start : span.end]) for span in spans]
    note = RawNote(
        id=id,
        patient=person.id,
        text=text,
        lang=lang,
        kind=record.kind,
        written_at=datetime(when.year, when.month, when.day, 9),
        spans=tuple(spans),
        identifiers=person.identifiers,
    )
    return Planted(note=note, marks=tuple(marks))


def _between(rng: random.Random, ends: Sequence[int]) -> int:
    """A number of the range; nothing is drawn where there is no choice."""
    low, high = ends
    return low if low == high else rng.randint(low, high)


def _decomposed(
    text: str, marks: list[PlantedIdentifier], spans: list[Span]
) -> tuple[str, list[PlantedIdentifier], list[Span]]:
    """The same in NFD, as some systems store it."""
    starts = [0]
    for sign in text:
        starts.append(starts[-1] + len(normalize("NFD", sign)))
    replace = msgspec.structs.replace
    moved = [replace(m, start=starts[m.start], end=starts[m.end]) for m in marks]
    spans = [replace(s, start=starts[s.start], end=starts[s.end]) for s in spans]
    return normalize("NFD", text), moved, spans


def write_hospital(path: Path, lang: str, patients: int, seed: int = 0) -> int:
    """Write an invented hospital as SQLite: patients, encounters, notes and the labels of a part of
    the notes; how many notes.

    Raises ``FileExistsError`` where there is one already.
    """
    if path.exists():
        raise FileExistsError(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count, known = 0, set[str]()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TABLES)

        def insert(table: str, *values: object) -> None:
            marks = ", ".join("?" * len(values))
            database.execute(f"INSERT INTO {table} VALUES ({marks})", values)

        for planted in notes(lang, patients * 3, seed):
            note = planted.note
            if note.patient not in known:
                if len(known) == patients:
                    break
                known.add(note.patient)
                insert("patients", note.patient, *_columns(note.identifiers))
            when = note.written_at.isoformat(" ") if note.written_at else None
            insert("encounters", f"E{count:07d}", note.patient, when, note.kind)
            insert("notes", note.id, f"E{count:07d}", note.kind, when, note.text)
            for span in note.spans:
                insert("labels", note.id, span.start, span.end, span.label)
            count += 1
        database.commit()
    return count


def _columns(identifiers: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """A patient's identifiers in the order of the table's columns."""
    values = dict(reversed(identifiers))
    phone, relative, relative_phone = (v for k, v in identifiers if k in ("relative", "phone"))
    own = (values[kind] for kind in ("name", "birth_date", "national_id", "insurance"))
    return (*own, phone, values["address"], values["record"], relative, relative_phone)


TABLES = """
CREATE TABLE patients (id TEXT PRIMARY KEY, name TEXT, birth_date TEXT, national_id TEXT, \
insurance TEXT, phone TEXT, address TEXT,
  record_number TEXT, relative_name TEXT, relative_phone TEXT);
CREATE TABLE encounters (id TEXT PRIMARY KEY, patient_id TEXT REFERENCES patients, \
admitted_at TEXT, department TEXT);
CREATE TABLE notes (id TEXT PRIMARY KEY, encounter_id TEXT REFERENCES encounters, kind TEXT, \
written_at TEXT, text TEXT);
CREATE TABLE labels (note_id TEXT REFERENCES notes, start INTEGER, stop INTEGER, label TEXT);
"""
