"""The forms of a text: the quick road of plain ASCII gives what the tables give."""

from __future__ import annotations

from string import printable

import pytest

from residency.deid.view import View

FORMS = ("shown", "low", "folded", "low_words", "folded_words")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["Mr. O'Brien (MRN 88-1_b)\tTel\n", printable, ""])
def test_the_forms_of_ascii_are_those_of_the_same_text_beside_another_sign(
    text: str, form: str
) -> None:
    beside = getattr(View(f"{text} ố"), form)  # a sign that only the tables know
    assert getattr(View(text), form).rstrip() == beside.rstrip()[:-1].rstrip()


def test_a_dash_of_any_kind_between_two_digits_is_a_hyphen() -> None:
    assert View("1\u20112, (3)\u20134, a\u2013b \u2013 5\u2212").shown == (
        "1-2, (3)-4, a\u2013b \u2013 5\u2212"
    )
