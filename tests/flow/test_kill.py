"""A run that is killed and started again ends with the numbers of a run that was left in peace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.training
def test_a_killed_run_ends_with_identical_numbers_and_nothing_half_written(
    project: Path, killed: Callable[[Path], str]
) -> None:
    recipe = project / "recipe.yaml"
    recipe.write_text(recipe.read_text("utf-8").replace("steps: 10", "steps: 30"), "utf-8")
    said = killed(recipe)
    assert "identical to the undisturbed run" in said
    assert "span_f1 0." in said
