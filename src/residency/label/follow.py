"""Labels of notes that were amended, merged or deleted: they move where the text around them is as
it was, else the note is asked again with what could be moved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher

from msgspec.structs import replace

from residency.core.edits import Edits
from residency.core.types import Note, Value
from residency.label.annotations import Annotation, LabellingTask

AROUND = 10
"""Characters on either side of a label that must be as they were."""
SHORT = 30
"""Characters of a change in which nobody need look for further labels: a date, a name."""
TOKEN = re.compile(r"\w+|\W")
MOVED = "moved with its note, which was amended"


class Followed(Value, frozen=True):
    """What became of the notes that were given out."""

    notes: tuple[Note, ...]
    """As they are now, in their order; those that were deleted are out."""
    edits: dict[str, Edits] = {}
    """Earlier id -> what was changed in it, of those that are not as they were."""
    now: dict[str, str] = {}
    """Earlier id -> id, of the same."""
    gone: frozenset[str] = frozenset()
    """Ids of those that were deleted."""


def follow(
    given: Sequence[Note], current: Mapping[str, Note], moved: Mapping[str, str]
) -> Followed:
    """Compare the notes that were given out with what they are; ``moved``: note -> what it was."""
    later = {was: id for id, was in moved.items()}
    notes, edits, now, gone = [], dict[str, Edits](), dict[str, str](), set[str]()
    for note in given:
        id, met = note.id, {note.id}
        while id not in current and id in later and later[id] not in met:
            id = later[id]
            met.add(id)
        found = current.get(id)
        if found is None:
            gone.add(note.id)
        elif found.text == note.text and id == note.id:
            notes.append(note)
        else:
            notes.append(found)
            edits[note.id], now[note.id] = changes(note.text, found.text), id
    return Followed(notes=tuple(notes), edits=edits, now=now, gone=frozenset(gone))


def changes(before: str, after: str) -> Edits:
    """What was changed in a text, by whole words."""
    old, new = TOKEN.findall(before), TOKEN.findall(after)
    starts = [0]
    for token in old:
        starts.append(starts[-1] + len(token))
    found = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return Edits.of(
        before,
        [(starts[a], starts[b], "".join(new[c:d])) for how, a, b, c, d in found if how != "equal"],
    )


def moved_annotation(one: Annotation, text: str, edits: Edits, id: str) -> tuple[Annotation, bool]:
    """An annotation of an earlier ``text`` on what it is now, and whether it stands as it is."""
    kept, lost = edits.project_spans(text, one.spans)
    stands = not lost and all(
        max(len(piece.text), piece.end - piece.start) <= SHORT
        and not any(
            piece.start < span.end + AROUND and piece.end > span.start - AROUND
            for span in one.spans
        )
        for piece in edits.pieces
    )
    repairs = tuple(sorted({*one.repairs, MOVED}))
    return replace(one, note=id, spans=kept, repairs=repairs), stands


def followed_tasks(
    tasks: Iterable[LabellingTask], found: Followed, again: Mapping[str, Annotation]
) -> list[LabellingTask]:
    """What was given out to somebody, as it is now; ``again``: note -> what is shown to them where
    they are asked again."""
    texts = {note.id: note.text for note in found.notes}
    kept = []
    for task in tasks:
        id = found.now.get(task.id, task.id)
        if task.id in found.gone or id not in texts:
            continue
        if task.id in found.now and task.text != texts[id]:
            shown = (again[id].spans,) if id in again else ()
            task = replace(task, id=id, text=texts[id], suggestions=shown)
        kept.append(task)
    return kept
