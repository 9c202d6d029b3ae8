"""Spans that an annotator is unsure of: a question to whoever keeps the guideline, and the answer,
which sends those who asked back to their notes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from residency.core.errors import UserError
from residency.core.files import digest, read_jsonl, write_jsonl
from residency.core.types import Value
from residency.label.browser import alone

FILE = "questions.jsonl"
MOST = 2000
"""Characters of a question or an answer."""


class Question(Value, frozen=True):
    """What somebody asks of a span."""

    id: str
    annotator: str
    note: str
    start: int
    end: int
    label: str
    words: str
    at: str = ""
    answer: str = ""
    answered: str = ""
    """When, ISO 8601."""
    seen: bool = False
    """Whether who asked has looked at the note again."""


def questions(folder: Path) -> list[Question]:
    """All that was asked, in that order."""
    path = folder / FILE
    return list(read_jsonl(path, Question)) if path.is_file() else []


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _words(text: str) -> str:
    if not (found := text.strip()):
        raise UserError("Nothing was written; write a text first.")
    if len(found) > MOST:
        raise UserError(f"The text is longer than {MOST} characters; shorten it.")
    return found


def ask(
    folder: Path, annotator: str, note: str, place: tuple[int, int], label: str, text: str
) -> Question:
    """Keep a question; the same one that comes twice is one. Raises ``UserError`` for no words, or
    too many."""
    words, (start, end) = _words(text), place
    id = digest([annotator, note, start, end, label, words])[:16]
    asked = Question(id, annotator, note, start, end, label, words, _now())
    with alone(folder):
        known = questions(folder)
        if not any(one.id == id for one in known):
            write_jsonl(folder / FILE, [*known, asked], private=True)
    return asked


def answer(folder: Path, ids: Collection[str], text: str) -> int:
    """Answer questions; returns how many. Raises ``UserError`` for no words, or no question."""
    words, at = _words(text), _now()
    with alone(folder):
        known = questions(folder)
        found = [one.id in ids for one in known]
        if not any(found):
            raise UserError("No question was chosen; choose one or more.")
        now = [
            replace(one, answer=words, answered=at, seen=False) if hit else one
            for one, hit in zip(known, found, strict=True)
        ]
        write_jsonl(folder / FILE, now, private=True)
    return sum(found)


def looked_again(folder: Path, annotator: str, id: str) -> None:
    """Note that who asked has looked at the note again; nothing for a question of another."""
    with alone(folder):
        now = [
            replace(one, seen=True) if (one.id, one.annotator) == (id, annotator) else one
            for one in questions(folder)
        ]
        write_jsonl(folder / FILE, now, private=True)
