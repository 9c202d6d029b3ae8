"""Words and tags in JSON lists, as PhoNER_COVID19 holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from residency.corpus.formats.conll import decode, detect, no_tag, row_of
from residency.corpus.json_records import Record, Records, identifier
from residency.corpus.reader import Row, require


class Phoner(Records):
    """``{"words": [...], "tags": [...]}``, a sentence a line: the words joined by ``joiner`` are a
    note, the tags are in BIO or BIOES."""

    format: Literal["phoner"]
    joiner: str = " "
    """What stands between two words; the empty string for Chinese."""

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        require(f"{path}:{line}", "field", record, [("words", "format"), ("tags", "format")])
        words, tags, id = record["words"], record["tags"], identifier(record.get("id"))
        if not _texts(words) or not _texts(tags) or len(words) != len(tags):
            return Row(line=line, id=id, fault="words and tags are no lists of one length")
        if fault := next((why for tag in tags if (why := no_tag(tag, bare=False))), ""):
            return Row(line=line, id=id, fault=fault)
        if not all(word.strip() for word in words):
            return Row(line=line, id=id, fault="a token is empty")
        entities, repairs = decode(tags, "bioes" if detect([tags]) == "bioes" else "bio")
        return row_of(
            words, entities, [self.joiner] * len(words), line=line, id=id, repairs=repairs
        )


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
