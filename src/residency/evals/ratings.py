"""Marks from 0 to 10 for short answers: by people on a sheet, or by a judge model, which is named
as such everywhere."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from residency.core.errors import DataError
from residency.core.files import csv_records, write_text
from residency.core.types import Example, Note, Prediction, Predictor, Score, Turn, Value
from residency.evals.measure import LEVEL
from residency.tasks.families.answers import text_of
from residency.tasks.statements import read_mark

COLUMNS = ("id", "question", "points", "answer", "rater", "mark")
MOST = 10
MODEL = "model:"
"""What the name of a rater that is a model begins with."""
PROMPT = {
    "en": (
        "Mark the answer from 0 to 10 by the points that it should make. Write the number "
        "only.\n\nQuestion: {question}\nPoints:\n{points}\nAnswer: {answer}\nMark:"
    ),
    "vi": (
        "Chấm câu trả lời từ 0 đến 10 theo các ý cần có. Chỉ viết con số.\n\nCâu hỏi: "
        "{question}\nÝ cần có:\n{points}\nTrả lời: {answer}\nĐiểm:"
    ),
    "zh": "按要点给回答打分，0到10分，只写数字。\n\n问题：{question}\n要点：\n{points}\n回答：{answer}\n分数：",
}


class Mark(Value, frozen=True):
    """What a rater gave one answer."""

    id: str
    rater: str
    mark: float


def write_sheet(notes: Sequence[Note], predictions: Sequence[Prediction], path: Path) -> int:
    """Write a sheet (CSV) on which a person marks answers to items of an exam; returns how many.
    Which system answered is not on it."""
    answers = {one.id: text_of(one.answer) for one in predictions}
    missing = [note.id for note in notes if note.id not in answers]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(notes)} items have no answer (the first is {missing[0]}); "
            "predict them all."
        )
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(COLUMNS)
    for note in notes:
        writer.writerow(
            [
                note.id,
                note.fields["question"],
                note.fields.get("points", ""),
                answers[note.id],
                "",
                "",
            ]
        )
    write_text(path, made.getvalue())
    return len(notes)


def read_sheet(path: Path) -> list[Mark]:
    """The marks of a sheet; raises ``DataError`` for one that is missing, double or not between 0
    and 10."""
    marks: dict[tuple[str, str], Mark] = {}
    advice = "keep those of the sheet as it was written."
    for line, row in csv_records(path, ("id", "rater", "mark"), advice):
        where = f"{path}:{line}"
        if not row["rater"]:
            raise DataError(f"{where}: says not who marked; write a name or a code into rater.")
        try:
            mark = float(row["mark"].replace(",", "."))
        except ValueError:
            mark = -1
        if not 0 <= mark <= MOST:
            raise DataError(f"{where}: mark must be a number from 0 to {MOST}.")
        key = (row["id"], row["rater"])
        if key in marks:
            raise DataError(
                f"{where}: item {key[0]} was marked twice by one rater; keep one of the two."
            )
        marks[key] = Mark(id=key[0], rater=key[1], mark=mark)
    if not marks:
        raise DataError(f"{path}: holds no marks.")
    return list(marks.values())


def judged(
    judge: Predictor, notes: Sequence[Note], predictions: Sequence[Prediction]
) -> tuple[list[Mark], int]:
    """Marks by a model, and how many answers it gave no readable mark. Its name says that it is a
    model."""
    answers = {one.id: text_of(one.answer) for one in predictions}
    asked = [
        Example(
            id=note.id,
            task="mark",
            input=words,
            turns=(Turn(role="user", text=words),),
            lang=note.lang,
            profile=note.profile,
        )
        for note in notes
        for words in [
            PROMPT.get(note.lang.split("-")[0], PROMPT["en"]).format(
                question=note.fields["question"],
                points=note.fields.get("points", ""),
                answer=answers.get(note.id, ""),
            )
        ]
    ]
    rater, marks = f"{MODEL}{judge.info.name}", []
    for prediction in judge.predict(asked):
        value = read_mark(prediction.text or text_of(prediction.answer), MOST)
        if value is not None:
            marks.append(Mark(id=prediction.id, rater=rater, mark=value))
    return marks, len(asked) - len(marks)


def scored(marks: Iterable[Mark], samples: int = 1000, seed: int = 0) -> tuple[Score, ...]:
    """Mean mark by people and by each model, 0 to 10, with intervals over items. Marks by a model
    never join those by people."""
    import numpy as np

    from residency.metrics import intervals

    by_kind: dict[str, list[Mark]] = {}
    for mark in marks:
        by_kind.setdefault(mark.rater if mark.rater.startswith(MODEL) else "people", []).append(
            mark
        )
    scores = []
    for kind in sorted(by_kind, key=lambda one: one != "people"):
        given = by_kind[kind]
        stats = np.array([[one.mark, 1] for one in given], dtype=float)
        groups = [one.id for one in given]
        value, low, high = intervals.bootstrap(
            stats, groups, lambda sums: sums[..., :1] / sums[..., 1:2], samples, seed
        )
        units = len(set(groups))
        known = units > 1 and samples > 0
        scores.append(
            Score(
                metric=f"mark/{kind}",
                value=float(value[0]),
                low=max(0.0, float(low[0])) if known else None,
                high=min(float(MOST), float(high[0])) if known else None,
                n=len(given),
                support=units,
                groups=units,
                procedure=intervals.procedure(units, samples, LEVEL),
                signature=f"{len({one.rater for one in given})} raters, 0 to {MOST}",
            )
        )
    return tuple(scores)
