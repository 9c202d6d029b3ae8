"""De-identification of a text of which no patient is known: rules, dates and names alone; nothing
is kept, not even the secret."""

from __future__ import annotations

import os

from residency.core.edits import Edits
from residency.core.types import Value
from residency.deid import engine
from residency.deid.find import View, resolve
from residency.deid.options import Deid
from residency.deid.rules import packs
from residency.deid.surrogates import surrogates


class Replacement(Value, frozen=True):
    """What was replaced: offsets (code points) in the text that came, and in the one that leaves."""

    start: int
    end: int
    kind: str
    new_start: int
    new_end: int


class Replaced(Value, frozen=True):
    """A text without what the rules find in it."""

    text: str
    replacements: tuple[Replacement, ...]


def replaced(text: str, lang: str = "") -> Replaced:
    """A text with something invented in the place of what identifies, drawn anew for each call: two
    texts of one patient cannot be joined by it. What no rule knows, such as a rare name without a
    title, stays: a patient's own row finds more (``residency deid``).
    """
    before = engine.normalised(text)
    view = View(before.apply(text), lang)
    findings = resolve(packs(lang).search(view))
    drawn = surrogates(os.urandom(32), lang, frozenset())
    edits = engine.replaced(view, findings, drawn, Deid(unreadable_dates="replace"))
    assert edits is not None  # only a note may be refused
    moved, made = 0, []
    for piece, finding in zip(edits.pieces, findings, strict=True):
        start, end = _source(before, piece.start, piece.end)
        new = piece.start + moved
        made.append(
            Replacement(
                start=start,
                end=end,
                kind=finding.kind,
                new_start=new,
                new_end=new + len(piece.text),
            )
        )
        moved += len(piece.text) - (piece.end - piece.start)
    return Replaced(text=edits.apply(view.text), replacements=tuple(made))


def warm() -> None:
    """Read the rules of every language, so that no first text waits for them."""
    for lang in engine.PLACEHOLDER:
        replaced("", lang)


def _source(before: Edits, start: int, end: int) -> tuple[int, int]:
    """Where a stretch of the normalised text came from; the signs around it too where it begins or
    ends within a composed one."""
    while (found := before.back(start, end)) is None:
        start, end = max(0, start - 1), min(before.target_length, end + 1)
    return found
