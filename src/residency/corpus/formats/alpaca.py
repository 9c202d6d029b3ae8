"""Alpaca: an instruction with its input and output, and earlier turns."""

from __future__ import annotations

from typing import Literal

import msgspec

from residency.core.part import Part
from residency.corpus.conversations import Conversations, Speech
from residency.corpus.json_records import Record
from residency.corpus.reader import require


class AlpacaColumns(Part):
    """What the columns are called."""

    prompt: str = "instruction"
    """What is asked or told."""
    query: str = "input"
    """Joined to the prompt by a line break; may be missing."""
    response: str = "output"
    """The answer that is learned."""
    system: str = "system"
    """What the model is told first; may be missing."""
    history: str = "history"
    """Earlier turns, a list of [question, answer]; may be missing."""


class Alpaca(Conversations):
    """Instruction, input and output; earlier turns in ``history``."""

    format: Literal["alpaca"]
    columns: AlpacaColumns = AlpacaColumns()

    def turns(self, record: Record, where: str) -> list[Speech] | str:
        columns = self.columns
        wanted = ((columns.prompt, "columns.prompt"), (columns.response, "columns.response"))
        require(where, "column", record, wanted)
        names = (columns.system, columns.prompt, columns.query, columns.response)
        cells = [record.get(name) or "" for name in names]
        if not all(isinstance(cell, str) for cell in cells):
            return "a column is not text"
        try:
            pairs = msgspec.convert(record.get(columns.history) or [], list[tuple[str, str]])
        except msgspec.ValidationError:
            return "history is not a list of question and answer"
        system, prompt, query, response = cells
        turns: list[Speech] = [("system", system)]
        for question, answer in pairs:
            turns += [("user", question), ("assistant", answer)]
        question = f"{prompt}\n{query}" if prompt.strip() and query.strip() else prompt or query
        return [*turns, ("user", question), ("assistant", response)]
