"""Labelling without a server: one file of JSON lines out for each annotator, one back.

A line is ``{"id", "text", "entities": null}``. Whoever has labelled a note puts a list in the place
of null, also an empty one: so nothing found is not mistaken for not looked at. Entities have start,
end (code points, end exclusive), label, and where wanted text, code and attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import UserError
from residency.core.files import NO_JSON, enumerate_lines, write_jsonl
from residency.core.types import Span
from residency.corpus.entities import EntityKeys, read_entities
from residency.label.annotations import Annotation, Given, LabellingTask

TEXT = "text is not the one that was given out; offsets may have moved"
TWICE = "note stands twice in the file; keep one of the two"


class Exchange:
    """One person's files of one round: ``out/NAME.jsonl`` is given out, ``back/NAME.jsonl`` comes
    back."""

    def __init__(self, root: Path, annotator: str) -> None:
        self.root, self.annotator = root, annotator

    def push(self, tasks: Sequence[LabellingTask], known: Mapping[str, Annotation]) -> str:
        """Write the file; returns where. What is ``known`` already stays with whoever labels, in
        their own copy.

        Raises ``UserError`` where other notes were given out before.
        """
        path = self.root / "out" / f"{self.annotator}.jsonl"
        ids = {task.id for task in tasks}
        if path.is_file() and any(row.get("id") not in ids for _, row in _rows(path)):
            raise UserError(
                f"{path}: other notes were given out before; finish with them, or choose another "
                "folder with label.out."
            )
        write_jsonl(path, map(_row, tasks))
        return str(path)

    def answer(self, tasks: Sequence[LabellingTask], given: Mapping[str, Annotation]) -> None:
        """Write the file that comes back, as a program that labels would: its annotations by
        task."""
        rows = []
        for task in tasks:
            row = _row(task)
            if one := given.get(task.id):
                row |= {"entities": list(map(entity, one.spans)), "at": one.at}
                row["seconds"] = one.seconds
            rows.append(row)
        write_jsonl(self.root / "back" / f"{self.annotator}.jsonl", rows)

    def pull(self, tasks: Mapping[str, LabellingTask]) -> Iterator[Given]:
        """What came back, in the file's order; raises ``UserError`` where no file did."""
        path = self.root / "back" / f"{self.annotator}.jsonl"
        if not path.is_file():
            raise UserError(
                f"{path}: is not there yet; put the labelled copy of "
                f"{self.root / 'out' / path.name} at this place."
            )
        seen: set[str] = set()
        for number, row in _rows(path):
            id = str(row["id"]) if isinstance(row.get("id"), str | int) else ""
            if row.get("entities") is None and not row.get("skipped") and row.get("choice") is None:
                continue
            changed = id in tasks and row.get("text", tasks[id].text) != tasks[id].text
            fault = TEXT if changed else TWICE if id in seen else ""
            seen.add(id)
            spans = read_entities(row.get("entities"), EntityKeys(), f"{path}:{number}", "entities")
            if isinstance(spans, str):
                fault = fault or spans
                spans = ()
            at, seconds, choice = row.get("at"), row.get("seconds"), row.get("choice")
            yield Given(
                task=id,
                spans=spans,
                at=at if isinstance(at, str) else "",
                seconds=float(seconds) if isinstance(seconds, int | float) else None,
                skipped=bool(row.get("skipped")),
                fault=fault,
                choice=choice if isinstance(choice, int) else None,
            )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate_lines(path):
        try:
            row = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except NO_JSON:
            raise UserError(
                f"{path}:{number}: is not valid JSON in UTF-8; each line must be one note, as it "
                "was given out."
            ) from None
        if not isinstance(row, dict):
            raise UserError(
                f"{path}:{number}: is not a JSON object; each line must be one note, as it was "
                "given out."
            )
        yield number, row


def _row(task: LabellingTask) -> dict[str, Any]:
    row: dict[str, Any] = {"id": task.id, "text": task.text, "entities": None}
    if task.about:
        row["about"] = task.about
    versions = [list(map(entity, version)) for version in task.suggestions]
    if len(versions) == 1:
        row["suggested"] = versions[0]
    elif versions:
        row |= {"candidates": versions, "choice": None}
    return row


def entity(span: Span) -> dict[str, Any]:
    """A span as files have it."""
    place = {"start": span.start, "end": span.end}
    found: dict[str, Any] = {**place, "label": span.label, "text": span.quote}
    if span.code:
        found["code"] = span.code
    if span.attributes:
        found["attributes"] = list(span.attributes)
    return found
