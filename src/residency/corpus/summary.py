"""What became of a data set, in numbers: the size of its parts and its ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from residency.core.types import PARTS, PROFILES, DataSummary, PartSummary, Profile
from residency.corpus import load
from residency.corpus.ledger import LedgerEntry, count_entries
from residency.corpus.load import Corpus, Data
from residency.corpus.parts import labels_of


def summary(data: Data, root: Path, corpus: Corpus) -> DataSummary:
    """Sizes, split and ledger of a data set."""
    parts: dict[str, PartSummary] = {}
    for part in PARTS:
        notes = corpus.part(part)
        labels = Counter(label for note in notes for label in labels_of(note))
        parts[part] = PartSummary(
            notes=len(notes),
            groups=len({note.group or note.id for note in notes}),
            characters=sum(len(note.text) for note in notes),
            labels=dict(sorted(labels.items())),
        )
    return DataSummary(
        name=corpus.name,
        files=tuple(load.relative_name(path, root) for path in load.files(data, root, corpus.name)),
        format=data.format,
        profile=strictest(note.profile for note in corpus.notes),
        lang=", ".join(sorted({note.lang for note in corpus.notes if note.lang})),
        split=corpus.split.how,
        parts=parts,
        ledger=count_entries(corpus.ledger),
        warnings=corpus.warnings,
    )


def with_entries(data: DataSummary, entries: Iterable[LedgerEntry]) -> DataSummary:
    """A summary with what windowing and tagging added to the ledger."""
    return msgspec.structs.replace(data, ledger=count_entries(entries, data.ledger))


def strictest(profiles: Iterable[Profile]) -> Profile:
    """The profile that allows least."""
    return max(profiles, key=PROFILES.index, default="pseudonymised")
