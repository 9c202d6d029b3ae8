"""The audit log: who asked when, of which model, with what outcome; lines that are chained under a
key, never rewritten.

One chain per worker process, in a file of its own (``audit-<worker>-<start>.jsonl``, 0600 in a
folder of 0700). Each line carries the hash of the line before it and its own, an HMAC-SHA-256 under
a key derived from the log key: without the key none can be made anew. A chain's first line names
the last lines of the chains before it, ``<chain>.head`` its newest line, ``chains-<key>.json`` all
chains that were signed with a key. So an edited, removed, inserted or reordered line, a cut tail
and a missing file are found.

What no file in the same folder can show: that the *whole* folder was put back to an older copy of
itself, and lines that someone with the log key wrote anew. Against the first, the newest lines
(``verify`` names them) are written down elsewhere.

When a line is safe: each is handed to the operating system before the answer ends, so a killed
process loses none; it is forced to disk once a second and at the end, so a power cut can lose the
last second.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self

import msgspec

from residency.core.errors import UserError
from residency.core.files import reason
from residency.core.types import Value
from residency.serve.types import Refusal

GLOB = "audit-*.jsonl"
LISTS = "chains-*.json"
LARGEST = 128 * 2**20
"""Bytes after which a worker goes on in a new file; a new day begins one too."""

Outcome = Literal["ok", "refused", "failed", "cancelled", "timeout"]
What = Literal["open", "request", "admin", "close"]


class Anchor(Value, frozen=True):
    """A line that a chain is known to hold."""

    chain: str
    """Name of its file."""
    n: int
    hash: str
    torn: int = 0
    """Bytes of a line after it that was never finished: the process was killed while it wrote."""
    rest: str = ""
    """SHA-256 of those bytes."""


class Request(Value, frozen=True):
    """What is kept of a request: nothing of what was said in it."""

    user: str
    """Hash of the user id."""
    route: str
    status: int
    outcome: Outcome
    ms: float
    model: str = ""
    """Digest of the artefact that answered."""
    input_tokens: int = 0
    output_tokens: int = 0
    request: str = ""
    """The server's own number of the request."""


class Line(Value, frozen=True):
    """One line of a chain, but for its own hash, which follows it."""

    n: int
    at: datetime
    what: What
    previous: str
    """Hash of the line before; of the first line, empty."""
    entry: Request | None = None
    chain: str = ""
    """First line: the file's own name."""
    key: str = ""
    """First line: which key signs, by a fingerprint that says nothing of it."""
    before: tuple[Anchor, ...] = ()
    """First line: last lines of chains that no other chain has named yet."""


class Head(Value, frozen=True):
    """The newest line of a chain, beside it."""

    n: int
    hash: str
    mac: str


class Chains(Value, frozen=True):
    """The chains of a folder that one key signs."""

    names: tuple[str, ...]
    mac: str


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)


class Audit:
    """The chain that a worker writes; use ``open``. Safe for several threads."""

    def __init__(
        self, folder: Path, worker: int, key: bytes, clock: Callable[[], datetime], every: float
    ) -> None:
        self.folder, self.worker, self.clock, self.every = folder, worker, clock, every
        self._key, self._lock, self._end = signing(key), threading.Lock(), threading.Event()
        self._file, self._head, self._dirty = -1, -1, False
        self._begin()
        self._syncing = threading.Thread(target=self._sync, name="audit", daemon=True)
        self._syncing.start()

    @classmethod
    def open(
        cls,
        folder: Path,
        worker: int,
        key: bytes,
        clock: Callable[[], datetime] = now,
        every: float = 1.0,
    ) -> Self:
        """A new chain of a worker in a folder, forced to disk ``every`` so many seconds.

        Raises ``UserError`` where the folder cannot be written.
        """
        try:
            return cls(folder, worker, key, clock, every)
        except OSError as error:
            raise UserError(
                f"{folder}: {reason(error)[:-1]}; the server keeps its audit log there."
            ) from None

    def write(self, entry: Request, what: Literal["request", "admin"] = "request") -> None:
        """Add a line. Raises ``Refusal`` (503) where it cannot be written: what cannot be accounted
        for is not answered."""
        with self._lock:
            try:
                if self._end.is_set():
                    raise OSError("closed")
                at = self.clock()
                if self._file < 0 or at.date() != self._day or self._size > LARGEST:
                    self._finish(at)
                    self._begin()
                self._append(Line(n=self._n, at=at, what=what, previous=self._last, entry=entry))
            except OSError:
                raise Refusal(
                    503,
                    "audit",
                    "The audit log cannot be written; nothing is answered until it can.",
                ) from None

    def close(self) -> None:
        """End the chain in good order."""
        self._end.set()
        self._syncing.join(timeout=5)
        with self._lock, suppress(OSError):
            self._finish(self.clock())

    def _begin(self) -> None:
        """A new file with its first line, named in the list of chains."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        with locked(self.folder):
            at = self.clock()
            while (
                path := self.folder / f"audit-{self.worker}-{at:%Y%m%dT%H%M%S%f}Z.jsonl"
            ).exists():
                at += timedelta(microseconds=1)
            first = Line(
                n=0,
                at=at,
                what="open",
                previous="",
                chain=path.name,
                key=fingerprint(self._key),
                before=tuple(_tips(self.folder)),
            )
            self.path, self._day, self._size = path, at.date(), 0
            partial = path.with_suffix(".partial")
            try:
                self._file = os.open(
                    partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600
                )
                self._head = os.open(head_of(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                self._append(first)
                os.fsync(self._file)
                partial.rename(path)
                _list(self.folder, path.name, self._key)
            except OSError:
                self._shut()
                for left in (partial, *([head_of(path)] if not path.exists() else [])):
                    left.unlink(missing_ok=True)
                raise

    def _append(self, line: Line) -> None:
        if self._file < 0:
            raise OSError("closed")
        data, own = signed(line, self._key)
        try:
            if os.write(self._file, data) != len(data):
                raise OSError("a full disk")
        except OSError:
            os.ftruncate(self._file, self._size)  # half a line must not stand before the next one
            raise
        self._n, self._last, self._size, self._dirty = line.n + 1, own, self._size + len(data), True
        os.pwrite(self._head, head(self.path.name, line.n, own, self._key), 0)

    def _finish(self, at: datetime) -> None:
        if self._file < 0:
            return
        try:
            self._append(Line(n=self._n, at=at, what="close", previous=self._last))
            os.fsync(self._file)
            os.fsync(self._head)
        finally:
            self._shut()

    def _shut(self) -> None:
        for file in (self._file, self._head):
            if file >= 0:
                os.close(file)
        self._file = self._head = -1

    def _sync(self) -> None:
        while not self._end.wait(self.every):
            with self._lock:
                if self._file < 0 or not self._dirty:
                    continue
                self._dirty, copy = False, os.dup(self._file)
            try:
                os.fsync(copy)  # outside the lock: a slow disk holds up no answer
            except OSError:
                self._dirty = True
            finally:
                os.close(copy)


def signing(key: bytes) -> bytes:
    """The key of the chains, from the log key."""
    return hmac.new(key, b"residency audit 1", sha256).digest()


def fingerprint(signing_key: bytes) -> str:
    """Which key it is, without saying anything of it."""
    return hmac.new(signing_key, b"fingerprint", sha256).hexdigest()[:16]


def signed(line: Line, signing_key: bytes) -> tuple[bytes, str]:
    """A line as it stands in the file, and its hash: over its bytes as they are, so that not even a
    space can change."""
    body = msgspec.json.encode(line)[:-1]
    own = hmac.new(signing_key, body, sha256).hexdigest()
    return body + b',"hash":"' + own.encode() + b'"}\n', own


def head(chain: str, n: int, own: str, signing_key: bytes) -> bytes:
    """The head file's content; always of one length, so that it is written over in place."""
    mac = hmac.new(signing_key, f"head {chain} {n} {own}".encode(), sha256).hexdigest()
    return msgspec.json.encode(Head(n=n, hash=own, mac=mac)).ljust(200) + b"\n"


def head_of(path: Path) -> Path:
    """The head file of a chain."""
    return path.with_suffix(".head")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone in a folder: two workers that start together see each other's chain."""
    file = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def chains_mac(names: Sequence[str], signing_key: bytes) -> str:
    """What authenticates the list of chains."""
    return hmac.new(signing_key, ("chains " + " ".join(names)).encode(), sha256).hexdigest()


def _list(folder: Path, name: str, signing_key: bytes) -> None:
    """Add a chain to the list of its key. A list that is gone or false begins anew, and so lacks
    what ``verify`` then misses."""
    path = folder / LISTS.replace("*", fingerprint(signing_key))
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Chains)
        names = (
            known.names
            if hmac.compare_digest(known.mac, chains_mac(known.names, signing_key))
            else ()
        )
    except (OSError, msgspec.DecodeError):
        names = ()
    names = (*names, name)
    partial = path.with_suffix(".partial")
    partial.write_bytes(
        msgspec.json.encode(Chains(names=names, mac=chains_mac(names, signing_key))) + b"\n"
    )
    partial.chmod(0o600)
    partial.replace(path)


def _tips(folder: Path) -> Iterator[Anchor]:
    """Last lines of the folder's chains that no chain has named yet."""
    paths = sorted(folder.glob(GLOB))
    named = {(one.chain, one.n) for path in paths for one in _first(path)}
    for path in paths:
        found = tip(path)
        if found is not None and (found.chain, found.n) not in named:
            yield found


def _first(path: Path) -> tuple[Anchor, ...]:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.readline(), type=Line).before
    except (OSError, msgspec.DecodeError):
        return ()


def tip(path: Path) -> Anchor | None:
    """The last finished line of a chain and what stands after it; nothing where it has none."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**22))
        *lines, rest = file.read().split(b"\n")
    for line in reversed(lines):
        with suppress(msgspec.DecodeError):
            found = msgspec.json.decode(line, type=Hashed)
            torn = {"torn": len(rest), "rest": sha256(rest).hexdigest()} if rest else {}
            return msgspec.convert(
                {"chain": path.name, "n": found.n, "hash": found.hash, **torn}, Anchor
            )
    return None


class Hashed(msgspec.Struct, frozen=True):
    """Number and hash of a line."""

    n: int
    hash: str
