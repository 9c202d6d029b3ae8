"""Exports of Label Studio: tasks with annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core.errors import DataError
from residency.corpus.jsonl import identifier
from residency.corpus.reader import Row, Source, missing, whole
from residency.corpus.span_repair import Raw


class LabelStudio(Source):
    """Label Studio's JSON export: a list of tasks, or ``{projects: [{project, tasks}]}``. A task is
    a note; the line is its position among the tasks.

    Of a task's annotations the ground truth counts, or else the only one, or else what all of them
    say alike; where they differ the task is rejected, since which of them is right is for
    adjudication to say. Skipped annotations, drafts and predictions do not count. Read: labelled
    regions of text with their own choices (attributes) and code, choices of the whole text and
    relations.
    """

    format: Literal["label_studio"]
    text: str = "text"
    """Field of the task's data that holds the text."""
    id: str = ""
    """Field of the task's data that holds the id; the task's own id where empty."""
    group: str = ""
    """Field of the task's data that holds the patient or document."""
    annotator: str = ""
    """Only the annotations of the user with this id; all where empty."""

    def suffixes(self) -> tuple[str, ...]:
        return (".json",)

    def rows(self, path: Path) -> Iterator[Row]:
        for number, task in enumerate(_tasks(path), start=1):
            yield self._row(task, number, f"{path}:{number}")

    def _row(self, task: object, number: int, where: str) -> Row:
        data = task.get("data") if isinstance(task, Mapping) else None
        if not isinstance(task, Mapping) or not isinstance(data, Mapping):
            return Row(line=number, fault="is not a task with data")
        for setting in ("text", "id", "group"):
            name = getattr(self, setting)
            if name and name not in data:
                raise missing(where, "field of the task's data", name, data, setting)
        id = identifier(data[self.id] if self.id else task.get("id"))
        text = data[self.text]
        if not isinstance(text, str):
            return Row(line=number, id=id, fault="text is not a string")
        given = [
            a for a in _list(task.get("annotations")) if isinstance(a, Mapping) and self._counts(a)
        ]
        if not given:
            return Row(line=number, id=id, fault="task has no annotation")
        chosen = [a for a in given if a.get("ground_truth")] or given
        contents = {_content(_list(a.get("result"))) for a in chosen}
        if len(contents) > 1:
            return Row(
                line=number, id=id, fault="annotations of the task differ; adjudicate them first"
            )
        result = _list(chosen[0].get("result"))
        return Row(
            line=number,
            id=id,
            text=text,
            group=identifier(data[self.group]) if self.group else "",
            spans=tuple(regions(result, _annotator(chosen[0]) or None)),
            labels=tuple(choices(result)),
            relations=tuple(_relations(result)),
        )

    def _counts(self, annotation: Mapping[str, Any]) -> bool:
        wanted = not self.annotator or _annotator(annotation) == self.annotator
        return wanted and not annotation.get("was_cancelled")


def _tasks(path: Path) -> Iterator[object]:
    try:
        document = msgspec.json.decode(whole(path) or "[]")
    except msgspec.DecodeError:
        raise DataError(
            f"{path}: is not valid JSON; export the project again (format JSON)."
        ) from None
    if isinstance(document, list):
        yield from document
    elif isinstance(document, Mapping) and isinstance(document.get("projects"), list):
        for project in document["projects"]:
            yield from _list(project.get("tasks") if isinstance(project, Mapping) else None)
    else:
        raise DataError(
            f"{path}: is not an export of Label Studio; allowed: a list of tasks, or projects with "
            "tasks. Export as JSON."
        )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _annotator(annotation: Mapping[str, Any]) -> str:
    """Id of who made it; never the name or e-mail that some exports give beside it."""
    by = annotation.get("completed_by")
    return identifier(by.get("id") if isinstance(by, Mapping) else by)


def _values(result: Sequence[Any], kind: str) -> Iterator[Mapping[str, Any]]:
    for item in result:
        if (
            isinstance(item, Mapping)
            and item.get("type") == kind
            and isinstance(item.get("value"), Mapping)
        ):
            yield item["value"]


def _names(value: Mapping[str, Any], kind: str) -> list[str]:
    return [name for name in _list(value.get(kind)) if isinstance(name, str) and name]


def choices(result: Sequence[Any]) -> Iterator[str]:
    """What was chosen for the whole text; choices of one region are its attributes."""
    for value in _values(result, "choices"):
        if "start" not in value:
            yield from _names(value, "choices")


def regions(result: Sequence[Any], by: str | None) -> Iterator[Raw]:
    """The labelled regions of a result, each with the attributes and the code that were given to
    it."""
    attributes: dict[str, list[str]] = {}
    codes: dict[str, str] = {}
    for item in result:
        if (
            isinstance(item, Mapping)
            and isinstance(item.get("value"), Mapping)
            and "start" in item["value"]
        ):
            key = identifier(item.get("id"))
            if item.get("type") == "choices":
                attributes.setdefault(key, []).extend(_names(item["value"], "choices"))
            elif item.get("type") == "taxonomy":
                paths = [
                    path
                    for path in _list(item["value"].get("taxonomy"))
                    if isinstance(path, list) and path
                ]
                if paths:
                    codes[key] = identifier(paths[0][-1]).split(" ", 1)[0]
    for item in result:
        if not isinstance(item, Mapping) or item.get("type") not in ("labels", "hypertextlabels"):
            continue
        value = item.get("value")
        if not isinstance(value, Mapping):
            continue
        key = identifier(item.get("id"))
        offsets = value.get("globalOffsets")
        offsets = offsets if isinstance(offsets, Mapping) else value
        start, end, quote = offsets.get("start"), offsets.get("end"), value.get("text")
        names = _names(value, item["type"])
        if not names:
            yield Raw(fragments=(), label="", fault="region has no label", key=key)
        for name in names:
            if isinstance(start, int) and isinstance(end, int):
                quoted = quote if isinstance(quote, str) else ""
                yield Raw(
                    fragments=((start, end),),
                    label=name,
                    quote=quoted,
                    by=by,
                    key=key,
                    code=codes.get(key) if key else None,
                    attributes=tuple(sorted(set(attributes.get(key, ())))) if key else (),
                )
            else:
                yield Raw(
                    fragments=(),
                    label=name,
                    fault="offset of a span is not a whole number",
                    key=key,
                )


def _relations(result: Sequence[Any]) -> Iterator[tuple[str, str, str]]:
    for item in result:
        if isinstance(item, Mapping) and item.get("type") == "relation":
            names = _list(item.get("labels"))
            head, tail = identifier(item.get("from_id")), identifier(item.get("to_id"))
            yield (
                (tail, head, str(names[0] if names else ""))
                if item.get("direction") == "left"
                else (head, tail, str(names[0] if names else ""))
            )


def _content(result: Sequence[Any]) -> frozenset[tuple[object, ...]]:
    """What an annotation says, for comparison with another: regions and choices, whatever their
    order and ids."""
    said = ((raw.fragments, raw.label, raw.code, raw.attributes) for raw in regions(result, None))
    return frozenset([*said, *(("choice", name) for name in choices(result))])
