"""Temperature beside a reference implementation, the threshold by hand."""

from __future__ import annotations

import numpy as np
import pytest

from residency.core.types import Calibration
from residency.metrics.calibration import Claim, chances, platt, shifted, temperature, threshold


def simulated(hotter: float, count: int = 3000) -> list[Claim]:
    """Labels that hold as often as their log-odds say when they are divided by ``hotter``."""
    generator = np.random.default_rng(1)
    odds = generator.normal(1, 3, count)
    holds = generator.random(count) < 1 / (1 + np.exp(-odds / hotter))
    pairs = zip(odds, holds, strict=True)
    return [Claim(np.array([[0.0, one]]), (1,), bool(held), one >= 0) for one, held in pairs]


@pytest.mark.parametrize("hotter", [0.5, 1.0, 2.5])
def test_the_temperature_is_that_of_a_logistic_regression_without_an_intercept(
    hotter: float,
) -> None:
    from sklearn.linear_model import LogisticRegression

    claims = simulated(hotter)
    odds = np.array([one.scores[:, 1] for one in claims])
    fitted = LogisticRegression(fit_intercept=False, C=1e6).fit(odds, [one.right for one in claims])
    assert temperature(claims) == pytest.approx(1 / fitted.coef_[0, 0], rel=2e-3)


def test_a_span_is_as_sure_as_the_geometric_mean_of_its_places() -> None:
    scores = np.log([[0.1, 0.9, 1e-9], [0.2, 0.3, 0.5]])
    (found,) = chances([Claim(scores, (1, 2), True)])
    assert found == pytest.approx((0.9 * 0.5) ** 0.5)
    # at temperature 2 a chance p becomes sqrt(p) over the sum of the square roots
    first = 0.9**0.5 / (0.1**0.5 + 0.9**0.5 + 1e-9**0.5)
    second = 0.5**0.5 / (0.2**0.5 + 0.3**0.5 + 0.5**0.5)
    (found,) = chances([Claim(scores, (1, 2), True)], 2.0)
    assert found == pytest.approx((first * second) ** 0.5)


@pytest.mark.parametrize("right", [True, False])
def test_where_all_is_right_or_all_is_wrong_chances_stay_as_they_are(right: bool) -> None:
    assert temperature([one._replace(right=right) for one in simulated(2.5, 50)]) == 1


@pytest.mark.parametrize(
    ("right", "most", "found"),
    [
        # of the 9 highest one is wrong, and one more is counted: 2 of 10
        ([True] * 8 + [False] + [False], 0.2, 0.2),
        ([True] * 8 + [False] + [False], 0.15, 0.3),
        ([True] * 10, 0.1, 0.1),
        ([True] * 10, 0.05, None),
        ([False] * 10, 0.5, None),
        ([], 0.5, None),
    ],
)
def test_the_threshold_counts_one_error_more_than_was_seen(
    right: list[bool], most: float, found: float | None
) -> None:
    sure = [1 - at / 10 for at in range(len(right))]
    assert threshold(sure, right, most) == (pytest.approx(found, abs=2e-6) if found else None)


def test_what_is_equally_sure_is_kept_or_left_together() -> None:
    assert threshold([0.9] * 10 + [0.5] * 10, [True] * 10 + [False] * 10, 0.2) == pytest.approx(0.9)
    assert threshold([0.9] * 20, [True] * 15 + [False] * 5, 0.2) is None


@pytest.mark.parametrize(("hotter", "shift"), [(1.5, -2.0), (0.6, 1.0), (1.0, 0.0)])
def test_written_answers_have_a_shift_too_and_the_law_is_found_again(
    hotter: float, shift: float
) -> None:
    """Tokens of wrong answers may all be likely: answers that hold as often as their log-odds say when
    they are moved by ``shift`` and divided by ``hotter``."""
    generator = np.random.default_rng(2)
    odds = generator.normal(1.5, 2, 6000)
    holds = generator.random(6000) < 1 / (1 + np.exp(-(odds + shift) / hotter))
    pairs = zip(odds, holds, strict=True)
    claims = [Claim(np.array([[0.0, one]]), (1,), bool(held)) for one, held in pairs]
    found, moved = platt(claims)
    assert found == pytest.approx(hotter, rel=0.12) and moved == pytest.approx(shift, abs=0.2)
    likelihood, made = 1 / (1 + np.exp(-odds[0])), Calibration(found, 6000, shift=moved)
    assert made.sure(likelihood) == pytest.approx(
        chances(shifted(claims[:1], moved), found)[0], abs=2e-6
    )
    assert made.sure(likelihood) == pytest.approx(
        1 / (1 + np.exp(-(odds[0] + moved) / found)), abs=2e-6
    )


def test_of_answers_that_are_all_right_or_all_wrong_nothing_is_found() -> None:
    for right in (True, False):
        assert platt([Claim(np.array([[0.0, 1.0]]), (1,), right)] * 60) == (1.0, 0.0)
