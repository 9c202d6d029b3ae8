"""Families whose answers are counted by label: true positives, false positives, false negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from residency.core.types import Answer, Example, Prediction
from residency.metrics import counts as arrays
from residency.metrics.counts import Counts
from residency.tasks.families import Basis, Family, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from residency.tasks.card import Card

    Array = NDArray[np.float64]


class ByLabel(Family):
    """A family of which each label's items are right, invented or missed.

    A row holds tp, fp and fn of each label, then what is counted over all labels: here whether the
    whole answer is right, and 1.
    """

    kinds: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall")
    """What F1, precision and recall are called."""
    always: ClassVar[tuple[str, ...]] = ("accuracy", "exact_match")
    """Metrics that apply where neither gold nor prediction holds an item, too."""

    def overall(self, card: Card) -> tuple[str, ...]:
        """The metrics over all labels."""
        return ("exact_match", "macro_f1", "micro_f1", "weighted_f1")

    def measure(self, table: Array, end: Array, each: Array) -> list[Array]:
        """Their values, of the counts by label [..., labels, 3], of what was counted over all, and
        of the F1 of each label."""
        return [
            arrays.ratio(end[..., 0], end[..., 1]),
            arrays.macro_f1(table, each),
            arrays.f1(table.sum(axis=-2)),
            arrays.weighted_f1(table, each),
        ]

    def count(
        self, gold: Answer | None, said: Answer | None, card: Card
    ) -> tuple[dict[str, Counts], tuple[float, ...]]:
        """The counts of one answer by label, and what is counted over all labels."""
        raise NotImplementedError

    def occurring(
        self, card: Card, examples: Sequence[Example], *answered: Sequence[Prediction]
    ) -> tuple[str, ...]:
        """The card's labels in its order, then any others that gold or predictions hold,
        alphabetically."""
        answers = [
            *(example.gold for example in examples),
            *(prediction.answer for predictions in answered for prediction in predictions),
        ]
        found = {label for answer in answers for label in self.labels(answer, card)}
        return card.names + tuple(sorted(found.difference(card.names)))

    def tally(
        self,
        examples: Sequence[Example],
        predictions: Sequence[Prediction],
        card: Card,
        *,
        labels: Sequence[str] = (),
        metrics: Sequence[str] = (),
    ) -> Tally:
        """Macro averages are over the labels that occur in gold (scikit-learn and seqeval also take
        labels only predicted)."""
        names = tuple(labels) or self.occurring(card, examples, predictions)
        offset = {label: 3 * position for position, label in enumerate(names)}
        counted = [
            self.count(example.gold, prediction.answer, card)
            for example, prediction in zip(examples, predictions, strict=True)
        ]
        size = 3 * len(names)
        rows = np.zeros((len(counted), size + len(counted[0][1])))
        for row, (counts, end) in zip(rows, counted, strict=True):
            row[size:] = end
            for label, count in counts.items():
                row[offset[label] : offset[label] + 3] = (count.tp, count.fp, count.fn)

        def statistic(sums: Array) -> Array:
            table = sums[..., :size].reshape(*sums.shape[:-1], len(names), 3)
            each = arrays.f1(table)
            own = np.stack(self.measure(table, sums[..., size:], each), axis=-1)
            by_label = each, arrays.precision(table), arrays.recall(table)
            return np.concatenate([own, *by_label], axis=-1)

        overall = self.overall(card)
        return Tally(
            rows=rows,
            metrics=overall + tuple(f"{kind}/{label}" for kind in self.kinds for label in names),
            statistic=statistic,
            basis=lambda some: self._basis(some[:, :size], overall),
            labels=names,
        )

    def _basis(self, rows: Array, overall: Sequence[str]) -> list[Basis]:
        """Precision needs something that was said; recall and means over the labels of gold, gold;
        F1 either. Where that is missing a metric has no value, which is not 0."""
        tp, fp, fn = rows.sum(axis=0).reshape(-1, 3).T
        needed = (tp + fp + fn, tp + fp, tp + fn)

        def place(metric: str) -> int:
            ends = {"precision": 1, "recall": 2, "macro": 2, "weighted": 2}
            return next((at for word, at in ends.items() if word in metric), 0)

        each = [
            Basis(len(rows) if some else 0, int(gold))
            for counted in needed
            for some, gold in zip(counted, tp + fn, strict=True)
        ]
        whole = [len(rows) if counted.sum() else 0 for counted in needed]
        support = int((tp + fn).sum())
        return [
            *(Basis(len(rows) if m in self.always else whole[place(m)], support) for m in overall),
            *each,
        ]
