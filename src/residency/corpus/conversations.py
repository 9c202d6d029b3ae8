"""Questions and answers, and whole conversations, in the forms in which they are handed around.

A conversation is an optional system turn, then user and assistant in turn; its last answer is the
one that is measured. A note's text is what the user says, so that equal questions never fall into
two parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import Field

from residency.core.part import Part
from residency.core.types import Role, Turn
from residency.corpus.json_records import Record, Records, choices, identifier
from residency.corpus.reader import Row

Speech = tuple[Role, str]
"""Who speaks, and what."""
UNANSWERED = "last question without an answer, left out"


class Packed(Part):
    """How the turns are marked where several stand in one text."""

    user: str = Field(default="<user>:", min_length=1)
    """What stands before a turn of the user."""
    assistant: str = Field(default="<bot>:", min_length=1)
    """What stands before an answer."""


class RecordColumns(Part):
    """What the columns of every format may be called; a column that is not there is empty."""

    id: str = "id"
    """Number of the record; where it is missing, its file and line."""
    group: str = "group"
    """Patient or document."""
    lang: str = "lang"
    """Language of the record."""
    kind: str = "kind"
    """Kind of note or of question."""
    department: str = "department"
    """Ward or site."""
    origin: str = "origin"
    """Who wrote the answers: ``real``, or ``model:NAME``."""


class Conversations(Records):
    """What formats share whose records are conversations, or become one by a card."""

    names: RecordColumns = RecordColumns()
    packed: Packed | None = None
    """Where a question holds several turns in one text, how they are marked."""

    def turns(self, record: Record, where: str) -> list[Speech] | str:
        """The turns of a record in their order, or why there are none; ``DataError`` for a column
        that is not there. A format whose records a card puts into words has ``row`` instead."""
        raise NotImplementedError

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        found = self.turns(record, f"{path}:{line}")
        if isinstance(found, str):
            return Row(line=line, fault=found, **self.about(record))
        turns, repairs, fault = check_turns(self._unpack(found))
        text = "\n".join(turn.text for turn in turns if turn.role == "user")
        about = self.about(record)
        return Row(line=line, text=text, turns=turns, repairs=repairs, fault=fault, **about)

    def about(self, record: Record) -> dict[str, Any]:
        """What a record says of itself, as fields of a ``Row``."""
        named = {field: identifier(record.get(name)) for field, name in self.names if name}
        return {**named, "choices": choices(record)}

    def _unpack(self, found: list[Speech]) -> list[Speech]:
        """Turns with those apart that stand in one text."""
        if self.packed is None:
            return found
        roles: dict[str, Role] = {self.packed.user: "user", self.packed.assistant: "assistant"}
        marks = sorted(roles, key=len, reverse=True)
        pattern = re.compile(f"({'|'.join(map(re.escape, marks))})")
        turns: list[Speech] = []
        for role, text in found:
            before, *pieces = pattern.split(text) if role == "user" else [text]
            if before.strip() or not pieces:
                turns.append((role, before))
            turns += zip(map(roles.__getitem__, pieces[::2]), pieces[1::2], strict=True)
        return turns


def check_turns(found: Sequence[Speech]) -> tuple[tuple[Turn, ...], tuple[str, ...], str]:
    """The turns as they may be used, what was repaired, and why they are no conversation."""
    turns = [Turn(role=role, text=text.strip()) for role, text in found]
    if turns and turns[0].role == "system" and not turns[0].text:
        turns = turns[1:]
    repairs: tuple[str, ...] = ()
    if len(turns) > 2 and turns[-1].role == "user":
        turns, repairs = turns[:-1], (UNANSWERED,)
    talk = turns[1:] if turns and turns[0].role == "system" else turns
    if not talk:
        return (), (), "conversation has no turns"
    if talk[0].role == "assistant":
        return (), (), "conversation begins with the assistant"
    if any(turn.role == "system" for turn in talk):
        return (), (), "system turn is not at the beginning"
    if any(one.role == other.role for one, other in pairwise(talk)):
        return (), (), "two turns of one side follow each other"
    if talk[-1].role == "user":
        return (), (), "conversation has no answer"
    if not all(turn.text for turn in talk):
        side = next(turn.role for turn in talk if not turn.text)
        return (), (), "an answer is empty" if side == "assistant" else "a question is empty"
    return tuple(turns), repairs, ""


class Tags(Part):
    """What keys and roles are called."""

    role: str = "from"
    """Key of who speaks."""
    content: str = "value"
    """Key of what is said."""
    user: str | list[str] = ["human", "user"]
    """What the user is called."""
    assistant: str | list[str] = ["gpt", "assistant", "bot"]
    """What the model is called."""
    system: str | list[str] = ["system"]
    """What the one is called who says how to answer."""


MESSAGE_TAGS = Tags(
    role="role",
    content="content",
    user="user",
    assistant="assistant",
    system=["system", "developer"],
)
"""What OpenAI calls them."""


def read_messages(messages: object, tags: Tags) -> list[Speech] | str:
    """The turns of a list of messages, or why there are none."""
    if not isinstance(messages, list):
        return "turns are not a list"
    roles: dict[str, Role] = {}
    named: list[tuple[Role, str | list[str]]] = [
        ("user", tags.user),
        ("assistant", tags.assistant),
        ("system", tags.system),
    ]
    for role, names in named:
        roles.update(dict.fromkeys([names] if isinstance(names, str) else names, role))
    turns: list[Speech] = []
    for message in messages:
        if not isinstance(message, dict):
            return "a turn is not a mapping"
        speaker = message.get(tags.role)
        if not isinstance(speaker, str) or speaker not in roles:
            return f"unknown role (allowed: {', '.join(roles)})"
        text = _text(message.get(tags.content))
        if text is None:
            return "a turn holds something that is not text"
        turns.append((roles[speaker], text))
    return turns


def _text(value: object) -> str | None:
    """The text of a message; ``None`` where it is something else."""
    if isinstance(value, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
            for part in value
        ]
        return "\n".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None
    return value if isinstance(value, str) else None
