"""PubMedQA as its authors publish it: one JSON object, PMID -> question, contexts, decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core.errors import DataError
from residency.core.files import reason
from residency.corpus.conversations import Conversations, Said
from residency.corpus.reader import Row, missing, whole


class PubMedQa(Conversations):
    """Questions that an abstract answers with yes, no or maybe; columns ``question``, ``context``,
    ``decision``, ``conclusion``."""

    format: Literal["pubmedqa"]

    def records(self, path: Path) -> Iterator[tuple[int, object]]:
        try:
            found = msgspec.json.decode(whole(path), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise DataError(
                f"{path}: is no PubMedQA file ({reason(error)}); it holds one object, PMID -> "
                "question."
            ) from None
        for number, (pmid, record) in enumerate(found.items(), start=1):
            yield number, {**record, "id": pmid} if isinstance(record, dict) else record

    def said(self, record: dict[str, Any], where: str) -> list[Said] | str:
        raise NotImplementedError  # rows have columns, which a card puts into words

    def _row(self, record: dict[str, Any], line: int, where: str) -> Row:
        for name in ("QUESTION", "CONTEXTS", "final_decision"):
            if name not in record:
                raise missing(where, "field", name, record, "format")
        question, contexts, decision = (
            record["QUESTION"],
            record["CONTEXTS"],
            record["final_decision"],
        )
        about = self._about(record)
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
        return Row(
            line=line, text=f"{fields['question']}\n{fields['context']}", fields=fields, **about
        )
