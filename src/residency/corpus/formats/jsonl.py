"""JSON lines, or one JSON list: a record each, with entities and labels."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core.types import PROFILES
from residency.corpus.entities import EntityKeys, read_entities
from residency.corpus.json_records import Record, Records, choices, identifier
from residency.corpus.reader import Row, require


class JsonFields(EntityKeys):
    """What the fields of a record are called. Only the text must be there, and what is named here
    on purpose."""

    text: str = "text"
    entities: str = "entities"
    id: str = "id"
    group: str = "group"
    """Patient or document."""
    lang: str = "lang"
    labels: str = "labels"
    """Labels of the whole record: a string or a list."""
    quote: str = "text"


class Jsonl(Records):
    """One JSON object a line (or a file that is one list of them), each a note.

    ``kind``, ``department``, ``origin``, ``profile``, ``parents``, ``source``, ``written_at`` and
    ``relations`` are read as ``write_jsonl`` writes them.
    """

    format: Literal["jsonl"]
    fields: JsonFields = JsonFields()

    def suffixes(self) -> tuple[str, ...]:
        return (".jsonl", ".json", ".ndjson")

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        fields, where = self.fields, f"{path}:{line}"
        named = sorted({"entities", "id", "group", "lang", "labels"} & fields.model_fields_set)
        wanted = [(getattr(fields, key), f"fields.{key}") for key in ("text", *named)]
        require(where, "field", record, wanted)
        id = identifier(record.get(fields.id))
        text = record[fields.text]
        if not isinstance(text, str):
            return Row(line=line, id=id, fault="text is not a string")
        spans = read_entities(record.get(fields.entities), fields, where, "fields")
        if isinstance(spans, str):
            return Row(line=line, id=id, fault=spans)
        return Row(
            line=line,
            id=id,
            text=text,
            spans=spans,
            group=identifier(record.get(fields.group)),
            lang=_string(record.get(fields.lang)),
            labels=_identifiers(record.get(fields.labels)),
            choices=choices(record),
            kind=_string(record.get("kind")),
            department=_string(record.get("department")),
            origin=_string(record.get("origin")),
            parents=_identifiers(record.get("parents")),
            source=identifier(record.get("source")),
            **_typed(record),
        )


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _identifiers(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(name for item in values if (name := identifier(item)))


def _typed(record: Record) -> dict[str, Any]:
    """Profile, time and relations as ``write_jsonl`` writes them; left alone where they are
    something else."""
    found: dict[str, Any] = {}
    if record.get("profile") in PROFILES:
        found["profile"] = record["profile"]
    with suppress(msgspec.ValidationError, KeyError):
        found["written_at"] = msgspec.convert(record.get("written_at"), datetime | None)
        relations = msgspec.convert(record.get("relations", []), list[dict[str, int | str]])
        found["relations"] = tuple(
            (str(r["head"]), str(r["tail"]), str(r["label"])) for r in relations
        )
    return found
