"""CSV with a header: a record each row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from pydantic import Field

from residency.core.errors import DataError
from residency.core.part import Part
from residency.corpus.entities import Keys, read_entities
from residency.corpus.reader import Row, Source, lines, missing


class Columns(Part):
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


class Csv(Source):
    """Comma-separated values with a header, quoted as RFC 4180 says; line breaks inside quotes are
    part of the cell."""

    format: Literal["csv"]
    columns: Columns = Columns()
    keys: Keys = Keys()
    """What the keys of the entities are called."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    separator: str = ""
    """What parts several labels in one cell; empty: a cell is one label."""

    def suffixes(self) -> tuple[str, ...]:
        return (".csv", ".tsv")

    def rows(self, path: Path) -> Iterator[Row]:
        header: list[str] | None = None
        for line, cells in rows_of(path, self.delimiter):
            if header is None:
                header = cells
                self._check(header, f"{path}:{line}")
            elif len(cells) != len(header):
                yield Row(line=line, fault="number of cells differs from the header's")
            else:
                yield self._row(dict(zip(header, cells, strict=True)), line, f"{path}:{line}")

    def _check(self, header: list[str], where: str) -> None:
        for setting in Columns.model_fields:
            for name in self._names(setting):
                if name not in header:
                    raise missing(
                        where, "column", name, header, f"columns.{setting} or the delimiter"
                    )

    def _names(self, setting: str) -> list[str]:
        value: str | list[str] = getattr(self.columns, setting)
        return [name for name in ([value] if isinstance(value, str) else value) if name]

    def _row(self, record: dict[str, str], line: int, where: str) -> Row:
        columns = self.columns
        id = record[columns.id] if columns.id else ""
        spans: object = ()
        if columns.entities and record[columns.entities].strip():
            try:
                spans = read_entities(
                    msgspec.json.decode(record[columns.entities]), self.keys, where, "keys"
                )
            except msgspec.DecodeError:
                spans = "entities are not valid JSON"
        if not isinstance(spans, tuple):
            return Row(line=line, id=id, fault=str(spans))
        cells = [record[name] for name in self._names("labels")]
        labels = tuple(
            label.strip()
            for cell in cells
            for label in (cell.split(self.separator) if self.separator else [cell])
            if label.strip()
        )
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


def rows_of(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The line that each row begins in, and its cells; empty lines are left out.

    Raises ``DataError`` where the quotes are not those of CSV.
    """
    reader = csv.reader((line for _, line in lines(path)), delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{path}:{first}: is not CSV ({error}); check the quotes from this line on, or "
                "hand over JSON lines."
            ) from None
        if cells is None:
            return
        if cells:
            yield first, cells
