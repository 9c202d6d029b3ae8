"""PromptCBLUE's files: rows of ``input, target, type, answer_choices, sample_id``, a submission
made of answers, and its scores.

The official scores are those of ``tasks.promptcblue``; the safe ones are those of the packaged
cards: each answer is read as far as it goes, what cannot be read counts as wrong, and nothing that
a model writes can make the scorer fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core import files
from residency.core.errors import DataError, allowed
from residency.core.types import Example, Prediction, Value
from residency.corpus.formats.promptcblue import task_of
from residency.corpus.json_records import Record, choices, identifier, json_records
from residency.tasks import scoring
from residency.tasks.card import CARDS, Card, load_card
from residency.tasks.codec import read
from residency.tasks.families import of
from residency.tasks.promptcblue_scores import TASKS, Item, official, overall

Mode = Literal["official", "safe"]


class TaskScore(Value, frozen=True):
    """The score of one task."""

    task: str
    metric: str
    score: float
    rows: int
    unread: int
    """Answers that cannot be read at all by the safe reader."""
    repaired: int
    """Answers of which something had to be mended or left out."""


@cache
def cards() -> dict[str, Card]:
    """The packaged card of each task, by its official name."""
    paths = (CARDS / "promptcblue").glob("*.yaml")
    found = {card.name: card for card in (load_card(f"promptcblue/{p.stem}") for p in paths)}
    return {task: found[task] for task in TASKS}


def rows(path: Path) -> list[Record]:
    """The rows of a file, as they came.

    Raises ``DataError`` for a row that is no row of the benchmark, or whose id stands twice in its
    task.
    """
    found: list[Record] = []
    seen: dict[tuple[str, str], int] = {}
    for line, record in json_records(path):
        where = f"{path}:{line}"
        if isinstance(record, str):
            raise DataError(f"{where}: is not a JSON object; each line is one row.")
        for name in ("input", "target", "sample_id"):
            if not isinstance(record.get(name), str):
                raise DataError(
                    f"{where}: has no text in {name}; a row has input, target, type, "
                    "answer_choices and sample_id."
                )
        task = task_of(record)
        if task not in TASKS:
            raise DataError(
                f"{where}: its type is not a task of PromptCBLUE; {allowed(TASKS, task)}."
            )
        key = (task, record["sample_id"])
        if key in seen:
            raise DataError(
                f"{where}: has the sample_id of line {seen[key]}; ids must be unique within a task."
            )
        seen[key] = line
        found.append(record)
    if not found:
        raise DataError(f"{path}: holds no rows; check that the file is complete.")
    return found


def overall_of(scored: Sequence[TaskScore]) -> float | None:
    """The benchmark's overall score; nothing where not all of its tasks are there."""
    found = {one.task: one.score for one in scored}
    return overall(found) if set(TASKS) <= set(found) else None


def score(gold: Path, predictions: Path, mode: Mode) -> list[TaskScore]:
    """The score of every task that the gold file holds; both files are in PromptCBLUE's layout, the
    predictions' ``target`` is what the model wrote.

    Raises ``DataError`` where rows are missing, double, unknown or of another task, and in the mode
    ``official`` where the official scorer would refuse the submission.
    """
    wanted = rows(gold)
    found = {(task_of(row), row["sample_id"]): row for row in rows(predictions)}
    _check(wanted, found, gold, predictions)
    scored = []
    for task in (task for task in TASKS if any(task_of(row) == task for row in wanted)):
        own = [row for row in wanted if task_of(row) == task]
        said = [found[task, row["sample_id"]]["target"] for row in own]
        scored.append(_score_task(task, own, said, mode))
    return scored


def _check(
    wanted: list[Record], found: dict[tuple[str, str], Any], gold: Path, predictions: Path
) -> None:
    keys = {(task_of(row), row["sample_id"]): None for row in wanted}
    missing = [key for key in keys if key not in found]
    if missing:
        task, id = missing[0]
        other = next((one for one, name in found if name == id and (one, name) not in keys), None)
        if other:
            raise DataError(
                f"{predictions}: row {id} is of task {other}, in {gold} of {task}; give the gold "
                "file of the predictions."
            )
        raise DataError(
            f"{predictions}: {len(missing)} of {len(keys)} rows of {gold} have no prediction (the "
            f"first is {id} of {task}); predict them all: an unanswered row has an empty target."
        )
    more = [key for key in found if key not in keys]
    if more:
        raise DataError(
            f"{predictions}: row {more[0][1]} of {more[0][0]} is not in {gold}; give the gold file "
            "of the predictions."
        )


def _score_task(task: str, own: Sequence[Record], said: Sequence[str], mode: Mode) -> TaskScore:
    card = cards()[task]
    examples, predictions = safe_pairs(card, own, said)
    if mode == "official":
        offered = [_official_choices(row) for row in own]
        golds = [
            Item(row["sample_id"], row["target"], given)
            for row, given in zip(own, offered, strict=True)
        ]
        value = official(
            task,
            golds,
            [Item(one.id, words, one.choices) for one, words in zip(golds, said, strict=True)],
        )
    else:
        value = scoring.main_metric(examples, predictions, card) or 0.0
    return TaskScore(
        task=task,
        metric=TASKS[task].metric if mode == "official" else card.main_metric,
        score=value,
        rows=len(own),
        unread=sum(one.answer is None for one in predictions),
        repaired=sum(one.answer is not None and bool(one.failure) for one in predictions),
    )


def safe_pairs(
    card: Card, own: Iterable[Record], said: Iterable[str]
) -> tuple[list[Example], list[Prediction]]:
    """Rows as examples of a card, and what was written to them as predictions.

    Raises ``DataError`` where a gold answer is not in the form of its task.
    """
    examples, predictions = [], []
    for row, words in zip(own, said, strict=True):
        example = Example(
            id=row["sample_id"],
            task=card.name,
            input=row["input"],
            kind=card.name,
            choices=choices(row),
            lang="zh",
            profile="public",
        )
        gold, _ = read(row["target"], example, card)
        if gold is None:
            raise DataError(
                f"row {example.id}: its target is not in the form of {card.name}; correct the gold "
                "file."
            )
        answer, failure = read(words, example, card)
        examples.append(msgspec.structs.replace(example, gold=gold))
        predictions.append(Prediction(id=example.id, answer=answer, text=words, failure=failure))
    return examples, predictions


def _official_choices(row: Record) -> tuple[str, ...] | None:
    """The choices as the official reader is given them."""
    found = row.get("answer_choices")
    return tuple(found) if isinstance(found, list) else choices(row) or None


def write_submission(asked: Path, answers: Path, out: Path) -> int:
    """Write the rows of a file with what ``residency predict`` answered as their target; returns
    how many.

    Raises ``DataError`` where the answers are not those to the rows, in their order.
    """
    written = [_with_answer(row, answer, answers) for row, answer in _pair_answers(asked, answers)]
    files.write_jsonl(out, written)
    return len(written)


def _pair_answers(asked: Path, answers: Path) -> Iterator[tuple[Record, Record]]:
    for number, (row, (line, answer)) in enumerate(
        zip_longest(rows(asked), json_records(answers), fillvalue=(0, None)), start=1
    ):
        where = f"{answers}:{line or number}"
        if not isinstance(row, dict):
            raise DataError(
                f"{where}: there are more answers than rows in {asked}; predict this file anew."
            )
        if not isinstance(answer, dict) or identifier(answer.get("id")) != row["sample_id"]:
            raise DataError(
                f"{where}: is not the answer to row {row['sample_id']}; predict {asked} with "
                "--text input --id sample_id, and keep the order."
            )
        yield row, answer


def _with_answer(row: Record, answer: Record, where: Path) -> Record:
    card = cards()[task_of(row)]
    try:
        given = of(card).from_columns(answer)
        words = "" if given is None else of(card).render(given, "")  # no answer counts as wrong
        words = str(answer.get("answer", words))
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: the answer to row {row['sample_id']} is not one to task {card.name}; "
            "predict with a model of that task."
        ) from None
    return {**row, "target": words}
