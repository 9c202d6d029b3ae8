"""PubTator: title and abstract by document, then one line for each mention."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from residency.core.files import text_lines
from residency.corpus.reader import Row, Source
from residency.corpus.span_repair import Raw

_TEXT = re.compile(r"(\S+?)\|([ta])\|(.*)", re.DOTALL)
_OFFSET = re.compile(r"\d{1,18}")
NO_CODE = ("", "-1", "-")


class PubTator(Source):
    """``id|t|title``, ``id|a|abstract``, then ``id, start, end, quote, label, code`` parted by
    tabs. A document is a note and a group. Title and abstract are joined by a line end, which the
    offsets count as one character.

    Relations between concepts (``id, kind, code, code``) are not read: they do not say which
    mentions they link.
    """

    format: Literal["pubtator"]

    def suffixes(self) -> tuple[str, ...]:
        return (".txt", ".pubtator")

    def rows(self, path: Path) -> Iterator[Row]:
        id, first, parts, spans = "", 0, dict[str, str](), list[Raw]()
        for number, line in text_lines(path):
            line = line.rstrip("\r\n")
            match = _TEXT.fullmatch(line)
            if (match and (match[1] != id or match[2] in parts)) or not line.strip():
                if first:
                    yield _document(id, first, parts, spans)
                id, first, parts, spans = "", 0, {}, []
            if match:
                id, first = match[1], first or number
                parts[match[2]] = match[3]
            elif line.strip() and not first:
                yield Row(line=number, fault="mention without a document above it")
            elif line.strip() and (raw := _mention(line, id, number)):
                spans.append(raw)
        if first:
            yield _document(id, first, parts, spans)


def _mention(line: str, id: str, number: int) -> Raw | None:
    """The span of a line; None for a relation between concepts."""
    cells = line.split("\t")
    if len(cells) == 4 and not cells[1].isdecimal():
        return None
    if len(cells) < 5 or cells[0] != id or not all(map(_OFFSET.fullmatch, cells[1:3])):
        return Raw(fragments=(), label="", line=number, fault="mention line cannot be read")
    code = cells[5].strip() if len(cells) > 5 else ""
    return Raw(
        fragments=((int(cells[1]), int(cells[2])),),
        quote=cells[3],
        label=cells[4],
        code=None if code in NO_CODE else code,
        line=number,
    )


def _document(id: str, line: int, parts: Mapping[str, str], spans: Sequence[Raw]) -> Row:
    if "t" not in parts:
        return Row(line=line, id=id, fault="document has no title line")
    text = "\n".join(parts[part] for part in ("t", "a") if part in parts)
    return Row(line=line, id=id, group=id, text=text, spans=tuple(spans))
