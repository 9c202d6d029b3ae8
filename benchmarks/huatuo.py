"""Questions and answers of the Huatuo files: the bundled causal model as it is, with LoRA, and
tuned in full.

The held-out parts are those fixed before pre-training: records whose instruction's SHA-256 modulo
10 is 9 are the test part, 8 the part that early stopping looks at, the rest train. The references
of both files were written by a model. Each method is a recipe that leaves rate, batch and stopping
to the defaults; what is measured decides nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from _common import child, parser, report, run, say, shared_data

FILES = {"general": "zh/huatuo/general_qa.jsonl", "liver": "zh/huatuo/liver_cancer.json"}
SHOWN = ("loss", "rouge_l", "bleu", "chrf")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--files", nargs="+", choices=FILES, default=list(FILES))
    options.add_argument("--methods", nargs="+", choices=("lora", "full"), default=["lora", "full"])
    options.add_argument("--limit", type=int, help="training records (default: all)")
    options.add_argument("--epochs", type=float, help="passes (default: the recipe's own choice)")
    options.add_argument(
        "--test", type=int, default=200, help="test records that are answered (default 200)"
    )
    options.add_argument("--child", nargs=2, metavar=("RECIPE", "RUNS"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(measured(Path(given.child[0]), Path(given.child[1]))))
        return
    if given.quick:
        given.limit, given.test, given.epochs = 32, 8, 1
    rows: list[list[str]] = []
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in given.files:
            data = write_parts(name, work)
            for method in given.methods:
                recipe = work / f"{name}-{method}.yaml"  # JSON is YAML
                recipe.write_text(json.dumps(settings(name, method, data, given)), "utf-8")
                result, _ = child([__file__, "--child", recipe, work / "runs"], given.threads)
                found.append({"file": name, "method": method, **result})
                for system in ("base", "tuned"):
                    if system == "tuned" or method == given.methods[0]:
                        rows.append(
                            row(name, method if system == "tuned" else "base", result, system)
                        )
                        say(" ".join(rows[-1]))
    columns = (
        "file",
        "system",
        "n",
        "loss",
        "ROUGE-L",
        "BLEU",
        "chrF",
        "loss to base",
        "ROUGE-L to base",
        "seconds",
    )
    report("huatuo", given, columns, rows, references="model-written", measurements=found)


def row(name: str, shown: str, result: dict[str, Any], system: str) -> list[str]:
    """One line of the table."""
    scores = result["scores"][system]
    cells = [f"{scores[m][0]:.3f} [{scores[m][1]:.3f}, {scores[m][2]:.3f}]" for m in SHOWN]
    tests = [
        f"{t['difference']:+.3f} [{t['low']:+.3f}, {t['high']:+.3f}]" if system == "tuned" else "-"
        for t in (result["tests"]["loss"], result["tests"]["rouge_l"])
    ]
    return [
        name,
        shown,
        str(result["n"]),
        *cells,
        *tests,
        f"{result['seconds']:.0f}" if system == "tuned" else "-",
    ]


def write_parts(name: str, work: Path) -> dict[str, Any]:
    """Write the three parts by hash of the instruction; the settings that read them."""
    text = (shared_data() / FILES[name]).read_text("utf-8")
    records = (
        json.loads(text)
        if text.lstrip().startswith("[")
        else [json.loads(line) for line in text.splitlines()]
    )
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "dev": [], "test": []}
    for record in records:
        tenth = int(hashlib.sha256(record["instruction"].encode()).hexdigest(), 16) % 10
        parts["test" if tenth == 9 else "dev" if tenth == 8 else "train"].append(record)
    for part, chosen in parts.items():
        (work / f"{name}-{part}.json").write_text(json.dumps(chosen, ensure_ascii=False), "utf-8")
    return {part: f"{name}-{part}.json" for part in parts}


def settings(
    name: str, method: str, data: dict[str, Any], given: argparse.Namespace
) -> dict[str, Any]:
    """The recipe of one run."""
    more = {"packed": {}, "names": {"id": ""}} if name == "liver" else {}
    stage: dict[str, Any] = {"method": {"kind": method}}
    if given.epochs:
        stage["epochs"] = given.epochs
    return {
        "schema": 1,
        "name": f"huatuo-{name}-{method}",
        "base": "bundled:tiny-lm",
        "data": {
            "huatuo": {
                "format": "alpaca",
                **data,
                **more,
                "lang": "zh",
                "origin": "model:gpt-3.5",
                "profile": "public",
                "limit": given.limit,
            }
        },
        "tasks": [{"card": "qa", "data": "huatuo"}],
        "stages": [stage],
        "evaluate": {"limit": given.test},
    }


def measured(recipe: Path, runs: Path) -> dict[str, Any]:
    """One run in this process."""
    import residency
    from residency import Recipe
    from residency.workflows.finished import finished_facts

    facts = finished_facts(residency.run(Recipe.load(recipe), runs))
    base, tuned = facts.reports
    scores = {
        one.system.name: {s.metric: (s.value, s.low or 0.0, s.high or 0.0) for s in one.scores}
        for one in (base, tuned)
    }
    tests = {
        t.metric: {"difference": t.difference, "low": t.low, "high": t.high, "p": t.p}
        for t in tuned.comparisons
    }
    stage = facts.stages[0]
    return {
        "n": tuned.n,
        "scores": scores,
        "tests": tests,
        "seconds": stage.seconds,
        "settings": stage.settings,
    }


if __name__ == "__main__":
    run(main)
