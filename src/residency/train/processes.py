"""Several processes at one stage: started by us or by torchrun, they compute what one process
would.

Each learns from its share of every effective batch, gradients are summed over all, and the first
process alone measures, decides and writes. Each holds the whole model, or a part of it
(``models.sharding``).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import Field

from residency.core.errors import UserError
from residency.core.part import Part

T = TypeVar("T")

LONG = timedelta(days=2)
"""Processes wait for each other as long as reading data or judging may take."""


class Launch(Part):
    """On how many devices of this machine a stage is trained."""

    processes: int = Field(default=1, ge=1)
    """Processes, each with a GPU of its own, or with a share of the processor where there is none.
    Under ``torchrun`` its own number counts."""
    shard: bool = False
    """Share the weights, gradients and the optimiser's state out among the processes (FSDP), for a
    model that one device does not hold; else each holds them all (DDP)."""


def check(settings: Launch) -> None:
    """Raises ``UserError`` where tensors are to be shared out and there is nobody to share them
    with."""
    if settings.shard and max(world(), settings.processes) == 1:
        raise UserError(
            "launch.shard: one process has nobody to share with; set launch.processes to 2 or "
            "more, or shard: false."
        )


def world() -> int:
    """Processes at work together; 1 outside torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def first() -> bool:
    """Whether this process writes."""
    return rank() == 0


def join() -> None:
    """Meet the other processes; nothing where there are none."""
    import torch
    import torch.distributed as dist

    if world() == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(
        "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo", timeout=LONG
    )


def shared(make: Callable[[], T]) -> T:
    """What the first process makes, in every process."""
    if world() == 1:
        return make()
    import torch.distributed as dist

    join()
    held: list[Any] = [make() if first() else None]
    dist.broadcast_object_list(held, src=0)
    found: T = held[0]
    return found


def wait() -> None:
    """Go on when every process has come here."""
    shared(lambda: None)


def in_turn(make: Callable[[], T]) -> T:
    """What each process makes, one after the other, so that only one holds what it takes to make
    it."""
    for number in range(world()):
        if number == rank():
            made = make()
        wait()
    return made


def agreed(mine: bool) -> bool:
    """Whether all processes say yes."""
    import torch.distributed as dist

    if world() == 1:
        return mine
    join()
    said: list[Any] = [None] * world()
    dist.all_gather_object(said, mine)
    return all(said)


def described(settings: Launch) -> str:
    """How many processes train, for the manifest; empty for one."""
    count = max(world(), settings.processes if world() == 1 else 1)
    return f"{count} processes{', sharded' if settings.shard else ''}" if count > 1 else ""


def leave() -> None:
    """Part from the other processes."""
    import torch.distributed as dist

    if world() > 1 and dist.is_initialized():
        dist.destroy_process_group()


def start(processes: int, module: str, arguments: Sequence[str]) -> None:
    """``python -m MODULE ARGUMENTS`` in so many processes under torchrun, until all have ended.

    Raises ``UserError`` with the sentence of the process that failed.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes)]
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        [*command, "-m", module, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            said = [line.rstrip() for line in process.stderr]
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        ours = [line.removeprefix(MARK) for line in said if line.startswith(MARK)]
        matches = (re.match(r"[\w.]*(?:Error|Exception|Interrupt)\b", line) for line in said)
        why = next((f" ({found[0]})" for found in matches if found), "")
        unknown = f"launch.processes: a process ended unexpectedly{why}; set 1 to see why, or run "
        raise UserError(ours[0] if ours else unknown + "again.")


MARK = "residency: "
"""Before the sentence that a process leaves behind when it fails."""
