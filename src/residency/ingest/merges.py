"""Patients whose records the hospital has merged, and those of whom a person must say so."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from unicodedata import normalize

from residency.core.errors import DataError
from residency.core.files import csv_records, write_bytes
from residency.core.types import RawNote
from residency.ingest.sources import AnySource, Sql
from residency.ingest.store import Store

COLUMNS = ("patient", "into", "confirmed")
YES = frozenset(["yes", "y", "1", "true", "x"])


def merged_patients(settings: AnySource, root: Path, zone: Path, name: str) -> dict[str, str]:
    """Patient -> who it is, chains followed: of the recipe's table and statement, and of the
    candidates that a person has confirmed.

    Raises ``DataError`` where a table cannot be read, or leads in a circle.
    """
    pairs: dict[str, str] = {}
    if settings.merged:
        pairs |= _confirmed(root / settings.merged, "extract.merged", needed=False)
    if isinstance(settings, Sql) and settings.merges:
        from residency.ingest import sql

        pairs |= sql.merges(settings, root)
    if (path := candidates_of(zone, name)).is_file():
        pairs |= _confirmed(path, str(path), needed=True)
    found = {}
    for patient, into in pairs.items():
        met = {patient}
        while into in pairs and into != pairs[into]:
            if into in met:
                raise DataError(
                    "extract.merged: the merged patients lead in a circle; each must lead to one "
                    "who is not merged."
                )
            met.add(into)
            into = pairs[into]
        if patient != into:
            found[patient] = into
    return found


def _confirmed(path: Path, where: str, needed: bool) -> dict[str, str]:
    pairs = {}
    if not path.is_file():
        raise DataError(f"{where}: {path} does not exist; give a CSV file with patient and into.")
    for line, row in csv_records(path, COLUMNS[:2]):
        if not row["patient"] or not row["into"]:
            raise DataError(f"{where}: {path.name}, line {line}: patient or into is empty.")
        if row.get("confirmed", "" if needed else "yes").casefold() in YES:
            pairs[row["patient"]] = row["into"]
    return pairs


def candidates_of(zone: Path, name: str) -> Path:
    """The file in which a person confirms that two patients are one."""
    return zone / f"{name}.candidates.csv"


def person_of(note: RawNote) -> str:
    """Name and birth date of a note's patient, however they are written; empty where one of them is
    not known."""
    of = dict(note.identifiers)
    if "birth_date" not in of:
        return ""
    name = " ".join(sorted(normalize("NFKC", of.get("name", "")).casefold().split()))
    born = "".join(sign for sign in of.get("birth_date", "") if sign.isdigit())
    return f"{name}\0{born}" if name and born else ""


def write_candidates(store: Store, merged: dict[str, str]) -> int:
    """Write the pairs of patients with one name and birth date that nobody has decided on yet, what
    was decided kept; how many wait. No file where there was none and nothing waits."""
    path = candidates_of(store.path.parent, store.path.name.split(".")[0])
    rows: dict[tuple[str, str], str] = {}
    if path.is_file():
        for _, row in csv_records(path, COLUMNS[:2]):
            rows[row["patient"], row["into"]] = row.get("confirmed", "")
    for first, *others in store.namesakes():
        for other in others:
            same = merged.get(first, first) == merged.get(other, other)
            if not same and (first, other) not in rows:
                rows.setdefault((other, first), "")
    if rows or path.is_file():
        write_decided(
            path, [dict(zip(COLUMNS, (*pair, word), strict=True)) for pair, word in rows.items()]
        )
    return sum(not word for word in rows.values())


def write_decided(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write the pairs of ``candidates_of``, with what was decided of each."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: row.get(name, "") for name in COLUMNS} for row in rows)
    write_bytes(path, text.getvalue().encode(), private=True)
