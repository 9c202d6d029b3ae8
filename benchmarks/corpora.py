"""Three public corpora with the bundled encoder: pre-trained against the same shape from scratch,
full tuning and LoRA.

VietBioNER, cMedQANER, and NCBI disease (ncbi-1500: its first 1,500 training sentences; ncbi: all)
as their authors published them; strict F1 with its 95 % interval on the authors' development parts.

  full   every weight, --epochs passes over all of train, the last model kept: nothing is chosen by looking at anything
  lora   a recipe that leaves every setting out: the stop part is drawn from train

From scratch means random weights of the same configuration (another draw for each seed) with the
same tokenizer.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from _common import TINY, child, parser, report, run, say, shared_data
from residency.core.errors import UserError
from residency.core.part import parse
from residency.corpus.load import Data, load
from residency.corpus.write import write_jsonl
from residency.models.base import BaseModelSettings, resolve

CHINESE = {"entities": "mention_data", "start": "offset", "quote": "mention", "label": "type"}
CORPORA: dict[str, tuple[int | None, dict[str, Any]]] = {
    "vietbioner": (
        None,
        {"format": "conll", "train": "vi/vietbioner/train.txt", "test": "vi/vietbioner/dev.txt"},
    ),
    "cmedqaner": (
        None,
        {
            "format": "jsonl",
            "train": "zh/cmedqaner/train.json",
            "test": "zh/cmedqaner/dev.json",
            "fields": CHINESE,
        },
    ),
    "ncbi-1500": (
        1500,
        {
            "format": "conll",
            "train": "en/ncbi_disease/train.tsv",
            "test": "en/ncbi_disease/devel.tsv",
        },
    ),
    "ncbi": (
        None,
        {
            "format": "conll",
            "train": "en/ncbi_disease/train.tsv",
            "test": "en/ncbi_disease/devel.tsv",
        },
    ),
}
"""Name -> how many of the first training rows (all where None), settings."""
METHODS = ("full", "lora")
STARTS = ("pretrained", "scratch")


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--base", default=TINY, help="encoder to start from (default bundled:tiny-encoder)"
    )
    options.add_argument(
        "--corpora", nargs="+", choices=CORPORA, default=["vietbioner", "cmedqaner", "ncbi-1500"]
    )
    options.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    options.add_argument("--epochs", type=float, default=15, help="of full tuning (default 15)")
    options.add_argument("--seeds", type=int, default=1, help="how many, from 0 (default 1)")
    options.add_argument("--child", nargs=2, metavar=("RECIPE", "RUNS"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(measured(Path(given.child[0]), Path(given.child[1]))))
        return
    if given.quick:
        given.epochs, given.seeds = 1, 1
    with tempfile.TemporaryDirectory() as work:
        compare(given, Path(work))


def compare(given: argparse.Namespace, work: Path) -> None:
    """Every corpus with every method, start and seed."""
    base = resolve(BaseModelSettings(id=given.base), Path.cwd())
    found: list[dict[str, Any]] = []
    for corpus in given.corpora:
        data = write_data(corpus, work, given.quick)
        for method in given.methods:
            for start in given.starts:
                for seed in range(given.seeds):
                    begin = (
                        Path(base.path)
                        if start == "pretrained"
                        else random_weights(Path(base.path), work, seed)
                    )
                    one = {"corpus": corpus, "method": method, "start": start, "seed": seed}
                    recipe = work / "recipe.yaml"  # JSON is YAML
                    recipe.write_text(
                        json.dumps(settings(data, method, begin, seed, given)), "utf-8"
                    )
                    result, seconds = child(
                        [__file__, "--child", recipe, work / "runs"], given.threads
                    )
                    found.append({**one, **result, "all": seconds})
                    say(
                        f"{corpus} {method} {start} seed {seed}: F1 {result['f1']:.3f}, "
                        f"{result['seconds']:.0f} s"
                    )
    columns = ("corpus", "train", "test", "method", "start", "F1", "95 % (seed 0)", "seconds")
    keys = dict.fromkeys((one["corpus"], one["method"], one["start"]) for one in found)
    rows = [
        row([one for one in found if (one["corpus"], one["method"], one["start"]) == key])
        for key in keys
    ]
    report(
        "corpora",
        given,
        columns,
        rows,
        base={"id": base.id, "digest": base.digest},
        measurements=found,
    )


def row(found: Sequence[dict[str, Any]]) -> list[str]:
    """One line of the table: the seeds of one corpus, method and start."""
    first, scores = found[0], [one["f1"] for one in found]
    spread = (
        f" ({min(scores):.3f} to {max(scores):.3f}, {len(scores)} seeds)" if len(scores) > 1 else ""
    )
    return [
        first["corpus"],
        str(first["train"]),
        str(first["test"]),
        first["method"],
        first["start"],
        f"{mean(scores):.3f}{spread}",
        f"{first['low']:.3f} to {first['high']:.3f}",
        f"{mean(one['seconds'] for one in found):.0f}",
    ]


def write_data(corpus: str, work: Path, quick: bool) -> dict[str, Any]:
    """Write a corpus as JSON lines, so that "the first 1,500" can be taken; the settings that read
    it."""
    first, how = CORPORA[corpus]
    notes = load(
        parse(Data, {**how, "stop": 0, "profile": "public"}, corpus), corpus, shared_data(), 0
    )
    folder = work / corpus
    folder.mkdir()
    for part in ("train", "test"):
        kept = notes.part("train")[:first] if part == "train" else notes.part("test")
        write_jsonl(kept[: 40 if quick else None], folder / f"{part}.jsonl")
    return {
        "format": "jsonl",
        "train": str(folder / "train.jsonl"),
        "test": str(folder / "test.jsonl"),
        "profile": "public",
    }


def settings(
    data: dict[str, Any], method: str, base: Path, seed: int, given: argparse.Namespace
) -> dict[str, Any]:
    """The recipe of one run."""
    stage: dict[str, Any] = {"method": {"kind": method}}
    if method == "full":
        data = {**data, "stop": 0}
        stage |= {"epochs": given.epochs, "stop": None}
    elif given.quick:
        stage["epochs"] = 1
    return {
        "schema": 1,
        "name": "corpora",
        "seed": seed,
        "base": str(base),
        "data": {"corpus": data},
        "tasks": [{"card": "ner", "data": "corpus"}],
        "stages": [stage],
        "evaluate": {"baselines": []},
    }


def random_weights(base: Path, work: Path, seed: int) -> Path:
    """A folder with the base's configuration and tokenizer, and fresh weights."""
    import torch
    import transformers

    folder = work / f"scratch-{seed}"
    if not folder.exists():
        transformers.utils.logging.disable_progress_bar()
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(base))
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def measured(recipe: Path, runs: Path) -> dict[str, Any]:
    """Run a recipe; its score on the test part."""
    import residency
    from residency.recipe import Recipe
    from residency.workflows.finished import finished_facts

    facts = finished_facts(residency.run(Recipe.load(recipe), runs))
    score = next(score for score in facts.reports[-1].scores if score.metric == "span_f1")
    stage, parts = facts.stages[0], facts.data[0].parts
    if score.low is None or score.high is None:
        raise UserError("the score has no interval; evaluate.bootstrap must be above 0.")
    return {
        "f1": score.value,
        "low": score.low,
        "high": score.high,
        "train": parts["train"].notes + parts["dev"].notes,
        "test": parts["test"].notes,
        "seconds": stage.seconds,
        "best_epoch": stage.best_epoch,
        "stopped": stage.stopped,
        "used": stage.settings,
    }


if __name__ == "__main__":
    run(main)
