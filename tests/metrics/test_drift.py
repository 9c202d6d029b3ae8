"""Drift: evidence against hand-made integrals, and years of laws that the detector does not know.

``RESIDENCY_YEARS`` says how many years without a change are drawn (2,000 for the figures of
docs/benchmarks.md, which then come of three corpora and are printed).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from residency.metrics import drift
from residency.metrics.counts import f1
from residency.metrics.drift import Array as Counted
from residency.metrics.intervals import upper_bound

YEARS = int(os.environ.get("RESIDENCY_YEARS", "60"))
SHARED = Path(os.environ.get("RESIDENCY_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))


def notes(seed: int, size: int = 300, right: float = 5.0) -> Counted:
    """Counts [notes, 3 labels, 3] of notes that differ in length and in how hard they are."""
    chance = np.random.default_rng(seed)
    hard = chance.beta(right, 1.5, size=(size, 1))
    there = chance.negative_binomial(2, 0.3, size=(size, 3))
    hits = chance.binomial(there, hard)
    return np.stack([hits, chance.poisson(0.7 * (there - hits)), there - hits], axis=-1)


def peaks(counts: Counted, labelled: int, years: int, **change: float) -> Counted:
    """The combined evidence [years, weeks]."""
    size = np.full(drift.YEAR, float(labelled))
    drawn = drift.years(counts, labelled, years, 300, **change)  # type: ignore[arg-type]
    return np.array([drift.combined(one, drift.evidence(one, weeks, size)) for one, weeks in drawn])


@pytest.mark.parametrize(("change", "variance"), [(-0.05, 0.0004), (0.02, 0.0009), (-0.2, 0.001)])
def test_the_bayes_factor_is_the_mean_over_half_normal_falls(
    change: float, variance: float
) -> None:
    falls = np.linspace(0, 0.6, 200_001)
    prior = 2 * np.exp(-0.5 * (falls / drift.SCALE) ** 2) / (drift.SCALE * np.sqrt(2 * np.pi))
    ratio = np.exp((change**2 - (change + falls) ** 2) / (2 * variance))
    wanted = np.trapezoid(prior * ratio, falls)
    found = drift.bayes_factor(np.array(change), np.array(variance))
    assert found == pytest.approx(wanted, rel=1e-4)


def test_the_linear_form_gives_the_f1_of_a_week_exactly() -> None:
    week, whole = notes(1, 40), notes(2)
    baseline = drift.baseline_of(whole)
    sums = drift.moments(week).sum(axis=0)
    change = drift.linear(sums, baseline.f1) / drift.items_of(sums)
    assert change[0] == pytest.approx(f1(week.sum(axis=(0, 1))) - f1(whole.sum(axis=(0, 1))))
    x = drift.linear(drift.moments(week), baseline.f1)
    assert drift.squares_of(sums, baseline.f1) == pytest.approx((x**2).sum(axis=0))


@pytest.mark.parametrize("labelled", [15, 100])
def test_years_without_a_change_seldom_alarm_where_the_literal_rule_nearly_always_does(
    labelled: int,
) -> None:
    counts = notes(3, 2000)
    alarms = (peaks(counts, labelled, YEARS) >= drift.THRESHOLD).any(axis=1)
    assert alarms.sum() <= YEARS * 0.1
    called = [
        drift.literal(one, weeks, 0.05, relative=False).any()
        for one, weeks in drift.years(counts, labelled, YEARS, 300)
    ]
    assert np.mean(called) > (0.9 if labelled == 15 else 0.3) > alarms.mean()


def test_a_large_fall_is_found_sooner_than_a_small_one_and_more_labels_find_it_sooner() -> None:
    counts = notes(4, 2000)

    def delay(labelled: int, fall: float) -> float:
        found = peaks(counts, labelled, 30, fall=fall, begins=10)[:, 10:] >= drift.THRESHOLD
        return float(np.median(np.where(found.any(axis=1), found.argmax(axis=1) + 1, 99)))

    assert delay(100, 0.1) <= 2 < delay(15, 0.1) < delay(15, 0.05)


def test_a_fall_of_one_label_is_found_there() -> None:
    counts = notes(5, 600)
    baseline = drift.baseline_of(counts[:300])
    field = counts[300:].copy()
    lost = field[150:, 1, 0] // 2
    field[150:, 1] += lost[:, None] * np.array([-1, 1, 1])
    weeks = drift.moments(field).reshape(10, 30, 4, 6).sum(axis=1)
    whole, *labels = drift.judge(baseline, weeks, np.full(10, 30.0), 0.05)
    assert [one.verdict == "drift" for one in labels] == [False, True, False]
    assert whole.verdict == "drift" and labels[1].fall > 0.2


def test_what_is_undecided_says_how_many_more_and_so_many_do_decide() -> None:
    counts = notes(6, 4000)
    baseline = drift.baseline_of(counts[:2000])
    few = drift.moments(counts[2000:2020]).sum(axis=0)[None]
    one = drift.judge(baseline, few, np.array([20.0]), 0.05)[0]
    assert one.verdict == "undecided" and 20 < one.needed < 1500
    more = counts[2000 : 2020 + 2 * one.needed]
    weeks = drift.moments(more).sum(axis=0)[None]
    assert drift.judge(baseline, weeks, np.array([float(len(more))]), 0.05)[0].verdict == "no drift"


def test_a_baseline_of_few_notes_says_that_no_number_decides() -> None:
    counts = notes(7, 500)
    weeks = drift.moments(counts[25:]).reshape(19, 25, 4, 6).sum(axis=1)
    one = drift.judge(drift.baseline_of(counts[:25]), weeks, np.full(19, 25.0), 0.02)[0]
    assert (one.verdict, one.needed) == ("undecided", 0)


@pytest.mark.parametrize(("noise", "helps"), [(0.5, True), (8.0, False)])
def test_a_proxy_takes_part_only_where_it_correlates(noise: float, helps: bool) -> None:
    chance = np.random.default_rng(8)
    truth = chance.normal(size=3000)
    proxy = truth + chance.normal(scale=noise, size=3000)
    known = drift.proxy_of(truth[:300], proxy[:300])
    assert (known.slope > 0) == helps
    errors, plain = [], []
    for _ in range(400):
        all_of_week = chance.choice(3000, 300)
        labelled = all_of_week[:30]
        mean, variance = drift.powered(truth[labelled], proxy[labelled], proxy[all_of_week], known)
        errors.append((mean - truth.mean()) / variance**0.5)
        plain.append((mean - truth.mean()) ** 2 / (truth.var() / 30))
    assert 0.9 < np.std(errors) < 1.15  # the variance that it states is what it has
    assert np.mean(plain) < 0.5 if helps else 0.8 < np.mean(plain) < 1.3


def crf_counts(corpus: str) -> Counted:
    """Counts of the notes of a corpus's test part, by a CRF of its training part."""
    from residency.core.part import parse
    from residency.corpus.load import Data, load
    from residency.metrics.spans import count
    from residency.models.base import NO_BASE
    from residency.tasks.card import load_card
    from residency.tasks.examples import examples, fixed
    from residency.train.stage import Stage
    from residency.workflows.suggest import fit_on_notes

    parts = {
        "vietbioner": {"train": "vi/vietbioner/train.txt", "test": "vi/vietbioner/dev.txt"},
        "ncbi": {"train": "en/ncbi_disease/train.tsv", "test": "en/ncbi_disease/devel.tsv"},
        "cmedqaner": {"train": "zh/cmedqaner/train.json", "test": "zh/cmedqaner/dev.json"},
    }[corpus]
    fields = {"entities": "mention_data", "start": "offset", "label": "type", "quote": "mention"}
    how = {"format": "jsonl", "fields": fields} if corpus == "cmedqaner" else {"format": "conll"}
    data: Any = parse(Data, {**how, **parts, "stop": 0}, "data.x")
    found = load(data, "x", SHARED, 0)
    train = found.part("train")[: 1000 if YEARS > 60 else 150]
    card = fixed(load_card("ner", Path()), train, "data.x")
    stage: Stage = parse(Stage, {"method": {"kind": "crf"}}, "stage")
    asked = examples(found.part("test"), card)
    model = fit_on_notes(NO_BASE, card, train, stage, 0)
    rows = []
    for example, said in zip(asked, model.predict(asked), strict=True):
        counted = count(example.gold.spans, said.answer.spans)  # type: ignore[union-attr]
        rows.append(
            [[getattr(counted.get(one), k, 0) for k in ("tp", "fp", "fn")] for one in card.names]
        )
    return np.array(rows)


@pytest.mark.data
@pytest.mark.sample
@pytest.mark.skipif(not SHARED.is_dir(), reason="no real corpora; set RESIDENCY_SHARED_DATA")
@pytest.mark.parametrize("corpus", ["vietbioner", "ncbi", "cmedqaner"][: 3 if YEARS > 60 else 1])
def test_years_of_real_notes(corpus: str) -> None:
    counts = crf_counts(corpus)
    for labelled in (15, 30, 100) if YEARS > 60 else (30,):
        alarms = (peaks(counts, labelled, YEARS) >= drift.THRESHOLD).any(axis=1).sum()
        print(f"{corpus} {labelled}: {alarms} of {YEARS}, at most {upper_bound(alarms, YEARS):.3f}")
        assert upper_bound(alarms, YEARS) <= (0.065 if YEARS >= 1000 else 0.15)
        for fall in (0.03, 0.05, 0.1) if YEARS > 60 else ():
            after = peaks(counts, labelled, 400, fall=fall, begins=10)[:, 10:] >= drift.THRESHOLD
            when = np.where(after.any(axis=1), after.argmax(axis=1) + 1, 99)
            literal = [
                np.append(drift.literal(one, weeks, 0.05, relative=False)[10:], True).argmax() + 1
                for one, weeks in drift.years(counts, labelled, 400, 300, fall, 10)
            ]
            print(
                f"  {fall}: median {np.median(when):g}, p90 {np.quantile(when, 0.9):g} (99: not), "
                f"found {after.any(axis=1).mean():.2f}; literal rule {np.median(literal):g}"
            )
