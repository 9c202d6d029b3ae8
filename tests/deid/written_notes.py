"""Reads the written notes (``written/README.md`` has their format)."""

from __future__ import annotations

import re
from pathlib import Path

from residency.core.types import RawNote, Span
from residency.synth.hospital_notes import Planted
from residency.synth.marked import MarkedNote, read_marked, unmarked
from residency.synth.planting import PlantedIdentifier

WRITTEN = Path(__file__).parent / "written"
COLUMNS = ("name", "birth_date", "phone", "national_id", "record", "address")
"""Kinds of which a patient's row has one."""
AGE = re.compile(r"(?<=\d)\D+$|(?<=[一二三四五六七八九十])(?:多?岁|歲)$")
"""The unit behind an age, which identifies nobody."""


def read_written(name: str, lang: str) -> list[Planted]:
    """The notes of a set, one patient each; the spans of a note are its must-keep places."""
    source = (WRITTEN / name / f"{lang}.txt").read_text("utf-8")
    return [rowed(f"{name} {lang} {one.head}", one, lang) for one in read_marked(source)]


def planted(id: str, body: str, lang: str) -> Planted:
    """A marked note, as ``rowed`` reads it."""
    return rowed(id, unmarked("", body), lang)


def rowed(id: str, note: MarkedNote, lang: str) -> Planted:
    """A note with the row of its patient.

    The columns of the row hold the first name of several parts, and of the other kinds the first; a
    note without such a name has no row. Known is what the row holds, and every form of the patient's
    name.
    """
    text, found, kept = note.text, list[tuple[int, int, str]](), list[Span]()
    for start, end, kind in note.marks:
        inside = text[start:end]
        if kind:
            identifying = AGE.sub("", inside) if kind == "age" else inside
            found.append((start, start + len(identifying), kind))
        else:
            kept.append(Span(start, end, "kept", inside))
    row: dict[str, str] = {}
    for start, end, kind in found:
        value = " ".join(text[start:end].split())
        if kind != "name" or len(value if lang == "zh" else value.split()) > 1:
            row.setdefault(kind, value)
    own = {kind: row[kind] for kind in COLUMNS if kind in row and "name" in row}
    marks = [
        PlantedIdentifier(a, b, kind, bool(own) and (kind == "name" or text[a:b] == own.get(kind)))
        for a, b, kind in found
    ]
    raw = RawNote(id, id, text, lang, spans=tuple(kept), identifiers=tuple(own.items()))
    return Planted(raw, tuple(marks))
