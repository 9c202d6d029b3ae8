"""One of several processes at a stage: ``python -m residency.workflows.torchrun RUN ROOT OUT
STAGE`` under torchrun, started by a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from residency.core.errors import ResidencyError
from residency.core.progress import Silent
from residency.recipe import Recipe, read_yaml
from residency.train import processes
from residency.workflows.run import Work


def main(run: Path, root: Path, out: Path, stage: int) -> None:
    """Train a stage (counted from 0) of a run that has written its recipe, into a folder that the
    run commits."""
    recipe = Recipe.from_mapping(read_yaml(run / "recipe.yaml"), root)
    try:
        Work(recipe, run.parent, Silent()).do_train(out, stage)
    finally:
        processes.leave()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    except ResidencyError as error:
        print(f"{processes.MARK}{error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)  # the others may wait for a message that will not come
