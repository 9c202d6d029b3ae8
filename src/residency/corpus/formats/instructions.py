"""Plain rows of CSV, TSV or JSON: a question and an answer, or columns for a card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from residency.core.errors import DataError
from residency.corpus.conversations import Conversations, Speech
from residency.corpus.json_records import Record, csv_records, json_records
from residency.corpus.reader import Row, require


class Instructions(Conversations):
    """Plain rows of CSV, TSV or JSON: a question and an answer, or columns that a card puts into
    words."""

    format: Literal["instructions"]
    prompt: str = "prompt"
    """Column of the question."""
    answer: str = "response"
    """Column of the answer that is learned."""
    system: str = ""
    """Column of what the model is told first; the empty string where there is none."""
    fields: dict[str, str] = {}
    """Name in the card -> column, for cards with a prompt of their own; instead of ``prompt`` and
    ``answer``."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """The sign that parts the columns of CSV."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.fields and {"prompt", "answer"} & self.model_fields_set:
            raise ValueError("give fields, or prompt and answer, not both")
        return self

    def suffixes(self) -> tuple[str, ...]:
        return (".csv", ".tsv", ".json", ".jsonl", ".ndjson")

    def records(self, path: Path) -> Iterator[tuple[int, Record | str]]:
        suffix = path.suffix.lower()
        if suffix not in (".csv", ".tsv"):
            return json_records(path)
        return csv_records(path, "\t" if suffix == ".tsv" else self.delimiter, _check_header)

    def turns(self, record: Record, where: str) -> list[Speech] | str:
        require(where, "column", record, [(self.prompt, "prompt"), (self.answer, "answer")])
        system, prompt, answer = (
            record.get(name) or "" for name in (self.system, self.prompt, self.answer)
        )
        if not all(isinstance(cell, str) for cell in (system, prompt, answer)):
            return "a column is not text"
        return [("system", system), ("user", prompt), ("assistant", answer)]

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        if not self.fields:
            return super().row(record, path, line)
        wanted = ((column, f"fields.{name}") for name, column in self.fields.items())
        require(f"{path}:{line}", "column", record, wanted)
        cells = {name: record[column] for name, column in self.fields.items()}
        fields = {n: "" if cell is None else str(cell).strip() for n, cell in cells.items()}
        fault = "" if any(fields.values()) else "all columns are empty"
        text = "\n".join(fields.values())
        return Row(line=line, text=text, fields=fields, fault=fault, **self.about(record))


def _check_header(header: list[str], where: str) -> None:
    if len(set(header)) < len(header):
        raise DataError(f"{where}: two columns have one name; rename one.")
