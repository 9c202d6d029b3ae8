"""Entities of Chinese records as the CCKS evaluations give them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from residency.core.files import read_text, text_lines
from residency.corpus.entities import EntityKeys, read_entities
from residency.corpus.json_records import Record, Records, identifier
from residency.corpus.reader import Row, require
from residency.corpus.span_repair import Raw

ORIGINAL = "original.txt"


class Ccks(Records):
    """CCKS 2019 and 2020: an object a line with ``originalText`` and ``entities`` (``start_pos``,
    ``end_pos`` behind the last character, ``label_type``). CCKS 2017: ``x.txtoriginal.txt`` beside
    ``x.txt``, a line for each entity: its words, start, end (the last character) and label, parted
    by tabs; the words prove how the end counts."""

    format: Literal["ccks"]

    def suffixes(self) -> tuple[str, ...]:
        return (".json", ".jsonl", ".txt")

    def companions(self, path: Path) -> list[Path]:
        other = self.span_file(path)
        return [other] if other != path and other.is_file() else []

    def span_file(self, path: Path) -> Path:
        return path.with_name(path.name.removesuffix(ORIGINAL))

    def rows(self, path: Path) -> Iterator[Row]:
        if path.with_name(path.name + ORIGINAL).is_file():
            yield Row(line=0, left_out="entities, read together with their text")
        elif not path.name.endswith(ORIGINAL):
            yield from super().rows(path)
        elif not self.companions(path):
            yield Row(line=0, fault="there is no file with the entities beside the text")
        else:
            text = read_text(path)
            spans = [
                _raw(line.rstrip("\r\n"), number, text)
                for number, line in text_lines(self.span_file(path))
                if line.strip()
            ]
            yield Row(line=0, text=text, spans=tuple(spans), lang="zh")

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        where, id = f"{path}:{line}", identifier(record.get("id"))
        wanted = [("originalText", "format"), ("entities", "format")]
        require(where, "field", record, wanted)
        text = record["originalText"]
        if not isinstance(text, str):
            return Row(line=line, id=id, fault="text is not a string")
        spans = read_entities(record["entities"], EntityKeys(), where, "format")
        if isinstance(spans, str):
            return Row(line=line, id=id, fault=spans)
        return Row(line=line, id=id, text=text, spans=spans, lang="zh", offsets="characters")


def _raw(line: str, number: int, text: str) -> Raw:
    cells = line.split("\t")
    if len(cells) != 4 or not (cells[1].isdecimal() and cells[2].isdecimal()):
        return Raw(fragments=(), label="", line=number, fault="entity line cannot be read")
    quote, start, end = cells[0], int(cells[1]), int(cells[2])
    end += text[start : end + 1] == quote
    return Raw(fragments=((start, end),), label=cells[3].strip(), quote=quote, line=number)
