"""One training stage on the `transformers` Trainer: resumable, seeded, judged by the same code that
reports."""

from __future__ import annotations

import math
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.torch
import torch
import transformers
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from residency.core.errors import UserError
from residency.core.files import write_json, write_jsonl
from residency.core.types import Example, Prediction, PredictorInfo, Profile, StageResult
from residency.models import artefact, documents, sharding
from residency.models.adapters.method import put_back
from residency.models.artefact import GenerativeSettings, Output
from residency.models.base import Base
from residency.models.causal import CausalPredictor, token_losses
from residency.models.encoder import EncoderPredictor
from residency.models.generation import Generation, TokenLimits
from residency.models.running import best_device, steady_memory
from residency.models.weights import size
from residency.tasks.card import Card
from residency.tasks.scoring import falls, main_metric
from residency.train import conversation_items, processes, trackers
from residency.train import estimate as foreseen
from residency.train.batches import LengthBatches, collate, flat
from residency.train.defaults import StagePlan, resolve, updates_per_epoch
from residency.train.items import IGNORED, Items, TrainingItem, build
from residency.train.meta_step import checkpoint
from residency.train.recovery import Diverged, Recovery, fault, known, out_of_memory
from residency.train.stage import Stage, Stop

CHECKPOINT_SECONDS = 30.0
"""A resumable state is written this often (and not at all by shorter runs)."""
MARKER = "complete.json"
"""Written last: a checkpoint without it was cut off while it was written."""

TRAINED = "trained.safetensors"
"""What a checkpoint keeps of the model."""

LOSS = "loss"
"""-log p per token of the answers of the stop part: what models that write are judged by unless the
recipe says otherwise."""

HEAVY = 1e9
"""Bytes from which a process on a CPU takes its memory in the steady way, which costs a third more
time (``steady_memory``): below it there is memory enough, so that time counts."""

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a few words."""


class TrainingJob(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one stage needs."""

    stage: Stage
    name: str
    base: Base
    card: Card
    train: Sequence[Example]
    dev: Sequence[Example]
    """What early stopping looks at; never reported."""
    seed: int
    profile: Profile
    work: Path
    """Checkpoints; kept until the stage is committed."""
    out: Path
    """Where the artefact goes (a folder that the caller commits)."""
    output: Output = "head"
    limits: TokenLimits = TokenLimits()
    generate: Generation = Generation()
    """Models that write: how much they read, and how they write."""
    max_rejected: float = 1.0
    """Models that write: most rows, as a share, that may be too long to learn from."""
    more: tuple[Card, ...] = ()
    """Models that write: the cards of other tasks that rows are of, which name them."""
    start: Path | None = None
    """The artefact of the stage that this one goes on from; the base where not given."""
    forecast: bool = False
    """Estimate the memory before, and keep the estimate beside what was measured."""
    shard: bool = False
    """Share the model out among the processes at work."""
    progress: Progress | None = None


def train(job: TrainingJob) -> tuple[StageResult, Items]:
    """Train a stage and save its artefact to ``job.out``; resumes from ``job.work`` to identical
    numbers.

    Runs out of memory: half the micro-batch with twice the accumulation, from the start, unless the
    recipe gives the micro-batch. Diverges: back to the last good checkpoint with half the rate,
    once. Raises ``UserError`` for rows that cannot be trained on, and where none of this helps.
    """
    trackers.check(job.stage.track, job.profile)
    recovery = processes.shared(lambda: known(job.work))
    while True:
        try:
            return attempt(job, recovery)
        except Diverged as error:
            back = processes.shared(lambda: last_checkpoint(job.work))
            step = int(back.name.split("-")[1]) if back else 0
            if recovery.rate < 1:
                raise UserError(
                    f"stage {job.name}: {error.words} at step {error.step}, for the second time "
                    "and with half the rate; the last good "
                    f"state is that of step {step}; give a learning_rate below {error.rate:g}, or "
                    "precision: fp32."
                ) from None
            recovery = recovery.slower(error, step)
        except Exhausted as error:
            recovery = recovery.smaller(error.micro_batch)
            shutil.rmtree(
                job.work, ignore_errors=True
            )  # its order of rows is that of the larger micro-batch
        if processes.first():
            recovery.keep(job.work)
        processes.wait()


class Exhausted(Exception):
    """Memory ran out, and a smaller micro-batch may help."""

    def __init__(self, micro_batch: int) -> None:
        super().__init__()
        self.micro_batch = micro_batch


def attempt(job: TrainingJob, recovery: Recovery) -> tuple[StageResult, Items]:
    """Train a stage with what earlier attempts have taught.

    Raises ``Diverged`` and ``Exhausted`` where another attempt may go better.
    """
    seed_everything(job.seed)
    if job.output == "text":
        chat = artefact.chat(job.base, job.limits)
        items = conversation_items.build(
            job.train, chat, job.card, job.stage.loss_on, job.max_rejected, job.more
        )
    else:
        tokeniser = artefact.tokeniser(job.base)
        items = build(job.train, tokeniser, job.card)
    if not items.items:
        raise UserError(
            f"stage {job.name}: there is nothing to train on; the training part is empty."
        )
    method = job.stage.tuning
    subject = foreseen.subject_of_job(job.base, job.card, job.output, items.items, len(job.dev))
    foresees = job.forecast or job.stage.micro_batch == "auto"
    program = foreseen.footprint(subject, method) if foresees else 0
    processes.join()
    device = best_device()
    if job.shard:
        mesh = sharding.group(device)
        made = processes.in_turn(lambda: begun(job, device, mesh))
    else:
        made = begun(job, device)
    model, parameters, packed, why = made
    quantised = job.base.quantise != "none"
    plan = resolve(
        job.stage,
        parameters,
        len(items.items),
        device,
        has_bf16(device),
        job.output == "text",
        quantised,
        processes.world(),
        job.shard,
    )
    if job.stage.micro_batch == "auto":
        plan = processes.shared(
            lambda: foreseen.fitted(subject, job.stage, job.base, plan, packed, program)
        )
    plan = recovered(plan, recovery)
    estimate = (
        foreseen.of_plan(subject, job.stage, job.base, plan, device_kind(device), packed, program)
        if job.forecast
        else None
    )
    if estimate and device == "cpu" and estimate.peak > HEAVY:
        steady_memory()
    model = model if job.shard else method.attach(model)
    if plan.checkpointing:
        checkpoint(model)
    writing = None
    info = PredictorInfo(name="dev", base=job.base.id)
    if job.output == "text":
        writing = GenerativeSettings(
            chat=chat, generation=settled(job.generate, items, job.base.window)
        )
        predictor: EncoderPredictor | CausalPredictor = CausalPredictor(
            model, chat, job.card, writing.generation, info, job.more
        )
    else:
        predictor = EncoderPredictor(model, tokeniser, job.card, info)
    per_epoch = updates_per_epoch(
        len(items.items), plan.micro_batch, plan.accumulation * plan.processes
    )
    judge = Judge(job, predictor, per_epoch, plan)
    trainer = StageTrainer(job, plan, items, model, judge, packed)
    if processes.rank():
        seed_everything(job.seed + processes.rank())  # dropout of its own
    started = time.monotonic()
    try:
        before = processes.shared(lambda: last_checkpoint(job.work))
        trainer.train(resume_from_checkpoint=str(before) if before else None)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if (
            not isinstance(job.stage.micro_batch, int)
            and plan.micro_batch > 1
            and processes.world() == 1
        ):
            raise Exhausted(plan.micro_batch) from None
        raise UserError(
            f"stage {job.name}: memory ran out with micro_batch {plan.micro_batch}; set "
            "micro_batch lower and accumulation higher, "
            "checkpointing: true, or base.window to a smaller number; residency plan says what "
            "would fit."
        ) from None
    seconds = time.monotonic() - started
    judge.restore(model)
    model.eval()
    documents.leave(model)
    result = trainer.result(parameters, seconds)
    more = (
        {"packing": why, "loss_on": job.stage.loss_on, **writing_settings(job, writing)}
        if writing
        else {}
    )
    result = msgspec.structs.replace(
        result,
        settings={**result.settings, **more},
        planned_memory_mb=round(estimate.peak / 1e6, 1) if estimate else 0.0,
        processes=plan.processes,
        recovered="; ".join(recovery.words),
    )
    if job.shard:
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.accelerator.free_memory()
        del trainer
        model = put_together(job, model)
    if processes.first():
        artefact.save(
            job.out,
            model,
            job.base,
            job.card,
            job.stage.method,
            job.profile,
            writing,
            job.start,
            job.more,
        )
        write_json(job.out / "stage.json", result)
        write_jsonl(job.out / "metrics.jsonl", result.history)
    processes.wait()
    return result, items


def begun(job: TrainingJob, device: str, mesh: Any = None) -> tuple[Any, int, bool, str]:
    """The model that a stage begins with, its parameters, whether rows are laid end to end, and
    why.

    A model that is shared out, among the processes of ``mesh``, has its method on already, and was
    never whole on a GPU.
    """
    model = artefact.begin(job.base, job.card, job.output, job.stage.tuning, job.start)
    parameters = size(model)
    stays = job.shard or job.base.quantise != "none"
    packed, why = packing(job, model if stays else model.to(device))
    if job.shard:
        if device == "cpu":
            # glibc would keep what was borrowed for a layer, in all more than the whole model
            steady_memory()
        model = sharding.shard(job.stage.tuning.attach(model), mesh)
    return model, parameters, packed, why


def put_together(job: TrainingJob, model: Any) -> Any:
    """The whole model, on the CPU of the first process, from the parts of all; nothing in the
    others."""
    target = None
    model.zero_grad()
    if processes.first():
        seed_everything(job.seed)
        method = job.stage.tuning
        target = method.attach(
            artefact.begin(job.base, job.card, job.output, method, job.start)
        ).eval()
    sharding.move_into(model, target)
    return target


def recovered(plan: StagePlan, recovery: Recovery) -> StagePlan:
    """A plan as earlier attempts have taught; the effective batch stays."""
    halved = 2**recovery.halvings
    return msgspec.structs.replace(
        plan,
        micro_batch=max(1, plan.micro_batch // halved),
        accumulation=plan.accumulation * plan.micro_batch // max(1, plan.micro_batch // halved),
        learning_rate=plan.learning_rate * recovery.rate,
        head_learning_rate=plan.head_learning_rate * recovery.rate,
    )


def device_kind(device: str) -> foreseen.Device:
    """The device as the plan knows it; how fast it is, is measured while it trains."""
    return foreseen.Device(
        kind="cuda" if device == "cuda" else "cpu",
        name=device,
        usable=math.inf,
        bf16=has_bf16(device),
    )


def packing(job: TrainingJob, model: Any) -> tuple[bool, str]:
    """Whether rows are laid end to end, and why; tried on the model itself, whatever its
    architecture claims."""
    wanted = job.stage.packing
    if job.output == "head" or wanted == "off":
        return False, "off"
    able = documents.use(model) and documents.holds(model, model.config.vocab_size)
    if not able:
        documents.leave(model)
        if wanted == "on":
            raise UserError(
                f"stage {job.name}: packing is on, but rows laid end to end would see each other "
                f"in {job.base.id}; "
                "set packing: auto."
            )
    return (
        able,
        "on" if able else "off: rows laid end to end would see each other in this architecture",
    )


def settled(generation: Generation, items: Items, window: int) -> Generation:
    """Generation settings with nothing left open."""
    if generation.max_tokens != "auto":
        return generation
    most = math.ceil(1.25 * conversation_items.longest_answer(items.items))
    return generation.model_copy(update={"max_tokens": max(8, min(most, window // 2))})


def writing_settings(job: TrainingJob, writing: GenerativeSettings) -> dict[str, str]:
    """How a model writes, for the report."""
    limits, generation = job.limits, writing.generation
    return {
        "limits": (
            f"source {limits.source or 'window'}, target {limits.target or 'whole'}, over: "
            f"{limits.over}"
        ),
        "window": f"{job.base.window} tokens",
        "chat_template": (
            f"{'file' if job.base.chat_template else 'of the tokenizer'}, "
            f"{writing.chat.digest[:12]}"
        ),
        **{
            f"generate.{name}": str(value)
            for name, value in generation.model_dump(mode="json").items()
        },
    }


def seed_everything(seed: int) -> None:
    """Seed before the adapter and head are built, or they differ from run to run."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def has_bf16(device: str) -> bool:
    """Whether the hardware multiplies bf16 fast."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    return bool(torch.cpu._is_avx512_bf16_supported())


def last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint; half-written ones are removed."""
    whole = []
    for folder in work.glob("checkpoint-*"):
        if (folder / MARKER).is_file():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


class Judge(TrainerCallback, ExportableState):  # type: ignore[misc]
    """After each epoch: the task's own metric on the dev part; keeps the best weights and says when
    to stop."""

    def __init__(
        self,
        job: TrainingJob,
        predictor: EncoderPredictor | CausalPredictor,
        per_epoch: int,
        plan: StagePlan | None = None,
    ) -> None:
        self.job, self.predictor, self.plan = job, predictor, plan
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
        usual = LOSS if job.card.family == "answers" or job.more else job.card.main_metric
        self.metric = (job.stage.stop.metric if job.stage.stop else "") or usual
        if self.metric == LOSS and job.output == "head":
            raise UserError(
                f"stage {job.name}: stop.metric: loss is only for models that write; name a score "
                "of the task."
            )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        names = ("best", "best_epoch", "waited", "history", "first")
        return {"args": {}, "attributes": {name: getattr(self, name) for name in names}}

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        stop = self.job.stage.stop
        if stop is not None and self.job.dev and stop.every is None:
            self.judge(stop, state, control)
        self.save_if_due(args, state, control)

    def judge(self, stop: Stop, state: Any, control: Any) -> None:
        """Measure on the stop part; keep the weights where they are the best, and say when to end."""
        if sharding.sharded(
            self.predictor.model
        ):  # every process lends its part while all read the same rows
            found = self.measure()
            value = processes.shared(lambda: found)
        else:
            value = processes.shared(self.measure)
        if math.isnan(value):
            return  # the metric applies to no row of the stop part: nothing is better or worse
        self.history.append(
            {"step": state.global_step, "epoch": round(state.epoch, 4), self.shown: value}
        )
        lower = falls(self.metric)
        if self.best is None or (value < self.best if lower else value > self.best):
            self.best, self.best_epoch, self.waited = value, state.epoch, 0
            self.weights = sharding.parts(self.predictor.model)
        elif self.best > 0:  # a slow starter has not begun to be worse
            self.waited += 1
            if self.waited >= stop.patience:
                direction = "fall" if lower else "rise"
                self.stopped = (
                    f"{self.metric} on the stop part did not {direction} for "
                    f"{stop.patience} {'judgements' if stop.every else 'epochs'}"
                )
                control.should_training_stop = True

    @property
    def shown(self) -> str:
        """The metric's name beside the loss of training."""
        return f"dev_{LOSS}" if self.metric == LOSS else self.metric

    def measure(self) -> float:
        """The metric on the stop part; nan where it applies to none of its rows."""
        if falls(self.metric) and isinstance(self.predictor, CausalPredictor):
            known = zip(self.job.dev, self.predictor.gold_losses(self.job.dev), strict=True)
            predictions = [
                Prediction(id=one.id, gold_loss=loss, gold_tokens=count)
                for one, (loss, count) in known
            ]
            if self.job.more:  # rows of several families are scored by what they share
                return sum(one.gold_loss or 0.0 for one in predictions) / sum(
                    one.gold_tokens for one in predictions
                )
        else:
            predictions = list(self.predictor.predict(self.job.dev))
        card = self.job.card.model_copy(update={"metric": self.metric})
        found = main_metric(self.job.dev, predictions, card)
        return math.nan if found is None else found

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        if logs and "loss" in logs:
            loss = float(logs["loss"])
            self.first = min(self.first, loss) if math.isinf(self.first) else self.first
            norm = (
                0.0 if args.fp16 else float(logs.get("grad_norm", 0.0))
            )  # fp16 tries larger scales, and gives them up again
            if words := fault(loss, self.first, norm):
                raise Diverged(state.global_step, words, args.learning_rate)
            self.history.append(
                {
                    "step": state.global_step,
                    "epoch": round(state.epoch, 4),
                    "loss": float(logs["loss"]),
                    "learning_rate": float(logs.get("learning_rate", 0.0)),
                }
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.job.progress:
            shown = f"{self.metric} {self.best:.3f}" if self.best is not None else ""
            self.job.progress(state.global_step, state.max_steps, shown)
        stop = self.job.stage.stop
        if stop is not None and self.job.dev and stop.every and not state.global_step % stop.every:
            self.judge(stop, state, control)
        if state.global_step % self.per_epoch:  # at an epoch's end it is judged first
            self.save_if_due(args, state, control)

    def save_if_due(self, args: Any, state: Any, control: Any) -> None:
        """Ask for a checkpoint where resuming gives what going on would have given: where the loss
        has just been logged, and before the end."""
        if control.should_training_stop or state.global_step >= state.max_steps:
            return
        every = self.job.stage.save_every
        if every is not None:
            if state.global_step % every == 0 and self.sound():
                control.should_log = control.should_save = (
                    True  # what was averaged since the last log is not kept
                )
            return
        if state.global_step % args.logging_steps:
            return
        if (
            processes.shared(lambda: time.monotonic() - self.saved >= CHECKPOINT_SECONDS)
            and self.sound()
        ):
            control.should_save = True

    def sound(self) -> bool:
        """Whether every trained weight is a number: only such a state is gone back to."""
        held = (sharding.part(p) for _, p in sharding.trained(self.predictor.model))
        good = all(bool(torch.isfinite(p).all()) for p in held)
        return processes.agreed(good) if sharding.sharded(self.predictor.model) else good

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        processes.wait()  # each process has written the state of its random numbers
        self.saved = time.monotonic()
        best = self.weights
        if sharding.sharded(self.predictor.model):
            best = sharding.whole(self.predictor.model, best, keep=processes.first())
        if not processes.first():
            return
        if best:
            safetensors.torch.save_file(best, folder / "best.safetensors")
        write_json(folder / MARKER, {"step": state.global_step})
        for older in Path(args.output_dir).glob("checkpoint-*"):
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)

    def resume(self, checkpoint: Path) -> None:
        """Take up the state that a checkpoint kept."""
        kept = msgspec.json.decode((checkpoint / "trainer_state.json").read_bytes())
        for name, value in kept["stateful_callbacks"]["Judge"]["attributes"].items():
            setattr(self, name, value)
        best = checkpoint / "best.safetensors"
        model = self.predictor.model
        if not best.is_file():
            self.weights = {}
        elif sharding.sharded(model):
            self.weights = sharding.read_parts(model, best)
        else:
            self.weights = safetensors.torch.load_file(best)

    def restore(self, model: Any) -> None:
        """Put the best weights back."""
        if sharding.sharded(model):
            sharding.put_parts(model, self.weights)
        else:
            put_back(model, self.weights, self.job.work)
        self.weights = {}


class StageTrainer(transformers.Trainer):  # type: ignore[misc]
    """The Trainer with our batches, our loss and our rates."""

    def __init__(
        self,
        job: TrainingJob,
        plan: StagePlan,
        items: Items,
        model: Any,
        judge: Judge,
        packed: bool = False,
    ) -> None:
        self.job, self.plan, self.items, self.judge, self.packed = job, plan, items, judge, packed
        super().__init__(
            model=model,
            args=arguments(job, plan, len(items.items)),
            train_dataset=[*items.items, blank(items.items[0])],  # BLANK is the last
            callbacks=[judge, *trackers.callbacks(job.stage.track, job.out)],
            data_collator=self._collate,
        )
        self.model_accepts_loss_kwargs = (
            True  # so that it counts the trained tokens of all micro-batches for us
        )
        self.remove_callback(transformers.trainer_callback.PrinterCallback)
        lengths = [len(item.ids) for item in items.items]
        self.batches = LengthBatches(
            lengths, plan.micro_batch, job.seed, self._epoch, processes.rank(), plan.processes
        )

    def _collate(self, batch: list[TrainingItem]) -> dict[str, Any]:
        if self.packed:
            return flat(batch)
        family = "answers" if self.job.output == "text" else self.job.card.family
        return collate(batch, self.pad_id, family, self.job.card.multiple)

    @property
    def pad_id(self) -> int:
        """The token that fills short rows."""
        predictor = self.judge.predictor
        return (
            predictor.chat.pad_id
            if isinstance(predictor, CausalPredictor)
            else predictor.tokeniser.pad_id
        )

    def _epoch(self) -> int:
        return int(self.state.global_step // self.judge.per_epoch)

    def get_train_dataloader(self) -> Any:
        loader = torch.utils.data.DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=0,
        )
        return (
            loader if self.plan.processes > 1 else self.accelerator.prepare(loader)
        )  # it would share out the shares again

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A checkpoint holds what is trained, and nothing else, whatever the method."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        held = (
            sharding.whole(self.model, keep=processes.first())
            if self.plan.sharded
            else sharding.parts(self.model)
        )
        if processes.first():
            safetensors.torch.save_file(held, folder / TRAINED)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.plan.sharded and not processes.first():
            self.optimizer.state_dict()  # gives its part to the first process, which writes
        super()._save_optimizer_and_scheduler(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        if self.plan.sharded:
            sharding.put_parts(self.model, sharding.read_parts(self.model, folder / TRAINED))
        else:
            put_back(self.model, safetensors.torch.load_file(folder / TRAINED), folder)
        self.judge.resume(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """With the rate of this attempt, which may be lower than that of the one that wrote the
        checkpoint."""
        own = [group["initial_lr"] for group in self.optimizer.param_groups] if checkpoint else []
        if checkpoint and self.plan.sharded:  # on the CPU: whole, it may not fit the device
            read = partial(torch.load, map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(read(Path(checkpoint) / "optimizer.pt", mmap=True))
            self.lr_scheduler.load_state_dict(read(Path(checkpoint) / "scheduler.pt"))
        else:
            super()._load_optimizer_and_scheduler(checkpoint)
        for rate, group in zip(own, self.optimizer.param_groups if checkpoint else [], strict=True):
            group["lr"] *= rate / group["initial_lr"]
            group["initial_lr"] = rate
        if checkpoint:
            self.lr_scheduler.base_lrs = own
            self.lr_scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _defer_fsdp_gradient_reduction(self) -> AbstractContextManager[None]:
        """Gradients are shared out after every micro-batch: waiting for the last would take less
        time, and hold them whole."""
        return nullcontext()

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW; the fresh head has its own rate, biases, norms and prefixes no decay."""
        groups: dict[tuple[bool, bool], list[Any]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                head = any(part in name.split(".") for part in ("classifier", "score"))
                decayed = parameter.ndim > 1 and ".prefix." not in name
                groups.setdefault((head, decayed), []).append(parameter)
        stage = self.job.stage
        make, more = optimiser(stage.optimiser)
        self.optimizer = make(
            [
                {
                    "params": found,
                    "lr": self.plan.head_learning_rate if head else self.plan.learning_rate,
                    "weight_decay": stage.weight_decay if decayed else 0.0,
                }
                for (head, decayed), found in groups.items()
            ],
            betas=stage.betas,
            eps=stage.epsilon,
            **more,
        )
        if self.plan.sharded:
            sharding.keep_whole(self.optimizer)
        return self.optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean over the trained tokens (or labels) of the whole effective batch, so micro-batches
        weigh right."""
        if self.job.output == "text":
            losses, _ = token_losses(model, inputs, self.job.stage.label_smoothing)
            counted = num_items_in_batch if num_items_in_batch is not None else losses.numel()
            loss = losses.sum() / counted * self.share
            return (loss, None) if return_outputs else loss
        targets = inputs.pop("labels")
        output = model(**inputs)
        logits = output.logits.float()
        if self.job.card.multiple:
            real = targets.ne(IGNORED)
            total = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, targets.float(), weight=real.float(), reduction="sum"
            )
        else:
            total = torch.nn.functional.cross_entropy(
                logits.view(-1, logits.shape[-1]),
                targets.view(-1),
                ignore_index=IGNORED,
                reduction="sum",
                label_smoothing=self.job.stage.label_smoothing,
            )
        count = num_items_in_batch if num_items_in_batch is not None else targets.ne(IGNORED).sum()
        loss = total / count * self.share
        return (loss, output) if return_outputs else loss

    @property
    def share(self) -> int:
        """Gradients are averaged over processes, while the loss is already a mean over the rows of
        all."""
        return self.plan.processes

    def result(self, parameters: int, seconds: float) -> StageResult:
        """What the stage did."""
        judge, plan, stage = self.judge, self.plan, self.job.stage
        tokens = sum(len(item.ids) for item in self.items.items)
        epochs = self.state.epoch or 0.0
        settings = {
            "epochs": f"{plan.epochs:g}",
            "steps": str(plan.steps),
            "batch": (
                f"{plan.batch} ({plan.micro_batch} x "
                f"{plan.accumulation}{f' x {plan.processes} processes' if plan.processes > 1 else ''})"
            ),
            **(
                {"sharded": f"weights, gradients and optimiser, among {plan.processes} processes"}
                if plan.sharded
                else {}
            ),
            "checkpointing": "on" if plan.checkpointing else "off",
            "learning_rate": f"{plan.learning_rate:g}",
            "head_learning_rate": f"{plan.head_learning_rate:g}",
            "schedule": f"{stage.schedule}, warm-up {stage.warmup:g}",
            "optimiser": (
                f"{stage.optimiser} {stage.betas}, decay {stage.weight_decay:g}, clip "
                f"{stage.clip:g}"
            ),
            "precision": plan.precision,
            "seed": str(self.job.seed),
            **{f"method.{k}": str(v) for k, v in stage.method.model_dump(mode="json").items()},
        }
        return StageResult(
            name=self.job.name,
            method=stage.method.kind,
            settings=settings,
            parameters=parameters,
            trainable=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            metric=judge.shown,
            best=judge.best or 0.0,
            best_epoch=round(judge.best_epoch or epochs, 2),
            stopped=judge.stopped,
            history=tuple(judge.history),
            seconds=round(seconds, 2),
            tokens_per_second=round(tokens * epochs / seconds, 1) if seconds else 0.0,
            padding_share=0.0 if self.packed else round(self.batches.padding(), 4),
            peak_memory_mb=round(_peak_memory(), 1),
            device=str(self.args.device),
            dtype=plan.precision,
            mask=self.items.proof,
        )


def optimiser(name: str) -> tuple[Any, dict[str, Any]]:
    """The class of an optimiser and what it is given besides; raises ``UserError`` where its
    library is missing."""
    if name == "adamw":
        return torch.optim.AdamW, {"fused": True}
    try:
        import bitsandbytes
    except ImportError:
        raise UserError(
            f'stages.optimiser: {name} needs bitsandbytes; run pip install "residency[quantise]", '
            "or set adamw."
        ) from None
    return bitsandbytes.optim.adamw.AdamW8bit, {
        "is_paged": name == "paged_adamw_8bit" and torch.cuda.is_available()
    }


def blank(item: TrainingItem) -> TrainingItem:
    """A row of the same kind that teaches nothing."""
    return TrainingItem(example="", ids=item.ids[:8], targets=[IGNORED] * len(item.targets[:8]))


def arguments(job: TrainingJob, plan: StagePlan, rows: int) -> Any:
    """The Trainer's arguments for a plan."""
    names = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
    return transformers.TrainingArguments(
        output_dir=str(job.work),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=names[job.stage.schedule],
        warmup_steps=int(plan.steps * job.stage.warmup),
        max_grad_norm=job.stage.clip,
        bf16=plan.precision == "bf16",
        fp16=plan.precision == "fp16",
        use_cpu=best_device() == "cpu",
        seed=job.seed,
        data_seed=job.seed,
        logging_strategy="steps",
        logging_steps=max(1, plan.steps // 60),
        save_strategy="no",
        eval_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        **(
            {"ddp_backend": None, "ddp_find_unused_parameters": not plan.checkpointing}
            if plan.processes > 1
            else {}
        ),
    )


def _peak_memory() -> float:
    """Peak memory in MB: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage also counts what the parent held when it started us
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) / 1000
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
