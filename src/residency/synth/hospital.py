"""An invented hospital: identified notes with every identifier's place known, and its database.

The clinical words of a note are an invented record (``records``) with its labels; around and between its lines stand the words of a
hospital's administration, full of identifiers. Positions of both are exact by construction.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from unicodedata import normalize

import msgspec

from residency.core.types import Note, RawNote, Span, Value
from residency.synth.records import records

WORLD = Path(__file__).parent / "data/hospital"
"""The packaged world: templates and lists of names, by language."""
NOW = date(2024, 6, 30)


class Mark(Value, frozen=True):
    """``text[start:end]`` identifies somebody; ``known``: the row's identifiers hold it."""

    start: int
    end: int
    kind: str
    known: bool


class Planted(Value, frozen=True):
    """An identified note and where its identifiers are."""

    note: RawNote
    marks: tuple[Mark, ...]


class Person(Value, frozen=True):
    """An invented patient as the database holds one."""

    id: str
    sex: str
    born: date
    values: dict[str, str]
    """Slot -> value: name, national_id, insurance, phone, address, record, relative, relative_phone ..."""

    @property
    def identifiers(self) -> tuple[tuple[str, str], ...]:
        """(kind, value) of the columns."""
        kinds = {"relative_name": "relative", "relative_phone": "phone"}
        known = ("name", "national_id", "insurance", "phone", "address", "record", "relative_name", "relative_phone")
        return (*((kinds.get(k, k), self.values[k]) for k in known), ("birth_date", self.born.isoformat()))


@cache
def world(lang: str, folder: Path = WORLD) -> Mapping[str, Any]:
    """Templates and names of a language."""
    import yaml

    found: Mapping[str, Any] = yaml.safe_load((folder / f"{lang}.yaml").read_text("utf-8"))
    return found


def notes(lang: str, count: int, seed: int = 0, folder: Path = WORLD, first: int = 0) -> Iterator[Planted]:
    """``count`` identified notes, patient by patient, the same for the same arguments; ``first``: begin with that patient.

    Note ``k`` of a patient depends on language, seed and patient only.
    """
    data, made, number = world(lang, folder), 0, first
    while made < count:
        rng = random.Random(int.from_bytes(blake2b(f"{lang}/{seed}/{number}".encode(), digest_size=8).digest(), "big"))
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


def draw(data: Mapping[str, Any], lang: str, rng: random.Random, id: str) -> Person:
    """An invented patient."""
    sex = rng.choice(("male", "female"))
    born = NOW - timedelta(days=rng.randint(20 * 365, 88 * 365))
    values = {
        "name": person_name(data, lang, rng, sex),
        "relative_name": person_name(data, lang, rng, rng.choice(("male", "female"))),
        "phone": phone(lang, rng),
        "relative_phone": phone(lang, rng),
        "national_id": national_id(lang, rng, sex, born),
        "insurance": insurance(lang, rng),
        "record": rng.choice(data["records"]).format(n=rng.randint(100_000, 9_999_999), y=rng.randint(15, 24)),
        "address": address(data, rng),
    }
    return Person(id=id, sex=sex, born=born, values=values)


def person_name(data: Mapping[str, Any], lang: str, rng: random.Random, sex: str) -> str:
    """A name of the world's lists."""
    family, given = rng.choice(data["families"]), rng.choice(data[sex])
    if lang == "zh":
        return f"{family}{given}"
    if lang == "en":
        middle = f" {rng.choice('ABCDEJKLMR')}." if rng.random() < 0.2 else ""
        return f"{given}{middle} {family}"
    return f"{family} {'Thị' if sex == 'female' and rng.random() < 0.5 else rng.choice(data['middles'])} {given}"


def phone(lang: str, rng: random.Random) -> str:
    """A number of the country's plan, written plainly."""
    if lang == "vi":
        return rng.choice(("09", "03", "07", "08")) + f"{rng.randint(10_000_000, 99_999_999)}"
    if lang == "zh":
        return f"1{rng.choice('3578')}{rng.randint(100_000_000, 999_999_999)}"
    return f"({rng.randint(201, 989)}) 555-{rng.randint(100, 9999):04d}"


def national_id(lang: str, rng: random.Random, sex: str, born: date) -> str:
    """CCCD, Chinese identity number with its checksum, or SSN."""
    if lang == "vi":
        century = {19: 0, 20: 2}[born.year // 100] + (sex == "female")
        return f"{rng.randint(1, 96):03d}{century}{born.year % 100:02d}{rng.randint(0, 999_999):06d}"
    if lang == "zh":
        body = f"{rng.randint(11, 65)}{rng.randint(1, 20):02d}{rng.randint(1, 30):02d}{born:%Y%m%d}{rng.randint(0, 999):03d}"
        weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
        return body + "10X98765432"[sum(int(d) * w for d, w in zip(body, weights, strict=True)) % 11]
    return f"{rng.randint(1, 665):03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"


def insurance(lang: str, rng: random.Random) -> str:
    """BHYT of 15 signs or its bare ten digits, or a member number."""
    if lang == "vi":
        bare = f"{rng.randint(10**9, 10**10 - 1)}"
        return (
            bare
            if rng.random() < 0.3
            else f"{rng.choice(('DN', 'GD', 'HT', 'TE', 'CH'))}{rng.randint(1, 5)}{rng.randint(1, 96):02d}{bare}"
        )
    return f"{rng.choice(('YB', 'SB')) if lang == 'zh' else rng.choice(('XJH', 'MBR', 'QTA'))}{rng.randint(10**8, 10**9 - 1)}"


def address(data: Mapping[str, Any], rng: random.Random) -> str:
    """An address of the world's streets and places."""
    return str(rng.choice(data["address_forms"])).format(
        n=rng.randint(1, 250),
        m=rng.randint(1, 40),
        street=rng.choice(data["streets"]),
        ward=rng.choice(data["wards"]),
        place=rng.choice(data["places"]),
    )


# Notes


class _Writer:
    """Text that grows with the marks and labelled spans in it."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self.marks: list[Mark] = []
        self.spans: list[Span] = []

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)

    def mark(self, text: str, kind: str, known: bool) -> None:
        self.marks.append(Mark(self.length, self.length + len(text), kind, known))
        self.add(text)

    def clinical(self, text: str, spans: Sequence[Span], offset: int) -> None:
        for span in spans:
            if offset <= span.start and span.end <= offset + len(text):
                start = self.length + span.start - offset
                self.spans.append(msgspec.structs.replace(span, start=start, end=start + span.end - span.start))
        self.add(text)


def _planted(
    data: Mapping[str, Any], lang: str, rng: random.Random, person: Person, record: Note, id: str, when: date
) -> Planted:
    page, slots = _Writer(), _Slots(data, lang, rng, person, when)
    for template in (rng.choice(data["headers"]), *rng.sample(data["lines"], 2)):
        _fill(page, template, slots)
        page.add("\n")
    lines = record.text.splitlines(keepends=True)
    between = {rng.randrange(1, len(lines) + 1) for _ in range(rng.randint(1, 3))} if lines else set()
    offset = 0
    for number, line in enumerate(lines, 1):
        page.clinical(line, record.spans, offset)
        offset += len(line)
        if number in between:
            if not line.endswith("\n"):
                page.add("\n")
            _fill(page, rng.choice(data["inserts"]), slots)
            page.add("\n")
    if page.parts and not page.parts[-1].endswith("\n"):
        page.add("\n")
    _fill(page, rng.choice(data["footers"]), slots)
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


def _decomposed(text: str, marks: list[Mark], spans: list[Span]) -> tuple[str, list[Mark], list[Span]]:
    """The same in NFD, as some systems store it."""
    starts = [0]
    for sign in text:
        starts.append(starts[-1] + len(normalize("NFD", sign)))
    moved = [msgspec.structs.replace(m, start=starts[m.start], end=starts[m.end]) for m in marks]
    return (
        normalize("NFD", text),
        moved,
        [msgspec.structs.replace(s, start=starts[s.start], end=starts[s.end]) for s in spans],
    )


class _Slots:
    """What the slots of templates say, in the many forms in which people write it."""

    def __init__(self, data: Mapping[str, Any], lang: str, rng: random.Random, person: Person, when: date) -> None:
        self.data, self.lang, self.rng, self.person, self.when = data, lang, rng, person, when
        self.doctor = person_name(data, lang, rng, rng.choice(("male", "female")))

    def value(self, slot: str) -> tuple[str, str, bool] | str:
        """(text, kind, known) of an identifier, or a plain text."""
        rng, values, lang = self.rng, self.person.values, self.lang
        if slot == "name":
            return self._written(values["name"]), "name", True
        if slot == "given":
            return (
                (
                    values["name"].split()[-1]
                    if lang == "vi"
                    else values["name"].split()[0]
                    if lang == "en"
                    else values["name"]
                ),
                "name",
                True,
            )
        if slot == "relative":
            return values["relative_name"], "relative", True
        if slot == "doctor":
            return self.doctor, "clinician", False
        if slot == "other":
            return person_name(self.data, lang, rng, rng.choice(("male", "female"))), "relative", False
        if slot in ("phone", "relative_phone"):
            return self._parted(values[slot]), "phone", True
        if slot == "outside_phone":
            return self._parted(phone(lang, rng)), "phone", False
        if slot in ("national_id", "insurance", "record"):
            return values[slot], slot, True
        if slot == "address":
            return values["address"], "address", True
        if slot == "other_address":
            return address(self.data, rng), "address", False
        if slot == "birth":
            return self.date(self.person.born, full=True), "birth_date", True
        if slot == "date":
            return self.date(self.when - timedelta(days=rng.randint(0, 400)), full=True), "date", False
        if slot == "today":
            return self.date(self.when, full=True), "date", False
        if slot == "admission":
            return f"{rng.choice(self.data['admissions'])}{rng.randint(10_000, 999_999)}", "admission", False
        if slot == "organisation":
            return rng.choice(self.data["organisations"]), "organisation", False
        if slot == "email":
            return (
                f"{rng.choice(self.data['logins'])}{rng.randint(1, 99)}@{rng.choice(('example.com', 'example.net'))}",
                "email",
                False,
            )
        if slot == "old":
            return str(rng.randint(90, 104)), "age", False
        if slot == "age":
            return str((self.when - self.person.born).days // 365)
        if slot == "sex":
            return str(self.data["sexes"][self.person.sex])
        raise KeyError(slot)

    def _written(self, name: str) -> str:
        chance = self.rng.random()
        if self.lang == "zh":
            return name
        if chance < 0.25:
            return name.upper()
        if chance < 0.3 and self.lang == "en":
            first, _, last = name.rpartition(" ")
            return f"{last}, {first}"
        return name

    def _parted(self, number: str) -> str:
        if self.lang == "en" or self.rng.random() < 0.5:
            return number
        sign = self.rng.choice(" .-" if self.lang == "vi" else " -")
        cuts = (4, 7) if self.lang == "vi" else (3, 7)
        return sign.join((number[: cuts[0]], number[cuts[0] : cuts[1]], number[cuts[1] :]))

    def date(self, day: date, full: bool) -> str:
        """A date in one of the world's forms."""
        months = self.data.get("months", [""] * 12)
        return str(self.rng.choice(self.data["dates"])).format(
            d=day.day, m=day.month, y=day.year, yy=day.year % 100, M=months[day.month - 1],
            cy="".join("〇一二三四五六七八九"[int(s)] for s in str(day.year)), cm=_in_chinese(day.month), cd=_in_chinese(day.day),
        )  # fmt: skip


def _in_chinese(number: int) -> str:
    tens, ones = divmod(number, 10)
    return ("" if not tens else "十" if tens == 1 else f"{' 一二三四五六七八九'[tens]}十") + (
        " 一二三四五六七八九"[ones] if ones else ""
    )


def _fill(page: _Writer, template: str, slots: _Slots) -> None:
    for number, piece in enumerate(template.replace("}", "{").split("{")):
        if number % 2 == 0:
            page.add(piece)
        elif isinstance(found := slots.value(piece), str):
            page.add(found)
        else:
            page.mark(*found)


def write_hospital(path: Path, lang: str, patients: int, seed: int = 0) -> int:
    """Write an invented hospital as SQLite: patients, encounters, notes and the labels of a part of the notes; how many notes.

    Raises ``FileExistsError`` where there is one already.
    """
    if path.exists():
        raise FileExistsError(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TABLES)
        known: set[str] = set()
        for planted in notes(lang, patients * 3, seed):
            note = planted.note
            if note.patient not in known:
                if len(known) == patients:
                    break
                known.add(note.patient)
                values = dict(reversed(note.identifiers))
                relative = [value for kind, value in note.identifiers if kind in ("relative", "phone")]
                database.execute(
                    "INSERT INTO patients VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (note.patient, values["name"], values["birth_date"], values["national_id"], values["insurance"], relative[0], values["address"], values["record"], relative[1], relative[2]),
                )  # fmt: skip
            when = note.written_at.isoformat(" ") if note.written_at else None
            database.execute(
                "INSERT INTO encounters VALUES (?, ?, ?, ?)", (f"E{count:07d}", note.patient, when, note.kind)
            )
            database.execute(
                "INSERT INTO notes VALUES (?, ?, ?, ?, ?)", (note.id, f"E{count:07d}", note.kind, when, note.text)
            )
            rows = [(note.id, span.start, span.end, span.label) for span in note.spans]
            database.executemany("INSERT INTO labels VALUES (?, ?, ?, ?)", rows)
            count += 1
        database.commit()
    return count


TABLES = """
CREATE TABLE patients (id TEXT PRIMARY KEY, name TEXT, birth_date TEXT, national_id TEXT, insurance TEXT, phone TEXT, address TEXT,
  record_number TEXT, relative_name TEXT, relative_phone TEXT);
CREATE TABLE encounters (id TEXT PRIMARY KEY, patient_id TEXT REFERENCES patients, admitted_at TEXT, department TEXT);
CREATE TABLE notes (id TEXT PRIMARY KEY, encounter_id TEXT REFERENCES encounters, kind TEXT, written_at TEXT, text TEXT);
CREATE TABLE labels (note_id TEXT REFERENCES notes, start INTEGER, stop INTEGER, label TEXT);
"""
