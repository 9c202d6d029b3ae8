"""What a stage does when it runs out of memory or its loss falls apart: it goes on with other
settings, and says so."""

from __future__ import annotations

import math
from pathlib import Path

from residency.core.files import read_json, write_json
from residency.core.types import Value

FILE = "recovery.json"
SLOWER = 0.5
"""Of the rate, after a divergence; once."""
FAR = 4.0
"""A loss so many times the first one, and one more, has diverged."""


class Diverged(Exception):
    """The loss is not a number, or far above where it began."""

    def __init__(self, step: int, words: str, rate: float) -> None:
        super().__init__(words)
        self.step, self.words, self.rate = step, words, rate


class Recovery(Value, frozen=True):
    """What was changed after a failure; kept beside the checkpoints, so that an interrupted run
    goes on with it."""

    halvings: int = 0
    """How often the micro-batch was halved and the accumulation doubled."""
    rate: float = 1.0
    """Factor of the learning rates."""
    words: tuple[str, ...] = ()

    def smaller(self, micro_batch: int) -> Recovery:
        """With half the micro-batch."""
        said = f"out of memory with micro_batch {micro_batch}, went on with {micro_batch // 2}"
        return Recovery(halvings=self.halvings + 1, rate=self.rate, words=(*self.words, said))

    def slower(self, error: Diverged, back_to: int) -> Recovery:
        """With half the rate."""
        said = f"{error.words} at step {error.step}, went back to step {back_to} with half the rate"
        return Recovery(halvings=self.halvings, rate=self.rate * SLOWER, words=(*self.words, said))

    def keep(self, work: Path) -> None:
        """Write it beside the checkpoints."""
        write_json(work / FILE, self)


def read_recovery(work: Path) -> Recovery:
    """What an earlier process of this stage left behind."""
    return read_json(work / FILE, Recovery) if (work / FILE).is_file() else Recovery()


def fault(loss: float, first: float, norm: float) -> str:
    """What is wrong with a step's loss and gradient; empty where nothing is."""
    if not math.isfinite(loss):
        return "the loss is not a number"
    if not math.isfinite(norm):
        return "the gradient is not a number"
    if loss > FAR * first + 1:
        return f"the loss rose from {first:.3g} to {loss:.3g}"
    return ""


def out_of_memory(error: Exception) -> bool:
    """Whether a library says that memory ran out, on a GPU or for the process."""
    import torch

    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and ("DefaultCPUAllocator" in said or "CUDA out of memory" in said)
    )
