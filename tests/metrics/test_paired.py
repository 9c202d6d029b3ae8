"""Paired tests: no more false alarms than promised, and real differences are found."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from residency.metrics.intervals import Array
from residency.metrics.paired import approximate_randomisation, holm, paired_bootstrap


def share(sums: Array) -> Array:
    """Successes over trials: [..., 2] -> [..., 1]."""
    return sums[..., :1] / sums[..., 1:2]


def systems(
    generator: np.random.Generator, groups: int, rate_a: float, rate_b: float
) -> tuple[Array, Array, list[str]]:
    """Two systems on five notes of each patient; hard patients are hard for both."""
    ease = np.repeat(generator.normal(0, 0.15, size=groups), 5)
    ones = np.ones(groups * 5)
    a = np.stack([generator.random(groups * 5) < rate_a + ease, ones], axis=1).astype(float)
    b = np.stack([generator.random(groups * 5) < rate_b + ease, ones], axis=1).astype(float)
    return a, b, [f"p{group}" for group in range(groups) for _ in range(5)]


def test_identical_systems_give_p_of_one_and_no_difference() -> None:
    a, _, groups = systems(np.random.default_rng(0), 20, 0.6, 0.6)
    assert approximate_randomisation(a, a, groups, share, samples=200) == 1.0
    assert paired_bootstrap(a, a, groups, share, samples=200) == (0.0, 0.0, 0.0)


def test_p_approaches_that_of_all_swaps() -> None:
    generator = np.random.default_rng(7)
    a, b = (
        generator.integers(0, 6, size=(8, 1)).astype(float),
        generator.integers(1, 7, size=(8, 1)).astype(float),
    )
    gains = (b - a).ravel()
    swaps = [abs(float(np.dot(signs, gains))) for signs in product([-1, 1], repeat=8)]
    exact = np.mean([total >= abs(gains.sum()) for total in swaps])
    estimate = approximate_randomisation(
        a, b, [str(i) for i in range(8)], lambda sums: sums, samples=20_000
    )
    assert estimate == pytest.approx(exact, abs=0.015)


def test_under_the_null_about_one_p_in_twenty_is_below_005() -> None:
    generator = np.random.default_rng(11)
    found = [
        approximate_randomisation(
            *systems(generator, 30, 0.6, 0.6), share, samples=199, seed=simulation
        )
        for simulation in range(300)
    ]
    assert 0.02 <= np.mean([p < 0.05 for p in found]) <= 0.08
    assert 0.4 <= np.mean([p < 0.5 for p in found]) <= 0.6


def test_a_real_difference_is_found_with_its_sign() -> None:
    a, b, groups = systems(np.random.default_rng(3), 80, 0.5, 0.7)
    assert approximate_randomisation(a, b, groups, share, samples=999) == pytest.approx(0.001)
    difference, low, high = paired_bootstrap(a, b, groups, share)
    assert 0 < low < difference < high
    assert difference == pytest.approx(float(b[:, 0].mean() - a[:, 0].mean()))
    backwards = paired_bootstrap(b, a, groups, share)
    assert backwards == pytest.approx((-difference, -high, -low))


def test_pairing_gives_a_narrower_interval_than_the_two_systems_apart() -> None:
    generator = np.random.default_rng(5)
    a, b, groups = systems(generator, 60, 0.6, 0.6)
    b[:, 0] = np.where(generator.random(len(b)) < 0.9, a[:, 0], b[:, 0])  # mostly the same answers
    _, low, high = paired_bootstrap(a, b, groups, share)
    apart = np.random.default_rng(6).permutation(60)
    shuffled = b.reshape(60, 5, 2)[apart].reshape(300, 2)
    _, low_apart, high_apart = paired_bootstrap(a, shuffled, groups, share)
    assert high - low < 0.7 * (high_apart - low_apart)


def test_the_interval_of_one_patient_is_unknown() -> None:
    _, low, high = paired_bootstrap(np.ones((2, 2)), np.ones((2, 2)), ["p", "p"], share)
    assert np.isnan([low, high]).all()


def test_systems_with_other_columns_are_refused() -> None:
    for test in (approximate_randomisation, paired_bootstrap):
        with pytest.raises(ValueError, match="differ in shape"):
            test(np.ones((2, 2)), np.ones((2, 3)), ["p", "q"], share)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_finding() -> None:
    generator = np.random.default_rng(1)
    draws = generator.random((4000, 8))
    wrong = np.mean([min(holm(list(row))) < 0.05 for row in draws])
    assert wrong == pytest.approx(0.05, abs=0.01)
    assert np.mean(draws.min(axis=1) < 0.05) > 0.3  # without a correction
