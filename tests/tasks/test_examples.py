"""From notes to the examples of a task."""

from __future__ import annotations

import pytest

from residency.core.errors import DataError, UserError
from residency.core.types import Labels, Note, Span, Spans
from residency.tasks.card import Card, Label, load_card, packaged
from residency.tasks.examples import examples, fixed, unknown_labels

NER = Card(name="ner", family="spans")
CLASSES = Card(name="classes", family="labels")
NOTES = [
    Note(
        id="a",
        text="ho khan",
        profile="synthetic",
        group="p1",
        lang="vi",
        spans=(Span(start=0, end=2, label="sign", quote="ho"),),
        labels=("lung",),
        origin="synthetic:x",
    ),
    Note(id="b", text="sốt", profile="public", labels=("fever",)),
]


def test_an_example_carries_what_its_note_knows() -> None:
    first, second = examples(NOTES, NER)
    assert (first.id, first.note, first.input, first.task) == ("a", "a", "ho khan", "ner")
    assert (first.group, first.lang, first.profile, first.origin) == (
        "p1",
        "vi",
        "synthetic",
        "synthetic:x",
    )
    assert first.gold == Spans(spans=NOTES[0].spans)
    assert second.group == "b", "a note without a patient is a group of its own"


def test_gold_is_of_the_cards_family() -> None:
    assert [example.gold for example in examples(NOTES, CLASSES)] == [
        Labels(labels=("lung",)),
        Labels(labels=("fever",)),
    ]


def test_labels_come_from_the_training_notes_where_the_card_has_none() -> None:
    assert fixed(CLASSES, NOTES, "data.x").names == ("fever", "lung")
    own = CLASSES.model_copy(update={"labels": (Label(name="lung"),)})
    assert fixed(own, NOTES, "data.x").names == ("lung",)
    assert unknown_labels(NOTES, own) == ["fever"]


def test_notes_without_anything_to_learn_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"^data\.x: the training notes hold no entities; check the field names"
    ):
        fixed(NER, NOTES[1:], "data.x")


@pytest.mark.parametrize("name", packaged())
def test_every_packaged_card_loads(name: str) -> None:
    assert load_card(name).name


def test_an_unknown_card_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"card: 'nre' is not known; allowed: .*did you mean ner\?"):
        load_card("nre")


@pytest.mark.parametrize("name", ["summary", "summary-vi", "summary-zh"])
def test_a_summary_is_asked_in_the_language_of_its_card(name: str) -> None:
    columns = {"note": "Sốt 3 ngày. 发热三天。", "summary": "Sốt."}
    row = Note(id="a", text="", profile="synthetic", fields=columns)
    (one,) = examples([row], load_card(name))
    assert one.input.startswith(columns["note"]) and len(one.input) > len(columns["note"]) + 10
