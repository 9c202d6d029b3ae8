"""What doctors say of a model's answers: a line each, in a file that only grows and is its owner's
alone. Kept are the verdict, which model it was, the labels that it chose and the words that the
doctor wrote; never what was asked. What a model wrote freely may repeat what it was asked, and is
kept only where the doctor says so. Words are de-identified before they are written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import msgspec

from residency.core.errors import UserError, allowed
from residency.core.files import append_jsonl, read_unfinished
from residency.core.types import RawNote, Value
from residency.deid.engine import Deidentifier, Refused
from residency.deid.options import Deid
from residency.deid.tagger import ReviewedTagger, is_installed, tagger_of
from residency.locale.tokenise import detect
from residency.workflows.deidentify_texts import OneTime

FILE = "feedback.jsonl"
MASKED = Deid(profile="anonymised", tagger="on")
Verdict = Literal["right", "wrong", "harmful"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
MOST = 4000
"""Characters of a doctor's words."""


class Answered(Value, frozen=True):
    """What a model answered, without what it was asked."""

    id: str
    """Of this answer: what is said of it later takes the place of what was said before."""
    model: str
    """Its digest."""
    name: str
    route: str
    """``diagnose`` or ``extract``."""
    answer: str = ""
    written: bool = False
    """Whether the answer was written freely, and not chosen among labels."""
    found: dict[str, int] = {}
    """Labels of entities -> how many of them."""
    confidence: float | None = None
    abstained: bool = False


class Feedback(Value, frozen=True):
    """What a doctor says of it."""

    at: str
    """UTC."""
    who: str
    verdict: Verdict
    of: Answered
    comment: str = ""
    """What it should have said."""
    taken: Literal["", "accept", "mend", "reject"] = ""
    """What whoever looked it through decided: whether it may be learned from."""


def keep(
    folder: Path,
    answered: Answered,
    verdict: str,
    who: str,
    comment: str = "",
    with_answer: bool = False,
    at: str = "",
) -> Feedback:
    """Append what a doctor says to the table of a folder; it is on disk when this returns.

    Raises ``UserError`` for a verdict that is none, for words that are too long, and where what
    identifies somebody cannot be taken out of them.
    """
    if verdict not in VERDICTS:
        raise UserError(f"What is it? {allowed(VERDICTS, verdict)}.")
    if len(comment) > MOST:
        raise UserError(f"The words are longer than {MOST} characters; say it shorter.")
    if answered.written:
        answer = without_identifiers(answered.answer) if with_answer else ""
        answered = msgspec.structs.replace(answered, answer=answer)
    row = Feedback(
        at=at or datetime.now(UTC).isoformat(timespec="seconds"),
        who=who,
        verdict=verdict,
        of=answered,
        comment=without_identifiers(comment.strip()),
    )
    append_jsonl(folder / FILE, [row], private=True)
    return row


def without_identifiers(words: str) -> str:
    """Words with others in the place of whatever may identify somebody, drawn for this once: by the
    rules, and by the tagger where it is installed.

    Raises ``UserError`` where something would stay.
    """
    if not words:
        return ""
    raw = RawNote(id="words", patient="words", text=words, lang=detect(words))
    done = Deidentifier(MASKED, OneTime(), tagger=_tagger()).process(raw)
    if isinstance(done, Refused):
        raise UserError(
            "The words hold something that may identify a patient and cannot be taken out; write "
            "them without names, numbers and dates."
        )
    return done.note.text


@cache
def _tagger() -> ReviewedTagger | None:
    return tagger_of(MASKED) if is_installed() else None


def read(folder: Path) -> Sequence[Feedback]:
    """What was said last of each answer, in the order in which that was said."""
    last: dict[str, Feedback] = {}
    for row in read_unfinished(folder / FILE, Feedback):
        last.pop(row.of.id, None)
        last[row.of.id] = row
    return [*last.values()]
