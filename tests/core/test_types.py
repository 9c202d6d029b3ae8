"""Values never show text, and spans are checked against the text they quote."""

import pytest

from residency.core.types import (
    ErrorItem,
    Example,
    Note,
    Prediction,
    RawNote,
    Span,
    Text,
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
