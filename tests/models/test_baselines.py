"""Systems that learn nothing but what the training part says outright."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import UserError
from residency.core.types import Answer, Example, Labels, Span, Spans
from residency.models import crf
from residency.models.adapters.crf import Crf
from residency.models.baselines import learn
from residency.tasks.card import Card, Label

SPANS = Card(name="s", family="spans", labels=(Label(name="drug"), Label(name="sign")))
ONE = Card(name="o", family="labels", labels=(Label(name="a"), Label(name="b")))
SEVERAL = ONE.model_copy(update={"multiple": True})


def marked(number: int, text: str, *spans: tuple[str, str]) -> Example:
    found = tuple(
        Span(start=text.index(quote), end=text.index(quote) + len(quote), label=label)
        for quote, label in spans
    )
    return Example(id=str(number), task="s", input=text, gold=Spans(spans=found))


def asked(name: str, train: list[Example], card: Card, *texts: str, seed: int = 0) -> list[Answer]:
    system = learn(name, train, card, seed)
    examples = [Example(id=str(at), task="t", input=text) for at, text in enumerate(texts)]
    return [one.answer for one in system.predict(examples) if one.answer is not None]


def labelled(*labels: tuple[str, ...]) -> list[Example]:
    return [
        Example(id=str(at), task="o", input="văn bản", gold=Labels(labels=each))
        for at, each in enumerate(labels)
    ]


def test_the_dictionary_marks_known_spans_longest_first_with_their_commonest_label() -> None:
    train = [
        marked(1, "Ho khan và sốt", ("Ho khan", "sign"), ("sốt", "sign")),
        marked(2, "ho", ("ho", "drug")),
        marked(3, "ho", ("ho", "sign")),
        marked(4, "ho", ("ho", "sign")),
    ]
    (said,) = asked("dictionary", train, SPANS, "HO KHAN, ho, đau")
    assert isinstance(said, Spans)
    assert [(one.start, one.end, one.label) for one in said.spans] == [
        (0, 7, "sign"),
        (9, 11, "sign"),
    ]


def test_the_majority_says_the_commonest_labels_and_how_often_each_stands() -> None:
    (said,) = asked("majority", labelled(("a",), ("a",), ("b",)), ONE, "x")
    assert isinstance(said, Labels) and said.labels == ("a",)
    assert said.chances == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    (said,) = asked("majority", labelled(("a", "b"), ("a", "b"), ()), SEVERAL, "x")
    assert isinstance(said, Labels) and said.labels == ("a", "b")


def test_chance_draws_labels_as_often_as_they_occur_and_the_same_for_a_seed() -> None:
    train, texts = labelled(("a",), ("a",), ("a",), ("b",)), ["x"] * 2000
    said = asked("chance", train, ONE, *texts)
    counts = Counter(one.labels[0] for one in said if isinstance(one, Labels))
    assert counts["a"] == pytest.approx(1500, abs=80)
    assert said == asked("chance", train, ONE, *texts)
    assert said != asked("chance", train, ONE, *texts, seed=1)


def test_chance_marks_as_many_slots_as_the_training_part_has_marked() -> None:
    train = [marked(1, "a b c d e f g h", ("b c", "drug"), ("f", "sign"))]
    (said,) = asked("chance", train, SPANS, "x " * 8000)
    assert isinstance(said, Spans)
    slots = Counter(one.label for one in said.spans for _ in (one.quote or "").split())
    # 3 of 8 slots are marked, two of them as a drug
    assert slots["drug"] == pytest.approx(2000, rel=0.1)
    assert slots["sign"] == pytest.approx(1000, rel=0.1)


def test_a_crf_is_a_baseline_of_spans_and_labels() -> None:
    train = [marked(at, f"dùng {drug}", (drug, "drug")) for at, drug in enumerate("abcdef")]
    (said,) = asked("crf", train, SPANS, "dùng x")
    assert isinstance(said, Spans) and [one.quote for one in said.spans] == ["x"]
    assert len(asked("crf", labelled(("a",), ("b",)), ONE, "văn bản")) == 1


@pytest.mark.parametrize(
    ("name", "card", "allowed"),
    [
        ("dictionary", ONE, "allowed: base, crf, majority, chance"),
        ("majority", SPANS, "allowed: base, crf, dictionary, chance"),
        ("crf", Card(name="w", family="terms"), "allowed: base"),
    ],
)
def test_a_baseline_that_does_not_answer_a_card_is_refused(
    name: str, card: Card, allowed: str
) -> None:
    with pytest.raises(
        UserError, match=f"evaluate.baselines: {name} does not answer card"
    ) as error:
        learn(name, [], card, 0)
    assert allowed in str(error.value)


def test_a_crf_that_was_fitted_to_the_same_rows_is_not_fitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = [
        marked(at, text, (text.split()[-1], "drug"))
        for at, text in enumerate(["uống metformin", "tiêm insulin", "uống aspirin"])
    ]
    anew = asked("crf", train, SPANS, "uống insulin", "tiêm aspirin và nghỉ")
    crf.fit(train, SPANS, Crf(), tmp_path)
    fit, again = crf.fit, []

    def counted(examples: list[Example], *given: Any) -> crf.Fitted:
        again.append(len(examples))
        return fit(examples, *given)

    monkeypatch.setattr(crf, "fit", counted)

    def learned(rows: list[Example]) -> list[Answer | None]:
        system = learn("crf", rows, SPANS, 0, [tmp_path / "none", tmp_path])
        texts = ["uống insulin", "tiêm aspirin và nghỉ"]
        given = [Example(id=str(at), task="t", input=text) for at, text in enumerate(texts)]
        return [one.answer for one in system.predict(given)]

    assert learned(train) == anew and again == []
    learned(train[::-1])  # the order changes sums of floating point numbers
    learned(train[:2])
    learned([*train[:2], marked(2, "uống aspirin", ("uống", "sign"))])
    assert again == [3, 2, 3]
    crf.forget(tmp_path, {"metformin"}, [], [])
    assert learned(train) == anew and again == [3, 2, 3, 3]
