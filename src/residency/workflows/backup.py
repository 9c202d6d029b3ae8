"""``residency backup`` and ``residency restore``: folders of a project, of a zone and of a server
as one sealed archive, taken while the server runs, and back.

The archive is a tar stream sealed under the zone's key (``core/sealed.py``), so that vault, notes
and the names of files are as safe in it as in the zone; its last member says what it holds, by
SHA-256. What changes meanwhile is taken as it was at one moment: databases by SQLite's own backup,
chains of the audit log up to a line that their heads know. Zones and runs are locked.
"""

from __future__ import annotations

import io
import sqlite3
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO

import msgspec

from residency import __version__
from residency.core import zones
from residency.core.errors import GateRefused, UserError
from residency.core.files import atomic_path, file_digest, locked, reason, whole_folder
from residency.core.run_folder import Run
from residency.core.sealed import opening, sealing
from residency.core.types import Value

MANIFEST = "backup.json"
SCHEMA = 1
SQLITE = b"SQLite format 3\0"
SMALL = 2**20
"""Bytes of a file that is read at the moment at which the folder is looked at."""


class Backup(Value, frozen=True):
    """What an archive holds; its last member."""

    schema: int
    made: datetime
    code: str
    """Version of this package."""
    files: dict[str, str]
    """File -> SHA-256."""
    left_out: tuple[str, ...] = ()
    """Sentences: runs that were being worked on, things that are no files, and bases of models that
    lie elsewhere."""
    size: int = 0
    """Bytes of the files."""


class _Version(Value, frozen=True):
    schema: int


class _Base(Value, frozen=True):
    id: str = ""
    path: str = ""


class _Model(Value, frozen=True):
    """What is read of an artefact: where its base lies."""

    base: _Base


class _Entry(Value, frozen=True):
    """A file, link or folder that is taken."""

    path: Path
    name: str
    status: tuple[int, int, float]
    """Mode, size and time of change."""
    data: bytes | None = None
    """What was in it, of a file that others write over."""


def backup(sources: Sequence[Path], out: Path, key: bytes) -> Backup:
    """Write ``out``, an archive of folders and files, each under its own name, whole or not at all.

    Runs that are being worked on are left out, and said. Raises ``UserError`` for a source that is
    not there, two of one name, a target that exists or lies in a source, a zone that a command
    works on, and a link that leads outside.
    """
    places = _places(sources)
    target = out.resolve()
    if out.exists():
        raise UserError(f"{out}: is there already; give the archive another name.")
    for place in places.values():
        if target.is_relative_to(place):
            raise UserError(f"{out}: lies in {place}, which is backed up; choose another folder.")
    files: dict[str, str] = {}
    left: list[str] = []
    size = 0
    with ExitStack() as held, atomic_path(out) as partial:
        entries = [
            entry for name, place in places.items() for entry in _walk(place, name, held, left)
        ]
        left += _bases(entries, list(places.values()))
        partial.touch(mode=0o600)
        with (
            partial.open("wb") as file,
            sealing(file, key) as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside,
        ):
            for entry in entries:
                if (found := _add(tar, entry, Path(beside))) is not None:
                    files[entry.name], count = found
                    size += count
            made = Backup(
                schema=SCHEMA,
                made=datetime.now(UTC),
                code=__version__,
                files=files,
                left_out=tuple(left),
                size=size,
            )
            data = msgspec.json.encode(made)
            member = tarfile.TarInfo(MANIFEST)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made


def restore(archive: Path, into: Path, key: bytes) -> Backup:
    """Put what an archive holds into ``into``, a new or an empty folder, whole or not at all; modes
    of files are kept, and the folder is its owner's alone.

    Raises ``UserError`` for a folder that holds something and a file that is no archive,
    ``GateRefused`` where it was changed or cut, or the key is another.
    """
    if into.is_symlink() or (into.exists() and (not into.is_dir() or any(into.iterdir()))):
        raise UserError(f"{into}: is there already; restore into a new or an empty folder.")
    found: Backup | None = None
    modes: dict[Path, int] = {}
    with _reading(archive), archive.open("rb") as file, whole_folder(into) as partial:
        partial.chmod(0o700)
        with (
            opening(file, key, archive) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            for member in tar:
                if member.name == MANIFEST:
                    found = _manifest(tar.extractfile(member), archive)
                else:
                    modes[partial / member.name] = member.mode
                    _extract(tar, member, partial, archive)
        if found is None or found.files != {
            str(path.relative_to(partial)): file_digest(path)
            for path in partial.rglob("*")
            if path.is_file() and not path.is_symlink()
        }:
            raise GateRefused(f"{archive}: does not hold what it says; take another copy.")
        for path, mode in reversed(modes.items()):
            if not path.is_symlink():
                path.chmod(mode)
    return found


# What is taken


def _places(sources: Sequence[Path]) -> dict[str, Path]:
    """Sources by the names that they have in the archive."""
    found: dict[str, Path] = {}
    for source in sources:
        place = source.resolve()
        if not place.exists():
            raise UserError(f"{source}: is not there; name folders or files to back up.")
        if place.name in ("", MANIFEST):
            raise UserError(f"{source}: cannot be backed up under this name; name what is in it.")
        if place.name in found:
            raise UserError(
                f"{source}: another of the same name is backed up; make an archive of its own for "
                "one of them, or name a folder that holds both."
            )
        found[place.name] = place
    return found


def _walk(path: Path, name: str, held: ExitStack, left: list[str]) -> Iterator[_Entry]:
    """A path and all below it, whatever changes in it locked or looked at in one moment."""
    with _reading(path):
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            if (entry := _entry(path, name, left)) is not None:
                yield entry
            return
        shared = (path / "ledger.jsonl").is_file() or any(path.glob("audit-*.jsonl"))
        if not shared and (path / ".lock").is_file() and (why := _alone(path, held)):
            left.append(why)
            return
        if (path / zones.MARKER).is_file():
            for lock in sorted(path.glob("*.lock")):
                held.enter_context(zones.locked(zones.open_zone(path), lock.stem))
        entries, folders = [], []
        with locked(path) if shared else nullcontext():
            for inner in sorted(path.iterdir()):  # a chain's .head before its .jsonl
                if _passing(inner):
                    continue
                if inner.is_dir() and not inner.is_symlink():
                    folders.append(inner)
                elif (entry := _entry(inner, f"{name}/{inner.name}", left)) is not None:
                    entries.append(entry)
    yield _Entry(path=path, name=name, status=(status.st_mode, 0, status.st_mtime))
    yield from entries
    for folder in folders:
        yield from _walk(folder, f"{name}/{folder.name}", held, left)


def _alone(run: Path, held: ExitStack) -> str:
    """Lock a run until the archive is whole; why it is left out, where that cannot be."""
    try:
        held.enter_context(Run(run).locked())
    except UserError as error:
        return str(error)
    return ""


def _passing(path: Path) -> bool:
    """Locks, what is half written, and what SQLite keeps beside a database."""
    beside = path.name.removesuffix("-wal").removesuffix("-shm")
    return path.suffix in (".lock", ".partial") or (
        path.name == ".lock" or (beside != path.name and path.with_name(beside).exists())
    )


def _entry(path: Path, name: str, left: list[str]) -> _Entry | None:
    """A file or link as it is at the moment; small ones that are written over are read now."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        target, top = path.resolve(), path.parents[name.count("/") - 1]
        if path.readlink().is_absolute() or "/" not in name or not target.is_relative_to(top):
            raise UserError(
                f"{path}: is a link that leads outside; back up what it leads to too, "
                "from a folder that holds both."
            )
    elif not stat.S_ISREG(status.st_mode):
        left.append(f"{path}: is neither a file nor a folder.")
        return None
    data = None
    if path.suffix in (".head", ".json") and status.st_size <= SMALL and not path.is_symlink():
        data = path.read_bytes()
    size = status.st_size if data is None else len(data)
    return _Entry(path=path, name=name, status=(status.st_mode, size, status.st_mtime), data=data)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what cannot be read into one clear sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: {reason(error)[:-1]}; run this as the user that owns it, "
            "and again where it was changed meanwhile."
        ) from None


def _bases(entries: Sequence[_Entry], places: Sequence[Path]) -> list[str]:
    """Bases that models start from and that lie elsewhere."""
    found = set()
    for entry in entries:
        if entry.path.name == "artefact.json":
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                base = msgspec.json.decode(entry.data or entry.path.read_bytes(), type=_Model).base
                where = Path(base.path)
                if not base.id.startswith("bundled:") and base.path:
                    inside = any(where.is_relative_to(place) for place in places)
                    found |= set() if inside else {base.id}
    return [f"{one}: the base of a model, which lies elsewhere." for one in sorted(found)]


# Into the archive, and out of it


def _add(tar: tarfile.TarFile, entry: _Entry, beside: Path) -> tuple[str, int] | None:
    """Write a member; the digest and the size of a file."""
    mode, size, changed = entry.status
    member = tarfile.TarInfo(entry.name)
    member.mode, member.mtime = stat.S_IMODE(mode), changed
    if stat.S_ISDIR(mode):
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
        return None
    if stat.S_ISLNK(mode):
        member.type, member.linkname = tarfile.SYMTYPE, str(entry.path.readlink())
        tar.addfile(member)
        return None
    with _reading(entry.path):
        opened: IO[bytes] = (
            io.BytesIO(entry.data) if entry.data is not None else entry.path.open("rb")
        )
    with opened:
        if opened.read(len(SQLITE)) == SQLITE:
            opened.close()
            opened = _snapshot(entry.path, beside / "database").open("rb")
            size = (beside / "database").stat().st_size
        opened.seek(0)
        member.size, hashed = size, _Hashed(opened)
        with opened:
            try:
                tar.addfile(member, hashed)
            except OSError as error:
                if error.errno is not None:
                    raise
                raise UserError(
                    f"{entry.path}: became shorter while it was read; run again."
                ) from None
    return hashed.digest.hexdigest(), size


def _snapshot(path: Path, copy: Path) -> Path:
    """A database as it is at one moment, whoever writes in it."""
    copy.unlink(missing_ok=True)
    copy.touch(mode=0o600)
    try:
        with (
            closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error:
        raise UserError(
            f"{path}: cannot be read as a database; check who owns it, and the space beside the "
            "archive."
        ) from None
    return copy


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self.file.read(size)
        self.digest.update(data)
        return data


def _manifest(file: IO[bytes] | None, archive: Path) -> Backup:
    """What an archive says that it holds."""
    data = file.read() if file is not None else b""
    try:
        schema = msgspec.json.decode(data, type=_Version).schema
        if schema == SCHEMA:
            return msgspec.json.decode(data, type=Backup)
    except msgspec.DecodeError:
        schema = 0
    raise UserError(
        f"{archive}: schema {schema} is not read by this version, which reads {SCHEMA}; restore it "
        "with the version that wrote it."
    )


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path, archive: Path) -> None:
    """A member, open to its owner alone until all is there; none outside of the folder."""
    try:
        checked = tarfile.data_filter(member, str(into))
    except tarfile.FilterError:
        raise GateRefused(f"{archive}: holds {member.name}, which leads outside.") from None
    checked.mode = 0o700 if member.isdir() else 0o600
    tar.extract(checked, into, filter="fully_trusted")
