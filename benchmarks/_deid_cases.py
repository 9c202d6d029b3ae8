"""What de-identification is measured on, invented worlds and public text with marked identifiers,
and the one rule by which every system is counted."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from _common import ROOT, folder, interval, shared_data
from residency.core.part import parse
from residency.core.types import RawNote
from residency.deid.engine import DeidentifiedNote, Deidentifier, normal_form
from residency.deid.options import Deid
from residency.deid.tagger import tagger_of
from residency.deid.vault import Vault
from residency.ingest.hl7 import people
from residency.ingest.hl7_segments import Message
from residency.metrics.intervals import bootstrap
from residency.synth.hospital_notes import WORLD, Planted, notes
from residency.synth.planting import PlantedIdentifier as Place

Range = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """A note to be de-identified and what is true of it; offsets in ``text``: NFC, LF."""

    note: RawNote
    text: str
    places: tuple[Place, ...]
    clinical: tuple[Range, ...] = ()
    """What must stay."""
    neutral: tuple[Range, ...] = ()
    """Where the authors mark something that this scoreboard does not count, e.g. a country: a
    finding there is neither right nor wrong."""
    whole: bool = True
    """Every identifier of the text is marked; else nothing can be said of precision."""


FIGURES = {
    "found": ("found", "all"),
    "of what the row holds": ("own found", "own"),
    "partly found": ("partly", "all"),
    "notes with nothing missed": ("complete", "notes"),
    "precision": ("true", "findings"),
    "precision, letters": ("right", "letters"),
    "clinical places with a letter replaced": ("cut", "clinical"),
    "of them without an identifier beside": ("damaged", "clinical"),
    "queued a note": ("queued", "notes"),
    "found or queued": ("seen", "all"),
}
"""Figures that are one count over another, summed over notes."""
COLUMNS = ["language", "text", "system", "notes", "mean characters", *FIGURES, "refused", "notes/s"]


@dataclass
class Tally:
    """Counts over notes."""

    system: str
    seconds: float = 0.0
    each: list[Counter[str]] = field(default_factory=list)
    """What each note adds to the counts."""
    refused: int = 0
    found: Counter[tuple[str, bool]] = field(default_factory=Counter)
    all: Counter[tuple[str, bool]] = field(default_factory=Counter)

    def ask(self, ready: Deidentifier, case: Case) -> DeidentifiedNote | None:
        """What the engine makes of a note, counted and timed; None where it refuses."""
        begun = time.process_time()
        done = ready.process(case.note)
        self.seconds += time.process_time() - begun
        if isinstance(done, DeidentifiedNote):
            found, queue = ([(o.start, o.end) for o in all] for all in (done.findings, done.doubts))
            self.add(case, found, queue)
            return done
        self.refused += 1
        return None

    def add(self, case: Case, findings: Iterable[Range], queue: Iterable[Range] = ()) -> None:
        """One note, what was replaced in it, and what waits for a person."""
        merged, places = joined(findings), [(place.start, place.end) for place in case.places]
        covered, queued = letters(case.text, merged), joined(queue)
        seen, n = covered | letters(case.text, queued), Counter[str]()
        for place in case.places:
            own = letters(case.text, [(place.start, place.end)])
            found = own <= covered
            self.all[place.kind, place.known] += 1
            self.found[place.kind, place.known] += found
            n.update(all=1, found=found, seen=own <= seen, partly=bool(own & covered) - found)
            n.update({"own": place.known, "own found": place.known and found})
        size = sum(map(str.isalnum, case.text))
        n.update(notes=1, characters=len(case.text), size=size, clinical=len(case.clinical))
        n.update(complete=n["found"] == n["all"], queued=len(queued))
        if case.whole:
            counted = [f for f in merged if not touches(f, case.neutral) or touches(f, places)]
            false = [f for f in counted if not touches(f, places)]
            n.update(findings=len(counted), true=len(counted) - len(false))
            n.update(damaged=sum(touches(span, false) for span in case.clinical))
            wrong = covered - letters(case.text, places)
            n.update(letters=len(covered), right=len(covered) - len(wrong))
            n.update(cut=sum(not wrong.isdisjoint(range(*at)) for at in case.clinical))
        self.each.append(n)

    @property
    def sums(self) -> Counter[str]:
        """The counts of all notes."""
        return sum(self.each, Counter[str]())

    def figure(self, name: str) -> str:
        """One of ``FIGURES`` with its 95 % interval over notes, and of how many."""
        counts = np.array([[float(one[key]) for key in FIGURES[name]] for one in self.each])
        if not counts.size or not counts[:, 1].sum():
            return "-"
        groups = [str(number) for number in range(len(counts))]
        how = {"shares": name != "queued a note"}
        found = bootstrap(counts, groups, lambda n: n[..., :1] / np.maximum(n[..., 1:], 1), **how)
        value, low, high = (float(one[0]) for one in found)
        return f"{interval(value, low, high, '.4f')} of {counts[:, 1].sum():,.0f}"

    def row(self, lang: str, text: str) -> list[str]:
        """A line of the table."""
        notes, asked = len(self.each), len(self.each) + self.refused
        length = f"{self.sums['characters'] / max(notes, 1):,.0f}"
        rate = f"{asked / self.seconds:,.0f}" if self.seconds else "-"
        end = [*map(self.figure, FIGURES), f"{self.refused:,}", rate]
        return [lang, text, self.system, f"{asked:,}", length, *end]


def letters(text: str, ranges: Iterable[Range]) -> set[int]:
    """Where the letters and digits of some ranges stand."""
    return {i for start, end in ranges for i in range(start, end) if text[i].isalnum()}


def joined(findings: Iterable[Range]) -> list[Range]:
    """Findings that overlap as one, so that no system is paid twice for the same words."""
    merged: list[Range] = []
    for start, end in sorted(findings):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


def touches(one: Range, others: Iterable[Range]) -> bool:
    """Whether a range overlaps one of others."""
    return any(a < one[1] and one[0] < b for a, b in others)


def kinds_table(scored: Sequence[tuple[str, str, Tally]]) -> list[list[str]]:
    """Recall by kind: columns, then a row for language, text and kind, a cell for every system."""
    systems = list(dict.fromkeys(tally.system for _, _, tally in scored))
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for lang, text, tally in scored:
        for kind in sorted({kind for kind, _ in tally.all}):
            found, every = (c[kind, True] + c[kind, False] for c in (tally.found, tally.all))
            share = f"{found / every:.4f} ({every:,})"
            cells.setdefault((lang, text, kind), {})[tally.system] = share
    rows = [[*key, *(line.get(system, "-") for system in systems)] for key, line in cells.items()]
    return [["language", "text", "kind", *systems], *rows]


@contextmanager
def engine(**settings: str) -> Iterator[Deidentifier]:
    """An engine with these settings of ``deid``, an empty vault and a key of its own."""
    with folder() as work:
        vault = Vault.open(work, os.urandom(32))
        vault.begin()
        read = parse(Deid, {"tagger": "off"} | settings, "deid")
        yield Deidentifier(read, vault, tagger=tagger_of(read))
        vault.close()


WORLDS = {"development": WORLD}
WORLDS |= {name: ROOT / "tests/deid/worlds" / name for name in ("validation", "test")}
COUNTED: dict[str, str] = yaml.safe_load("""
{PERSON: name, STREET_ADDRESS: address, ZIP_CODE: address, PHONE_NUMBER: phone, DATE: date,
 EMAIL_ADDRESS: email, US_SSN: national_id, US_DRIVER_LICENSE: national_id, CREDIT_CARD: account,
 IBAN_CODE: account, ORGANIZATION: organisation, IP_ADDRESS: other, DOMAIN_NAME: url, PHONE: phone,
 ID_NUM: national_id, ZIPCODE: address, person: name, phone_number: phone}
""")
"""Types of the authors that name an identifier -> kinds; the others (titles, nationalities,
countries, ages) are neutral."""


def of_world(name: str, lang: str, count: int, seed: int) -> Iterator[Case]:
    """Notes of an invented hospital."""
    return map(case_of, notes(lang, count, seed, WORLDS[name]))


def written_notes(name: str, lang: str) -> list[Case]:
    """Notes of a written set; what must stay is clinical."""
    sys.path.insert(0, str(ROOT / "tests/deid"))
    from written_notes import read_written

    return [case_of(planted) for planted in read_written(name, lang)]


def case_of(planted: Planted) -> Case:
    """A note with the places of its identifiers, which the row holds or not, and its spans."""
    note, edits = planted.note, normal_form(planted.note.text)
    moved = [(mark, edits.project(mark.start, mark.end)) for mark in planted.marks]
    spans = (edits.project(span.start, span.end) for span in note.spans)
    places = tuple(Place(*at, mark.kind, mark.known) for mark, at in moved if at)
    return Case(note, edits.apply(note.text), places, tuple(span for span in spans if span))


def public() -> dict[tuple[str, str], list[Case]]:
    """(language, text) -> cases of the public texts."""
    data = shared_data()
    golden, pii = data / "deid_golden", data / "en/pii_synthetic/synth_dataset_v2.json"
    found = {
        ("en", "pii_synthetic"): [],
        ("vi", "deid_golden"): [*_golden((golden / "vi.jsonl").read_text("utf-8").splitlines())],
        ("zh", "deid_golden"): [*_golden([(golden / "zh-Hans.json").read_text("utf-8")])],
        ("en", "his, HL7 v2"): [*_hl7(sorted((data / "his/hl7v2").glob("*.hl7")))],
    }
    for number, row in enumerate(json.loads(pii.read_text("utf-8"))):
        spans = [(s["start_position"], s["end_position"], s["entity_type"]) for s in row["spans"]]
        case = _case(f"pii{number}", row["full_text"], "en", spans)
        found["en", "pii_synthetic"].append(case)
    for row in json.loads((golden / "hard_negatives.json").read_text("utf-8"))["fixtures"]:
        case = _case(row["id"], row["text"], row["language"], [])
        found.setdefault((row["language"], "hard negatives"), []).append(case)
    return {key: cases for key, cases in found.items() if cases and key[0] in ("vi", "zh", "en")}


def _case(id: str, text: str, lang: str, spans: Iterable[tuple[int, int, str]]) -> Case:
    edits = normal_form(text)
    moved = [(edits.project(start, end), label) for start, end, label in spans]
    places = tuple(
        Place(*at, COUNTED[label], False) for at, label in moved if at and label in COUNTED
    )
    neutral = tuple(at for at, label in moved if at and label not in COUNTED)
    note = RawNote(id=id, patient=id, text=text, lang=lang)
    return Case(note, edits.apply(text), places, neutral=neutral)


def _golden(lines: Iterable[str]) -> Iterator[Case]:
    for row in map(json.loads, lines):
        marks = row["gold_spans"] if "gold_spans" in row else row["expected_entities"]
        spans = [(one["start"], one["end"], one["label"]) for one in marks]
        spans = [(a, b, "STREET_ADDRESS" if "ADDRESS" in label else label) for a, b, label in spans]
        yield _case(row.get("id", "zh"), row["text"], "vi" if "gold_spans" in row else "zh", spans)


def _hl7(paths: Iterable[Path]) -> Iterator[Case]:
    """HL7 v2 messages as running text: their delimiters become blanks. What extraction takes from
    them of the patient and relatives is the row, and must not be left: values as they are written,
    and every part of a name."""
    for path in paths:
        text = "\n".join(path.read_text("utf-8", errors="replace").splitlines())
        named = people(Message(text.replace("\n", "\r")), "en")[1]
        own = tuple(pair for pair in named if pair[0] != "clinician")
        parts = {(k, part) for k, v in own if k in ("name", "relative") for part in v.split()}
        plain, places = re.sub(r"[|^~&]", " ", text), list[Place]()
        spots = (
            (match.start(), -match.end(), kind)
            for kind, value in {*own, *parts}
            if len(re.sub(r"\W", "", value)) >= 4
            for match in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", plain)
        )
        for start, end, kind in sorted(spots):
            if not places or start >= places[-1].end:
                places.append(Place(start, -end, kind, known=True))
        edits, name = normal_form(plain), path.name
        moved = ((place, edits.project(place.start, place.end)) for place in places)
        found = tuple(Place(*at, place.kind, True) for place, at in moved if at)
        note = RawNote(id=name, patient=name, text=plain, lang="en", identifiers=own)
        # a message names other people and places, which nobody has marked
        yield Case(note, edits.apply(plain), found, whole=False)
