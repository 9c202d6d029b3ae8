"""Batch prediction: a file of notes in, a file of answers out, in constant memory, taken up again
where it was cut off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import DataError, UserError
from residency.core.files import (
    NO_JSON,
    canonical,
    disk_errors,
    enumerate_lines,
    file_digest,
    reason,
    sha256,
)
from residency.core.part import parse
from residency.core.progress import Silent, Tracker
from residency.core.types import Prediction, RawNote, Turn
from residency.corpus.conversations import MESSAGE_TAGS, read_messages
from residency.corpus.json_records import choices, identifier
from residency.tasks.card import Card
from residency.tasks.families import of
from residency.workflows.finished import artefact_of, predict

FLUSH = 256
"""Answers written at once."""


def predict_file(
    run: Path,
    input: Path,
    output: Path,
    text_field: str = "text",
    id_field: str = "id",
    tracker: Tracker | None = None,
) -> int:
    """Answer every note of a JSON-lines file; returns how many the output holds.

    The output appears when it is whole; until then ``OUTPUT.partial`` grows, and the same command
    goes on from there. Raises ``DataError`` for a line without text, ``UserError`` for a folder
    without a model, for an output that is there already, and where its folder is not.
    """
    tracker = tracker or Silent()
    artefact = artefact_of(run)
    _check_places(input, output)
    card = card_of(artefact)
    columns = bool(card.prompt and card.answer)  # which the card puts into words
    check_fields(input, text_field, columns)
    partial = output.with_name(output.name + ".partial")
    key = sha256(
        canonical(
            [file_digest(input), file_digest(artefact / "artefact.json"), text_field, id_field]
        )
    )
    done = resume(partial, key)
    predictions = predict(
        artefact, notes(input, text_field, id_field, done, columns)
    )  # a faulty model leaves nothing behind
    total = sum(1 for _ in enumerate_lines(input))
    tracker.start("predicting", total)
    encoder = msgspec.json.Encoder()
    count = done
    with disk_errors(output):
        with partial.open("ab") as file:
            if not done:
                file.truncate(0)
                file.write(key.encode() + b"\n")
            lines = bytearray()
            for prediction in predictions:
                lines += encoder.encode(answer(prediction, card)) + b"\n"
                count += 1
                if count % FLUSH == 0:
                    file.write(lines)
                    file.flush()
                    lines.clear()
                    tracker.update(count)
            file.write(lines)
        _finish(partial, output)
    tracker.end(f"{count} notes")
    return count


def _check_places(input: Path, output: Path) -> None:
    """Raise ``UserError`` where the input is not there, and where the output would overwrite
    something or needs a new folder."""
    if not input.is_file():
        raise DataError(f"{input}: does not exist; give a file of JSON lines.")
    if output.is_dir() or output.resolve() == input.resolve():
        raise UserError(
            f"{output}: is {'a folder' if output.is_dir() else 'the input'}; name another file for "
            "the output."
        )
    if output.exists():
        raise UserError(f"{output}: is there already; name another file, or remove it first.")
    if not output.absolute().parent.is_dir():
        raise UserError(f"{output.parent}: is no folder; make it first, or name another output.")


def card_of(artefact: Path) -> Card:
    """The card that a model learned."""
    found = msgspec.json.decode((artefact / "artefact.json").read_bytes())
    return parse(Card, found.get("card", {}), str(artefact / "artefact.json"))


def check_fields(input: Path, text_field: str, columns: bool = False) -> None:
    """Read the whole file once: a bad line is found before an hour of prediction, not after."""
    count = 0
    for number, line in enumerate_lines(input):
        _row(input, number, line, text_field, columns)
        count += 1
    if not count:
        raise DataError(f"{input}: holds no notes; give JSON lines with the field {text_field}.")


def notes(
    input: Path, text_field: str, id_field: str, skip: int, columns: bool = False
) -> Iterator[RawNote]:
    """Notes of a JSON-lines file behind the first ``skip``; they may hold identifiers, so they stay
    in memory.

    A row may hold ``messages`` instead of a text: a conversation that waits for an answer.
    """
    for position, (number, line) in enumerate(enumerate_lines(input)):
        if position >= skip:
            row = _row(input, number, line, text_field, columns)
            found = (
                read_messages(row["messages"], MESSAGE_TAGS)
                if "messages" in row and text_field not in row
                else []
            )
            turns = [] if isinstance(found, str) else found
            yield RawNote(
                id=identifier(row.get(id_field)) or str(number),
                patient="",
                text=str(row.get(text_field) or ""),
                turns=tuple(Turn(role=role, text=text) for role, text in turns),
                fields={
                    name: str(value) for name, value in row.items() if isinstance(value, str | int)
                }
                if columns
                else {},
                choices=choices(row),
            )


def _row(
    input: Path, number: int, line: bytes, text_field: str, columns: bool = False
) -> dict[str, Any]:
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    try:
        row = msgspec.json.decode(line)
    except NO_JSON as error:
        raise DataError(f"{input}:{number}: {reason(error)}") from None
    if isinstance(row, dict) and text_field not in row and "messages" in row:
        turns = read_messages(row["messages"], MESSAGE_TAGS)
        if isinstance(turns, str) or not turns or turns[-1][0] != "user":
            fault = turns if isinstance(turns, str) else "the last turn must be the user's"
            raise DataError(f"{input}:{number}: messages: {fault}.")
    elif not isinstance(row, dict) or not (columns or isinstance(row.get(text_field), str)):
        raise DataError(
            f"{input}:{number}: has no text in the field {text_field}; name the field with --text."
        )
    return row


def resume(partial: Path, key: str) -> int:
    """How many answers an earlier process left that belong to the same input and model; a cut-off
    last line is dropped."""
    if not partial.is_file():
        return 0
    with partial.open("rb+") as file:
        if file.readline() != key.encode() + b"\n":
            return 0
        done, whole = 0, file.tell()
        for line in file:
            if line.endswith(b"\n"):
                done += 1
                whole += len(line)
        file.truncate(whole)
    return done


def _finish(partial: Path, output: Path) -> None:
    """Drop the key line and move into place."""
    ready = output.with_name(output.name + ".ready")
    with partial.open("rb") as source, ready.open("wb") as target:
        source.readline()
        shutil.copyfileobj(source, target, 1 << 20)
    ready.replace(output)
    partial.unlink()


def answer(prediction: Prediction, card: Card) -> dict[str, Any]:
    """A prediction as the user reads it."""
    row: dict[str, Any] = {"id": prediction.id}
    if prediction.answer is None:
        return row | {"failure": prediction.failure or "no answer"}
    row |= of(card).columns(prediction.answer)
    return row | ({"note": prediction.failure} if prediction.failure else {})
