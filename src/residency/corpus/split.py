"""Splits: which note belongs to which part. A group (patient) is never in two parts, nor is a text."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal
from unicodedata import normalize

from residency.core.errors import UserError
from residency.core.files import digest, sha256
from residency.core.types import PARTS, Note, PartName, Split

Atom = list[Note]
"""Notes that must stay together."""


def split_by_group(notes: Sequence[Note], shares: Mapping[PartName, float], seed: int) -> Split:
    """Parts of about the given shares, with groups whole and labels spread alike.

    Notes of one group, and notes with the same text (NFC, blanks collapsed), stay together. Greedy in the manner of
    iterative stratification (Sechidis et al. 2011) with groups as its items: the groups that hold the rarest label are
    placed first, large before small, each in the part that lacks most of what it holds and has room for it; the order
    of groups that are alike is drawn by the seed. Every part with a share gets a group where there are enough of them,
    and train is never empty.
    """
    parts = _draw(notes, shares, seed)
    shown = ", ".join(f"{part} {shares[part]:.0%}" for part in PARTS if shares.get(part))
    return make(notes, parts, seed, f"random by group: {shown}")


def split_by_hash(notes: Sequence[Note], shares: Mapping[PartName, float], seed: int) -> Split:
    """Parts fixed by the SHA-256 of each text: no seed, and a record stays where it is when others come or go.

    The hash modulo 10, or the smallest power of ten in which every share is whole, counted off as train, dev, test: with 80, 10
    and 10 per cent, 0 to 7 is train, 8 dev, 9 test. A group is placed as a whole, by the first of its texts in order.
    Raises ``UserError`` for shares finer than a thousandth.
    """
    whole = next((m for m in (10, 100, 1000) if all(abs(s * m - round(s * m)) < 1e-6 for s in shares.values())), None)
    if whole is None:
        raise UserError(
            "shares: parts drawn by hash take whole per mille; for example {train: 80%, dev: 10%, test: 10%}."
        )
    slots = [part for part in PARTS for _ in range(round(shares.get(part, 0) * whole))]
    parts: dict[str, PartName] = {}
    for atom in atoms(notes):
        first = min(note.text for note in atom)
        part = slots[int(sha256(first.encode()), 16) % whole]
        parts |= {note.id: part for note in atom}
    shown = ", ".join(f"{part} {shares[part]:.0%}" for part in PARTS if shares.get(part))
    return make(notes, parts, seed, f"by hash of the text: {shown}")


FEW = 1000
"""Training records below which ``stop: auto`` sets none aside."""


def stop_share(stop: float | Literal["auto"], train: int) -> float:
    """The share of ``train`` records that is set aside for early stopping."""
    return (0.1 if train >= FEW else 0.0) if stop == "auto" else stop


def given(parts: Mapping[PartName, Sequence[Note]], stop: float | Literal["auto"], seed: int) -> Split:
    """The parts that the user gives; without dev, ``stop`` of train is drawn as dev by group.

    ``how`` says how many texts and groups train and test have in common: those make a score look better than it is.
    """
    placed: dict[str, PartName] = {note.id: part for part in PARTS for note in parts.get(part, ())}
    how = "given: " + ", ".join(part for part in PARTS if parts.get(part))
    train, test = parts.get("train", ()), parts.get("test", ())
    share = stop_share(stop, len(train))
    if share and not parts.get("dev"):
        placed |= _draw(train, {"train": 1 - share, "dev": share}, seed)
        how += f"; dev: {share:.0%} of train by group"
    if train and test:
        texts = len({text_key(note.text) for note in train} & {text_key(note.text) for note in test})
        groups = len({note.group for note in train} & {note.group for note in test})
        how += f"; {texts} texts and {groups} groups are in both train and test"
    return make([note for part in PARTS for note in parts.get(part, ())], placed, seed, how)


def make(notes: Iterable[Note], parts: Mapping[str, PartName], seed: int, how: str) -> Split:
    """A split with its balance and its digest; notes without a part are left out."""
    balance: dict[str, dict[str, int]] = {}
    kept: dict[str, PartName] = {}
    for note in notes:
        if note.id in parts:
            part = kept[note.id] = parts[note.id]
            for label in _labels(note):
                counts = balance.setdefault(label, {})
                counts[part] = counts.get(part, 0) + 1
    return Split(
        seed=seed, parts=kept, how=how, balance=dict(sorted(balance.items())), digest=digest(sorted(kept.items()))
    )


def text_key(text: str) -> str:
    """Equal for texts that differ only by Unicode form or blanks."""
    return " ".join(normalize("NFC", text).split())


def _labels(note: Note) -> list[str]:
    return [span.label for span in note.spans] + list(note.labels)


def atoms(notes: Sequence[Note]) -> list[Atom]:
    """Notes joined by group or by text, directly or through others, in the order of their first note."""
    owner: dict[str, int] = {}
    parent = list(range(len(notes)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index, note in enumerate(notes):
        for key in (f"group:{note.group or note.id}", f"text:{text_key(note.text)}"):
            a, b = root(index), root(owner.setdefault(key, index))
            parent[max(a, b)] = min(a, b)
    joined: dict[int, Atom] = {}
    for index, note in enumerate(notes):
        joined.setdefault(root(index), []).append(note)
    return list(joined.values())


def _draw(notes: Sequence[Note], shares: Mapping[PartName, float], seed: int) -> dict[str, PartName]:
    parts = [part for part in PARTS if shares.get(part)]
    items = sorted(atoms(notes), key=lambda atom: min(note.id for note in atom))
    random.Random(seed).shuffle(items)
    counts = [_counts(atom) for atom in items]
    total: Counter[str] = sum(counts, Counter())
    held: dict[PartName, Counter[str]] = {part: Counter() for part in parts}
    members: dict[PartName, list[int]] = {part: [] for part in parts}
    order = sorted(range(len(items)), key=lambda index: _turn(counts[index], total))
    for index in order:
        best = min(parts, key=lambda part: _cost(counts[index], held[part], total, shares[part]))
        held[best].update(counts[index])
        members[best].append(index)
    _fill_empty(members, counts)
    return {note.id: part for part in parts for index in members[part] for note in items[index]}


NOTES = ""
"""Key of the number of notes among the counts of labels."""


def _counts(atom: Atom) -> Counter[str]:
    counts = Counter(label for note in atom for label in _labels(note) if label)
    counts[NOTES] = len(atom)
    return counts


def _turn(counts: Mapping[str, int], total: Mapping[str, int]) -> tuple[int, int]:
    """When a group is placed: rarest label first, then larger before smaller, by powers of two so that chance remains."""
    return min(total[key] for key in counts), -counts[NOTES].bit_length()


def _cost(
    counts: Mapping[str, int], held: Mapping[str, int], total: Mapping[str, int], share: float
) -> tuple[float, float]:
    """What placing a group in a part costs: notes beyond its share first, then how far the part already is.

    The second is relative to the share, so that all parts fill at the same pace; notes weigh as much as all labels
    together. It is linear in the size of the group: a quadratic distance would send every large group to train.
    """
    labels = max(len(total) - 1, 1)
    behind = 0.0
    for key, number in counts.items():
        weight = 1.0 if key == NOTES else 1 / labels
        behind += weight * (number / total[key]) * (1 - held[key] / (share * total[key]))
    beyond = held[NOTES] + counts[NOTES] - share * total[NOTES]
    return max(beyond, 0.0), -behind


def _fill_empty(members: dict[PartName, list[int]], counts: Sequence[Counter[str]]) -> None:
    """Give an empty part the smallest group of the part with most groups, train first of all, then test."""
    for part in ("train", "test", "dev"):
        if part in members and not members[part]:
            largest = max(members, key=lambda name: (len(members[name]), name == "train"))
            if len(members[largest]) > 1 or (part == "train" and members[largest]):
                smallest = min(members[largest], key=lambda index: counts[index][NOTES])
                members[largest].remove(smallest)
                members[part].append(smallest)
