"""Places of doubt: what a tagger is not sure of goes to a file in the identified zone, a person
decides on each line, and the next command does as the lines say.

The file is there only while somebody has something to decide, and is closed to others (0600). What
was decided is kept without any text: by a hash with the zone's key.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from residency.core.errors import UserError
from residency.core.files import disk_errors
from residency.core.types import RawNote, Value
from residency.deid.engine import DeidentifiedNote, Refused, normal_form
from residency.ingest.store import Store

COLUMNS = ("decision", "kind", "before", "place", "after", "probability", "note", "start", "end")
DECISIONS = {"accept": True, "reject": False}
CONTEXT = 60
"""Characters that are shown on either side of a place."""
KEPT, QUEUE = "review", "queue/"


class Decisions(Value, frozen=True):
    """Keyed hash of a place -> whether it identifies somebody."""

    made: dict[str, bool] = {}


class Queue(Value, frozen=True):
    """Lines of a segment that wait for a person."""

    lines: tuple[tuple[str, ...], ...]


class Review:
    """The queue of one recipe in its zone."""

    def __init__(self, store: Store, path: Path) -> None:
        self.store, self.path = store, path
        self.made = dict((store.get(KEPT, Decisions) or Decisions()).made)

    def decided(self, note: str, start: int, end: int, quote: str) -> bool | None:
        """What a person said of a place."""
        return self.made.get(self._key(note, start, end, quote))

    def _key(self, *place: object) -> str:
        return self.store.hash_with_key("\0".join(map(str, place))).hex()

    def take(self) -> None:
        """Take up what was decided in the file, and remove it.

        Raises ``UserError`` with the line where the file is not as it was written, or a decision is
        none.
        """
        if not self.path.exists():
            return
        with disk_errors(self.path):
            rows = csv.DictReader(io.StringIO(self.path.read_text("utf-8-sig")))
            lines = list(rows)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise UserError(
                f"{self.path}: its columns are not those that were written; change only the column "
                "decision, or remove the file to have it made again."
            )
        for number, line in enumerate(lines, 2):
            said = (line["decision"] or "").strip().lower()
            if said and said not in DECISIONS:
                raise UserError(
                    f"{self.path}, line {number}: decision must be accept (it identifies somebody, "
                    "and is masked), reject (it stays) or empty."
                )
            if said:
                key = self._key(line["note"], line["start"], line["end"], line["place"])
                self.made[key] = DECISIONS[said]
        with self.store.writing():
            self.store.put(KEPT, Decisions(self.made))
        self.path.unlink()

    def add(
        self, segment: int, notes: Sequence[RawNote], results: Sequence[DeidentifiedNote | Refused]
    ) -> None:
        """Keep the places of doubt of a segment, sealed."""
        lines = [
            line
            for raw, done in zip(notes, results, strict=True)
            if isinstance(done, DeidentifiedNote)
            for line in lines_of(raw, done)
        ]
        if lines:
            with self.store.writing():
                self.store.put(f"{QUEUE}{segment}", Queue(tuple(lines)))

    def write(self, segments: range) -> None:
        """Write the places of doubt of these segments for a person, and forget them here."""
        with disk_errors(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8-sig", newline="") as file:
                written = csv.writer(file)
                written.writerow(COLUMNS)
                for number in segments:
                    if queue := self.store.get(f"{QUEUE}{number}", Queue):
                        written.writerows(queue.lines)
        self.forget()

    def forget(self, decisions: bool = False) -> None:
        """Forget the places of doubt, and what was decided where their notes are released."""
        with self.store.writing():
            self.store.forget(QUEUE)
            if decisions:
                self.store.forget(KEPT)
                self.made.clear()


def lines_of(raw: RawNote, done: DeidentifiedNote) -> Iterator[tuple[str, ...]]:
    """The lines of a note's places of doubt."""
    text = normal_form(raw.text).apply(raw.text)
    for place in done.doubts:
        start, end = place.start, place.end
        yield (
            "",
            place.kind,
            text[max(0, start - CONTEXT) : start],
            text[start:end],
            text[end : end + CONTEXT],
            f"{place.probability:.2f}",
            raw.id,
            str(start),
            str(end),
        )
