"""Reports and comparisons of written answers."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import msgspec
import pytest
import sacrebleu

from residency.core.errors import UserError
from residency.core.types import Example, Prediction, PredictorInfo, Report, Text
from residency.evals.measure import evaluate, score
from residency.evals.paired_tests import compare
from residency.tasks.card import Card
from residency.tasks.scoring import main_metric

QA = Card(name="qa", family="answers")
BASE, TUNED = (
    PredictorInfo(name="base", base="m"),
    PredictorInfo(name="tuned", base="m", method="lora"),
)
WORDS = ["cough", "fever", "chills", "rest", "drink", "water", "call", "doctor", "tablet", "daily"]


def data(size: int, origin: str = "real") -> list[Example]:
    source = random.Random(size)
    return [
        Example(
            id=f"{i:03}",
            task="t",
            input=f"question {i}",
            gold=Text(text=" ".join(source.sample(WORDS, 6))),
            group=f"p{i // 2}",
            origin=origin,
        )
        for i in range(size)
    ]


def system(
    examples: Iterable[Example], right: float, seed: int, loss: float | None = None
) -> list[Prediction]:
    """Answers in which each word of the reference is kept with probability ``right``; six tokens of
    loss each."""
    source = random.Random(seed)
    return [
        Prediction(
            id=one.id,
            answer=Text(
                text=" ".join(word for word in one.gold.text.split() if source.random() < right)
            ),
            gold_loss=None if loss is None else 6 * loss + source.random(),
            gold_tokens=0 if loss is None else 6,
        )
        for one in examples
        if isinstance(one.gold, Text)
    ]


class Canned:
    """A predictor that answers by example id."""

    info = TUNED

    def __init__(self, predictions: Iterable[Prediction]) -> None:
        self.answers = {prediction.id: prediction for prediction in predictions}

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        return (self.answers[one.id] for one in examples)


def test_a_metric_that_no_answer_has_is_refused_before_anything_is_asked() -> None:
    card = QA.model_copy(update={"metric": "rouge_3"})
    with pytest.raises(UserError, match="metric: 'rouge_3' is not known"):
        evaluate(Canned([]), data(2), card)


class Causal(Canned):
    """One that can also say how probable the gold answers are: 2 for each of 4 tokens, and of one
    not at all."""

    def gold_losses(self, examples: Iterable[Example]) -> Iterator[tuple[float, int]]:
        return ((0.0, 0) if one.id == "003" else (8.0, 4) for one in examples)


def test_a_report_of_answers_says_how_each_metric_was_computed_and_survives_json() -> None:
    examples = data(60)
    report = score(examples, system(examples, 0.7, 1), QA, TUNED, bootstrap=200)
    scores = {one.metric: one for one in report.scores}
    assert list(scores) == [
        "rouge_l",
        "rouge_1",
        "rouge_2",
        "bleu",
        "chrf",
        "meteor_exact",
        "token_f1",
        "exact_match",
    ]
    for one in report.scores:
        assert one.low is not None and one.high is not None
        assert one.low <= one.value <= one.high
        assert (one.n, one.groups, bool(one.signature)) == (60, 30, one.metric != "exact_match")
    assert report.confusion == {} and report.errors == ()
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_a_slice_is_scored_as_a_corpus_of_its_own() -> None:
    examples = [
        msgspec.structs.replace(one, lang="en" if int(one.id) < 15 else "vi") for one in data(40)
    ]
    predictions, card = system(examples, 0.8, 1), QA.model_copy(update={"metric": "bleu"})
    report = score(examples, predictions, card, TUNED, bootstrap=0)
    (english,) = report.slices["lang=en"]
    assert english.metric == "bleu"
    golds, answers = (
        [one.text for one in texts if isinstance(one, Text)]
        for texts in ([one.gold for one in examples[:15]], [one.answer for one in predictions[:15]])
    )
    assert english.value == pytest.approx(sacrebleu.corpus_bleu(answers, [golds]).score)
    assert english.n == 15


def test_in_a_slice_in_which_no_loss_is_known_the_loss_does_not_apply() -> None:
    examples = [
        msgspec.structs.replace(one, lang="en" if int(one.id) < 2 else "vi") for one in data(4)
    ]
    predictions = [
        msgspec.structs.replace(one, gold_loss=None) if int(one.id) < 2 else one
        for one in system(examples, 0.8, 1, loss=1.0)
    ]
    report = score(
        examples, predictions, QA.model_copy(update={"metric": "loss"}), TUNED, bootstrap=0
    )
    values = {name: score.value for name, (score,) in report.slices.items()}
    losses = [one.gold_loss for one in predictions if one.gold_loss is not None]
    assert values == {"lang=en": None, "lang=vi": pytest.approx(sum(losses) / (6 * len(losses)))}


def test_failed_and_repaired_answers_are_counted_apart() -> None:
    examples = data(3)
    predictions = [
        Prediction(id="000", failure="too long"),
        Prediction(id="001", answer=Text(text="rest"), failure="cut at the token limit"),
        Prediction(id="002", answer=Text(text="rest")),
    ]
    report = score(examples, predictions, QA, TUNED, bootstrap=0)
    assert (report.failures, report.repaired) == (1, 1)
    assert {item.example: item.failure for item in report.answers} == {
        "000": "too long",
        "001": "cut at the token limit",
        "002": "",
    }


def test_a_report_says_who_wrote_the_references() -> None:
    examples = [
        *data(3),
        *(msgspec.structs.replace(one, id=f"s{one.id}") for one in data(2, "model:gpt")),
    ]
    report = score(examples, system(examples, 1, 1), QA, TUNED, bootstrap=0)
    assert report.references == {"model:gpt": 2, "real": 3}


def test_forty_answers_are_kept_the_same_for_every_system_and_every_order() -> None:
    examples = data(300)
    one = score(examples, system(examples, 0.5, 1), QA, BASE, bootstrap=0)
    other = score(examples[::-1], system(examples[::-1], 0.9, 2), QA, TUNED, bootstrap=0)
    kept = [item.example for item in one.answers]
    assert len(kept) == 40
    assert kept == [item.example for item in other.answers]
    first = [int(name) for name in kept[:20]]
    assert min(first) < 100 < 200 < max(first)  # no part of the data is left out


def test_answers_carry_their_own_main_metric_and_texts_only_where_they_may_be_shown() -> None:
    examples = data(5)
    predictions = system(examples, 0.5, 1)
    hidden = score(examples, predictions, QA, TUNED, bootstrap=0).answers
    shown = score(examples, predictions, QA, TUNED, bootstrap=0, show_text=True).answers
    assert {(item.input, item.gold, item.answer) for item in hidden} == {("", "", "")}
    for item, other in zip(shown, hidden, strict=True):
        position = int(item.example)
        example, prediction = examples[position], predictions[position]
        assert isinstance(prediction.answer, Text)
        assert (item.input, Text(text=item.gold), item.answer) == (
            example.input,
            example.gold,
            prediction.answer.text,
        )
        assert item.score == other.score == pytest.approx(main_metric([example], [prediction], QA))


def test_a_predictor_that_can_is_asked_how_probable_the_references_are() -> None:
    examples = data(6)
    canned = system(examples, 0.5, 1)
    report, predictions = evaluate(Causal(canned), examples, QA, bootstrap=0)
    scores = {one.metric: one for one in report.scores}
    assert scores["loss"].value == 2.0
    assert (scores["loss"].n, scores["loss"].support) == (5, 20)  # one was too long to be read
    assert [(one.gold_loss, one.gold_tokens) for one in predictions[2:4]] == [(8.0, 4), (None, 0)]
    assert [one.answer for one in predictions] == [one.answer for one in canned]
    report, predictions = evaluate(Canned(canned), examples, QA, bootstrap=0)
    assert "loss" not in {one.metric for one in report.scores}
    assert predictions == tuple(canned)


def test_systems_are_compared_by_the_main_metric_and_by_the_loss_where_both_have_it() -> None:
    examples = data(80)
    a, b = system(examples, 0.4, 1, loss=2.0), system(examples, 0.8, 2, loss=1.0)
    rouge, loss = compare(examples, (BASE, a), (TUNED, b), QA, samples=300)
    assert (rouge.metric, loss.metric) == ("rouge_l", "loss")
    assert rouge.difference == pytest.approx(
        main_metric(examples, b, QA) - main_metric(examples, a, QA)
    )
    assert 0 < rouge.low < rouge.difference < rouge.high
    assert loss.low < loss.difference < loss.high < 0  # lower is better
    assert rouge.p == loss.p == pytest.approx(1 / 301)


@pytest.mark.parametrize("tokens", [0, 5])
def test_losses_over_other_tokens_are_not_compared(tokens: int) -> None:
    examples = data(20)
    a, b = system(examples, 0.4, 1, loss=2.0), system(examples, 0.8, 2, loss=1.0)
    b = [msgspec.structs.replace(one, gold_tokens=tokens) for one in b]
    assert [one.metric for one in compare(examples, (BASE, a), (TUNED, b), QA, samples=50)] == [
        "rouge_l"
    ]


def test_a_comparison_by_loss_needs_it_of_both() -> None:
    examples, card = data(20), QA.model_copy(update={"metric": "loss"})
    a, b = system(examples, 0.4, 1, loss=2.0), system(examples, 0.8, 2)
    with pytest.raises(UserError, match="needs the probability of the reference answers"):
        compare(examples, (BASE, a), (TUNED, b), card)
    with pytest.raises(UserError, match="needs the probability of the reference answers"):
        compare(examples, (BASE, b), (TUNED, a), card)
