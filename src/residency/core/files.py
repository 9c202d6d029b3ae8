"""Files: written whole or not at all, read as text, CSV or JSON lines, named by their hash."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from residency.core.encodings import advice
from residency.core.errors import DataError, UserError

T = TypeVar("T")


def sha256(data: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def canonical(value: object) -> bytes:
    """JSON with sorted keys: equal values give equal bytes."""
    return msgspec.json.encode(value, order="deterministic")


def digest(value: object) -> str:
    """Hex SHA-256 of a JSON-able value."""
    return sha256(canonical(value))


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


NO_JSON = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What reading JSON raises that is none, or is nested deeper than can be read."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a missing folder or a forbidden path into one clear sentence."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise UserError(
            f"{path}: cannot be written ({reason}); free space or choose another folder, then run "
            "again."
        ) from None


@contextmanager
def atomic_path(path: Path, private: bool = False) -> Iterator[Path]:
    """A temporary sibling to write to; renamed to ``path`` on success, removed on failure.
    ``private``: its owner alone may ever read it."""
    partial = path.with_name(path.name + ".partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if private:
                partial.unlink(missing_ok=True)
                partial.touch(0o600)
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` to write to; takes its place on success, removed on failure. An
    empty folder gives way."""
    partial = path.with_name(path.name + ".partial")
    with disk_errors(path):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            yield partial
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_bytes(path: Path, data: bytes, private: bool = False) -> None:
    """Write a file whole or not at all; ``private``: for its owner alone."""
    with atomic_path(path, private) as partial:
        partial.write_bytes(data)


def write_once(path: Path, data: bytes) -> None:
    """Write a secret that only its owner may read, unless the file is there: of processes that
    start together one makes it, and none reads half of it. Raises ``OSError``."""
    beside = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink()


def write_text(path: Path, text: str, private: bool = False) -> None:
    """Write UTF-8 text whole or not at all; line ends are kept as they are. ``private``: for its
    owner alone."""
    write_bytes(path, text.encode("utf-8"), private)


def write_json(path: Path, value: object, private: bool = False) -> None:
    """Write indented JSON whole or not at all; ``private``: for its owner alone."""
    data = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    write_bytes(path, data, private)


def write_jsonl(path: Path, rows: Iterable[object], private: bool = False) -> int:
    """Write JSON lines whole or not at all, streaming; returns the number of rows. ``private``: for
    its owner alone."""
    encoder, count = msgspec.json.Encoder(), 0
    with atomic_path(path, private) as partial, partial.open("wb") as file:
        for row in rows:
            file.write(encoder.encode(row) + b"\n")
            count += 1
    return count


def append_jsonl(path: Path, rows: Sequence[object], private: bool = False) -> None:
    """Add rows to a file that only grows; they are on disk when this returns. A line that was cut
    short before them stays a line of its own. ``private``: for its owner alone."""
    if not rows:
        return
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600 if private else 0o666)
        with os.fdopen(handle, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = os.fstat(handle).st_size
            cut = end > 0 and os.pread(handle, 1, end - 1) != b"\n"
            file.write(b"\n" * cut + lines)
            file.flush()
            os.fsync(handle)


def read_json(path: Path, kind: type[T]) -> T:
    """Read and check a JSON file; raises ``DataError`` that names the file and the field."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, *NO_JSON) as error:
        raise DataError(f"{path}: {reason(error)}") from None


def read_jsonl(path: Path, kind: type[T]) -> Iterator[T]:
    """Read and check JSON lines one at a time, a byte order mark before them left out; raises
    ``DataError`` that names file, line and field."""
    decoder = msgspec.json.Decoder(kind)
    for number, line in enumerate_lines(path):
        try:
            yield decoder.decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except NO_JSON as error:
            raise DataError(f"{path}:{number}: {reason(error)}") from None


def read_unfinished(path: Path, kind: type[T]) -> Iterator[T]:
    """The rows of a JSON lines file whose writing may have been cut short: nothing where there is
    no file, and no line that cannot be read."""
    if path.is_file():
        for _, line in enumerate_lines(path):
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                yield msgspec.json.decode(line, type=kind)


def enumerate_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Non-blank lines of a file with their numbers from 1."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Every line of a UTF-8 file with its number from 1 and its line end, without a byte order
    mark.

    Raises ``DataError`` that names the line and byte where a file is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    told = advice(path.read_bytes())
                    raise DataError(
                        f"{path}:{number}: is not UTF-8 (byte {error.start}); {told}."
                    ) from None
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file as it is, without a byte order mark; raises as ``text_lines``."""
    return "".join(line for _, line in text_lines(path))


def quotes_are_text(lines: Iterable[str], delimiter: str) -> bool:
    """Whether quotes in a file with tabs are signs of its text: each line has as many cells as the
    first, and a cell begins with a quote that RFC 4180 does not allow there."""
    width, bare = 0, False
    for line in lines if delimiter == "\t" else ():
        if not line.strip("\r\n"):
            continue
        cells = line.rstrip("\r\n").split(delimiter)
        width = width or len(cells)
        if len(cells) != width:
            return False
        bare = bare or any(
            cell.startswith('"') and not re.fullmatch(r'"(?:[^"]|"")*"', cell) for cell in cells
        )
    return bare


def csv_rows(
    lines: Iterable[str],
    where: object,
    delimiter: str = ",",
    strict: bool = True,
    quotes: bool = True,
) -> Iterator[tuple[int, list[str]]]:
    """The line that each row of CSV begins in, and its cells; empty rows are left out. ``quotes``:
    whether quotes part cells (RFC 4180).

    Raises ``DataError`` that begins with ``where`` (the file) where the quotes are not those of
    RFC 4180, if ``strict``.
    """
    csv.field_size_limit(1 << 28)
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        strict=strict,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
    )
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{where}:{first}: is not CSV ({error}); check the delimiter, and the quotes from "
                "this line on."
            ) from None
        if cells is None:
            return
        if cells:
            yield first, cells


def csv_records(
    path: Path, columns: Sequence[str], advice: str = "", delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a UTF-8 CSV file with a header: line and column -> cell, without the blanks
    around it; a cell that is missing is empty.

    Raises ``DataError`` for a file without one of ``columns``; ``advice`` ends its message.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv_rows(file, path, delimiter, strict=False)
            _, header = next(rows, (1, []))
            if missing := [name for name in columns if name not in header]:
                advice = advice or f"present: {', '.join(header)}."
                raise DataError(f"{path}:1: has no column {missing[0]!r}; {advice}")
            for line, cells in rows:
                cells += [""] * (len(header) - len(cells))
                yield line, dict(zip(header, map(str.strip, cells), strict=False))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """Why a file could not be read, without any of its content."""
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.start}); {advice(bytes(error.object))}."
    if isinstance(error, msgspec.ValidationError):
        return f"{error}."  # names types and the path inside the row, never values
    if isinstance(error, msgspec.DecodeError):
        return "is not valid JSON."
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({os.strerror(error.errno)})."
    return "cannot be read."


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone in a folder, among all processes of this machine that ask."""
    file = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def process_alive(pid: int) -> bool:
    """Whether there is a process of a number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
