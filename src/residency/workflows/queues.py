"""Queues of one kind: what waits for a person is accepted, mended or rejected, which is the same as
editing the file in which it waits. Who decided what and when is a line of ``decisions.jsonl``
beside that file, and the last decision can be taken back."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import msgspec

from residency.core.errors import ResidencyError, UserError, allowed
from residency.core.files import (
    append_jsonl,
    csv_records,
    digest,
    enumerate_lines,
    locked,
    read_jsonl,
    read_unfinished,
    write_bytes,
    write_jsonl,
    write_text,
)
from residency.core.types import Note, Value
from residency.ingest.merges import COLUMNS, candidates_of, write_decided
from residency.knowledge.orders import gives_orders
from residency.knowledge.passages import SUFFIX, KnowledgeBase
from residency.label.suspects import Place, SuspectRow, placed, told
from residency.recipe import Recipe
from residency.workflows import feedback, review
from residency.workflows.knowledge import ORDERS

LOG = "decisions.jsonl"
ERRORS = "errors.jsonl"
AROUND = 80
"""Characters that are shown on either side of a place."""
Decided = Literal["accept", "mend", "reject"]
DECISIONS: tuple[Decided, ...] = get_args(Decided)
WRITTEN = "model:"
"""How the origin of a row begins that a model wrote."""


class Item(Value, frozen=True):
    """Something that waits. Its text is shown and nowhere kept."""

    id: str
    kind: str
    """In a word or two: of an identifier what it is, of a label error which."""
    before: str = ""
    quote: str = ""
    """What is decided on."""
    after: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    text: str = ""
    """What mending begins from."""


class Decision(Value, frozen=True):
    """A line of the log."""

    at: str
    who: str
    file: str
    item: str
    decision: Literal["accept", "mend", "reject", "undo"]
    was: str = ""
    """What stood there, for taking it back; of the identified zone no text."""


class Queue(Protocol):
    """Lines of a file that wait for a person."""

    kind: str
    mends: bool
    """Whether what waits can be mended, and not only accepted or rejected."""
    path: Path

    def items(self) -> list[Item]:
        """What waits, in the order of the file."""
        ...

    def was(self, item: str) -> str:
        """What stands there now. Raises ``UserError`` where nothing of this id is there."""
        ...

    def put(self, item: str, decision: Decided, text: str) -> None:
        """Decide, as who edits the file would. Raises ``UserError`` for a mended text that cannot
        stand there."""
        ...

    def back(self, item: str, was: str) -> None:
        """Put back what stood there."""
        ...


def decide(queue: Queue, item: str, decision: str, who: str, text: str = "") -> None:
    """Decide on what waits. The line of the log is on disk before the file is changed, so that
    nothing that it held can be lost.

    Raises ``UserError`` for a decision that is none, and for what does not wait any more.
    """
    able = DECISIONS if queue.mends else ("accept", "reject")
    if decision not in able:
        raise UserError(f"decision: {allowed(able, decision)}.")
    with locked(queue.path.parent):
        if item not in {one.id for one in queue.items()}:
            raise UserError("This does not wait any more; somebody has decided on it.")
        was = queue.was(item)
        _log(queue, item, decision, who, was)
        try:
            queue.put(item, decision, text)
        except BaseException:
            _log(queue, item, "undo", who, "")
            raise


def undo(queue: Queue, who: str) -> bool:
    """Take back the last decision that was not taken back; whether there was one."""
    with locked(queue.path.parent):
        open_: list[Decision] = []
        for one in decisions(queue):
            if one.decision != "undo":
                open_.append(one)
            elif open_:
                open_.pop()
        if not open_:
            return False
        last = open_[-1]
        queue.back(last.item, last.was)
        _log(queue, last.item, "undo", who, "")
    return True


def decisions(queue: Queue) -> list[Decision]:
    """The log of a queue."""
    rows = read_unfinished(queue.path.parent / LOG, Decision)
    return [one for one in rows if one.file == queue.path.name]


def _log(queue: Queue, item: str, decision: str, who: str, was: str) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    row = {"at": at, "who": who, "file": queue.path.name, "item": item, "decision": decision}
    append_jsonl(queue.path.parent / LOG, [row | ({"was": was} if was else {})], private=True)


def find(project: Path, identified: bool = True, by: str = "") -> dict[str, Queue]:
    """The queues of a project by their names in an address. ``identified``: those with text of
    patients too; ``by``: who decides, which a knowledge base keeps."""
    found: list[Queue] = []
    try:
        recipe = Recipe.load(project / "recipe.yaml")
    except ResidencyError:
        recipe = None
    if recipe is not None and recipe.deid is not None and identified:
        zone = recipe.root / recipe.deid.zone
        path, merged = zone / f"{recipe.name}.review.csv", candidates_of(zone, recipe.name)
        found += [Doubts(path)] if path.is_file() else []
        found += [Namesakes(merged)] if merged.is_file() else []
    if recipe is not None:
        found += [Suspects(path, recipe) for path in sorted(project.glob(f"*/{ERRORS}"))]
    folders = (project, project / "data")
    files = sorted(path for one in folders for path in one.glob("*.jsonl") if path.is_file())
    found += [WrittenRows(path) for path in files if _is_written(path)]
    found += [Passages(path, by) for path in sorted(project.glob(f"*{SUFFIX}"))]
    if (project / feedback.FILE).is_file():
        found.append(Judged(project / feedback.FILE))
    return {f"{one.kind}-{digest(str(one.path.relative_to(project)))[:8]}": one for one in found}


def _is_written(path: Path) -> bool:
    """Whether a model wrote some of a file's first rows."""
    try:
        return any(WRITTEN.encode() in line for _, line in islice(enumerate_lines(path), 100))
    except ResidencyError:
        return False


class Doubts:
    """Places that may identify somebody: the file of the identified zone."""

    kind, mends = "identifiers", False

    def __init__(self, path: Path) -> None:
        self.path = path

    def _rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.path.read_text("utf-8-sig"))))

    def _id(self, row: dict[str, str]) -> str:
        return digest([row["note"], row["start"], row["end"], row["kind"]])[:16]

    def items(self) -> list[Item]:
        """Lines without a decision."""
        return [
            Item(
                id=self._id(row),
                kind=row["kind"],
                before=row["before"],
                quote=row["place"],
                after=row["after"],
                facts=(("probability", row["probability"]),),
            )
            for row in self._rows()
            if not row["decision"]
        ]

    def was(self, item: str) -> str:
        """The decision."""
        return next(row["decision"] for row in self._rows() if self._id(row) == item)

    def put(self, item: str, decision: Decided, text: str) -> None:
        """Write the decision into its column."""
        self.back(item, decision)

    def back(self, item: str, was: str) -> None:
        """The same."""
        rows, made = self._rows(), io.StringIO(newline="")
        writer = csv.DictWriter(made, review.COLUMNS)
        writer.writeheader()
        writer.writerows(row | {"decision": was} if self._id(row) == item else row for row in rows)
        write_text(self.path, "\ufeff" + made.getvalue(), private=True)


class Namesakes:
    """Patients with one name and birth date, who may be one: confirmed, they are at the next
    extraction."""

    kind, mends = "patients", False

    def __init__(self, path: Path) -> None:
        self.path = path

    def _rows(self) -> list[dict[str, str]]:
        return [row for _, row in csv_records(self.path, COLUMNS)]

    def _id(self, row: dict[str, str]) -> str:
        return digest([row["patient"], row["into"]])[:16]

    def items(self) -> list[Item]:
        """Pairs without a decision."""
        return [
            Item(id=self._id(row), kind="patients", quote=f"{row['patient']} = {row['into']}")
            for row in self._rows()
            if not row["confirmed"]
        ]

    def was(self, item: str) -> str:
        """The decision."""
        return next(row["confirmed"] for row in self._rows() if self._id(row) == item)

    def put(self, item: str, decision: Decided, text: str) -> None:
        """Write yes or no into its column."""
        self.back(item, "yes" if decision == "accept" else "no")

    def back(self, item: str, was: str) -> None:
        """Write what stood there."""
        rows = [row | {"confirmed": was} if self._id(row) == item else row for row in self._rows()]
        write_decided(self.path, rows)


class Passages:
    """Passages of a knowledge base: accepted, an answer may quote them. They are not mended: a
    changed document is a version of its own."""

    kind, mends = "passages", False

    def __init__(self, path: Path, by: str) -> None:
        self.path, self.by = path, by

    def items(self) -> list[Item]:
        """Passages that wait."""
        with KnowledgeBase(self.path) as base:
            return [
                Item(
                    id=one.id,
                    kind="passage",
                    before=f"{one.heading}\n" if one.heading else "",
                    quote=one.text,
                    facts=(
                        ("document", f"{one.document}, {one.version}"),
                        ("last day", one.until),
                        ("remark", ORDERS if gives_orders(one.text) else ""),
                    ),
                )
                for one in base.waiting()
            ]

    def was(self, item: str) -> str:
        """How the passages of its document stand: accepting the last of a version replaces
        others."""
        with KnowledgeBase(self.path) as base:
            return msgspec.json.encode(base.states(base.passage(item).document)).decode()

    def put(self, item: str, decision: Decided, text: str) -> None:
        """Accept or reject it."""
        with KnowledgeBase(self.path) as base:
            base.decide([(item, decision == "accept")], self.by)

    def back(self, item: str, was: str) -> None:
        """Let the document's passages stand as they did."""
        with KnowledgeBase(self.path) as base:
            base.restore(msgspec.json.decode(was, type=dict[str, str]), self.by)


class Suspects:
    """Labels that are likely wrong: accepted, they become what the model says."""

    kind, mends = "labels", True

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe

    def _rows(self) -> list[SuspectRow]:
        return list(read_jsonl(self.path, SuspectRow))

    def _notes(self) -> dict[str, Note]:
        from residency.corpus import load

        name = self.recipe.tasks[0].data
        found = load.load(self.recipe.data[name], name, self.recipe.root, self.recipe.seed)
        return {note.id: note for note in found.notes}

    def items(self) -> list[Item]:
        """Places without a decision, with the text around them."""
        notes = self._notes()
        return [self._item(row, notes) for row in self._rows() if not row.decision]

    def _item(self, row: SuspectRow, notes: dict[str, Note]) -> Item:
        text = notes[row.note].text if row.note in notes else ""
        return Item(
            id=row.id,
            kind="label",
            before=text[max(0, row.start - AROUND) : row.start],
            quote=text[row.start : row.end],
            after=text[row.end : row.end + AROUND],
            facts=(("labelled", told(row.labelled)), ("the model says", told(row.believed))),
            text="\n".join(told([one]) for one in row.believed or row.labelled),
        )

    def was(self, item: str) -> str:
        """The line as it is."""
        return next(msgspec.json.encode(row).decode() for row in self._rows() if row.id == item)

    def put(self, item: str, decision: Decided, text: str) -> None:
        """Write the decision into the line."""
        row = msgspec.json.decode(self.was(item), type=SuspectRow)
        mended = self._mended(row, text) if decision == "mend" else ()
        self._replace(msgspec.structs.replace(row, decision=decision, mended=mended))

    def back(self, item: str, was: str) -> None:
        """Put the line back."""
        self._replace(msgspec.json.decode(was, type=SuspectRow))

    def _replace(self, new: SuspectRow) -> None:
        rows = [new if row.id == new.id else row for row in self._rows()]
        write_jsonl(self.path, rows)

    def _mended(self, row: SuspectRow, text: str) -> tuple[Place, ...]:
        notes = self._notes()
        length = len(notes[row.note].text) if row.note in notes else 0
        known = {span.label for note in notes.values() for span in note.spans}
        return tuple(placed(line, length, known) for line in text.splitlines() if line.strip())


class WrittenRows:
    """Rows that a model wrote: accepted they stay, rejected they leave the file."""

    kind, mends = "written", True

    def __init__(self, path: Path) -> None:
        self.path = path

    def _lines(self) -> list[bytes]:
        return [line.rstrip(b"\r\n") for _, line in enumerate_lines(self.path)]

    def _rows(self) -> Iterator[tuple[str, dict[str, Any], bytes]]:
        """Id, row and line of each row that a model wrote."""
        for line in self._lines():
            row = msgspec.json.decode(line)
            if str(row.get("origin", "")).startswith(WRITTEN):
                yield digest([row.get("id"), row.get("instruction")])[:16], row, line

    def items(self) -> list[Item]:
        """Rows on which nobody has decided."""
        state: dict[str, str] = {}
        for one in decisions(self):
            state[one.item] = one.decision
        return [
            Item(
                id=id,
                kind="row",
                before="\n".join(str(row.get(key) or "") for key in ("instruction", "input")),
                quote=str(row.get("output", "")),
                facts=(("written by", str(row["origin"]).removeprefix(WRITTEN)),),
                text=str(row.get("output", "")),
            )
            for id, row, _ in self._rows()
            if state.get(id, "undo") == "undo"
        ]

    def was(self, item: str) -> str:
        """Number and content of the line."""
        line = next(line for id, _, line in self._rows() if id == item)
        return f"{self._lines().index(line)} {line.decode()}"

    def put(self, item: str, decision: Decided, text: str) -> None:
        """Leave the row, write another answer into it, or take it out."""
        if decision == "mend" and not text.strip():
            raise UserError("Nothing was written; write the answer as it should be, or reject it.")
        place, _, line = self.was(item).partition(" ")
        lines = self._lines()
        if decision == "reject":
            del lines[int(place)]
        elif decision == "mend":
            row = msgspec.json.decode(line) | {"output": text.strip()}
            lines[int(place)] = msgspec.json.encode(row)
        self._write(lines)

    def back(self, item: str, was: str) -> None:
        """Put the line back where it was."""
        place, _, line = was.partition(" ")
        lines = self._lines()
        here = next((found for id, _, found in self._rows() if id == item), None)
        if here is not None:
            lines[lines.index(here)] = line.encode()
        else:
            lines.insert(int(place), line.encode())
        self._write(lines)

    def _write(self, lines: Sequence[bytes]) -> None:
        write_bytes(self.path, b"".join(line + b"\n" for line in lines))


class Judged:
    """Answers that doctors called wrong or harmful: what is accepted or mended may be learned
    from."""

    kind, mends = "feedback", True

    def __init__(self, path: Path) -> None:
        self.path = path

    def items(self) -> list[Item]:
        """Those on which nobody has decided."""
        return [
            Item(
                id=one.of.id,
                kind=one.verdict,
                before=f"{one.of.route}: ",
                quote=one.of.answer or ", ".join(f"{k}: {n}" for k, n in one.of.found.items()),
                facts=(("what it should say", one.comment), ("who", one.who), ("time", one.at)),
                text=one.comment,
            )
            for one in feedback.read(self.path.parent)
            if one.verdict != "right" and not one.taken
        ]

    def was(self, item: str) -> str:
        """The line as it counts."""
        return msgspec.json.encode(self._of(item)).decode()

    def _of(self, item: str) -> feedback.Feedback:
        return next(one for one in feedback.read(self.path.parent) if one.of.id == item)

    def put(self, item: str, decision: Decided, text: str) -> None:
        """Add a line that counts from now on."""
        row = self._of(item)
        comment = text.strip() if decision == "mend" else row.comment
        if decision == "mend" and not comment:
            raise UserError("Nothing was written; write what it should say, or reject it.")
        if decision == "mend":
            comment = feedback.without_identifiers(comment)
        new = msgspec.structs.replace(row, taken=decision, comment=comment)
        append_jsonl(self.path, [new], private=True)

    def back(self, item: str, was: str) -> None:
        """Add the line that was."""
        row = msgspec.json.decode(was, type=feedback.Feedback)
        append_jsonl(self.path, [row], private=True)
