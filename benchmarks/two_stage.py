"""General questions first, then one department's: P-Tuning v2 and then Freeze, beside one stage
with as many steps.

Huatuo's general file, then its liver cancer file, on the bundled causal model. Held-out loss and
ROUGE-L on both files for the base, after stage 1 and after stage 2, and for LoRA and full tuning
that learn the liver file alone in as many steps as both stages together. Held-out parts as in
``huatuo.py``; the references of both files were written by a model. The prefix has the published
rate, the others their defaults; what is measured decides nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from _common import child, parser, report, run, say
from huatuo import write_parts
from residency.core.types import RunFacts

METRICS = ("loss", "rouge_l")
COLUMNS = (
    "system",
    "general: loss",
    "general: ROUGE-L",
    "liver: loss",
    "liver: ROUGE-L",
    "training seconds",
)
NAMES = {
    "base": "base",
    "1-prefix": "stage 1: prefix, general",
    "2-freeze": "stage 2: freeze, liver",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--steps", type=int, default=60, help="optimiser steps of each stage (default 60)"
    )
    options.add_argument(
        "--test", type=int, default=60, help="test records of each file (default 60)"
    )
    options.add_argument(
        "--roads",
        nargs="+",
        choices=("two-stage", "lora", "full"),
        default=["two-stage", "lora", "full"],
    )
    options.add_argument(
        "--runs", type=Path, help="keep the runs here, and go on from what is there"
    )
    options.add_argument("--child", nargs=2, metavar=("RECIPE", "RUNS"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(measured(Path(given.child[0]), Path(given.child[1]))))
        return
    if given.quick:
        given.steps, given.test = 2, 4
    rows: list[list[str]] = []
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = {name: write_parts(name, work) for name in ("general", "liver")}
        for name in given.roads:
            stages = roads(given.steps)[name]
            recipe = work / f"{name}.yaml"  # JSON is YAML
            recipe.write_text(json.dumps(settings(name, stages, data, given)), "utf-8")
            result, _ = child(
                [__file__, "--child", recipe, given.runs or work / "runs"], given.threads
            )
            found.append({"road": name, **result})
            rows += lines(name, result)
            for line in rows[-len(result["scores"]) :]:
                say(" ".join(line))
    report("two-stage", given, COLUMNS, rows, references="model-written", measurements=found)


def lines(road: str, result: dict[str, Any]) -> list[list[str]]:
    """A line of the table for each system of a road."""
    made = []
    for system, scores in result["scores"].items():
        took = result["seconds"].get(system)
        shown = NAMES.get(system, f"one stage: {road}, liver")
        made.append([shown, *cells(scores), f"{took:.0f}" if took else "-"])
    return made


def roads(steps: int) -> dict[str, list[dict[str, Any]]]:
    """The stages of each road; all have as many steps in all."""
    common = {"batch": 16, "stop": None}
    return {
        "two-stage": [
            {
                "tasks": ["general"],
                "method": {"kind": "prefix", "length": 32},
                "learning_rate": 1e-2,
                "steps": steps,
                **common,
            },
            {"tasks": ["liver"], "method": {"kind": "freeze", "last": 2}, "steps": steps, **common},
        ],
        "lora": [
            {
                "name": "lora",
                "tasks": ["liver"],
                "method": {"kind": "lora"},
                "steps": 2 * steps,
                **common,
            }
        ],
        "full": [
            {
                "name": "full",
                "tasks": ["liver"],
                "method": {"kind": "full"},
                "steps": 2 * steps,
                **common,
            }
        ],
    }


def settings(
    name: str,
    stages: list[dict[str, Any]],
    data: dict[str, dict[str, Any]],
    given: argparse.Namespace,
) -> dict[str, Any]:
    """The recipe of one road."""
    common = {
        "format": "alpaca",
        "lang": "zh",
        "origin": "model:gpt-3.5",
        "profile": "public",
        "limit": 1600,
    }
    return {
        "schema": 1,
        "name": f"two-stage-{name}",
        "base": "bundled:tiny-lm",
        "data": {
            "general": {**common, **data["general"]},
            "liver": {**common, **data["liver"], "packed": {}, "names": {"id": ""}},
        },
        "tasks": [
            {"card": "qa", "name": one, "data": one, "generate": {"max_tokens": 64}}
            for one in ("general", "liver")
        ],
        "stages": stages,
        "evaluate": {"limit": given.test, "baselines": ["base"] if name == "two-stage" else []},
    }


def cells(scores: dict[str, dict[str, list[float]]]) -> list[str]:
    """Both metrics on both files, with intervals."""
    return [
        "{:.3f} [{:.3f}, {:.3f}]".format(*scores[file][metric])
        for file in ("general", "liver")
        for metric in METRICS
    ]


def measured(recipe: Path, runs: Path) -> dict[str, Any]:
    """One road in this process."""
    import residency
    from residency import Recipe
    from residency.workflows.finished import finished_facts

    return summary(finished_facts(residency.run(Recipe.load(recipe), runs)))


def summary(facts: RunFacts) -> dict[str, Any]:
    """What a finished run measured."""
    scores: dict[str, dict[str, dict[str, list[float]]]] = {}
    tests = []
    for one in facts.reports:
        values = {
            s.metric: [s.value, s.low or 0.0, s.high or 0.0]
            for s in one.scores
            if s.metric in METRICS
        }
        scores.setdefault(one.system.name, {})[one.task] = values
        tests += [
            {
                "file": one.task,
                "metric": t.metric,
                "a": t.a,
                "b": t.b,
                "difference": t.difference,
                "low": t.low,
                "high": t.high,
                "p": t.p,
            }
            for t in one.comparisons
            if t.metric in METRICS
        ]
    names = [stage.name if len(facts.stages) > 1 else "tuned" for stage in facts.stages]
    return {
        "n": {one.task: one.n for one in facts.reports},
        "scores": scores,
        "tests": tests,
        "seconds": dict(zip(names, (stage.seconds for stage in facts.stages), strict=True)),
        "trainable": {stage.name: stage.trainable for stage in facts.stages},
        "settings": {stage.name: stage.settings for stage in facts.stages},
    }


if __name__ == "__main__":
    run(main)
