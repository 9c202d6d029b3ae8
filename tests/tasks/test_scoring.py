"""What a task's metrics are made of."""

from __future__ import annotations

import pytest

from residency.core.errors import UserError
from residency.core.types import Answer, Example, Labels, Prediction, Span, Spans, Text
from residency.tasks.card import Card, Label
from residency.tasks.families import of
from residency.tasks.scoring import main_metric

NER = Card(name="ner", family="spans", labels=(Label(name="drug"), Label(name="dose")))
CLASSIFY = Card(name="classify", family="labels", labels=(Label(name="a"), Label(name="b")))
MULTI = Card(
    name="multi", family="labels", labels=(Label(name="a"), Label(name="b")), multiple=True
)


def spans(*keys: tuple[int, int, str]) -> Spans:
    return Spans(spans=tuple(Span(start=start, end=end, label=label) for start, end, label in keys))


def labels(*names: str) -> Labels:
    return Labels(labels=names)


def data(*rows: tuple[Answer, Answer | None]) -> tuple[list[Example], list[Prediction]]:
    """Gold and answer of each example."""
    examples = [
        Example(id=str(i), task="t", input="x" * 40, gold=gold) for i, (gold, _) in enumerate(rows)
    ]
    return examples, [Prediction(id=str(i), answer=answer) for i, (_, answer) in enumerate(rows)]


def metrics(card: Card, examples: list[Example], predictions: list[Prediction]) -> dict[str, float]:
    tally = of(card).tally(examples, predictions, card)
    return dict(zip(tally.metrics, tally.statistic(tally.rows.sum(axis=0)).tolist(), strict=True))


def test_span_metrics_by_hand() -> None:
    examples, predictions = data(
        (spans((0, 4, "drug"), (5, 9, "dose")), spans((0, 4, "drug"), (5, 8, "dose"))),
        (spans((0, 4, "drug")), spans((10, 14, "drug"), (20, 22, "route"))),
    )
    assert metrics(NER, examples, predictions) == pytest.approx(
        {
            "span_f1": 2 / 7,  # tp 1, fp 3, fn 2
            "span_precision": 1 / 4,
            "span_recall": 1 / 3,
            "span_f1_relaxed": 4 / 7,
            "span_f1_macro": (1 / 2 + 0) / 2,  # drug and dose; route is in no gold
            "span_f1/drug": 1 / 2,
            "span_f1/dose": 0,
            "span_f1/route": 0,
            "span_precision/drug": 1 / 2,
            "span_precision/dose": 0,
            "span_precision/route": 0,
            "span_recall/drug": 1 / 2,
            "span_recall/dose": 0,
            "span_recall/route": 0,
        }
    )


def test_single_label_metrics_by_hand() -> None:
    examples, predictions = data(
        (labels("a"), labels("a")),
        (labels("a"), labels("b")),
        (labels("b"), labels("b")),
        (labels("b"), None),
    )
    found = metrics(CLASSIFY, examples, predictions)
    assert found["accuracy"] == 0.5
    assert found["f1/a"] == pytest.approx(2 / 3)
    assert found["f1/b"] == pytest.approx(1 / 2)
    assert found["macro_f1"] == found["weighted_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["micro_f1"] == pytest.approx(4 / 7)


def test_multi_label_tasks_report_exact_match_instead_of_accuracy() -> None:
    examples, predictions = data(
        (labels("a", "b"), labels("b", "a")), (labels("a"), labels("a", "b"))
    )
    found = metrics(MULTI, examples, predictions)
    assert "accuracy" not in found
    assert found["exact_match"] == 0.5
    assert found["micro_f1"] == pytest.approx(6 / 7)


def test_no_answer_is_wrong_even_where_nothing_was_to_be_said() -> None:
    examples, predictions = data((labels(), None), (labels(), labels()))
    assert metrics(MULTI, examples, predictions)["exact_match"] == 0.5


def test_no_answer_misses_every_gold_span() -> None:
    examples, predictions = data((spans((0, 4, "drug"), (5, 9, "dose")), None))
    found = metrics(NER, examples, predictions)
    assert (found["span_recall"], found["span_f1"], found["span_f1_relaxed"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("card", "gold", "answer", "expected"),
    [
        (NER, spans((0, 4, "drug"), (5, 9, "dose")), spans((0, 4, "drug")), 2 / 3),
        (CLASSIFY, labels("a"), labels("a"), 1.0),
        (MULTI, labels("a", "b"), labels("a"), 2 / 3),
        (
            NER.model_copy(update={"metric": "span_f1_macro"}),
            spans((0, 4, "drug"), (5, 9, "dose")),
            spans((0, 4, "drug")),
            0.5,
        ),
        (
            NER.model_copy(update={"metric": "span_recall/dose"}),
            spans((0, 4, "drug")),
            spans((0, 4, "drug")),
            None,  # no dose in gold or prediction: it does not apply
        ),
    ],
)
def test_main_metric_is_the_cards(
    card: Card, gold: Answer, answer: Answer, expected: float | None
) -> None:
    assert main_metric(*data((gold, answer)), card) == pytest.approx(expected)


def test_a_metric_that_the_task_does_not_have_is_answered_with_the_nearest() -> None:
    card = NER.model_copy(update={"metric": "span_f2"})
    with pytest.raises(
        UserError,
        match=r"^card ner: metric: 'span_f2' is not known; allowed: .*did you mean span_f1\?\.$",
    ):
        main_metric(*data((spans(), spans())), card)


def test_labels_are_the_cards_in_its_order_then_those_found() -> None:
    examples, predictions = data((spans((0, 1, "z"), (2, 3, "dose")), spans((0, 1, "y"))))
    assert of(NER).occurring(NER, examples, predictions) == ("drug", "dose", "y", "z")


def test_examples_without_gold_are_refused() -> None:
    examples = [
        Example(id="n7", task="t", input="x"),
        Example(id="n8", task="t", input="x", gold=spans()),
    ]
    predictions = [Prediction(id="n7"), Prediction(id="n8")]
    with pytest.raises(
        UserError,
        match=r"evaluation needs gold answers; 1 of 2 examples have none \(the first is n7\)",
    ):
        main_metric(examples, predictions, NER)


def test_nothing_to_evaluate_is_refused() -> None:
    with pytest.raises(UserError, match="there are no examples to evaluate"):
        main_metric([], [], NER)


def test_gold_of_another_family_is_refused() -> None:
    with pytest.raises(
        UserError,
        match=r"gold answer of example 0 is of type Labels, but the card's family is spans",
    ):
        main_metric(*data((labels("a"), spans())), NER)


@pytest.mark.parametrize("card", [NER, CLASSIFY])
def test_an_answer_of_another_family_is_a_fault_of_the_program(card: Card) -> None:
    gold = spans() if card.family == "spans" else labels("a")
    with pytest.raises(ValueError, match="got an answer of type Text"):
        main_metric(*data((gold, Text(text="a"))), card)


def test_predictions_must_follow_their_examples() -> None:
    examples, predictions = data((spans(), spans()), (spans(), spans()))
    with pytest.raises(ValueError, match="prediction 0 is for example 1, expected 0"):
        main_metric(examples, predictions[::-1], NER)
    with pytest.raises(ValueError, match="1 predictions for 2 examples"):
        main_metric(examples, predictions[:1], NER)
