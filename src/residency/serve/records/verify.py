"""Whether audit chains are what was written: every line, its place, the chains' ends, and that none
is missing."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import msgspec

from residency.core.errors import UserError
from residency.core.files import digest
from residency.core.types import Value
from residency.serve.records.audit_chain import (
    GLOB,
    LISTS,
    Anchor,
    Chains,
    Head,
    Line,
    chains_mac,
    fingerprint,
    head,
    head_of,
    locked,
    signing,
)

SHAPE = re.compile(rb'(\{.*),"hash":"([0-9a-f]{64})"\}')


class Fault(Value, frozen=True):
    """Something that is not as it was written."""

    file: str
    what: str
    line: int = 0
    """From 1; 0 where the whole file is meant."""

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.what}"


class Verdict(Value, frozen=True):
    """What verifying a folder found."""

    faults: tuple[Fault, ...]
    notes: tuple[Fault, ...]
    """What a killed process leaves: no sign of tampering."""
    heads: tuple[Anchor, ...]
    """The newest line of each chain: written down elsewhere, they show later that nothing was put
    back."""
    lines: int


class _Chain:
    """One file as it was read."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.head = _bytes(
            head_of(path)
        )  # before the lines: a worker that runs may add one between
        *self.lines, self.rest = path.read_bytes().split(b"\n")
        self.faults: list[Fault] = []
        self.notes: list[Fault] = []
        self.hashes: dict[int, str] = {}
        self.before: tuple[Anchor, ...] = ()
        self.key: bytes | None = None
        self.closed = False

    def fault(self, what: str, line: int = 0) -> None:
        self.faults.append(Fault(file=self.name, line=line, what=what))

    @property
    def last(self) -> int:
        return max(self.hashes, default=-1)


def verify(
    folders: Sequence[Path], keys: Iterable[bytes], anchors: Iterable[Anchor] = ()
) -> Verdict:
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
            chains = [_Chain(path) for folder in folders for path in sorted(folder.glob(GLOB))]
            lists = {
                path.name: path.read_bytes()
                for folder in folders
                for path in sorted(folder.glob(LISTS))
            }
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
    return Verdict(
        faults=(*(one for chain in chains for one in chain.faults), *faults),
        notes=tuple(one for chain in chains for one in chain.notes),
        heads=tuple(
            Anchor(chain=one.name, n=one.last, hash=one.hashes[one.last])
            for one in chains
            if one.hashes
        ),
        lines=sum(len(chain.lines) for chain in chains),
    )


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


def _decoded(data: bytes) -> Line | None:
    try:
        return msgspec.json.decode(data, type=Line)
    except msgspec.DecodeError:
        return None


def _head(chain: _Chain) -> None:
    """The newest line that was ever written is there."""
    try:
        found = msgspec.json.decode(chain.head, type=Head)
    except msgspec.DecodeError:
        chain.fault(
            "its .head file is missing or was edited; lines may have been cut from its end."
        )
        return
    if chain.key is None:
        return
    if msgspec.json.decode(head(chain.name, found.n, found.hash, chain.key), type=Head) != found:
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
                Fault(
                    file=chain.name,
                    what=f"ends in an unfinished line: its process was killed ({more}).",
                )
            )
    elif any(name == chain.name for name, _, _ in anchored):
        chain.fault("had an unfinished last line that the next start noted; it was cut off.")
    elif not chain.closed:
        chain.notes.append(
            Fault(file=chain.name, what="was not closed: its worker runs, or was killed.")
        )


def _missing(chains: Sequence[_Chain], known: dict[str, _Chain]) -> Iterator[Fault]:
    """Chains, or lines of them, that a later chain names."""
    for chain in chains:
        for one in chain.before:
            yield from _held(one, known, f"named by {chain.name}")


def _outside(anchors: Iterable[Anchor], known: dict[str, _Chain]) -> Iterator[Fault]:
    for one in anchors:
        yield from _held(one, known, "written down elsewhere")


def _held(one: Anchor, known: dict[str, _Chain], by: str) -> Iterator[Fault]:
    if one.chain not in known:
        yield Fault(file=one.chain, what=f"is missing: it is {by}.")
    elif known[one.chain].hashes.get(one.n) != one.hash:
        yield Fault(file=one.chain, line=one.n + 1, what=f"is not the line that is {by}.")


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _listed(
    lists: dict[str, bytes], known: dict[str, _Chain], signers: dict[str, bytes]
) -> Iterator[Fault]:
    """Chains against the lists of their keys."""
    listed: set[str] = set()
    for name, data in lists.items():
        key = signers.get(name.removeprefix("chains-").removesuffix(".json"))
        try:
            found = msgspec.json.decode(data, type=Chains)
        except msgspec.DecodeError:
            found = Chains(names=(), mac="")
        if key is None:
            yield Fault(file=name, what="was signed with a key that was not given.")
        elif not hmac.compare_digest(found.mac, chains_mac(found.names, key)):
            yield Fault(file=name, what="was edited.")
        listed.update(found.names)
    yield from (
        Fault(file=name, what="is missing: the list of chains names it.")
        for name in sorted(listed - set(known))
    )
    yield from (
        Fault(file=name, what="is not in the list of chains; the list was removed or edited.")
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
