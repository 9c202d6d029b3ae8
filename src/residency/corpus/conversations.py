"""Questions and answers, and whole conversations, in the forms in which they are handed around.

A conversation is an optional system turn, then user and assistant in turn; its last answer is the
one that is measured. A note's text is what the user says, so that equal questions never fall into
two parts.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from residency.core.errors import DataError
from residency.core.part import Part
from residency.core.types import Role, Turn
from residency.corpus.csvfile import rows_of
from residency.corpus.jsonl import INVALID, choices, identifier, json_records
from residency.corpus.reader import Row, Source, missing

Said = tuple[Role, str]
UNANSWERED = "last question without an answer, left out"


class Packed(Part):
    """How the turns are marked where several stand in one text."""

    user: str = Field(default="<user>:", min_length=1)
    assistant: str = Field(default="<bot>:", min_length=1)


class Names(Part):
    """What the columns of every format may be called; a column that is not there is empty."""

    id: str = "id"
    group: str = "group"
    """Patient or document."""
    lang: str = "lang"
    kind: str = "kind"
    """Kind of note or of question."""
    department: str = "department"
    origin: str = "origin"
    """Who wrote the answers: ``real``, or ``model:NAME``."""


class Conversations(Source):
    """What the formats share: JSON lines, or one JSON list, of records."""

    names: Names = Names()
    packed: Packed | None = None
    """Where a question holds several turns in one text, how they are marked."""

    def suffixes(self) -> tuple[str, ...]:
        return (".json", ".jsonl", ".ndjson")

    def records(self, path: Path) -> Iterator[tuple[int, object]]:
        """Records with their line, or their position in the list where the file is one list."""
        return json_records(path)

    def rows(self, path: Path) -> Iterator[Row]:
        for line, record in self.records(path):
            if isinstance(record, str):
                yield Row(line=line, fault=record)
            elif not isinstance(record, dict):
                yield Row(
                    line=line,
                    fault="is not valid JSON" if record is INVALID else "is not a JSON object",
                )
            else:
                yield self._row(record, line, f"{path}:{line}")

    @abstractmethod
    def said(self, record: dict[str, Any], where: str) -> list[Said] | str:
        """The turns of a record in their order, or why there are none; ``DataError`` for a column
        that is not there."""

    def _row(self, record: dict[str, Any], line: int, where: str) -> Row:
        found = self.said(record, where)
        turns, repairs, fault = (
            ((), (), found) if isinstance(found, str) else settled(self._unpacked(found))
        )
        return Row(
            line=line,
            text="\n".join(turn.text for turn in turns if turn.role == "user"),
            turns=turns,
            repairs=repairs,
            fault=fault,
            **self._about(record),
        )

    def _about(self, record: dict[str, Any]) -> dict[str, Any]:
        """What a record says of itself."""
        named = {field: identifier(record.get(name)) for field, name in self.names if name}
        return {**named, "choices": choices(record)}

    def _unpacked(self, found: list[Said]) -> list[Said]:
        if self.packed is None:
            return found
        marks = {self.packed.user: "user", self.packed.assistant: "assistant"}
        pattern = re.compile(
            "(" + "|".join(map(re.escape, sorted(marks, key=len, reverse=True))) + ")"
        )
        made: list[Said] = []
        for role, text in found:
            before, *pieces = pattern.split(text) if role == "user" else [text]
            if before.strip() or not pieces:
                made.append((role, before))
            made += [
                ("user" if marks[mark] == "user" else "assistant", words)
                for mark, words in zip(pieces[::2], pieces[1::2], strict=True)
            ]
        return made


def settled(found: Sequence[Said]) -> tuple[tuple[Turn, ...], tuple[str, ...], str]:
    """Turns in their order; what was repaired; why they are no conversation."""
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


class AlpacaColumns(Part):
    """What the columns are called."""

    prompt: str = "instruction"
    query: str = "input"
    """Joined to the prompt by a line break; may be missing."""
    response: str = "output"
    system: str = "system"
    history: str = "history"
    """Earlier turns, a list of [question, answer]; may be missing."""


class Alpaca(Conversations):
    """Instruction, input and output; earlier turns in ``history``."""

    format: Literal["alpaca"]
    columns: AlpacaColumns = AlpacaColumns()

    def said(self, record: dict[str, Any], where: str) -> list[Said] | str:
        columns = self.columns
        for setting in ("prompt", "response"):
            if getattr(columns, setting) not in record:
                raise missing(
                    where, "column", getattr(columns, setting), record, f"columns.{setting}"
                )
        cells = [
            record.get(name) or ""
            for name in (columns.system, columns.prompt, columns.query, columns.response)
        ]
        history = record.get(columns.history) or []
        if not all(isinstance(cell, str) for cell in cells):
            return "a column is not text"
        pairs = (
            [pair for pair in history if isinstance(pair, list) and len(pair) == 2]
            if isinstance(history, list)
            else []
        )
        if (
            not isinstance(history, list)
            or len(pairs) != len(history)
            or not all(isinstance(t, str) for p in pairs for t in p)
        ):
            return "history is not a list of question and answer"
        system, prompt, query, response = cells
        made: list[Said] = [("system", system)]
        for question, answer in pairs:
            made += [("user", question), ("assistant", answer)]
        question = f"{prompt}\n{query}" if prompt.strip() and query.strip() else prompt or query
        return [*made, ("user", question), ("assistant", response)]


class Tags(Part):
    """What keys and roles are called."""

    role: str = "from"
    content: str = "value"
    user: str | list[str] = ["human", "user"]
    assistant: str | list[str] = ["gpt", "assistant", "bot"]
    system: str | list[str] = ["system"]


class ShareGptColumns(Part):
    """What the columns are called."""

    messages: str = "conversations"
    system: str = "system"


class ShareGpt(Conversations):
    """A list of turns, each with who says it and what."""

    format: Literal["sharegpt"]
    columns: ShareGptColumns = ShareGptColumns()
    tags: Tags = Tags()

    def said(self, record: dict[str, Any], where: str) -> list[Said] | str:
        if self.columns.messages not in record:
            raise missing(where, "column", self.columns.messages, record, "columns.messages")
        system = record.get(self.columns.system)
        turns = spoken(record[self.columns.messages], self.tags)
        return (
            turns
            if isinstance(turns, str) or not isinstance(system, str)
            else [("system", system), *turns]
        )


MESSAGE_TAGS = Tags(
    role="role",
    content="content",
    user="user",
    assistant="assistant",
    system=["system", "developer"],
)


class Messages(Conversations):
    """OpenAI's form: ``messages``, each with ``role`` and ``content``."""

    format: Literal["messages"]
    column: str = "messages"

    def said(self, record: dict[str, Any], where: str) -> list[Said] | str:
        if self.column not in record:
            raise missing(where, "column", self.column, record, "column")
        return spoken(record[self.column], MESSAGE_TAGS)


def spoken(messages: object, tags: Tags) -> list[Said] | str:
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
    made: list[Said] = []
    for message in messages:
        if not isinstance(message, dict):
            return "a turn is not a mapping"
        speaker = message.get(tags.role)
        if not isinstance(speaker, str) or speaker not in roles:
            return f"unknown role (allowed: {', '.join(roles)})"
        text = content(message.get(tags.content))
        if text is None:
            return "a turn holds something that is not text"
        made.append((roles[speaker], text))
    return made


def content(value: object) -> str | None:
    """The text of a message; ``None`` where it is something else."""
    if isinstance(value, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
            for part in value
        ]
        return "\n".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None
    return value if isinstance(value, str) else None


class PromptCblue(Conversations):
    """PromptCBLUE: only ``input`` reaches the model, ``target`` is the answer, ``type`` (or
    ``task_dataset``) the task."""

    format: Literal["promptcblue"]
    names: Names = Names(id="sample_id", kind="type")
    task: str = ""
    """Only the rows of one task, e.g. ``CMeEE-V2``; all where empty. The rows of others are no part
    of the data set."""

    def records(self, path: Path) -> Iterator[tuple[int, object]]:
        for line, record in super().records(path):
            if self.task and isinstance(record, dict) and task_of(record) != self.task:
                continue
            yield line, record

    def said(self, record: dict[str, Any], where: str) -> list[Said] | str:
        for name in ("input", "target"):
            if name not in record:
                raise missing(where, "column", name, record, "format")
        question, answer = record["input"], record["target"]
        if not isinstance(question, str) or not isinstance(answer, str):
            return "a column is not text"
        return [("user", question), ("assistant", answer)]


def task_of(record: dict[str, Any]) -> str:
    """The task that a row of PromptCBLUE belongs to."""
    return identifier(record.get("task_dataset")) or identifier(record.get("type"))


class Instructions(Conversations):
    """Plain rows of CSV, TSV or JSON: a question and an answer, or columns that a card puts into
    words."""

    format: Literal["instructions"]
    prompt: str = "prompt"
    answer: str = "response"
    system: str = ""
    fields: dict[str, str] = {}
    """Name in the card -> column, for cards with a prompt of their own; instead of ``prompt`` and
    ``answer``."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)

    @model_validator(mode="after")
    def _one_way(self) -> Instructions:
        if self.fields and {"prompt", "answer"} & self.model_fields_set:
            raise ValueError("give fields, or prompt and answer, not both")
        return self

    def suffixes(self) -> tuple[str, ...]:
        return (".csv", ".tsv", ".json", ".jsonl", ".ndjson")

    def records(self, path: Path) -> Iterator[tuple[int, object]]:
        if path.suffix.lower() not in (".csv", ".tsv"):
            yield from json_records(path)
            return
        header: list[str] | None = None
        for line, cells in rows_of(path, "\t" if path.suffix.lower() == ".tsv" else self.delimiter):
            if header is None:
                header = cells
                if len(set(header)) < len(header):
                    raise DataError(f"{path}:{line}: two columns have one name; rename one.")
            elif len(cells) != len(header):
                yield line, "number of cells differs from the header's"
            else:
                yield line, dict(zip(header, cells, strict=True))

    def said(self, record: dict[str, Any], where: str) -> list[Said] | str:
        for setting in ("prompt", "answer"):
            if getattr(self, setting) not in record:
                raise missing(where, "column", getattr(self, setting), record, setting)
        cells = [record.get(name) or "" for name in (self.system, self.prompt, self.answer)]
        if not all(isinstance(cell, str) for cell in cells):
            return "a column is not text"
        return [("system", cells[0]), ("user", cells[1]), ("assistant", cells[2])]

    def _row(self, record: dict[str, Any], line: int, where: str) -> Row:
        if not self.fields:
            return super()._row(record, line, where)
        for name, column in self.fields.items():
            if column not in record:
                raise missing(where, "column", column, record, f"fields.{name}")
        found = {name: record[column] for name, column in self.fields.items()}
        values = {
            name: "" if value is None else str(value).strip() for name, value in found.items()
        }
        fault = "all columns are empty" if not any(values.values()) else ""
        return Row(
            line=line,
            text="\n".join(values.values()),
            fields=values,
            fault=fault,
            **self._about(record),
        )
