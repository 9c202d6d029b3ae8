"""From several versions of a note to one: by majority where one agrees exactly, else by a decision,
with every step on record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from residency.core.types import Note, Span, Value
from residency.label.annotations import (
    Annotation,
    AnnotationFault,
    LabellingTask,
    Version,
    sort_spans,
)
from residency.label.differences import Place, places, without_text
from residency.label.pages import in_context

ADJUDICATOR = "adjudicator"


class Decision(Value, frozen=True):
    """One line of the audit trail: who said what of a place, and what became of it. Offsets and
    labels, no text."""

    place: str
    note: str
    start: int
    end: int
    how: str
    """``unanimous``, ``majority`` or ``adjudicator``."""
    versions: dict[str, tuple[Span, ...]]
    decided: tuple[Span, ...]
    at: str = ""
    """When it was decided."""


class Adjudication(Value, frozen=True):
    """Where adjudication stands."""

    gold: tuple[Note, ...]
    """Notes of which every place is settled."""
    decisions: tuple[Decision, ...]
    open: tuple[Place, ...]
    """Places that must be decided."""
    waiting: dict[str, str]
    """Note -> why nothing can be said of it yet."""
    refused: tuple[AnnotationFault, ...] = ()
    """Decisions that do not fit their place."""


def settle(
    notes: Sequence[Note],
    annotations: Mapping[str, Mapping[str, Annotation]],
    decided: Mapping[str, Annotation],
    now: str,
) -> Adjudication:
    """Settle what can be settled. ``decided`` has the adjudicator's annotations by the id of a
    place.

    A note waits while an annotator has not come to it, or has it with a fault; one that was skipped
    counts without who skipped it, as long as two versions are left. Annotators who have labelled
    nothing at all are left out.
    """
    active = {name: given for name, given in annotations.items() if given}
    gold: list[Note] = []
    decisions: list[Decision] = []
    open_: list[Place] = []
    waiting: dict[str, str] = {}
    refused: list[AnnotationFault] = []
    for note in notes:
        if why := _waits(note.id, active):
            waiting[note.id] = why
            continue
        given = {name: done[note.id] for name, done in active.items()}
        versions = {name: one.spans for name, one in given.items() if one.counts}
        spans: list[Span] = []
        before = len(open_)
        for place in places(note.id, versions):
            decision = _by_majority(place, now) or _by_person(place, decided, refused)
            if decision is None:
                open_.append(place)
            else:
                decisions.append(decision)
                spans += [_proven(span, note.text, decision) for span in decision.decided]
        if len(open_) == before:
            spans.sort(key=lambda span: (span.start, span.end, span.label))
            gold.append(replace(note, spans=tuple(spans), relations=()))
    return Adjudication(
        gold=tuple(gold),
        decisions=tuple(decisions),
        open=tuple(open_),
        waiting=waiting,
        refused=tuple(refused),
    )


def _waits(note: str, active: Mapping[str, Mapping[str, Annotation]]) -> str:
    """Why a note cannot be settled yet; empty where it can."""
    if missing := [name for name, given in active.items() if note not in given]:
        return f"not labelled by {', '.join(missing)}"
    if faulty := [name for name, given in active.items() if given[note].faults]:
        return f"to be mended by {', '.join(faulty)}"
    if sum(given[note].counts for given in active.values()) < 2:
        return "fewer than two versions"
    return ""


def _by_majority(place: Place, now: str) -> Decision | None:
    how = "unanimous" if place.unanimous else "majority"
    return None if place.majority is None else _decision(place, place.majority, how, now)


def _by_person(
    place: Place, decided: Mapping[str, Annotation], refused: list[AnnotationFault]
) -> Decision | None:
    """The adjudicator's decision on this very place, if there is one that fits it."""
    given = decided.get(place.id)
    if given is None or not given.counts:
        return None
    version: Version = tuple(sort_spans(given.spans))
    fault = ""
    if given.choice is not None:
        if 1 <= given.choice <= len(place.candidates):
            version = place.candidates[given.choice - 1]
        else:
            fault = f"{place.id}: there is no candidate {given.choice}"
    elif any(span.end <= place.start or span.start >= place.end for span in version):
        fault = f"{place.id}: a span lies elsewhere in the note"
    if fault:
        refused.append(AnnotationFault(fault, place.start, place.end))
        return None
    return _decision(place, version, ADJUDICATOR, given.at)


def _decision(place: Place, version: Version, how: str, at: str) -> Decision:
    return Decision(
        place=place.id,
        note=place.note,
        start=place.start,
        end=place.end,
        how=how,
        versions=place.without_text().versions,
        decided=without_text(version),
        at=at,
    )


def _proven(span: Span, text: str, decision: Decision) -> Span:
    """A span with its text and where it comes from: who said the same, or the adjudicator."""
    same = [name for name, version in decision.versions.items() if span in version]
    by = ADJUDICATOR if decision.how == ADJUDICATOR else "+".join(same)
    return replace(span, by=by, quote=text[span.start : span.end])


def tasks(open_: Sequence[Place], notes: Mapping[str, Note]) -> list[LabellingTask]:
    """What goes out to be decided: each place alone, candidates without names."""
    found = []
    for place in open_:
        note = notes[place.note]
        around = in_context(note.text, place.start, place.end)
        about = f"Characters {place.start} to {place.end}: {around}"
        found.append(LabellingTask(place.id, note.text, place.candidates, about, note.lang))
    return found


def stretch(task: str) -> tuple[int, int]:
    """Where the place lies that an item to be decided is of, from its id."""
    start, _, end = task.rsplit(":", 2)[1].partition("-")
    return int(start), int(end)


def new_lines(decisions: Sequence[Decision], trail: Iterable[Decision]) -> list[Decision]:
    """What the audit trail does not say yet: decisions on new places, and those that came out
    another way."""
    last = {one.place: (one.how, one.decided) for one in trail}
    return [one for one in decisions if last.get(one.place) != (one.how, one.decided)]
