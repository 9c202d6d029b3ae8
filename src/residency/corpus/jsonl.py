"""JSON lines, or one JSON list: a record each, with entities and labels."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core.types import PROFILES, Profile
from residency.corpus.entities import Keys, read_entities
from residency.corpus.reader import Row, Source, lines, missing, whole


class Fields(Keys):
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


class Jsonl(Source):
    """One JSON object a line (or a file that is one list of them), each a note.

    ``kind``, ``department``, ``origin``, ``profile``, ``parents``, ``source``, ``written_at`` and
    ``relations`` are read as ``write_jsonl`` writes them.
    """

    format: Literal["jsonl"]
    fields: Fields = Fields()

    def suffixes(self) -> tuple[str, ...]:
        return (".jsonl", ".json", ".ndjson")

    def rows(self, path: Path) -> Iterator[Row]:
        for number, record in json_records(path):
            if isinstance(record, dict):
                yield self._row(record, number, f"{path}:{number}")
            else:
                fault = "is not valid JSON" if record is INVALID else "is not a JSON object"
                yield Row(line=number, fault=fault)

    def _row(self, record: dict[str, Any], number: int, where: str) -> Row:
        fields = self.fields
        for key in (
            "text",
            *sorted({"entities", "id", "group", "lang", "labels"} & fields.model_fields_set),
        ):
            if getattr(fields, key) not in record:
                raise missing(where, "field", getattr(fields, key), record, f"fields.{key}")
        id = identifier(record.get(fields.id))
        text = record[fields.text]
        if not isinstance(text, str):
            return Row(line=number, id=id, fault="text is not a string")
        spans = read_entities(record.get(fields.entities), fields, where, "fields")
        if isinstance(spans, str):
            return Row(line=number, id=id, fault=spans)
        return Row(
            line=number,
            id=id,
            text=text,
            spans=spans,
            group=identifier(record.get(fields.group)),
            lang=_text(record.get(fields.lang)),
            labels=_labels(record.get(fields.labels)),
            choices=choices(record),
            **_written(record),
        )


INVALID = object()


def json_records(path: Path) -> Iterator[tuple[int, object]]:
    """Records with their line, or their position in the list where the file is one list."""
    first = next((line.lstrip()[:1] for _, line in lines(path) if line.strip()), "")
    if first == "[":
        try:
            yield from enumerate(msgspec.json.decode(whole(path), type=list[Any]), start=1)
            return
        except msgspec.DecodeError:
            pass  # lines that are lists, or one broken list: each line is then judged by itself
    for number, line in lines(path):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line)
            except msgspec.DecodeError:
                yield number, INVALID


def choices(record: dict[str, Any]) -> tuple[str, ...]:
    """What a row says that it may be answered with: ``choices``, or ``answer_choices`` as
    PromptCBLUE calls it, a list, or one text with ``，`` between."""
    found = record.get("choices", record.get("answer_choices"))
    listed = (
        found.split("，") if isinstance(found, str) else found if isinstance(found, list) else []
    )
    return tuple(
        dict.fromkeys(one.strip() for one in listed if isinstance(one, str) and one.strip())
    )


def identifier(value: object) -> str:
    """An id as a string; numbers are ids too."""
    return value if isinstance(value, str) else (str(value) if isinstance(value, int) else "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _labels(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(name for item in values if (name := identifier(item)))


def _written(record: dict[str, Any]) -> dict[str, Any]:
    """The fields that ``write_jsonl`` adds; left alone where they are something else."""
    found: dict[str, Any] = {}
    for name in ("kind", "department"):
        if isinstance(record.get(name), str):
            found[name] = record[name]
    if isinstance(record.get("origin"), str):
        found["origin"] = record["origin"]
    found["parents"] = _labels(record.get("parents"))
    found["source"] = identifier(record.get("source"))
    if record.get("profile") in PROFILES:
        profile: Profile = record["profile"]
        found["profile"] = profile
    try:
        found["written_at"] = msgspec.convert(record.get("written_at"), datetime | None)
        relations = msgspec.convert(record.get("relations", []), list[dict[str, int | str]])
        found["relations"] = tuple(
            (str(r["head"]), str(r["tail"]), str(r["label"])) for r in relations
        )
    except (msgspec.ValidationError, KeyError):
        pass
    return found
