"""How a task is scored: the counts that each example adds, and the metrics that are made of their
sum.

Everything later (intervals, slices, paired tests) resamples or regroups these counts, so a metric
is defined once. An answer that is None counts as wrong: all its gold items are missed, and it is
never an exact match. Those of written answers are in ``written``, those of reports and trees in
``structured``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from residency.core.errors import UserError, allowed
from residency.core.types import Answer, Example, Facts, Labels, Prediction, Span, Spans, Text, Tree
from residency.metrics import choices, spans
from residency.metrics import counts as arrays
from residency.metrics.counts import Counts
from residency.tasks import structured, written
from residency.tasks.card import FACTS, Card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Statistic = Callable[[Array], Array]

COUNTS = ("tp", "fp", "fn")
_TAIL = {
    "spans": ("relaxed_tp", "relaxed_fp", "relaxed_fn"),
    "labels": ("correct", "examples"),
    **dict.fromkeys(FACTS, ("correct", "examples")),
}
"""Families that are counted by label, and what is counted over all labels."""
_ANSWERS: dict[str, type] = {
    "spans": Spans,
    "labels": Labels,
    "answers": Text,
    "sections": Facts,
    "tree": Tree,
    **dict.fromkeys(FACTS, Facts),
}
_LABEL_AT = {"mentions": 0, "triples": 0, "causes": 0, "attributes": 1, "cited": 0}
"""Which field of a fact is its label; of the others, all facts count as one label."""
FACT = "facts"
"""The label of facts that have none."""


def by_label(card: Card) -> bool:
    """Whether a task is counted by label."""
    return card.family in _TAIL


def falls(metric: str) -> bool:
    """Whether the lower value of a metric is the better one."""
    return metric in written.LOSSES


def main_metric(
    examples: Sequence[Example], predictions: Sequence[Prediction], card: Card
) -> float:
    """The card's main metric, without an interval: what early stopping looks at.

    Raises ``UserError`` for no examples, examples without gold or an unknown metric, ``ValueError``
    for predictions that do not belong to the examples.
    """
    rows, columns = statistics(examples, predictions, card, metrics=[card.main_metric])
    position = position_of_main(card, columns)
    return float(statistic(card, columns)(rows.sum(axis=0))[position])


def statistics(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    card: Card,
    labels: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> tuple[Array, tuple[str, ...]]:
    """What each example adds to the counts: ([examples, columns], names of the columns).

    Columns: tp, fp, fn for each label (strict for spans), then relaxed tp, fp, fn over all labels
    (spans) or whether the whole answer is right, and 1 (labels). The labels are ``labels`` if given
    (they must hold all that occur), else the card's and then others found. Of written answers see
    ``written.statistics``; there ``metrics`` says which are wanted, where not all are. Raises as
    ``main_metric``.
    """
    import numpy as np

    check_gold(examples, card)
    check_aligned(examples, predictions)
    if card.family == "answers":
        return written.statistics(examples, predictions, card.language, metrics)
    if not by_label(card):
        return structured.statistics(card.family, examples, predictions)
    names = tuple(labels) or labels_of(card, examples, predictions)
    offset = {label: 3 * position for position, label in enumerate(names)}
    columns = tuple(f"{label}/{count}" for label in names for count in COUNTS) + _TAIL[card.family]
    rows = np.zeros((len(examples), len(columns)))
    for row, example, prediction in zip(rows, examples, predictions, strict=True):
        if card.family == "spans":
            gold, predicted = spans_of(example.gold), spans_of(prediction.answer)
            counts = spans.count(gold, predicted, "strict")
            relaxed = spans.count(gold, predicted, "relaxed").values()
            row[-3:] = [
                sum(c.tp for c in relaxed),
                sum(c.fp for c in relaxed),
                sum(c.fn for c in relaxed),
            ]
        elif card.family in FACTS:
            wanted, said = facts_of(example.gold), facts_of(prediction.answer)
            counts = _facts_counted(wanted, said, card)
            row[-2:] = [prediction.answer is not None and wanted == said, 1]
        else:
            chosen, answered = labels_in(example.gold, card), labels_in(prediction.answer, card)
            counts = choices.count([chosen], [answered])
            row[-2:] = [prediction.answer is not None and set(chosen) == set(answered), 1]
        for label, count in counts.items():
            start = offset[label]
            row[start : start + 3] = (count.tp, count.fp, count.fn)
    return rows, columns


def statistic(card: Card, columns: Sequence[str]) -> Statistic:
    """The function from summed counts [..., columns] to metrics [..., len(metric_names)]."""
    import numpy as np

    if card.family == "answers":
        return written.statistic(columns)
    if not by_label(card):
        return structured.statistic(card.family)
    labels, tail = len(labels_of_columns(card, columns)), len(_TAIL[card.family])

    def measure(sums: Array) -> Array:
        table = sums[..., : 3 * labels].reshape(*sums.shape[:-1], labels, 3)
        end, pooled = sums[..., -tail:], table.sum(axis=-2)
        if card.family == "spans":
            overall = [
                arrays.f1(pooled),
                arrays.precision(pooled),
                arrays.recall(pooled),
                arrays.f1(end),
                arrays.macro_f1(table),
            ]
        else:
            overall = [
                arrays.ratio(end[..., 0], end[..., 1]),
                arrays.macro_f1(table),
                arrays.micro_f1(table),
                arrays.weighted_f1(table),
            ]
        per_label = [arrays.f1(table), arrays.precision(table), arrays.recall(table)]
        return np.concatenate([np.stack(overall, axis=-1), *per_label], axis=-1)

    return measure


def metric_names(card: Card, columns: Sequence[str]) -> tuple[str, ...]:
    """Names of what ``statistic`` gives, in its order; a label's own metrics end in ``/<label>``.

    Macro averages are over the labels that occur in gold (scikit-learn and seqeval also take labels
    only predicted).
    """
    if card.family == "answers":
        return written.metric_names(columns)
    if not by_label(card):
        return structured.METRICS[card.family]
    labels = labels_of_columns(card, columns)
    if card.family == "spans":
        overall: tuple[str, ...] = (
            "span_f1",
            "span_precision",
            "span_recall",
            "span_f1_relaxed",
            "span_f1_macro",
        )
        kinds = ("span_f1", "span_precision", "span_recall")
    else:
        overall = (
            "accuracy" if card.family == "labels" and not card.multiple else "exact_match",
            "macro_f1",
            "micro_f1",
            "weighted_f1",
        )
        kinds = ("f1", "precision", "recall")
    return overall + tuple(f"{kind}/{label}" for kind in kinds for label in labels)


def position_of_main(card: Card, columns: Sequence[str]) -> int:
    """Where the card's main metric is among ``metric_names``; raises ``UserError`` where the task
    has no such metric."""
    check_metric(card)
    names, main = metric_names(card, columns), card.main_metric
    if main in names:
        return names.index(main)
    if card.family == "answers":
        raise UserError(
            f"card {card.name}: metric: {main!r} needs the probability of the reference answers, "
            "which this system does not "
            "give; name another metric."
        )
    raise _unknown(card, names)


def check_metric(card: Card) -> None:
    """Raises ``UserError`` for a metric that written answers do not have; those of other families
    hang on the labels."""
    if card.family == "answers" and card.main_metric not in written.METRICS:
        raise _unknown(card, written.METRICS)


def _unknown(card: Card, names: Sequence[str]) -> UserError:
    main = card.main_metric
    return UserError(f"card {card.name}: metric: {main!r} is not known; {allowed(names, main)}.")


def signatures(card: Card, columns: Sequence[str]) -> dict[str, str]:
    """Metric -> how it was computed, for those where that is not one thing."""
    return written.signatures(columns) if card.family == "answers" else {}


def labels_of_columns(card: Card, columns: Sequence[str]) -> tuple[str, ...]:
    """The labels behind the columns of ``statistics``, in their order; none of written answers."""
    if not by_label(card):
        return ()
    return tuple(name.removesuffix("/tp") for name in columns[: -len(_TAIL[card.family]) : 3])


def labels_of(
    card: Card, examples: Sequence[Example], *answered: Sequence[Prediction]
) -> tuple[str, ...]:
    """The card's labels in its order, then any others that gold or predictions hold,
    alphabetically."""
    found = {label for example in examples for label in items(example.gold, card)}
    found.update(
        label
        for predictions in answered
        for prediction in predictions
        for label in items(prediction.answer, card)
    )
    if card.family in FACTS and card.family not in _LABEL_AT:
        return (FACT,)
    return card.names + tuple(sorted(found.difference(card.names)))


def items(answer: Answer | None, card: Card) -> Iterator[str]:
    """The labels of an answer's spans, choices or facts, repeated as they occur."""
    if isinstance(answer, Spans):
        yield from (span.label for span in answer.spans)
    elif isinstance(answer, Labels):
        yield from map(card.canonical, answer.labels)
    elif isinstance(answer, Facts):
        yield from (_label(fact, card) for fact in answer.facts)


def _label(fact: tuple[str, ...], card: Card) -> str:
    at = _LABEL_AT.get(card.family)
    return FACT if at is None else fact[at]


def _facts_counted(
    gold: set[tuple[str, ...]], said: set[tuple[str, ...]], card: Card
) -> dict[str, Counts]:
    """Counts per label of two sets of facts."""
    counts: dict[str, Counts] = {}
    for facts, one in (
        (gold & said, Counts(tp=1)),
        (said - gold, Counts(fp=1)),
        (gold - said, Counts(fn=1)),
    ):
        for fact in facts:
            label = _label(fact, card)
            counts[label] = counts.get(label, Counts()) + one
    return counts


def facts_of(answer: Answer | None) -> set[tuple[str, ...]]:
    """The facts of an answer, none for no answer."""
    if answer is None:
        return set()
    if not isinstance(answer, Facts):
        raise ValueError(f"a task of facts got an answer of type {type(answer).__name__}")
    return set(answer.facts)


def spans_of(answer: Answer | None) -> tuple[Span, ...]:
    """The spans of an answer, none for no answer."""
    if answer is None:
        return ()
    if not isinstance(answer, Spans):
        raise ValueError(f"a task of family spans got an answer of type {type(answer).__name__}")
    return answer.spans


def labels_in(answer: Answer | None, card: Card) -> tuple[str, ...]:
    """The chosen labels of an answer by their own names, none for no answer."""
    if answer is None:
        return ()
    if not isinstance(answer, Labels):
        raise ValueError(f"a task of family labels got an answer of type {type(answer).__name__}")
    return tuple(map(card.canonical, answer.labels))


def check_gold(examples: Sequence[Example], card: Card) -> None:
    """Raises ``UserError`` where there is nothing to score, or gold is missing or of another
    family."""
    if not examples:
        raise UserError(
            f"task {card.name}: there are no examples to evaluate; check the split, or give a part "
            "that has some."
        )
    wanted = _ANSWERS[card.family]
    without = [example.id for example in examples if example.gold is None]
    if without:
        raise UserError(
            f"task {card.name}: evaluation needs gold answers; {len(without)} of {len(examples)} "
            "examples have none "
            f"(the first is {without[0]}); label them, or use predict."
        )
    other = next((example for example in examples if not isinstance(example.gold, wanted)), None)
    if other is not None:
        raise UserError(
            f"task {card.name}: the gold answer of example {other.id} is of type "
            f"{type(other.gold).__name__}, but the "
            f"card's family is {card.family}; use a card of the family of the data."
        )


def check_aligned(examples: Sequence[Example], predictions: Sequence[Prediction]) -> None:
    """Raises ``ValueError`` unless there is one prediction per example, in the same order (a fault
    of the program)."""
    if len(examples) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(examples)} examples")
    for number, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
        if example.id != prediction.id:
            raise ValueError(
                f"prediction {number} is for example {prediction.id}, expected {example.id}"
            )
