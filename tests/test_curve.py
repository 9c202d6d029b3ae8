"""The learning curve: the law through its points, what more records would bring, and the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from residency.core.errors import UserError
from residency.recipe import Recipe
from residency.synth.clinical_notes import records
from residency.workflows.curve import (
    Curve,
    Point,
    answer,
    curve,
    fit_law,
    page,
    scale_of,
    why_no_law,
    write,
)

SIZES = (100, 200, 350, 500)


def drawn(
    best: float, level: float, rate: float, spread: float, seed: int, sizes: tuple[int, ...] = SIZES
) -> list[tuple[int, float]]:
    """Three runs of each size on the law best - level * n^-rate, scattered."""
    rng = np.random.default_rng(seed)
    return [(n, best - level * n**-rate + rng.normal(0, spread)) for n in sizes for _ in range(3)]


def test_a_power_law_is_found_again() -> None:
    """0.8 - 2 n^-0.5: 0.7106 at 500, 0.7184 at 600."""
    law = fit_law(drawn(0.8, 2, 0.5, 1e-6, 0))
    assert law is not None
    assert law.now == pytest.approx(0.8 - 2 / 500**0.5, abs=2e-3)
    assert law.gain == pytest.approx(2 / 500**0.5 - 2 / 600**0.5, abs=2e-3)


def test_losses_fall_by_the_law_themselves() -> None:
    points = [(n, -value) for n, value in drawn(0, 3, 0.25, 1e-4, 0)]
    law = fit_law(points, lower=True, scale=math.inf)
    assert law is not None and law.now == pytest.approx(3 * 500**-0.25, abs=5e-3)
    assert law.later < law.now and law.gain > 0


def test_a_metric_of_100_keeps_its_own_scale() -> None:
    law = fit_law([(n, 100 * value) for n, value in drawn(0.5, 2, 0.5, 1e-3, 0)], scale=100)
    assert law is not None and law.best <= 100 and law.later > law.now > 30
    assert scale_of("bleu") == 100 and scale_of("span_f1") == 1 and scale_of("loss") == math.inf


@pytest.mark.parametrize("best", [0.6, 0.8, 1.0])
def test_the_interval_of_the_gain_covers_it_whatever_the_end_of_the_law(best: float) -> None:
    covered = known = 0
    for seed in range(40):
        law = fit_law(drawn(best, 2, 0.5, 0.012, seed))
        if law is not None:
            known += 1
            covered += law.low <= 2 / 500**0.5 - 2 / 600**0.5 <= law.high
    assert known >= 30 and covered >= 0.85 * known


@pytest.mark.parametrize("end", [0.6, 1.0])
@pytest.mark.parametrize("shape", ["exponential", "gompertz", "arctan"])
def test_the_interval_covers_the_gain_of_laws_that_are_no_power_laws(
    shape: str, end: float
) -> None:
    """At 500 records the first two are close to their end, which a power law never is."""

    def law(n: float) -> float:
        return {
            "exponential": end - (end - 0.1) * math.exp(-n / 250),
            "gompertz": end * math.exp(-1.6 * math.exp(-n / 250)),
            "arctan": end * 2 / math.pi * math.atan(n / 120),
        }[shape]

    rng, covered, known = np.random.default_rng(5), 0, 0
    for _ in range(20):
        points = [(n, law(n) + rng.normal(0, 0.012)) for n in SIZES for _ in range(3)]
        if (found := fit_law(points)) is not None:
            known += 1
            covered += found.low <= law(600) - law(500) <= found.high
    assert known >= 15 and covered >= 0.85 * known


def test_points_that_jump_carry_no_law() -> None:
    jump = {100: 0.5, 200: 0.5, 350: 0.7, 500: 0.7}
    points = [(n, jump[n] + 0.002 * seed) for n in SIZES for seed in range(3)]
    assert fit_law(points) is None
    assert "no law passes through the points" in why_no_law(points, False, 1.0)


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ([(n, 0.002) for n in SIZES for _ in range(3)], "nothing was learned"),
        (drawn(0.6, 0, 1, 0.01, 1), "no gain that is larger than the scatter"),
        (drawn(0.6, -1, 0.5, 0.001, 1), "no gain that is larger than the scatter"),
        ([(n, 1.0) for n in SIZES for _ in range(3)], "nothing is missing"),
        (drawn(0.8, 2, 0.5, 0.01, 1, (100, 200)), "two sizes show no law"),
        ([(100, 0.5), (200, 0.6), (500, 0.7)], "give --seeds 3"),
    ],
)
def test_points_that_carry_no_law_give_no_advice(points: list[tuple[int, float]], why: str) -> None:
    assert fit_law(points) is None and why in why_no_law(points, False, 1.0)


def of(values: dict[int, float]) -> Curve:
    points = tuple(
        Point(records=n, seed=s, value=v + 0.0005 * s, seconds=10, run="r")
        for n, v in values.items()
        for s in range(3)
    )
    law = fit_law([(one.records, one.value) for one in points])
    return Curve(
        name="x",
        metric="span_f1",
        lower=False,
        points=points,
        law=law,
        full=None,
        device="a machine",
    )


def test_the_answer_is_a_sentence() -> None:
    enough = {100: 0.88, 200: 0.899, 350: 0.9005, 500: 0.901}
    assert answer(of(enough)).endswith("500 are enough here.")
    rising = {100: 0.2, 200: 0.34, 350: 0.47, 500: 0.57}
    assert answer(of(rising)).endswith("more records are worth their price.")
    assert "No advice" in answer(of({100: 0.0, 200: 0.001, 500: 0.002}))
    assert "Points" in [section.title for section in page(of(rising)).sections]


@pytest.mark.training
def test_each_point_is_a_run_that_is_found_again(tmp_path: Path) -> None:
    rows = [
        {
            "id": note.id,
            "group": note.group,
            "text": note.text,
            "entities": [{"start": s.start, "end": s.end, "label": s.label} for s in note.spans],
        }
        for note in records("vi", 60, seed=1)
    ]
    (tmp_path / "notes.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
    )
    given = {
        "schema": 1,
        "name": "few",
        "base": "bundled:tiny-encoder",
        "data": {"notes": {"format": "jsonl", "path": "notes.jsonl", "lang": "vi"}},
        "tasks": [{"card": "clinical", "data": "notes"}],
        "stages": [{"method": {"kind": "lora"}, "steps": 3, "batch": 4}],
        "evaluate": {"bootstrap": 0},
    }
    recipe = Recipe.from_mapping(given, tmp_path)
    found = curve(recipe, tmp_path / "runs", (10, 20, 9999), seeds=1)
    assert [(point.records, point.seed) for point in found.points] == [(10, 0), (20, 0)]
    assert found.full is not None and found.full.records == 20
    assert write(found, tmp_path / "out").is_file()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/facts.json")}
    assert curve(recipe, tmp_path / "runs", (10, 20), seeds=1) == found
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/facts.json")
    } == before
    with pytest.raises(UserError, match="fewer than two; give smaller ones"):
        curve(recipe, tmp_path / "runs", (1000, 2000), seeds=1)
