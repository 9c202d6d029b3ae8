"""What became of a data set, in numbers: the size of its parts and its ledger."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from residency.core.types import PARTS, PROFILES, DataSummary, PartSummary, Profile
from residency.corpus import load
from residency.corpus.ledger import Entry
from residency.corpus.load import Corpus, Data


def summary(data: Data, root: Path, corpus: Corpus) -> DataSummary:
    """Sizes, split and ledger of a data set."""
    parts: dict[str, PartSummary] = {}
    for part in PARTS:
        notes = corpus.part(part)
        labels: dict[str, int] = {}
        for note in notes:
            for label in (*(span.label for span in note.spans), *note.labels):
                labels[label] = labels.get(label, 0) + 1
        parts[part] = PartSummary(
            notes=len(notes),
            groups=len({note.group or note.id for note in notes}),
            characters=sum(len(note.text) for note in notes),
            labels=dict(sorted(labels.items())),
        )
    ledger: dict[str, dict[str, int]] = {}
    for entry in corpus.ledger:
        reasons = ledger.setdefault(entry.status, {})
        reasons[entry.reason] = reasons.get(entry.reason, 0) + 1
    return DataSummary(
        name=corpus.name,
        files=tuple(shown(path, root) for path in load.files(data, root, corpus.name)),
        format=data.format,
        profile=strictest(note.profile for note in corpus.notes),
        lang=", ".join(sorted({note.lang for note in corpus.notes if note.lang})),
        split=corpus.split.how,
        parts=parts,
        ledger=ledger,
        warnings=corpus.warnings,
    )


def with_entries(data: DataSummary, entries: Iterable[Entry]) -> DataSummary:
    """A summary with what windowing and tagging added to the ledger."""
    ledger = {status: dict(reasons) for status, reasons in data.ledger.items()}
    for entry in entries:
        reasons = ledger.setdefault(entry.status, {})
        reasons[entry.reason] = reasons.get(entry.reason, 0) + (1 if entry.id else entry.count)
    return msgspec.structs.replace(data, ledger=ledger)


def strictest(profiles: Iterable[Profile]) -> Profile:
    """The profile that allows least."""
    return max(profiles, key=PROFILES.index, default="pseudonymised")


def shown(path: Path, root: Path) -> str:
    """How a file is named: relative to the recipe's folder where it lies in it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
