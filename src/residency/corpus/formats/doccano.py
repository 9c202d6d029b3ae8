"""Exports of doccano: JSON lines, spans as triples or as entities with relations."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from residency.corpus.entities import EntityKeys, read_entities
from residency.corpus.json_records import Record, Records, identifier
from residency.corpus.reader import Row, require

KEYS = EntityKeys(start="start_offset", end="end_offset")


class Doccano(Records):
    """doccano's JSONL, in each of its forms: ``label`` (or ``labels``) with lists of start, end and
    label, or with labels of the whole text; ``entities`` with ``start_offset``, ``end_offset`` and
    ``label``, and ``relations`` between them by ``from_id`` and ``to_id``.

    Offsets count code points. Comments are not read.
    """

    format: Literal["doccano"]
    group: str = ""
    """Field of the row's metadata that holds the patient or document."""

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        where, id = f"{path}:{line}", identifier(record.get("id"))
        text = record.get("text", record.get("data"))
        if "data" not in record:
            require(where, "field", record, [("text", "format")])
        if not isinstance(text, str):
            return Row(line=line, id=id, fault="text is not a string")
        given = next((key for key in ("entities", "label", "labels") if key in record), "")
        if not given:
            return Row(line=line, id=id, fault='has none of the keys "entities", "label", "labels"')
        value = record[given]
        labels: tuple[str, ...] = ()
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            labels, value = tuple(value), []
        spans = read_entities(value, KEYS, where, "format")
        if isinstance(spans, str):
            return Row(line=line, id=id, fault=spans)
        keys = [identifier(one.get("id")) if isinstance(one, dict) else "" for one in value or []]
        about = record.get("meta", record.get("metadata"))
        return Row(
            line=line,
            id=id,
            text=text,
            group=identifier(
                {**record, **(about if isinstance(about, dict) else {})}.get(self.group)
            ),
            spans=tuple(
                replace(raw, key=key or raw.key) for raw, key in zip(spans, keys, strict=True)
            ),
            relations=tuple(_relations(record.get("relations"))),
            labels=labels,
            offsets="characters",
        )


def _relations(value: object) -> list[tuple[str, str, str]]:
    given = value if isinstance(value, list) else []
    return [
        (identifier(one.get("from_id")), identifier(one.get("to_id")), str(one.get("type", "")))
        for one in given
        if isinstance(one, dict)
    ]
