"""Run tasks of lm-evaluation-harness on the model of a run: python scripts/harness.py RUN TASK...
(docs/guide/evaluation.md)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from residency.core.errors import ResidencyError
from residency.evals.harness import model_of
from residency.models.causal import CausalPredictor
from residency.workflows.finished import artefact_of


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("run", type=Path)
    options.add_argument("tasks", nargs="+", help="names of tasks, or of those in --tasks-in")
    options.add_argument(
        "--tasks-in", type=Path, help="folder with the YAML files of tasks of your own"
    )
    options.add_argument("--limit", type=int, help="only so many items of each task")
    options.add_argument("--bare", action="store_true", help="without the chat template")
    options.add_argument("--output", type=Path, help="file for all results (JSON)")
    given = options.parse_args()
    model = model_of(CausalPredictor.from_artefact(artefact_of(given.run)), chat=not given.bare)

    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(given.tasks_in) if given.tasks_in else None)
    found = lm_eval.simple_evaluate(
        model=model, tasks=given.tasks, limit=given.limit, task_manager=manager
    )
    if given.output:
        given.output.write_text(
            json.dumps(found, indent=1, ensure_ascii=False, default=str) + "\n", "utf-8"
        )
    print(json.dumps(found["results"], indent=1, ensure_ascii=False, default=str))


if __name__ == "__main__":
    try:
        main()
    except ResidencyError as error:
        sys.exit(f"harness: {error}")
