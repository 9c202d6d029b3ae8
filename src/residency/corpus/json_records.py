"""Records of JSON files: JSON lines, or one JSON list, whatever they are records of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from residency.core.files import NO_JSON, csv_rows, quotes_are_text, read_text, text_lines
from residency.corpus.reader import Row, Source

Record = dict[str, Any]


class Records(Source):
    """What formats share whose rows are JSON objects."""

    def suffixes(self) -> tuple[str, ...]:
        return (".json", ".jsonl", ".ndjson")

    def records(self, path: Path) -> Iterator[tuple[int, Record | str]]:
        """Records with their line, or their position in the list where the file is one list; in
        the place of one that cannot be read, why."""
        return json_records(path)

    def rows(self, path: Path) -> Iterator[Row]:
        for line, record in self.records(path):
            if isinstance(record, str):
                yield Row(line=line, fault=record)
            elif row := self.row(record, path, line):
                yield row

    @abstractmethod
    def row(self, record: Record, path: Path, line: int) -> Row | None:
        """The row of a record, None for a record that is no part of the data set; ``DataError`` for
        a column that is not there."""


def json_records(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Objects with their line, or their position in the list where the file is one list; in the
    place of one that cannot be read, why."""
    first = next((line.lstrip()[:1] for _, line in text_lines(path) if line.strip()), "")
    if first == "[":
        try:
            for number, found in enumerate(msgspec.json.decode(read_text(path)), start=1):
                yield number, found if isinstance(found, dict) else "is not a JSON object"
            return
        except NO_JSON:
            pass  # lines that are lists, or one broken list: each line is then judged by itself
    for number, line in text_lines(path):
        if line.strip():
            try:
                found = msgspec.json.decode(line)
            except NO_JSON:
                yield number, "is not valid JSON"
            else:
                yield number, found if isinstance(found, dict) else "is not a JSON object"


def csv_records(
    path: Path, delimiter: str, check: Callable[[list[str], str], None]
) -> Iterator[tuple[int, Record | str]]:
    """Rows of a CSV file with their line, as column -> cell; in the place of one that does not fit
    the header, why. Line breaks inside quotes are part of the cell.

    ``check`` is given the header and where it stands.
    """
    header: list[str] = []
    quotes = not quotes_are_text((line for _, line in text_lines(path)), delimiter)
    lines = (line for _, line in text_lines(path))
    for line, cells in csv_rows(lines, path, delimiter, quotes=quotes):
        if not header:
            header = cells
            check(header, f"{path}:{line}")
        elif len(cells) != len(header):
            yield line, "number of cells differs from the header's"
        else:
            yield line, dict(zip(header, cells, strict=True))


def identifier(value: object) -> str:
    """An id as a string; numbers are ids too."""
    return value if isinstance(value, str) else (str(value) if isinstance(value, int) else "")


def choices(record: Record) -> tuple[str, ...]:
    """What a row says that it may be answered with: ``choices``, or ``answer_choices`` as
    PromptCBLUE calls it, a list, or one text with ``，`` between."""
    found = record.get("choices", record.get("answer_choices"))
    listed = found.split("，") if isinstance(found, str) else found
    if not isinstance(listed, list):
        return ()
    texts = (one.strip() for one in listed if isinstance(one, str))
    return tuple(dict.fromkeys(filter(None, texts)))
