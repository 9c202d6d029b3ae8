"""Labels that are likely wrong: where models that did not learn from a note are sure of something
else than its labels say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from residency.core.errors import UserError
from residency.core.files import digest
from residency.core.types import Note, Span, Value
from residency.label.differences import touching
from residency.tasks.bio import best_tags, decode, encode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]


class Suspect(Value, frozen=True):
    """A place in a note where the labels are likely wrong."""

    note: str
    start: int
    end: int
    labelled: tuple[Span, ...]
    """What the labels say there."""
    believed: tuple[Span, ...]
    """What the model says."""
    score: float
    """Mean log odds of the model's reading against the labels', over slots where they differ."""

    @property
    def kind(self) -> str:
        """``missing``, ``invented``, ``label`` (other label, same bounds) or ``boundary`` (all the
        rest)."""
        if not self.labelled or not self.believed:
            return "invented" if self.labelled else "missing"
        given = [(span.start, span.end) for span in self.labelled]
        believed = [(span.start, span.end) for span in self.believed]
        return "label" if given == believed else "boundary"


def find_suspects(
    note: Note, slots: Sequence[tuple[int, int]], scores: Array, labels: Sequence[str]
) -> Iterator[Suspect]:
    """Every place of a note where the best reading differs from its labels, in order of position.

    ``scores`` are the log-probabilities [slots, tags] of a model that did not learn from the note.
    Spans of either side that touch each other are one place, so a wrong boundary is named once.
    """
    import numpy as np

    if not len(slots):
        return
    given, _ = encode(note.spans, slots, labels)
    best = best_tags(scores).tolist()
    believed = decode(note.text, best, slots, labels)
    labelled = decode(note.text, given, slots, labels)
    same = {_key(span) for span in believed} & {_key(span) for span in labelled}
    odd = [(span, 0) for span in labelled if _key(span) not in same]
    odd += [(span, 1) for span in believed if _key(span) not in same]
    for place in touching(odd):
        start, end = min(span.start for span, _ in place), max(span.end for span, _ in place)
        inside = [
            i
            for i, slot in enumerate(slots)
            if slot[0] < end and slot[1] > start and given[i] != best[i]
        ]
        rows = np.array(inside)
        odds = scores[rows, np.array(best)[rows]] - scores[rows, np.array(given)[rows]]
        yield Suspect(
            note=note.id,
            start=start,
            end=end,
            labelled=tuple(span for span, side in place if side == 0),
            believed=tuple(span for span, side in place if side == 1),
            score=float(odds.mean()) if len(rows) else 0.0,
        )


def rank_suspects(found: Iterable[Suspect], share: float, spans: int) -> list[Suspect]:
    """The most suspicious places, as many as ``share`` of the number of labelled spans: the surest
    of each kind in turn.

    A model has its own way to err: it is often sure that nothing is there, and wrong, and seldom
    sure of another label. How sure it is can be compared within a kind only.
    """
    kinds: defaultdict[str, list[Suspect]] = defaultdict(list)
    for one in sorted(found, key=lambda one: (-one.score, one.note, one.start)):
        kinds[one.kind].append(one)
    turns = [(turn, one) for group in kinds.values() for turn, one in enumerate(group)]
    turns.sort(key=lambda pair: (pair[0], -pair[1].score, pair[1].note, pair[1].start))
    return [one for _, one in turns][: math.ceil(share * spans)]


def _key(span: Span) -> tuple[int, int, str]:
    return span.start, span.end, span.label


class Place(Value, frozen=True):
    """A span without text."""

    start: int
    end: int
    label: str


class SuspectRow(Value, frozen=True, omit_defaults=False):
    """A line of ``residency label errors``, and what was decided on it."""

    note: str
    start: int
    end: int
    score: float
    labelled: tuple[Place, ...] = ()
    believed: tuple[Place, ...] = ()
    decision: Literal["", "accept", "mend", "reject"] = ""
    mended: tuple[Place, ...] = ()

    @property
    def id(self) -> str:
        """Of the place."""
        return digest([self.note, self.start, self.end])[:16]

    @property
    def settled(self) -> tuple[Place, ...]:
        """The labels that hold there."""
        return {"accept": self.believed, "mend": self.mended}.get(self.decision, self.labelled)


def told(places: Sequence[Place]) -> str:
    """Places in words; mending begins from them."""
    return "; ".join(f"{one.label} {one.start} {one.end}" for one in places) or "-"


def placed(line: str, length: int, known: set[str]) -> Place:
    """What a line ``LABEL START END`` says, in characters of a note of this length. Raises
    ``UserError`` where it says no place in it, or a label that is not ``known``."""
    parts = line.rsplit(maxsplit=2)
    if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
        place = Place(label=parts[0], start=int(parts[1]), end=int(parts[2]))
        if place.label in known and place.start < place.end <= length:
            return place
    raise UserError(
        "A line must say LABEL START END, in characters of the note, with a label that the notes "
        f"have ({', '.join(sorted(known))}); no line: nothing is there."
    )


def settle(notes: Sequence[Note], rows: Sequence[SuspectRow]) -> Iterator[Note]:
    """Notes with the labels that were decided on; what was rejected or waits stays as it is."""
    decided: dict[str, list[SuspectRow]] = {}
    for row in rows:
        if row.decision in ("accept", "mend"):
            decided.setdefault(row.note, []).append(row)
    for note in notes:
        spans = list(note.spans)
        for row in decided.get(note.id, ()):
            gone = {(one.start, one.end, one.label) for one in row.labelled}
            kept = {(one.start, one.end, one.label) for one in row.settled}
            spans = [s for s in spans if (s.start, s.end, s.label) not in gone - kept]
            there = {(s.start, s.end, s.label) for s in spans}
            spans += [
                Span(start=start, end=end, label=label, quote=note.text[start:end], by="review")
                for start, end, label in sorted(kept - there)
            ]
        ordered = tuple(sorted(spans, key=lambda one: (one.start, one.end, one.label)))
        yield note if note.id not in decided else msgspec.structs.replace(note, spans=ordered)
