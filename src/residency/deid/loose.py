"""De-identification of a text of which no patient is known: rules, dates and names alone; nothing is kept, not even the secret."""

from __future__ import annotations

import os

from residency.core.edits import Edits
from residency.core.types import Value
from residency.deid.dates import write
from residency.deid.engine import AGE as OLDEST
from residency.deid.engine import DATE_KINDS, PLACEHOLDER, normalised
from residency.deid.find import View, resolve
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
    """A text with something invented in the place of what identifies, drawn anew for each call: two texts of one patient cannot be
    joined by it. What no rule knows, such as a rare name without a title, stays: a patient's own row finds more (``residency deid``).
    """
    before = normalised(text)
    view = View(before.apply(text), lang)
    drawn = surrogates(os.urandom(32), lang, frozenset())
    mentions = {mention.start: mention for mention in view.dates}
    findings = resolve(packs(lang).search(view))
    pieces = []
    for finding in findings:
        if finding.kind in DATE_KINDS:
            found = mentions.get(finding.start)
            read = found is not None and found.end == finding.end and found.value is not None
            new = (
                write(found, drawn.shift(found.value))
                if found is not None and read and found.value is not None
                else PLACEHOLDER.get(lang, PLACEHOLDER["en"])
            )
        elif finding.kind == "age":
            new = OLDEST
        else:
            new = drawn.of(finding.kind, view.text[finding.start : finding.end])
        pieces.append((finding.start, finding.end, new))
    edits, moved, made = Edits.of(view.text, pieces), 0, []
    for (start, end, new), finding in zip(pieces, findings, strict=True):
        first, last = _source(before, start, end)
        made.append(
            Replacement(
                start=first, end=last, kind=finding.kind, new_start=start + moved, new_end=start + moved + len(new)
            )
        )
        moved += len(new) - (end - start)
    return Replaced(text=edits.apply(view.text), replacements=tuple(made))


def _source(before: Edits, start: int, end: int) -> tuple[int, int]:
    """Where a stretch of the normalised text came from; whole signs where it begins or ends within one that was composed."""
    shift, first, last = 0, start, end
    for piece in before.pieces:
        begins = piece.start + shift
        ends = begins + len(piece.text)
        change = len(piece.text) - (piece.end - piece.start)
        if ends <= start:
            first -= change
        elif begins < start:
            first = piece.start
        if ends <= end:
            last -= change
        elif begins < end:
            last = piece.end
        shift += change
    return first, last
