"""From a source into the store: what is new, once, with every row accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from residency.core.errors import UserError
from residency.core.files import digest
from residency.core.progress import Tracker
from residency.core.types import RawNote, Value
from residency.ingest.merges import merged_patients, person_of, write_candidates
from residency.ingest.rows import RowOutcome, version_key
from residency.ingest.sources import AnySource, Sql
from residency.ingest.store import (
    REMOVED,
    Merged,
    Packed,
    Read,
    Store,
    Taken,
)

OLDER = "a later version of the note was taken before"
ERASED = "the patient was erased"
TWICE = "the id was given twice, with different texts"
AT_ONCE = 1000
"""Ids that are looked up together at most."""


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
    amended: int = 0
    """Notes of which a later version was taken."""
    removed: int = 0
    """Notes that were taken before and are no longer at the source."""
    candidates: int = 0
    """Pairs of patients with one name and birth date, for a person to confirm."""


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
    if store.head.source != (source := _source_digest(settings)):
        store.restart(source)
    merged = merged_patients(settings, root, store.path.parent, store.path.name.split(".")[0])
    known = store.get("merged", Merged) or Merged()
    whole = settings.absent != "keep" or merged != known.into
    tracker.start("extracting")
    work = _Taking(store, settings.segment, merged)
    with store.reading():
        if isinstance(settings, Sql):
            from residency.ingest import sql

            outcomes = sql.notes(settings, root, None if whole else store.head.mark)
        else:
            from residency.ingest import file_source

            outcomes = file_source.notes(settings, root, store, whole)
        while group := list(islice(outcomes, work.room())):
            work.see(group)
            tracker.update(work.rows)
        work.flush()
        if settings.absent != "keep":
            work.removed += store.remove_absent(settings.absent)
    if merged != known.into:
        with store.writing():
            store.put("merged", Merged(into=merged))
    if work.removed or work.amended:
        store.sweep()
    tracker.end(f"{work.taken} new notes, {sum(work.skipped.values())} rows not taken")
    return Extraction(
        taken=work.taken,
        amended=work.amended,
        removed=work.removed,
        candidates=write_candidates(store, merged),
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


def _source_digest(settings: AnySource) -> str:
    """What says what a note is. Settings that came later count where they are given, so that a
    store of an earlier version is not read anew."""
    aside = {"keep", "segment", "fetch", "writing_login", "absent", "again", "merged", "merges"}
    found = settings.model_dump(mode="json", exclude=aside)
    columns = found.get("columns", {})
    for name in ("department", "version", "deleted", "line"):
        if columns.get(name) == "":
            del columns[name]
    return digest(found)


class _Taking:
    """Notes on their way into the store, a segment at a time."""

    def __init__(self, store: Store, size: int, merged: Mapping[str, str]) -> None:
        self.store, self.size, self.merged = store, size, merged
        self.rows = self.taken = self.again = self.left = self.files = 0
        self.amended = self.removed = 0
        self.skipped: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self.known_people: set[tuple[str, str]] = set()
        self.erased = store.erased()
        self.known: dict[str, Taken | None] = {}
        self._empty()

    def _empty(self) -> None:
        self.notes: dict[str, Packed] = {}
        self.without: list[str] = []
        self.gone: dict[str, None] = {}
        self.later: set[str] = set()
        self.met: set[str] = set()
        self.versions: dict[str, str] = {}
        self.people: list[tuple[str, str]] = []
        self.counts: Counter[str] = Counter()
        self.done: list[tuple[str, bytes]] = []
        self.mark: tuple[str, str] | None = None
        self.seen = 0

    def room(self) -> int:
        """How many rows are looked at together: no more than the segment has room for."""
        return min(self.size - len(self.notes), AT_ONCE)

    def see(self, items: Sequence[RowOutcome]) -> None:
        """Take account of what the source gave, its ids looked up at once."""
        self.known = self.store.known(item.note.id if item.note else item.id for item in items)
        for item in items:
            self._see(item)
        if len(self.notes) >= self.size or self.seen >= 20 * self.size:
            self.flush()

    def _see(self, item: RowOutcome) -> None:
        self.mark = item.mark or self.mark
        if item.file:
            self.done.append(item.file)
            self.files += 1
        elif item.note:
            self._note(item.note, item)
        elif not item.id:  # rows that only a count is known of: not a part of the whole account
            self.skipped.update({item.skipped: item.rows} if item.skipped else {})
        else:
            self._without(item)
        self.rows += 0 if item.file else item.rows
        self.seen += 1

    def _without(self, item: RowOutcome) -> None:
        """A row that is no note, or says that its note is no longer."""
        known = self.known[item.id]
        if item.id in self.notes or (known and known.content and item.id not in self.gone):
            if _older(item.version, self.versions.get(item.id, known.version if known else "")):
                self._leave_out(OLDER, item.id, item.version.encode())
                return
            if item.id in self.notes and not (known and known.content):
                del self.notes[item.id]
                self.counts[item.skipped] += item.rows
                self.without.append(item.id)
                self.versions[item.id] = item.version
                return
            self.notes.pop(item.id, None)
            self.later.discard(item.id)
            self.gone[item.id] = None
            self.versions[item.id] = item.version
            self.counts[REMOVED] += 1
        elif known is not None or item.id in self.without or item.id in self.gone:
            self.again += 1
            self.met.add(item.id)
        else:
            self.without.append(item.id)
            self.versions[item.id] = item.version
            self.counts[item.skipped] += item.rows
            self.remarks.update(item.remarks)

    def _note(self, note: RawNote, item: RowOutcome) -> None:
        if (patient := self.merged.get(note.patient)) is not None:
            note = replace(note, patient=patient)
        if self.erased and self.store.hash_with_key(note.patient) in self.erased:
            self.skipped[ERASED] += item.rows
            return
        packed, known = self.store.pack(note), self.known[note.id]
        if note.id in self.notes:
            known = Taken(
                self.notes[note.id].content, self.versions.get(note.id, ""), self.store.head.reading
            )
        if known is None or not known.content or note.id in self.gone:
            # What was taken back does not return with an earlier version that is sent again.
            if _older(item.version, self.versions.get(note.id, known.version if known else "")):
                self._leave_out(OLDER, note.id, packed.content)
            else:
                self._take(note, packed, item)
        elif known.content == packed.content or self.store.is_content(known.content, note):
            self.again += 1
            self.met.add(note.id)
        elif _older(item.version, known.version):
            self.met.add(note.id)
            self._leave_out(OLDER, note.id, packed.content)
        elif not item.version and (known.reading == self.store.head.reading or note.id in self.met):
            self._leave_out(TWICE, note.id, packed.content)
        else:
            if note.id not in self.notes:
                self.later.add(note.id)
            self._take(note, packed, item)

    def _leave_out(self, reason: str, id: str, which: bytes) -> None:
        """Count a version of a note that is not taken, once."""
        row = f"\0{reason}\0{id}\0{which.hex()}"
        if self.store.taken(row) is not None or row in self.without:
            self.again += 1
        else:
            self.without.append(row)
            self.counts[reason] += 1

    def _take(self, note: RawNote, packed: Packed, item: RowOutcome) -> None:
        self.notes[note.id] = packed
        if item.version:
            self.versions[note.id] = item.version
        if note.id in self.gone:  # it went, and came back
            del self.gone[note.id]
            self.counts[REMOVED] -= 1
            self.later.add(note.id)
        self.left += item.left
        if item.remarks:
            self.remarks.update(item.remarks)
        person = person_of(note)
        if person and (person, note.patient) not in self.known_people:
            self.known_people.add((person, note.patient))
            self.people.append((person, note.patient))

    def flush(self) -> None:
        """Make what was seen durable."""
        moved = self.mark and self.mark != self.store.head.mark
        counts = {reason: count for reason, count in self.counts.items() if count}
        if self.notes or counts or self.done or moved or self.met:
            read = Read(
                skipped=tuple(self.without),
                amended=frozenset(self.later),
                removed=tuple(self.gone),
                seen=tuple(sorted(self.met)),
                versions=self.versions,
                people=tuple(self.people),
            )
            notes = [*self.notes.values()]
            self.store.add(notes, counts, self.mark, self.done, read)
            self.taken += len(notes) - len(self.later)
            self.amended += len(self.later)
            self.removed += counts.pop(REMOVED, 0)
            self.skipped.update(counts)
        self._empty()


def _older(version: str, known: str) -> bool:
    """Whether a row is of an earlier version than what was taken."""
    return bool(version and known) and version_key(version) < version_key(known)
