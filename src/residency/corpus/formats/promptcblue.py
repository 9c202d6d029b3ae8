"""Rows of PromptCBLUE: a prompt and what should be answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from residency.corpus.conversations import Conversations, RecordColumns, Speech
from residency.corpus.json_records import Record, identifier, json_records
from residency.corpus.reader import require


class PromptCblue(Conversations):
    """PromptCBLUE: only ``input`` reaches the model, ``target`` is the answer, ``type`` (or
    ``task_dataset``) the task."""

    format: Literal["promptcblue"]
    names: RecordColumns = RecordColumns(id="sample_id", kind="type")
    task: str = ""
    """Only the rows of one task, e.g. ``CMeEE-V2``; all where empty. The rows of others are no part
    of the data set."""

    def records(self, path: Path) -> Iterator[tuple[int, Record | str]]:
        for line, record in json_records(path):
            if not self.task or isinstance(record, str) or task_of(record) == self.task:
                yield line, record

    def turns(self, record: Record, where: str) -> list[Speech] | str:
        require(where, "column", record, [("input", "format"), ("target", "format")])
        question, answer = record["input"], record["target"]
        if not isinstance(question, str) or not isinstance(answer, str):
            return "a column is not text"
        return [("user", question), ("assistant", answer)]


def task_of(record: Record) -> str:
    """The task that a row of PromptCBLUE belongs to."""
    return identifier(record.get("task_dataset")) or identifier(record.get("type"))
