"""What annotators said, proved against the notes that they were given.

An annotation counts as a whole or not at all: one that holds a span outside its note or a label
that the card does not have is kept with its faults and waits until it is mended, since a note that
silently lacks a span would be taught as complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from residency.core.errors import DataError, GateRefused
from residency.core.files import disk_errors, read_jsonl, write_jsonl
from residency.core.types import Note, Span, Value
from residency.corpus.reader import showable
from residency.corpus.span_repair import Raw, settle
from residency.tasks.card import Card

Version = tuple[Span, ...]


class LabellingTask(Value, frozen=True):
    """One item for an annotator: a note with what is shown before they begin."""

    id: str
    text: str
    suggestions: tuple[Version, ...] = ()
    """Versions to begin from, without names."""
    about: str = ""
    """A word on what is asked, where that is more than the whole note."""
    lang: str = ""


class Given(Value, frozen=True):
    """What came back for one item; nothing about it is proved."""

    task: str
    spans: tuple[Raw, ...] = ()
    at: str = ""
    """When it was finished, ISO 8601."""
    seconds: float | None = None
    """How long it took, where known."""
    skipped: bool = False
    fault: str = ""
    """Why the whole cannot be read."""
    choice: int | None = None
    """The suggestion that was taken as it is, from 1."""


class AnnotationFault(Value, frozen=True):
    """One thing that must be mended before an annotation counts."""

    reason: str
    start: int = -1
    end: int = -1
    label: str = ""


class Annotation(Value, frozen=True):
    """What one annotator said of one note."""

    note: str
    annotator: str
    spans: Version = ()
    at: str = ""
    seconds: float | None = None
    skipped: bool = False
    faults: tuple[AnnotationFault, ...] = ()
    repairs: tuple[str, ...] = ()
    """What had to be put right and how, e.g. blanks trimmed from the edges of a span."""
    choice: int | None = None

    @property
    def counts(self) -> bool:
        """Whether it is whole: neither skipped nor faulty."""
        return not self.skipped and not self.faults


def releasable(notes: Iterable[object]) -> Iterator[Note]:
    """The notes, each proved to be one that may be shown to annotators.

    Raises ``GateRefused`` for anything that is not a ``Note``: identified text does not leave its
    zone.
    """
    for note in notes:
        if not isinstance(note, Note):
            raise GateRefused(
                "label: only de-identified, public or synthetic notes can be labelled, and one is "
                "none; run residency deid first."
            )
        yield note


def prove(given: Given, annotator: str, text: str, card: Card) -> Annotation:
    """An annotation with every span checked: range, quote, label, attributes; equal spans and
    blanks at edges are put right."""
    settled = settle(text, given.spans)
    faults = [AnnotationFault(reason=given.fault)] if given.fault else []
    faults += [AnnotationFault(reason=fault.reason) for fault in settled.faults]
    if settled.faults:  # say which ones: each alone has its own verdict
        faults = [AnnotationFault(reason=given.fault)] if given.fault else []
        for raw in given.spans:
            start, end = raw.fragments[0] if raw.fragments else (-1, -1)
            label = raw.label if raw.label in card.names else ""
            faults += [
                AnnotationFault(reason=f.reason, start=start, end=end, label=label)
                for f in settle(text, [raw]).faults
            ]
    for span in settled.spans:
        if span.label not in card.names:
            faults.append(
                AnnotationFault(
                    reason=OTHER_LABEL, start=span.start, end=span.end, label=span.label
                )
            )
        if unknown := set(span.attributes) - set(card.attributes):
            reason = f"attribute is not in the card: {sorted(unknown)[0]}"
            faults.append(
                AnnotationFault(reason=reason, start=span.start, end=span.end, label=span.label)
            )
    return Annotation(
        note=given.task,
        annotator=annotator,
        spans=tuple(ordered(settled.spans)),
        at=given.at,
        seconds=given.seconds,
        skipped=given.skipped,
        faults=tuple(faults),
        repairs=tuple(sorted(remark.reason for remark in settled.repairs)),
        choice=given.choice,
    )


def ordered(spans: Iterable[Span]) -> list[Span]:
    """Spans in the order of the text, without who set them or how sure they were; attributes in
    alphabetical order."""
    bare = {
        Span(
            start=span.start,
            end=span.end,
            label=span.label,
            quote=span.quote,
            code=span.code or None,
            attributes=tuple(sorted(set(span.attributes))),
        )
        for span in spans
    }
    return sorted(
        bare, key=lambda span: (span.start, span.end, span.label, span.code or "", span.attributes)
    )


class Pulled(Value, frozen=True):
    """What one pull brought from one annotator."""

    annotator: str
    new: int = 0
    changed: int = 0
    same: int = 0
    gone: int = 0
    """Pulled before and no longer at the source; what was pulled is kept."""
    faulty: int = 0
    """Of all that is kept, those that must be mended."""
    done: int = 0
    """Kept in all, skipped ones included."""
    of: int = 0
    """Notes that were given out."""
    unknown: int = 0
    """Items that were never given out."""
    faults: tuple[str, ...] = ()
    """What must be mended, and where, in a line each."""
    trouble: str = ""
    """Why nothing more could be had from the source, in one sentence."""


def merge(
    before: Mapping[str, Annotation], now: Sequence[Annotation]
) -> tuple[dict[str, Annotation], Pulled]:
    """The annotations of one annotator by note: new and changed ones taken over, those that are
    gone from the source kept."""
    kept, new, changed, same = dict(before), 0, 0, 0
    for one in now:
        new += one.note not in before
        same += before.get(one.note) == one
        changed += one.note in before and before[one.note] != one
        kept[one.note] = one
    gone = len(before.keys() - {one.note for one in now})
    annotator = next((one.annotator for one in (*now, *before.values())), "")
    faulty = sum(bool(one.faults) for one in kept.values())
    pulled = Pulled(
        annotator=annotator,
        new=new,
        changed=changed,
        same=same,
        gone=gone,
        faulty=faulty,
        done=len(kept),
        faults=tuple(_to_mend(kept.values())),
    )
    return kept, pulled


SHOWN = 3
"""Notes named beside a fault."""


def _to_mend(annotations: Iterable[Annotation]) -> Iterator[str]:
    """Faults with the notes that have them; a label is named where it reads like one, never a
    stretch of a note."""
    notes: dict[str, dict[str, None]] = {}
    for one in annotations:
        for fault in one.faults:
            named = (
                f" ({fault.label})"
                if fault.reason == OTHER_LABEL and showable([fault.label])
                else ""
            )
            notes.setdefault(fault.reason + named, {})[one.note] = None
    for reason, ids in sorted(notes.items()):
        shown = ", ".join(list(ids)[:SHOWN]) + (
            f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        )
        remedy = "; add it to the card, or take another" if reason.startswith(OTHER_LABEL) else ""
        yield f"{reason}: {len(ids)} note{'' if len(ids) == 1 else 's'} ({shown}){remedy}"


OTHER_LABEL = "label is not in the card"


def read(path: Path) -> dict[str, Annotation]:
    """The annotations of a file by note; none where there is no file."""
    return {one.note: one for one in read_jsonl(path, Annotation)} if path.is_file() else {}


def write(path: Path, annotations: Mapping[str, Annotation]) -> None:
    """Write annotations in the order of their notes, whole or not at all."""
    write_jsonl(path, (annotations[note] for note in sorted(annotations)))


def append(path: Path, rows: Sequence[Value]) -> None:
    """Add rows to a file that only grows: an audit trail."""
    import os

    import msgspec

    if not rows:
        return
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())


def check_unique(notes: Sequence[Note]) -> None:
    """Raises ``DataError`` where two notes have one id: what is said of one could not be told from
    what is said of the other."""
    seen: set[str] = set()
    for note in notes:
        if note.id in seen:
            raise DataError(f"label: two notes have the id {note.id}; ids must be unique.")
        seen.add(note.id)
