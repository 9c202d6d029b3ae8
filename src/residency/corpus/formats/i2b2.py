"""Concepts of the i2b2 and VA challenge of 2010: a ``.con`` file beside a text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from residency.core.files import read_text, text_lines
from residency.corpus.reader import Row, Source
from residency.corpus.span_repair import Raw

_CONCEPT = re.compile(r'c="(.*)" (\d{1,9}):(\d{1,9}) (\d{1,9}):(\d{1,9})\|\|t="([^"]*)".*')
NO_TEXT = "there is no .txt file beside the .con file, nor in a folder txt beside its own"
NO_CONCEPT = "concept line cannot be read"
OTHERS = {"ast": "assertion not taken", "rel": "relation not taken"}
NO_TOKEN = "a concept names a line or a token that the text does not have"


class I2b2(Source):
    """``x.con`` with ``x.txt``: ``c="fever" 2:3 2:3||t="problem"``, the line from 1 and the token
    of the line from 0, where blanks part tokens. A pair is a note and a group. Where the numbers
    and the quote differ the quote counts if it stands once.

    Assertions (``.ast``) and relations (``.rel``) beside it, or in folders of these names, are
    counted and not taken.
    """

    format: Literal["i2b2"]

    def suffixes(self) -> tuple[str, ...]:
        return (".con",)

    def companions(self, path: Path) -> list[Path]:
        other = path.with_suffix(".txt") if path.suffix == ".con" else path.with_suffix(".con")
        places = (other, path.parent.parent / "txt" / other.name)
        return [place for place in places if place.is_file()][:1]

    def span_file(self, path: Path) -> Path:
        return path if path.suffix == ".con" else path.with_suffix(".con")

    def rows(self, path: Path) -> Iterator[Row]:
        concepts, others = self.span_file(path), self.companions(path)
        if not others or not concepts.is_file():
            yield Row(line=0, fault=NO_TEXT)
            return
        text = read_text(others[0] if path.suffix == ".con" else path)
        places = _places(text)
        spans = tuple(
            _concept(line.strip(), number, text, places)
            for number, line in text_lines(concepts)
            if line.strip()
        )
        yield Row(line=0, text=text, spans=spans, not_taken=_not_taken(concepts))


def _not_taken(concepts: Path) -> dict[str, int]:
    """Lines of the files of assertions and relations that belong to one of concepts."""
    found = {}
    for suffix, reason in OTHERS.items():
        beside = concepts.with_suffix(f".{suffix}")
        for path in (beside, concepts.parent.parent / suffix / beside.name):
            if path.is_file():
                found[reason] = sum(bool(line.strip()) for _, line in text_lines(path))
                break
    return {reason: count for reason, count in found.items() if count}


def _places(text: str) -> list[list[tuple[int, int]]]:
    """The tokens of each line of a text, by their places."""
    found, start = [], 0
    for line in re.split(r"(?<=\n)", text):
        tokens = re.finditer(r"\S+", line)
        found.append([(start + token.start(), start + token.end()) for token in tokens])
        start += len(line)
    return found


def _concept(line: str, number: int, text: str, places: list[list[tuple[int, int]]]) -> Raw:
    match = _CONCEPT.fullmatch(line)
    if match is None:
        return Raw(fragments=(), label="", line=number, fault=NO_CONCEPT)
    quote, label = match[1], match[6]
    first, start, last, end = (int(one) for one in match.groups()[1:5])
    try:
        place = (places[first - 1][start][0], places[last - 1][end][1])
    except IndexError:
        return Raw(fragments=(), label=label, line=number, fault=NO_TOKEN)
    # Quotes are written in small letters, one blank between their tokens.
    pattern = r"\s+".join(map(re.escape, quote.split()))
    here = re.fullmatch(pattern, text[slice(*place)], re.IGNORECASE)
    if (
        not here
        and len(others := list(re.finditer(rf"(?<!\S){pattern}(?!\S)", text, re.IGNORECASE))) == 1
    ):
        quote = others[0][0]
    return Raw(fragments=(place,), label=label, quote=quote, line=number)
