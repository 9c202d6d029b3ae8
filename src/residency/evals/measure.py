"""A predictor on a part of the data -> a report: scores with intervals, slices, confusion and
errors, written answers."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
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
from residency.evals import reliability
from residency.evals.formats import MARKS
from residency.evals.label_screening import screen
from residency.metrics import intervals
from residency.metrics.spans import NOTHING
from residency.tasks import scoring
from residency.tasks.card import Card
from residency.tasks.codec import in_words
from residency.tasks.families import Tally, of

if TYPE_CHECKING:
    from residency.tasks.families import Array

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
    metrics: Sequence[str] = (),
    prevalence: Mapping[str, float] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Report, tuple[Prediction, ...]]:
    """Ask a predictor about all examples and score its answers.

    Of written answers, one that can is also asked how probable the gold answers are, which the
    predictions then carry. ``progress`` is called with the number of examples answered so far. The
    rest, and what is raised, as for ``score``.
    """
    of(card).check_metric(card)
    scoring.check_gold(examples, card)  # before an hour of prediction, not after
    predictions: list[Prediction] = []
    start = time.perf_counter()
    for prediction in predictor.predict(examples):
        predictions.append(prediction)
        if progress is not None:
            progress(len(predictions))
    seconds = time.perf_counter() - start
    if of(card).asks_loss and isinstance(predictor, KnowsLoss):
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
        metrics=metrics,
        prevalence=prevalence,
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
    metrics: Sequence[str] = (),
    prevalence: Mapping[str, float] | None = None,
    seconds: float = 0.0,
) -> Report:
    """Score predictions against gold. Pure: equal input gives an equal report.

    ``bootstrap``: resamples of groups (``groups_of``) behind the intervals, 0 for none;
    ``show_text`` lets errors and answers carry texts; ``metrics`` of written answers come beside
    the usual ones; ``prevalence``: see ``screen``. Raises ``UserError`` for no examples, examples
    without gold or an unknown metric, ``ValueError`` for predictions of other examples.
    """
    scoring.check_gold(examples, card)
    scoring.check_aligned(examples, predictions)
    family = of(card)
    wanted = tuple(dict.fromkeys((*usual, *metrics))) if (usual := family.metrics(card)) else ()
    tally = family.tally(examples, predictions, card, metrics=wanted)
    groups, main = groups_of(examples), family.position(card.main_metric, tally, card)
    found, shares = dict[str, list[Score]](), [one not in tally.unbounded for one in tally.metrics]
    for name, positions in (("", [*range(len(examples))]), *_slices(examples)):
        rows, units = tally.rows[positions], [groups[position] for position in positions]
        figures = intervals.bootstrap(rows, units, tally.statistic, bootstrap, seed, LEVEL, shares)
        found[name] = _scores(tally, rows, len(set(units)), bootstrap, figures)
    scores = found.pop("")
    sure = reliability.said(examples, predictions, card, groups)
    raw = reliability.said(examples, predictions, card, groups, calibrated=False)
    now, before = (reliability.curve(each, bootstrap, seed, LEVEL) for each in (sure, raw))
    origins = Counter(() if family.marks_shown else (each.origin for each in examples))
    return Report(
        system=info,
        task=card.name,
        part=part,
        data_digest=data_digest(examples),
        n=len(examples),
        groups=len(set(groups)),
        scores=tuple(one for one in scores if one.n or one.support or "/" not in one.metric),
        slices={name: (one[main],) for name, one in found.items()},
        confusion=_confusion(examples, predictions, card, tally.labels),
        errors=_spread(_errors(examples, predictions, card, show_text), MOST_ERRORS),
        failures=sum(one.answer is None for one in predictions),
        repaired=sum(one.answer is not None and bool(one.failure) for one in predictions),
        answers=_answers(examples, predictions, tally, main, card, show_text),
        references=dict(sorted(origins.items())),
        screening=screen(examples, predictions, card, groups, LEVEL, prevalence),
        calibration=now[0],
        calibration_error=now[1],
        uncalibrated=before[0],
        uncalibrated_error=before[1],
        abstention=reliability.abstention(sure, info.calibration, LEVEL),
        seconds=seconds,
    )


ENDS = {"bleu": (0, 100), "chrf": (0, 100), "loss": (0, inf), "perplexity": (1, inf)}
"""Where metrics end that are no shares."""


def _on_scale(bound: Array, metrics: Sequence[str]) -> Array:
    """Bounds of intervals, none beyond the end of its metric's scale."""
    import numpy as np

    ends = np.array([ENDS.get(metric, (-inf, inf)) for metric in metrics], dtype=float)
    return np.clip(bound, ends[:, 0], ends[:, 1]) if len(metrics) else bound


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
    tally: Tally, rows: Array, units: int, samples: int, figures: Sequence[Array]
) -> list[Score]:
    """All metrics of a tally on some of its rows, from their values and bounds (``figures``); one
    that applies to none of the rows has no value."""
    value, *bounds = figures
    figures = [value, *(_on_scale(bound, tally.metrics) for bound in bounds)]
    known, how = units > 1 and samples > 0, intervals.procedure(units, samples, LEVEL)
    return [
        Score(
            metric=metric,
            value=float(value) if basis.n else None,
            low=float(low) if known and basis.n else None,
            high=float(high) if known and basis.n else None,
            n=basis.n,
            support=basis.support,
            groups=units,
            procedure=how,
            signature=tally.signatures.get(metric, ""),
        )
        for metric, basis, value, low, high in zip(
            tally.metrics, tally.basis(rows), *figures, strict=True
        )
    ]


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
    labels, ``-`` last."""
    family, cells = of(card), Counter[tuple[str, str]]()
    for example, prediction in zip(examples, predictions, strict=True):
        cells.update(family.confused(example.gold, prediction.answer, card))
    order = [*labels, NOTHING]
    table = {
        row: {column: cells[row, column] for column in order if cells[row, column]} for row in order
    }
    return {row: columns for row, columns in table.items() if columns}


def _errors(
    examples: Sequence[Example], predictions: Sequence[Prediction], card: Card, show_text: bool
) -> Iterator[ErrorItem]:
    """Errors about the whole input carry no offsets and show its beginning."""
    family = of(card)
    for example, prediction in zip(examples, predictions, strict=True):
        for error in family.errors(example, prediction, card):
            text = window(example.input, error.start, error.end) if show_text else ""
            yield msgspec.structs.replace(error, text=text)


def _answers(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    tally: Tally,
    main: int,
    card: Card,
    show_text: bool,
) -> tuple[AnswerItem, ...]:
    """Written answers with their own main metric: an arbitrary choice that depends on the examples'
    ids alone, so that it is the same for every system, and that is in such an order that its first
    few are an arbitrary choice too. None of families whose errors are shown instead."""
    if of(card).marks_shown:
        return ()
    values = [
        float(value) if tally.basis(tally.rows[[at]])[main].n else None
        for at, value in enumerate(tally.statistic(tally.rows)[:, main])
    ]
    chosen = sorted(range(len(examples)), key=lambda position: digest(examples[position].id))[
        :MOST_ANSWERS
    ]
    return tuple(
        AnswerItem(
            example=examples[position].id,
            input=examples[position].input if show_text else "",
            gold=in_words(examples[position].gold, card) if show_text else "",
            answer=in_words(predictions[position].answer, card) if show_text else "",
            failure=predictions[position].failure or "",
            score=values[position],
        )
        for position in chosen
    )


def window(text: str, start: int, end: int) -> str:
    """A stretch, marked ``⟦so⟧`` for the report, with the text around it; such signs of the text's
    own become ``|``. Only the beginning of the text where the stretch is empty."""
    if not end:
        return "".join(_around(text, 0, AROUND)).strip()
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
