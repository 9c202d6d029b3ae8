"""Parquet, Arrow, and the folders that Hugging Face's ``datasets`` saves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from residency.corpus.formats.conll import Scheme, decode, detect, no_tag, row_of
from residency.corpus.formats.jsonl import Jsonl
from residency.corpus.json_records import Record, identifier
from residency.corpus.reader import Row
from residency.corpus.tables import arrow_columns, arrow_rows, is_cache

NO_NAMES = "tags are numbers, and the file does not name them"


class Arrow(Jsonl):
    """Parquet, Arrow (IPC files and streams, Feather) and saved data sets of Hugging Face: a row is
    a record as JSON lines have it, or the ``tokens`` of a sentence with their ``tags``. Numbers
    that stand for labels get the names that the features give them (ClassLabel)."""

    format: Literal["arrow"]  # type: ignore[assignment]
    tokens: str = "tokens"
    """Column of the tokens, where rows are sentences."""
    tags: str = "ner_tags"
    """Column of the tags."""
    joiner: str = " "
    """What stands between two tokens; the empty string for Chinese."""

    def suffixes(self) -> tuple[str, ...]:
        return (".parquet", ".arrow", ".feather")

    def records(self, path: Path) -> Iterator[tuple[int, Record | str]]:
        return enumerate(arrow_rows(path), start=1)

    def rows(self, path: Path) -> Iterator[Row]:
        if is_cache(path):
            yield Row(line=0, left_out="a cache beside a saved data set")
            return
        if not {self.tokens, self.tags} <= {*arrow_columns(path)}:
            yield from super().rows(path)
            return
        given = (one[self.tags] for one in arrow_rows(path, columns=[self.tags]))
        scheme = detect(tags for tags in given if _texts(tags))
        for line, record in enumerate(arrow_rows(path), start=1):
            yield self._sentence(record, scheme, line)

    def _sentence(self, record: Record, scheme: Scheme, line: int) -> Row:
        tokens, tags, id = record[self.tokens], record[self.tags], identifier(record.get("id"))
        if isinstance(tags, list) and any(isinstance(tag, int) for tag in tags):
            return Row(line=line, id=id, fault=NO_NAMES)
        if not _texts(tokens) or not _texts(tags) or len(tokens) != len(tags):
            return Row(line=line, id=id, fault="tokens and tags are no lists of one length")
        if fault := next((why for tag in tags if (why := no_tag(tag, bare=False))), ""):
            return Row(line=line, id=id, fault=fault)
        if not all(token.strip() for token in tokens):
            return Row(line=line, id=id, fault="a token is empty")
        entities, repairs = decode(tags, scheme)
        between = [self.joiner] * len(tokens)
        group = identifier(record.get(self.fields.group))
        return row_of(tokens, entities, between, line=line, id=id, group=group, repairs=repairs)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
