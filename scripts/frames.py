"""How many functions of ours stand on the way of a row, a run and a score, measured on the demo's
invented hospital (its database, a few patients, one training step).

    python scripts/frames.py

A frame is a function on the stack that stands in a file of ``src/residency``; comprehensions,
generator expressions, lambdas and the command line are left out. Of a way that has several legs
(a note lies in files between them) each leg is counted from the verb's own function, and the
deepest is the figure.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

OURS = f"{os.sep}residency{os.sep}"
SCORERS = ("evals/measure.score", "evals/evaluate.score")
"""What is given predictions and asked for a report, now and before."""
WAYS = (".bootstrap", ".tally", ".statistics")
"""A prediction is counted, and counts become a score, in these; errors are listed beside them."""
LEFT_OUT = ("<", "__getattr__", "__init__")
PATIENTS = 6
CHANGES = ("stages[0].epochs=0.2", "evaluate.bootstrap=0")


def stack(frame: FrameType | None) -> list[str]:
    """The functions of ours on the stack, the innermost first."""
    found = []
    while frame is not None:
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if OURS in path and f"{OURS}cli{os.sep}" not in path and not name.startswith(LEFT_OUT):
            found.append(f"{path.rpartition(OURS)[2].removesuffix('.py')}.{name}")
        frame = frame.f_back
    return found


class Depths:
    """The stacks on which values of some types were first returned, and the training loop begun."""

    def __init__(self) -> None:
        self.first: dict[str, list[str]] = {}
        self.scoring: list[str] = []

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        path = frame.f_code.co_filename
        if event == "return" and OURS in path:
            kind = type(value).__name__
            if kind in ("RawNote", "Note", "Example", "Item", "RowOutcome") and "core" not in path:
                key = f"{kind} in {self._room(path)}"
                if key not in self.first:
                    self.first[key] = stack(frame)
        elif event == "call":
            name = frame.f_code.co_name
            if name == "train" and path.endswith("transformers/trainer.py"):
                self.first.setdefault("training loop", stack(frame))
            elif f"{OURS}metrics{os.sep}" in path:
                found = stack(frame)
                first = next((i for i, name in enumerate(found) if name in SCORERS), None)
                counted = any(name.endswith(WAYS) for name in found)
                if counted and first is not None and first >= len(self.scoring):
                    self.scoring = found[: first + 1]

    @staticmethod
    def _room(path: str) -> str:
        return Path(path.rpartition(OURS)[2]).parts[0]


def watch(work: Callable[[], object]) -> Depths:
    depths = Depths()
    sys.setprofile(depths)
    try:
        work()
    finally:
        sys.setprofile(None)
    return depths


def cli(*arguments: object) -> None:
    from residency.cli import app

    app([str(one) for one in arguments], standalone_mode=False)


def measure(verbose: bool = False) -> dict[str, int]:
    """Name -> frames."""
    os.environ["RESIDENCY_KEY"] = "0" * 64
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        hospital = project(work)
        legs = {
            "extract": watch(lambda: cli("extract", hospital)),
            "deid": watch(lambda: cli("deid", hospital)),
            "run": watch(lambda: cli("run", hospital, *CHANGES, "--runs", work / "runs")),
        }
    run = legs["run"]
    rows = {
        f"{leg}: {what}": names
        for leg, depths in legs.items()
        for what, names in depths.first.items()
        if what != "training loop"
    }
    scoring = run.scoring
    if verbose:
        for what, names in [
            *rows.items(),
            ("training loop", run.first["training loop"]),
            ("score", scoring),
        ]:
            print(f"{len(names):3}  {what}: {' < '.join(names)}")
    return {
        "frames from a database row to a training example": max(map(len, rows.values())),
        "frames from run to the training loop": len(run.first["training loop"]),
        "frames from a prediction to its score": len(scoring),
    }


def project(folder: Path) -> Path:
    try:
        from residency.workflows.init import write_hospital_project
    except ImportError:  # an older tree
        from residency.starters import write_hospital_project
    os.chdir(folder)
    write_hospital_project(Path("ward"), "vi", patients=PATIENTS)
    return Path("ward/recipe.yaml")


if __name__ == "__main__":
    for name, value in measure(verbose="-v" in sys.argv).items():
        print(f"{value:>8}  {name}")
