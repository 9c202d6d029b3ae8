"""What the scoreboard of de-identification is measured on: invented worlds and public text with
marked identifiers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from _common import ROOT, shared_data
from _deid_score import Case, Place
from residency.core.types import RawNote
from residency.deid.engine import normalised
from residency.synth.hospital_notes import WORLD, notes

WORLDS = {
    "development": WORLD,
    **{name: ROOT / "tests/deid/worlds" / name for name in ("validation", "test")},
}
COUNTED = {
    "PERSON": "name",
    "STREET_ADDRESS": "address",
    "ZIP_CODE": "address",
    "PHONE_NUMBER": "phone",
    "EMAIL_ADDRESS": "email",
    "US_SSN": "national_id",
    "US_DRIVER_LICENSE": "national_id",
    "CREDIT_CARD": "account",
    "IBAN_CODE": "account",
    "ORGANIZATION": "organisation",
    "IP_ADDRESS": "other",
    "DOMAIN_NAME": "url",
    "DATE": "date",
    "PHONE": "phone",
    "ID_NUM": "national_id",
    "ZIPCODE": "address",
    "person": "name",
    "phone_number": "phone",
}
"""Types of the authors that name an identifier -> kinds; the others (titles, nationalities,
countries, ages) are neutral."""


def of_world(name: str, lang: str, count: int, seed: int) -> Iterator[Case]:
    """Notes of an invented hospital."""
    for planted in notes(lang, count, seed, WORLDS[name]):
        note = planted.note
        edits = normalised(note.text)
        moved = [(mark, edits.project(mark.start, mark.end)) for mark in planted.marks]
        spans = (edits.project(span.start, span.end) for span in note.spans)
        yield Case(
            note=note,
            text=edits.apply(note.text),
            places=tuple(Place(*at, mark.kind, mark.known) for mark, at in moved if at),
            clinical=tuple(span for span in spans if span),
        )


def public() -> dict[tuple[str, str], list[Case]]:
    """(language, text) -> cases of the public texts."""
    data = shared_data()
    found = {
        ("en", "pii_synthetic"): list(_pii(data / "en/pii_synthetic/synth_dataset_v2.json")),
        ("vi", "deid_golden"): list(_golden_vi(data / "deid_golden/vi.jsonl")),
        ("zh", "deid_golden"): list(_golden_zh(data / "deid_golden/zh-Hans.json")),
        ("en", "hard negatives"): list(_negatives(data / "deid_golden/hard_negatives.json")),
        ("en", "his, HL7 v2"): list(_hl7(sorted((data / "his/hl7v2").glob("*.hl7")))),
    }
    return {key: cases for key, cases in found.items() if cases}


def _case(
    id: str, text: str, lang: str, spans: Iterable[tuple[int, int, str]], **more: Any
) -> Case:
    edits = normalised(text)
    counted, neutral = [], []
    for start, end, label in spans:
        if not (at := edits.project(start, end)):
            continue
        if label in COUNTED:
            counted.append(Place(*at, COUNTED[label]))
        else:
            neutral.append(at)
    note = RawNote(id=id, patient=id, text=text, lang=lang, **more)
    return Case(note=note, text=edits.apply(text), places=tuple(counted), neutral=tuple(neutral))


def _pii(path: Path) -> Iterator[Case]:
    for number, row in enumerate(json.loads(path.read_text("utf-8"))):
        spans = [(s["start_position"], s["end_position"], s["entity_type"]) for s in row["spans"]]
        yield _case(f"pii{number}", row["full_text"], "en", spans)


def _golden_vi(path: Path) -> Iterator[Case]:
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        spans = [
            (s["start"], s["end"], "STREET_ADDRESS" if "ADDRESS" in s["label"] else s["label"])
            for s in row["gold_spans"]
        ]
        yield _case(row["id"], row["text"], "vi", spans)


def _golden_zh(path: Path) -> Iterator[Case]:
    row = json.loads(path.read_text("utf-8"))
    yield _case(
        "zh",
        row["text"],
        "zh",
        [(s["start"], s["end"], s["label"]) for s in row["expected_entities"]],
    )


def _negatives(path: Path) -> Iterator[Case]:
    for row in json.loads(path.read_text("utf-8"))["fixtures"]:
        if row["language"] == "en":
            yield _case(row["id"], row["text"], "en", [])


def _hl7(paths: Iterable[Path]) -> Iterator[Case]:
    """HL7 v2 messages as running text: their delimiters become blanks. The patient's and relatives'
    own fields (PID, NK1) are the row's identifiers, and what must not be left anywhere in the
    text."""
    wanted = {
        "PID": {
            3: "record",
            5: "name",
            9: "relative",
            11: "address",
            13: "phone",
            14: "phone",
            19: "national_id",
        },
        "NK1": {2: "relative", 4: "address", 5: "phone", 6: "phone"},
    }
    for path in paths:
        text = path.read_text("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
        values: set[tuple[str, str]] = set()
        for line in text.splitlines():
            fields = line.split("|")
            for number, kind in wanted.get(fields[0], {}).items():
                for repeat in fields[number].split("~") if number < len(fields) else ():
                    values |= _parts(kind, repeat.split("^"))
        plain = re.sub(r"[|^~&]", " ", text)
        spots = [
            (m.start(), m.end(), kind)
            for kind, v in values
            for m in re.finditer(rf"(?<!\w){re.escape(v)}(?!\w)", plain)
        ]
        spots.sort(key=lambda s: (s[0], -s[1]))
        places: list[Place] = []
        for start, end, kind in spots:
            if not places or start >= places[-1].end:
                places.append(Place(start, end, kind, known=True))
        edits = normalised(plain)
        moved = ((place, edits.project(place.start, place.end)) for place in places)
        yield Case(
            note=RawNote(
                id=path.name,
                patient=path.name,
                text=plain,
                lang="en",
                identifiers=tuple(sorted(values)),
            ),
            text=edits.apply(plain),
            places=tuple(Place(*at, place.kind, True) for place, at in moved if at),
            whole=False,  # a message names other people and places, which nobody has marked
        )


def _parts(kind: str, parts: list[str]) -> set[tuple[str, str]]:
    """What of an HL7 field identifies: the number, family and given name, street and town, or the
    number called."""
    if kind in ("record", "national_id"):
        chosen = parts[:1]
    elif kind in ("name", "relative"):
        chosen = [part.partition("&")[0] for part in parts[:2]]
    elif kind == "address":
        chosen = [part.replace("&", " ").strip() for part in (*parts[:1], *parts[2:3], *parts[4:5])]
    else:
        chosen = [*parts[:1], *parts[11:12]]
    return {(kind, value.strip()) for value in chosen if len(re.sub(r"\W", "", value)) >= 4}
