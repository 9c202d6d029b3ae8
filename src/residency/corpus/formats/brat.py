"""brat standoff: a text file and an annotation file beside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from residency.core.files import read_text, text_lines
from residency.corpus.reader import Row, Source
from residency.corpus.span_repair import Raw

_ENTITY = re.compile(r"(T\S*)\t([^\t]+?) (\d{1,18} \d{1,18}(?:;\d{1,18} \d{1,18})*)(?:\t(.*))?")
# A remark of the annotator's that was given a T number; it names another annotation instead of
# offsets.
_REMARK = re.compile(r"T\S*\tAnnotatorNotes \S+(\t.*)?")
OTHERS = {"E": "event not taken", "*": "equivalence not taken", "R": "relation cannot be read"}
OTHER = "line of another kind not taken"
DESCRIBES_OTHER = "attribute or code of no entity not taken"


class Brat(Source):
    """``x.txt`` with ``x.ann``; a pair is a note and a group. CRLF in the text is kept, and offsets
    that count it as one character are converted for the whole file where the quotes prove it.

    Read: entities (T), their codes (N, several joined by ``|``), attributes (A, M) and binary
    relations (R). Events, equivalences and other lines are counted and not taken; remarks (#) are
    no annotations. Discontinuous spans are bad spans.
    """

    format: Literal["brat"]
    join_lines: bool = False
    """Whether fragments that only blanks part are one span. brat itself breaks a span in two at a
    line end, so for texts with hard line ends this is what the annotator meant."""

    def companions(self, path: Path) -> list[Path]:
        found = path.with_suffix(".ann")
        return [found] if found.is_file() else []

    def span_file(self, path: Path) -> Path:
        return path.with_suffix(".ann")

    def rows(self, path: Path) -> Iterator[Row]:
        if not self.companions(path):
            fault = (
                "there is no .ann file beside the text; an empty one says that nothing is marked"
            )
            yield Row(line=0, fault=fault)
            return
        spans: dict[str, Raw] = {}
        relations: list[tuple[str, str, str]] = []
        others: Counter[str] = Counter()
        for number, line in text_lines(path.with_suffix(".ann")):
            line = line.rstrip("\r\n")
            if line.startswith("T") and not _REMARK.fullmatch(line):
                raw = _entity(line, number)
                spans[raw.key] = raw
            elif line.startswith("R") and (
                match := re.match(r"R\S*\t(\S+) \S+?:(\S+) \S+?:(\S+)", line)
            ):
                relations.append((match[2], match[3], match[1]))
            elif line[:1] in ("N", "A", "M"):
                _describe(line, spans, others)
            elif line.strip() and line[0] not in "#T":
                others[OTHERS.get(line[0], OTHER)] += 1
        yield Row(
            line=0,
            text=read_text(path.with_suffix(".txt") if path.suffix == ".ann" else path),
            spans=tuple(spans.values()),
            relations=tuple(relations),
            join_lines=self.join_lines,
            not_taken=dict(others),
        )


def _entity(line: str, number: int) -> Raw:
    match = _ENTITY.fullmatch(line)
    if match is None:
        key, fault = f"line {number}", "entity line cannot be read"
        return Raw(fragments=(), label="", key=key, line=number, fault=fault)
    key, label, offsets, quote = match.groups()
    pairs = (pair.split() for pair in offsets.split(";"))
    fragments = tuple((int(start), int(end)) for start, end in pairs)
    return Raw(fragments=fragments, label=label, quote=quote or "", key=key, line=number)


def _describe(line: str, spans: dict[str, Raw], others: Counter[str]) -> None:
    """Add a code (``N1\\tReference T1 MeSH:D061325``) or an attribute (``A1\\tNegated T1``) to the
    span it names; one of something else is counted."""
    cells = line.split("\t")
    name, key, value, *_ = [*cells[1].split(" ", 2), "", "", ""] if len(cells) > 1 else [""] * 3
    raw = spans.get(key)
    if raw is None:
        others[DESCRIBES_OTHER] += 1
        return
    if not line.startswith("N"):
        attribute = f"{name}={value}" if value else name
        spans[key] = replace(raw, attributes=(*raw.attributes, attribute))
    elif value:
        spans[key] = replace(raw, code=f"{raw.code}|{value}" if raw.code else value)
