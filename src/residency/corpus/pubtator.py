"""PubTator: title and abstract by document, then one line for each mention."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from residency.corpus.reader import Row, Source, lines
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
        document: _Document | None = None
        for number, line in lines(path):
            line = line.rstrip("\r\n")
            match = _TEXT.fullmatch(line)
            if match:
                if document is None or document.id != match[1] or match[2] in document.parts:
                    if document:
                        yield document.row()
                    document = _Document(match[1], number)
                document.parts[match[2]] = match[3]
            elif not line.strip():
                if document:
                    yield document.row()
                document = None
            elif document is None:
                yield Row(line=number, fault="mention without a document above it")
            else:
                document.mention(line, number)
        if document:
            yield document.row()


class _Document:
    """The lines of one document as they come."""

    def __init__(self, id: str, line: int) -> None:
        self.id, self.line = id, line
        self.parts: dict[str, str] = {}
        self.spans: list[Raw] = []

    def mention(self, line: str, number: int) -> None:
        cells = line.split("\t")
        if len(cells) == 4 and not cells[1].isdecimal():
            return  # a relation between concepts
        if (
            len(cells) < 5
            or not all(_OFFSET.fullmatch(cell) for cell in cells[1:3])
            or cells[0] != self.id
        ):
            self.spans.append(
                Raw(fragments=(), label="", line=number, fault="mention line cannot be read")
            )
            return
        code = cells[5].strip() if len(cells) > 5 else ""
        self.spans.append(
            Raw(
                fragments=((int(cells[1]), int(cells[2])),),
                quote=cells[3],
                label=cells[4],
                code=None if code in NO_CODE else code,
                line=number,
            )
        )

    def row(self) -> Row:
        if "t" not in self.parts:
            return Row(line=self.line, id=self.id, fault="document has no title line")
        text = "\n".join(self.parts[part] for part in ("t", "a") if part in self.parts)
        return Row(line=self.line, id=self.id, group=self.id, text=text, spans=tuple(self.spans))
