"""PubMedQA as its authors publish it: one JSON object, PMID -> question, contexts, decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core.errors import DataError
from residency.core.files import NO_JSON, read_text, reason
from residency.corpus.conversations import Conversations
from residency.corpus.json_records import Record
from residency.corpus.reader import Row, require


class PubMedQa(Conversations):
    """Questions that an abstract answers with yes, no or maybe; columns ``question``, ``context``,
    ``decision``, ``conclusion``."""

    format: Literal["pubmedqa"]

    def records(self, path: Path) -> Iterator[tuple[int, Record | str]]:
        try:
            found = msgspec.json.decode(read_text(path), type=dict[str, Any])
        except NO_JSON as error:
            raise DataError(
                f"{path}: is no PubMedQA file ({reason(error)}); it holds one object, PMID -> "
                "question."
            ) from None
        for number, (pmid, record) in enumerate(found.items(), start=1):
            is_object = isinstance(record, dict)
            yield number, {**record, "id": pmid} if is_object else "is not a JSON object"

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        names = ("QUESTION", "CONTEXTS", "final_decision")
        require(f"{path}:{line}", "field", record, [(name, "format") for name in names])
        question, contexts, decision = (record[name] for name in names)
        about = self.about(record)
        if not isinstance(contexts, list) or not all(
            isinstance(one, str) for one in (question, decision, *contexts)
        ):
            return Row(line=line, fault="question, contexts or decision are not text", **about)
        fields = {
            "question": question.strip(),
            "context": "\n".join(one.strip() for one in contexts),
            "decision": decision.strip(),
            "conclusion": str(record.get("LONG_ANSWER", "")).strip(),
        }
        text = f"{fields['question']}\n{fields['context']}"
        return Row(line=line, text=text, fields=fields, **about)
