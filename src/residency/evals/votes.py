"""Votes of a study: a file for each rater to which lines are only added.

Each line carries its number, the hash of the line before it and its own, an HMAC-SHA-256 under the
rater's code; the first one's is of the study and the rater. So a line that was edited, moved,
removed from the middle or taken from another rater or study is found; the lock notes the last
lines, which finds a cut tail too. A line is forced to disk before its vote counts as cast; what a
killed process left of one is cut off before the next.
"""

from __future__ import annotations

import hmac
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from residency.core.errors import DataError, UserError
from residency.core.files import disk_errors, locked, read_json, write_json
from residency.core.types import Value
from residency.evals.study import (
    LOCK,
    VOTES,
    Key,
    OpenStudy,
    Rater,
    codes_of,
    is_locked,
    read_key,
)

LONGEST = 4000
"""Characters of a comment, and of what is said in a dialogue."""


class Vote(Value, frozen=True, tag="vote"):
    """What a rater thinks of an item. Places count from 1."""

    item: str
    choice: int | Literal["equal", "neither"] | None = None
    """The place of the better answer, where a preference is asked for."""
    marks: dict[str, tuple[int, ...]] = {}
    """Scale -> the mark of the answer at each place."""
    harmful: tuple[int, ...] = ()
    """Places of answers that could do harm; then the comment says how."""
    comment: str = ""


class Said(Value, frozen=True, tag="said"):
    """A turn of a dialogue with the system at a place of an item; turns count from 0, even ones are
    the rater's."""

    item: str
    place: int
    turn: int
    text: str


class Line(Value, frozen=True):
    """A line of a rater's file, but for its own hash, which follows it."""

    n: int
    at: str
    """UTC, to the second."""
    previous: str
    entry: Vote | Said


class Tip(Value, frozen=True):
    """The last line of a rater's file when voting ended."""

    n: int
    hash: str


class Lock(Value, frozen=True):
    """The end of voting, and the key that it opened."""

    at: str
    study: str
    tips: dict[str, Tip]
    key: Key


def cast(opened: OpenStudy, rater: str, code: str, entry: Vote | Said) -> bool:
    """Add a vote, or a turn of a dialogue, of a rater; whether a line was added: what stands there
    already adds none, so that sending again doubles nothing. A later vote on an item takes the
    place of an earlier one.

    Raises ``UserError`` for another rater's code, a vote that the study does not ask for, and after
    the lock; ``DataError`` where the file was changed.
    """
    known = opened.study.rater(rater)
    if not hmac.compare_digest(sha256(code.encode()).hexdigest(), known.code):
        raise UserError(f"rater {rater!r}: the code is another's; use that of your own form.")
    folder = opened.folder / VOTES
    with disk_errors(folder), locked(folder):
        if is_locked(opened):
            raise UserError("the study is locked: voting has ended, and nothing was taken.")
        path = folder / f"{rater}.jsonl"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            content = _all(file)
            size = content.rfind(b"\n") + 1
            os.ftruncate(file, size)
            lines, last = _chain(content[:size], path, opened.study.id, rater, code)
            if entry in (one.entry for one in _standing(lines)):
                return False
            _check(opened, known, entry, lines)
            at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            line = Line(n=len(lines) + 1, at=at, previous=last, entry=entry)
            _append(file, _signed(line, code), size)
            if not lines:
                _sync(folder)
        finally:
            os.close(file)
    return True


def _append(file: int, data: bytes, size: int) -> None:
    try:
        if os.write(file, data) != len(data):
            raise OSError(28, "")
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)  # half a line must not stand before the next one
        raise


def _sync(folder: Path) -> None:
    """Force to disk that a file is there."""
    there = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(there)
    finally:
        os.close(there)


def _all(file: int) -> bytes:
    with os.fdopen(os.dup(file), "rb") as copy:
        copy.seek(0)
        return copy.read()


def _begin(study: str, rater: str, code: str) -> str:
    return hmac.new(code.encode(), f"{study} {rater}".encode(), sha256).hexdigest()


def _signed(line: Line, code: str) -> bytes:
    body = msgspec.json.encode(line)[:-1]
    own = hmac.new(code.encode(), body, sha256).hexdigest()
    return body + b',"hash":"' + own.encode() + b'"}\n'


def _chain(content: bytes, path: Path, study: str, rater: str, code: str) -> tuple[list[Line], str]:
    """The lines of a file and the hash of the last; raises ``DataError`` that names the line at
    which it is not as it was written."""
    lines, last = list[Line](), _begin(study, rater, code)
    for number, raw in enumerate(content.split(b"\n")[:-1], start=1):
        body, _, rest = raw.rpartition(b',"hash":"')
        own = hmac.new(code.encode(), body, sha256).hexdigest()
        try:
            line = msgspec.json.decode(raw, type=Line)
        except msgspec.DecodeError:
            line = None
        if (
            line is None
            or rest != own.encode() + b'"}'
            or (line.n, line.previous) != (number, last)
        ):
            raise DataError(
                f"{path}:{number}: was changed, or is of another study; restore the file from a "
                "backup."
            )
        lines.append(line)
        last = own
    return lines, last


def read(opened: OpenStudy, rater: str) -> list[Line]:
    """All that a rater did, in order; what a killed process left of a line counts as none. Raises
    ``DataError`` where the file was changed, and after the lock where its end is another."""
    lines, last = _read(opened, rater)
    if is_locked(opened):
        tip = read_lock(opened).tips.get(rater)
        if tip is None or (tip.n, tip.hash) != (len(lines), last):
            raise DataError(
                f"{_path(opened, rater)}: does not end as it did when the study was locked; "
                "restore it from a backup."
            )
    return lines


def _path(opened: OpenStudy, rater: str) -> Path:
    return opened.folder / VOTES / f"{rater}.jsonl"


def _read(opened: OpenStudy, rater: str) -> tuple[list[Line], str]:
    path = _path(opened, rater)
    content = path.read_bytes() if path.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    return _chain(whole, path, opened.study.id, rater, codes_of(opened)[rater])


def _standing(lines: Iterable[Line]) -> list[Line]:
    """The lines that count: of several votes on an item the last."""
    found: dict[object, Line] = {}
    for line in lines:
        one = line.entry
        place = (one.item, one.place, one.turn) if isinstance(one, Said) else one.item
        found.pop(place, None)
        found[place] = line
    return list(found.values())


def standing(lines: Iterable[Line]) -> dict[str, Vote]:
    """Item -> the vote that counts, which is the last."""
    return {one.entry.item: one.entry for one in _standing(lines) if isinstance(one.entry, Vote)}


def replaced(lines: Iterable[Line]) -> int:
    """How many votes took the place of an earlier one."""
    times = Counter(line.entry.item for line in lines if isinstance(line.entry, Vote))
    return times.total() - len(times)


def dialogue(lines: Iterable[Line], item: str, place: int) -> list[Said]:
    """The turns so far with the system at a place of an item, from which it goes on."""
    turns = (line.entry for line in lines if isinstance(line.entry, Said))
    return [one for one in turns if (one.item, one.place) == (item, place)]


def _check(opened: OpenStudy, rater: Rater, entry: Vote | Said, lines: list[Line]) -> None:
    """Raises ``UserError`` where an entry is none that the study asks of a rater."""
    study, where = opened.study, f"item {entry.item}"
    if entry.item not in opened.items:
        raise UserError(f"{where}: is not in this study; vote on the items of your own form.")
    if isinstance(entry, Said):
        done = len(dialogue(lines, entry.item, entry.place))
        if entry.turn != done or done >= 2 * study.rounds or not 1 <= entry.place <= study.answers:
            raise UserError(
                f"{where}: turn {entry.turn} does not follow; the dialogue stands at turn {done} "
                f"of {2 * study.rounds}."
            )
        if not entry.text.strip() or len(entry.text) > LONGEST:
            raise UserError(f"{where}: a turn has 1 to {LONGEST} characters.")
        return
    if fault := fault_of(opened, rater, entry):
        raise UserError(f"{where}: {fault}.")
    for place in range(1, study.answers + 1) if study.rounds else ():
        done = len(dialogue(lines, entry.item, place)) // 2
        if done < study.rounds:
            raise UserError(
                f"{where}: dialogue {place} has {done} of {study.rounds} rounds; finish it first."
            )


def fault_of(opened: OpenStudy, rater: Rater, vote: Vote) -> str:
    """What a vote lacks, or has too much; empty where it is what the study asks for."""
    places = range(1, opened.study.answers + 1)
    scales = opened.study.scales(rater)
    if scales and vote.choice is not None:
        return "asks for marks, not for a preference"
    if not scales and vote.choice not in ("equal", "neither", *places):
        return "choose the better answer, equal or neither"
    if {*vote.marks} - {one.name for one in scales}:
        return "has a mark on a scale that is not asked for"
    for one in scales:
        given = vote.marks.get(one.name, ())
        if len(given) != len(places) or not all(one.low <= mark <= one.high for mark in given):
            return f"{one.name}: each answer needs a whole mark from {one.low} to {one.high}"
    if not {*vote.harmful} <= {*places} or len({*vote.harmful}) < len(vote.harmful):
        return "harmful: name places of answers, each once"
    if rater.patient and (vote.harmful or vote.comment):
        return "a patient's form asks for marks only"
    if vote.harmful and not vote.comment.strip():
        return "harmful: say in the comment what could do harm"
    return f"a comment has at most {LONGEST} characters" if len(vote.comment) > LONGEST else ""


def lock(opened: OpenStudy, key: Path) -> Lock:
    """End the voting and open the key: from here on no vote is taken, and the result may be read.

    Raises ``UserError`` where it is locked already or nobody has voted, ``DataError`` where the key
    or a file of votes was changed.
    """
    unsealed = read_key(key, opened.study)
    with locked(opened.folder / VOTES):
        if is_locked(opened):
            raise UserError(f"{opened.folder}: is locked already; read it with study result.")
        tips, votes = {}, 0
        for one in opened.study.raters:
            lines, last = _read(opened, one.name)
            tips[one.name] = Tip(n=len(lines), hash=last)
            votes += len(standing(lines))
        if not votes:
            raise UserError(f"{opened.folder}: nobody has voted yet; lock it when they have.")
        at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        found = Lock(at=at, study=opened.study.id, tips=tips, key=unsealed)
        write_json(opened.folder / LOCK, found)
    return found


def read_lock(opened: OpenStudy) -> Lock:
    """The lock of a study; raises ``UserError`` before it is locked, ``DataError`` where it is
    another study's or its key was changed."""
    path = opened.folder / LOCK
    if not is_locked(opened):
        raise UserError(
            f"{opened.folder}: is not locked; who wrote which answer stays sealed until residency "
            "study lock ends the voting."
        )
    found = read_json(path, Lock)
    if (found.study, found.key.seal) != (opened.study.id, opened.study.key):
        raise DataError(f"{path}: is not of this study; restore it from a backup.")
    return found


def progress(opened: OpenStudy) -> Mapping[str, int]:
    """Rater -> how many items they have voted on."""
    names = (one.name for one in opened.study.raters)
    return {name: len(standing(read(opened, name))) for name in names}
