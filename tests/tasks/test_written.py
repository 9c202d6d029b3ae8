"""How written answers are scored."""

from __future__ import annotations

import math
import random
import re
import string
import time
import unicodedata
from collections import Counter

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from residency.core.errors import UserError
from residency.core.types import Example, Labels, Prediction, Text
from residency.metrics.intervals import bootstrap
from residency.tasks.card import Card
from residency.tasks.families import of
from residency.tasks.families.answers import USUAL as METRICS
from residency.tasks.families.answers import words
from residency.tasks.scoring import falls, main_metric

QA = Card(name="qa", family="answers")
OVERLAPS = METRICS[:-2]
VIETNAMESE = "Bệnh nhân đau bụng dữ dội, cần nhập viện ngay."
CHINESE = "患者咳嗽三天，无发热。"
ENGLISH = "The patient has had a cough for three days."

Pair = tuple[str, str | None]


def data(*pairs: Pair, lang: str = "") -> tuple[list[Example], list[Prediction]]:
    """Reference and answer of each example."""
    examples = [
        Example(id=str(i), task="t", input="q", gold=Text(text=gold), lang=lang)
        for i, (gold, _) in enumerate(pairs)
    ]
    answers = [None if answer is None else Text(text=answer) for _, answer in pairs]
    return examples, [Prediction(id=str(i), answer=answer) for i, answer in enumerate(answers)]


def metrics(
    examples: list[Example], predictions: list[Prediction], card: Card = QA
) -> dict[str, float]:
    tally = of(card).tally(examples, predictions, card)
    return dict(zip(tally.metrics, tally.statistic(tally.rows.sum(axis=0)).tolist(), strict=True))


def lost(*losses: tuple[float | None, int]) -> tuple[list[Example], list[Prediction]]:
    examples, predictions = data(*[("x", None)] * len(losses))
    return examples, [
        Prediction(id=one.id, gold_loss=loss, gold_tokens=tokens)
        for one, (loss, tokens) in zip(predictions, losses, strict=True)
    ]


@pytest.mark.parametrize("text", [VIETNAMESE, CHINESE, ENGLISH])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_same_text_scores_full_in_every_language_and_form(text: str, form: str) -> None:
    found = metrics(*data((text, f" {unicodedata.normalize(form, text)}\n")))
    assert found.pop("meteor_exact") > 0.999
    assert (found.pop("bleu"), found.pop("chrf")) == pytest.approx((100, 100))
    assert set(found.values()) == {1.0}


def test_vietnamese_diacritics_are_letters_and_its_two_spellings_one_word() -> None:
    assert metrics(*data(("đau bụng", "đầu búng")))["rouge_1"] == 0
    assert metrics(*data(("thủy đậu, hòa tan", "thuỷ đậu, hoà tan"), lang="vi"))["rouge_l"] == 1


def test_english_rouge_is_rouge_scores_own() -> None:
    pairs = [
        (ENGLISH, "Cough for two days, the patient has said."),
        ("No fever; no chills.", "no chills, NO fever"),
    ]
    kinds = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    scorer = RougeScorer(list(kinds.values()))
    expected = [scorer.score(gold, answer) for gold, answer in pairs]
    found = metrics(*data(*pairs))
    for name, kind in kinds.items():
        assert found[name] == pytest.approx(
            sum(one[kind].fmeasure for one in expected) / len(pairs)
        )


def test_chinese_is_measured_by_character() -> None:
    found = metrics(*data(("胃痛三天。", "三天胃痛了")))
    assert found["rouge_1"] == found["token_f1"] == pytest.approx(2 * 4 / (4 + 5))
    assert found["rouge_2"] == pytest.approx(2 * 2 / (3 + 4))
    assert found["rouge_l"] == pytest.approx(2 * 2 / (4 + 5))


def squad_f1(gold: str, answer: str) -> float:
    """The F1 of SQuAD's evaluation script (v1.1), restated."""

    def normal(text: str) -> list[str]:
        bare = "".join(
            character for character in text.lower() if character not in string.punctuation
        )
        return re.sub(r"\b(a|an|the)\b", " ", bare).split()

    one, other = normal(gold), normal(answer)
    shared = sum((Counter(one) & Counter(other)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(other), shared / len(one)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (ENGLISH, "the cough, for a week"),
        ("An ulcer of the stomach", "stomach ulcer!"),
        ("The lung", "the heart"),
        ("Aspirin, twice daily", "twice daily: aspirin"),
    ],
)
def test_token_f1_of_english_is_squads(gold: str, answer: str) -> None:
    assert metrics(*data((gold, answer)))["token_f1"] == pytest.approx(squad_f1(gold, answer))


def test_articles_are_words_of_other_languages_and_a_capital_a_is_no_article() -> None:
    assert words("Hepatitis A, an infection of the liver", "en").content == [
        "hepatitis",
        "a",
        "infection",
        "of",
        "liver",
    ]
    assert words("thuốc an thần", "vi").content == ["thuốc", "an", "thần"]
    assert words("the", "en").content == ["the"]  # or there were nothing to compare


def test_an_answer_without_words_is_compared_by_its_signs() -> None:
    found = metrics(*data(("++", "++"), ("?", "++")))
    assert found["rouge_1"] == found["token_f1"] == found["exact_match"] == 0.5


def test_bleu_is_cut_as_chinese_where_the_references_are_whatever_is_stated() -> None:
    golds, answers = [CHINESE, ENGLISH], ["患者咳嗽两天，没有发热。", "The patient has a cough."]
    for lang in ("", "en", "zh-CN"):
        examples, predictions = data(*zip(golds, answers, strict=True), lang=lang)
        expected = sacrebleu.corpus_bleu(answers, [golds], tokenize="zh").score
        assert metrics(examples, predictions)["bleu"] == pytest.approx(expected)
        assert "|tok:zh|" in of(QA).tally(examples, predictions, QA).signatures["bleu"]
    examples, predictions = data((ENGLISH, CHINESE))
    assert "|tok:13a|" in of(QA).tally(examples, predictions, QA).signatures["bleu"]


def test_the_language_of_the_card_counts_where_an_example_states_none() -> None:
    examples, predictions = data(("COPD 3", "COPD 3"))
    card = QA.model_copy(update={"language": "zh"})
    assert "|tok:zh|" in of(card).tally(examples, predictions, card).signatures["bleu"]


@pytest.mark.parametrize("gold", [VIETNAMESE, CHINESE, ENGLISH, "?"])
@pytest.mark.parametrize("nothing", [None, "", " \n"])
def test_no_answer_scores_nothing(gold: str, nothing: str | None) -> None:
    assert set(metrics(*data((gold, nothing))).values()) == {0.0}


@given(
    pairs=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=4),
    seed=st.integers(),
)
@settings(max_examples=60)
def test_any_text_has_a_score_and_the_order_of_examples_is_nothing(
    pairs: list[Pair], seed: int
) -> None:
    found = metrics(*data(*pairs))
    assert tuple(found) == OVERLAPS
    for name, value in found.items():
        assert 0 <= value <= (100 + 1e-9 if name in ("bleu", "chrf") else 1 + 1e-9)
    mixed = random.Random(seed).sample(pairs, len(pairs))
    assert metrics(*data(*mixed)) == pytest.approx(found)


def test_the_sum_of_examples_is_what_sacrebleu_and_the_mean_say() -> None:
    pairs = [
        (ENGLISH, "The patient has a cough."),
        ("No fever.", "No fever."),
        ("Rest and drink.", None),
    ]
    found = metrics(*data(*pairs))
    answers, golds = [answer or "" for _, answer in pairs], [gold for gold, _ in pairs]
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(answers, [golds]).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(answers, [golds]).score)
    assert found["exact_match"] == pytest.approx(1 / 3)


def test_loss_is_per_token_over_all_examples_and_perplexity_its_exponential() -> None:
    found = metrics(*lost((3.0, 2), (1.0, 6), (None, 0), (math.nan, 5)))  # the last two: not known
    assert found["loss"] == pytest.approx(4 / 8)
    assert found["perplexity"] == pytest.approx(math.exp(0.5))


def test_without_the_loss_of_any_reference_there_is_no_such_metric() -> None:
    examples, predictions = data((ENGLISH, ENGLISH))
    assert tuple(metrics(examples, predictions)) == OVERLAPS
    for metric in ("loss", "perplexity"):
        with pytest.raises(
            UserError, match=f"^card qa: metric: '{metric}' needs the probability of the reference"
        ):
            main_metric(examples, predictions, QA.model_copy(update={"metric": metric}))


def test_loss_alone_computes_nothing_else() -> None:
    examples, predictions = lost((3.0, 2), (1.0, 6))
    card = QA.model_copy(update={"metric": "loss"})
    assert main_metric(examples, predictions, card) == pytest.approx(0.5)
    tally = of(card).tally(examples, predictions, card, metrics=["loss"])
    assert tally.metrics == ("loss",)
    assert tally.rows.tolist() == [[1, 3, 2], [1, 1, 6]]  # examples, -log p, tokens


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_may_be_the_main_one_and_is_the_same_alone(metric: str) -> None:
    examples, predictions = data(
        (ENGLISH, "The patient has a cough."), (VIETNAMESE, "Bệnh nhân đau bụng, nhập viện")
    )
    predictions = [
        Prediction(id=one.id, answer=one.answer, gold_loss=2.0, gold_tokens=4)
        for one in predictions
    ]
    card = QA.model_copy(update={"metric": metric})
    assert main_metric(examples, predictions, card) == pytest.approx(
        metrics(examples, predictions)[metric]
    )


def test_losses_fall_and_all_else_rises() -> None:
    assert {metric for metric in (*METRICS, "span_f1", "accuracy") if falls(metric)} == {
        "loss",
        "perplexity",
    }


def test_an_unknown_metric_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        UserError,
        match=r"metric: 'rouge' is not known; allowed: rouge_l, .*did you mean rouge_\w\?\.$",
    ):
        main_metric(*data(("a", "a")), QA.model_copy(update={"metric": "rouge"}))


def test_other_answers_are_refused() -> None:
    examples, predictions = data(("a", "a"))
    with pytest.raises(UserError, match="of type Labels, but the card's family is answers"):
        main_metric([Example(id="0", task="t", input="q", gold=Labels())], predictions, QA)
    with pytest.raises(ValueError, match="got an answer of type Labels"):
        main_metric(examples, [Prediction(id="0", answer=Labels())], QA)


def test_intervals_hold_the_value_and_a_thousand_resamples_take_a_moment() -> None:
    """0.1 s on a quiet core; the bound leaves room for a shared machine."""
    source, vocabulary = random.Random(1), ENGLISH.split()
    pairs = [
        (" ".join(source.choices(vocabulary, k=12)), " ".join(source.choices(vocabulary, k=12)))
        for _ in range(200)
    ]
    examples, predictions = data(*pairs)
    predictions = [
        Prediction(id=one.id, answer=one.answer, gold_loss=5.0 + len(one.id), gold_tokens=4)
        for one in predictions
    ]
    tally = of(QA).tally(examples, predictions, QA)
    start = time.process_time()
    value, low, high = bootstrap(tally.rows, [one.id for one in examples], tally.statistic)
    assert time.process_time() - start < 3
    some = value != 0  # no pair is an exact match
    assert np.all((low < value)[some]) and np.all((value < high)[some])
    assert some.sum() == len(METRICS) - 1
