"""An exam: multiple-choice items and questions to be answered in a few words, one JSON object a
line.

{"id": "1", "kind": "treatment", "question": "...", "options": {"A": "...", "B": "..."}, "answer":
"B"} {"id": "2", "kind": "drug use", "question": "...", "answer": "...", "points": ["...", "..."]}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from residency.corpus.conversations import Conversations, Said
from residency.corpus.jsonl import INVALID, identifier
from residency.corpus.reader import Row, missing


class Exam(Conversations):
    """Items of an exam, by kind of question."""

    format: Literal["exam"]
    items: Literal["choice", "short"] = "choice"
    """Which items are taken: those with ``options``, or those without. An exam may hold both."""

    def rows(self, path: Path) -> Iterator[Row]:
        for line, record in self.records(path):
            if not isinstance(record, dict):
                yield Row(
                    line=line,
                    fault="is not valid JSON" if record is INVALID else "is not a JSON object",
                )
            elif bool(record.get("options")) == (self.items == "choice"):
                yield self._item(record, line, f"{path}:{line}")

    def said(self, record: dict[str, Any], where: str) -> list[Said] | str:
        raise NotImplementedError  # items have columns, which a card puts into words

    def _item(self, record: dict[str, Any], line: int, where: str) -> Row:
        for name in ("question", "answer"):
            if name not in record:
                raise missing(where, "field", name, record, "format")
        question, answer = record["question"], identifier(record["answer"]).strip()
        if not isinstance(question, str) or not question.strip() or not answer:
            return Row(line=line, fault="question or answer is empty or not text")
        about = self._about(record)
        if self.items == "short":
            found = record.get("points", [])
            if not isinstance(found, list) or not all(
                isinstance(one, str) and one.strip() for one in found
            ):
                return Row(line=line, fault="points are not a list of texts", **about)
            fields = {
                "question": question.strip(),
                "answer": answer,
                "points": "\n".join(f"- {one}" for one in found),
            }
            return Row(line=line, text=question, fields=fields, **about)
        options = _options(record["options"])
        if isinstance(options, str):
            return Row(line=line, fault=options, **about)
        answer = answer.upper() if answer.upper() in options else answer
        if answer not in options:
            return Row(line=line, fault="answer is not the letter of an option", **about)
        listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
        fields = {"question": question.strip(), "options": listed, "answer": answer}
        return Row(
            line=line,
            text=f"{question}\n{listed}",
            fields=fields,
            **{**about, "choices": tuple(options)},
        )


def _options(found: object) -> dict[str, str] | str:
    """Letter -> text, or what is wrong."""
    if isinstance(found, list):
        found = dict(zip(ascii_uppercase, found, strict=False))
    if not isinstance(found, dict) or len(found) < 2:
        return "options are not two or more, a mapping of letters or a list"
    options = {str(letter).strip().upper(): text for letter, text in found.items()}
    if not all(isinstance(text, str) and text.strip() for text in options.values()) or len(
        options
    ) < len(found):
        return "an option is empty, not text, or its letter stands twice"
    return {letter: text.strip() for letter, text in options.items()}
