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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from residency.core.errors import GateRefused, UserError
from residency.core.types import RawNote, Value

T = TypeVar("T", bound=msgspec.Struct)
SCHEMA = 1
TABLES = """
CREATE TABLE IF NOT EXISTS sealed (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY, notes INTEGER NOT NULL, taken_at TEXT NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS taken (id BLOB PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (name BLOB PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (at TEXT NOT NULL, what TEXT NOT NULL, segment INTEGER NOT NULL, rows INTEGER NOT NULL, reason TEXT NOT NULL);
"""


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
    final: bool = False
    """The corpus was anonymised and its vault destroyed: nothing is taken any more."""
    counts: dict[str, int] = {}
    """``taken``, and reasons for rows that were not, over the store's whole life."""


class Store:
    """The segments of one recipe; use ``open``."""

    def __init__(self, path: Path, key: bytes, database: sqlite3.Connection) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.path, self.database = path, database
        self._cipher = AESGCM(hmac.new(key, b"segments", sha256).digest())
        self._index = hmac.new(key, b"segments index", sha256).digest()
        self.head = StoreHead(store="")

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
                database.execute("PRAGMA auto_vacuum=INCREMENTAL")
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=FULL")
                database.execute("PRAGMA secure_delete=ON")
                database.executescript(TABLES)
                head = store.get("head", StoreHead)
                if head is None:
                    if database.execute("SELECT EXISTS (SELECT 1 FROM segments)").fetchone()[0]:
                        raise GateRefused(f"{path}: was tampered with; restore it from a backup.")
                    head = StoreHead(store=os.urandom(16).hex())
                    store.put("head", head)
                store.head = head
                numbers = [
                    row[0]
                    for row in database.execute("SELECT number FROM segments ORDER BY number")
                ]
                if numbers != list(range(head.first, head.last + 1)):
                    raise GateRefused(
                        f"{path}: segments are missing or were added; restore it from a backup."
                    )
        finally:
            os.umask(before)
        return store

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
        sealed = self._sealed(msgspec.json.encode(value), name)
        self.database.execute("INSERT OR REPLACE INTO sealed VALUES (?, ?)", (name, sealed))

    def get(self, name: str, kind: type[T]) -> T | None:
        """The value under a name, if there is one."""
        row = self.database.execute("SELECT value FROM sealed WHERE name = ?", (name,)).fetchone()
        return msgspec.json.decode(self._opened(row[0], name), type=kind) if row else None

    def _sealed(self, value: bytes, name: str) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, value, name.encode())

    def _opened(self, value: bytes, name: str) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(value[:12], value[12:], name.encode())
        except (InvalidTag, ValueError):
            raise GateRefused(
                f"{self.path}: cannot be opened with this key, or was tampered with; check the "
                "key's variable."
            ) from None

    # What was taken

    def keyed(self, text: str | bytes) -> bytes:
        """What stands for an id or a content outside the sealed values."""
        return hmac.new(
            self._index,
            text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"),
            sha256,
        ).digest()[:16]

    def taken(self, id: str) -> bytes | None:
        """The keyed content of a note that was taken; nothing (``b""``) for a row that was not."""
        row = self.database.execute(
            "SELECT content FROM taken WHERE id = ?", (self.keyed(id),)
        ).fetchone()
        return row[0] if row else None

    def file(self, name: str) -> bytes | None:
        """The keyed content of a file that was taken."""
        row = self.database.execute(
            "SELECT content FROM files WHERE name = ?", (self.keyed(name),)
        ).fetchone()
        return row[0] if row else None

    def add(
        self,
        notes: Sequence[RawNote],
        counts: dict[str, int] | None = None,
        mark: tuple[str, str] | None = None,
        files: Iterable[tuple[str, bytes]] = (),
        skipped: Iterable[str] = (),
        changed: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        """A segment, what else was read with it, and how far that is: all of it, or nothing."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self.writing():
            total = Counter(self.head.counts)
            total.update({**(counts or {}), **({"taken": len(notes)} if notes else {})})
            number = self.head.last + bool(notes)
            self.head = msgspec.structs.replace(
                self.head, last=number, counts=dict(total), mark=mark or self.head.mark
            )
            if notes:
                packed = zlib.compress(msgspec.msgpack.encode(notes), 1)
                sealed = self._sealed(packed, self._name(number, len(notes)))
                self.database.execute(
                    "INSERT INTO segments VALUES (?, ?, ?, ?)", (number, len(notes), now, sealed)
                )
                self.database.execute(
                    "INSERT INTO ledger VALUES (?, 'taken', ?, ?, '')", (now, number, len(notes))
                )
                self.database.executemany(
                    "INSERT OR REPLACE INTO taken VALUES (?, ?)",
                    [(self.keyed(note.id), self.keyed(content(note))) for note in notes],
                )
            self.database.executemany(
                "INSERT INTO ledger VALUES (?, 'not taken', ?, ?, ?)",
                [(now, number, count, reason) for reason, count in (counts or {}).items()],
            )
            self.database.executemany(
                "INSERT OR IGNORE INTO taken VALUES (?, X'')", [(self.keyed(id),) for id in skipped]
            )
            self.database.executemany(
                "INSERT OR REPLACE INTO taken VALUES (?, ?)",
                [(self.keyed(id), now_is) for id, now_is in changed],
            )
            self.database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?)", [(self.keyed(n), c) for n, c in files]
            )
            self.put("head", self.head)

    def restart(self, source: str) -> None:
        """The source was changed: read it from its beginning, and take what was not taken."""
        with self.writing():
            self.head = msgspec.structs.replace(self.head, source=source, mark=None)
            self.database.execute("DELETE FROM files")
            self.put("head", self.head)

    def end(self) -> None:
        """Take nothing any more, and keep no identified note."""
        self.expire(0, "anonymised", upto=self.head.last)
        with self.writing():
            self.head = msgspec.structs.replace(self.head, final=True)
            self.put("head", self.head)

    # Segments

    def _name(self, number: int, notes: int) -> str:
        return f"{self.head.store}/{number}/{notes}"

    def numbers(self, after: int) -> range:
        """Segments beyond one that are still kept."""
        return range(max(after + 1, self.head.first), self.head.last + 1)

    def read(self, number: int) -> list[RawNote]:
        """The notes of a segment; raises ``GateRefused`` where it was tampered with or cut."""
        with self.faults():
            row = self.database.execute(
                "SELECT notes, value FROM segments WHERE number = ?", (number,)
            ).fetchone()
        if row is None:
            raise GateRefused(
                f"{self.path}: segment {number} is missing; restore it from a backup."
            )
        packed = self._opened(row[1], self._name(number, row[0]))
        return msgspec.msgpack.decode(zlib.decompress(packed), type=list[RawNote])

    def held(self) -> int:
        """Notes in the segments that are kept."""
        return int(
            self.database.execute("SELECT coalesce(sum(notes), 0) FROM segments").fetchone()[0]
        )

    def expire(self, days: int, reason: str = "kept long enough", upto: int | None = None) -> int:
        """Remove segments that are older, or all up to a number, with a line in the ledger; how
        many notes that is."""
        now = datetime.now(UTC)
        before = (now - timedelta(days=days)).isoformat(timespec="seconds")
        old = [
            (number, notes)
            for number, notes, taken in self.database.execute(
                "SELECT number, notes, taken_at FROM segments ORDER BY number"
            )
            if (taken < before if upto is None else number <= upto)
        ]
        if not old:
            return 0
        last = max(
            number for number, _ in old
        )  # the oldest are the lowest, save where a clock was set back
        gone = [
            (n, c)
            for n, c in self.database.execute("SELECT number, notes FROM segments")
            if n <= last
        ]
        with self.writing():
            self.database.execute("DELETE FROM segments WHERE number <= ?", (last,))
            self.database.executemany(
                "INSERT INTO ledger VALUES (?, 'removed', ?, ?, ?)",
                [
                    (now.isoformat(timespec="seconds"), number, count, reason)
                    for number, count in gone
                ],
            )
            self.head = msgspec.structs.replace(self.head, first=last + 1)
            self.put("head", self.head)
        self._shrink()
        return sum(count for _, count in gone)

    def erase(self, matches: Callable[[RawNote], bool]) -> int:
        """Remove the notes that match, a patient's, from every segment; how many. Their ids stay
        taken: they do not come back."""
        gone = 0
        for number in self.numbers(0):
            notes = self.read(number)
            kept = [note for note in notes if not matches(note)]
            if len(kept) == len(notes):
                continue
            with self.writing():
                sealed = self._sealed(
                    zlib.compress(msgspec.msgpack.encode(kept), 1), self._name(number, len(kept))
                )
                self.database.execute(
                    "UPDATE segments SET notes = ?, value = ? WHERE number = ?",
                    (len(kept), sealed, number),
                )
                now = datetime.now(UTC).isoformat(timespec="seconds")
                self.database.execute(
                    "INSERT INTO ledger VALUES (?, 'removed', ?, ?, 'erasure')",
                    (now, number, len(notes) - len(kept)),
                )
            gone += len(notes) - len(kept)
        self._shrink()
        return gone

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


def content(note: RawNote) -> str:
    """What makes a note another one under the same id."""
    return f"{note.patient}\0{note.text}"
