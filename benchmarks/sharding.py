"""A model that two processes share out (launch.shard) beside one process and two that each hold it
all: memory, losses, time.

    python benchmarks/sharding.py

A Llama of 69 million random weights, full tuning and LoRA, fp32, six steps of the same eight rows;
every process has one thread. Memory is the peak of each process (interpreter, libraries, weights,
training) in MB, beside what was estimated before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import environment, parser, peak_memory_mb, report, run, say
from plan import LLAMA, made, questions
from residency.core.errors import UserError
from residency.core.part import parse
from residency.models.base import BaseModelSettings, resolve
from residency.tasks.card import load_card

METHODS: dict[str, dict[str, Any]] = {"full": {"kind": "full"}, "LoRA": {"kind": "lora"}}
WAYS = {
    "one process": (1, False),
    "two, each with all of it": (2, False),
    "two that share it out": (2, True),
}
ROWS, TOKENS, STEPS = 8, 128, 6


def main() -> None:
    """Every method in every way, then the table."""
    options = parser(__doc__)
    options.add_argument("--child", nargs=4)
    given = options.parse_args()
    if given.child:
        measured(*given.child)
        return
    given.threads = 1
    shape = {**LLAMA, "num_hidden_layers": 2} if given.quick else LLAMA
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as folder:
        base = made(str(Path(folder) / "base"), "llama", shape)
        for method in METHODS:
            alone: list[float] = []
            for way, (processes, shard) in WAYS.items():
                each = processes_of(
                    processes, method, base, shard, Path(folder) / f"{method}-{processes}-{shard}"
                )
                losses = each[0]["losses"]
                alone = alone or losses
                apart = max(abs(a - b) for a, b in zip(losses, alone, strict=True))
                found[f"{method}, {way}"] = {"each": each, "apart": apart}
                peaks = " and ".join(f"{one['peak']:.0f}" for one in each)
                rows.append(
                    [
                        method,
                        way,
                        f"{each[0]['planned']:.0f}",
                        peaks,
                        f"{each[0]['seconds']:.0f}",
                        f"{apart:.1e}" if apart else "0",
                    ]
                )
                say(" | ".join(rows[-1]))
    columns = (
        "method",
        "processes",
        "planned MB",
        "peak MB of each",
        "seconds of training",
        "largest difference of a loss from one process's",
    )
    report("sharding", given, columns, rows, each=found)


def processes_of(
    count: int, method: str, base: str, shard: bool, out: Path
) -> list[dict[str, Any]]:
    """The same stage in so many processes; what each has to say."""
    out.mkdir()
    start = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        if count > 1
        else []
    )
    command = [sys.executable, *start, __file__, "--child", method, base, str(int(shard)), str(out)]
    done = subprocess.run(command, env=environment(1), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"{method}, {count} processes: ended with {done.returncode}: "
            f"{done.stderr.strip()[-300:]}"
        )
    return [json.loads((out / f"{number}.json").read_text("utf-8")) for number in range(count)]


def measured(method: str, base_id: str, shard: str, out: str) -> None:
    """One process's part of the stage."""
    from residency.train import processes
    from residency.train.job import TrainingJob
    from residency.train.stage import Stage
    from residency.train.trainer import train

    base = resolve(BaseModelSettings(id=base_id), Path.cwd())
    stage = {
        "method": METHODS[method],
        "steps": STEPS,
        "batch": ROWS,
        "precision": "fp32",
        "checkpointing": False,
        "stop": None,
    }
    job = TrainingJob(
        stage=parse(Stage, stage, "stage"),
        name="1",
        base=base,
        card=load_card("qa"),
        train=questions(ROWS * STEPS, TOKENS, base_id),
        dev=[],
        seed=0,
        profile="synthetic",
        work=Path(out) / "work",
        out=Path(out) / "out",
        output="text",
        forecast=True,
        shard=shard == "1",
    )
    begun = time.perf_counter()
    result, _ = train(job)
    told = {
        "planned": result.planned_memory_mb,
        "peak": peak_memory_mb(),
        "seconds": result.seconds,
        "in_all": time.perf_counter() - begun,
        "losses": [one["loss"] for one in result.history if "loss" in one],
    }
    (Path(out) / f"{processes.rank()}.json").write_text(json.dumps(told), "utf-8")
    processes.leave()


if __name__ == "__main__":
    run(main)
