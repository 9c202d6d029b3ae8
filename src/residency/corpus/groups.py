"""What ties notes together: patient, text, near-duplicates, the note they were made from, the
document they stand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal
from unicodedata import normalize

from residency.core.types import Note

Tie = Literal["patient", "text", "near-duplicate", "parent", "source"]
TIES: tuple[Tie, ...] = ("patient", "text", "near-duplicate", "parent", "source")
Ties = Mapping[Tie, Sequence[Sequence[int]]]
"""Kind -> sets of notes that share it, two or more each, as positions."""


class DisjointSets:
    """Positions that are joined into sets (union-find)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, position: int) -> int:
        """The least position of the set."""
        parent = self._parent
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    def join(self, a: int, b: int) -> None:
        """The two are in one set from now on."""
        a, b = self.root(a), self.root(b)
        self._parent[max(a, b)] = min(a, b)

    def sets(self) -> list[list[int]]:
        """All sets in the order of their first position."""
        found: dict[int, list[int]] = {}
        for position in range(len(self._parent)):
            found.setdefault(self.root(position), []).append(position)
        return list(found.values())


Clusters = Sequence[Sequence[str]]
"""Sets of ids of near-duplicates."""


def ties(notes: Sequence[Note], near: Clusters = ()) -> Ties:
    """Everything that two or more notes share. ``near`` may name notes that are not among them.

    Notes made from one note share it, whether it is among the notes or not, and with the note
    itself where it is.
    """
    found: dict[Tie, dict[str, list[int]]] = {kind: {} for kind in TIES}
    for position, note in enumerate(notes):
        found["patient"].setdefault(note.group or note.id, []).append(position)
        found["text"].setdefault(text_key(note.text), []).append(position)
        for id in {note.id, *note.parents}:
            found["parent"].setdefault(id, []).append(position)
        if note.source:
            found["source"].setdefault(note.source, []).append(position)
    shared: dict[Tie, Sequence[Sequence[int]]] = {
        kind: [members for members in sets.values() if len(members) > 1]
        for kind, sets in found.items()
    }
    where = {note.id: position for position, note in enumerate(notes)}
    clusters = [[where[id] for id in cluster if id in where] for cluster in near]
    shared["near-duplicate"] = [members for members in clusters if len(members) > 1]
    return shared


def atoms(notes: Sequence[Note], near: Clusters = ()) -> list[list[Note]]:
    """Notes that must stay together, tied directly or through others, in the order of their first
    note."""
    joined = DisjointSets(len(notes))
    for sets in ties(notes, near).values():
        for members in sets:
            for other in members[1:]:
                joined.join(members[0], other)
    return [[notes[position] for position in members] for members in joined.sets()]


def text_key(text: str) -> str:
    """Equal for texts that differ only by Unicode form or blanks."""
    return " ".join(normalize("NFC", text).split())
