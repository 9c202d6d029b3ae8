"""Paired comparison of two systems."""

from __future__ import annotations

import random

import pytest

from residency.core.types import Example, Prediction, PredictorInfo, Span, Spans
from residency.evals.paired_tests import compare, corrected
from residency.tasks.card import Card
from residency.tasks.scoring import main_metric

NER = Card(name="ner", family="spans")
BASE, TUNED = (
    PredictorInfo(name="base", base="m"),
    PredictorInfo(name="tuned", base="m", method="lora"),
)


def system(
    examples: list[Example], right: float, seed: int, wrong: str = "other"
) -> list[Prediction]:
    """Finds each span with probability ``right``, else calls it something that gold does not hold."""
    source = random.Random(seed)
    return [
        Prediction(
            id=one.id,
            answer=Spans(
                spans=(Span(start=0, end=3, label="drug" if source.random() < right else wrong),)
            ),
        )
        for one in examples
    ]


def data(size: int, groups: int) -> list[Example]:
    gold = Spans(spans=(Span(start=0, end=3, label="drug"),))
    return [
        Example(id=str(i), task="t", input="abc", gold=gold, group=f"p{i % groups}")
        for i in range(size)
    ]


def test_difference_is_b_minus_a_of_the_main_metric_with_interval_and_p() -> None:
    examples = data(200, 50)
    a, b = (
        system(examples, 0.5, 1),
        system(examples, 0.8, 2, wrong="another"),
    )  # labels that the other never used
    (found,) = compare(examples, (BASE, a), (TUNED, b), NER, samples=500)
    assert (found.metric, found.a, found.b) == ("span_f1", "base", "tuned")
    assert found.difference == pytest.approx(
        main_metric(examples, b, NER) - main_metric(examples, a, NER)
    )
    assert 0 < found.low < found.difference < found.high
    assert found.p == pytest.approx(1 / 501)
    assert (
        found.procedure
        == "paired bootstrap over groups, 500 samples, 95%; approximate randomisation over groups, "
        "p at least 0.002"
    )


def test_a_system_against_itself_differs_by_nothing() -> None:
    examples = data(40, 20)
    a = system(examples, 0.5, 1)
    (found,) = compare(examples, (BASE, a), (TUNED, a), NER, samples=200)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_one_patient_allows_no_test() -> None:
    examples = data(40, 1)
    assert (
        compare(examples, (BASE, system(examples, 0.5, 1)), (TUNED, system(examples, 0.9, 1)), NER)
        == ()
    )


def test_predictions_for_other_examples_are_a_fault_of_the_program() -> None:
    examples = data(4, 4)
    a = system(examples, 1, 1)
    with pytest.raises(ValueError, match="expected 0"):
        compare(examples, (BASE, a), (TUNED, a[::-1]), NER)


def test_p_is_corrected_for_the_number_of_comparisons() -> None:
    examples = data(200, 50)
    a, b, c = (system(examples, right, seed) for right, seed in ((0.5, 1), (0.8, 2), (0.55, 3)))
    found = [
        *compare(examples, (BASE, a), (TUNED, b), NER),
        *compare(examples, (BASE, c), (TUNED, b), NER),
    ]
    one, other = corrected(found)
    assert (one.p, one.p_corrected) == (pytest.approx(1 / 2001), pytest.approx(2 / 2001))
    assert other.p_corrected == pytest.approx(max(2 / 2001, other.p))
    assert corrected(found[:1])[0].p_corrected is None
