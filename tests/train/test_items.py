"""From examples to training items, with the proof of what is trained."""

from __future__ import annotations

from typing import Any

import pytest

from residency.core.errors import UserError
from residency.core.types import Answer, Example, Labels, MaskProof, Profile, Span, Spans, Text
from residency.models.artefact import tokeniser
from residency.models.tokens import Tokeniser
from residency.tasks.card import Card, Label
from residency.tasks.heads import IGNORED
from residency.train.items import TrainingItem, build, prove

NER = Card(name="ner", family="spans", labels=(Label(name="drug"), Label(name="sign")))
ONE = Card(name="one", family="labels", labels=(Label(name="lung"), Label(name="heart")))
SEVERAL = ONE.model_copy(update={"multiple": True})


def example(
    text: str, gold: Answer | None, id: str = "7", profile: Profile = "synthetic"
) -> Example:
    return Example(id=id, task="t", input=text, gold=gold, profile=profile)


def spans(text: str, *found: tuple[str, str]) -> Spans:
    places = [(text.index(quote), quote, label) for quote, label in found]
    return Spans(
        spans=tuple(Span(start=s, end=s + len(q), label=label, quote=q) for s, q, label in places)
    )


@pytest.fixture(scope="module")
def words(found: dict[str, Any]) -> Tokeniser:
    return tokeniser(found["bert"])


def refused(examples: list[Example], words: Tokeniser, card: Card) -> str:
    with pytest.raises(UserError) as raised:
        build(examples, words, card)
    message = str(raised.value)
    assert message.startswith("row 7: ") and message.endswith(".") and "ho khan" not in message
    return message


def test_the_first_token_of_each_slot_is_trained_and_nothing_else(words: Tokeniser) -> None:
    text = "ho khan 咳嗽"
    built = build([example(text, spans(text, ("ho khan", "sign"), ("嗽", "drug")))], words, NER)
    (item,) = built.items
    # [CLS] ho khan 咳 嗽 [SEP]: one slot a word, one a Chinese character, pieces of a word after its
    # first ignored.
    assert [target for target in item.targets if target != IGNORED] == [3, 4, 0, 1]
    assert item.targets[0] == item.targets[-1] == IGNORED
    tokens = words([text])[0]
    assert [item.targets[first + 1] for first in tokens.firsts] == [3, 4, 0, 1]


def test_the_ceiling_is_what_the_gold_reaches_as_tags(words: Tokeniser) -> None:
    whole = example("ho khan", spans("ho khan", ("ho", "sign"), ("khan", "drug")))
    inside = example("ho khan", spans("ho khan", ("kha", "sign"), ("ho", "sign")), id="8")
    assert build([whole], words, NER).proof.ceiling == 1
    # Of four gold spans "kha" comes back as "khan": three of four found, three of four right.
    assert build([whole, inside], words, NER).proof.ceiling == pytest.approx(0.75)


def test_text_that_the_tokenizer_does_not_know_is_refused(words: Tokeniser) -> None:
    some = build([example("ho khan " * 99 + "☃ ☃", Spans())], words, NER)
    assert some.proof.unknown == pytest.approx(2 / 200)
    with pytest.raises(UserError, match=r"^base: its tokenizer does not know 33% of the tokens"):
        build([example("ho khan ☃ " * 30, Spans())], words, NER)


def test_the_proof_counts_what_is_trained(words: Tokeniser) -> None:
    rows = [
        TrainingItem(example="a", ids=[2, 10, 11, 3], targets=[IGNORED, 1, 2, IGNORED]),
        TrainingItem(example="a", ids=[2, 12, 3], targets=[IGNORED, 0, IGNORED]),
        TrainingItem(example="b", ids=[2, 13, 14, 3], targets=[IGNORED, 3, IGNORED, IGNORED]),
    ]
    proof = prove(rows, [example("x", Spans(), "a"), example("y", Spans(), "b")], words, NER)
    assert (proof.rows, proof.tokens, proof.trained) == (2, 11, 4)
    assert proof.labels == {"B-drug": 1, "B-sign": 1, "I-drug": 1, "O": 1}
    assert [target for _, target in proof.sample] == ["", "B-drug", "I-drug", ""]


def test_the_proof_of_classes_counts_rows_and_labels(words: Tokeniser) -> None:
    rows = [
        example("ho", Labels(labels=("lung",)), "a"),
        example("đau", Labels(labels=("lung", "heart")), "b"),
    ]
    proof = build(rows, words, SEVERAL).proof
    assert (proof.rows, proof.trained, proof.labels, proof.sample) == (
        2,
        2,
        {"heart": 1, "lung": 2},
        (),
    )


@pytest.mark.parametrize(
    ("profile", "shown"), [("synthetic", True), ("safe-harbor", True), ("pseudonymised", False)]
)
def test_tokens_are_shown_only_where_the_profile_lets_them(
    profile: Profile, shown: bool, words: Tokeniser
) -> None:
    proof = build(
        [example("ho khan", spans("ho khan", ("ho", "sign")), profile=profile)], words, NER
    ).proof
    assert bool(proof.sample) is shown
    assert "khan" not in repr(proof)


@pytest.mark.parametrize(
    ("gold", "card", "said"),
    [
        (None, NER, "has no gold answer"),
        (Text(text="x"), NER, "holds text, but card ner is about spans"),
        (Labels(labels=("lung",)), NER, "holds labels, but card ner is about spans"),
        (
            spans("ho khan", ("ho", "sing")),
            NER,
            "label 'sing' is not in card ner; allowed: drug, sign",
        ),
        (Labels(labels=("liver",)), ONE, "label 'liver' is not in card one; allowed: lung, heart"),
        (Labels(), ONE, "has 0 labels, but card one takes one"),
        (Labels(labels=("lung", "heart")), ONE, "has 2 labels, but card one takes one"),
    ],
)
def test_a_row_that_cannot_be_learned_is_refused(
    gold: Answer | None, card: Card, said: str, words: Tokeniser
) -> None:
    assert said in refused([example("ho khan", gold)], words, card)


@pytest.mark.parametrize("card", [NER, ONE], ids=["spans", "labels"])
def test_a_row_without_words_is_refused(card: Card, words: Tokeniser) -> None:
    gold: Answer = Spans() if card is NER else Labels(labels=("lung",))
    assert "has no token to learn from" in refused([example(" \n", gold)], words, card)


def test_a_row_of_which_every_target_is_masked_is_refused(words: Tokeniser) -> None:
    rows = [TrainingItem(example="7", ids=[2, 5, 3], targets=[IGNORED] * 3)]
    with pytest.raises(UserError, match=r"row 7: has no trained token \(1 such rows\)"):
        prove(rows, [example("ho", Spans())], words, NER)


def test_a_long_row_is_trained_to_its_end_in_windows(words: Tokeniser) -> None:
    text = "ho khan " * 60
    built = build([example(text, spans(text, ("ho", "sign")))], words, NER)
    assert built.windowed == {"7": len(built.items)} and len(built.items) > 2
    assert max(len(item.ids) for item in built.items) <= 64
    assert built.proof.trained == 120, "each word once, although windows overlap"
    assert built.proof.labels == {"B-sign": 1, "O": 119}


def test_a_window_that_is_the_inside_of_one_word_is_left_out(words: Tokeniser) -> None:
    text = "ho " + "xyz" * 150 + " ho"
    built = build([example(text, spans(text, ("ho", "sign")))], words, NER)
    assert all(any(target != IGNORED for target in item.targets) for item in built.items)


def test_spans_that_tags_cannot_say_are_counted(words: Tokeniser) -> None:
    text = "ho khan"
    gold = Spans(spans=(Span(start=0, end=7, label="sign"), Span(start=0, end=2, label="drug")))
    assert build([example(text, gold)], words, NER).changed == {"overlaps a longer span": 1}


def test_no_rows_make_no_items(words: Tokeniser) -> None:
    assert build([], words, NER).proof == MaskProof(rows=0, tokens=0, trained=0)
