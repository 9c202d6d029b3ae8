"""Sizes of requests: refused with counts and limits, never cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.serve import Refusal
from residency.serve.limits import Sizes, check_text, fit, user_tokens
from residency.serve.settings import RequestLimits

LIMITS = RequestLimits(input_tokens=512, context_tokens=2048, output_tokens=512)


def test_what_just_fits_is_taken() -> None:
    assert fit(LIMITS, 512, 2560, 512, 3072) == Sizes(512, 2048, 512)


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ({"user": 513}, ("513", "512")),
        ({"user": 10, "prompt": 2059}, ("2049", "2048")),
        ({"user": 10, "answer": 513}, ("513", "512")),
        ({"user": 10, "prompt": 600, "answer": 500, "window": 1024}, ("600", "500", "1024")),
        ({"user": 10, "prompt": 1024, "window": 1024}, ("1024",)),
    ],
)
def test_one_token_more_is_refused_with_counts_and_limits(
    given: dict[str, int], numbers: tuple[str, ...]
) -> None:
    with pytest.raises(Refusal) as refusal:
        fit(LIMITS, **given)
    assert (refusal.value.status, refusal.value.code) == (400, "too_long")
    assert all(number in refusal.value.sentence for number in numbers)


@pytest.mark.parametrize("answer", [0, -1])
def test_no_answer_is_not_an_answer(answer: int) -> None:
    with pytest.raises(Refusal) as refusal:
        fit(LIMITS, 10, answer=answer)
    assert refusal.value.status == 400


def test_an_answer_of_any_length_gets_what_is_left() -> None:
    assert fit(LIMITS, 10, 1000, None, 1024).answer == 24
    assert fit(LIMITS, 10).answer == 512


def test_a_text_to_mark_must_fit_too() -> None:
    check_text(LIMITS, 512)
    with pytest.raises(Refusal, match="too_long"):
        check_text(LIMITS, 513)


def test_all_of_the_users_words_count() -> None:
    assert user_tokens(len, ["abc", "", "de"]) == 5


@given(
    st.integers(0, 4000),
    st.integers(0, 6000),
    st.none() | st.integers(-5, 1000),
    st.sampled_from([0, 256, 1024, 4096]),
)
def test_what_is_taken_is_within_every_limit(
    user: int, around: int, answer: int | None, window: int
) -> None:
    try:
        sizes = fit(LIMITS, user, user + around, answer, window)
    except Refusal as refusal:
        assert refusal.status == 400
        return
    assert (sizes.input, sizes.context) == (user, around)
    assert user <= 512
    assert around <= 2048
    assert 1 <= sizes.answer <= 512
    assert answer is None or sizes.answer == answer
    assert not window or user + around + sizes.answer <= window
