"""Reports: scores with intervals, slices, confusion, errors."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator

import msgspec
import pytest

from residency.core.errors import UserError
from residency.core.types import (
    Example,
    Labels,
    Prediction,
    PredictorInfo,
    Report,
    Score,
    Span,
    Spans,
)
from residency.evals.measure import data_digest, evaluate, score, window
from residency.tasks.card import Card, Label
from residency.tasks.scoring import main_metric

NER = Card(
    name="ner", family="spans", labels=(Label(name="drug"), Label(name="dose"), Label(name="route"))
)
CLASSIFY = Card(name="classify", family="labels")
INFO = PredictorInfo(name="tuned", base="bundled:tiny-encoder")
NOTE = (
    "The patient was given amoxicillin 500 mg by mouth for a cough that had lasted for about "
    "two weeks at home."
)


def spans(*keys: tuple[int, int, str]) -> Spans:
    return Spans(spans=tuple(Span(start=start, end=end, label=label) for start, end, label in keys))


def example(
    name: str,
    gold: Spans | Labels,
    group: str = "",
    lang: str = "en",
    kind: str = "",
    text: str = NOTE,
) -> Example:
    return Example(
        id=name,
        task="t",
        input=text,
        gold=gold,
        group=group,
        lang=lang,
        kind=kind,
        profile="synthetic",
    )


def answer(name: str, value: Spans | Labels | None) -> Prediction:
    return Prediction(id=name, answer=value, failure=None if value else "not JSON")


EXAMPLES = [
    example("1", spans((22, 33, "drug"), (34, 40, "dose")), group="p1"),
    example("2", spans((22, 33, "drug")), group="p2", lang="vi"),
    example("3", spans((22, 33, "drug")), group="p2", lang="vi"),
]
PREDICTIONS = [
    answer("1", spans((22, 33, "drug"), (34, 37, "dose"))),
    answer("2", spans((22, 33, "dose"), (50, 55, "drug"))),
    answer("3", None),
]


class Canned:
    """A predictor that answers by example id."""

    info = INFO

    def __init__(self, predictions: Iterable[Prediction]) -> None:
        self.answers = {prediction.id: prediction for prediction in predictions}
        self.asked = 0

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        for one in examples:
            self.asked += 1
            yield self.answers[one.id]


def by_name(report: Report) -> dict[str, Score]:
    return {one.metric: one for one in report.scores}


def test_report_by_hand() -> None:
    report = score(EXAMPLES, PREDICTIONS, NER, INFO, part="test", bootstrap=200)
    scores = by_name(report)
    assert (report.system, report.task, report.part, report.n, report.groups) == (
        INFO,
        "ner",
        "test",
        3,
        2,
    )
    assert report.failures == 1
    assert scores["span_f1"].value == pytest.approx(2 / 8)  # tp 1, fp 3, fn 3
    assert scores["span_f1_relaxed"].value == pytest.approx(
        4 / 8
    )  # the dose overlaps; missed: drug of 2 and 3
    assert (
        scores["span_f1"].support,
        scores["span_f1/drug"].support,
        scores["span_f1/dose"].support,
    ) == (4, 3, 1)
    assert scores["span_f1"].groups == 2
    assert scores["span_f1"].procedure == "jackknife over 2 groups, 95%"
    # two patients: 0.5 without p2, 0 without p1, so a standard error of 0.25, as of (0.25 * 0.75) /
    # 0.25² = 3 items, 0.75 of them right, so of 3 * 0.75 / 1.75 = 9/7, and t is 12.7062; Wilson's
    # interval of that says nothing
    squared = 12.7062**2
    size = 9 / 7
    middle = 0.25 + squared / (2 * size)
    reach = 12.7062 * math.sqrt(0.25 * 0.75 / size + squared / (4 * size**2))
    assert (scores["span_f1"].low, scores["span_f1"].high) == (
        pytest.approx((middle - reach) / (1 + squared / size), rel=1e-2),
        pytest.approx((middle + reach) / (1 + squared / size), rel=1e-4),
    )
    assert report.confusion == {
        "drug": {"drug": 1, "dose": 1, "-": 1},
        "dose": {"dose": 1},
        "-": {"drug": 1},
    }
    assert list(report.confusion) == ["drug", "dose", "-"]


def test_labels_of_the_card_that_never_occur_are_left_out() -> None:
    names = by_name(score(EXAMPLES, PREDICTIONS, NER, INFO, bootstrap=0))
    assert "span_f1/dose" in names
    assert not [name for name in names if name.endswith("/route")]


def test_main_metric_equals_the_reported_score() -> None:
    report = score(EXAMPLES, PREDICTIONS, NER, INFO, bootstrap=0)
    assert main_metric(EXAMPLES, PREDICTIONS, NER) == by_name(report)["span_f1"].value


@pytest.mark.parametrize(("examples", "samples"), [(slice(1, 3), 100), (slice(0, 3), 0)])
def test_no_interval_with_one_patient_or_no_samples(examples: slice, samples: int) -> None:
    report = score(EXAMPLES[examples], PREDICTIONS[examples], NER, INFO, bootstrap=samples)
    assert {(one.low, one.high, one.procedure) for one in report.scores} == {
        (None, None, "no interval")
    }
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_the_unit_is_the_patient_else_the_note_else_the_example() -> None:
    gold, reply = Labels(labels=("a",)), Labels(labels=("a",))
    loose = [Example(id=str(i), task="t", input="x", gold=gold) for i in range(4)]
    bound = [msgspec.structs.replace(one, note=f"n{int(one.id) // 2}") for one in loose]
    predictions = [answer(str(i), reply) for i in range(4)]
    assert score(loose, predictions, CLASSIFY, INFO, bootstrap=0).groups == 4
    assert score(bound, predictions, CLASSIFY, INFO, bootstrap=0).groups == 2
    grouped = [msgspec.structs.replace(one, group="p") for one in bound]
    assert score(grouped, predictions, CLASSIFY, INFO, bootstrap=0).groups == 1


def test_slices_are_made_only_where_a_dimension_has_several_values() -> None:
    report = score(EXAMPLES, PREDICTIONS, NER, INFO, bootstrap=50)
    assert list(report.slices) == ["lang=en", "lang=vi"]  # one kind, one length
    (english,), (vietnamese,) = report.slices.values()
    assert (english.metric, english.value, english.n) == ("span_f1", 0.5, 1)
    assert (vietnamese.value, vietnamese.n, vietnamese.groups, vietnamese.low) == (0.0, 2, 1, None)


def test_slices_by_kind_and_by_length_around_the_median() -> None:
    gold = spans((0, 1, "drug"))
    examples = [
        example(str(i), gold, kind="discharge" if i else "", text="x" * (10 + i)) for i in range(5)
    ]
    report = score(examples, [answer(str(i), gold) for i in range(5)], NER, INFO, bootstrap=0)
    assert {name: one.n for name, (one,) in report.slices.items()} == {
        "kind=discharge": 4,
        "kind=unknown": 1,
        "length=over 12 characters": 2,
        "length=up to 12 characters": 3,
    }


def test_errors_carry_offsets_and_labels_and_text_only_where_it_may_be_shown() -> None:
    hidden = score(EXAMPLES, PREDICTIONS, NER, INFO, bootstrap=0).errors
    assert [(e.example, e.kind, e.gold, e.predicted, e.start, e.end) for e in hidden] == [
        ("1", "boundary", "dose", "dose", 34, 40),
        ("2", "invented", "", "drug", 50, 55),
        ("3", "missed", "drug", "", 22, 33),
        ("2", "type", "drug", "dose", 22, 33),
    ]
    assert {error.text for error in hidden} == {""}
    shown = score(EXAMPLES, PREDICTIONS, NER, INFO, bootstrap=0, show_text=True).errors
    assert (
        shown[2].text
        == "The patient was given ⟦amoxicillin⟧ 500 mg by mouth for a cough that had lasted for "
        "about two"
    )


def test_at_most_forty_errors_are_kept_spread_over_the_kinds_whatever_the_order_of_examples() -> (
    None
):
    examples = [example(f"{i:03}", spans((0, 3, "drug"))) for i in range(300)]
    predictions = [
        answer(f"{i:03}", spans((0, 3, "dose")) if i % 50 == 0 else spans()) for i in range(300)
    ]
    errors = score(examples, predictions, NER, INFO, bootstrap=0).errors
    assert len(errors) == 40
    assert sum(error.kind == "type" for error in errors) == 6  # all there are
    missed = [int(error.example) for error in errors if error.kind == "missed"]
    assert min(missed) < 100 < 200 < max(missed)
    assert score(examples[::-1], predictions[::-1], NER, INFO, bootstrap=0).errors == errors


def test_classification_errors_and_confusion() -> None:
    examples = [
        example(str(i), Labels(labels=(label,)), group=str(i)) for i, label in enumerate("aab")
    ]
    predictions = [
        answer("0", Labels(labels=("a",))),
        answer("1", Labels(labels=("b",))),
        answer("2", None),
    ]
    report = score(examples, predictions, CLASSIFY, INFO, bootstrap=100)
    assert report.confusion == {"a": {"a": 1, "b": 1}, "b": {"-": 1}}
    assert [(e.example, e.kind, e.gold, e.predicted) for e in report.errors] == [
        ("2", "missed", "b", ""),
        ("1", "type", "a", "b"),
    ]
    accuracy = by_name(report)["accuracy"]
    assert (accuracy.value, accuracy.support) == (pytest.approx(1 / 3), 3)
    assert accuracy.low is not None and accuracy.high is not None
    # Wilson's with t = 4.3027 of (1/3 * 2/3) / (1/9) = 2 items, 2/3 of them right, so of 2 * 2/3 /
    # (5/3) = 0.8: three patients say next to nothing
    assert (accuracy.low, accuracy.high) == (
        pytest.approx(0.0047, abs=1e-4),
        pytest.approx(0.9815, abs=1e-4),
    )


def test_digest_follows_id_input_and_gold_only() -> None:
    first = EXAMPLES[0]
    same = msgspec.structs.replace(first, lang="zh", profile="public")
    assert data_digest([first]) == data_digest([same])
    for change in ({"id": "9"}, {"input": NOTE + "!"}, {"gold": spans()}):
        assert data_digest([first]) != data_digest([msgspec.structs.replace(first, **change)])


def test_equal_input_gives_an_equal_report() -> None:
    one = score(EXAMPLES, PREDICTIONS, NER, INFO, bootstrap=100, seed=3)
    assert one == score(EXAMPLES, PREDICTIONS, NER, INFO, bootstrap=100, seed=3)


def test_evaluate_asks_the_predictor_scores_its_answers_and_tells_how_far_it_is() -> None:
    steps: list[int] = []
    report, predictions = evaluate(
        Canned(PREDICTIONS), EXAMPLES, NER, part="dev", bootstrap=50, progress=steps.append
    )
    assert predictions == tuple(PREDICTIONS)
    assert steps == [1, 2, 3]
    expected = score(
        EXAMPLES, PREDICTIONS, NER, INFO, part="dev", bootstrap=50, seconds=report.seconds
    )
    assert report == expected
    assert report.seconds > 0


def test_evaluate_refuses_examples_without_gold_before_it_asks() -> None:
    predictor = Canned(PREDICTIONS)
    with pytest.raises(UserError, match="evaluation needs gold answers"):
        evaluate(predictor, [msgspec.structs.replace(EXAMPLES[0], gold=None)], NER)
    assert predictor.asked == 0


@pytest.mark.parametrize(
    ("text", "start", "end", "expected"),
    [
        ("short note", 0, 5, "⟦short⟧ note"),
        (
            "a" * 30 + " " + "b" * 50 + "XX" + "c" * 50 + " " + "d" * 30,
            81,
            83,
            "b" * 50 + "⟦XX⟧" + "c" * 50,
        ),
        ("咳" * 200, 100, 102, "咳" * 60 + "⟦咳咳⟧" + "咳" * 60),  # no blanks to cut at
        (
            "a" * 9 + " " + "b" * 60 + "XX",
            70,
            72,
            "b" * 60 + "⟦XX⟧",
        ),  # the cut falls on a blank already
        ("⟦a⟧b", 3, 4, "|a|⟦b⟧"),  # marks of the text's own
    ],
)
def test_window_is_cut_at_blanks_around_the_error_and_marks_it(
    text: str, start: int, end: int, expected: str
) -> None:
    assert window(text, start, end) == expected


def test_ten_thousand_examples_of_ten_labels_take_seconds() -> None:
    """3 s on a quiet core; the bound leaves room for a shared machine."""
    import time

    source, names = random.Random(1), [f"label-{i}" for i in range(10)]
    examples, predictions = [], []
    for i in range(10_000):
        gold = [(9 * k, 9 * k + 5, source.choice(names)) for k in range(5)]
        found = [
            (s, e - (source.random() < 0.1), source.choice(names) if source.random() < 0.1 else n)
            for s, e, n in gold
        ]
        examples.append(
            example(
                str(i), spans(*gold), group=f"p{i // 2}", lang=source.choice(["vi", "zh", "en"])
            )
        )
        predictions.append(answer(str(i), spans(*found)))
    start = time.process_time()
    score(examples, predictions, NER, INFO)
    assert time.process_time() - start < 8


def test_each_label_is_a_test_of_its_own_with_calibration() -> None:
    golds, said = "aaab" * 5, "aabb" * 5
    examples = [
        example(str(i), Labels(labels=(label,)), group=str(i)) for i, label in enumerate(golds)
    ]
    predictions = [
        answer(
            str(i),
            Labels(
                labels=(label,),
                chances={"a": 0.9, "b": 0.1} if label == "a" else {"a": 0.2, "b": 0.8},
            ),
        )
        for i, label in enumerate(said)
    ]
    report = score(examples, predictions, CLASSIFY, INFO, bootstrap=50)
    first, second = report.screening
    assert (first.label, first.tp, first.fp, first.fn, first.tn) == ("a", 10, 0, 5, 5)
    found = {one.metric: (one.value, one.n) for one in first.scores}
    assert found["sensitivity"] == (pytest.approx(2 / 3), 15) and found["specificity"] == (1, 5)
    assert found["ppv"] == (1, 10) and found["npv"] == (0.5, 10)
    stated = score(examples, predictions, CLASSIFY, INFO, bootstrap=50, prevalence={"a": 0.25})
    there = {one.metric: one for one in stated.screening[0].scores}["npv_at_prevalence"]
    assert there.value == pytest.approx(0.9)  # 0.75 / (0.75 + 0.25 / 3)
    assert there.low is not None and "prevalence 0.25" in there.procedure
    assert "ppv_at_prevalence" not in {one.metric for one in stated.screening[1].scores}
    assert found["auroc"][0] == pytest.approx(
        (10 + 5 / 2) / 15
    )  # 10 of 15 above all others, 5 tied with them
    assert {one.metric: one.value for one in second.scores}["auroc"] == pytest.approx(
        found["auroc"][0]
    )
    assert report.calibration_error is not None
    # chosen: ten of 0.9 are right, ten of 0.8 of which five are
    assert report.calibration_error.value == pytest.approx((10 * 0.1 + 10 * 0.3) / 20)
    assert [(one.n, one.right) for one in report.calibration] == [(10, 0.5), (10, 1)]
    silent = score(
        examples, [answer(one.id, None) for one in examples], CLASSIFY, INFO, bootstrap=0
    )
    assert silent.calibration_error is None and silent.screening[0].fn == 15


def test_what_has_nothing_to_rest_on_does_not_apply_and_is_not_0() -> None:
    """drug: gold, never said; dose: said, no gold; route: neither."""
    examples = [
        example("1", spans((22, 33, "drug")), group="p1"),
        example("2", spans(), group="p2"),
    ]
    predictions = [answer("1", spans((34, 40, "dose"))), answer("2", spans())]
    found = {one.metric: one.value for one in score(examples, predictions, NER, INFO).scores}
    assert (found["span_f1/drug"], found["span_precision/drug"], found["span_recall/drug"]) == (
        0,
        None,
        0,
    )
    assert (found["span_f1/dose"], found["span_precision/dose"]) == (0, 0)
    assert "span_recall/dose" not in found, "no gold and so no recall"
    assert not [metric for metric in found if metric.endswith("/route")]
    silent = [answer("1", spans()), answer("2", spans())]
    found = {one.metric: one.value for one in score(examples, silent, NER, INFO).scores}
    assert (found["span_f1"], found["span_precision"], found["span_recall"]) == (0, None, 0)
    nothing = [example("1", spans(), group="p1"), example("2", spans(), group="p2")]
    found = {one.metric: one.value for one in score(nothing, predictions, NER, INFO).scores}
    assert (found["span_f1"], found["span_recall"], found["span_f1_macro"]) == (0, None, None)
