"""Identified notes at rest: segments in one file of the identified zone, encrypted, counted, and
kept for a limited time.

A segment, the mark up to which the source was read, and the ids and files that it came from are
written in one transaction, so that a killed process loses nothing and takes nothing twice.
Everything is sealed with AES-256-GCM under a key derived from the zone's key, which is never
stored; a segment's number and count and the store's own random name are authenticated with it, so
that none can be swapped, cut or dropped unnoticed. The whole file replaced by an older copy of
itself cannot be told from the file alone.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from hashlib import blake2b, sha256
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from residency.core.errors import GateRefused, UserError
from residency.core.types import RawNote, Value

T = TypeVar("T", bound=msgspec.Struct)
SETTINGS = (
    "auto_vacuum=INCREMENTAL",
    "journal_mode=WAL",
    "synchronous=FULL",
    "secure_delete=ON",
    "cache_size=-32768",
)
ZLIB = b"\x78"
"""How a compressed segment begins; a list of notes begins otherwise."""
WAL_PAGES = 16_384
"""Pages of the write-ahead log after which a reading moves them into the database."""
TABLES = """
CREATE TABLE IF NOT EXISTS sealed (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY, notes INTEGER NOT NULL, taken_at
    TEXT NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS taken (id BLOB PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recent (id BLOB NOT NULL, content BLOB NOT NULL, version TEXT NOT NULL,
    reading INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS files (name BLOB PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (at TEXT NOT NULL, what TEXT NOT NULL, segment INTEGER NOT NULL,
    rows INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS released (id BLOB PRIMARY KEY, outcome BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pending (id BLOB PRIMARY KEY, outcome BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS people (person BLOB, patient BLOB, sealed BLOB NOT NULL,
    PRIMARY KEY (person, patient)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erased (patient BLOB PRIMARY KEY) WITHOUT ROWID;
"""
ADDED = {"version": "TEXT NOT NULL DEFAULT ''", "reading": "INTEGER NOT NULL DEFAULT 0"}
"""Columns of ``taken`` that stores of earlier versions lack."""
MOST_RECENT = 50_000
"""Ids that a reading keeps in the order in which it meets them before they are sorted into
``taken``: where each segment's go there at once, most pages of the tree are written for each."""
AMENDED = "amended"
REMOVED = "removed: no longer at the source"


class StoreHead(Value, frozen=True):
    """How far an extraction is."""

    store: str
    """Random name, a part of what every segment is authenticated with."""
    source: str = ""
    """Hash of the settings that say what a note is; another source begins anew, and takes what it
    has not taken."""
    mark: tuple[str, str] | None = None
    """(type, value) of the mark of the last row that was taken."""
    first: int = 1
    """Lowest segment that is still kept."""
    last: int = 0
    """Highest segment."""
    reading: int = 0
    """Which reading of the source this is."""
    keyed: str = ""
    """What makes the keyed hashes: ``blake2b``, or HMAC-SHA-256 in stores of earlier versions."""
    final: bool = False
    """The corpus was anonymised and its vault destroyed: nothing is taken any more."""
    counts: dict[str, int] = {}
    """``taken``, ``AMENDED`` and ``REMOVED``, and reasons for rows that were not taken, over the
    store's whole life."""


class Taken(NamedTuple):
    """What is known of an id."""

    content: bytes
    """Keyed content of the note; nothing (``b""``) where a row was not taken, or its note was
    removed."""
    version: str
    reading: int
    """The last reading in which it was at the source; 0 where an earlier version took it."""


class Packed(NamedTuple):
    """A note as a segment holds it."""

    id: str
    data: bytes
    content: bytes
    """Keyed content, as of ``Taken``."""


class Merged(Value, frozen=True):
    """Patients whose records were merged: patient -> who it is."""

    into: dict[str, str] = {}


class Read(Value, frozen=True):
    """What is to be stored of a reading beside new notes: ids, and what became of them."""

    skipped: tuple[str, ...] = ()
    """Rows that were not taken, the first time."""
    amended: frozenset[str] = frozenset()
    """Of the notes, those of which an earlier version was taken."""
    removed: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    """Ids that were met and are as they were."""
    versions: dict[str, str] = {}
    people: tuple[tuple[str, str], ...] = ()
    """(Name and birth date, patient) that were met."""


class Store:
    """The segments of one recipe; use ``open``."""

    def __init__(self, path: Path, key: bytes, database: sqlite3.Connection) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.path, self.database = path, database
        self._cipher = AESGCM(hmac.new(key, b"segments", sha256).digest())
        self._index = hmac.new(key, b"segments index", sha256).digest()
        self.head = StoreHead(store="")
        self._recent: dict[bytes, Taken] = {}
        self._at_once = True

    @classmethod
    def open(cls, folder: Path, name: str, key: bytes) -> Self:
        """The store of a recipe in a zone's folder; a new one where there is none.

        Raises ``GateRefused`` for a wrong key or a store that was tampered with, ``UserError`` for
        a file that is none.
        """
        path = folder / f"{name}.notes.sqlite"
        before = os.umask(0o077)
        try:
            try:
                database = sqlite3.connect(path, timeout=30, isolation_level=None)
            except sqlite3.Error:
                raise UserError(f"{path}: cannot be opened; check the folder.") from None
            store = cls(path, key, database)
            with store.faults():
                store._prepare()
        finally:
            os.umask(before)
        return store

    def _prepare(self) -> None:
        """Make the tables where there are none, and read and check the head."""
        for setting in SETTINGS:
            self.database.execute(f"PRAGMA {setting}")
        self.database.executescript(TABLES)
        there = {row[1] for row in self.database.execute("PRAGMA table_info(taken)")}
        for name, kind in ADDED.items():
            if name not in there:
                self.database.execute(f"ALTER TABLE taken ADD COLUMN {name} {kind}")
        if self._first("SELECT EXISTS (SELECT 1 FROM recent)"):  # a reading was killed
            self._settle_recent()
        head = self.get("head", StoreHead)
        if head is None:
            if self._first("SELECT EXISTS (SELECT 1 FROM segments)"):
                raise GateRefused(f"{self.path}: was tampered with; restore it from a backup.")
            head = StoreHead(store=os.urandom(16).hex(), keyed="blake2b")
            self.put("head", head)
        self.head = head
        numbers = self.database.execute("SELECT number FROM segments ORDER BY number").fetchall()
        if [number for (number,) in numbers] != list(range(head.first, head.last + 1)):
            raise GateRefused(
                f"{self.path}: segments are missing or were added; restore it from a backup."
            )

    def close(self) -> None:
        """Let go of the file."""
        self.database.close()

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn what SQLite says into one clear sentence."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error) or "I/O" in str(error):
                raise UserError(
                    f"{self.path}: cannot be written (disk full?); free space, then run again: it "
                    "goes on where it was."
                ) from None
            raise UserError(
                f"{self.path}: cannot be used ({type(error).__name__}); check the folder and "
                "whether another command runs."
            ) from None
        except sqlite3.DatabaseError:
            raise UserError(
                f"{self.path}: is not a store of notes, or is damaged; restore it from a backup, "
                "or begin with another name and zone."
            ) from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All of what follows, or nothing of it."""
        with self.faults():
            head = self.head
            self.database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.database.execute("COMMIT")
            except BaseException:
                self.head = head
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")
                raise

    # Sealed values

    def put(self, name: str, value: msgspec.Struct) -> None:
        """Keep a value under a name."""
        sealed = self._encrypt(msgspec.json.encode(value), name)
        self.database.execute("INSERT OR REPLACE INTO sealed VALUES (?, ?)", (name, sealed))

    def get(self, name: str, kind: type[T]) -> T | None:
        """The value under a name, if there is one."""
        value = self._first("SELECT value FROM sealed WHERE name = ?", name)
        return msgspec.json.decode(self._decrypt(value, name), type=kind) if value else None

    def forget(self, beginning: str) -> None:
        """Forget the values whose names begin so."""
        self.database.execute("DELETE FROM sealed WHERE name GLOB ?", (f"{beginning}*",))

    def _encrypt(self, value: bytes, name: str) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, value, name.encode())

    def _decrypt(self, value: bytes, name: str) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(value[:12], value[12:], name.encode())
        except (InvalidTag, ValueError):
            raise GateRefused(
                f"{self.path}: cannot be opened with this key, or was tampered with; check the "
                "key's variable."
            ) from None

    # What was taken

    def hash_with_key(self, text: str | bytes) -> bytes:
        """What stands for an id or a content outside the sealed values."""
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        if self.head.keyed:  # several times as fast
            return blake2b(data, key=self._index, digest_size=16).digest()
        return hmac.digest(self._index, data, "sha256")[:16]

    def taken(self, id: str) -> Taken | None:
        """What is known of an id; None where it was never met."""
        return self.known([id])[id]

    def known(self, ids: Iterable[str]) -> dict[str, Taken | None]:
        """The same of several ids (at most 1,000)."""
        names = {id: self.hash_with_key(id) for id in ids}
        query = "SELECT id, content, version, reading FROM taken WHERE id IN (%s)"
        rows = self.database.execute(query % ",".join("?" * len(names)), [*names.values()])
        found = {row[0]: Taken(*row[1:]) for row in rows}
        recent = self._recent.get
        return {id: recent(name) or found.get(name) for id, name in names.items()}

    def is_content(self, known: bytes, note: RawNote) -> bool:
        """Whether a keyed content is that of a note, by this version of this package or an earlier
        one."""
        forms = chain((content(note),), contents_before(note))
        return any(known == self.hash_with_key(form) for form in forms)

    def erased(self) -> set[bytes]:
        """Keyed ids of patients who were erased: nothing of theirs is taken any more."""
        return {patient for (patient,) in self.database.execute("SELECT patient FROM erased")}

    def file(self, name: str) -> bytes | None:
        """The keyed content of a file that was taken."""
        query = "SELECT content FROM files WHERE name = ?"
        found: bytes | None = self._first(query, self.hash_with_key(name))
        return found

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Another reading of the source. What it stores is on the disk at its end; where power
        fails before, the next one goes on at an earlier segment."""
        with self.writing():
            self._change_head(reading=self.head.reading + 1)
        self.database.execute("PRAGMA synchronous=NORMAL")
        self.database.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        self._at_once = False
        try:
            yield
        finally:
            self._at_once = True
            self._settle_recent()
            with self.faults():
                self.database.execute("PRAGMA wal_checkpoint").fetchall()
            self.database.execute("PRAGMA synchronous=FULL")

    def add(
        self,
        notes: Sequence[Packed],
        counts: Mapping[str, int] = MappingProxyType({}),
        mark: tuple[str, str] | None = None,
        files: Iterable[tuple[str, bytes]] = (),
        read: Read = Read(),
    ) -> None:
        """A segment, what else was read with it, and how far that is: all of it, or nothing."""
        with self.writing():
            total, new = Counter(self.head.counts), len(notes) - len(read.amended)
            total.update(counts)
            for name, count in (("taken", new), (AMENDED, len(read.amended))):
                total.update({name: count} if count else {})
            number = self.head.last + bool(notes)
            if notes:
                now, sealed = _now(), self._seal([one.data for one in notes], number)
                self.database.execute(
                    "INSERT INTO segments VALUES (?, ?, ?, ?)", (number, len(notes), now, sealed)
                )
                self._log("taken", number, len(notes))
            for reason, count in counts.items():
                self._log("not taken", number, count, reason)
            recent = self._note_ids(notes, read)
            self._note_people(read.people)
            rows = [(self.hash_with_key(name), found) for name, found in files]
            self.database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", rows)
            self._change_head(last=number, counts=dict(total), mark=mark or self.head.mark)
        self._recent |= recent
        if self._at_once or len(self._recent) > MOST_RECENT:
            self._settle_recent()

    def _note_ids(self, notes: Sequence[Packed], read: Read) -> dict[bytes, Taken]:
        """Keep what became of the ids of a reading; gives it."""
        reading, hashed, version = self.head.reading, self.hash_with_key, read.versions.get
        rows = [(hashed(one.id), one.content, version(one.id, ""), reading) for one in notes]
        others = (*read.removed, *read.skipped)
        rows += [(hashed(id), b"", version(id, ""), reading) for id in others]
        self.database.executemany("INSERT INTO recent VALUES (?, ?, ?, ?)", rows)
        self.database.executemany(
            "UPDATE taken SET reading = ? WHERE id = ?", [(reading, hashed(id)) for id in read.seen]
        )
        return {row[0]: Taken(*row[1:]) for row in rows}

    def _settle_recent(self) -> None:
        """Sort the ids of this reading into those that were taken before, the last word on each."""
        with self.writing():
            self.database.execute(
                "INSERT OR REPLACE INTO taken (id, content, version, reading) "
                "SELECT id, content, version, reading FROM recent ORDER BY id, rowid"
            )
            self.database.execute("DELETE FROM recent")
        self._recent.clear()

    def remove_absent(self, most: float) -> int:
        """Remove the notes that this reading, of the whole source, did not meet; how many.

        Raises ``UserError`` where that is more than a share: then nothing is removed.
        """
        self._settle_recent()
        gone = "FROM taken WHERE length(content) > 0 AND reading < ?"
        count = int(self._first(f"SELECT count(*) {gone}", self.head.reading))
        known = int(self._first("SELECT count(*) FROM taken WHERE length(content) > 0"))
        if count > most * known:
            raise UserError(
                f"extract.absent: {count:,} of {known:,} notes are no longer at the source, more "
                f"than {most:.0%}; check that it is whole, or allow more."
            )
        if count:
            with self.writing():
                self.database.execute(
                    f"UPDATE taken SET content = x'' {gone.removeprefix('FROM taken ')}",
                    (self.head.reading,),
                )
                self._log("not taken", self.head.last, count, REMOVED)
                total = Counter(self.head.counts) + Counter({REMOVED: count})
                self._change_head(counts=dict(total))
        return count

    def sweep(self) -> None:
        """Leave no version in the segments that was amended or removed since."""
        for number in self.numbers(0):
            every = self._segment(number)
            if len(kept := self._current(every)) < len(every):
                with self.writing():
                    self._rewrite(number, kept, len(every) - len(kept), "a later version, or none")
        self._shrink()

    # People, and who they are

    def _note_people(self, people: Iterable[tuple[str, str]]) -> None:
        rows = []
        for person, patient in people:
            key, name = self.hash_with_key(person), self.hash_with_key(patient)
            rows.append((key, name, self._encrypt(patient.encode(), f"people/{name.hex()}")))
        self.database.executemany("INSERT OR IGNORE INTO people VALUES (?, ?, ?)", rows)

    def namesakes(self) -> list[list[str]]:
        """Sets of patients who share a name and a birth date."""
        found: dict[bytes, list[str]] = {}
        query = (
            "SELECT person, patient, sealed FROM people WHERE person IN "
            "(SELECT person FROM people GROUP BY person HAVING count(*) > 1)"
        )
        for person, name, sealed in self.database.execute(query):
            patient = self._decrypt(sealed, f"people/{name.hex()}").decode()
            found.setdefault(person, []).append(patient)
        return [sorted(patients) for patients in found.values()]

    # What became of notes

    def note_outcomes(self, outcomes: Iterable[tuple[str, str]]) -> None:
        """Keep what became of notes (hospital's id, released id or ``!`` and the reason), until
        they are released."""
        rows = [
            (name := self.hash_with_key(id), self._encrypt(what.encode(), f"out/{name.hex()}"))
            for id, what in outcomes
        ]
        self.database.executemany("INSERT OR REPLACE INTO pending VALUES (?, ?)", rows)

    def outcomes(self, query: str) -> Iterator[tuple[bytes, str]]:
        """(Keyed id, what became of it) of a table or a part of one."""
        for name, sealed in self.database.execute(f"SELECT id, outcome FROM {query}").fetchall():
            yield name, self._decrypt(sealed, f"out/{name.hex()}").decode()

    def outdated(self) -> list[str]:
        """Ids of released notes whose records are no longer at the source."""
        query = "released WHERE id IN (SELECT id FROM taken WHERE length(content) = 0)"
        return [what for _, what in self.outcomes(query)]

    def settle_outcomes(self) -> None:
        """What was pending is released now; within ``writing``."""
        self.database.execute(
            "DELETE FROM released WHERE id IN (SELECT id FROM taken WHERE length(content) = 0)"
        )
        self.database.execute(
            "INSERT OR REPLACE INTO released SELECT * FROM pending WHERE id IN "
            "(SELECT id FROM taken WHERE length(content) > 0)"
        )
        self.forget_outcomes()

    def forget_outcomes(self) -> None:
        """Nothing is pending; within ``writing``."""
        self.database.execute("DELETE FROM pending")

    def _first(self, statement: str, *values: object) -> Any:
        """The first column of the first row of a query, None where there is no row."""
        row = self.database.execute(statement, values).fetchone()
        return row[0] if row else None

    def _log(self, what: str, segment: int, rows: int, reason: str = "") -> None:
        """A line in the ledger."""
        line = (_now(), what, segment, rows, reason)
        self.database.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", line)

    def _change_head(self, **changes: Any) -> None:
        self.head = msgspec.structs.replace(self.head, **changes)
        self.put("head", self.head)

    def pack(self, note: RawNote) -> Packed:
        """A note as a segment holds it."""
        return Packed(note.id, data := content(note), self.hash_with_key(data))

    def _seal(self, notes: Sequence[bytes], number: int) -> bytes:
        """A segment of notes. They are not compressed: that took a third of an extraction's time,
        as segments of earlier versions were."""
        packed = msgspec.msgpack.encode([*map(msgspec.Raw, notes)])
        return self._encrypt(packed, self._name(number, len(notes)))

    def restart(self, source: str) -> None:
        """The source was changed: read it from its beginning, and take what was not taken."""
        with self.writing():
            self.database.execute("DELETE FROM files")
            self._change_head(source=source, mark=None)

    def end(self) -> None:
        """Take nothing any more, and keep no identified note."""
        self.expire(0, "anonymised", upto=self.head.last)
        with self.writing():
            self._change_head(final=True)

    # Segments

    def _name(self, number: int, notes: int) -> str:
        return f"{self.head.store}/{number}/{notes}"

    def numbers(self, after: int) -> range:
        """Segments beyond one that are still kept."""
        return range(max(after + 1, self.head.first), self.head.last + 1)

    def read(self, number: int) -> list[RawNote]:
        """The notes of a segment, those left out of which a later version was taken or that were
        removed since; raises ``GateRefused`` where it was tampered with or cut."""
        return self._current(self._segment(number))

    def _current(self, notes: list[RawNote]) -> list[RawNote]:
        """Those that are as they were taken last; what an earlier version of this package took
        counts."""
        return [
            note
            for note in notes
            if (known := self.taken(note.id)) is None
            or not known.reading
            or self.is_content(known.content, note)
        ]

    def _segment(self, number: int) -> list[RawNote]:
        """All that a segment holds."""
        with self.faults():
            row = self.database.execute(
                "SELECT notes, value FROM segments WHERE number = ?", (number,)
            ).fetchone()
        if row is None:
            raise GateRefused(
                f"{self.path}: segment {number} is missing; restore it from a backup."
            )
        packed = self._decrypt(row[1], self._name(number, row[0]))
        if packed.startswith(ZLIB):
            packed = zlib.decompress(packed)
        return msgspec.msgpack.decode(packed, type=list[RawNote])

    def held(self) -> int:
        """Notes in the segments that are kept."""
        return int(self._first("SELECT coalesce(sum(notes), 0) FROM segments"))

    def expire(self, days: int, reason: str = "kept long enough", upto: int | None = None) -> int:
        """Remove segments that are older, or all up to a number, with a line in the ledger; how
        many notes that is."""
        before = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
        # The oldest are the lowest, save where a clock was set back.
        last = upto
        if last is None:
            last = self._first("SELECT max(number) FROM segments WHERE taken_at < ?", before)
        query = "SELECT number, notes FROM segments WHERE number <= ? ORDER BY number"
        gone = self.database.execute(query, (last,)).fetchall()
        if not gone:
            return 0
        with self.writing():
            self.database.execute("DELETE FROM segments WHERE number <= ?", (last,))
            for number, count in gone:
                self._log("removed", number, count, reason)
            self._change_head(first=gone[-1][0] + 1)
        self._shrink()
        return sum(count for _, count in gone)

    def erase(self, matches: Callable[[RawNote], bool], patients: Iterable[str] = ()) -> int:
        """Remove the notes that match, a patient's, from every segment, and what else is known of
        ``patients`` (the hospital's ids); how many notes. Nothing of theirs is taken any more."""
        gone, names = 0, set(patients)
        for number in self.numbers(0):
            notes = self._segment(number)
            kept = [note for note in notes if not matches(note)]
            names |= {note.patient for note in notes if matches(note)}
            if len(kept) < len(notes):
                with self.writing():
                    self._rewrite(number, kept, len(notes) - len(kept), "erasure")
            gone += len(notes) - len(kept)
        with self.writing():
            hashes = [(self.hash_with_key(name),) for name in names]
            self.database.executemany("INSERT OR IGNORE INTO erased VALUES (?)", hashes)
            self.database.executemany("DELETE FROM people WHERE patient = ?", hashes)
        self._shrink()
        return gone

    def forget_released(self, notes: Collection[str]) -> None:
        """Forget which records released notes were made of."""
        for table in ("released", "pending"):
            names = [(name,) for name, what in self.outcomes(table) if what in notes]
            with self.writing():
                self.database.executemany(f"DELETE FROM {table} WHERE id = ?", names)

    def _rewrite(self, number: int, kept: Sequence[RawNote], gone: int, reason: str) -> None:
        """Replace a segment by a smaller one; within ``writing``."""
        self.database.execute(
            "UPDATE segments SET notes = ?, value = ? WHERE number = ?",
            (len(kept), self._seal([*map(content, kept)], number), number),
        )
        self._log("removed", number, gone, reason)

    def _shrink(self) -> None:
        """Give freed pages back, and leave no old ones in the write-ahead log."""
        with self.faults():
            self.database.execute("PRAGMA incremental_vacuum").fetchall()
            self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def ledger(self) -> list[tuple[Any, ...]]:
        """(when, what, segment, rows, reason) of everything that was taken, not taken or removed;
        no text, no id."""
        return self.database.execute(
            "SELECT at, what, segment, rows, reason FROM ledger ORDER BY rowid"
        ).fetchall()


content: Callable[[RawNote], bytes] = msgspec.msgpack.Encoder().encode
"""What makes a note another version under the same id: the note as a segment holds it."""


def contents_before(note: RawNote) -> Iterator[bytes]:
    """The same, as earlier versions of this package had it."""
    first = f"{note.patient}\0{note.text}".encode("utf-8", "surrogatepass")
    yield first
    rest = msgspec.structs.replace(note, id="", text="", patient="")
    yield first + b"\0" + msgspec.json.encode(rest)
    if note.written_at and note.written_at.tzinfo:
        # A segment holds the moment alone, so that such a note was not found again in it.
        for quarters in range(-4 * 12, 4 * 14 + 1):
            zone = timezone(timedelta(minutes=15 * quarters))
            there = msgspec.structs.replace(rest, written_at=note.written_at.astimezone(zone))
            yield first + b"\0" + msgspec.json.encode(there)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
