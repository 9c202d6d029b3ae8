"""Notes out of files: CSV, JSON lines, HL7 v2 and C-CDA. A file is told by its name and its
content, and taken once.

What is said of a file is its place in the order of names, never the name: hospitals name files
after patients.
"""

from __future__ import annotations

import csv
import glob
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import DataError, UserError
from residency.core.files import file_digest
from residency.ingest.decode import Unreadable, decoded
from residency.ingest.rows import Item, Labels, note_of
from residency.ingest.sources import AnyFiles, Ccda, Csv, Files, Hl7, Jsonl
from residency.ingest.store import Store

SUFFIXES = {
    "csv": (".csv",),
    "jsonl": (".jsonl",),
    "hl7": (".hl7", ".txt"),
    "ccda": (".xml", ".ccda", ".cda"),
}
"""What is read of a folder, by kind of source."""


def notes(settings: AnyFiles, root: Path, store: Store) -> Iterator[Item]:
    """What became of each row or document of the files that were not taken yet, in the order of
    names.

    Raises ``UserError`` where there are no files, or where one that was taken has changed;
    ``DataError`` for a file that is not what it should be.
    """
    paths = found(settings, root)
    new = []
    for number, path in enumerate(paths, 1):
        name = os.path.relpath(path, root)
        now = store.keyed(file_digest(path))
        before = store.file(name)
        if before == now:
            continue
        if before is not None and settings.changed == "refuse":
            raise UserError(
                f"extract.path: file {number} of {len(paths)} (by name) changed after it was "
                "taken; "
                "give what is new in a new file, or set extract.changed to new to take notes with "
                "new ids."
            )
        new.append((path, name, now, f"file {number} of {len(paths)} (by name)"))
    for path, name, content, place in new:
        before_size = path.stat()
        yield from of_file(settings, path, name, place)
        after = path.stat()
        if (after.st_size, after.st_mtime_ns) != (before_size.st_size, before_size.st_mtime_ns):
            raise UserError(
                f"extract.path: {place} changed while it was read; run again when it is whole."
            )
        yield Item(file=(name, content))


def found(settings: Files, root: Path) -> list[Path]:
    """Files of the source, by name; raises ``UserError`` where there are none."""
    kind = getattr(settings, "kind", "")
    base = root / settings.path
    if base.is_dir():
        paths = [path for path in base.rglob("*") if path.suffix.lower() in SUFFIXES[kind]]
    else:
        paths = [Path(name) for name in glob.glob(str(base), recursive=True)]  # noqa: PTH207  (absolute patterns)
    paths = sorted(path for path in paths if path.is_file())
    if not paths:
        raise UserError(
            f"extract.path: there is no file at {settings.path}; give a file, a folder with "
            f"{' or '.join(SUFFIXES[kind])}, or a pattern."
        )
    return paths


def of_file(settings: AnyFiles, path: Path, name: str, place: str) -> Iterator[Item]:
    """What became of each row, message or document of a file."""
    if isinstance(settings, Csv):
        yield from _csv(settings, path, name, place)
    elif isinstance(settings, Jsonl):
        yield from _jsonl(settings, path, name, place)
    elif isinstance(settings, Hl7):
        from residency.ingest.hl7 import messages

        yield from messages(settings, path.read_bytes(), name)
    else:
        assert isinstance(settings, Ccda)
        from residency.ingest.ccda import document

        yield document(settings, path.read_bytes(), name)


def _csv(settings: Csv, path: Path, name: str, place: str) -> Iterator[Item]:
    """Rows of a CSV file; a file in a legacy encoding is read as a whole, one in UTF-8 as a stream."""
    csv.field_size_limit(1 << 28)
    encoding = "utf-8-sig" if settings.encoding in ("auto", "utf-8") else ""
    try:
        if encoding:
            with path.open(encoding=encoding, newline="") as file:
                yield from _table(
                    settings,
                    csv.reader(file, delimiter=settings.delimiter, strict=True),
                    name,
                    place,
                )
        else:
            text = decoded(path.read_bytes(), settings.encoding, settings.lang)
            rows = csv.reader(
                io.StringIO(text, newline=""), delimiter=settings.delimiter, strict=True
            )
            yield from _table(settings, rows, name, place)
    except UnicodeDecodeError:
        raise DataError(
            f"extract.path: {place} is not UTF-8; say in extract.encoding what it is."
        ) from None
    except Unreadable:
        raise DataError(
            f"extract.path: {place} cannot be read as {settings.encoding}; check extract.encoding."
        ) from None
    except csv.Error:
        raise DataError(
            f"extract.path: {place} is not CSV with the delimiter {settings.delimiter!r}; check "
            "quotation marks."
        ) from None


def _table(settings: Csv, rows: Iterator[list[str]], name: str, place: str) -> Iterator[Item]:
    header = next(rows, [])
    _check(settings.wanted(), header, place)
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(
                f"extract.path: {place}, row {number}: has {len(row)} cells and the header "
                f"{len(header)}; check delimiter and quotation marks."
            )
        yield note_of(dict(zip(header, row, strict=True)), settings, place=f"{name}#{number}")


def _jsonl(settings: Jsonl, path: Path, name: str, place: str) -> Iterator[Item]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                if settings.encoding not in ("auto", "utf-8", "tcvn3", "vni"):
                    line = decoded(line, settings.encoding, settings.lang).encode()
                row = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, Unreadable):
                raise DataError(
                    f"extract.path: {place}, line {number}: is not a JSON object; check the file "
                    "and extract.encoding."
                ) from None
            missing = {
                where: column for where, column in settings.wanted().items() if column not in row
            }
            required = {settings.columns.id, settings.columns.patient, settings.columns.text}
            if lacking := {
                where: column for where, column in missing.items() if column in required
            }:
                _check(lacking, row, f"{place}, line {number}")
            full = dict.fromkeys(missing.values()) | row
            yield note_of(
                full,
                settings,
                _spans(row, settings, f"{place}, line {number}"),
                place=f"{name}#{number}",
            )


def _spans(row: dict[str, Any], settings: Jsonl, where: str) -> Labels:
    """Labels of a row, from ``spans`` or ``entities``."""
    given = row.get("spans") or row.get("entities") or []
    try:
        return {
            str(row[settings.columns.id]): [
                (int(s["start"]), int(s["end"]), str(s["label"])) for s in given
            ]
        }
    except (TypeError, KeyError, ValueError):
        raise DataError(f"extract.path: {where}: a span needs start, end and label.") from None


def _check(wanted: dict[str, str], present: Any, place: str) -> None:
    """Raise for a column that is not there. What is there is not told: without a line of names it
    is a patient's row."""
    for where, column in wanted.items():
        if column not in present:
            raise UserError(
                f"{where}: {place} has no column {column!r} among its {len(present)}; check its "
                "names and extract.encoding."
            )
