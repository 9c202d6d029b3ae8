"""Written notes with every identifier marked: ``⟦kind|text⟧`` identifies somebody, ``⟪text⟫``
must stay, a line ``=== NUMBER KIND`` begins a note."""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import normalize

from residency.core.types import Value

MARK = re.compile(r"⟦(?P<kind>\w+)\|(?P<value>[^⟦⟧⟪⟫]*)⟧|⟪(?P<kept>[^⟦⟧⟪⟫]*)⟫")
HEAD = re.compile(r"^=== (\d+ \w+)[ \t]*\n", re.M)


class MarkedNote(Value, frozen=True):
    """A note without its brackets, and where they stood."""

    head: str
    """Number and kind."""
    text: str
    marks: tuple[tuple[int, int, str], ...]
    """Identifiers as (start, end, kind); what must stay has the kind ``""``."""


def read_marked(source: str) -> Iterator[MarkedNote]:
    """The notes of a file, in NFC."""
    parts = iter(HEAD.split(normalize("NFC", source))[1:])
    for head, body in zip(parts, parts, strict=False):
        yield unmarked(head, body.rstrip("\n"))


def unmarked(head: str, body: str) -> MarkedNote:
    """A note's text, and the places of its marks."""
    text, last, marks = "", 0, list[tuple[int, int, str]]()
    for mark in MARK.finditer(body):
        text += body[last : mark.start()]
        inside = mark["value"] if mark["kind"] else mark["kept"]
        marks.append((len(text), len(text) + len(inside), mark["kind"] or ""))
        text, last = text + inside, mark.end()
    return MarkedNote(head, text + body[last:], tuple(marks))
