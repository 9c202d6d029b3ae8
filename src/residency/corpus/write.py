"""Notes written as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from residency.core import files
from residency.core.types import Note, Span

NOTE_FIELDS = [
    "group",
    "lang",
    "kind",
    "department",
    "choices",
    "written_at",
    "parents",
    "source",
    "labels",
    "relations",
]
SPAN_FIELDS = ["code", "attributes", "by", "score"]
"""Fields that are left out where they hold nothing."""


def write_jsonl(notes: Iterable[Note], path: Path) -> int:
    """Write JSON lines that ``Jsonl`` reads back as they are with its default fields; returns how
    many."""
    return files.write_jsonl(path, (_record(note) for note in notes))


def _record(note: Note) -> dict[str, Any]:
    record: dict[str, Any] = {"id": note.id, "text": note.text}
    record["entities"] = [_entity(span) for span in note.spans]
    record |= {name: value for name in NOTE_FIELDS if (value := getattr(note, name))}
    return record | {"origin": note.origin, "profile": note.profile}


def _entity(span: Span) -> dict[str, Any]:
    entity = {"start": span.start, "end": span.end, "label": span.label, "text": span.quote}
    optional = {name: getattr(span, name) for name in SPAN_FIELDS}
    return entity | {name: value for name, value in optional.items() if value not in (None, ())}
