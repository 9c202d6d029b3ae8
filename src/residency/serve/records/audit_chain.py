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

import hmac
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self

import msgspec

from residency.core.errors import UserError
from residency.core.files import digest, locked, reason
from residency.core.types import Value
from residency.serve import Refusal

GLOB = "audit-*.jsonl"
LISTS = "chains-*.json"
ROOM = 4096
"""Bytes that readiness wants free for a line."""
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


class AuditEntry(Value, frozen=True):
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


class AuditLine(Value, frozen=True):
    """One line of a chain, but for its own hash, which follows it."""

    n: int
    at: datetime
    what: What
    previous: str
    """Hash of the line before; of the first line, empty."""
    entry: AuditEntry | None = None
    chain: str = ""
    """First line: the file's own name."""
    key: str = ""
    """First line: which key signs, by a fingerprint that says nothing of it."""
    before: tuple[Anchor, ...] = ()
    """First line: last lines of chains that no other chain has named yet."""


class ChainHead(Value, frozen=True):
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

    def write(self, entry: AuditEntry, what: Literal["request", "admin"] = "request") -> None:
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
                self._append(
                    AuditLine(n=self._n, at=at, what=what, previous=self._last, entry=entry)
                )
            except OSError:
                raise unwritable() from None

    def ready(self) -> bool:
        """Whether a line can be written at the moment: so many bytes find room beside it."""
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(bytes(ROOM))
                file.flush()
        except OSError:
            return False
        return not self._end.is_set()

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
            first = AuditLine(
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
                _list(self.folder, path.name, self._key)
            except OSError:
                self._shut()
                for left in (partial, head_of(path)):
                    left.unlink(missing_ok=True)
                raise
            partial.rename(path)  # last: who is killed before has not lost a chain that has a name

    def _append(self, line: AuditLine) -> None:
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
            self._append(AuditLine(n=self._n, at=at, what="close", previous=self._last))
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


def unwritable() -> Refusal:
    """503: what is asked cannot be accounted for."""
    said = "The audit log cannot be written; nothing is answered until it can."
    return Refusal(503, "audit", said)


def signing(key: bytes) -> bytes:
    """The key of the chains, from the log key."""
    return hmac.new(key, b"residency audit 1", sha256).digest()


def fingerprint(signing_key: bytes) -> str:
    """Which key it is, without saying anything of it."""
    return hmac.new(signing_key, b"fingerprint", sha256).hexdigest()[:16]


def signed(line: AuditLine, signing_key: bytes) -> tuple[bytes, str]:
    """A line as it stands in the file, and its hash: over its bytes as they are, so that not even a
    space can change."""
    body = msgspec.json.encode(line)[:-1]
    own = hmac.new(signing_key, body, sha256).hexdigest()
    return body + b',"hash":"' + own.encode() + b'"}\n', own


def head(chain: str, n: int, own: str, signing_key: bytes) -> bytes:
    """The head file's content; always of one length, so that it is written over in place."""
    mac = hmac.new(signing_key, f"head {chain} {n} {own}".encode(), sha256).hexdigest()
    return msgspec.json.encode(ChainHead(n=n, hash=own, mac=mac)).ljust(200) + b"\n"


def head_of(path: Path) -> Path:
    """The head file of a chain."""
    return path.with_suffix(".head")


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
            return msgspec.json.decode(file.readline(), type=AuditLine).before
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


# Verifying


SHAPE = re.compile(rb'(\{.*),"hash":"([0-9a-f]{64})"\}')


class AuditFault(Value, frozen=True):
    """Something that is not as it was written."""

    file: str
    what: str
    line: int = 0
    """From 1; 0 where the whole file is meant."""

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.what}"


class AuditVerdict(Value, frozen=True):
    """What verifying a folder found."""

    faults: tuple[AuditFault, ...]
    notes: tuple[AuditFault, ...]
    """What a killed process leaves: no sign of tampering."""
    heads: tuple[Anchor, ...]
    """The newest line of each chain: written down elsewhere, they show later that nothing was put
    back."""
    lines: int


class _Chain:
    """One file as it was read."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.with_suffix(".jsonl").name
        self.head = _bytes(
            head_of(path)
        )  # before the lines: a worker that runs may add one between
        *self.lines, self.rest = path.read_bytes().split(b"\n")
        self.faults: list[AuditFault] = []
        self.notes: list[AuditFault] = []
        self.hashes: dict[int, str] = {}
        self.before: tuple[Anchor, ...] = ()
        self.key: bytes | None = None
        self.closed = False

    def fault(self, what: str, line: int = 0) -> None:
        self.faults.append(AuditFault(file=self.name, line=line, what=what))

    @property
    def last(self) -> int:
        return max(self.hashes, default=-1)


def verify(
    folders: Sequence[Path], keys: Iterable[bytes], anchors: Iterable[Anchor] = ()
) -> AuditVerdict:
    """Check all chains in folders (the server's, and where older ones were moved to) with the log
    keys that signed them.

    ``anchors``: heads that were written down before. Raises ``UserError`` where a folder holds no
    chain.
    """
    signers = {fingerprint(one): one for one in map(signing, keys)}
    try:
        with ExitStack() as stack:
            for folder in folders:
                if any(folder.glob(GLOB)):
                    stack.enter_context(locked(folder))  # no worker begins a chain meanwhile
            lists = {
                path.name: path.read_bytes()
                for folder in folders
                for path in sorted(folder.glob(LISTS))
            }
            chains = [_Chain(path) for folder in folders for path in _paths(folder, lists)]
    except OSError:
        raise UserError(
            f"{folders[0]}: cannot be read; verify as the user that the server runs as."
        ) from None
    if not chains and not lists:
        raise UserError(
            f"{folders[0]}: holds no audit chain (audit-*.jsonl); name the folder of logs.folder."
        )
    for chain in chains:
        _lines(chain, signers)
        _head(chain)
    known = {chain.name: chain for chain in chains}
    anchored = {
        (one.chain, one.torn, one.rest) for chain in chains for one in chain.before if one.torn
    }
    for chain in chains:
        _ending(chain, anchored)
    faults = [*_missing(chains, known), *_listed(lists, known, signers), *_outside(anchors, known)]
    return AuditVerdict(
        faults=(*(one for chain in chains for one in chain.faults), *faults),
        notes=tuple(one for chain in chains for one in chain.notes),
        heads=tuple(
            Anchor(chain=one.name, n=one.last, hash=one.hashes[one.last])
            for one in chains
            if one.hashes
        ),
        lines=sum(len(chain.lines) for chain in chains),
    )


def _paths(folder: Path, lists: dict[str, bytes]) -> list[Path]:
    """The chains of a folder. One that is listed and has another name yet is that of a process that
    was killed as it began."""
    begun = [
        path
        for path in folder.glob("audit-*.partial")
        if not (named := path.with_suffix(".jsonl")).exists()
        and any(named.name.encode() in data for data in lists.values())
    ]
    return sorted([*folder.glob(GLOB), *begun])


def _lines(chain: _Chain, signers: dict[str, bytes]) -> None:
    """Every line: its hash under the key, its number, the line before it."""
    expected, previous = 0, ""
    for number, raw in enumerate(chain.lines, start=1):
        found = SHAPE.fullmatch(raw)
        line = _decoded(found[1] + b"}") if found else None
        if found is None or line is None:
            chain.fault("is not a line of this log; it was edited.", number)
            expected, previous = expected + 1, "?"
            continue
        own = found[2].decode()
        if number == 1:
            chain.key, chain.before = signers.get(line.key), line.before
            if chain.key is None:
                chain.fault(
                    "was signed with a key that was not given, or its first line was edited.", 1
                )
        if chain.key is not None and not hmac.compare_digest(
            hmac.new(chain.key, found[1], sha256).hexdigest(), own
        ):
            chain.fault("was edited: its hash is not that of its content.", number)
        elif line.n != expected or (previous not in ("?", line.previous)):
            chain.fault(_order(line.n, expected), number)
        elif number == 1 and (line.what != "open" or line.chain != chain.name):
            chain.fault(
                "does not begin with its own first line; the file was renamed, or lines were "
                "moved.",
                1,
            )
        chain.closed = line.what == "close"
        chain.hashes[line.n], expected, previous = own, line.n + 1, own
    if not chain.lines:
        chain.fault("holds no finished line; it was emptied.")


def _order(n: int, expected: int) -> str:
    if n > expected:
        return f"follows a gap: lines {expected + 1} to {n} were removed or moved."
    return "stands where another line was: lines were inserted, doubled or reordered."


def _decoded(data: bytes) -> AuditLine | None:
    try:
        return msgspec.json.decode(data, type=AuditLine)
    except msgspec.DecodeError:
        return None


def _head(chain: _Chain) -> None:
    """The newest line that was ever written is there."""
    try:
        found = msgspec.json.decode(chain.head, type=ChainHead)
    except msgspec.DecodeError:
        chain.fault(
            "its .head file is missing or was edited; lines may have been cut from its end."
        )
        return
    if chain.key is None:
        return
    if (
        msgspec.json.decode(head(chain.name, found.n, found.hash, chain.key), type=ChainHead)
        != found
    ):
        chain.fault("its .head file was edited; lines may have been cut from its end.")
    elif found.n > chain.last:
        chain.fault(
            f"ends before its last line: {found.n - chain.last} were cut off (or lost in a power "
            "cut within a second of being "
            "written)."
        )
    elif chain.hashes.get(found.n) != found.hash:
        chain.fault("holds another line than was written.", found.n + 1)


def _ending(chain: _Chain, anchored: set[tuple[str, int, str]]) -> None:
    """A line that was never finished, and whether the next start noted it."""
    if chain.rest:
        told = (chain.name, len(chain.rest), sha256(chain.rest).hexdigest()) in anchored
        again = any(name == chain.name for name, _, _ in anchored)
        if again and not told:
            chain.fault(
                "its unfinished last line is not the one that the next start noted; it was edited."
            )
        else:
            more = "as the next start noted" if told else "no start has noted it yet"
            chain.notes.append(
                AuditFault(
                    file=chain.name,
                    what=f"ends in an unfinished line: its process was killed ({more}).",
                )
            )
    elif any(name == chain.name for name, _, _ in anchored):
        chain.fault("had an unfinished last line that the next start noted; it was cut off.")
    elif not chain.closed:
        chain.notes.append(
            AuditFault(file=chain.name, what="was not closed: its worker runs, or was killed.")
        )


def _missing(chains: Sequence[_Chain], known: dict[str, _Chain]) -> Iterator[AuditFault]:
    """Chains, or lines of them, that a later chain names."""
    for chain in chains:
        for one in chain.before:
            yield from _held(one, known, f"named by {chain.name}")


def _outside(anchors: Iterable[Anchor], known: dict[str, _Chain]) -> Iterator[AuditFault]:
    for one in anchors:
        yield from _held(one, known, "written down elsewhere")


def _held(one: Anchor, known: dict[str, _Chain], by: str) -> Iterator[AuditFault]:
    if one.chain not in known:
        yield AuditFault(file=one.chain, what=f"is missing: it is {by}.")
    elif known[one.chain].hashes.get(one.n) != one.hash:
        yield AuditFault(file=one.chain, line=one.n + 1, what=f"is not the line that is {by}.")


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _listed(
    lists: dict[str, bytes], known: dict[str, _Chain], signers: dict[str, bytes]
) -> Iterator[AuditFault]:
    """Chains against the lists of their keys."""
    listed: set[str] = set()
    for name, data in lists.items():
        key = signers.get(name.removeprefix("chains-").removesuffix(".json"))
        try:
            found = msgspec.json.decode(data, type=Chains)
        except msgspec.DecodeError:
            found = Chains(names=(), mac="")
        if key is None:
            yield AuditFault(file=name, what="was signed with a key that was not given.")
        elif not hmac.compare_digest(found.mac, chains_mac(found.names, key)):
            yield AuditFault(file=name, what="was edited.")
        listed.update(found.names)
    yield from (
        AuditFault(file=name, what="is missing: the list of chains names it.")
        for name in sorted(listed - set(known))
    )
    yield from (
        AuditFault(file=name, what="is not in the list of chains; the list was removed or edited.")
        for name in known
        if name not in listed
    )


def summary(heads: Iterable[Anchor]) -> str:
    """One hash of all chains' newest lines: what can be written down on paper."""
    return digest(sorted((one.chain, one.n, one.hash) for one in heads))


def read_anchors(data: bytes, where: str) -> list[Anchor]:
    """Heads as ``residency audit head`` printed them: one JSON object a line."""
    try:
        return [
            msgspec.json.decode(line, type=Anchor) for line in data.splitlines() if line.strip()
        ]
    except msgspec.DecodeError:
        raise UserError(
            f"{where}: is not what residency audit head printed; give that file, one JSON object a "
            "line."
        ) from None
