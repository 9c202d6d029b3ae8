"""500 sentences of NCBI disease, a 22M encoder on CPU: LoRA with our defaults against the plain
script, strict F1 and time.

Three systems learn from the same 500 sentences and are measured on the authors' development part,
each in a process of its own, round by round with the order turned, so that a slow minute of the
machine hits all of them:

  ours         a recipe that says nothing but the data and the base: every setting is the default
  plain        benchmarks/_plain_lora.py as published (rate 2e-4, batch 4 x 8, 6 epochs)
  plain-tuned  the same script with a hand-tuned rate and batch (--rate, --accumulation, --epochs)

Round k uses seed k modulo --seeds. Seconds are those of the training loop;
"in all" is the whole process: imports, reading, training, answering (and, for ours, the report).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import msgspec

from _common import child, minilm, parser, report, rotated, run, say, shared_data, strict_f1
from residency.core.part import parse
from residency.core.types import Note, Span
from residency.corpus.load import Data, load
from residency.corpus.write import write_jsonl

SYSTEMS = ("ours", "plain", "plain-tuned")
SENTENCES = 500


class Row(msgspec.Struct):
    """A line of answers."""

    id: str
    entities: list[Span]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=5, help="rounds (default 5)")
    options.add_argument("--seeds", type=int, default=3, help="seeds to go round in (default 3)")
    options.add_argument(
        "--rate", type=float, default=2e-3, help="rate of plain-tuned (default 2e-3)"
    )
    options.add_argument(
        "--accumulation",
        type=int,
        default=4,
        help="of plain-tuned: batches of 4 a step (default 4)",
    )
    options.add_argument("--epochs", type=float, default=6, help="of plain-tuned (default 6)")
    options.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    options.add_argument("--child", nargs=2, metavar=("FOLDER", "SEED"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(ours(Path(given.child[0]), int(given.child[1]), given.quick)))
        return
    with tempfile.TemporaryDirectory() as work:
        compare(given, Path(work))


def compare(given: argparse.Namespace, work: Path) -> None:
    """All rounds, the table and the result file."""
    runs, seeds = (2, 2) if given.quick else (given.runs, given.seeds)
    devel = write_data(work, given.quick)
    rounds: list[dict[str, Any]] = []
    for turn in range(runs):
        measured: dict[str, Any] = {"seed": turn % seeds}
        for system in rotated(given.systems, turn):
            found = measure(system, work, turn % seeds, given)
            found["f1"] = strict_f1(devel, answers(work / "answers.jsonl", devel))
            measured[system] = found
            say(
                f"round {turn + 1} {system}: F1 {found['f1']:.3f}, {found['seconds']:.1f} s "
                f"({found['all']:.1f} in all)"
            )
        rounds.append(measured)
    columns = (
        "system",
        "F1 by seed",
        "mean F1",
        "seconds (median)",
        "in all",
        "ours / it, time",
        "ours - it, F1",
    )
    rows = [row(system, rounds, given.systems) for system in given.systems]
    name = "ncbi500-plain" if given.systems == ["ours", "plain"] else "ncbi500"
    report(
        name,
        given,
        columns,
        rows,
        rounds=rounds,
        train=SENTENCES,
        test=len(devel),
        base=minilm().parent.name,
    )


def row(system: str, rounds: Sequence[dict[str, Any]], systems: Sequence[str]) -> list[str]:
    """A system's line of the table; ratios and differences are medians over rounds, pair by pair."""
    by_seed: dict[int, float] = {}
    for one in rounds:
        by_seed.setdefault(one["seed"], one[system]["f1"])
    versus = system != "ours" and "ours" in systems
    ratios = [one["ours"]["seconds"] / one[system]["seconds"] for one in rounds] if versus else []
    gains = [one["ours"]["f1"] - one[system]["f1"] for one in rounds] if versus else []
    return [
        system,
        ", ".join(f"{by_seed[seed]:.3f}" for seed in sorted(by_seed)),
        f"{mean(by_seed.values()):.3f}",
        f"{median(one[system]['seconds'] for one in rounds):.1f}",
        f"{median(one[system]['all'] for one in rounds):.1f}",
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "",
        f"{median(gains):+.3f}" if gains else "",
    ]


def write_data(work: Path, quick: bool) -> list[Note]:
    """Write the training sentences and the development part as JSON lines; returns the latter."""
    folder = shared_data() / "en" / "ncbi_disease"
    settings = {
        "format": "conll",
        "train": "train.tsv",
        "test": "devel.tsv",
        "stop": 0,
        "lang": "en",
        "profile": "public",
    }
    corpus = load(parse(Data, settings, "ncbi"), "ncbi", folder, 0)
    train, devel = corpus.part("train"), corpus.part("test")
    random.Random(0).shuffle(train)
    write_jsonl(train[: 40 if quick else SENTENCES], work / "train.jsonl")
    devel = devel[: 40 if quick else None]
    write_jsonl(devel, work / "devel.jsonl")
    return devel


def measure(system: str, work: Path, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One system's run: its seconds of training, and of everything."""
    if system == "ours":
        command: list[str | Path] = [
            __file__,
            "--child",
            work,
            str(seed),
            *(["--quick"] if given.quick else []),
        ]
    else:
        command = [
            Path(__file__).parent / "_plain_lora.py",
            "--base",
            minilm(),
            "--seed",
            str(seed),
        ]
        command += [
            "--train",
            work / "train.jsonl",
            "--test",
            work / "devel.jsonl",
            "--out",
            work / "answers.jsonl",
        ]
        if system == "plain-tuned":
            command += ["--rate", str(given.rate), "--accumulation", str(given.accumulation)]
        tuned = system == "plain-tuned"
        command += ["--epochs", "1" if given.quick else str(given.epochs if tuned else 6)]
    found, seconds = child(command, given.threads)
    return {**found, "all": seconds}


def answers(path: Path, notes: Sequence[Note]) -> list[list[Span]]:
    """The answers in the order of the notes."""
    rows = [msgspec.json.decode(line, type=Row) for line in path.read_bytes().splitlines()]
    by_id = {row.id: row.entities for row in rows}
    return [by_id[note.id] for note in notes]


def ours(work: Path, seed: int, quick: bool) -> dict[str, Any]:
    """What a user does: a recipe with data and base, everything else left out."""
    import residency
    from residency.recipe import Recipe
    from residency.workflows.finished import finished_facts

    data = {
        "format": "jsonl",
        "train": "train.jsonl",
        "test": "devel.jsonl",
        "lang": "en",
        "profile": "public",
    }
    value: dict[str, Any] = {
        "schema": 1,
        "name": "ncbi500",
        "seed": seed,
        "base": str(minilm()),
        "data": {"ncbi": data},
        "tasks": [{"card": "ner", "data": "ncbi"}],
        "evaluate": {"baselines": [], "bootstrap": 0},
    }
    if quick:
        value["stages"] = [{"epochs": 1}]
    with tempfile.TemporaryDirectory(dir=work) as runs:
        done = residency.run(Recipe.from_mapping(value, root=work), runs)
        stage = finished_facts(done).stages[0]
        with (work / "answers.jsonl").open("w", encoding="utf-8") as file:
            for line in (
                (done.folder / "eval" / "ner" / "tuned.predictions.jsonl").read_bytes().splitlines()
            ):
                prediction = json.loads(line)
                spans = (prediction.get("answer") or {}).get("spans", [])
                file.write(json.dumps({"id": prediction["id"], "entities": spans}) + "\n")
    return {
        "seconds": stage.seconds,
        "best_epoch": stage.best_epoch,
        "stopped": stage.stopped,
        "used": stage.settings,
    }


if __name__ == "__main__":
    run(main)
