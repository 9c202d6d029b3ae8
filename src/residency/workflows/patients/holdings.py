"""What still holds something of a patient, whichever step wrote it: every file below some folders
is read for ids, codes and stretches of the patient's notes.

It knows nothing of what wrote a file, so that nothing which is forgotten elsewhere is forgotten
here too. Rows of JSON lines and items of JSON are taken out, pages are removed (what wrote them
writes them anew); any other file is named, an archive by what it holds.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import ResidencyError
from residency.core.files import NO_JSON, enumerate_lines
from residency.core.sealed import MAGIC
from residency.core.types import Value

RUN = 20
"""Characters of a stretch that no other patient's note holds."""
SHORTEST_CODE, SHORTEST = 5, 8
"""Characters of a code, and from which on a quote is looked for."""
BREAKS = re.compile(r"[\r\n\t\"\\<>&']+")
"""Where a text may be written in another way in a file: stretches do not run over these."""
ROWS, ITEMS, PAGES = (".jsonl", ".ndjson"), (".json",), (".html", ".md")
LARGEST = 1 << 28
WEIGHTS = (".safetensors", ".bin", ".pt", ".crfsuite", ".onnx", ".sqlite", ".db", ".lock")
"""What is not read: models are marked, and databases are sealed or the hospital's own."""


class Marks:
    """By what a patient is known in any file. Never shown."""

    def __init__(
        self, codes: Iterable[str], own: Sequence[str] = (), others: Sequence[str] = ()
    ) -> None:
        found = "|".join(re.escape(code) for code in codes if len(code) >= SHORTEST_CODE)
        self.codes = re.compile(rf"(?<![0-9A-Za-z])(?:{found})(?![0-9A-Za-z])") if found else None
        """Found wherever they stand as a whole."""
        self.quotes: frozenset[str] = frozenset()
        self.labelled: frozenset[str] = frozenset()
        """Labelled quotes of any length that nobody else's labels hold."""
        self.own, self.others = own, others
        """The patient's texts, and those of everybody else."""
        self.runs = {run for text in own for run in runs(text)}
        for text in others if self.runs else ():
            self.runs.difference_update(runs(text))

    def __repr__(self) -> str:
        return "Marks(...)"

    def add_quotes(self, quotes: Iterable[str], others: Sequence[str]) -> None:
        """Look for labelled quotes too, those that no other patient's note holds."""
        every = "\0".join(others)
        found = {one for one in quotes if len(one) >= SHORTEST and one not in every}
        self.quotes = frozenset(one for one in found if not BREAKS.search(one))

    def __contains__(self, text: str) -> bool:
        if self.codes is not None and self.codes.search(text):
            return True
        if any(quote in text for quote in self.quotes):
            return True
        return bool(self.runs) and any(run in self.runs for run in runs(text))


def runs(text: str) -> Iterator[str]:
    """Every stretch of 20 characters that any file writes as it is."""
    for piece in BREAKS.split(text):
        for start in range(len(piece) - RUN + 1):
            yield piece[start : start + RUN]


class Holding(Value, frozen=True):
    """A file that holds something of a patient."""

    path: Path
    lines: tuple[int, ...] = ()
    """Of a file of rows."""
    by_hand: bool = False
    """Whether it is of a kind that is not rewritten."""


def holdings(
    folders: Sequence[Path], aside: Collection[Path], marks: Marks, exact: Exact
) -> list[Holding]:
    """Files below the folders that hold something of a patient; ``aside`` is not looked at."""
    found = []
    for path in _files(folders, aside):
        holds = Holds(marks, exact.of(path))
        if path.suffix in ROWS:
            every = enumerate_lines(path)
            lines = tuple(number for number, line in every if holds(_decoded(line)))
            found += [Holding(path=path, lines=lines)] if lines else []
        elif path.suffix in ITEMS:
            found += [Holding(path=path)] if holds(_decoded(path.read_bytes())) else []
        elif archive := _packed(path):
            if any(_in_member(name, data, holds) for name, data in archive):
                found.append(Holding(path=path, by_hand=True))
        elif path.read_bytes().decode("utf-8", "replace") in marks:
            found.append(Holding(path=path, by_hand=path.suffix not in (*PAGES, ".csv")))
    return found


def sealed(folders: Sequence[Path]) -> list[Path]:
    """Backups and archives under a password below the folders: they are not looked into, and are as
    they were."""
    every = _files(folders, (), largest=sys.maxsize)
    return [path for path in every if _begins(path) == MAGIC or _is_locked(path)]


def _is_locked(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(one.flag_bits & 1 for one in archive.infolist())
    return False


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(MAGIC))


def _packed(path: Path) -> Iterator[tuple[str, bytes]] | None:
    """Names and contents of what an archive or a compressed file holds, None of another file."""
    if zipfile.is_zipfile(path):
        return _members(path)
    if tarfile.is_tarfile(path):
        return _members_of_tar(path)
    opened: Mapping[str, Callable[[Path], Any]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
    }
    return _alone(path, opened[path.suffix]) if path.suffix in opened else None


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            if one.file_size <= LARGEST:
                with suppress(RuntimeError, zipfile.BadZipFile):  # under a password, or damaged
                    yield one.filename, archive.read(one)


def _members_of_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    with suppress(tarfile.TarError, EOFError, zlib.error, OSError), tarfile.open(path) as archive:
        for one in archive:
            if one.size <= LARGEST and (file := archive.extractfile(one)):
                yield one.name, file.read()


def _alone(path: Path, opened: Callable[[Path], Any]) -> Iterator[tuple[str, bytes]]:
    with suppress(EOFError, zlib.error, lzma.LZMAError, OSError), opened(path) as file:
        yield path.stem, file.read(LARGEST)


def _in_member(name: str, data: bytes, holds: Holds) -> bool:
    """Whether what an archive holds under a name has something of a patient."""
    rows = data.splitlines() if name.endswith((*ROWS, *ITEMS)) else []
    return any(holds(_decoded(one)) for one in (data, *rows))


class Exact:
    """Ids that mean the patient's notes below some folders alone, whatever they mean elsewhere."""

    def __init__(self, folders: Collection[Path], ids: Collection[str]) -> None:
        self.folders, self.ids = frozenset(folders), frozenset(ids)

    def of(self, path: Path) -> frozenset[str]:
        """Those that mean the patient's notes in a file."""
        return self.ids if self.folders & set(path.parents) else frozenset()


class Holds:
    """Whether a value of JSON holds something of a patient."""

    def __init__(self, marks: Marks, ids: Collection[str]) -> None:
        self.marks, self.ids = marks, ids

    def __call__(self, value: object) -> bool:
        if isinstance(value, str):
            return value in self.ids or value.partition(":")[0] in self.ids or value in self.marks
        if isinstance(value, dict):
            return any(self(key) or self(one) for key, one in value.items())
        return isinstance(value, list) and any(map(self, value))

    def without(self, value: Any) -> Any:
        """A value without what holds something: items of lists and of mappings go whole where they
        say it themselves, a text becomes empty."""
        if isinstance(value, dict):
            return {key: self.without(one) for key, one in value.items() if not self(key)}
        if isinstance(value, list):
            return [self.without(one) for one in value if not self._says(one)]
        return "" if isinstance(value, str) and self(value) else value

    def _says(self, item: object) -> bool:
        if isinstance(item, dict):
            return any(self(one) for one in item.values() if isinstance(one, str))
        return isinstance(item, str) and self(item)


def cleaned(holding: Holding, marks: Marks, exact: Exact) -> bytes | None:
    """What a file holds without the patient; None for a page, which is to be removed."""
    path = holding.path
    if path.suffix in ROWS:
        with path.open("rb") as file:
            return b"".join(
                line for number, line in enumerate(file, 1) if number not in holding.lines
            )
    if path.suffix in ITEMS:
        value = Holds(marks, exact.of(path)).without(msgspec.json.decode(path.read_bytes()))
        return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    if path.suffix == ".csv":
        return b"".join(
            line
            for line in path.read_bytes().splitlines(keepends=True)
            if line.decode("utf-8", "replace") not in marks
        )
    return None


def _decoded(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except NO_JSON:
        return data.decode("utf-8", "replace")


def _files(
    folders: Sequence[Path], aside: Collection[Path], largest: int = LARGEST
) -> Iterator[Path]:
    seen: set[Path] = set(aside)
    models = {path.parent for folder in folders for path in folder.rglob("artefact.json")}
    for folder in folders:
        for path in sorted(folder.rglob("*") if folder.is_dir() else [folder]):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts[:-1])
            skipped = hidden or path.is_symlink() or any(s in path.name for s in WEIGHTS)
            skipped |= bool(models & set(path.parents)) and path.name != "stage.json"
            if skipped or path in seen or not path.is_file():
                continue
            seen.add(path)
            if path.stat().st_size <= largest:
                yield path


def quietly(work: Callable[[], Iterable[Path]]) -> list[Path]:
    """Paths that something gives, none where it cannot be read."""
    try:
        return list(work())
    except (ResidencyError, OSError):
        return []
