"""Splits: which note belongs to which part. What belongs together is never in two parts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from residency.core.errors import UserError
from residency.core.files import digest, sha256
from residency.core.types import PARTS, Note, PartName, Split
from residency.corpus.groups import Clusters, atoms, text_key
from residency.corpus.stratify import NOTES, stratify


def split_by_group(
    notes: Sequence[Note], shares: Mapping[PartName, float], seed: int, near: Clusters = ()
) -> Split:
    """Parts of about the given shares, with groups whole and labels equally common in all of them.

    Notes of one patient or source document, notes with the same text (NFC, blanks collapsed),
    near-duplicates and notes made from one another stay together. How groups are placed is in
    ``stratify``; the order of groups that are alike is drawn by the seed. Every part with a share
    gets a group where there are enough of them, and train is never empty.
    """
    parts = _draw(notes, shares, seed, near)
    return make_split(notes, parts, seed, f"random by group: {_percent(shares)}")


def split_by_hash(notes: Sequence[Note], shares: Mapping[PartName, float], seed: int) -> Split:
    """Parts fixed by the SHA-256 of each text: no seed, and a record stays where it is when others
    come or go.

    The hash modulo 10, or the smallest power of ten in which every share is whole, counted off as
    train, dev, test: with 80, 10 and 10 per cent, 0 to 7 is train, 8 dev, 9 test. A group is placed
    as a whole, by the first of its texts in order. Near-duplicates are not tied: a new one would
    move what is there. They are counted as leaks. Raises ``UserError`` for shares finer than a
    thousandth.
    """
    for whole in (10, 100, 1000):
        if all(abs(share * whole - round(share * whole)) < 1e-6 for share in shares.values()):
            break
    else:
        raise UserError(
            "shares: parts drawn by hash take whole per mille; for example {train: 80%, dev: 10%, "
            "test: 10%}."
        )
    slots = [part for part in PARTS for _ in range(round(shares.get(part, 0) * whole))]
    parts: dict[str, PartName] = {}
    for atom in atoms(notes):
        first = min(note.text for note in atom)
        part = slots[int(sha256(first.encode()), 16) % whole]
        parts |= {note.id: part for note in atom}
    return make_split(notes, parts, seed, f"by hash of the text: {_percent(shares)}")


def split_by_time(
    notes: Sequence[Note], shares: Mapping[PartName, float], seed: int, near: Clusters = ()
) -> Split:
    """Train the oldest, test the newest: groups in the order of their latest notes (``written_at``;
    those without one are the oldest), so that nothing in train is later than what comes behind
    it."""

    def latest(atom: Sequence[Note]) -> tuple[str, str]:
        times = [one.written_at.replace(tzinfo=None) for one in atom if one.written_at]
        return (max(times).isoformat() if times else ""), min(note.id for note in atom)

    ordered = sorted(atoms(notes, near), key=latest)
    if ordered and not latest(ordered[-1])[0]:
        raise UserError(
            "draw: time needs notes that say when they were written (written_at); give "
            "extract.columns.written_at, or draw: random."
        )
    parts: dict[str, PartName] = {}
    due, count = 0.0, 0
    rest = [part for part in PARTS if shares.get(part)]
    for atom in ordered:
        while len(rest) > 1 and count >= due + shares[rest[0]] * len(notes):
            due += shares[rest.pop(0)] * len(notes)
        parts |= {note.id: rest[0] for note in atom}
        count += len(atom)
    return make_split(notes, parts, seed, f"by time: {_percent(shares)}")


def split_by_site(
    notes: Sequence[Note], shares: Mapping[PartName, float], seed: int, near: Clusters = ()
) -> Split:
    """No site (``department``) in two parts: a test on sites that nothing was learned from. A
    patient of several sites ties them."""
    wanted = sum(bool(share) for share in shares.values())
    if len({note.department for note in notes if note.department}) < wanted:
        raise UserError(
            f"draw: site needs notes of {wanted} sites at the least (department); give "
            "extract.columns.department, or draw: random."
        )
    by_site: dict[str, list[str]] = {}
    for note in notes:
        by_site.setdefault(note.department or note.id, []).append(note.id)
    parts = _draw(notes, shares, seed, [*near, *by_site.values()])
    return make_split(notes, parts, seed, f"by site: {_percent(shares)}")


def _percent(shares: Mapping[PartName, float]) -> str:
    return ", ".join(f"{part} {shares[part]:.0%}" for part in PARTS if shares.get(part))


FEW = 1000
"""Training records below which ``stop: auto`` sets none aside."""


def stop_share(stop: float | Literal["auto"], train: int) -> float:
    """The share of ``train`` records that is set aside for early stopping."""
    return (0.1 if train >= FEW else 0.0) if stop == "auto" else stop


def keep_given(
    parts: Mapping[PartName, Sequence[Note]],
    stop: float | Literal["auto"],
    seed: int,
    near: Clusters = (),
) -> Split:
    """The parts that the user gives; without dev, ``stop`` of train is drawn as dev by group.

    ``how`` says how many texts and groups train and test have in common: those make a score look
    better than it is.
    """
    placed: dict[str, PartName] = {note.id: part for part in PARTS for note in parts.get(part, ())}
    how = "given: " + ", ".join(part for part in PARTS if parts.get(part))
    train, test = parts.get("train", ()), parts.get("test", ())
    share = stop_share(stop, len(train))
    if share and not parts.get("dev"):
        placed |= _draw(train, {"train": 1 - share, "dev": share}, seed, near)
        how += f"; dev: {share:.0%} of train by group"
    if train and test:
        texts = len({text_key(note.text) for note in train} & {text_key(n.text) for n in test})
        groups = len({note.group for note in train} & {note.group for note in test})
        how += f"; {texts} texts and {groups} groups are in both train and test"
    return make_split([note for part in PARTS for note in parts.get(part, ())], placed, seed, how)


def make_split(notes: Iterable[Note], parts: Mapping[str, PartName], seed: int, how: str) -> Split:
    """A split with its balance and its digest; notes without a part are left out."""
    balance: dict[str, dict[str, int]] = {}
    kept: dict[str, PartName] = {}
    for note in notes:
        if note.id in parts:
            part = kept[note.id] = parts[note.id]
            for label in labels_of(note):
                counts = balance.setdefault(label, {})
                counts[part] = counts.get(part, 0) + 1
    return Split(
        seed=seed,
        parts=kept,
        how=how,
        balance=dict(sorted(balance.items())),
        digest=digest(sorted(kept.items())),
    )


def labels_of(note: Note) -> list[str]:
    """The labels of a note's spans, then those of the whole note."""
    return [span.label for span in note.spans] + list(note.labels)


def _draw(
    notes: Sequence[Note], shares: Mapping[PartName, float], seed: int, near: Clusters
) -> dict[str, PartName]:
    items = sorted(atoms(notes, near), key=lambda atom: min(note.id for note in atom))
    random.Random(seed).shuffle(items)
    placed = stratify([count_labels(atom) for atom in items], shares)
    return {note.id: part for atom, part in zip(items, placed, strict=True) for note in atom}


def count_labels(notes: Iterable[Note]) -> Counter[str]:
    """Label -> notes that carry it, and under ``NOTES`` how many there are."""
    counts: Counter[str] = Counter()
    for note in notes:
        counts.update({label for label in labels_of(note) if label})
        counts[NOTES] += 1
    return counts


def count_parts(
    notes: Iterable[Note], parts: Mapping[str, PartName]
) -> dict[PartName, Counter[str]]:
    """Part -> label -> notes of the part that carry it, as ``stratify.worst`` takes it; parts
    without notes are left out."""
    found: dict[PartName, list[Note]] = {}
    for note in notes:
        if note.id in parts:
            found.setdefault(parts[note.id], []).append(note)
    return {part: count_labels(found[part]) for part in PARTS if part in found}
