"""From several versions of a note to one: by majority where one agrees exactly, else by a decision,
with every step on record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from residency.core.types import Note, Span, Value
from residency.label.annotations import Annotation, AnnotationFault, LabellingTask, Version, ordered
from residency.label.differences import Place, places
from residency.label.pages import shown

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
        why = _waits(note.id, active)
        if why:
            waiting[note.id] = why
            continue
        versions = {
            name: given[note.id].spans for name, given in active.items() if given[note.id].counts
        }
        spans: list[Span] = []
        unsettled = 0
        for place in places(note.id, versions):
            decision = _by_majority(place, now) or _by_person(place, decided, refused)
            if decision is None:
                open_.append(place)
                unsettled += 1
            else:
                decisions.append(decision)
                spans += [_proven(span, place, decision) for span in decision.decided]
        if not unsettled:
            found = sorted(spans, key=lambda span: (span.start, span.end, span.label))
            quoted = tuple(
                msgspec.structs.replace(span, quote=note.text[span.start : span.end])
                for span in found
            )
            gold.append(msgspec.structs.replace(note, spans=quoted, relations=()))
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
    version = place.majority
    return (
        None
        if version is None
        else _decision(place, version, "unanimous" if place.unanimous else "majority", now)
    )


def _by_person(
    place: Place, decided: Mapping[str, Annotation], refused: list[AnnotationFault]
) -> Decision | None:
    """The adjudicator's decision on this very place, if there is one that fits it."""
    given = decided.get(place.id)
    if given is None or not given.counts:
        return None
    version: Version = tuple(ordered(given.spans))
    if given.choice is not None:
        if not 1 <= given.choice <= len(place.candidates):
            refused.append(
                AnnotationFault(
                    reason=f"{place.id}: there is no candidate {given.choice}",
                    start=place.start,
                    end=place.end,
                )
            )
            return None
        version = place.candidates[given.choice - 1]
    elif any(span.end <= place.start or span.start >= place.end for span in version):
        refused.append(
            AnnotationFault(
                reason=f"{place.id}: a span lies elsewhere in the note",
                start=place.start,
                end=place.end,
            )
        )
        return None
    return _decision(place, version, ADJUDICATOR, given.at)


def _decision(place: Place, version: Version, how: str, at: str) -> Decision:
    return Decision(
        place=place.id,
        note=place.note,
        start=place.start,
        end=place.end,
        how=how,
        versions={name: _bare(spans) for name, spans in place.versions.items()},
        decided=_bare(version),
        at=at,
    )


def _bare(spans: Iterable[Span]) -> Version:
    return tuple(msgspec.structs.replace(span, quote="") for span in spans)


def _proven(span: Span, place: Place, decision: Decision) -> Span:
    """A span with where it comes from: who said the same, or the adjudicator."""
    same = [name for name, version in decision.versions.items() if span in version]
    by = ADJUDICATOR if decision.how == ADJUDICATOR else "+".join(same)
    return msgspec.structs.replace(span, by=by)


def tasks(open_: Sequence[Place], notes: Mapping[str, Note]) -> list[LabellingTask]:
    """What goes out to be decided: each place alone, candidates without names."""
    return [
        LabellingTask(
            id=place.id,
            text=notes[place.note].text,
            suggestions=place.candidates,
            about=f"Characters {place.start} to {place.end}: "
            f"{shown(notes[place.note].text, place)}",
            lang=notes[place.note].lang,
        )
        for place in open_
    ]


def new_lines(decisions: Sequence[Decision], trail: Iterable[Decision]) -> list[Decision]:
    """What the audit trail does not say yet: decisions on new places, and those that came out
    another way."""
    last = {one.place: one for one in trail}
    return [
        one
        for one in decisions
        if one.place not in last
        or (last[one.place].how, last[one.place].decided) != (one.how, one.decided)
    ]
