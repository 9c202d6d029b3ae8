"""The mark on a model that learned from notes which have been erased since."""

from __future__ import annotations

from pathlib import Path

from residency.core.files import read_json, write_json
from residency.core.types import Value

FILE = "erased.json"


class Erasure(Value, frozen=True):
    """One patient's erasure, as a model keeps it."""

    at: str
    """UTC, to the second."""
    rows: int
    """Notes of the patient that it learned from or was chosen with."""
    patient: str
    """Keyed hash, as in the erasure log."""


def erasures(folder: Path) -> list[Erasure]:
    """What was erased after the model in ``folder`` had learned from it."""
    path = folder / FILE
    return read_json(path, list[Erasure]) if path.is_file() else []


def mark(folder: Path, erasure: Erasure) -> None:
    """Add a mark, in place of an earlier one for the same patient."""
    before = [one for one in erasures(folder) if one.patient != erasure.patient]
    write_json(folder / FILE, [*before, erasure])


def warning(folder: Path) -> str:
    """One line for whoever uses the model; empty where nothing was erased."""
    found = erasures(folder)
    if not found:
        return ""
    rows, last = sum(one.rows for one in found), max(one.at for one in found)[:10]
    return (
        f"{rows} note{'' if rows == 1 else 's'} of {len(found)} "
        f"patient{'' if len(found) == 1 else 's'} that this model learned from "
        f"{'was' if rows == 1 else 'were'} erased (last on {last}); the model was not: train it "
        "again."
    )
