"""Answers as text: parse is the inverse of render, and what a model writes is never trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.core.types import Example, Labels, Note, Span, Spans
from residency.tasks.answer_repair import first_list
from residency.tasks.card import Card, Label, load_card, packaged
from residency.tasks.examples import question
from residency.tasks.families import of
from residency.tasks.families.labels import LabelFamily
from residency.tasks.families.spans import SpanFamily, occurrence, place
from residency.tasks.prompts import Parsed

CARD = Card(name="c", family="spans", labels=(Label(name="drug"), Label(name="疾病")))
CHOICE = Card(name="c", family="labels", labels=(Label(name="a"), Label(name="b, c")))
MANY = CHOICE.model_copy(update={"multiple": True})
TEXT = st.text(alphabet='aab b]"[{\\é\u0301疾病🙂\r\n', min_size=1, max_size=30)


@st.composite
def noted(draw: st.DrawFn) -> tuple[str, Spans]:
    text = draw(TEXT)
    spans = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, len(text)))
        spans.append(
            Span(
                start=start,
                end=end,
                label=draw(st.sampled_from(CARD.names)),
                quote=text[start:end],
                code=draw(st.sampled_from([None, "J44.1"])),
                attributes=draw(st.sampled_from([(), ("negated", "family")])),
            )
        )
    return text, Spans(spans=tuple(dict.fromkeys(spans)))


@given(noted())
def test_parse_is_the_inverse_of_render_for_spans(case: tuple[str, Spans]) -> None:
    text, gold = case
    codec = SpanFamily()
    assert codec.parse(codec.render(gold, text), text, CARD) == Parsed(answer=gold)


@given(st.lists(st.sampled_from(MANY.names), unique=True))
def test_parse_is_the_inverse_of_render_for_labels(labels: list[str]) -> None:
    codec, gold = LabelFamily(), Labels(labels=tuple(labels))
    assert codec.parse(codec.render(gold, ""), "", MANY) == Parsed(answer=gold)


def test_words_around_the_list_do_no_harm() -> None:
    words = 'Sure [see below]: [{"label": "drug", "text": "aspirin", "n": 2}] Anything else?'
    assert SpanFamily().parse(words, "aspirin, aspirin", CARD).answer == Spans(
        spans=(Span(start=9, end=16, label="drug", quote="aspirin"),)
    )


@pytest.mark.parametrize(
    "words",
    [
        "no list",
        "[1, 2]",
        '[{"label": "unknown", "text": "aspirin"}]',
        '[{"label": "drug", "text": "not in the note"}]',
        '[{"label": "drug", "text": "aspirin", "n": 3}]',
        '[{"label": "drug", "text": "aspirin", "n": 0}]',
        '[{"label": "drug", "text": ""}]',
        '[{"label": ["drug"], "text": "aspirin"}]',
        "[" * 100_000,
    ],
)
def test_an_answer_that_cannot_be_read_is_none(words: str) -> None:
    assert SpanFamily().parse(words, "aspirin, aspirin", CARD).answer is None


def test_a_label_that_the_card_does_not_know_is_none() -> None:
    assert LabelFamily().parse("z", "", CHOICE).answer is None
    assert LabelFamily().parse('["a", "b, c"]', "", CHOICE).answer is None
    assert LabelFamily().parse(" b, c\n", "", CHOICE).answer == Labels(labels=("b, c",))


def test_occurrences_may_overlap() -> None:
    assert [occurrence("aaaa", "aa", start) for start in range(3)] == [1, 2, 3]
    assert [place("aaaa", "aa", number) for number in (1, 2, 3, 4)] == [0, 1, 2, None]


def test_the_first_list_is_found() -> None:
    assert first_list("x [y [1] z") == ([1], True)


@pytest.mark.parametrize("name", packaged())
def test_every_packaged_card_can_be_asked(name: str) -> None:
    from jinja2 import Environment, meta

    card = load_card(name).with_labels(("x",))
    if card.answer:
        named = meta.find_undeclared_variables(Environment().parse(card.prompt)) - {
            "labels",
            "choices",
            "lang",
        }
        note = Note(
            id="1",
            text="",
            profile="synthetic",
            fields={one: f"the {one}" for one in named},
            choices=("one", "two"),
        )
        asked = question(note, card).turns[-1].text
        assert all(f"the {one}" in asked for one in named)
        assert "labels" not in card.prompt or "one" in asked
        return
    prompt = of(card).prompt(Example(id="1", task=name, input="the note"), card)
    assert "the note" in prompt and all(label in prompt for label in card.names)
