"""OpenAI's chat messages."""

from __future__ import annotations

from typing import Literal

from residency.corpus.conversations import MESSAGE_TAGS, Conversations, Speech, read_messages
from residency.corpus.json_records import Record
from residency.corpus.reader import require


class Messages(Conversations):
    """OpenAI's form: ``messages``, each with ``role`` and ``content``."""

    format: Literal["messages"]
    column: str = "messages"
    """Column of the list of messages."""

    def turns(self, record: Record, where: str) -> list[Speech] | str:
        require(where, "column", record, [(self.column, "column")])
        return read_messages(record[self.column], MESSAGE_TAGS)
