"""Groups of notes assigned to parts so that every part holds its share of the notes and labels are
equally common in all.

First greedily, in the manner of iterative stratification (Sechidis et al. 2011) with groups as its
items; then groups are moved and exchanged between parts for as long as that brings the worst
prevalence nearer to the whole's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from residency.core.types import PARTS, PartName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

NOTES = ""
"""Key of the number of notes among the counts of labels."""
GOOD = 0.001
"""Prevalence error at which repair stops: a tenth of a percentage point."""
SLACK = 0.001
"""Share of all notes by which repair may move the size of a part from its due."""
STEPS = 2000
TRIED = 96
"""Groups of a part that an exchange is tried with, on each side."""


def stratify(
    counts: Sequence[Counter[str]],
    shares: Mapping[PartName, float],
    repaired: bool = True,
    held: Mapping[PartName, Counter[str]] | None = None,
) -> list[PartName]:
    """The part of each group. ``counts``: of each group, how many of its notes carry each label,
    and under ``NOTES`` how many there are. The order of groups that are alike decides; whoever
    calls draws it. ``held``: what parts hold already and keep; then groups are only added."""
    parts = [part for part in PARTS if shares.get(part)]
    members = _assign(counts, parts, shares, held or {})
    if not held:
        _fill_empty(members, counts)
    placed: list[PartName] = [parts[0]] * len(counts)
    for part, indices in members.items():
        for index in indices:
            placed[index] = part
    repaired = repaired and not held and len(parts) > 1
    return _repair(counts, placed, parts, shares) if repaired else placed


def _assign(
    counts: Sequence[Counter[str]],
    parts: Sequence[PartName],
    shares: Mapping[PartName, float],
    before: Mapping[PartName, Counter[str]],
) -> dict[PartName, list[int]]:
    """Greedy: groups with the rarest label first, large before small, each where most of what it
    holds is lacking."""
    held = {part: Counter(before.get(part, {})) for part in parts}
    total: Counter[str] = sum((*counts, *held.values()), Counter())
    members: dict[PartName, list[int]] = {part: [] for part in parts}
    for index in sorted(range(len(counts)), key=lambda index: _turn(counts[index], total)):
        best = min(parts, key=lambda part: _cost(counts[index], held[part], total, shares[part]))
        held[best].update(counts[index])
        members[best].append(index)
    return members


def _turn(counts: Mapping[str, int], total: Mapping[str, int]) -> tuple[int, int]:
    """When a group is placed: rarest label first, then larger before smaller, by powers of two so
    that chance remains."""
    return min(total[key] for key in counts), -counts[NOTES].bit_length()


def _cost(
    counts: Mapping[str, int], held: Mapping[str, int], total: Mapping[str, int], share: float
) -> tuple[float, float]:
    """What placing a group in a part costs: notes beyond its share first, then how far the part
    already is.

    The second is relative to the share, so that all parts fill at the same pace; notes weigh as
    much as all labels together. It is linear in the size of the group: a quadratic distance would
    send every large group to train.
    """
    labels = max(len(total) - 1, 1)
    behind = 0.0
    for key, number in counts.items():
        weight = 1.0 if key == NOTES else 1 / labels
        behind += weight * (number / total[key]) * (1 - held[key] / (share * total[key]))
    beyond = held[NOTES] + counts[NOTES] - share * total[NOTES]
    return max(beyond, 0.0), -behind


def _fill_empty(members: dict[PartName, list[int]], counts: Sequence[Counter[str]]) -> None:
    """Give an empty part the smallest group of the part with most groups, train first of all, then
    test."""
    for part in ("train", "test", "dev"):
        if part in members and not members[part]:
            largest = max(members, key=lambda name: (len(members[name]), name == "train"))
            if len(members[largest]) > 1 or (part == "train" and members[largest]):
                smallest = min(members[largest], key=lambda index: counts[index][NOTES])
                members[largest].remove(smallest)
                members[part].append(smallest)


def worst(held: Mapping[PartName, Mapping[str, int]]) -> tuple[float, str, PartName]:
    """The largest difference between a label's prevalence in a part and in all notes, with the
    label and the part.

    Prevalence is the share of notes that carry the label. ``held``: part -> label -> notes, with
    all notes under ``NOTES``.
    """
    total: Counter[str] = sum((Counter(counts) for counts in held.values()), Counter())
    found: tuple[float, str, PartName] = (0.0, "", "train")
    for part, counts in held.items():
        for label in sorted(total):
            if label != NOTES and counts.get(NOTES):
                error = abs(counts.get(label, 0) / counts[NOTES] - total[label] / total[NOTES])
                found = max(found, (error, label, part), key=lambda one: one[0])
    return found


def _repair(
    counts: Sequence[Counter[str]],
    placed: list[PartName],
    parts: Sequence[PartName],
    shares: Mapping[PartName, float],
) -> list[PartName]:
    """Moves and exchanges, each the best of those tried, until the worst error is small or nothing
    helps any more.

    What falls is the sum of the fourth powers of all prevalence errors: it is ruled by the worst
    ones, and never stands still because two are equally bad.
    """
    import numpy as np

    labels = [NOTES, *sorted({label for one in counts for label in one} - {NOTES})]
    if len(labels) == 1 or not counts:
        return placed
    table = np.array([[one[label] for label in labels] for one in counts], dtype=np.float64)
    where = np.array([parts.index(part) for part in placed])
    state = _State(table, where, np.array([shares[part] for part in parts]))
    for _ in range(STEPS):
        if state.worst() <= GOOD or not any(state.improve(cell) for cell in state.worst_cells()):
            break
    return [parts[number] for number in state.where]


class _State:
    """Which group is where, and what follows from it."""

    def __init__(self, table: Array, where: NDArray[np.int64], shares: Array) -> None:
        import numpy as np

        self.table, self.where, self.shares = table, where, shares
        self.total = table.sum(axis=0)
        self.prevalence = self.total[1:] / self.total[0]
        self.held = np.stack([table[where == part].sum(axis=0) for part in range(len(shares))])
        due = shares * self.total[0]
        self.allowed = np.maximum(np.abs(self.held[:, 0] - due), max(SLACK * self.total[0], 1.0))
        self.due = due

    def errors(self, held: Array) -> Array:
        """Signed prevalence errors of parts (or of what they would be), by label."""
        import numpy as np

        errors: Array = held[..., 1:] / np.maximum(held[..., :1], 1) - self.prevalence
        return errors

    def worst(self) -> float:
        """The largest error."""
        return float(abs(self.errors(self.held)).max())

    def worst_cells(self) -> Iterator[tuple[int, int]]:
        """(part, label) of the largest errors, the largest first."""
        import numpy as np

        errors = abs(self.errors(self.held))
        for cell in np.argsort(-errors, axis=None, kind="stable")[:4]:
            part, label = np.unravel_index(cell, errors.shape)
            yield int(part), int(label)

    def improve(self, cell: tuple[int, int]) -> bool:
        """Make the best move or exchange that brings a part's label nearer; whether there was
        one."""
        part, label = cell
        sign = 1.0 if self.errors(self.held[part])[label] > 0 else -1.0
        effect = sign * (self.table[:, label + 1] - self.prevalence[label] * self.table[:, 0])
        leaving = self._candidates(part, effect)
        best: tuple[float, int, int, int] | None = None
        for other in range(len(self.shares)):
            if other != part:
                found = self._best(part, other, leaving, self._candidates(other, -effect))
                if found is not None and (best is None or found[0] < best[0]):
                    best = found
        if best is None:
            return False
        _, out, into, other = best
        for group, target in ((out, other), (into, part)):
            if group >= 0:
                self.held[self.where[group]] -= self.table[group]
                self.held[target] += self.table[group]
                self.where[group] = target
        return True

    def _candidates(self, part: int, effect: Array) -> NDArray[np.int64]:
        """Groups of a part, those first that go the right way for the least notes; -1 stands for
        none, so a move is an exchange with nothing."""
        import numpy as np

        inside = np.flatnonzero(self.where == part)
        rate = effect[inside] / self.table[inside, 0]
        order = inside[np.argsort(-rate, kind="stable")]
        spread = order[np.linspace(0, len(order) - 1, num=min(TRIED, len(order))).astype(int)]
        found = np.unique(np.concatenate([order[:TRIED], spread]))
        return np.append(found, -1)

    def _best(
        self, part: int, other: int, leaving: NDArray[np.int64], coming: NDArray[np.int64]
    ) -> tuple[float, int, int, int] | None:
        """The exchange between two parts after which the sum of fourth powers is least, if it falls
        and sizes stay right."""
        import numpy as np

        rows = np.vstack([self.table, np.zeros(self.table.shape[1])])  # -1: nothing
        change = rows[coming][None, :, :] - rows[leaving][:, None, :]
        here, there = self.held[part] + change, self.held[other] - change
        cost = (self.errors(here) ** 4).sum(axis=-1) + (self.errors(there) ** 4).sum(axis=-1)
        for held, number in ((here, part), (there, other)):
            wrong = (abs(held[..., 0] - self.due[number]) > self.allowed[number]) | (
                held[..., 0] < 1
            )
            cost[wrong] = np.inf
        before = (self.errors(self.held[[part, other]]) ** 4).sum()
        at = int(cost.argmin())
        if not cost.flat[at] < before * (1 - 1e-6):
            return None
        out, into = np.unravel_index(at, cost.shape)
        return float(cost.flat[at] - before), int(leaving[out]), int(coming[into]), other
