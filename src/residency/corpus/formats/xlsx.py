"""Excel workbooks (xlsx) with a header: a record each row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from residency.corpus.json_records import Record
from residency.corpus.tables import Table, xlsx_rows


class Xlsx(Table):
    """One sheet of an Excel workbook (xlsx, xlsm), whose first row that is not empty names the
    columns; the others are records. Dates are read as ISO 8601, of formulas the stored value."""

    format: Literal["xlsx"]
    sheet: str = ""
    """Name of the sheet; the only one that is not empty where empty."""

    def suffixes(self) -> tuple[str, ...]:
        return (".xlsx", ".xlsm")

    def records(self, path: Path) -> Iterator[tuple[int, Record | str]]:
        header: list[str] = []
        for line, cells in xlsx_rows(path, self.sheet):
            if not header:
                header = cells
                self.check_header(header, f"{path}:{line}")
            elif len(cells) != len(header):
                yield line, "number of cells differs from the header's"
            else:
                yield line, dict(zip(header, cells, strict=True))
