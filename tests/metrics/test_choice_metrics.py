"""Metrics of chosen labels against hand-computed cases and scikit-learn."""

from __future__ import annotations

import random

import pytest

from residency.metrics import choices, counts
from residency.metrics.counts import Counts

Choices = list[tuple[str]] | list[tuple[str, ...]]
LABELS = ["cardiology", "neurology", "oncology", "other"]


def one_label(seed: int, size: int = 300) -> tuple[list[tuple[str]], list[tuple[str]]]:
    source = random.Random(seed)
    gold = [(source.choices(LABELS, weights=(8, 4, 2, 1))[0],) for _ in range(size)]
    return gold, [one if source.random() < 0.6 else (source.choice(LABELS),) for one in gold]


def many_labels(seed: int, size: int = 300) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    source = random.Random(seed)

    def some(share: float) -> tuple[str, ...]:
        return tuple(label for label in LABELS if source.random() < share)

    gold = [some(0.4) for _ in range(size)]
    return gold, [one if source.random() < 0.4 else some(0.3) for one in gold]


def f1(average: str, gold: Choices, predicted: Choices) -> float:
    table = counts.table(choices.count(gold, predicted))
    if average == "micro":
        return float(counts.f1(table.sum(axis=0)))
    return float(getattr(counts, f"{average}_f1")(table, counts.f1(table)))


def test_hand_computed_single_label() -> None:
    gold, predicted = [("a",), ("a",), ("b",), ("b",)], [("a",), ("b",), ("b",), ()]
    assert choices.count(gold, predicted) == {
        "a": Counts(tp=1, fn=1),
        "b": Counts(tp=1, fp=1, fn=1),
    }
    assert f1("macro", gold, predicted) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert f1("micro", gold, predicted) == pytest.approx(
        4 / 7
    )  # an item without answer is missed, not invented


def test_nothing_to_score_is_zero() -> None:
    assert f1("macro", [], []) == f1("micro", [()], [()]) == 0.0


def test_an_invented_label_does_not_join_the_macro_average_but_does_in_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    gold, predicted = [("a",), ("a",), ("b",)], [("a",), ("z",), ("b",)]
    assert f1("macro", gold, predicted) == pytest.approx((2 / 3 + 1) / 2)
    theirs = f1_score(
        [g for (g,) in gold], [p for (p,) in predicted], average="macro", zero_division=0
    )
    assert theirs == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        choices.count([("a",)], [])


@pytest.mark.parametrize("seed", range(4))
def test_single_label_agrees_with_scikit_learn(seed: int) -> None:
    from sklearn.metrics import f1_score, precision_recall_fscore_support

    gold, predicted = one_label(seed)
    flat_gold, flat_predicted = [g for (g,) in gold], [p for (p,) in predicted]
    for name in ("micro", "macro", "weighted"):
        ours = f1(name, gold, predicted)
        assert ours == pytest.approx(f1_score(flat_gold, flat_predicted, average=name))
    table = precision_recall_fscore_support(flat_gold, flat_predicted, labels=LABELS)
    counts = choices.count(gold, predicted)
    for position, label in enumerate(LABELS):
        assert counts[label].precision == pytest.approx(table[0][position])
        assert counts[label].recall == pytest.approx(table[1][position])
        assert counts[label].f1 == pytest.approx(table[2][position])


@pytest.mark.parametrize("seed", range(4))
def test_multi_label_agrees_with_scikit_learn(seed: int) -> None:
    from sklearn.metrics import f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    gold, predicted = many_labels(seed)
    binary = MultiLabelBinarizer(classes=LABELS)
    one, other = binary.fit_transform(gold), binary.fit_transform(predicted)
    for name in ("micro", "macro", "weighted"):
        ours = f1(name, gold, predicted)
        assert ours == pytest.approx(f1_score(one, other, average=name, zero_division=0))


def test_one_label_taken_for_one_other_is_a_pair_and_all_else_stands_alone() -> None:
    assert choices.pairs(("a", "b"), ("a", "c")) == [("a", "a"), ("b", "c")]
    assert choices.pairs(("a",), ()) == [("a", "-")]
    assert choices.pairs(("a", "b"), ("c",)) == [("a", "-"), ("b", "-"), ("-", "c")]
