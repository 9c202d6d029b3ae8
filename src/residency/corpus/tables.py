"""Tables: rows of spreadsheets and of columnar files, and what their readers share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import msgspec
from pydantic import Field

from residency.core.errors import DataError, UserError
from residency.core.files import NO_JSON, reason
from residency.core.part import Part
from residency.corpus.entities import EntityKeys, read_entities
from residency.corpus.json_records import Record, Records
from residency.corpus.reader import Row, require, showable


class TableColumns(Part):
    """What the columns are called; an empty name: there is none."""

    text: str = "text"
    """The note."""
    labels: str | list[str] = ""
    """Column or columns with the labels of the whole record."""
    entities: str = ""
    """Column with a JSON list of entities."""
    id: str = ""
    """Number of the record; its file and line where there is none."""
    group: str = ""
    """Patient or document."""
    lang: str = ""
    """Language of the record."""

    @property
    def label_columns(self) -> list[str]:
        """Names of the columns with labels."""
        named = [self.labels] if isinstance(self.labels, str) else self.labels
        return [name for name in named if name]


class Table(Records):
    """What formats share whose rows are cells below a header."""

    columns: TableColumns = TableColumns()
    keys: EntityKeys = EntityKeys()
    """What the keys of the entities are called."""
    separator: str = Field(default="")
    """What parts several labels in one cell; empty: a cell is one label."""

    def check_header(self, header: list[str], where: str) -> None:
        """Raise ``DataError`` where a column is named that the header has not."""
        single = [(name, setting) for setting, name in self.columns if isinstance(name, str)]
        named = single + [(name, "labels") for name in self.columns.label_columns]
        also = " or the delimiter" if "delimiter" in type(self).model_fields else ""
        wanted = [(name, f"columns.{setting}{also}") for name, setting in named if name]
        require(where, "column", header, wanted)

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        columns = self.columns
        id = record[columns.id] if columns.id else ""
        spans: object = ()
        if columns.entities and record[columns.entities].strip():
            try:
                entities = msgspec.json.decode(record[columns.entities])
            except NO_JSON:
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


@contextmanager
def _whole(where: object, kind: str) -> Iterator[None]:
    """Turns what a library says of a file into one sentence without a word of it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed; install it with pip install 'residency[tables]'."
        ) from None
    except DataError:
        raise
    except OSError as error:
        why = reason(error) if error.errno else f"is no whole {kind}; write it again."
        raise DataError(f"{where}: {why}") from None
    except (ValueError, KeyError, BadZipFile):  # pyarrow's ArrowInvalid is a ValueError
        raise DataError(f"{where}: is no whole {kind}; write it again.") from None


def xlsx_rows(path: Path, sheet: str, where: object = "") -> Iterator[tuple[int, list[str]]]:
    """The number of each row of a sheet of an Excel workbook that is not empty, and its cells as
    text: dates as ISO 8601, whole numbers without a point, of formulas the value that was stored.

    ``sheet``: its name; where empty, the only sheet that is not empty. Raises ``DataError`` for a
    file that is no workbook, and where there are several sheets and none is named.
    """
    where = where or path
    with _whole(where, "Excel workbook (xlsx)"):
        from openpyxl import load_workbook

        book = load_workbook(path, read_only=True, data_only=True)
        try:
            filled = [one.title for one in book.worksheets if any(_rows_of(one))]
            if (sheet and sheet not in filled) or (not sheet and len(filled) > 1):
                told = ", ".join(showable(filled)[:20]) or "none with a name that can be shown"
                raise DataError(
                    f"{where}: holds {len(filled)} sheets that are not empty ({told}); say in "
                    "sheet which is to be read."
                )
            for name in [sheet] if sheet else filled:
                yield from _rows_of(book[name])
        finally:
            book.close()


def _rows_of(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    width = 0
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        texts = [_text_of(cell) for cell in cells]
        while texts and not texts[-1]:
            texts.pop()
        if texts:
            width = width or len(texts)
            yield number, texts + [""] * (width - len(texts))


def _text_of(cell: object) -> str:
    """A cell as text."""
    if isinstance(cell, datetime):
        return (cell.date() if not (cell.hour or cell.minute or cell.second) else cell).isoformat()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None else str(cell)


def arrow_rows(
    path: Path, where: object = "", columns: list[str] | None = None
) -> Iterator[Record]:
    """The rows of a Parquet file or an Arrow file (IPC file, stream, Feather), with the names of
    labels that are numbers where the file, or ``dataset_info.json`` beside it, gives any; only some
    columns where they are named.

    Raises ``DataError`` for a file that is neither.
    """
    with _whole(where or path, "Parquet or Arrow file"):
        import pyarrow as pa
        import pyarrow.parquet as parquet

        with path.open("rb") as file:
            begins = file.read(6)
        if begins[:4] == b"PAR1":
            with parquet.ParquetFile(path) as found:
                features = _features(found.schema_arrow, path)
                for batch in found.iter_batches(columns=columns):
                    yield from _records(batch, features)
            return
        with pa.OSFile(str(path)) as source:
            if begins == b"ARROW1":
                reader: Any = pa.ipc.open_file(source)
                batches = (reader.get_batch(n) for n in range(reader.num_record_batches))
            else:
                reader = batches = pa.ipc.open_stream(source)
            features = _features(reader.schema, path)
            for batch in batches:
                yield from _records(batch.select(columns) if columns else batch, features)


def arrow_columns(path: Path, where: object = "") -> list[str]:
    """The names of the columns of a Parquet or Arrow file; raises as ``arrow_rows``."""
    with _whole(where or path, "Parquet or Arrow file"):
        import pyarrow as pa
        import pyarrow.parquet as parquet

        with path.open("rb") as file:
            begins = file.read(6)
        if begins[:4] == b"PAR1":
            return list(parquet.read_schema(path).names)
        with pa.OSFile(str(path)) as source:
            opened = pa.ipc.open_file if begins == b"ARROW1" else pa.ipc.open_stream
            return list(opened(source).schema.names)
    raise AssertionError  # _whole raises or returns


def is_cache(path: Path) -> bool:
    """Whether a saved data set (``state.json``) does not count a file among its own."""
    try:
        state = json.loads((path.parent / "state.json").read_text("utf-8"))
        return path.name not in {one["filename"] for one in state["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _features(schema: Any, path: Path) -> Record:
    """The features of a Hugging Face data set, from the file or from beside it; none elsewhere."""
    try:
        told = (schema.metadata or {}).get(b"huggingface")
        if told:
            found: Record = json.loads(told)["info"]["features"]
            return found
        beside: Record = json.loads((path.parent / "dataset_info.json").read_text("utf-8"))
        return beside["features"] or {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _records(batch: Any, features: Record) -> Iterator[Record]:
    for record in batch.to_pylist():
        yield {name: _named(value, features.get(name)) for name, value in record.items()}


def _named(value: Any, feature: Any) -> Any:
    """A value with the names of the labels in it. A sequence of structs lies in columns: it becomes
    a list of records."""
    if value is None or not feature:
        return value
    if isinstance(feature, list):
        return [_named(one, feature[0]) for one in value]
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names") or []
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
    inner = feature.get("feature")
    if inner is not None:
        if isinstance(value, dict):
            value = [
                dict(zip(value, one, strict=True)) for one in zip(*value.values(), strict=True)
            ]
        return [_named(one, inner) for one in value]
    if isinstance(value, dict):
        return {name: _named(one, feature.get(name)) for name, one in value.items()}
    return value
