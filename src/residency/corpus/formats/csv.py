"""CSV with a header: a record each row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from pydantic import Field

from residency.core.part import Part
from residency.corpus.entities import EntityKeys, read_entities
from residency.corpus.json_records import Record, Records, csv_records
from residency.corpus.reader import Row, require


class CsvColumns(Part):
    """What the columns are called; an empty name: there is none."""

    text: str = "text"
    labels: str | list[str] = ""
    """Column or columns with the labels of the whole record."""
    entities: str = ""
    """Column with a JSON list of entities."""
    id: str = ""
    group: str = ""
    """Patient or document."""
    lang: str = ""

    @property
    def label_columns(self) -> list[str]:
        """Names of the columns with labels."""
        named = [self.labels] if isinstance(self.labels, str) else self.labels
        return [name for name in named if name]


class Csv(Records):
    """Comma-separated values with a header, quoted as RFC 4180 says; line breaks inside quotes are
    part of the cell."""

    format: Literal["csv"]
    columns: CsvColumns = CsvColumns()
    keys: EntityKeys = EntityKeys()
    """What the keys of the entities are called."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    separator: str = ""
    """What parts several labels in one cell; empty: a cell is one label."""

    def suffixes(self) -> tuple[str, ...]:
        return (".csv", ".tsv")

    def records(self, path: Path) -> Iterator[tuple[int, Record | str]]:
        return csv_records(path, self.delimiter, self._check_header)

    def _check_header(self, header: list[str], where: str) -> None:
        single = [(name, setting) for setting, name in self.columns if isinstance(name, str)]
        named = single + [(name, "labels") for name in self.columns.label_columns]
        wanted = [(name, f"columns.{setting} or the delimiter") for name, setting in named if name]
        require(where, "column", header, wanted)

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        columns = self.columns
        id = record[columns.id] if columns.id else ""
        spans: object = ()
        if columns.entities and record[columns.entities].strip():
            try:
                entities = msgspec.json.decode(record[columns.entities])
            except msgspec.DecodeError:
                spans = "entities are not valid JSON"
            else:
                spans = read_entities(entities, self.keys, f"{path}:{line}", "keys")
        if not isinstance(spans, tuple):
            return Row(line=line, id=id, fault=str(spans))
        cells = [record[name] for name in columns.label_columns]
        if self.separator:
            cells = [label for cell in cells for label in cell.split(self.separator)]
        labels = tuple(label.strip() for label in cells if label.strip())
        if len(cells) == 1 and not labels and not self.separator:
            return Row(line=line, id=id, fault="label is empty")
        return Row(
            line=line,
            id=id,
            text=record[columns.text],
            spans=spans,
            group=record[columns.group] if columns.group else "",
            lang=record[columns.lang] if columns.lang else "",
            labels=labels,
        )
