"""A predictor on a part of the data -> a report: scores with intervals, slices, confusion and
errors, written answers."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from residency.core.files import canonical, digest
from residency.core.types import (
    AnswerItem,
    ErrorItem,
    Example,
    Prediction,
    Predictor,
    PredictorInfo,
    Report,
    Score,
)
from residency.evals.formats import MARKS
from residency.evals.label_screening import Screened, screen
from residency.metrics import choices, spans
from residency.tasks import scoring, written
from residency.tasks.card import MARKED, Card
from residency.tasks.codec import said

if TYPE_CHECKING:
    from residency.tasks.scoring import Array

MOST_ERRORS = 40
MOST_ANSWERS = 40
AROUND = 60
"""Characters shown on either side of an error."""
LEVEL = 0.95


@runtime_checkable
class KnowsLoss(Protocol):
    """A predictor that can say how probable the gold answers are."""

    def gold_losses(self, examples: Iterable[Example]) -> Iterator[tuple[float, int]]:
        """Per example the sum of -log p over the tokens of its gold answer, and how many they are;
        (0, 0) where unknown."""


def evaluate(
    predictor: Predictor,
    examples: Sequence[Example],
    card: Card,
    *,
    part: str = "test",
    bootstrap: int = 1000,
    seed: int = 0,
    show_text: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[Report, tuple[Prediction, ...]]:
    """Ask a predictor about all examples and score its answers.

    Of written answers, one that can is also asked how probable the gold answers are, which the
    predictions then carry. ``progress`` is called with the number of examples answered so far. The
    rest, and what is raised, as for ``score``.
    """
    scoring.check_metric(card)
    scoring.check_gold(examples, card)  # before an hour of prediction, not after
    predictions: list[Prediction] = []
    start = time.perf_counter()
    for prediction in predictor.predict(examples):
        predictions.append(prediction)
        if progress is not None:
            progress(len(predictions))
    seconds = time.perf_counter() - start
    if card.family == "answers" and isinstance(predictor, KnowsLoss):
        predictions = [
            msgspec.structs.replace(
                prediction, gold_loss=loss if tokens else None, gold_tokens=tokens
            )
            for prediction, (loss, tokens) in zip(
                predictions, predictor.gold_losses(examples), strict=True
            )
        ]
    report = score(
        examples,
        predictions,
        card,
        predictor.info,
        part=part,
        bootstrap=bootstrap,
        seed=seed,
        show_text=show_text,
        seconds=seconds,
    )
    return report, tuple(predictions)


def score(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    card: Card,
    info: PredictorInfo,
    *,
    part: str = "test",
    bootstrap: int = 1000,
    seed: int = 0,
    show_text: bool = False,
    seconds: float = 0.0,
) -> Report:
    """Score predictions against gold. Pure: equal input gives an equal report.

    ``bootstrap`` is the number of resamples behind the intervals (0: none). The unit that is
    resampled is the example's group, else its note, else the example. ``show_text`` lets errors
    carry the text around them, and answers their texts. Raises ``UserError`` for no examples,
    examples without gold or an unknown metric, ``ValueError`` for predictions that do not belong to
    the examples.
    """
    rows, columns = scoring.statistics(examples, predictions, card)
    groups = groups_of(examples)
    main = scoring.position_of_main(card, columns)
    scores = _scores(rows, columns, groups, card, bootstrap, seed)
    slices: dict[str, tuple[Score, ...]] = {}
    for name, positions in _slices(examples):
        chosen = [groups[position] for position in positions]
        one = _scores(rows[positions], columns, chosen, card, bootstrap, seed)[main]
        if one.n:
            slices[name] = (one,)
    answers = (
        _answers(examples, predictions, rows, columns, card, show_text)
        if card.family not in MARKED
        else ()
    )
    tests = (
        screen(examples, predictions, card, groups, bootstrap, seed, LEVEL)
        if card.family == "labels"
        else Screened()
    )
    return Report(
        system=info,
        task=card.name,
        part=part,
        data_digest=data_digest(examples),
        n=len(examples),
        groups=len(set(groups)),
        scores=tuple(one for one in scores if _occurs(one.metric, rows, columns, card)),
        slices=slices,
        confusion=_confusion(examples, predictions, card, scoring.labels_of_columns(card, columns)),
        errors=_spread(_errors(examples, predictions, card, show_text), MOST_ERRORS),
        failures=sum(prediction.answer is None for prediction in predictions),
        repaired=sum(
            prediction.answer is not None and bool(prediction.failure) for prediction in predictions
        ),
        answers=answers,
        references=dict(sorted(Counter(example.origin for example in examples).items()))
        if answers
        else {},
        screening=tests.labels,
        calibration=tests.bins,
        calibration_error=tests.error,
        seconds=seconds,
    )


def groups_of(examples: Iterable[Example]) -> list[str]:
    """The unit of resampling of each example: its patient, else its note, else itself."""
    return [example.group or example.note or example.id for example in examples]


def data_digest(examples: Iterable[Example]) -> str:
    """Hex SHA-256 over id, input and gold of the examples in their order."""
    running = hashlib.sha256()
    for example in examples:
        running.update(canonical((example.id, example.input, example.gold)) + b"\n")
    return running.hexdigest()


def _scores(
    rows: Array, columns: Sequence[str], groups: Sequence[str], card: Card, samples: int, seed: int
) -> list[Score]:
    """All metrics of the task in the order of ``scoring.metric_names``."""
    from residency.metrics import intervals
    from residency.metrics.intervals import bootstrap

    shares = [metric not in written.UNBOUNDED for metric in scoring.metric_names(card, columns)]
    value, low, high = bootstrap(
        rows, groups, scoring.statistic(card, columns), samples, seed, LEVEL, shares
    )
    units = len(set(groups))
    known, procedure = units > 1 and samples > 0, intervals.procedure(units, samples, LEVEL)
    basis, signatures = _basis(rows, columns, card), scoring.signatures(card, columns)
    return [
        Score(
            metric=metric,
            value=float(value[position]),
            low=float(low[position]) if known else None,
            high=float(high[position]) if known else None,
            n=basis[position][0],
            support=basis[position][1],
            groups=units,
            procedure=procedure,
            signature=signatures.get(metric, ""),
        )
        for position, metric in enumerate(scoring.metric_names(card, columns))
    ]


def _basis(rows: Array, columns: Sequence[str], card: Card) -> list[tuple[int, int]]:
    """Of each metric: on how many examples it was computed, and the gold items behind it."""
    metrics = scoring.metric_names(card, columns)
    if card.family == "answers":
        return [written.covered(metric, columns, rows) for metric in metrics]
    if not scoring.by_label(card):
        return [(len(rows), 0) for _ in metrics]
    support = _supports(rows, columns, card)
    whole = sum(support.values())
    labels = [metric.partition("/")[2] for metric in metrics]
    return [(len(rows), support.get(label, 0) if label else whole) for label in labels]


def _supports(rows: Array, columns: Sequence[str], card: Card) -> dict[str, int]:
    """Label -> gold items."""
    labels = scoring.labels_of_columns(card, columns)
    table = rows[:, : 3 * len(labels)].sum(axis=0).reshape(-1, 3)
    return {label: int(tp + fn) for label, (tp, _, fn) in zip(labels, table.tolist(), strict=True)}


def _occurs(metric: str, rows: Array, columns: Sequence[str], card: Card) -> bool:
    """Whether a metric is about something that gold or predictions hold: labels of the card that do
    not are left out."""
    _, slash, label = metric.partition("/")
    if not slash:
        return True
    start = 3 * scoring.labels_of_columns(card, columns).index(label)
    return bool(rows[:, start : start + 3].any())


def _slices(examples: Sequence[Example]) -> Iterator[tuple[str, list[int]]]:
    """Name and positions of each slice; a dimension with one value is no slice."""
    middle = median(len(example.input) for example in examples)
    length = {True: f"up to {middle:g} characters", False: f"over {middle:g} characters"}
    dimensions = {
        "lang": [example.lang for example in examples],
        "kind": [example.kind for example in examples],
        "department": [example.department for example in examples],
        "length": [length[len(example.input) <= middle] for example in examples],
    }
    for dimension, values in dimensions.items():
        found: defaultdict[str, list[int]] = defaultdict(list)
        for position, value in enumerate(values):
            found[value or "unknown"].append(position)
        if len(found) > 1:
            for value in sorted(found):
                yield f"{dimension}={value}", found[value]


def _confusion(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    card: Card,
    labels: Sequence[str],
) -> dict[str, dict[str, int]]:
    """Counts over all examples, only cells that are not 0; rows and columns in the order of the
    labels, ``-`` last.

    Only of families that mark or choose."""
    if card.family not in MARKED:
        return {}
    cells: Counter[tuple[str, str]] = Counter()
    for example, prediction in zip(examples, predictions, strict=True):
        if card.family == "spans":
            one = spans.confusion(
                scoring.spans_of(example.gold), scoring.spans_of(prediction.answer)
            )
            for row, columns in one.items():
                for column, count in columns.items():
                    cells[row, column] += count
        else:
            cells.update(
                choices.pairs(
                    scoring.labels_in(example.gold, card),
                    scoring.labels_in(prediction.answer, card),
                )
            )
    order = [*labels, spans.NOTHING]
    table = {
        row: {column: cells[row, column] for column in order if cells[row, column]} for row in order
    }
    return {row: columns for row, columns in table.items() if columns}


def _errors(
    examples: Sequence[Example], predictions: Sequence[Prediction], card: Card, show_text: bool
) -> Iterator[ErrorItem]:
    for example, prediction in zip(examples, predictions, strict=True):
        if card.family == "spans":
            yield from _span_errors(example, prediction, show_text)
        elif card.family == "labels":
            yield from _label_errors(example, prediction, card, show_text)


def _span_errors(example: Example, prediction: Prediction, show_text: bool) -> Iterator[ErrorItem]:
    for error in spans.errors(scoring.spans_of(example.gold), scoring.spans_of(prediction.answer)):
        sides = [span for span in (error.gold, error.predicted) if span is not None]
        start, end = min(span.start for span in sides), max(span.end for span in sides)
        yield ErrorItem(
            example=example.id,
            kind=error.kind,
            gold=error.gold.label if error.gold else "",
            predicted=error.predicted.label if error.predicted else "",
            start=start,
            end=end,
            text=window(example.input, start, end) if show_text else "",
        )


def _label_errors(
    example: Example, prediction: Prediction, card: Card, show_text: bool
) -> Iterator[ErrorItem]:
    """Errors about the whole input, so they carry no offsets and show its beginning."""
    text = "".join(_around(example.input, 0, AROUND)).strip() if show_text else ""
    for gold, predicted in choices.pairs(
        scoring.labels_in(example.gold, card), scoring.labels_in(prediction.answer, card)
    ):
        if gold == predicted:
            continue
        kind = (
            "missed"
            if predicted == spans.NOTHING
            else "invented"
            if gold == spans.NOTHING
            else "type"
        )
        yield ErrorItem(
            example=example.id,
            kind=kind,
            gold="" if kind == "invented" else gold,
            predicted="" if kind == "missed" else predicted,
            text=text,
        )


def _answers(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    rows: Array,
    columns: Sequence[str],
    card: Card,
    show_text: bool,
) -> tuple[AnswerItem, ...]:
    """Written answers with their own main metric: an arbitrary choice that depends on the examples'
    ids alone, so that it is the same for every system, and that is in such an order that its first
    few are an arbitrary choice too."""
    values = scoring.statistic(card, columns)(rows)[:, scoring.position_of_main(card, columns)]
    chosen = sorted(range(len(examples)), key=lambda position: digest(examples[position].id))[
        :MOST_ANSWERS
    ]
    return tuple(
        AnswerItem(
            example=examples[position].id,
            input=examples[position].input if show_text else "",
            gold=said(examples[position].gold, card) if show_text else "",
            answer=said(predictions[position].answer, card) if show_text else "",
            failure=predictions[position].failure or "",
            score=float(values[position]),
        )
        for position in chosen
    )


def window(text: str, start: int, end: int) -> str:
    """A stretch, marked ``⟦so⟧`` for the report, with the text around it; such signs of the text's
    own become ``|``."""
    own = re.compile(f"[{MARKS[0]}{MARKS[1]}]")
    before, inside, after = (own.sub("|", part) for part in _around(text, start, end))
    return f"{before}{MARKS[0]}{inside}{MARKS[1]}{after}".strip()


def _around(text: str, start: int, end: int) -> tuple[str, str, str]:
    """Up to ``AROUND`` characters before a stretch, the stretch, as much after it; cut at blanks
    where there are any."""
    low, high = max(0, start - AROUND), min(len(text), end + AROUND)
    before, after = text[low:start], text[end:high]
    if low > 0 and not text[low - 1].isspace():
        cut = next(
            (position for position, character in enumerate(before) if character.isspace()), -1
        )
        before = before[cut + 1 :]
    if high < len(text) and not text[high].isspace():
        cut = next(
            (position for position in reversed(range(len(after))) if after[position].isspace()),
            len(after),
        )
        after = after[:cut]
    return before, text[start:end], after


def _spread(errors: Iterable[ErrorItem], most: int) -> tuple[ErrorItem, ...]:
    """At most ``most`` errors, the kinds taken in turn; within a kind an arbitrary but fixed choice
    (by hash), so that neither the first examples nor the commonest kind fill the list. Returned by
    kind, then example and position."""
    by_kind: defaultdict[str, list[tuple[str, ErrorItem]]] = defaultdict(list)
    for error in errors:
        key = digest(
            (error.example, error.kind, error.gold, error.predicted, error.start, error.end)
        )
        by_kind[error.kind].append((key, error))
    queues = {
        kind: [error for _, error in sorted(by_kind[kind], key=lambda one: one[0])]
        for kind in sorted(by_kind)
    }
    turns = [
        (turn, kind, error)
        for kind, queue in queues.items()
        for turn, error in enumerate(queue[:most])
    ]
    chosen = [error for _, _, error in sorted(turns, key=lambda one: one[:2])[:most]]
    return tuple(
        sorted(chosen, key=lambda error: (error.kind, error.example, error.start, error.end))
    )
