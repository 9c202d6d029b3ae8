"""What votes say, against computations that are written in another way."""

from __future__ import annotations

import os
from itertools import product
from random import Random

import numpy as np
import pytest

from residency.evals.preferences import (
    CHOICE,
    Judged,
    davidson,
    power,
    result,
)
from residency.evals.preferences import _pairs as pairs_of
from residency.evals.votes import Vote
from residency.metrics.alpha import alpha, met, table
from residency.metrics.intervals import crossed, crossed_cells, crossed_mean, exact
from residency.metrics.quantiles import beyond

SYSTEMS = ("a", "b", "c")


def votes(systems: tuple[str, ...], items: int, raters: int, seed: int = 7) -> list[Judged]:
    """Fixed votes: with two systems a preference, with three a mark; the later system is better."""
    drawn, found = Random(seed), []
    for item, rater in product(range(items), range(raters)):
        shown = tuple(drawn.sample(systems, len(systems)))
        lengths = tuple(drawn.randint(20, 200) for _ in shown)
        good = [systems.index(one) + drawn.gauss(0.2 * rater, 1.5) for one in shown]
        harmful = tuple(at for at, one in enumerate(good, start=1) if one < -2.5)
        if len(systems) == 2:
            apart = good[0] - good[1]
            choice = 1 if apart > 0.4 else 2 if apart < -0.4 else drawn.choice(["equal", "neither"])
            vote = Vote(item=f"i{item}", choice=choice, harmful=harmful)
        else:
            marks = tuple(min(5, max(1, round(2 + one))) for one in good)
            vote = Vote(item=f"i{item}", marks={"overall": marks}, harmful=harmful)
        found.append(
            Judged(
                item=f"i{item}",
                group=f"g{item // 2}",
                rater=f"r{rater}",
                systems=shown,
                lengths=lengths,
                vote=vote,
            )
        )
    return found


def test_davidsons_strengths_are_those_of_the_likelihood_as_he_wrote_it() -> None:
    """pi_i / (pi_i + pi_j + nu sqrt(pi_i pi_j)), maximised without derivatives."""
    from scipy.optimize import minimize

    pairs = list(pairs_of(votes(SYSTEMS, 30, 3), "overall"))

    def loss(values: np.ndarray) -> float:  # type: ignore[type-arg]
        strength = dict(zip(SYSTEMS, np.exp([0.0, *values[:2]]), strict=True))
        nu, total = np.exp(values[2]), 0.0
        for one in pairs:
            i, j = strength[one.first], strength[one.second]
            tie = nu * (i * j) ** 0.5
            total -= np.log({1: i, 0: j, 0.5: tie}[one.won] / (i + j + tie))
        return float(total)

    found = minimize(
        loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}
    )
    assert davidson(pairs).values == pytest.approx(found.x, abs=1e-5)


def test_with_two_systems_the_chance_is_wins_of_wins_and_losses() -> None:
    found = result(votes(("a", "b"), 40, 6), {})
    (one,) = found.preferences
    assert one.wins + one.losses + one.equal == 240 and one.equal > 10 and found.neither > 0
    assert one.chance.value == pytest.approx(one.wins / (one.wins + one.losses), abs=1e-6)
    assert one.share.value == pytest.approx((one.wins + one.equal / 2) / 240)
    assert one.clear and one.verdict == "b is clearly preferred to a"


def test_effects_of_order_and_length_are_those_of_a_logistic_regression() -> None:
    """Without ties Davidson and Beaver's model is a logistic regression: scikit-learn's."""
    from sklearn.linear_model import LogisticRegression

    pairs = [one for one in pairs_of(votes(SYSTEMS, 40, 3), "overall") if one.won != 0.5]
    rows = [[(one.first == s) - (one.second == s) for s in "bc"] + [1, one.longer] for one in pairs]
    fitted = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(
        rows, [one.won for one in pairs]
    )
    fit = davidson(pairs, effects=True)
    assert fit.values[[0, 1, 3, 4]] == pytest.approx(fitted.coef_[0], abs=1e-4)
    named = {one.name: one.value for one in fit.effects()}
    assert named["stands first"] == pytest.approx(np.exp(fitted.coef_[0][2]), rel=1e-3)


@pytest.mark.parametrize("apart", [0.6, 0.1])
def test_the_variance_of_a_mean_over_items_and_raters_is_that_of_the_mean_squares(
    apart: float,
) -> None:
    """Of a whole table: MS items + MS raters - MS rest, by the number of votes (a random effects
    analysis of variance; raters add nothing less than 0), its degrees of freedom as Satterthwaite
    has them, at least those of the raters."""
    marks = np.random.default_rng(3).normal(size=(20, 4)) + np.arange(4) * apart
    cells = (marks - marks.mean()) / marks.size
    squares_i = 4 * ((marks.mean(1) - marks.mean()) ** 2).sum() / 19
    squares_r = 20 * ((marks.mean(0) - marks.mean()) ** 2).sum() / 3
    rest = marks - marks.mean(1)[:, None] - marks.mean(0) + marks.mean()
    squares_e = (rest**2).sum() / 57
    total = squares_i + squares_r - squares_e
    degrees = total**2 / (squares_i**2 / 19 + squares_r**2 / 3 + squares_e**2 / 57)
    variance, df = crossed(cells)
    assert float(variance) == pytest.approx(max(total, squares_i) / 80)
    if squares_r > squares_e:
        assert float(df) == max(3, np.floor(degrees))


def test_with_one_rater_the_interval_is_over_groups_alone() -> None:
    from scipy.stats import ttest_1samp

    given = votes(("a", "b"), 40, 1)
    pairs = list(pairs_of(given, CHOICE))
    won = [one.won for one in pairs]
    cells, present = crossed_cells(
        np.array(won) - np.mean(won), [p.item for p in pairs], ["r"] * 40
    )
    variance, df = crossed(cells / 40, present)
    assert float(df) == 39
    assert float(variance) ** 0.5 == pytest.approx(np.std(won, ddof=1) / 40**0.5)
    low = ttest_1samp(won, 0.5).confidence_interval().low
    mean, lower, _, _ = crossed_mean(won, [p.item for p in pairs], ["r"] * 40)
    assert lower == pytest.approx(low, abs=0.01) and mean == np.mean(won)


def test_strengths_vary_as_much_as_when_each_group_is_left_out() -> None:
    pairs = list(pairs_of(votes(SYSTEMS, 60, 1), "overall"))
    groups = sorted({one.group for one in pairs})
    left = [davidson([p for p in pairs if p.group != g]).chance("a", "c").value for g in groups]
    logit = np.log(np.array(left) / (1 - np.array(left)))
    n = len(groups)
    error = ((n - 1) / n * ((logit - logit.mean()) ** 2).sum()) ** 0.5
    found = davidson(pairs).chance("a", "c")
    assert found.low is not None and found.high is not None
    wide = np.log(found.high / (1 - found.high)) - np.log(found.low / (1 - found.low))
    assert wide / 2 / 2.045 == pytest.approx(error, rel=0.1)  # t of 29 degrees of freedom


def test_agreement_is_that_of_the_krippendorff_package() -> None:
    import krippendorff

    drawn = Random(2)
    values = [
        [float(min(5, max(1, u % 5 + drawn.choice([0, 0, 1, 2])))) for _ in range(3)]
        for u in range(25)
    ]
    values[4], values[9] = values[4][:2], values[9][:1]
    full = [[unit[r] if r < len(unit) else np.nan for unit in values] for r in range(3)]
    rows, marks = table([met(unit) for unit in values if len(unit) > 1])
    for level, ordinal in (("ordinal", True), ("interval", False)):
        other = krippendorff.alpha(reliability_data=full, level_of_measurement=level)
        assert float(alpha(rows.sum(axis=0), marks, ordinal)) == pytest.approx(other)


def test_harm_is_counted_by_answers_with_exact_intervals() -> None:
    from scipy.stats import binomtest

    given = votes(SYSTEMS, 30, 3)
    found = result(given, {"overall": (1, 5)})
    for one in found.harmful:
        items = {v.item for v in given for at in v.vote.harmful if v.systems[at - 1] == one.name}
        bounds = binomtest(len(items), 30).proportion_ci(method="exact")
        assert one.value == len(items) / 30
        assert (one.low, one.high) == pytest.approx((bounds.low, bounds.high))
    assert found.harms["a"] > found.harms.get("c", 0)
    assert exact(0, 30)[0] == 0 and exact(30, 30)[1] == 1


def test_marks_of_each_scale_are_means_with_intervals_and_yes_and_no_is_not_compared() -> None:
    drawn, given = Random(1), []
    for item, rater in product(range(10), range(3)):
        marks = {
            "suitability": (drawn.randint(1, 5), drawn.randint(3, 5)),
            "understood": (drawn.randint(0, 1), 1),
        }
        vote = Vote(item=f"i{item}", marks=marks)
        given.append(
            Judged(
                item=f"i{item}",
                group=f"i{item}",
                rater=f"r{rater}",
                systems=("x", "y"),
                lengths=(0, 0),
                vote=vote,
            )
        )
    found = result(given, {"suitability": (1, 5), "understood": (0, 1)})
    for scale, at in (("suitability", 0), ("understood", 1)):
        for position, one in enumerate(found.marks[scale]):
            assert one.value == pytest.approx(
                np.mean([g.vote.marks[scale][position] for g in given])
            )
            low, high = ((1, 5), (0, 1))[at]
            assert low <= one.low <= one.value <= one.high + 1e-9 <= high + 1e-6
    assert {one.scale for one in found.preferences} == {"suitability"}
    assert [one.name for one in found.effects["suitability"]] == ["stands first"]


@pytest.mark.parametrize("outcome", [1, 2, "equal"])
def test_votes_that_all_say_the_same_give_figures_and_no_crash(outcome: object) -> None:
    given = [
        Judged(
            item=f"i{n}",
            group=f"i{n}",
            rater=f"r{r}",
            systems=("a", "b"),
            lengths=(9, 9),
            vote=Vote(item=f"i{n}", choice=outcome),  # type: ignore[arg-type]
        )
        for n in range(20)
        for r in range(2)
    ]
    (one,) = result(given, {}).preferences
    assert one.share.value == {1: 1.0, 2: 0.0, "equal": 0.5}[outcome]
    assert one.share.low is not None and 0 <= one.share.low <= one.share.value
    assert one.clear == (outcome != "equal")
    single = result(given[:1], {})
    assert single.preferences[0].share.low is None and not single.preferences[0].clear


def test_p_is_students() -> None:
    from scipy.stats import t

    for value, df in ((2.1, 3), (0.4, 7), (3.3, 40), (-2.0, 2)):
        assert beyond(value, df) == pytest.approx(2 * t.sf(abs(value), df), abs=1e-9)


def test_power_grows_with_items_raters_and_the_preference_and_is_the_level_without_one() -> None:
    assert power(100, 3) < power(100, 5) < power(100, 5, preference=0.7)
    assert power(50, 3) < power(200, 3)
    assert power(100, 3, preference=0.5, studies=2000) <= 0.04  # of one side: 2.5 %


@pytest.mark.sample
@pytest.mark.parametrize(("item_sd", "rater_sd"), [(0.5, 0.1), (0.65, 0.22), (1.0, 0.2)])
def test_intervals_of_simulated_studies_cover_what_they_say(
    item_sd: float, rater_sd: float
) -> None:
    """Share and chance, 100 items, three raters, one vote in five a tie. RESIDENCY_STUDIES: how many
    studies; with 2,000 both cover 93 to 97 %."""
    count = int(os.environ.get("RESIDENCY_STUDIES", "60"))
    generator, middle = np.random.default_rng(11), 0.5
    shift = generator.normal(size=400_000) * (item_sd**2 + rater_sd**2) ** 0.5 + middle
    wins = 1 / (1 + np.exp(-shift))
    true_share = 0.1 + 0.8 * wins.mean()
    covered = np.zeros(2)
    names = [(f"i{i}", f"r{r}") for i in range(100) for r in range(3)]
    for _ in range(count):
        odds = (
            middle + item_sd * generator.normal(size=(100, 1)) + rater_sd * generator.normal(size=3)
        )
        won = (generator.random((100, 3)) < 1 / (1 + np.exp(-odds))).astype(float)
        won[generator.random((100, 3)) < 0.2] = 0.5
        given = [
            Judged(
                item=i,
                group=i,
                rater=r,
                systems=("a", "b"),
                lengths=(1, 1),
                vote=Vote(item=i, choice={1.0: 1, 0.0: 2, 0.5: "equal"}[value]),
            )
            for (i, r), value in zip(names, won.ravel().tolist(), strict=True)
        ]
        pairs = list(pairs_of(given, CHOICE))
        _, low, high, _ = crossed_mean(
            [p.won for p in pairs], [p.group for p in pairs], [p.rater for p in pairs]
        )
        chance = davidson(pairs).chance("a", "b")
        assert chance.low is not None and chance.high is not None
        covered += [low <= true_share <= high, chance.low <= wins.mean() <= chance.high]
    slack = 3 * (0.95 * 0.05 / count) ** 0.5 if count < 1000 else 0
    print(f"covered {covered / count} of {count}")
    assert (covered / count >= 0.93 - slack).all() and (covered / count <= 0.97 + slack).all()
