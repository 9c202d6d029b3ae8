"""ShareGPT: a list of turns, each with who says it and what."""

from __future__ import annotations

from typing import Literal

from residency.core.part import Part
from residency.corpus.conversations import Conversations, Speech, Tags, read_messages
from residency.corpus.json_records import Record
from residency.corpus.reader import require


class ShareGptColumns(Part):
    """What the columns are called."""

    messages: str = "conversations"
    """Column of the list of turns."""
    system: str = "system"
    """Column of what the model is told first; may be missing."""


class ShareGpt(Conversations):
    """A list of turns, each with who says it and what."""

    format: Literal["sharegpt"]
    columns: ShareGptColumns = ShareGptColumns()
    tags: Tags = Tags()

    def turns(self, record: Record, where: str) -> list[Speech] | str:
        name = self.columns.messages
        require(where, "column", record, [(name, "columns.messages")])
        system, turns = record.get(self.columns.system), read_messages(record[name], self.tags)
        if isinstance(turns, str) or not isinstance(system, str):
            return turns
        return [("system", system), *turns]
