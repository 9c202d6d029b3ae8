"""Values never show text, and spans are checked against the text they quote."""

import pytest

from residency.core.errors import DataError
from residency.core.types import (
    ErrorItem,
    Example,
    Note,
    Prediction,
    RawNote,
    Span,
    Text,
    check_spans,
)

SECRET = "Nguyễn Văn A"


@pytest.mark.parametrize(
    "value",
    [
        Span(0, 12, "NAME", quote=SECRET),
        Note(id="1", text=SECRET, profile="public", spans=(Span(0, 12, "NAME", quote=SECRET),)),
        RawNote(id="1", patient="7", text=SECRET, identifiers=(("name", SECRET),)),
        Example(id="1", task="ner", input=SECRET, gold=Text(SECRET)),
        Prediction(id="1", answer=Text(SECRET), text=SECRET),
        ErrorItem(example="1", kind="missed", text=SECRET),
    ],
    ids=lambda value: type(value).__name__,
)
def test_repr_hides_text(value: object) -> None:
    assert SECRET not in repr(value)
    assert SECRET not in f"{value}"


def test_repr_shows_what_is_not_text() -> None:
    assert repr(Note(id="n7", text=SECRET, profile="synthetic")).startswith(
        "Note(id='n7', profile='synthetic'"
    )


def test_values_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Span(0, 1, "X").start = 3  # type: ignore[misc]


def test_check_spans_fills_in_quotes_by_code_points() -> None:
    text = "😀 đau bụng"
    assert check_spans(text, [Span(2, 5, "SYMPTOM"), Span(0, 1, "FACE", quote="😀")], "here") == (
        Span(2, 5, "SYMPTOM", quote="đau"),
        Span(0, 1, "FACE", quote="😀"),
    )


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 2), (0, 13), (12, 13)])
def test_a_span_outside_the_text_is_refused_with_its_number_and_label(start: int, end: int) -> None:
    with pytest.raises(DataError) as caught:
        check_spans(SECRET, [Span(0, 1, "A"), Span(start, end, "NAME")], "notes.jsonl:3")
    assert str(caught.value) == (
        f"notes.jsonl:3: span 2 (NAME) is [{start}, {end}), outside the text of 12 characters; "
        "offsets count code points from 0, end exclusive."
    )


def test_a_span_that_quotes_something_else_is_refused_without_either_text() -> None:
    with pytest.raises(DataError) as caught:
        check_spans(SECRET, [Span(0, 6, "NAME", quote="Trần")], "notes.jsonl:3")
    assert "span 1 (NAME) does not quote what [0, 6) holds" in str(caught.value)
    assert "Nguyễn" not in str(caught.value)
    assert "Trần" not in str(caught.value)
