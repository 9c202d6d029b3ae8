"""JSON lines, or one JSON list: a record each, with entities and labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core.errors import DataError
from residency.core.types import PROFILES
from residency.corpus.entities import EntityKeys, looks_like_entities, read_entities
from residency.corpus.json_records import Record, Records, choices, identifier
from residency.corpus.reader import Row, require, showable


class JsonFields(EntityKeys):
    """What the fields of a record are called. Only the text must be there, and what is named here
    on purpose."""

    text: str = "text"
    """The note."""
    entities: str = "entities"
    """A list of its entities."""
    id: str = "id"
    """Number of the record; where it is missing, its file and line."""
    group: str = "group"
    """Patient or document."""
    lang: str = "lang"
    """Language of the record."""
    labels: str = "labels"
    """Labels of the whole record: a string or a list."""
    quote: str = "text"
    """The text of an entity; without it offsets cannot be proved."""


class Jsonl(Records):
    """One JSON object a line (or a file that is one list of them), each a note.

    A row that lacks the key of the entities, or of the labels, where others of its file have it is
    rejected. A row with an ``answer`` counts where that is ``accept`` (Prodigy). Entities that
    other tools write with other keys are read; a form of another format is refused by its name.

    ``kind``, ``department``, ``origin``, ``profile``, ``parents``, ``source``, ``written_at`` and
    ``relations`` are read as ``write_jsonl`` writes them.
    """

    format: Literal["jsonl"]
    fields: JsonFields = JsonFields()

    def suffixes(self) -> tuple[str, ...]:
        return (".jsonl", ".json", ".ndjson")

    def rows(self, path: Path) -> Iterator[Row]:
        fields = self.fields
        names = {fields.entities, fields.labels, *self._named()}
        met: set[str] = set()
        for _, record in self.records(path):
            met |= names & record.keys() if isinstance(record, dict) else set()
            if names == met or fields.entities in met:
                break
        for line, record in self.records(path):
            if isinstance(record, str):
                yield Row(line=line, fault=record)
            elif fault := self._absent(record, met, f"{path}:{line}"):
                yield Row(line=line, id=identifier(record.get(fields.id)), fault=fault)
            elif row := self.row(record, path, line):
                yield row

    def _named(self) -> set[str]:
        """Fields that are named on purpose."""
        fields = self.fields
        keys = {"entities", "id", "group", "lang", "labels"} & fields.model_fields_set
        return {getattr(fields, key) for key in keys}

    def _absent(self, record: Record, met: set[str], where: str) -> str:
        """Why a row is none, that has not what others of the file have; raises ``DataError`` where
        no row has it, and this one is of another format."""
        fields, keys = self.fields, record.keys()
        named = "entities" in fields.model_fields_set
        if fields.entities in keys:
            if foreign := foreign_form({} if named else record, record.get("relations")):
                raise DataError(f"{where}: {foreign}.")
            return ""
        other = next((key for key in record if looks_like_entities(record[key])), "")
        wanted = [n for n in (fields.entities, fields.labels) if n in met and n != other]
        if wanted and (other or not keys & set(wanted)):
            found = ", ".join(showable(keys)[:20])
            return f'has no key "{wanted[0]}" (keys found: {found}); [] says that nothing is marked'
        if other and not named:
            told = (
                foreign_form(record, record.get("relations")) or f'set fields.entities to "{other}"'
            )
            raise DataError(
                f'{where}: has no key "{fields.entities}", but "{other}" holds spans; {told}.'
            )
        return ""

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
            left_out=refused_answer(record),
            **_typed(record),
        )


def refused_answer(record: Record) -> str:
    """Why a row that an annotator did not accept is not learned from (Prodigy's ``answer``)."""
    answer = record.get("answer")
    return f"answered {answer}" if answer in ("reject", "ignore") else ""


def foreign_form(record: Record, relations: object) -> str:
    """The format that a row is of, with the setting that reads it; the empty string where none is
    known by its keys."""
    marked = {key: record[key] for key in record if looks_like_entities(record[key])}
    triples = [key for key in ("label", "labels") if isinstance(marked.get(key, [""])[0], list)]
    linked = isinstance(relations, list) and any(
        isinstance(one, dict) and "from_id" in one for one in relations
    )
    if triples or linked:
        return "this is doccano's form: set format to doccano"
    if record.get("answer") in ("accept", "reject", "ignore") and "spans" in record:
        return "this is Prodigy's form: set format to prodigy"
    if any(isinstance(one[0], dict) and "labels" in one[0] for one in marked.values()):
        return "this is Label Studio's JSON-MIN: set format to label_studio"
    return ""


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
