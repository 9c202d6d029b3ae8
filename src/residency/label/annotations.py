"""What annotators said, proved against the notes that they were given.

An annotation counts as a whole or not at all: one that holds a span outside its note or a label
that the card does not have is kept with its faults and waits until it is mended, since a note that
silently lacks a span would be taught as complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from residency.core.errors import DataError, GateRefused
from residency.core.files import append_jsonl, read_jsonl, write_jsonl
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
    faults = [AnnotationFault(given.fault)] if given.fault else []
    for raw in given.spans if settled.faults else ():  # each alone, to say which ones
        start, end = raw.fragments[0] if raw.fragments else (-1, -1)
        label = raw.label if raw.label in card.names else ""
        alone = settle(text, [raw]).faults
        faults += [AnnotationFault(fault.reason, start, end, label) for fault in alone]
    for span in settled.spans:
        reasons = [OTHER_LABEL] if span.label not in card.names else []
        if unknown := sorted(set(span.attributes) - set(card.attributes)):
            reasons.append(f"attribute is not in the card: {unknown[0]}")
        faults += [AnnotationFault(reason, span.start, span.end, span.label) for reason in reasons]
    return Annotation(
        note=given.task,
        annotator=annotator,
        spans=tuple(sort_spans(settled.spans)),
        at=given.at,
        seconds=given.seconds,
        skipped=given.skipped,
        faults=tuple(faults),
        repairs=tuple(sorted(remark.reason for remark in settled.repairs)),
        choice=given.choice,
    )


def sort_spans(spans: Iterable[Span]) -> list[Span]:
    """Spans in the order of the text, without who set them or how sure they were; attributes in
    alphabetical order."""
    bare = {
        msgspec.structs.replace(
            span,
            code=span.code or None,
            attributes=tuple(sorted(set(span.attributes))),
            by=None,
            score=None,
        )
        for span in spans
    }
    return sorted(
        bare, key=lambda one: (one.start, one.end, one.label, one.code or "", one.attributes)
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
    kept = {**before, **{one.note: one for one in now}}
    new = sum(one.note not in before for one in now)
    same = sum(before.get(one.note) == one for one in now)
    pulled = Pulled(
        annotator=next((one.annotator for one in kept.values()), ""),
        new=new,
        changed=len(now) - new - same,
        same=same,
        gone=len(kept) - len(now),
        faulty=sum(bool(one.faults) for one in kept.values()),
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
            named = fault.reason == OTHER_LABEL and showable([fault.label])
            reason = f"{fault.reason} ({fault.label})" if named else fault.reason
            notes.setdefault(reason, {})[one.note] = None
    for reason, ids in sorted(notes.items()):
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        remedy = "; add it to the card, or take another" if reason.startswith(OTHER_LABEL) else ""
        plural = "" if len(ids) == 1 else "s"
        yield f"{reason}: {len(ids)} note{plural} ({', '.join(list(ids)[:SHOWN])}{more}){remedy}"


OTHER_LABEL = "label is not in the card"


def read(path: Path) -> dict[str, Annotation]:
    """The annotations of a file by note; none where there is no file."""
    return {one.note: one for one in read_jsonl(path, Annotation)} if path.is_file() else {}


def write(path: Path, annotations: Mapping[str, Annotation]) -> None:
    """Write annotations in the order of their notes, whole or not at all."""
    write_jsonl(path, (annotations[note] for note in sorted(annotations)))


def append(path: Path, rows: Sequence[Value]) -> None:
    """Add rows to a file that only grows: an audit trail."""
    append_jsonl(path, rows)


def check_unique(notes: Sequence[Note]) -> None:
    """Raises ``DataError`` where two notes have one id: what is said of one could not be told from
    what is said of the other."""
    counts = Counter(note.id for note in notes)
    if twice := next((id for id, number in counts.items() if number > 1), ""):
        raise DataError(f"label: two notes have the id {twice}; ids must be unique.")
