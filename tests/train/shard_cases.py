"""What ``test_sharding.py`` trains: by itself in one process, and in two that meet as under torchrun, as
``shard_cases.py BASES OUT NAMES KILL``."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from test_training import NER, drug_rows, stage

from residency.core.types import Example, Text, Turn
from residency.models.adapters import Freeze, Full, Lora, Prefix
from residency.models.base import BaseModelSettings, resolve, silent
from residency.models.generation import Generation
from residency.tasks.card import load_card
from residency.train import processes
from residency.train.job import TrainingJob
from residency.train.stage import Stop
from residency.train.stage_trainer import StageTrainer
from residency.train.trainer import train

QUESTIONS = (
    "Why rest?",
    "What is anaemia?",
    "How long should one walk each day?",
    "Why drink water?",
    "Is salt good?",
)
METHODS: dict[str, Any] = {
    "full": Full(),
    "lora": Lora(r=2),
    "dora": Lora(r=2, dora=True),
    "freeze": Freeze(last=1),
    "prefix": Prefix(length=3),
}
MARKING: dict[str, Any] = {
    "checkpointed": {"method": Full(), "checkpointing": True},
    "clipped": {"method": Full(), "clip": 1e-2},
    "spoiled": {"method": Full()},
}
WRITING: dict[str, Any] = {
    "checkpointed": {"method": Lora(r=2), "checkpointing": True},
    "padded": {"method": Full(), "packing": "off"},
    "answering": {"method": Full(), "stop": Stop(metric="rouge_l", patience=9)},
}


def answers() -> list[Example]:
    return [
        Example(
            id=str(i),
            task="t",
            input=text,
            gold=Text(text=" ".join(["Because."] * (1 + i % 5))),
            turns=(Turn(role="user", text=text),),
            profile="synthetic",
        )
        for i, text in enumerate(QUESTIONS * 5)
    ]


def case(name: str, bases: dict[str, str], folder: Path, **more: Any) -> TrainingJob:
    """``BASE METHOD``: 8 rows a step, judged after each pass, a state every 4 steps."""
    base, how = name.split()
    writes = base in ("tied", "untied")
    settings = {"method": METHODS[how]} if how in METHODS else (WRITING if writes else MARKING)[how]
    rows = answers() if writes else drug_rows(25)
    given: dict[str, Any] = {
        "epochs": 3,
        "batch": 8,
        "micro_batch": 2,
        "learning_rate": 2e-3,
        "save_every": 4,
    }
    given["stop"] = Stop(patience=9)
    (folder / "out").mkdir(parents=True, exist_ok=True)
    return TrainingJob(
        stage=stage(**given | settings),
        name="1",
        base=resolve(BaseModelSettings(id=bases[base])),
        card=load_card("qa") if writes else NER,
        train=rows,
        dev=rows[:5],
        seed=3,
        profile="synthetic",
        work=folder / "work",
        out=folder / "out",
        output="text" if writes else "head",
        generate=Generation(max_tokens=8),
        **more,
    )


def killing(at: int) -> Callable[..., None]:
    def kill(step: int, *_: Any) -> None:
        if step == at and processes.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def spoiled(steps: list[int]) -> Callable[..., Any]:
    """``compute_loss`` with losses that are not a number in these steps, once in each."""
    real = StageTrainer.compute_loss

    def loss(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        value = real(self, *args, **kwargs)
        if self.state.global_step + 1 in steps:
            steps.remove(self.state.global_step + 1)
            return value * math.nan
        return value

    return loss


def main(bases: dict[str, str], out: Path, names: list[str], kill: int) -> None:
    for name in names:
        if name.endswith("spoiled"):
            StageTrainer.compute_loss = spoiled([7])  # type: ignore[method-assign]
        with silent():
            train(
                case(name, bases, out / name, shard=True, progress=killing(kill) if kill else None)
            )
    processes.leave()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4]))
