"""The row ledger: what became of every input row, without its text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from residency.core.errors import DataError
from residency.core.types import Value

Status = Literal["kept", "windowed", "truncated", "repaired", "rejected"]
ROWS: tuple[Status, ...] = ("kept", "repaired", "rejected")
"""The statuses of which each input row has exactly one; the others say more about a row that is in."""


class Entry(Value, frozen=True):
    """What became of one row. Never holds text."""

    file: str
    line: int
    status: Status
    id: str = ""
    reason: str = ""
    count: int = 1
    """Spans (or windows, or tokens) of the row that the reason concerns."""


class Ledger:
    """Collects entries while files are read; the one mutable object of this package."""

    def __init__(self, root: Path | None = None, stems: Mapping[Path, str] | None = None) -> None:
        self._root = root
        self._stems = dict(stems or {})
        self._entries: list[Entry] = []
        self.labels: set[str] = set()
        """Every label met, as it stands in the files."""

    def kept(self, file: Path | str, line: int, id: str) -> None:
        """The row is used as it is."""
        self.add(Entry(file=self.name(file), line=line, status="kept", id=id))

    def repaired(self, file: Path | str, line: int, id: str, reason: str, count: int = 1) -> None:
        """The row is used after a repair that is certain."""
        self.add(
            Entry(
                file=self.name(file),
                line=line,
                status="repaired",
                id=id,
                reason=reason,
                count=count,
            )
        )

    def rejected(self, file: Path | str, line: int, id: str, reason: str, count: int = 1) -> None:
        """The row is not used."""
        self.add(
            Entry(
                file=self.name(file),
                line=line,
                status="rejected",
                id=id,
                reason=reason,
                count=count,
            )
        )

    def add(self, entry: Entry) -> None:
        """Append an entry made elsewhere, e.g. by windowing."""
        self._entries.append(entry)

    def name(self, file: Path | str) -> str:
        """How a file is shown: relative to the recipe's folder where it lies in it."""
        path = Path(file)
        return (
            path.relative_to(self._root).as_posix()
            if self._root and path.is_relative_to(self._root)
            else str(file)
        )

    def stem(self, file: Path) -> str:
        """What the ids of a file's rows begin with where the rows have none of their own."""
        return self._stems.get(file, file.stem)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries in the order of reading."""
        return tuple(self._entries)

    def summary(self) -> dict[str, dict[str, int]]:
        """Status -> reason -> rows."""
        counts: dict[str, dict[str, int]] = {}
        for entry in self._entries:
            reasons = counts.setdefault(entry.status, {})
            reasons[entry.reason] = reasons.get(entry.reason, 0) + 1
        return counts

    def lost(self) -> float:
        """Share of rows rejected, 0 where nothing was read."""
        rows = sum(entry.status in ROWS for entry in self._entries)
        return sum(entry.status == "rejected" for entry in self._entries) / rows if rows else 0.0

    def check(self, limit: float, where: str) -> None:
        """Raise ``DataError`` when more than ``limit`` of the rows is lost, with the three
        commonest reasons."""
        if self.lost() <= limit:
            return
        rejected = [entry for entry in self._entries if entry.status == "rejected"]
        reasons = Counter(entry.reason for entry in rejected)
        first = {entry.reason: f"{entry.file}:{entry.line}" for entry in reversed(rejected)}
        shown = ", ".join(
            f"{number} x {reason} (first: {first[reason]})"
            for reason, number in reasons.most_common(3)
        )
        rows = sum(entry.status in ROWS for entry in self._entries)
        raise DataError(
            f"{where}: {len(rejected)} of {rows} rows ({self.lost():.1%}) would be lost, "
            f"{limit:.1%} is allowed: {shown}; "
            f"correct those rows, or accept the loss with {where}.loss."
        )
