"""Exports of Label Studio: tasks with annotations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core.errors import DataError
from residency.core.files import NO_JSON, read_text
from residency.corpus.json_records import csv_records, identifier
from residency.corpus.reader import Row, Source, require
from residency.corpus.span_repair import Raw


class LabelStudio(Source):
    """Label Studio's exports: JSON (a list of tasks, or ``{projects: [{project, tasks}]}``),
    JSON-MIN and CSV. A task is a note; the line is its position among the tasks. JSON-MIN and CSV
    have a row for each annotation, those of one task are put together; they hold no relations.

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
    choice: str = ""
    """Column of JSON-MIN or CSV that holds the one choice of a text; several, which are a list
    there, are known by themselves."""

    def suffixes(self) -> tuple[str, ...]:
        return (".json", ".csv")

    def rows(self, path: Path) -> Iterator[Row]:
        for number, task in enumerate(self._tasks(path), start=1):
            yield self._row(task, number, f"{path}:{number}")

    def _tasks(self, path: Path) -> Iterable[object]:
        if path.suffix.lower() == ".csv":
            rows = csv_records(path, ",", lambda header, where: None)
            return self._joined(
                {k: _cell(v) for k, v in row.items()} if isinstance(row, dict) else row
                for _, row in rows
            )
        tasks = list(_tasks(path))
        short = all(isinstance(one, Mapping) and "data" not in one for one in tasks)
        return self._joined(tasks) if short else tasks

    def _joined(self, rows: Iterable[object]) -> Iterable[object]:
        """Tasks of rows of JSON-MIN, by their id; without one each row is a task."""
        tasks: dict[object, dict[str, Any]] = {}
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                tasks[number, ""] = {}
                continue
            key = identifier(row.get("id"))
            task = tasks.setdefault(
                key or (number, ""), {"id": key, "data": row, "annotations": []}
            )
            results = [
                {"type": "labels" if "labels" in one else "choices", "value": one, "id": str(n)}
                for name, value in row.items()
                for n, one in enumerate(self._values(name, value))
            ]
            by = {"completed_by": row.get("annotator")} if row.get("annotator") else {}
            task["annotations"].append({"result": results, **by})
        return tasks.values()

    def _values(self, name: str, value: object) -> list[Mapping[str, Any]]:
        """The regions and choices in a column."""
        if isinstance(value, Mapping) and isinstance(value.get("choices"), list):
            return [value]
        if name == self.choice and isinstance(value, str) and value:
            return [{"choices": [value]}]
        regions = [one for one in _mappings(value) if "labels" in one or "hypertextlabels" in one]
        return [{**one, "labels": one.get("labels") or one["hypertextlabels"]} for one in regions]

    def _row(self, task: object, number: int, where: str) -> Row:
        data = task.get("data") if isinstance(task, Mapping) else None
        if not isinstance(task, Mapping) or not isinstance(data, Mapping):
            return Row(line=number, fault="is not a task with data")
        wanted = [(name, key) for key in ("text", "id", "group") if (name := getattr(self, key))]
        require(where, "field of the task's data", data, wanted)
        id = identifier(data[self.id] if self.id else task.get("id"))
        text = data[self.text]
        if not isinstance(text, str):
            return Row(line=number, id=id, fault="text is not a string")
        given = [one for one in _mappings(task.get("annotations")) if self._counts(one)]
        if not given:
            return Row(line=number, id=id, fault="task has no annotation")
        chosen = [one for one in given if one.get("ground_truth")] or given
        if len({_content(_mappings(one.get("result"))) for one in chosen}) > 1:
            fault = "annotations of the task differ; adjudicate them first"
            return Row(line=number, id=id, fault=fault)
        result = _mappings(chosen[0].get("result"))
        return Row(
            line=number,
            id=id,
            text=text,
            group=identifier(data[self.group]) if self.group else "",
            spans=tuple(regions(result, _annotator(chosen[0]) or None)),
            labels=tuple(_choices(result)),
            relations=tuple(_relations(result)),
        )

    def _counts(self, annotation: Mapping[str, Any]) -> bool:
        wanted = not self.annotator or _annotator(annotation) == self.annotator
        return wanted and not annotation.get("was_cancelled")


def _tasks(path: Path) -> Iterator[object]:
    try:
        document = msgspec.json.decode(read_text(path) or "[]")
    except NO_JSON:
        raise DataError(
            f"{path}: is not valid JSON; export the project again (format JSON)."
        ) from None
    if isinstance(document, list):
        yield from document
    elif isinstance(document, Mapping) and isinstance(document.get("projects"), list):
        for project in _mappings(document["projects"]):
            yield from _list(project.get("tasks"))
    else:
        raise DataError(
            f"{path}: is not an export of Label Studio; allowed: a list of tasks, or projects with "
            "tasks. Export as JSON."
        )


def _cell(text: str) -> object:
    """A cell of CSV, which holds JSON where it is no plain word."""
    if text[:1] not in ("[", "{"):
        return text
    try:
        found: object = msgspec.json.decode(text)
    except NO_JSON:
        return text
    return found


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mappings(value: object) -> list[Mapping[str, Any]]:
    """The mappings of a list; none where it is something else."""
    return [one for one in _list(value) if isinstance(one, Mapping)]


def _annotator(annotation: Mapping[str, Any]) -> str:
    """Id of who made it; never the name or e-mail that some exports give beside it."""
    by = annotation.get("completed_by")
    return identifier(by.get("id") if isinstance(by, Mapping) else by)


def _names(value: Mapping[str, Any], kind: str) -> list[str]:
    return [name for name in _list(value.get(kind)) if isinstance(name, str) and name]


def _values(result: Iterable[Any], *kinds: str) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """The items of some kinds that have a value, with it."""
    for item in result:
        if (
            isinstance(item, Mapping)
            and item.get("type") in kinds
            and isinstance(value := item.get("value"), Mapping)
        ):
            yield item, value


def _choices(result: Iterable[Any]) -> Iterator[str]:
    """What was chosen for the whole text; choices of one region are its attributes."""
    for _, value in _values(result, "choices"):
        if "start" not in value:
            yield from _names(value, "choices")


def regions(result: Sequence[Any], by: str | None) -> Iterator[Raw]:
    """The labelled regions of a result, each with the attributes and the code that were given to
    it."""
    attributes: dict[str, set[str]] = {}
    codes: dict[str, str] = {}
    for item, value in _values(result, "choices", "taxonomy"):
        if "start" not in value:
            continue
        key = identifier(item.get("id"))
        if item["type"] == "choices":
            attributes.setdefault(key, set()).update(_names(value, "choices"))
        elif paths := [
            one for one in _list(value.get("taxonomy")) if isinstance(one, list) and one
        ]:
            codes[key] = identifier(paths[0][-1]).split(" ", 1)[0]
    for item, value in _values(result, "labels", "hypertextlabels"):
        key = identifier(item.get("id"))
        offsets = value.get("globalOffsets")
        offsets = offsets if isinstance(offsets, Mapping) else value
        start, end, quote = offsets.get("start"), offsets.get("end"), value.get("text")
        names = _names(value, item["type"])
        if not names:
            yield Raw(fragments=(), label="", fault="region has no label", key=key)
        for name in names:
            if not isinstance(start, int) or not isinstance(end, int):
                fault = "offset of a span is not a whole number"
                yield Raw(fragments=(), label=name, fault=fault, key=key)
                continue
            yield Raw(
                fragments=((start, end),),
                label=name,
                quote=quote if isinstance(quote, str) else "",
                by=by,
                key=key,
                code=codes.get(key) if key else None,
                attributes=tuple(sorted(attributes.get(key, ()))) if key else (),
            )


def _relations(result: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for item in result:
        if item.get("type") == "relation":
            names = _list(item.get("labels"))
            ends = identifier(item.get("from_id")), identifier(item.get("to_id"))
            head, tail = reversed(ends) if item.get("direction") == "left" else ends
            yield head, tail, str(names[0] if names else "")


def _content(result: Sequence[Mapping[str, Any]]) -> frozenset[tuple[object, ...]]:
    """What an annotation says, for comparison with another: regions and choices, whatever their
    order and ids."""
    spans = ((raw.fragments, raw.label, raw.code, raw.attributes) for raw in regions(result, None))
    return frozenset([*spans, *(("choice", name) for name in _choices(result))])
