"""The judge of a stage while it is trained: measures the stop part, keeps the best weights, says
when to end, and asks for the states that an interrupted run goes on from."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from residency.core.files import write_json
from residency.models import sharding
from residency.models.adapters.method import put_back
from residency.models.causal import CausalPredictor
from residency.models.encoder import EncoderPredictor
from residency.tasks.families import of
from residency.tasks.scoring import falls, main_metric
from residency.train import processes
from residency.train.job import TrainingJob
from residency.train.kinds import LOSS, training_of
from residency.train.recovery import Diverged, fault
from residency.train.stage import Stop

CHECKPOINT_SECONDS = 30.0
"""A resumable state is written this often (and not at all by shorter runs)."""
MARKER = "complete.json"
"""Written last: a checkpoint without it was cut off while it was written."""
BEST = "best.safetensors"
"""The best weights so far, in a checkpoint."""


class Judge(TrainerCallback, ExportableState):  # type: ignore[misc]
    """After each epoch: the task's own metric on the dev part; keeps the best weights and says when
    to stop."""

    def __init__(
        self, job: TrainingJob, predictor: EncoderPredictor | CausalPredictor, per_epoch: int
    ) -> None:
        self.job, self.predictor, self.model = job, predictor, predictor.model
        self.first = math.inf
        """The loss at the first step that is logged."""
        self.per_epoch = per_epoch
        self.best: float | None = None
        """Best value so far of the metric, which is higher for better, save for the loss."""
        self.best_epoch, self.waited = 0.0, 0
        self.stopped = "all epochs done"
        self.history: list[dict[str, float]] = []
        self.weights: dict[str, torch.Tensor] = {}
        self.saved = time.monotonic()
        usual = LOSS if of(job.card).asks_loss or job.more else job.card.main_metric
        self.metric = (job.stage.stop.metric if job.stage.stop else "") or usual
        self.training = training_of(job.head)
        self.training.check_stop(job, self.metric)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        names = ("best", "best_epoch", "waited", "history", "first")
        return {"args": {}, "attributes": {name: getattr(self, name) for name in names}}

    @property
    def metric_name(self) -> str:
        """The metric's name beside the loss of training."""
        return f"dev_{LOSS}" if self.metric == LOSS else self.metric

    # Measuring

    def judge(self, stop: Stop, state: Any, control: Any) -> None:
        """Measure on the stop part; keep the weights where they are best, and say when to end."""
        if sharding.sharded(self.model):  # each lends its part while all read the same rows
            found = self.measure()
            value = processes.shared(lambda: found)
        else:
            value = processes.shared(self.measure)
        if math.isnan(value):
            return  # the metric applies to no row of the stop part: nothing is better or worse
        self._note(state, **{self.metric_name: value})
        lower = falls(self.metric)
        if self.best is None or (value < self.best if lower else value > self.best):
            self.best, self.best_epoch, self.waited = value, state.epoch, 0
            self.weights = sharding.parts(self.model)
        elif self.best > 0:  # a slow starter has not begun to be worse
            self.waited += 1
            if self.waited >= stop.patience:
                direction = "fall" if lower else "rise"
                self.stopped = (
                    f"{self.metric} on the stop part did not {direction} for "
                    f"{stop.patience} {'judgements' if stop.every else 'epochs'}"
                )
                control.should_training_stop = True

    def measure(self) -> float:
        """The metric on the stop part; nan where it applies to none of its rows."""
        dev = self.job.dev
        predictions = self.training.predictions(self.predictor, dev, self.metric)
        if self.job.more and falls(self.metric):  # rows of several families: by what they share
            losses = sum(one.gold_loss or 0.0 for one in predictions)
            return losses / sum(one.gold_tokens for one in predictions)
        card = self.job.card.model_copy(update={"metric": self.metric})
        found = main_metric(dev, predictions, card)
        return math.nan if found is None else found

    def _note(self, state: Any, **values: float) -> None:
        noted = {"step": state.global_step, "epoch": round(state.epoch, 4), **values}
        self.history.append(noted)
        if self.job.measured:
            self.job.measured(noted)

    # What the Trainer calls

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up what the checkpoint kept that is gone on from."""
        if state.global_step:
            self.resume(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Note the loss of training; raises ``Diverged`` where it is not what a loss should be."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        self.first = min(self.first, loss) if math.isinf(self.first) else self.first
        # fp16 tries larger scales, and gives them up again
        norm = 0.0 if args.fp16 else float(logs.get("grad_norm", 0.0))
        if words := fault(loss, self.first, norm):
            raise Diverged(state.global_step, words, args.learning_rate)
        self._note(state, loss=loss, learning_rate=float(logs.get("learning_rate", 0.0)))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the progress, judge where the stop rule counts steps, and save where that is due."""
        if self.job.progress:
            words = f"{self.metric} {self.best:.3f}" if self.best is not None else ""
            self.job.progress(state.global_step, state.max_steps, words)
        stop = self.job.stage.stop
        if stop is not None and self.job.dev and stop.every and not state.global_step % stop.every:
            self.judge(stop, state, control)
        if state.global_step % self.per_epoch:  # at an epoch's end it is judged first
            self.save_if_due(args, state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Judge, then save where that is due."""
        stop = self.job.stage.stop
        if stop is not None and self.job.dev and stop.every is None:
            self.judge(stop, state, control)
        self.save_if_due(args, state, control)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the best weights to a checkpoint and mark it as whole; remove the older ones."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        processes.wait()  # each process has written the state of its random numbers
        self.saved = time.monotonic()
        best = self.weights
        if sharding.sharded(self.model):
            best = sharding.whole(self.model, best, keep=processes.first())
        if not processes.first():
            return
        if best:
            safetensors.torch.save_file(best, folder / BEST)
        write_json(folder / MARKER, {"step": state.global_step, "schema": 2})
        for older in Path(args.output_dir).glob("checkpoint-*"):
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)

    # States to go on from

    def save_if_due(self, args: Any, state: Any, control: Any) -> None:
        """Ask for a checkpoint where resuming gives what going on would have given: where the loss
        has just been logged, and before the end."""
        if control.should_training_stop or state.global_step >= state.max_steps:
            return
        every = self.job.stage.save_every
        if every is not None:
            if state.global_step % every == 0 and self.sound():
                # what was averaged since the last log is not kept
                control.should_log = control.should_save = True
            return
        if state.global_step % args.logging_steps:
            return
        due = processes.shared(lambda: time.monotonic() - self.saved >= CHECKPOINT_SECONDS)
        if due and self.sound():
            control.should_save = True

    def sound(self) -> bool:
        """Whether every trained weight is a number: only such a state is gone back to."""
        held = (sharding.part(p) for _, p in sharding.trained(self.model))
        good = all(bool(torch.isfinite(p).all()) for p in held)
        return processes.agreed(good) if sharding.sharded(self.model) else good

    def resume(self, checkpoint: Path) -> None:
        """Take up the state that a checkpoint kept."""
        kept = msgspec.json.decode((checkpoint / "trainer_state.json").read_bytes())
        for name, value in kept["stateful_callbacks"]["Judge"]["attributes"].items():
            setattr(self, name, value)
        best = checkpoint / BEST
        if not best.is_file():
            self.weights = {}
        elif sharding.sharded(self.model):
            self.weights = sharding.read_parts(self.model, best)
        else:
            self.weights = safetensors.torch.load_file(best)

    def restore(self) -> None:
        """Put the best weights back."""
        if sharding.sharded(self.model):
            sharding.put_parts(self.model, self.weights)
        else:
            put_back(self.model, self.weights, self.job.work)
        self.weights = {}
