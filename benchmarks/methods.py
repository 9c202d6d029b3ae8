"""Each tuning method beside a plain peft and Trainer script: the same rows, tokens, steps, rates
and precision, in one run.

Entity extraction: sentences of NCBI disease, the bundled encoder. Instruction tuning: questions and
answers of Huatuo's general file (training part), the bundled causal model, rows end to end
(packing: on). Whole passes over the rows, so both systems read the same tokens.

  plain  benchmarks/_plain_methods.py: random batches padded to the longest row of each by transformers' collator
  max    the same, every row padded to the base's whole window, as many published scripts have it (entities, with --max)
  ours   a stage with the same numbers

Each method is a process of its own, in which the systems are trained in turn, round by round; their
seconds are those of the processor in the training loop, as others may use the machine (wall-clock
seconds are in the result file). The loss is per label on rows that nobody learned from, by one
function for all, in fp32, a row at a time. Goals: entity extraction at least 1.5 times as fast,
instruction tuning at least 85 % of the padding ratio (all tokens / real tokens) of the plain
script's batches.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any

from _common import child, parser, report, rotated, run, say, shared_data
from residency.core.part import parse
from residency.core.types import Example, Text, Turn
from residency.models.base import Base, BaseModelSettings, resolve
from residency.tasks.card import Card, load_card

RATES = {
    "entities": {"lora": 2e-3, "full": 3e-4, "freeze": 3e-4},
    "instructions": {"lora": 1.5e-3, "full": 3e-4, "freeze": 3e-4, "prefix": 2e-1},
}
"""The defaults for models of this size, given to both."""
BASES = {"entities": "bundled:tiny-encoder", "instructions": "bundled:tiny-lm"}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora", "r": 16, "alpha": 32, "targets": "linear"},
    "full": {"kind": "full"},
    "freeze": {"kind": "freeze", "last": 2},
    "prefix": {"kind": "prefix", "length": 32},
}
GOAL = {"entities": 1.5, "instructions": 0.85}
PASSES = {"entities": 2, "instructions": 1}
COLUMNS = (
    "method",
    "system",
    "real tokens a processor second, median (range)",
    "padding",
    "to plain",
    "of the padding ratio",
    "held-out loss",
    "difference, by round",
)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--tasks", nargs="+", choices=list(RATES), default=list(RATES))
    options.add_argument(
        "--rows", type=int, default=320, help="that are learned from (default 320)"
    )
    options.add_argument(
        "--held", type=int, default=100, help="that the loss is measured on (default 100)"
    )
    options.add_argument("--batch", type=int, default=16)
    options.add_argument(
        "--passes", type=int, help="over the rows (default 2 for entities, 1 for instructions)"
    )
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument(
        "--max",
        action="store_true",
        help="entities: also the plain script with rows padded to the window",
    )
    options.add_argument("--fp32", action="store_true", help="no bf16")
    options.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    options.add_argument("--child", nargs=2, metavar=("TASK", "SETTINGS"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(alternating(given.child[0], json.loads(given.child[1]))))
        return
    if given.quick:
        given.rows, given.held, given.passes, given.rounds = 32, 8, 1, 1
    with tempfile.TemporaryDirectory() as work:
        compare(given, Path(work))


def compare(given: argparse.Namespace, work: Path) -> None:
    """Every method and system in turn, in rounds."""
    from packing import has_bf16

    bf16 = not given.fp32 and has_bf16()
    for task in given.tasks:
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        steps = (given.passes or PASSES[task]) * -(-given.rows // given.batch)
        path = work / f"{task}.json"
        write_rows(task, given, path)
        common = {name: getattr(given, name) for name in ("rows", "held", "batch", "rounds")}
        for method in (one for one in given.methods if one in RATES[task]):
            settings = {**common, "steps": steps, "bf16": bf16, "path": str(path), "method": method}
            settings["max"] = given.max and task == "entities"
            found[method], _ = child(
                [__file__, "--child", task, json.dumps(settings)], given.threads
            )
            shares = {name: figures(task, systems) for name, systems in found.items()}
            say(f"{task}, {method}: {json.dumps(shares[method])}")
        rows = [
            line for name, systems in found.items() for line in lines(name, systems, shares[name])
        ]
        name = f"methods-{task}" + ("" if bf16 else "-fp32")
        report(name, given, COLUMNS, rows, bf16=bf16, shares=shares, measurements=found)


def alternating(task: str, settings: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """A method with every system in this process, in turn; before that a few steps of each, which
    are not counted."""
    systems = ["plain", "ours", *(["max"] if settings["max"] else [])]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    for system in systems:
        measure(system, task, {**settings, "steps": 2, "held": 2, "seed": 0})
    for turn in range(settings["rounds"]):
        for system in rotated(systems, turn):
            found[system].append(measure(system, task, {**settings, "seed": turn}))
    return found


def figures(task: str, systems: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the goals are about."""
    plain, own = systems["plain"], systems["ours"]
    trained = {one["trainable"] for one in [*plain, *own]}
    faster = median(
        b["tokens_per_second"] / a["tokens_per_second"] for a, b in zip(plain, own, strict=True)
    )
    padding = median(1 / (1 - one["padding"]) for one in plain)
    reached = faster if task == "entities" else faster / padding
    return {
        "faster": faster,
        "padding_ratio": padding,
        "reached": reached,
        "goal": GOAL[task],
        "met": reached >= GOAL[task],
        "same_number_trained": len(trained) == 1,
    }


def lines(
    name: str, systems: dict[str, list[dict[str, Any]]], found: dict[str, Any]
) -> list[list[str]]:
    """A line of the table for each system."""
    made = []
    plain = systems["plain"]
    for system, runs in systems.items():
        each = [one["tokens_per_second"] for one in runs]
        faster = median(
            one["tokens_per_second"] / theirs["tokens_per_second"]
            for theirs, one in zip(plain, runs, strict=True)
        )
        differences = [
            one["loss"] - theirs["loss"] for theirs, one in zip(plain, runs, strict=True)
        ]
        made.append(
            [
                name,
                system,
                f"{median(each):,.0f} ({min(each):,.0f} to {max(each):,.0f})",
                f"{mean(one['padding'] for one in runs):.1%}",
                f"{faster:.2f}",
                f"{faster / found['padding_ratio']:.0%}" if system == "ours" else "-",
                f"{mean(one['loss'] for one in runs):.4f}",
                "-" if system == "plain" else " ".join(f"{one:+.4f}" for one in differences),
            ]
        )
    return made


def measure(system: str, task: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One system once."""
    import _plain_methods

    if system == "ours":
        return ours(task, settings)
    base = resolve(BaseModelSettings(id=BASES[task]), Path.cwd())
    return _plain_methods.measured(
        argparse.Namespace(
            data=Path(settings["path"]),
            base=base.path,
            rate=RATES[task][settings["method"]],
            pad="max" if system == "max" else "longest",
            longest=base.window,
            **{name: settings[name] for name in ("method", "steps", "batch", "seed", "bf16")},
        )
    )


def write_rows(task: str, given: argparse.Namespace, path: Path) -> None:
    """The rows as tokens and labels, for the plain script."""
    from residency.models import artefact

    base, card, train, held = subject(task, given.rows, given.held)
    known = {
        name: [
            {"input_ids": i.ids, "attention_mask": [1] * len(i.ids), "labels": i.targets}
            for i in part
        ]
        for name, part in (("rows", tokens(base, card, train)), ("held", tokens(base, card, held)))
    }
    labels = len(artefact.outputs(card)) if task == "entities" else 0
    path.write_text(json.dumps({**known, "labels": labels}), "utf-8")


def tokens(base: Base, card: Card, rows: list[Example]) -> Any:
    """Items as training makes them."""
    from residency.models import artefact
    from residency.models.generation import TokenLimits
    from residency.train import conversation_items, items

    if base.architecture == "causal":
        return conversation_items.build(rows, artefact.chat(base, TokenLimits()), card).items
    return items.build(rows, artefact.tokeniser(base), card).items


def subject(task: str, rows: int, held: int) -> tuple[Base, Card, list[Example], list[Example]]:
    """Base, card, the rows that are learned from, and those that are not."""
    base = resolve(BaseModelSettings(id=BASES[task]), Path.cwd())
    if task == "entities":
        from residency.corpus.load import Data, load
        from residency.tasks.examples import examples, fixed

        settings = {
            "format": "conll",
            "train": "train.tsv",
            "test": "devel.tsv",
            "stop": 0,
            "lang": "en",
        }
        data = parse(Data, {**settings, "profile": "public"}, "ncbi")
        corpus = load(data, "ncbi", shared_data() / "en" / "ncbi_disease", 0)
        card = fixed(load_card("ner"), corpus.part("train"), "data.ncbi")
        train = examples(corpus.part("train"), card)
        random.Random(0).shuffle(train)
        return base, card, train[:rows], examples(corpus.part("test"), card)[:held]
    parts: dict[bool, list[Example]] = {True: [], False: []}
    for number, line in enumerate(
        (shared_data() / "zh/huatuo/general_qa.jsonl").read_text("utf-8").splitlines()
    ):
        row = json.loads(line)
        tenth = int(hashlib.sha256(row["instruction"].encode()).hexdigest(), 16) % 10
        if tenth < 9:
            question, answer = row["instruction"].strip(), row["output"].strip()
            turns, gold = (Turn(role="user", text=question),), Text(text=answer)
            one = Example(
                id=str(number), task="qa", input=question, gold=gold, turns=turns, profile="public"
            )
            parts[tenth < 8].append(one)
    return base, load_card("qa"), parts[True][:rows], parts[False][:held]


def ours(task: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A stage."""
    from _plain_methods import held_out
    from residency.models import artefact
    from residency.train.job import TrainingJob
    from residency.train.stage import Stage
    from residency.train.trainer import train

    method = settings["method"]
    base, card, rows, held = subject(task, settings["rows"], settings["held"])
    writes = task == "instructions"
    stage = {
        "method": METHODS[method],
        "steps": settings["steps"],
        "micro_batch": settings["batch"],
        "accumulation": 1,
        "learning_rate": RATES[task][method],
        "head_learning_rate": RATES[task][method],
        "weight_decay": 0,
        "precision": "bf16" if settings["bf16"] else "fp32",
        "packing": "on" if writes else "off",
        "stop": None,
    }
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "out"
        job = TrainingJob(
            stage=parse(Stage, stage, "stage"),
            name="1",
            base=base,
            card=card,
            train=rows,
            dev=[],
            seed=settings["seed"],
            profile="public",
            work=Path(work) / "work",
            out=out,
            output="text" if writes else "head",
        )
        with timed() as times:
            result, _ = train(job)
        model = (artefact.load_chat if writes else artefact.load)(out)[1]
    items = [{"input_ids": one.ids, "labels": one.targets} for one in tokens(base, card, held)]
    return {
        "seconds": times[0],
        "wall_seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second * result.seconds / times[0],
        "padding": result.padding_share,
        "trainable": result.trainable,
        "loss": held_out(model, items, shifted=writes),
    }


@contextmanager
def timed() -> Iterator[list[float]]:
    """Processor seconds of each training loop that is run inside."""
    from residency.train.stage_trainer import StageTrainer

    found: list[float] = []
    real = StageTrainer.train

    def train(self: Any, *args: Any, **more: Any) -> Any:
        started = time.process_time()
        result = real(self, *args, **more)
        found.append(time.process_time() - started)
        return result

    StageTrainer.train = train
    try:
        yield found
    finally:
        StageTrainer.train = real


if __name__ == "__main__":
    run(main)
