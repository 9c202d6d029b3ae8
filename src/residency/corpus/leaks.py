"""What a split lets through: patients, texts, near-duplicates, parents and documents that stand in
two parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from residency.core.types import PARTS, Note, PartName, Value
from residency.corpus.groups import TIES, Clusters, Tie, atoms, ties

SHOWN = 5
"""Ids named per leak."""
CROWD = 0.05
"""Share of all notes above which one set of tied notes is too large to be split well."""
FEW = 10
"""Notes that a set must have at the least before it counts as too large."""


class Leak(Value, frozen=True):
    """Ties of one kind between two parts. Holds ids, never text."""

    tie: Tie
    parts: tuple[PartName, PartName]
    sets: int
    """Patients (texts, clusters, parents, documents) that are in both parts."""
    notes: int
    """Notes of the second part that they concern."""
    ids: tuple[str, ...]
    """Some of these notes."""

    @property
    def words(self) -> str:
        """The leak in one line."""
        a, b = self.parts
        some = "e.g. " if self.notes > len(self.ids) else ""
        what = NAMES[self.tie][self.sets != 1]
        notes = f"{self.notes:,} {b} note{'' if self.notes == 1 else 's'}"
        return f"{self.sets:,} {what} in both {a} and {b} ({notes}, {some}{', '.join(self.ids)})"


NAMES: dict[Tie, tuple[str, str]] = {
    "patient": ("patient", "patients"),
    "text": ("text", "texts"),
    "near-duplicate": ("cluster of near-duplicates", "clusters of near-duplicates"),
    "parent": ("parent of derived notes", "parents of derived notes"),
    "source": ("source document", "source documents"),
}


class Grouping(Value, frozen=True):
    """How notes are tied together, in numbers."""

    notes: int
    groups: int
    """Sets of notes that stay together."""
    largest: int
    """Notes in the largest of them."""
    ties: dict[Tie, int]
    """Kind -> sets of two or more notes that share one."""
    clustered: int
    """Notes that are near-duplicates of others."""
    largest_cluster: int
    """Notes in the largest cluster of near-duplicates."""

    @property
    def warning(self) -> str:
        """What to change where one set holds too much; empty where none does."""
        limit = max(CROWD * self.notes, FEW)
        if self.largest_cluster > limit:
            return (
                f"one cluster of near-duplicates holds {self.largest_cluster:,} of {self.notes:,} "
                "notes, so the parts can hardly be alike; raise near (0.9 joins less), or lower "
                "boilerplate so that lines of a form no longer count."
            )
        if self.largest > limit:
            return (
                f"{self.largest:,} of {self.notes:,} notes are tied together (patient, document, "
                "text or parent), so the parts can hardly be alike; check that the group and "
                "source fields name patients and documents, not wards or forms."
            )
        return ""


def find_leaks(
    notes: Sequence[Note], parts: Mapping[str, PartName], near: Clusters = ()
) -> tuple[Leak, ...]:
    """Every kind of tie that two parts have in common, by pair of parts; empty where nothing
    leaks."""
    placed = [note for note in notes if note.id in parts]
    shared = ties(placed, near)
    found: dict[tuple[Tie, PartName, PartName], list[Sequence[int]]] = {
        (tie, a, b): [] for tie in TIES for a, b in combinations(PARTS, 2)
    }
    for tie in TIES:
        for members in shared[tie]:
            inside = {parts[placed[position].id] for position in members}
            for a, b in combinations([part for part in PARTS if part in inside], 2):
                found[tie, a, b].append(members)
    leaks = []
    for (tie, a, b), sets in found.items():
        every = (placed[position].id for members in sets for position in members)
        ids = tuple(dict.fromkeys(id for id in every if parts[id] == b))
        if sets:
            leak = Leak(tie=tie, parts=(a, b), sets=len(sets), notes=len(ids), ids=ids[:SHOWN])
            leaks.append(leak)
    return tuple(leaks)


def grouping(notes: Sequence[Note], near: Clusters = ()) -> Grouping:
    """How the notes are tied together."""
    shared = ties(notes, near)
    clusters = [len(members) for members in shared["near-duplicate"]]
    sizes = [len(members) for members in atoms(notes, near)]
    return Grouping(
        notes=len(notes),
        groups=len(sizes),
        largest=max(sizes, default=0),
        ties={tie: len(sets) for tie, sets in shared.items()},
        clustered=sum(clusters),
        largest_cluster=max(clusters, default=0),
    )
