"""Intervals by resampling groups: right on hand-made data, and they cover the truth on simulated
data."""

from __future__ import annotations

import numpy as np
import pytest

from residency.metrics import intervals
from residency.metrics.intervals import Array, bootstrap
from residency.metrics.quantiles import student


def share(sums: Array) -> Array:
    """Successes over trials: [..., 2] -> [..., 1]."""
    return sums[..., :1] / sums[..., 1:2]


def clustered(
    generator: np.random.Generator, groups: int = 60, size: int = 8
) -> tuple[Array, list[str]]:
    """Successes of patients who differ: each has a rate of its own, 0.7 on average (beta 2.8, 1.2)."""
    rates = generator.beta(2.8, 1.2, size=groups)
    success = generator.random((groups, size)) < rates[:, None]
    stats = np.stack([success.ravel(), np.ones(groups * size)], axis=1).astype(float)
    return stats, [f"p{group}" for group in range(groups) for _ in range(size)]


def test_value_is_that_of_the_whole_data() -> None:
    value, low, high = bootstrap(
        np.array([[1.0, 1], [0, 1], [1, 1], [1, 1]]), ["a", "b", "c", "d"], share
    )
    assert value.tolist() == [0.75]
    assert low[0] < 0.75 < high[0]


def test_interval_of_a_proportion_agrees_with_the_binomial() -> None:
    # resampling n independent items draws a binomial count: its quantiles are known exactly
    from scipy.stats import binom

    stats = np.array([[1.0, 1]] * 140 + [[0, 1]] * 60)
    _, low, high = bootstrap(stats, [str(i) for i in range(200)], share, samples=20_000)
    assert low[0] == pytest.approx(binom.ppf(0.025, 200, 0.7) / 200, abs=0.005)
    assert high[0] == pytest.approx(binom.ppf(0.975, 200, 0.7) / 200, abs=0.005)


def test_nominal_95_percent_covers_the_truth_90_to_98_percent_of_the_time() -> None:
    generator, covered = np.random.default_rng(1), 0
    for simulation in range(300):
        stats, groups = clustered(generator)
        _, low, high = bootstrap(stats, groups, share, samples=400, seed=simulation)
        covered += bool(low[0] <= 0.7 <= high[0])
    assert 0.90 <= covered / 300 <= 0.98


@pytest.mark.parametrize("groups", [3, 5, 8, 29, 30, 60])
@pytest.mark.parametrize("even", [True, False])
def test_few_and_uneven_patients_are_covered_as_well(groups: int, even: bool) -> None:
    """F1 of patients who differ in how much is found and invented; benchmarks/scores.py has more
    of them."""
    generator, covered, truth = np.random.default_rng(groups), 0, 2 * 0.7 / (0.7 + 1 + 0.3)

    def f1(sums: Array) -> Array:
        return np.asarray(2 * sums[..., :1] / (sums[..., :1] + sums[..., 1:2]))

    for simulation in range(500):
        sizes = np.full(groups, 8) if even else generator.integers(1, 16, groups)
        found = generator.binomial(sizes, generator.beta(2.8, 1.2, groups))
        invented = generator.poisson(sizes * generator.gamma(1.5, 0.2, groups))
        stats = np.stack([found, sizes + invented], axis=1).astype(float)
        names = [str(group) for group in range(groups)]
        _, low, high = bootstrap(stats, names, f1, samples=300, seed=simulation, shares=True)
        covered += bool(low[0] <= truth <= high[0])
    assert 0.91 <= covered / 500 <= (0.985 if groups >= 15 else 1)  # below: wide, never narrow


@pytest.mark.parametrize("groups", [3, 5, 8, 15, 30])
@pytest.mark.parametrize("rate", [0.5, 0.8, 0.9, 0.95, 0.98])
def test_shares_near_their_end_are_covered_with_few_patients(groups: int, rate: float) -> None:
    """Patients who differ (intraclass correlation 0.2) with 1 to 15 notes each: the hardest cells of
    benchmarks/results/scores-coverage.md."""
    generator, covered = np.random.default_rng(int(groups + 1000 * rate)), 0
    names, count = [str(group) for group in range(groups)], 400
    for _ in range(count):
        notes = generator.integers(1, 16, groups)
        right = generator.binomial(notes, generator.beta(4 * rate, 4 * (1 - rate), groups))
        stats = np.stack([right, notes], axis=1).astype(float)
        value, low, high = bootstrap(stats, names, share, samples=200, shares=True)
        assert 0 <= low[0] <= value[0] <= high[0] <= 1 and low[0] < high[0]
        covered += bool(low[0] <= rate <= high[0])
    assert covered / count >= 0.92  # 0.94 and more there; two standard errors of 400 draws below


@pytest.mark.parametrize("sizes", ["even", "geometric", "lognormal"])
@pytest.mark.parametrize("spread", [0, 1.2])
def test_patients_of_another_law_are_covered_in_every_cell(sizes: str, spread: float) -> None:
    """Patients whose rates scatter on the logit scale, with numbers of notes of three laws: another
    simulation than that of the benchmarks. Every cell of 4,000 draws at least 93 %, the mean from 15
    patients on at most 98 %."""
    generator, count = np.random.default_rng(20261130), 4000
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def rate_at(middle: float) -> float:
        return float(weights @ (1 / (1 + np.exp(-middle - spread * nodes))))

    for groups in (3, 5, 8, 15, 30):
        covered = []
        for truth in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98):
            middle = min(np.linspace(-1, 8, 4001), key=lambda one: abs(rate_at(one) - truth))
            shape = (count, groups)
            rates = 1 / (1 + np.exp(-middle - spread * generator.standard_normal(shape)))
            notes = {
                "even": lambda shape=shape: np.full(shape, 6),
                "geometric": lambda shape=shape: generator.geometric(1 / 7, shape),
                "lognormal": lambda shape=shape: (
                    1 + np.exp(1.5 + 0.8 * generator.standard_normal(shape)).astype(int)
                ),
            }[sizes]()
            right = generator.binomial(notes, rates)
            value = right.sum(1) / notes.sum(1)
            left = (right.sum(1)[:, None] - right) / (notes.sum(1)[:, None] - notes)
            apart = ((left - left.mean(1, keepdims=True)) ** 2).sum(1)
            error = np.sqrt((groups - 1) / groups * apart)
            low, high = intervals.of_share(value, error, groups, student(0.95, groups - 1))
            covered.append(float(((low <= truth) & (truth <= high)).mean()))
        assert min(covered) >= 0.93
        assert groups < 15 or np.mean(covered) <= 0.98


def test_at_the_end_of_the_scale_an_interval_has_the_width_that_the_patients_allow() -> None:
    """8 patients, all right: 8 / (8 + t²), t = 2.3646."""
    stats = np.array([[5.0, 5]] * 8)
    _, low, high = bootstrap(stats, [str(i) for i in range(8)], share, shares=True)
    assert low[0] == pytest.approx(8 / (8 + 2.3646**2), abs=1e-3) and high[0] == 1
    _, low, _ = bootstrap(stats[[0] * 40], [str(i) for i in range(40)], share, shares=True)
    assert 0.85 < low[0] < 1


def test_with_few_patients_the_interval_is_that_of_the_jackknife_by_hand() -> None:
    # shares of 3 patients: 2/2, 1/2, 0/2; left out in turn: 1/4, 2/4, 3/4; standard error sqrt(2/3
    # * 2/16) = 0.2887
    stats, groups = np.array([[2.0, 2], [1, 2], [0, 2]]), ["a", "b", "c"]
    _, low, high = bootstrap(stats, groups, share)
    assert (low[0], high[0]) == (
        pytest.approx(0.5 - 4.3027 * 0.28868, abs=1e-4),
        pytest.approx(1.7421, abs=1e-3),
    )
    _, low, high = bootstrap(stats, groups, share, shares=True)
    assert (
        (low[0], high[0])
        == (
            pytest.approx(0.0227, abs=1e-4),
            pytest.approx(0.9773, abs=1e-4),
        )
    )  # 0.25 / (1/12) = 3 items, 1.5 of them errors: Wilson's of 3 * 1.5 / 2.5 = 1.8 with t = 4.3027
    assert intervals.procedure(3, 100) == "jackknife over 3 groups, 95%"
    assert intervals.procedure(30, 100) == "bootstrap over groups, 100 samples, 95%"


def test_percentiles_move_out_as_students_t_asks() -> None:
    from scipy.stats import norm, t

    for groups in (30, 60, 400):
        expected = norm.cdf(t.ppf(0.025, groups - 1) * np.sqrt(groups / (groups - 1)))
        assert intervals.percentiles(groups, 0.95) == pytest.approx(
            (expected, 1 - expected), abs=5e-4
        )
    assert intervals.effective(["a", "b", "c", "d"]) == 4
    assert intervals.effective(["a"] * 9 + ["b"]) == pytest.approx(100 / 82)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 10, 29, 100, 300])
def test_quantiles_of_student_are_scipys(level: float, df: int) -> None:
    from scipy.stats import t

    assert student(level, df) == pytest.approx(t.ppf((1 + level) / 2, df))


def test_ignoring_patients_would_cover_too_little() -> None:
    generator, covered = np.random.default_rng(1), 0
    for simulation in range(100):
        stats, groups = clustered(generator)
        _, low, high = bootstrap(
            stats, [str(i) for i in range(len(groups))], share, samples=400, seed=simulation
        )
        covered += bool(low[0] <= 0.7 <= high[0])
    assert covered / 100 < 0.90


def test_interval_over_patients_is_wider_where_notes_of_a_patient_agree() -> None:
    stats, groups = clustered(np.random.default_rng(2))
    _, low, high = bootstrap(stats, groups, share)
    _, note_low, note_high = bootstrap(stats, [str(i) for i in range(len(groups))], share)
    assert high[0] - low[0] > 1.3 * (note_high[0] - note_low[0])


def test_equal_seed_gives_equal_bounds_in_any_order_of_the_examples() -> None:
    stats, groups = clustered(np.random.default_rng(3))
    order = np.random.default_rng(4).permutation(len(groups))
    one = bootstrap(stats, groups, share, seed=5)
    other = bootstrap(stats[order], [groups[i] for i in order], share, seed=5)
    assert [bound.tolist() for bound in one] == [bound.tolist() for bound in other]
    assert bootstrap(stats, groups, share, seed=6)[1].tolist() != one[1].tolist()


def test_a_lower_level_gives_a_narrower_interval() -> None:
    stats, groups = clustered(np.random.default_rng(3))
    _, low, high = bootstrap(stats, groups, share)
    _, low_80, high_80 = bootstrap(stats, groups, share, level=0.8)
    assert low[0] < low_80[0] < high_80[0] < high[0]


@pytest.mark.parametrize(("groups", "samples"), [(["p", "p"], 100), (["p", "q"], 0)])
def test_bounds_are_unknown_with_one_group_or_no_samples(groups: list[str], samples: int) -> None:
    value, low, high = bootstrap(np.array([[1.0, 1], [0, 1]]), groups, share, samples=samples)
    assert value.tolist() == [0.5]
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_memory_is_bounded_by_drawing_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(intervals.blocks(1000, 60)) == 1000
    monkeypatch.setattr(intervals, "CELLS", 600)
    assert list(intervals.blocks(25, 60)) == [10, 10, 5]
    assert list(intervals.blocks(2, 10_000)) == [1, 1]
    stats, groups = clustered(np.random.default_rng(3))
    _, low, high = bootstrap(stats, groups, share)
    assert 0.55 < low[0] < high[0] < 0.85


def test_rows_without_their_group_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows of counts but 1 groups"):
        bootstrap(np.ones((2, 2)), ["p"], share)


def test_marks_of_items_and_raters_by_hand() -> None:
    """Two raters, three items, marks of 4: items 1, 2, 3 by one, a mark more by the other.

    Mean 2.5; sums of deviations by item -2, 0, 2, by rater -1.5, 1.5. Variances: 3/2 * 8 / 36 = 1/3
    with t = 4.3027; 2/1 * 4.5 / 36 = 1/4 with t = 12.706. z² = (18.513 / 3 + 161.44 / 4) / (7/12) =
    79.77; Wilson's of 0.625 * 0.375 / (7/12 / 16) = 6.4286 items.
    """
    marks, items, raters = [1.0, 2, 3, 2, 3, 4], list("xyzxyz"), list("aaabbb")
    mean, low, high = intervals.two_way(marks, items, raters, 4)
    assert mean == 2.5
    squared, size = 79.77, 6.4286
    middle = (0.625 + squared / (2 * size)) / (1 + squared / size)
    reach = squared**0.5 / (1 + squared / size) * (0.234375 / size + squared / (4 * size**2)) ** 0.5
    assert low == pytest.approx(4 * (middle - reach), abs=2e-3)
    assert high == pytest.approx(4 * (middle + reach), abs=2e-3)


def test_marks_by_one_rater_vary_over_items_alone_and_one_item_has_no_interval() -> None:
    _, low, high = intervals.two_way([10.0] * 8, list("abcdefgh"), ["r"] * 8, 10)
    assert low == pytest.approx(10 * 8 / (8 + 2.3646**2), abs=1e-2) and high == 10
    assert np.isnan(intervals.two_way([3.0, 4.0], ["a", "a"], ["r", "s"], 10)[1:]).all()


@pytest.mark.parametrize("raters", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_marks_by_few_raters_who_differ_are_covered(raters: int, spread: float) -> None:
    """30 items (standard deviation 1.8), raters who differ by none, half a mark, a mark."""
    generator, covered = np.random.default_rng(3), 0
    items = [str(i) for i in range(30) for _ in range(raters)]
    for _ in range(200):
        marks = 6 + generator.normal(0, 1.8, (30, 1)) + generator.normal(0, spread, (1, raters))
        given = np.clip(marks + generator.normal(0, 1, (30, raters)), 0, 10).ravel().tolist()
        _, low, high = intervals.two_way(given, items, list("abcde"[:raters]) * 30, 10)
        covered += low <= 6 <= high
    assert covered / 200 >= 0.93
