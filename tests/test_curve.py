"""The learning curve: the law through its points, what more records would bring, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residency.core.errors import UserError
from residency.recipe import Recipe
from residency.synth.clinical_notes import records
from residency.workflows.curve import Curve, Point, answer, curve, fit_law, page, write


def test_a_power_law_is_found_again() -> None:
    """What is missing is 2 n^-0.5: 0.2 at 100, 0.0816 at 600."""
    law = fit_law([(size, 1 - 2 * size**-0.5) for size in (100, 200, 350, 500) for _ in range(3)])
    assert law is not None
    assert (law.scale, law.rate) == (pytest.approx(2), pytest.approx(0.5))
    assert law.later == pytest.approx(1 - 2 / 600**0.5)
    assert law.gain == pytest.approx(2 / 500**0.5 - 2 / 600**0.5)
    assert law.low == pytest.approx(law.gain) and law.high == pytest.approx(law.gain), (
        "points without spread leave no doubt"
    )


def test_losses_fall_by_the_law_themselves() -> None:
    law = fit_law([(size, 3 * size**-0.25) for size in (100, 400)], lower=True)
    assert law is not None and law.now == pytest.approx(3 * 400**-0.25)


def test_points_that_scatter_leave_doubt() -> None:
    law = fit_law([(100, 0.50), (100, 0.62), (200, 0.55), (200, 0.70), (500, 0.66), (500, 0.78)])
    assert law is not None and law.low < law.gain < law.high


def test_perfect_points_and_a_single_size_have_no_law() -> None:
    assert fit_law([(100, 1.0), (200, 1.0)]) is None
    assert fit_law([(100, 0.5), (100, 0.6)]) is None


def of(values: dict[int, float]) -> Curve:
    points = tuple(
        Point(records=n, seed=s, value=v, seconds=10, run="r")
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
    assert answer(of({100: 0.9, 500: 0.905})).endswith("500 are enough here.")
    assert answer(of({100: 0.2, 500: 0.6})).endswith("more records are worth their price.")
    assert "Points" in [section.title for section in page(of({100: 0.2, 500: 0.6})).sections]


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
