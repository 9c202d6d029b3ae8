"""Parts that notes had before: they, their patients and what was merged since keep them, and what
is new is dealt out beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from residency.core.files import read_json, read_jsonl
from residency.core.types import PARTS, Note, PartName, Split, Value
from residency.corpus.groups import Clusters, atoms
from residency.corpus.parts import count_labels, make_split
from residency.corpus.stratify import stratify

MOVED = ".moved.jsonl"
"""Ends the file beside released notes that says which were others before."""


class Moved(Value, frozen=True):
    """A note that is another one now, since its patient's record was merged into another's."""

    id: str
    was: str


class History(Value, frozen=True):
    """What an earlier split says, as far as it counts for the next."""

    split: Split
    groups: dict[str, str] = {}
    past: dict[str, PartName] = {}
    """Patient without notes -> the part that they had."""


def read(path: Path) -> History | None:
    """The split that was written before; None where there is none yet."""
    return read_json(path, History) if path.is_file() else None


def moved_notes(files: Iterable[Path]) -> dict[str, str]:
    """Note -> what it was, of notes whose patients were merged, as it stands beside data files."""
    beside = (file.with_suffix(MOVED) for file in files)
    rows = (one for path in beside if path.is_file() for one in read_jsonl(path, Moved))
    return {one.id: one.was for one in rows}


def continued(
    notes: Sequence[Note],
    history: History,
    moved: Mapping[str, str],
    shares: Mapping[PartName, float],
    seed: int,
    near: Clusters = (),
) -> tuple[Split, dict[str, PartName]]:
    """A split in which every patient keeps the part that they had, and the patients of earlier
    splits that have no notes now.

    A patient whose notes had several parts, since records were merged, goes to train, where nothing
    is measured. What is new goes to what it is tied to, else where parts lack most.
    """
    before = dict(history.past)
    of_group: dict[str, set[PartName]] = {group: {part} for group, part in before.items()}
    for one, part in history.split.parts.items():
        of_group.setdefault(history.groups.get(one, one), set()).add(part)
    had: dict[str, set[PartName]] = {}
    for note in notes:
        parts = had.setdefault(note.group or note.id, set())
        parts |= of_group.get(note.group or note.id, set())
        id: str | None = note.id
        while id is not None:
            if id in history.split.parts:
                parts.add(history.split.parts[id])
            id = moved.get(id)
    fixed = {group: _joint(parts) for group, parts in had.items() if parts}
    placed: dict[str, PartName] = {}
    new: list[list[Note]] = []
    for atom in atoms(notes, near):
        known = {fixed[group] for note in atom if (group := note.group or note.id) in fixed}
        if not known:
            new.append(atom)
        for note in atom if known else ():
            placed[note.id] = fixed.get(note.group or note.id) or _joint(known)
    new.sort(key=lambda atom: min(note.id for note in atom))
    held: dict[PartName, Counter[str]] = {part: Counter() for part in PARTS}
    for note in notes:
        if note.id in placed:
            held[placed[note.id]].update(count_labels([note]))
    drawn = stratify([count_labels(atom) for atom in new], shares, held=held)
    placed |= {note.id: part for atom, part in zip(new, drawn, strict=True) for note in atom}
    merged = sum(len(parts) > 1 for parts in had.values())
    how = f"as before; {sum(map(len, new)):,} new notes dealt out beside them" + (
        f"; {merged:,} patients who were in several parts went to train" if merged else ""
    )
    past = {group: _joint(parts) for group, parts in of_group.items() if group not in had}
    return make_split(notes, placed, seed, how), past


def _joint(parts: set[PartName]) -> PartName:
    """The part of what had one or several."""
    return next(iter(parts)) if len(parts) == 1 else "train"
