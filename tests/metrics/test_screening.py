"""Screening: proportions, the area under the ROC curve and calibration, by hand and beside
reference implementations."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from residency.metrics import screening
from residency.metrics.intervals import bootstrap


def own(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def test_wilson_as_published() -> None:
    # Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for hits, size, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = screening.proportion(
            [True] * hits + [False] * (size - hits), [True] * size, own(size)
        )
        assert found == (
            pytest.approx(hits / size),
            pytest.approx(low, abs=1e-4),
            pytest.approx(high, abs=1e-4),
        )


def test_only_the_items_in_question_count() -> None:
    right, among = [True, True, False, True], [True, False, True, True]
    assert screening.proportion(right, among, own(4))[0] == pytest.approx(2 / 3)
    assert all(map(isnan, screening.proportion(right, [False] * 4, own(4))))


def test_a_proportion_over_patients_covers_the_truth() -> None:
    generator, covered, ignored = np.random.default_rng(1), 0, 0
    for _ in range(600):
        rates = generator.beta(2.8, 1.2, 15)
        right = (generator.random((15, 8)) < rates[:, None]).ravel().tolist()
        groups = [str(patient) for patient in range(15) for _ in range(8)]
        _, low, high = screening.proportion(right, [True] * 120, groups)
        covered += low <= 0.7 <= high
        _, low, high = screening.proportion(right, [True] * 120, own(120))
        ignored += low <= 0.7 <= high
    assert 0.92 <= covered / 600 <= 0.98
    assert ignored / 600 < 0.85


def test_no_fault_in_few_patients_is_no_proof() -> None:
    groups = [str(patient) for patient in range(5) for _ in range(20)]
    share, low, high = screening.proportion([True] * 100, [True] * 100, groups)
    assert (share, high) == (1, 1)
    assert low < 0.5, "five patients, not a hundred items"


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_is_scikit_learns(ties: bool) -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(2)
    wanted = generator.random(200) < 0.3
    scores = generator.normal(size=200) + wanted
    scores = np.round(scores) if ties else scores
    area, low, high = screening.auroc(scores.tolist(), wanted.tolist(), own(200))
    assert area == pytest.approx(roc_auc_score(wanted, scores))
    assert low < area < high


def test_a_predictive_value_at_a_stated_prevalence_is_bayes_and_covers_the_truth() -> None:
    """Sensitivity 0.9 of 40, specificity 0.95 of 200, 2 % ill: 0.018 / (0.018 + 0.049)."""
    hit, alarm, share = 0.9, 0.05, 0.02
    true = share * hit / (share * hit + (1 - share) * alarm)
    covered, rounds = 0, 600
    chance = np.random.default_rng(7)
    ids = own(240)
    ill = [True] * 40 + [False] * 200
    well = [not one for one in ill]
    for _ in range(rounds):
        said = chance.random(240) < np.where(ill, hit, alarm)
        ends = [
            screening.proportion(said.tolist(), ill, ids),
            screening.proportion((~said).tolist(), well, ids),
        ]
        value, low, high = screening.predictive_value(ends[0], ends[1], share)
        assert 0 <= low <= value <= high <= 1
        covered += low <= true <= high
    assert 0.93 <= covered / rounds <= 0.97
    value, *_ = screening.predictive_value((hit, 0.8, 0.95), (1 - alarm, 0.9, 0.98), share)
    assert value == pytest.approx(0.018 / 0.067)
    negative, *_ = screening.predictive_value((1 - alarm, 0.9, 0.98), (hit, 0.8, 0.95), 1 - share)
    assert negative == pytest.approx(0.931 / (0.931 + 0.002))


def test_a_predictive_value_of_a_test_without_a_fault_has_a_bound() -> None:
    value, low, high = screening.predictive_value((1, 0.9, 1), (1, 0.98, 1), 0.02)
    assert (value, high) == (1, 1)  # the ratio's bound: 0.02 / sqrt(0.9 * 1.1)
    assert low == pytest.approx(1 / (1 + 49 * 0.02 / 0.99**0.5))
    assert screening.predictive_value((0, 0, 0.1), (0.9, 0.8, 0.95), 0.02)[:2] == (0, 0)
    assert isnan(screening.predictive_value((0, 0, 0.1), (1, 0.9, 1), 0.02)[0])


def test_the_variance_is_delongs_by_hand() -> None:
    # positives 3, 1; negatives 0, 2: the positives beat 2 and 1 of 2, the negatives are beaten by 2
    # and 1 of 2
    area, low, high = screening.auroc([3, 1, 0, 2], [True, True, False, False], own(4))
    assert area == pytest.approx(0.75)
    # components 1, 0.5 and 1, 0.5: variances 0.125 each, 0.125 / 2 + 0.125 / 2; the halves of both
    # kinds are apart
    error = 0.125**0.5
    reach = 3.18245 * error / (0.75 * 0.25)
    assert low == pytest.approx(1 / (1 + np.exp(-(np.log(3) - reach))), rel=1e-4)
    assert high == pytest.approx(1 / (1 + np.exp(-(np.log(3) + reach))), rel=1e-4)


def test_the_area_over_patients_covers_the_truth() -> None:
    from scipy.stats import norm

    generator, covered = np.random.default_rng(3), 0
    truth = norm.cdf(
        1 / np.sqrt(2 * (1 + 0.5))
    )  # scores N(1, 1.5) against N(0, 1.5), alike within a patient
    for _ in range(400):
        shift = generator.normal(0, 0.5**0.5, 30).repeat(6)
        wanted = generator.random(180) < 0.4
        scores = shift + wanted + generator.normal(size=180)
        _, low, high = screening.auroc(
            scores.tolist(), wanted.tolist(), [str(i // 6) for i in range(180)]
        )
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_kinds_that_are_told_apart_without_a_fault_have_no_bounds() -> None:
    area, low, high = screening.auroc([1, 2, 3, 4], [False, False, True, True], own(4))
    assert area == 1 and isnan(low) and isnan(high)
    assert all(map(isnan, screening.auroc([1, 2], [True, True], own(2))))


def test_calibration_by_hand() -> None:
    chances, right = [0.95, 0.95, 0.65, 0.65, 1.0], [True, False, True, True, True]
    # bin 0.9 to 1: chances 2.9, right 2, apart 0.9; bin 0.6: chances 1.3, right 2, apart 0.7
    rows = screening.binned(chances, right)
    value, _, _ = bootstrap(rows, own(5), screening.calibration_error(), samples=0)
    assert value[0] == pytest.approx((0.9 + 0.7) / 5)
    low, high = screening.bins(chances, right, own(5))
    assert (low.start, low.n, low.chance, low.right) == (0.6, 2, pytest.approx(0.65), 1)
    assert (high.end, high.n, high.chance, high.right) == (
        1.0,
        3,
        pytest.approx(2.9 / 3),
        pytest.approx(2 / 3),
    )


def test_stated_chances_that_are_true_are_calibrated() -> None:
    generator = np.random.default_rng(4)
    chances = generator.random(20_000)
    right = generator.random(20_000) < chances
    value, _, _ = bootstrap(
        screening.binned(chances, right), own(20_000), screening.calibration_error(), samples=0
    )
    assert value[0] < 0.02
    assert all(
        one.low - 0.02 < one.chance < one.high + 0.02
        for one in screening.bins(chances, right, own(20_000))
    )
