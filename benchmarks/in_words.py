"""Entities in words: the bundled causal model writes JSON instead of marking, on Vietnamese
sentences; what could not be read.

VietBioNER, the first records of train and of dev as published; the same records by the bundled
encoder, which marks. The defaults of a recipe decide everything else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from _common import child, parser, report, run, say, shared_data


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--limit", type=int, default=300, help="training records")
    options.add_argument("--test", type=int, default=150)
    options.add_argument("--child", nargs=2, metavar=("RECIPE", "RUNS"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(measured(Path(given.child[0]), Path(given.child[1]))))
        return
    if given.quick:
        given.limit, given.test = 16, 4
    rows: list[list[str]] = []
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, base, output in (
            ("words", "bundled:tiny-lm", "text"),
            ("marks", "bundled:tiny-encoder", "head"),
        ):
            path = work / f"{name}.yaml"  # JSON is YAML
            path.write_text(json.dumps(recipe(name, base, output, given)), "utf-8")
            found[name], _ = child([__file__, "--child", path, work / "runs"], given.threads)
            for one in found[name]["systems"]:
                rows.append(
                    [
                        name,
                        one["system"],
                        str(one["n"]),
                        f"{one['f1'][0]:.3f} [{one['f1'][1]:.3f}, {one['f1'][2]:.3f}]",
                        f"{one['unreadable'] / one['n']:.1%}",
                        f"{one['repaired'] / one['n']:.1%}",
                        f"{found[name]['seconds']:.0f}" if one["system"] == "tuned" else "-",
                    ]
                )
                say(" ".join(rows[-1]))
    columns = ("how", "system", "n", "strict span F1", "unreadable", "repaired", "training seconds")
    report("in-words", given, columns, rows, measurements=found)


def recipe(name: str, base: str, output: str, given: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    folder = shared_data() / "vi/vietbioner"
    source = {
        "format": "conll",
        "train": str(next(folder.glob("train*"))),
        "test": str(next(folder.glob("dev*"))),
        "lang": "vi",
        "profile": "public",
        "limit": given.limit,
    }
    return {
        "schema": 1,
        "name": name,
        "seed": 7,
        "base": base,
        "data": {"sentences": source},
        "tasks": [{"card": "ner", "data": "sentences", "output": output}],
        "stages": [{"method": {"kind": "lora"}}],
        "evaluate": {"limit": given.test},
    }


def measured(path: Path, runs: Path) -> dict[str, Any]:
    """One run in this process."""
    import residency
    from residency import Recipe
    from residency.workflows.finished import finished_facts

    facts = finished_facts(residency.run(Recipe.load(path), runs))
    systems = []
    for one in facts.reports:
        f1 = next(score for score in one.scores if score.metric == "span_f1")
        systems.append(
            {
                "system": one.system.name,
                "n": one.n,
                "f1": (f1.value, f1.low or 0.0, f1.high or 0.0),
                "unreadable": one.failures,
                "repaired": one.repaired,
            }
        )
    return {
        "systems": systems,
        "seconds": facts.stages[0].seconds,
        "settings": facts.stages[0].settings,
    }


if __name__ == "__main__":
    run(main)
