"""How long labelling will take, from the first notes of each annotator."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from residency.core.types import Note, Value
from residency.label.annotations import Annotation
from residency.metrics.intervals import bootstrap

FIRST = 20
"""Notes that an estimate is made from."""
FEWEST = 5


class TimeEstimate(Value, frozen=True):
    """How long one annotator needs for the notes that are left."""

    annotator: str
    notes: int
    """Notes that it is made from."""
    median: float
    """Seconds a note."""
    left: int
    """Notes that are left."""
    hours: float
    low: float
    high: float
    """Hours for them, with the 95 % interval."""


def estimate(
    annotator: str, done: Mapping[str, Annotation], notes: Mapping[str, Note]
) -> TimeEstimate | None:
    """Seconds per character in the first notes, times the characters that are left; None where
    fewer than ``FEWEST`` have a time."""
    import numpy as np

    timed = sorted(
        (one for one in done.values() if one.seconds and one.note in notes), key=lambda one: one.at
    )[:FIRST]
    if len(timed) < FEWEST:
        return None
    stats = np.array([[one.seconds or 0.0, max(1, len(notes[one.note].text))] for one in timed])
    left = [note for id, note in notes.items() if id not in done]
    characters = sum(len(note.text) for note in left)
    value, low, high = bootstrap(
        stats,
        [str(number) for number in range(len(stats))],
        lambda sums: (sums[..., 0] / sums[..., 1])[..., None] * characters / 3600,
        samples=1000,
    )
    return TimeEstimate(
        annotator=annotator,
        notes=len(timed),
        median=median(one.seconds or 0.0 for one in timed),
        left=len(left),
        hours=float(value[0]),
        low=float(low[0]),
        high=float(high[0]),
    )
