"""From a source into the store: what is new, once, with every row accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from residency.core.errors import UserError
from residency.core.files import digest
from residency.core.progress import Tracker
from residency.core.types import RawNote, Value
from residency.ingest.rows import RowOutcome
from residency.ingest.sources import AnySource, Sql
from residency.ingest.store import Store, content

CHANGED = "the note changed after it was taken"
TWICE = "the id was given twice, with different texts"


class Extraction(Value, frozen=True):
    """What an extraction did; holds no text and no identifier."""

    taken: int
    """Notes that were new."""
    again: int
    """Rows that had been taken before and are the same: they are read again where a source is not
    known to begin behind them."""
    skipped: dict[str, int]
    """Reason -> rows that were not taken."""
    labels_left: int
    """Labels whose offsets count a text that was taken apart (RTF, HTML)."""
    files: int
    """Files that were read to their end."""
    expired: int
    """Notes that were removed from the zone as older than ``extract.keep``."""
    held: int
    """Notes that are in the zone now."""
    ever: dict[str, int]
    """``taken`` and reasons over all extractions."""
    at: datetime
    remarks: dict[str, int] = {}
    """Reason -> characters of the new notes that were left out, or kept as they stand."""


def take(settings: AnySource, root: Path, store: Store, tracker: Tracker) -> Extraction:
    """Take what is new into the store; a killed process goes on where the last segment ended.

    Raises ``UserError`` or ``GateRefused`` as the source does; what was stored before stays.
    """
    if store.head.final:
        raise UserError(
            "extract: this corpus was anonymised and its vault destroyed; give new notes another "
            "recipe name, zone and deid.out."
        )
    expired = store.expire(settings.keep)
    source = digest(
        settings.model_dump(mode="json", exclude={"keep", "segment", "fetch", "writing_login"})
    )
    if store.head.source != source:
        store.restart(source)
    tracker.start("extracting")
    work = _Taking(store, settings.segment)
    if isinstance(settings, Sql):
        from residency.ingest import sql

        outcomes = sql.notes(settings, root, store.head.mark)
    else:
        from residency.ingest import file_source

        outcomes = file_source.notes(settings, root, store)
    for outcome in outcomes:
        work.see(outcome)
        tracker.update(work.rows)
    work.flush()
    tracker.end(f"{work.taken} new notes, {sum(work.skipped.values())} rows not taken")
    return Extraction(
        taken=work.taken,
        again=work.again,
        skipped=dict(work.skipped),
        labels_left=work.left,
        files=work.files,
        expired=expired,
        held=store.held(),
        ever=store.head.counts,
        at=datetime.now(UTC),
        remarks=dict(work.remarks),
    )


class _Taking:
    """Notes on their way into the store, a segment at a time."""

    def __init__(self, store: Store, size: int) -> None:
        self.store, self.size = store, size
        self.rows = self.taken = self.again = self.left = self.files = 0
        self.skipped: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self._empty()

    def _empty(self) -> None:
        self.notes: list[RawNote] = []
        self.ids: dict[str, bytes] = {}
        self.without: list[str] = []
        self.changed: list[tuple[str, bytes]] = []
        self.counts: Counter[str] = Counter()
        self.done: list[tuple[str, bytes]] = []
        self.mark: tuple[str, str] | None = None
        self.seen = 0

    def see(self, item: RowOutcome) -> None:
        """Take account of what the source gave."""
        self.mark = item.mark or self.mark
        if item.file:
            self.done.append(item.file)
            self.files += 1
        elif item.note:
            self._note(item.note, item.left, item.remarks)
        elif not item.id:  # rows that only a count is known of: not a part of the whole account
            self.skipped[item.skipped] += item.rows
        elif self.store.taken(item.id) is not None or item.id in self.without:
            self.again += 1
        else:
            self.without.append(item.id)
            self.counts[item.skipped] += item.rows
            self.remarks.update(item.remarks)
        self.rows += 0 if item.file else item.rows
        self.seen += 1
        if len(self.notes) >= self.size or self.seen >= 20 * self.size:
            self.flush()

    def _note(self, note: RawNote, left: int, remarks: Mapping[str, int]) -> None:
        now = self.store.hash_with_key(content(note))
        before, reason = self.store.taken(note.id) or None, CHANGED
        if before is None and note.id in self.ids:
            before, reason = self.ids[note.id], TWICE
        if before is None:
            self.notes.append(note)
            self.ids[note.id] = now
            self.left += left
            self.remarks.update(remarks)
        elif before == now:
            self.again += 1
        else:
            self.counts[reason] += 1
            if reason == CHANGED:
                self.changed.append((note.id, now))

    def flush(self) -> None:
        """Make what was seen durable."""
        moved = self.mark and self.mark != self.store.head.mark
        if self.notes or self.counts or self.done or moved:
            self.store.add(
                self.notes, dict(self.counts), self.mark, self.done, self.without, self.changed
            )
            self.taken += len(self.notes)
            self.skipped.update(self.counts)
        self._empty()
