"""WebAnno TSV 3, as INCEpTION and WebAnno export it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from residency.core.errors import DataError
from residency.core.files import text_lines
from residency.corpus.reader import Row, Source
from residency.corpus.span_repair import Raw

_TOKEN = re.compile(r"(\d+)-(\d+)(\.\d+)?\t(\d+)-(\d+)\t([^\t]*)(?:\t(.*))?")
_VALUE = re.compile(r"(.*?)(?:\[(\d+)\])?")
_ESCAPED = re.compile(r"\\(.)")
LEFT_OUT = {"#T_RL": "relation not taken", "#T_CH": "link of a chain not taken"}
"""Kind of a layer that is no span -> what is counted for each of its annotations."""
OTHER_PLACE = "a token does not stand where its offsets say"


class WebAnno(Source):
    """WebAnno TSV 3.x: ``#Text=`` and a line for each token, ``1-2<TAB>3-8<TAB>fever<TAB>SYM``. A
    sentence is a note and the file their group, as the form holds no text between sentences.
    Offsets count UTF-16 units, and are proved by the tokens.

    Read: the values of one column of a span layer, over several tokens (``SYM[1]``), stacked
    (``SYM[1]|DRUG[2]``) and inside of tokens (``1-2.1``). Relations and links of chains are counted
    and not read, slots are not read.
    """

    format: Literal["webanno"]
    layer: str = ""
    """Layer to read, by the last part of its name, e.g. ``Entity``; the first span layer where
    empty."""
    feature: str = ""
    """Feature of the layer that holds the label; the first where empty."""

    def suffixes(self) -> tuple[str, ...]:
        return (".tsv",)

    def rows(self, path: Path) -> Iterator[Row]:
        column, text, tokens, first = -1, list[str](), list[tuple[str, ...]](), 0
        layers: list[tuple[str, list[str]]] = []
        for number, line in text_lines(path):
            line = line.rstrip("\r\n")
            if number == 1 and not line.startswith("#FORMAT=WebAnno TSV 3"):
                raise DataError(
                    f"{path}: is no WebAnno TSV 3; its first line is #FORMAT=WebAnno TSV 3.3."
                )
            if line.startswith("#T_"):
                layers.append((line[:5], line.partition("=")[2].split("|")))
            elif line.startswith("#Text="):
                if tokens:
                    yield self._row(first, text, tokens, column, layers)
                    text, tokens = [], []
                first = first if text else number
                text.append(_plain(line[6:]))
            elif match := _TOKEN.fullmatch(line):
                column = column if column >= 0 else self._column(layers, path)
                tokens.append(tuple(one or "" for one in match.groups()))
            elif line and not line.startswith("#"):
                yield Row(line=number, fault="token line cannot be read")
        if tokens:
            yield self._row(first, text, tokens, column, layers)

    def _column(self, layers: Sequence[tuple[str, list[str]]], path: Path) -> int:
        """Position among the cells behind the token of the feature that holds the label."""
        at, present = 0, []
        for kind, (name, *features) in layers:
            short = name.rpartition(".")[2]
            if kind == "#T_SP":
                present += [f"{short}.{feature}" for feature in features]
                if self.layer in ("", short, name) and (
                    not self.feature or self.feature in features
                ):
                    return at + (features.index(self.feature) if self.feature else 0)
            at += max(1, len(features))
        raise DataError(
            f"{path}: has no such span layer; present: {', '.join(present[:20]) or 'none'}; set "
            "layer and feature."
        )

    def _row(
        self,
        line: int,
        lines: Sequence[str],
        tokens: Sequence[tuple[str, ...]],
        column: int,
        layers: Sequence[tuple[str, list[str]]],
    ) -> Row:
        text, begin = "\n".join(lines), int(tokens[0][3])
        spans: dict[tuple[str, str], tuple[int, int]] = {}
        for _, number, part, start, end, word, cells in tokens:
            place = utf16_place(text, int(start) - begin, int(end) - begin)
            if place is None or text[slice(*place)] != _plain(word):
                return Row(line=line, fault=OTHER_PLACE)
            values = cells.split("\t")
            value = values[column] if column < len(values) else "_"
            for one in re.split(r"(?<!\\)\|", value):
                label, many = _VALUE.fullmatch(one).groups()  # type: ignore[union-attr]
                if label in ("_", "", "*") and not (label == "*" and many):
                    continue
                key = (_plain(label), many or f"{number}{part}")
                before = spans.get(key, place)
                spans[key] = (min(before[0], place[0]), max(before[1], place[1]))
        raws = tuple(
            Raw(fragments=(place,), label=label, quote=text[slice(*place)])
            for (label, _), place in spans.items()
        )
        counted = _not_taken(layers, [cells.split("\t") for *_, cells in tokens])
        return Row(line=line, text=text, spans=raws, not_taken=counted)


def _not_taken(
    layers: Sequence[tuple[str, list[str]]], rows: Sequence[Sequence[str]]
) -> dict[str, int]:
    """Relations and links of chains in the cells of a sentence: of a relation the cell that names
    its source is counted (``BT_...``), of a chain the first; over several tokens once."""
    found: dict[str, int] = {}
    at = 0
    for kind, (_, *features) in layers:
        if reason := LEFT_OUT.get(kind):
            sources = (n for n, name in enumerate(features) if name.startswith("BT_"))
            place = at + next(sources, 0)
            cells = (row[place] if place < len(row) else "_" for row in rows)
            every = [one for cell in cells for one in re.split(r"(?<!\\)\|", cell)]
            told = [one for one in every if one not in ("_", "")]
            count = len(told) if kind == "#T_RL" else len({*told})
            found |= {reason: found.get(reason, 0) + count} if count else {}
        at += max(1, len(features))
    return found


def _plain(text: str) -> str:
    """A text without its escapes."""
    return _ESCAPED.sub(
        lambda found: {"t": "\t", "n": "\n", "r": "\r"}.get(found[1], found[1]), text
    )


def utf16_place(text: str, start: int, end: int) -> tuple[int, int] | None:
    """UTF-16 offsets as code points."""
    units = text.encode("utf-16-le", "surrogatepass")
    if not 0 <= start < end <= len(units) // 2:
        return None
    try:
        first = len(units[: 2 * start].decode("utf-16-le"))
        return first, first + len(units[2 * start : 2 * end].decode("utf-16-le"))
    except UnicodeDecodeError:
        return None
