"""CSV with a header: a record each row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from residency.corpus.json_records import Record, csv_records
from residency.corpus.tables import Table


class Csv(Table):
    """Comma-separated values with a header, quoted as RFC 4180 says; line breaks inside quotes are
    part of the cell."""

    format: Literal["csv"]
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """The sign that parts the columns."""

    def suffixes(self) -> tuple[str, ...]:
        return (".csv", ".tsv")

    def records(self, path: Path) -> Iterator[tuple[int, Record | str]]:
        return csv_records(path, self.delimiter, self.check_header)
