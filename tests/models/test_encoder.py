"""The encoder predictor: an answer depends on its text alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from residency.core.types import Example, Labels, Prediction, Predictor, Spans
from residency.models import encoder as module
from residency.models.encoder import BATCH_TOKENS, EncoderPredictor, by_length, evaluating, forward
from residency.tasks.card import Card, Label

SPANS = Card(name="s", family="spans", labels=(Label(name="a"), Label(name="b")))
ONE = Card(name="c", family="labels", labels=(Label(name="a"), Label(name="b"), Label(name="c")))
SEVERAL = ONE.model_copy(update={"multiple": True})
TEXTS = (
    "Bệnh nhân ho khan.",
    "患者男性，咳嗽。",
    "",
    "Blood pressure 120/80, no fever.",
    "ho " * 200,
    "   \n",
    "metformin 500mg",
)


def predictor(base: Any, card: Card) -> EncoderPredictor:
    found = EncoderPredictor.untuned(base, card, seed=5)
    for name, parameter in found.model.named_parameters():
        if name.startswith("classifier") and parameter.ndim > 1:
            parameter.data *= 60  # far from even, so that the random head answers something
    return found


def given(texts: Any) -> list[Example]:
    return [
        Example(id=str(i), task="t", input=text, profile="synthetic")
        for i, text in enumerate(texts)
    ]


def answers(predictions: Iterator[Prediction]) -> list[Any]:
    return [prediction.answer for prediction in predictions]


@pytest.mark.parametrize(
    "card", [SPANS, ONE, SEVERAL], ids=["spans", "one label", "several labels"]
)
@pytest.mark.parametrize("name", ["electra", "roberta", "bert"])
def test_an_answer_is_the_same_alone_in_a_batch_and_in_any_order(
    name: str, card: Card, found: dict[str, Any]
) -> None:
    predict = predictor(found[name], card).predict
    together = answers(predict(given(TEXTS)))
    alone = [answers(predict(given([text])))[0] for text in TEXTS]
    turned = answers(predict(given(TEXTS[::-1])))[::-1]
    if card.family == "spans":
        assert together == alone == turned
        assert any(answer.spans for answer in together)
        return
    for answer, other, third in zip(together, alone, turned, strict=True):
        assert answer.labels == other.labels == third.labels
        np.testing.assert_allclose(answer.scores, other.scores, atol=1e-5)
        np.testing.assert_allclose(answer.scores, third.scores, atol=1e-5)


def test_one_batch_per_core_gives_the_answers_of_one_after_the_other(found: dict[str, Any]) -> None:
    predict, cores = predictor(found["electra"], SPANS).predict, torch.get_num_threads()
    texts = given([f"{text} {n}" for text in TEXTS for n in range(60)])
    one = answers(predict(texts))
    torch.set_num_threads(3)
    try:
        several = answers(predict(texts))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(cores)
    assert one == several


@pytest.mark.parametrize("name", ["electra", "roberta", "bert"])
def test_padding_changes_no_score(name: str, found: dict[str, Any]) -> None:
    model, pad = predictor(found[name], SPANS).model, 0
    short, long = [3, 40, 50, 2], [3, *range(30, 60), 2]
    alone, batched = (
        forward(model, [short], pad)[0],
        forward(model, [short, long], pad)[0][: len(short)],
    )
    np.testing.assert_allclose(alone, batched, atol=1e-5)
    np.testing.assert_allclose(np.exp(alone).sum(-1), 1, atol=1e-5)


def test_spans_quote_the_text_and_stay_inside_it(found: dict[str, Any]) -> None:
    for text, answer in zip(
        TEXTS, answers(predictor(found["electra"], SPANS).predict(given(TEXTS))), strict=True
    ):
        assert all(
            span.quote == text[span.start : span.end] and span.quote.strip()
            for span in answer.spans
        )
        assert all(a.end <= b.start for a, b in zip(answer.spans, answer.spans[1:], strict=False))


def test_a_text_without_words_has_no_spans(found: dict[str, Any]) -> None:
    blank = ["", " \n\t", "\u3000"]
    assert answers(predictor(found["electra"], SPANS).predict(given(blank))) == [Spans()] * 3


def test_one_label_is_answered_with_its_probability_and_several_with_theirs(
    found: dict[str, Any],
) -> None:
    for answer in answers(predictor(found["bert"], ONE).predict(given(TEXTS))):
        assert isinstance(answer, Labels) and len(answer.labels) == 1
        assert 1 / 3 <= answer.scores[0] <= 1
    several = predictor(found["bert"], SEVERAL)
    several.model.classifier.weight.data *= 0
    several.model.classifier.bias.data[:] = torch.tensor([2.0, -2.0, 3.0])
    (answer,) = answers(several.predict(given(["ho"])))
    assert answer.labels == ("a", "c")
    assert answer.scores == pytest.approx((0.880797, 0.952574), abs=1e-6), (
        "1 / (1 + exp(-2)), 1 / (1 + exp(-3))"
    )
    several.model.classifier.bias.data[:] = -1.0
    (none,) = answers(several.predict(given(["ho"])))
    assert isinstance(none, Labels) and (none.labels, none.scores) == ((), ())
    assert none.chances == pytest.approx(dict.fromkeys("abc", 0.268941), abs=1e-6), (
        "known of those not chosen too"
    )


def test_a_long_text_is_read_to_its_end(found: dict[str, Any]) -> None:
    far = predictor(found["electra"], SPANS)
    text = " ".join(f"ho {i}" for i in range(150))
    tokens = far.tokeniser([text])[0]
    work = [(0, window) for window in far.tokeniser.windows(tokens)]
    scores = far._scores([tokens], work)[0]
    assert len(work) > 3 and scores.shape == (len(tokens.slots), 5)
    last = forward(far.model, [far.tokeniser.inputs(tokens, work[-1][1])], 0)[0]
    at = tokens.firsts[-1] - work[-1][1].start + 1
    np.testing.assert_allclose(scores[-1], last[at], atol=1e-5)


def test_labels_of_a_long_text_are_the_mean_over_its_windows(found: dict[str, Any]) -> None:
    far = predictor(found["bert"], ONE)
    text = "ho khan và sốt " * 30
    tokens = far.tokeniser([text])[0]
    rows = [far.tokeniser.inputs(tokens, window) for window in far.tokeniser.windows(tokens)]
    mean = np.mean([forward(far.model, [row], 0)[0] for row in rows], axis=0)
    chances = np.exp(mean) / np.exp(mean).sum()
    answer = answers(far.predict(given([text])))[0]
    assert answer.labels == (ONE.names[int(mean.argmax())],)
    assert answer.scores[0] == pytest.approx(chances.max(), abs=1e-5)


def test_examples_are_read_a_chunk_ahead_and_no_further(
    found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    read = 0

    def endless() -> Iterator[Example]:
        nonlocal read
        while True:
            read += 1
            yield Example(id=str(read), task="t", input="ho khan")

    predictions = predictor(found["electra"], SPANS).predict(endless())
    assert read == 0
    for number in range(1, 10):
        assert next(predictions).id == str(number)
        assert read <= (number - 1) // 4 * 4 + 4


def test_a_predictor_keeps_the_protocol(found: dict[str, Any]) -> None:
    untuned = predictor(found["electra"], SPANS)
    assert isinstance(untuned, Predictor)
    assert untuned.info.name == "base" and untuned.info.parameters > 10_000
    prediction = next(untuned.predict(given(["ho khan"])))
    assert prediction.tokens and prediction.latency_ms and prediction.failure is None


def test_prediction_leaves_a_model_in_the_mode_it_was_in(found: dict[str, Any]) -> None:
    model = predictor(found["electra"], SPANS).model
    for mode in (True, False):
        model.train(mode)
        with evaluating(model):
            assert not model.training
        assert model.training is mode


def test_batches_hold_every_row_once_and_few_tokens() -> None:
    lengths = [5, 500, 64, 64, 7, 3000, 1]
    batches = list(by_length(lengths, BATCH_TOKENS))
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert all(len(b) == 1 or max(lengths[i] for i in b) * len(b) <= BATCH_TOKENS for b in batches)


def test_marginals_are_the_probabilities_of_each_tag_for_every_slot(found: dict[str, Any]) -> None:
    from residency.tasks.bio import best_tags, decode

    predictor = EncoderPredictor.untuned(found["electra"], SPANS)
    texts = ["Bệnh nhân uống metformin 500mg.", "", "患者男性，咳嗽。"]
    beliefs = list(predictor.marginals(texts))
    for text, belief in zip(texts, beliefs, strict=True):
        assert belief.log_probabilities.shape == (len(belief.slots), 5) or not belief.slots
        np.testing.assert_allclose(np.exp(belief.log_probabilities).sum(axis=-1), 1, rtol=1e-5)
        assert all(text[start:end].strip() == text[start:end] != "" for start, end in belief.slots)
    answers = [
        one.answer
        for one in predictor.predict(
            [Example(id=str(n), task="ner", input=t) for n, t in enumerate(texts)]
        )
    ]
    for text, belief, answer in zip(texts, beliefs, answers, strict=True):
        tags = best_tags(belief.log_probabilities).tolist() if belief.slots else []
        assert answer is not None and answer.spans == decode(text, tags, belief.slots, SPANS.names)  # type: ignore[union-attr]
