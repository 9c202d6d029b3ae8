"""Labelling in the pages: what each person has marked so far, a file for each item, saved whole at
each step; and the codes that let them in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_urlsafe
from typing import Literal

from msgspec.structs import replace

from residency.core.errors import DataError, UserError
from residency.core.files import disk_errors, locked, read_json, sha256, write_json
from residency.core.types import Span, Value
from residency.corpus.span_repair import Raw
from residency.label.annotations import Annotation, Given, LabellingTask, Version, prove
from residency.tasks.card import Card

State = Literal["open", "done", "skipped"]
MOST_SECONDS = 86_400.0
ADDRESSES = "addresses.json"
UNSEEN = "Some marks were made beforehand and not looked at yet; accept or delete each of them."
ELSEWHERE = "A mark lies elsewhere in the note; only this place is decided here."
NO_CANDIDATE = "There is no such candidate; open the page again."
MISCOUNTED = "A mark does not stand where it was counted; open the page again."


class Mark(Value, frozen=True, forbid_unknown_fields=True):
    """A span as a page sends it: code points, end exclusive."""

    start: int
    end: int
    label: str
    quote: str = ""
    """What stands there, where the page knows; then it must stand there."""
    code: str | None = None
    attributes: tuple[str, ...] = ()
    proposed: bool = False
    """Made beforehand, and not looked at yet."""


class Change(Value, frozen=True, forbid_unknown_fields=True):
    """An item as it is after a step."""

    writer: str
    """The window in which it was changed."""
    turn: int
    """Number of the step in that window; a step that comes twice counts once."""
    base: int
    """The version that the window began from."""
    state: State = "open"
    marks: tuple[Mark, ...] = ()
    seconds: float = 0.0
    """How long it was worked on, in all."""
    choice: int | None = None
    """The candidate that was taken as it is, from 1."""


class Work(Value, frozen=True):
    """What one person has said of one item so far."""

    task: str
    version: int = 0
    state: State = "open"
    spans: Version = ()
    proposed: Version = ()
    choice: int | None = None
    at: str = ""
    seconds: float = 0.0
    writer: str = ""
    turn: int = 0


class Overtaken(UserError):
    """The item was changed in another window since."""

    def __init__(self) -> None:
        super().__init__("This was changed in another window; it is shown as it is now.")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Alone in a folder, which is made where it is not there; raises ``UserError`` where it cannot
    be written to."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            yield


def key_of(task: str) -> str:
    """What an item is called in addresses and files."""
    return sha256(task.encode())[:20]


class Browser:
    """One person's work of one round, in ``work/NAME/``."""

    def __init__(self, root: Path, name: str, card: Card) -> None:
        self.folder, self.name, self.card = root / "work" / name, name, card

    def push(self, tasks: Sequence[LabellingTask], known: Mapping[str, Annotation]) -> str:
        """Take over what is ``known`` of items on which no work is kept here; returns where they
        are marked."""
        for task in tasks:
            one = known.get(task.id)
            if one is not None and not one.faults and not self._path(task.id).is_file():
                self._write(_done(one))
        return "the browser (residency label open)"

    def pull(self, tasks: Mapping[str, LabellingTask]) -> Iterator[Given]:
        """The items that are done or skipped, in the order in which they were given out."""
        for task in tasks.values():
            work = self.work(task)
            if work.state != "open":
                yield Given(
                    task=task.id,
                    spans=tuple(map(_raw, work.spans)),
                    at=work.at,
                    seconds=work.seconds or None,
                    skipped=work.state == "skipped",
                    choice=work.choice,
                )

    def answer(self, tasks: Sequence[LabellingTask], given: Mapping[str, Annotation]) -> None:
        """Put annotations in, as a program that labels would."""
        for task in tasks:
            if one := given.get(task.id):
                self._write(_done(one))

    def forget(self, tasks: Iterable[str]) -> None:
        """Drop the work on items whose notes are not what they were."""
        for id in tasks:
            self._path(id).unlink(missing_ok=True)

    def work(self, task: LabellingTask) -> Work:
        """What was said so far; of an untouched item, the marks that were made beforehand."""
        if (path := self._path(task.id)).is_file():
            return read_json(path, Work)
        single = len(task.suggestions) == 1  # several are candidates, to be chosen from
        return Work(task=task.id, proposed=task.suggestions[0] if single else ())

    def save(
        self, task: LabellingTask, change: Change, place: tuple[int, int] | None = None
    ) -> Work:
        """Keep an item as it is after a step, every span proved. ``place``: all that may be marked.

        Raises ``Overtaken`` where another window was faster, ``DataError`` for what cannot be kept;
        then nothing was changed.
        """
        with alone(self.folder):
            before = self.work(task)
            mine = change.writer == before.writer
            if mine and change.turn <= before.turn:
                return before
            if not mine and change.base != before.version:
                raise Overtaken
            now = self._changed(task, before, change)
            check(task, now, place)
            self._write(now)
        return now

    def _changed(self, task: LabellingTask, before: Work, change: Change) -> Work:
        parts: list[Version] = []
        for proposed in (False, True):
            marks = [mark for mark in change.marks if mark.proposed is proposed]
            given = Given(task=task.id, spans=tuple(_taken(one, task.text) for one in marks))
            proved = prove(given, self.name, task.text, self.card)
            if proved.faults:
                raise DataError(f"{proved.faults[0].reason}; nothing was changed.")
            parts.append(proved.spans)
        return Work(
            task=task.id,
            version=before.version + 1,
            state=change.state,
            spans=parts[0],
            proposed=parts[1],
            choice=change.choice,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            seconds=round(min(max(before.seconds, change.seconds, 0.0), MOST_SECONDS), 1),
            writer=change.writer,
            turn=change.turn,
        )

    def _path(self, task: str) -> Path:
        return self.folder / f"{key_of(task)}.json"

    def _write(self, work: Work) -> None:
        write_json(self._path(work.task), work, private=True)


def check(task: LabellingTask, work: Work, place: tuple[int, int] | None) -> None:
    """Raises ``DataError`` where work cannot count as finished: marks that nobody looked at, a
    candidate that there is not, or a mark outside of the place."""
    if work.state == "done" and work.proposed:
        raise DataError(UNSEEN)
    if work.choice is not None and not 1 <= work.choice <= len(task.suggestions):
        raise DataError(NO_CANDIDATE)
    if place and work.choice is None:
        start, end = place
        if any(span.end <= start or span.start >= end for span in work.spans):
            raise DataError(ELSEWHERE)


def _taken(mark: Mark, text: str) -> Raw:
    """A mark with the quote that proves it."""
    inside = 0 <= mark.start < mark.end <= len(text)
    quote = text[mark.start : mark.end] if inside else ""
    if mark.quote and mark.quote != quote:
        raise DataError(MISCOUNTED)
    return Raw(
        fragments=((mark.start, mark.end),),
        label=mark.label,
        quote=quote,
        code=mark.code or None,
        attributes=mark.attributes,
    )


def _raw(span: Span) -> Raw:
    return Raw(
        fragments=((span.start, span.end),),
        label=span.label,
        quote=span.quote,
        code=span.code,
        attributes=span.attributes,
    )


def _done(one: Annotation) -> Work:
    return Work(
        task=one.note,
        version=1,
        state="skipped" if one.skipped else "done",
        spans=one.spans,
        choice=one.choice,
        at=one.at,
        seconds=one.seconds or 0.0,
    )


class Addresses(Value, frozen=True):
    """Who is let in by which code, and the recipe that all of it is of."""

    codes: dict[str, str] = {}
    """Name -> code."""
    recipe: str = ""
    """Relative to the folder of the labelling."""
    changes: tuple[str, ...] = ()
    """Changes to the recipe that were given with the command (``KEY=VALUE``)."""


def addresses(folder: Path) -> Addresses:
    """The codes that are kept in a labelling's folder; none where nobody was let in yet."""
    path = folder / ADDRESSES
    return read_json(path, Addresses) if path.is_file() else Addresses()


def let_in(folder: Path, names: Sequence[str], recipe: str, changes: Sequence[str]) -> Addresses:
    """A code for each name, made once: who has one keeps it. Only the owner of the folder can read
    them."""
    with alone(folder):
        known = addresses(folder)
        codes = {name: known.codes.get(name) or token_urlsafe(32) for name in names}
        now = replace(known, codes=codes, recipe=recipe, changes=tuple(changes))
        if now != known:
            write_json(folder / ADDRESSES, now, private=True)
    return now
