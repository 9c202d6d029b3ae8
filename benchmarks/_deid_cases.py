"""What de-identification is measured on, invented worlds and public text with marked identifiers,
and the one rule by which every system is counted."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from _common import ROOT, folder, shared_data
from residency.core.types import RawNote
from residency.deid.engine import Deidentifier, normal_form
from residency.deid.options import Deid
from residency.deid.vault import Vault
from residency.synth.hospital_notes import WORLD, notes

Range = tuple[int, int]


@dataclass(frozen=True)
class Place:
    """``text[start:end]`` identifies somebody; ``known``: the row's columns hold it."""

    start: int
    end: int
    kind: str
    known: bool = False


@dataclass(frozen=True)
class Case:
    """A note to be de-identified and what is true of it; offsets in ``text``: NFC, LF."""

    note: RawNote
    text: str
    places: tuple[Place, ...]
    clinical: tuple[Range, ...] = ()
    neutral: tuple[Range, ...] = ()
    """Where the authors mark something that this scoreboard does not count, e.g. a country: a
    finding there is neither right nor wrong."""
    whole: bool = True
    """Every identifier of the text is marked; else nothing can be said of precision."""


COLUMNS = (
    "language | text | system | notes | mean characters | recall, known | recall, unknown | "
    "precision | letters rightly replaced | clinical spans with a letter replaced | of them without "
    "an identifier beside | refused | notes/s and core"
)


@dataclass
class Tally:
    """Counts over notes."""

    system: str
    seconds: float = 0.0
    sums: Counter[str] = field(default_factory=Counter)
    found: Counter[tuple[str, bool]] = field(default_factory=Counter)
    all: Counter[tuple[str, bool]] = field(default_factory=Counter)

    def add(self, case: Case, findings: Iterable[Range]) -> None:
        """One note and what was replaced in it."""
        merged, places = joined(findings), [(place.start, place.end) for place in case.places]
        covered = {i for at in merged for i in range(*at) if case.text[i].isalnum()}
        right = 0
        for place in case.places:
            own = {i for i in range(place.start, place.end) if case.text[i].isalnum()}
            self.all[place.kind, place.known] += 1
            self.found[place.kind, place.known] += own <= covered
            right += len(own & covered)
        self.sums.update(notes=1, characters=len(case.text), clinical=len(case.clinical))
        if case.whole:
            counted = [f for f in merged if not touches(f, case.neutral) or touches(f, places)]
            false = [f for f in counted if not touches(f, places)]
            damaged = sum(touches(span, false) for span in case.clinical)
            self.sums.update(findings=len(counted), false=len(false), damaged=damaged)
            wrong = covered - {i for at in places for i in range(*at)}
            cut = sum(not wrong.isdisjoint(range(*at)) for at in case.clinical)
            self.sums.update(letters=len(covered), right=right, cut=cut)

    def recall(self, known: bool) -> str:
        """Share found, and of how many."""
        both = [[n for key, n in c.items() if key[1] == known] for c in (self.found, self.all)]
        found, every = map(sum, both)
        return f"{found / every:.4f} ({every:,})" if every else "-"

    def row(self, lang: str, text: str) -> list[str]:
        """A line of the table."""
        n, asked = self.sums, self.sums["notes"] + self.sums["refused"]
        precision = f"{1 - n['false'] / max(n['findings'], 1):.4f} ({n['findings']:,})"
        return [
            *(lang, text, self.system, f"{asked:,}"),
            f"{n['characters'] / max(n['notes'], 1):,.0f}",
            *(self.recall(True), self.recall(False), precision if n["findings"] else "- (0)"),
            f"{n['right'] / n['letters']:.4f}" if n["letters"] else "-",
            *(
                f"{n[of]:,} of {n['clinical']:,}" if n["clinical"] else "-"
                for of in ("cut", "damaged")
            ),
            f"{n['refused'] / max(asked, 1):.2%}",
            f"{asked / self.seconds:,.0f}" if self.seconds else "-",
        ]


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
def engine() -> Iterator[Deidentifier]:
    """An engine with an empty vault and a key of its own."""
    with folder() as work:
        vault = Vault.open(work, os.urandom(32))
        vault.begin()
        yield Deidentifier(Deid(), vault)
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
    for planted in notes(lang, count, seed, WORLDS[name]):
        note, edits = planted.note, normal_form(planted.note.text)
        moved = [(mark, edits.project(mark.start, mark.end)) for mark in planted.marks]
        spans = (edits.project(span.start, span.end) for span in note.spans)
        places = tuple(Place(*at, mark.kind, mark.known) for mark, at in moved if at)
        yield Case(note, edits.apply(note.text), places, tuple(span for span in spans if span))


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
    places = tuple(Place(*at, COUNTED[label]) for at, label in moved if at and label in COUNTED)
    neutral = tuple(at for at, label in moved if at and label not in COUNTED)
    note = RawNote(id=id, patient=id, text=text, lang=lang)
    return Case(note, edits.apply(text), places, neutral=neutral)


def _golden(lines: Iterable[str]) -> Iterator[Case]:
    for row in map(json.loads, lines):
        marks = row["gold_spans"] if "gold_spans" in row else row["expected_entities"]
        spans = [(one["start"], one["end"], one["label"]) for one in marks]
        spans = [(a, b, "STREET_ADDRESS" if "ADDRESS" in label else label) for a, b, label in spans]
        yield _case(row.get("id", "zh"), row["text"], "vi" if "gold_spans" in row else "zh", spans)


FIELDS = yaml.safe_load("""
PID: {3: record, 5: name, 9: relative, 11: address, 13: phone, 14: phone, 19: national_id}
NK1: {2: relative, 4: address, 5: phone, 6: phone}
""")


def _hl7(paths: Iterable[Path]) -> Iterator[Case]:
    """HL7 v2 messages as running text: their delimiters become blanks. The patient's and relatives'
    own fields (PID, NK1) are the row's identifiers, and what must not be left in the text."""
    for path in paths:
        text = path.read_text("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
        values: set[tuple[str, str]] = set()
        for line in text.splitlines():
            fields = line.split("|")
            for number, kind in FIELDS.get(fields[0], {}).items():
                for repeat in fields[number].split("~") if number < len(fields) else ():
                    values |= _parts(kind, repeat.split("^"))
        plain = re.sub(r"[|^~&]", " ", text)
        places: list[Place] = []
        spots = (
            (match.start(), -match.end(), kind)
            for kind, value in values
            for match in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", plain)
        )
        for start, end, kind in sorted(spots):
            if not places or start >= places[-1].end:
                places.append(Place(start, -end, kind, known=True))
        edits = normal_form(plain)
        moved = ((place, edits.project(place.start, place.end)) for place in places)
        found = tuple(Place(*at, place.kind, True) for place, at in moved if at)
        own, name = {"identifiers": tuple(sorted(values))}, path.name
        note = RawNote(id=name, patient=name, text=plain, lang="en", **own)
        # a message names other people and places, which nobody has marked
        yield Case(note, edits.apply(plain), found, whole=False)


def _parts(kind: str, parts: list[str]) -> set[tuple[str, str]]:
    """What of an HL7 field identifies: the number, family and given name, street and town, or the
    number called."""
    chosen = [*parts[:1], *parts[11:12]]
    if kind in ("record", "national_id"):
        chosen = parts[:1]
    elif kind in ("name", "relative"):
        chosen = [part.partition("&")[0] for part in parts[:2]]
    elif kind == "address":
        chosen = [part.replace("&", " ").strip() for part in (*parts[:1], *parts[2:3], *parts[4:5])]
    return {(kind, value.strip()) for value in chosen if len(re.sub(r"\W", "", value)) >= 4}
