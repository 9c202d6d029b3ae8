"""brat standoff: a text file and an annotation file beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from residency.corpus.reader import Row, Source, lines, whole
from residency.corpus.span_repair import Raw

_ENTITY = re.compile(r"(T\S*)\t([^\t]+?) (\d{1,18} \d{1,18}(?:;\d{1,18} \d{1,18})*)(?:\t(.*))?")
# A remark of the annotator's that was given a T number; it names another annotation instead of
# offsets.
_REMARK = re.compile(r"T\S*\tAnnotatorNotes \S+(\t.*)?")


class Brat(Source):
    """``x.txt`` with ``x.ann``; a pair is a note and a group. CRLF in the text is kept, and offsets
    that count it as one character are converted for the whole file where the quotes prove it.

    Read: entities (T), their codes (N, several joined by ``|``), attributes (A, M) and binary
    relations (R). Events, equivalences and remarks are not read. Discontinuous spans are bad spans.
    """

    format: Literal["brat"]
    join_lines: bool = False
    """Whether fragments that only blanks part are one span. brat itself breaks a span in two at a
    line end, so for texts with hard line ends this is what the annotator meant."""

    def companions(self, path: Path) -> list[Path]:
        found = path.with_suffix(".ann")
        return [found] if found.is_file() else []

    def marked(self, path: Path) -> Path:
        return path.with_suffix(".ann")

    def rows(self, path: Path) -> Iterator[Row]:
        if not self.companions(path):
            yield Row(
                line=0,
                fault="there is no .ann file beside the text; an empty one says that nothing is "
                "marked",
            )
            return
        spans: dict[str, Raw] = {}
        relations: list[tuple[str, str, str]] = []
        for number, line in lines(path.with_suffix(".ann")):
            line = line.rstrip("\r\n")
            if line.startswith("T") and not _REMARK.fullmatch(line):
                raw = _entity(line, number)
                spans[raw.key] = raw
            elif line.startswith("R") and (
                match := re.match(r"R\S*\t(\S+) \S+?:(\S+) \S+?:(\S+)", line)
            ):
                relations.append((match[2], match[3], match[1]))
            elif line[:1] in ("N", "A", "M"):
                _describe(line, spans)
        yield Row(
            line=0,
            text=whole(path),
            spans=tuple(spans.values()),
            relations=tuple(relations),
            join_lines=self.join_lines,
        )


def _entity(line: str, number: int) -> Raw:
    match = _ENTITY.fullmatch(line)
    if match is None:
        return Raw(
            fragments=(),
            label="",
            key=f"line {number}",
            line=number,
            fault="entity line cannot be read",
        )
    key, label, offsets, quote = match.groups()
    fragments = tuple(
        (int(start), int(end)) for start, end in (pair.split() for pair in offsets.split(";"))
    )
    return Raw(fragments=fragments, label=label, quote=quote or "", key=key, line=number)


def _describe(line: str, spans: dict[str, Raw]) -> None:
    """Add a code (``N1\\tReference T1 MeSH:D061325``) or an attribute (``A1\\tNegated T1``) to the
    span it names."""
    cells = line.split("\t")
    words = cells[1].split(" ", 2) if len(cells) > 1 else []
    raw = _named(words, spans)
    if raw is None:
        return
    if line.startswith("N"):
        if len(words) == 3:
            spans[raw.key] = replace(raw, code=f"{raw.code}|{words[2]}" if raw.code else words[2])
    else:
        attribute = f"{words[0]}={words[2]}" if len(words) == 3 else words[0]
        spans[raw.key] = replace(raw, attributes=(*raw.attributes, attribute))


def _named(words: list[str], spans: Mapping[str, Raw]) -> Raw | None:
    return spans.get(words[1]) if len(words) > 1 else None
