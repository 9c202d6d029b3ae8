"""Notes out of files: tables, HL7 v2, CDA and FHIR. A file is told by its name and its
content, and taken once.

What is said of a file is its place in the order of names, never the name: hospitals name files
after patients.
"""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from residency.core.encodings import ENOUGH, candidates
from residency.core.errors import DataError, UserError
from residency.core.files import NO_JSON, csv_rows, enumerate_lines, file_digest, quotes_are_text
from residency.corpus.tables import arrow_columns, arrow_rows, xlsx_rows
from residency.ingest.decode import FONTS, Unreadable, decode_bytes
from residency.ingest.rows import Labels, RowOutcome, note_of, note_of_lines
from residency.ingest.sources import (
    AnyFiles,
    ArrowFiles,
    Ccda,
    Claims,
    CsvFiles,
    Fhir,
    Hl7,
    JsonlFiles,
    TableSource,
    XlsxFiles,
)
from residency.ingest.store import Store

if TYPE_CHECKING:
    from residency.ingest.ccda import Gone
    from residency.ingest.fhir_people import Known


def notes(
    settings: AnyFiles, root: Path, store: Store, whole: bool = False
) -> Iterator[RowOutcome]:
    """What became of each row or document of the files that were not taken yet (``whole``: of all),
    in the order of names.

    Raises ``UserError`` where there are no files, or where one that was taken has changed;
    ``DataError`` for a file that is not what it should be.
    """
    paths = find_files(settings, root)
    new = []
    for number, path in enumerate(paths, 1):
        name = os.path.relpath(path, root)
        now = store.hash_with_key(file_digest(path))
        before = store.file(name)
        if before == now and not whole:
            continue
        if before not in (None, now) and settings.changed == "refuse":
            raise UserError(
                f"extract.path: file {number} of {len(paths)} (by name) changed after it was "
                "taken; give what is new in a new file, or set extract.changed to new to take "
                "notes with new ids."
            )
        new.append((path, name, now, f"file {number} of {len(paths)} (by name)"))
    read = reader_of(settings, paths if new else [], root)
    for path, name, content, place in new:
        before_size = path.stat()
        yield from read(settings, path, name, place)
        after = path.stat()
        if (after.st_size, after.st_mtime_ns) != (before_size.st_size, before_size.st_mtime_ns):
            raise UserError(
                f"extract.path: {place} changed while it was read; run again when it is whole."
            )
        yield RowOutcome(file=(name, content))


def reader_of(
    settings: AnyFiles, paths: Sequence[Path], root: Path
) -> Callable[..., Iterator[RowOutcome]]:
    """What gives the outcomes of a file of ``paths``, which may name what another one holds."""
    read = READERS[settings.kind][1]
    if isinstance(settings, Fhir) and paths:
        from residency.ingest.fhir import known_of

        return partial(read, known=known_of(paths))
    if isinstance(settings, Ccda) and paths:
        from residency.ingest.ccda import replaced

        return partial(read, gone=replaced({os.path.relpath(path, root): path for path in paths}))
    return read


def find_files(settings: AnyFiles, root: Path) -> list[Path]:
    """Files of the source, by name; raises ``UserError`` where there are none."""
    suffixes = READERS[settings.kind][0]
    base = root / settings.path
    if base.is_dir():
        paths = [path for path in base.rglob("*") if path.suffix.lower() in suffixes]
    else:
        paths = [Path(name) for name in glob.glob(str(base), recursive=True)]  # noqa: PTH207  (absolute patterns)
    paths = sorted(path for path in paths if path.is_file())
    if not paths:
        raise UserError(
            f"extract.path: there is no file at {settings.path}; give a file, a folder with "
            f"{' or '.join(suffixes)}, or a pattern."
        )
    return paths


def _read_csv(settings: CsvFiles, path: Path, name: str, place: str) -> Iterator[RowOutcome]:
    """Rows of a CSV file; a file in a legacy encoding is read as a whole, one in UTF-8 as a
    stream."""
    where = f"extract.path: {place}"
    header: list[str] = []
    number, gathered = 1, _Gathered(settings)
    try:
        with _opened(settings, path) as file:
            quotes = not quotes_are_text(file, settings.delimiter)
        with _opened(settings, path) as file:
            for _, row in csv_rows(file, where, settings.delimiter, quotes=quotes):
                if not header:
                    header = row
                    _check(settings.wanted(), header, place)
                    continue
                number += 1
                if len(row) != len(header):
                    raise DataError(
                        f"{where}, row {number}: has {len(row)} cells and the header "
                        f"{len(header)}; check delimiter and quotation marks."
                    )
                yield from gathered.see(dict(zip(header, row, strict=True)), f"{name}#{number}")
        yield from gathered.notes()
    except UnicodeDecodeError:
        best = candidates(path.read_bytes())[:1]
        told = f" (it reads as words in {best[0].codec})" if best and best[0].words > ENOUGH else ""
        raise DataError(
            f"{where} is not UTF-8; say in extract.encoding what it is{told}."
        ) from None
    except Unreadable:
        raise DataError(
            f"{where} cannot be read as {settings.encoding}; check extract.encoding."
        ) from None
    _check({} if header else settings.wanted(), header, place)


def _opened(settings: CsvFiles, path: Path) -> TextIO:
    if settings.encoding in ("auto", "utf-8"):
        return path.open(encoding="utf-8-sig", newline="")
    return io.StringIO(
        decode_bytes(path.read_bytes(), settings.encoding, settings.lang), newline=""
    )


def _read_jsonl(settings: JsonlFiles, path: Path, name: str, place: str) -> Iterator[RowOutcome]:
    columns = settings.columns
    required, gathered = {columns.id, columns.patient, columns.text}, _Gathered(settings)
    for number, line in enumerate_lines(path):
        where = f"{place}, line {number}"
        try:
            if settings.encoding not in ("auto", "utf-8", *FONTS):
                line = decode_bytes(line, settings.encoding, settings.lang).encode()
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (*NO_JSON, Unreadable):
            raise DataError(
                f"extract.path: {where}: is not a JSON object; check the file and extract.encoding."
            ) from None
        missing = {key: column for key, column in settings.wanted().items() if column not in row}
        _check({key: column for key, column in missing.items() if column in required}, row, where)
        full = dict.fromkeys(missing.values()) | row
        yield from gathered.see(full, f"{name}#{number}", _spans(row, settings, where))
    yield from gathered.notes()


def _read_xlsx(settings: XlsxFiles, path: Path, name: str, place: str) -> Iterator[RowOutcome]:
    where, gathered = f"extract.path: {place}", _Gathered(settings)
    header: list[str] = []
    for number, cells in xlsx_rows(path, settings.sheet, where):
        if not header:
            header = cells
            _check(settings.wanted(), header, place)
        elif len(cells) > len(header):
            raise DataError(
                f"{where}, row {number}: has {len(cells)} cells and the header {len(header)}; give "
                "each column a name."
            )
        else:
            yield from gathered.see(dict(zip(header, cells, strict=True)), f"{name}#{number}")
    yield from gathered.notes()
    _check({} if header else settings.wanted(), header, place)


def _read_arrow(settings: ArrowFiles, path: Path, name: str, place: str) -> Iterator[RowOutcome]:
    where, gathered = f"extract.path: {place}", _Gathered(settings)
    wanted = settings.wanted()
    _check(wanted, arrow_columns(path, where), place)
    columns = list(dict.fromkeys(wanted.values()))
    for number, row in enumerate(arrow_rows(path, where, columns), 1):
        yield from gathered.see(row, f"{name}#{number}")
    yield from gathered.notes()


class _Gathered:
    """Rows of a file as notes: each as it comes or, where a note has several, all at its end."""

    def __init__(self, settings: TableSource) -> None:
        self.settings = settings
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.labels: Labels = {}

    def see(
        self, row: dict[str, Any], place: str, labels: Labels | None = None
    ) -> list[RowOutcome]:
        """What can be said of a row at once."""
        if not self.settings.columns.line:
            return [note_of(row, self.settings, place, labels)]
        self.rows.setdefault(str(row[self.settings.columns.id] or f"\0{place}"), []).append(row)
        for id, found in (labels or {}).items():
            self.labels.setdefault(id, []).extend(found)
        return []

    def notes(self) -> Iterator[RowOutcome]:
        """The notes that were gathered."""
        for id, rows in self.rows.items():
            yield note_of_lines(rows, self.settings, id.lstrip("\0"), self.labels)


def _read_hl7(settings: Hl7, path: Path, name: str, place: str) -> Iterator[RowOutcome]:
    from residency.ingest.hl7 import messages

    return messages(settings, path.read_bytes(), name)


def _read_ccda(
    settings: Ccda, path: Path, name: str, place: str, gone: Gone | None = None
) -> Iterator[RowOutcome]:
    from residency.ingest.ccda import documents

    return documents(settings, path.read_bytes(), name, gone or {})


def _read_claims(settings: Claims, path: Path, name: str, place: str) -> Iterator[RowOutcome]:
    from residency.ingest.claims import claims

    return claims(settings, path.read_bytes(), name)


def _read_fhir(
    settings: Fhir, path: Path, name: str, place: str, known: Known
) -> Iterator[RowOutcome]:
    from residency.ingest.fhir import outcomes

    return outcomes(settings, path, name, known)


READERS: dict[str, tuple[tuple[str, ...], Callable[..., Iterator[RowOutcome]]]] = {
    "csv": ((".csv",), _read_csv),
    "jsonl": ((".jsonl",), _read_jsonl),
    "xlsx": ((".xlsx", ".xlsm"), _read_xlsx),
    "arrow": ((".parquet", ".arrow", ".feather"), _read_arrow),
    "hl7": ((".hl7", ".txt"), _read_hl7),
    "ccda": ((".xml", ".ccda", ".cda"), _read_ccda),
    "claims": ((".xml",), _read_claims),
    "fhir": ((".json", ".ndjson", ".jsonl", ".xml"), _read_fhir),
}
"""Kind of source: what is read of a folder, and what gives the outcome of each row, message or
document of a file."""


def _spans(row: dict[str, Any], settings: JsonlFiles, where: str) -> Labels:
    """Labels of a row, from ``spans`` or ``entities``."""
    given = row.get("spans") or row.get("entities") or []
    try:
        spans = [(int(one["start"]), int(one["end"]), str(one["label"])) for one in given]
        return {str(row[settings.columns.id]): spans}
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
