"""The row ledger: what became of every input row, without its text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from residency.core.errors import DataError
from residency.core.types import PROFILES, Note, Relation, Span, Value
from residency.corpus.reader import Row, Source
from residency.corpus.span_repair import MERGED, Remark, settle

Status = Literal["kept", "windowed", "truncated", "repaired", "rejected", "left out", "not taken"]
ROWS: tuple[Status, ...] = ("kept", "repaired", "rejected", "left out")
"""The statuses of which each input row has exactly one; the others say more about a used row."""

FOR_TRAINING = "for training: "
"""How reasons begin that training gives: of rows that were counted as used already."""


class LedgerEntry(Value, frozen=True):
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
        self._entries: list[LedgerEntry] = []
        self.labels: set[str] = set()
        """Every label met, as it stands in the files."""

    def add(
        self, status: Status, path: Path, line: int, id: str, reason: str = "", count: int = 1
    ) -> None:
        """Append what became of a row; its file is named relative to the recipe's folder where it
        lies in it."""
        inside = self._root and path.is_relative_to(self._root)
        file = path.relative_to(self._root).as_posix() if self._root and inside else str(path)
        entry = LedgerEntry(file=file, line=line, status=status, id=id, reason=reason, count=count)
        self._entries.append(entry)

    def add_row(self, row: Row, path: Path, settings: Source) -> Note | None:
        """Account for one row: its note, or None where the entry says why it is rejected."""
        stem = self._stems.get(path, path.stem)
        id = row.id or (f"{stem}-{row.line}" if row.line else stem)
        line = max(row.line, 1)
        if row.left_out:
            self.add("left out", path, line, id, row.left_out)
            return None
        for reason, number in row.not_taken.items():
            self.add("not taken", path, line, "", reason, number)
        self.labels.update(raw.label for raw in row.spans if raw.label)
        self.labels.update(row.labels)
        if fault := row.fault or ("" if row.text.strip() else "text is empty"):
            self.add("rejected", path, line, id, fault)
            return None
        wanted = [raw for raw in row.spans if settings.labels.get(raw.label) != ""]
        sure = settings.offsets != "auto"
        how = settings.offsets if sure else row.offsets
        settled = settle(row.text, wanted, row.join_lines, how, settings.ends == "inclusive", sure)
        spans, positions = _rename(settled.spans, settings.labels)
        status: Status
        if settled.faults and settings.on_bad_span == "reject_row":
            status, remarks = "rejected", list(settled.faults)
        else:
            remarks = [Remark(reason=repair) for repair in row.repairs]
            remarks += settled.repairs
            remarks += [replace(f, reason=f"span dropped: {f.reason}") for f in settled.faults]
            remarks += [Remark(reason=MERGED)] if len(spans) < len(settled.spans) else []
            status = "repaired" if remarks else "kept"
        reasons = "; ".join(sorted({remark.reason for remark in remarks}))
        # An entry points at the first remark that has a line of its own.
        first = min((remark.line for remark in remarks if remark.line), default=0)
        file, line = (settings.span_file(path), first) if first else (path, line)
        self.add(status, file, line, id, reasons, len(remarks) or 1)
        if status == "rejected":
            return None
        keys = {key: positions[position] for key, position in settled.keys.items()}
        return Note(
            id=id,
            text=row.text,
            profile=max(row.profile, settings.profile, key=PROFILES.index),
            group=row.group or id,
            lang=row.lang or settings.lang,
            kind=row.kind,
            written_at=row.written_at,
            spans=spans,
            relations=tuple(
                Relation(head=keys[head], tail=keys[tail], label=label)
                for head, tail, label in row.relations
                if head in keys and tail in keys
            ),
            labels=tuple(name for old in row.labels if (name := settings.labels.get(old, old))),
            turns=row.turns,
            fields=row.fields,
            origin=row.origin or settings.origin,
            parents=row.parents,
            source=row.source,
            choices=row.choices,
            department=row.department,
        )

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """All entries in the order of reading."""
        return tuple(self._entries)

    def check(self, most: float, where: str) -> None:
        """Raise ``DataError`` where more than a share ``most`` of the rows is rejected, with the
        three commonest reasons."""
        rows = sum(entry.status in ROWS for entry in self._entries)
        rejected = [entry for entry in self._entries if entry.status == "rejected"]
        share = len(rejected) / rows if rows else 0.0
        if share <= most:
            return
        first = {entry.reason: f"{entry.file}:{entry.line}" for entry in reversed(rejected)}
        commonest = ", ".join(
            f"{number} x {reason} (first: {first[reason]})"
            for reason, number in Counter(entry.reason for entry in rejected).most_common(3)
        )
        raise DataError(
            f"{where}: {len(rejected)} of {rows} rows ({share:.1%}) would be lost, {most:.1%} is "
            f"allowed: {commonest}; correct those rows, or accept the loss with "
            f"{where}.max_rejected."
        )


def count_entries(
    entries: Iterable[LedgerEntry], counted: Mapping[str, Mapping[str, int]] | None = None
) -> dict[str, dict[str, int]]:
    """Status -> reason -> rows, on top of what was counted before; of an entry that names no row,
    its own count."""
    found = {status: dict(reasons) for status, reasons in (counted or {}).items()}
    for entry in entries:
        reasons = found.setdefault(entry.status, {})
        reasons[entry.reason] = reasons.get(entry.reason, 0) + (1 if entry.id else entry.count)
    return found


def _rename(spans: Sequence[Span], labels: Mapping[str, str]) -> tuple[tuple[Span, ...], list[int]]:
    """Spans with new labels, equal ones merged, and where each of the old ones went."""
    if not labels:
        return tuple(spans), list(range(len(spans)))
    renamed: dict[Span, int] = {}
    positions = [
        renamed.setdefault(replace(span, label=labels.get(span.label, span.label)), len(renamed))
        for span in spans
    ]
    return tuple(renamed), positions
