"""Reads the notes that people wrote by hand (``written/README.md`` has their format)."""

from __future__ import annotations

import re
from pathlib import Path
from unicodedata import normalize

from residency.core.types import RawNote, Span
from residency.synth.hospital_notes import Planted
from residency.synth.planting import PlantedIdentifier

WRITTEN = Path(__file__).parent / "written"
COLUMNS = ("name", "birth_date", "phone", "national_id", "record", "address")
"""Kinds of which a patient's row has one."""
MARK = re.compile(r"⟦(?P<kind>\w+)\|(?P<value>[^⟦⟧⟪⟫]*)⟧|⟪(?P<kept>[^⟦⟧⟪⟫]*)⟫")
AGE = re.compile(r"(?<=\d)\D+$|(?<=[一二三四五六七八九十])(?:多?岁|歲)$")
"""The unit behind an age, which identifies nobody."""


def read_written(name: str, lang: str) -> list[Planted]:
    """The notes of a set, one patient each; the spans of a note are its must-keep places."""
    source = normalize("NFC", (WRITTEN / name / f"{lang}.txt").read_text("utf-8"))
    parts = iter(re.split(r"^=== (\d+ \w+)\n", source, flags=re.M)[1:])
    notes = (
        (f"{name} {lang} {head}", text.rstrip("\n"))
        for head, text in zip(parts, parts, strict=False)
    )
    return [planted(id, marked, lang) for id, marked in notes]


def planted(id: str, marked: str, lang: str) -> Planted:
    """A note without its brackets, and where they stood.

    The columns of the patient's row hold the first name of several parts, and of the other kinds
    the first; a note without such a name has no row. Known is what the row holds, and every form of
    the patient's name.
    """
    text, last = "", 0
    found, kept = list[tuple[int, int, str]](), list[Span]()
    for mark in MARK.finditer(marked):
        text += marked[last : mark.start()]
        start, last, inside = len(text), mark.end(), mark["value"] or mark["kept"]
        text += inside
        if mark["kind"]:
            identifying = AGE.sub("", inside) if mark["kind"] == "age" else inside
            found.append((start, start + len(identifying), mark["kind"]))
        else:
            kept.append(Span(start, len(text), "kept", inside))
    text += marked[last:]
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
    note = RawNote(id, id, text, lang, spans=tuple(kept), identifiers=tuple(own.items()))
    return Planted(note, tuple(marks))
