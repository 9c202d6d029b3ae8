"""An exam: multiple-choice items and questions to be answered in a few words, one JSON object a
line.

{"id": "1", "kind": "treatment", "question": "...", "options": {"A": "...", "B": "..."}, "answer":
"B"} {"id": "2", "kind": "drug use", "question": "...", "answer": "...", "points": ["...", "..."]}
"""

from __future__ import annotations

from pathlib import Path
from string import ascii_uppercase
from typing import Literal

from residency.corpus.conversations import Conversations
from residency.corpus.json_records import Record, identifier
from residency.corpus.reader import Row, require


class Exam(Conversations):
    """Items of an exam, by kind of question."""

    format: Literal["exam"]
    items: Literal["choice", "short"] = "choice"
    """Which items are taken: those with ``options``, or those without. An exam may hold both."""

    def row(self, record: Record, path: Path, line: int) -> Row | None:
        if bool(record.get("options")) != (self.items == "choice"):
            return None
        wanted = [("question", "format"), ("answer", "format")]
        require(f"{path}:{line}", "field", record, wanted)
        question, answer = record["question"], identifier(record["answer"]).strip()
        if not isinstance(question, str) or not question.strip() or not answer:
            return Row(line=line, fault="question or answer is empty or not text")
        about = self.about(record)
        fields = {"question": question.strip(), "answer": answer}
        if self.items == "short":
            points = record.get("points", [])
            if not isinstance(points, list) or not all(
                isinstance(one, str) and one.strip() for one in points
            ):
                return Row(line=line, fault="points are not a list of texts", **about)
            fields["points"] = "\n".join(f"- {one}" for one in points)
            return Row(line=line, text=question, fields=fields, **about)
        options = _options(record["options"])
        if isinstance(options, str):
            return Row(line=line, fault=options, **about)
        fields["answer"] = answer.upper() if answer.upper() in options else answer
        if fields["answer"] not in options:
            return Row(line=line, fault="answer is not the letter of an option", **about)
        fields["options"] = "\n".join(f"{letter}. {text}" for letter, text in options.items())
        about["choices"] = tuple(options)
        return Row(line=line, text=f"{question}\n{fields['options']}", fields=fields, **about)


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
