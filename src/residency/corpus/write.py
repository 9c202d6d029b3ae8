"""Notes written in training formats."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from residency.core import files
from residency.core.types import Note, Span
from residency.corpus.ledger import Ledger
from residency.locale.tokenise import units

OVERLAP = "span left out: overlaps another"
INSIDE = "span left out: begins or ends inside a token"


def write_jsonl(notes: Iterable[Note], path: Path) -> int:
    """Write JSON lines that ``Jsonl`` reads back as they are with its default fields; returns how
    many."""
    return files.write_jsonl(path, (_record(note) for note in notes))


def _record(note: Note) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": note.id,
        "text": note.text,
        "entities": [_entity(span) for span in note.spans],
    }
    for name in (
        "group",
        "lang",
        "kind",
        "department",
        "choices",
        "written_at",
        "parents",
        "source",
    ):
        if value := getattr(note, name):
            record[name] = value
    if note.labels:
        record["labels"] = note.labels
    if note.relations:
        record["relations"] = [
            {"head": r.head, "tail": r.tail, "label": r.label} for r in note.relations
        ]
    return record | {"origin": note.origin, "profile": note.profile}


def _entity(span: Span) -> dict[str, Any]:
    entity: dict[str, Any] = {
        "start": span.start,
        "end": span.end,
        "label": span.label,
        "text": span.quote,
    }
    optional = {
        "code": span.code,
        "attributes": span.attributes,
        "by": span.by,
        "score": span.score,
    }
    return entity | {name: value for name, value in optional.items() if value not in (None, ())}


def write_conll(notes: Iterable[Note], path: Path) -> Ledger:
    """Write token, tab and BIO tag, with a blank line between notes; returns what could not be
    expressed.

    Tokens are the smallest units of the text. Of overlapping spans the one that begins first, and
    of those the longest, is written. The ledger's lines are those of the new file.
    """
    ledger, line = Ledger(), 1
    with (
        files.atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for note in notes:
            tokens = units(note.text)
            if not tokens:
                ledger.rejected(path, line, note.id, "text is empty")
                continue
            tags, reasons = _tags(tokens, note.spans)
            if line > 1:
                file.write("\n")
                line += 1
            if reasons:
                ledger.repaired(path, line, note.id, "; ".join(sorted(set(reasons))), len(reasons))
            else:
                ledger.kept(path, line, note.id)
            file.writelines(
                f"{note.text[start:end]}\t{tag}\n"
                for (start, end), tag in zip(tokens, tags, strict=True)
            )
            line += len(tokens)
    return ledger


def _tags(tokens: Sequence[tuple[int, int]], spans: Sequence[Span]) -> tuple[list[str], list[str]]:
    tags, reasons = ["O"] * len(tokens), list[str]()
    starts, ends = [start for start, _ in tokens], [end for _, end in tokens]
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        first, last = bisect_left(starts, span.start), bisect_left(ends, span.end)
        if starts[first : first + 1] != [span.start] or ends[last : last + 1] != [span.end]:
            reasons.append(INSIDE)
        elif any(tag != "O" for tag in tags[first : last + 1]):
            reasons.append(OVERLAP)
        else:
            tags[first : last + 1] = _bio(span.label, last + 1 - first)
    return tags, reasons


def _bio(label: str, length: int) -> Iterator[str]:
    yield f"B-{label}"
    yield from (f"I-{label}" for _ in range(length - 1))
