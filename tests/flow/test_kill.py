"""A run that is killed and started again ends with the numbers of a run that was left in peace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT


@pytest.mark.training
def test_a_killed_run_ends_with_identical_numbers_and_nothing_half_written(
    project: Path, tmp_path: Path
) -> None:
    recipe = project / "recipe.yaml"
    recipe.write_text(recipe.read_text("utf-8").replace("steps: 10", "steps: 30"), "utf-8")
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "scripts" / "kill_test.py",
            recipe,
            "--kills",
            "2",
            "--checkpoint",
            "0.1",
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical to the undisturbed run" in done.stdout
    assert "span_f1 0." in done.stdout
