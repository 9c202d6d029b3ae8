"""Exports of Prodigy (``db-out``): JSON lines with an answer each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from residency.corpus.entities import EntityKeys, read_entities
from residency.corpus.formats.jsonl import refused_answer
from residency.corpus.json_records import Record, Records, identifier
from residency.corpus.reader import Row, require
from residency.corpus.span_repair import Raw

NO_ANSWER = "has no answer of accept, reject or ignore"
NO_KEYS = 'has none of the keys "spans", "accept", "label"'
UNMARKED = "accepted without spans: nothing is marked in it"


class Prodigy(Records):
    """Prodigy's rows: ``spans`` of a ``text``, ``relations`` between them, the chosen options of a
    choice (``accept``) or the label of a text (``label``). Only rows that were accepted are learned
    from; those that were rejected or ignored are counted as left out. Prodigy adds ``spans`` with
    the first mark, so an accepted row without holds none, in a file of which other rows have some.
    Offsets count code points.
    """

    format: Literal["prodigy"]
    id: str = ""
    """Field of the row, or of its ``meta``, that holds the id."""
    group: str = ""
    """Field of the row, or of its ``meta``, that holds the patient or document."""

    def rows(self, path: Path) -> Iterator[Row]:
        marked = any("spans" in one for _, one in self.records(path) if isinstance(one, dict))
        for row in super().rows(path):
            empty = marked and row.fault == NO_KEYS
            yield replace(row, fault="", repairs=(UNMARKED,)) if empty else row

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        where, meta = f"{path}:{line}", record.get("meta")
        about = {**record, **(meta if isinstance(meta, dict) else {})}
        id = identifier(about.get(self.id)) if self.id else ""
        require(where, "field", record, [("text", "format")])
        text = record["text"]
        if not isinstance(text, str):
            return Row(line=line, id=id, fault="text is not a string")
        if record.get("answer") not in ("accept", "reject", "ignore"):
            return Row(line=line, id=id, fault=NO_ANSWER)
        chosen = record.get("accept")
        labels = tuple(identifier(one) for one in chosen) if isinstance(chosen, list) else ()
        if not labels and "spans" not in record and isinstance(record.get("label"), str):
            labels = (record["label"],)
        spans = read_entities(record.get("spans"), EntityKeys(), where, "format")
        if isinstance(spans, str):
            return Row(line=line, id=id, fault=spans)
        nothing = "spans" not in record and not labels and chosen is None
        left_out = refused_answer(record)
        return Row(
            line=line,
            id=id,
            fault=NO_KEYS if nothing and not left_out else "",
            text=text,
            group=identifier(about.get(self.group)) if self.group else "",
            spans=tuple(replace(raw, key=_key(raw)) for raw in spans),
            relations=tuple(_relations(record.get("relations"))),
            labels=labels,
            offsets="characters",
            left_out=left_out,
        )


def _key(raw: Raw) -> str:
    """A span as a relation names it: by its place."""
    return "-".join(map(str, raw.fragments[0])) if raw.fragments else ""


def _relations(value: object) -> list[tuple[str, str, str]]:
    found = []
    for one in value if isinstance(value, list) else []:
        head, tail = (
            (one.get("head_span"), one.get("child_span")) if isinstance(one, dict) else (None, None)
        )
        if isinstance(head, dict) and isinstance(tail, dict):
            ends = (f"{end.get('start')}-{end.get('end')}" for end in (head, tail))
            found.append((*ends, str(one.get("label", ""))))
    return [(head, tail, label) for head, tail, label in found]
