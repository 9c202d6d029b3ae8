"""One training stage: prepared, fitted, saved; resumable, seeded, judged by the same code that
reports."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from residency.core.energy import EnergyMeter
from residency.core.errors import UserError
from residency.core.files import read_json, write_json, write_jsonl
from residency.core.types import Calibration, Example, StageResult, Value
from residency.models import artefact, attention, blend, predictors, sharding
from residency.models.artefact import GenerativeSettings
from residency.models.base import silent
from residency.models.blend import BlendWeight
from residency.models.causal import CausalPredictor
from residency.models.chat_template import ChatTokeniser
from residency.models.encoder import EncoderPredictor
from residency.models.running import best_device, memory_is_steady, steady_memory
from residency.models.tokens import Tokeniser
from residency.models.weights import size
from residency.train import estimate, processes, trackers, words_beside
from residency.train.calibrate import calibrate, in_words
from residency.train.defaults import StagePlan, resolve, updates_per_epoch
from residency.train.device import Device, free_memory, has_bf16, peak_memory
from residency.train.items import Items
from residency.train.job import TrainingJob
from residency.train.judge import MARKER, Judge
from residency.train.kinds import Reading, training_of
from residency.train.meta_step import checkpoint
from residency.train.recovery import Diverged, Recovery, out_of_memory, read_recovery
from residency.train.stage_trainer import TRAINED, StageTrainer

HELD_OUT = "held_out.json"
"""What a training before has found, among a stage's checkpoints."""
ENOUGH_STEPS = 50
"""Steps after which a model that gives no label at all is no beginner any more."""


@dataclass(frozen=True)
class Prepared:
    """A stage that is ready to be fitted."""

    items: Items
    model: Any
    parameters: int
    plan: StagePlan
    packed: bool
    packing: str
    """Whether rows are laid end to end, in words."""
    predictor: EncoderPredictor | CausalPredictor
    """That judges the stop part."""
    settings: GenerativeSettings | None
    """Of a generative model."""
    estimate: estimate.MemoryEstimate | None
    recovery: Recovery


@silent()
def train(job: TrainingJob) -> tuple[StageResult, Items]:
    """Train a stage and save its artefact to ``job.out``; resumes from ``job.work`` to identical
    numbers.

    Runs out of memory: half the micro-batch with twice the accumulation, from the start, unless the
    recipe gives the micro-batch. Diverges: back to the last good checkpoint with half the rate,
    once. Raises ``UserError`` for rows that cannot be trained on, and where none of this helps.
    """
    trackers.check(job.stage.track, job.profile)
    stage = job.stage.settled(job.base)
    job = msgspec.structs.replace(job, stage=stage, as_before=processes.shared(lambda: aged(job)))
    recovery = processes.shared(lambda: read_recovery(job.work))
    while True:
        try:
            return train_once(job, recovery)
        except Diverged as error:
            back = processes.shared(lambda: last_checkpoint(job.work))
            step = int(back.name.split("-")[1]) if back else 0
            if recovery.rate < 1:
                raise UserError(
                    f"stage {job.name}: {error.words} at step {error.step}, for the second time "
                    f"and with half the rate; the last good state is that of step {step}; give a "
                    f"learning_rate below {error.rate:g}, or precision: fp32."
                ) from None
            recovery = recovery.slower(error, step)
        except Exhausted as error:
            recovery = recovery.smaller(error.micro_batch)
            # its order of rows is that of the larger micro-batch
            shutil.rmtree(job.work, ignore_errors=True)
        if processes.first():
            recovery.keep(job.work)
        processes.wait()


class Exhausted(Exception):
    """Memory ran out, and a smaller micro-batch may help."""

    def __init__(self, micro_batch: int) -> None:
        super().__init__()
        self.micro_batch = micro_batch


def train_once(job: TrainingJob, recovery: Recovery) -> tuple[StageResult, Items]:
    """Train a stage with what earlier tries have taught.

    Raises ``Diverged`` and ``Exhausted`` where another try may go better.
    """
    own, held = words_beside.hold_out(job)
    found = processes.shared(lambda: read_held_out(job.work))
    if own is not job and found is None:
        found = weigh(own, held, recovery)
    prepared = prepare(job, recovery)
    result = fit(job, prepared)
    if processes.first():
        found = found or learn_held_out(job, prepared.predictor, held)
        result = with_held_out(result, found)
    if prepared.plan.steps >= ENOUGH_STEPS and not (job.lexical or job.shard):
        rate = prepared.plan.learning_rate
        training_of(job.head).check_learned(job, prepared.predictor, rate)
    save(job, prepared, result, found or HeldOut())
    return result, prepared.items


class HeldOut(Value, frozen=True):
    """What is learned from rows that the model did not learn from."""

    chosen: BlendWeight | None = None
    """How much a CRF beside it counts."""
    calibration: Calibration | None = None


def read_held_out(work: Path) -> HeldOut | None:
    """What was kept in a stage's folder of checkpoints, where a training before has found it; an
    earlier version kept the weight alone."""
    if (work / HELD_OUT).is_file():
        return read_json(work / HELD_OUT, HeldOut)
    if (work / blend.FILE).is_file():
        return HeldOut(chosen=read_json(work / blend.FILE, BlendWeight))
    return None


def learn_held_out(
    job: TrainingJob, predictor: Any, held: Sequence[Example], before: StageResult | None = None
) -> HeldOut:
    """What such rows teach: the weight of the CRF, then how sure both together are. ``before``:
    what the training was, where it was for this alone."""
    chosen = words_beside.choose(job, predictor, held, before) if job.lexical else None
    if not held or not job.calibrates:
        return HeldOut(chosen=chosen)
    if chosen is not None and chosen.weight:
        predictor = words_beside.beside(job, predictor, chosen)
    said = training_of(job.head).claims(predictor, held)
    found = calibrate(job, said.claims, said.rows, before is not None, said.written)
    if found is not None and before is not None:
        found = msgspec.structs.replace(found, seconds=before.seconds, joules=before.joules)
    return HeldOut(chosen=chosen, calibration=found)


def with_held_out(result: StageResult, found: HeldOut) -> StageResult:
    """What a stage did, with what was found before it and what that took."""
    settings, before = dict(result.settings), found.chosen or found.calibration
    if found.chosen is not None:
        key = "lexical" if found.chosen.weight else "left out"
        settings[key] = words_beside.in_words(found.chosen)
    if found.calibration is not None:
        settings["calibration"] = in_words(found.calibration)
    if before is None:
        return msgspec.structs.replace(result, settings=settings)
    joules = result.joules and result.joules + (before.joules or 0.0)
    seconds = round(result.seconds + before.seconds, 2)  # of both trainings
    return msgspec.structs.replace(result, settings=settings, seconds=seconds, joules=joules)


def weigh(own: TrainingJob, held: Sequence[Example], recovery: Recovery) -> HeldOut | None:
    """Train without the rows that are held out, learn from them what they can teach, and keep that
    beside the checkpoints; the model is not kept. None but in the first process."""
    prepared = prepare(own, recovery)
    result, found = fit(own, prepared), None
    if processes.first():
        found = learn_held_out(own, prepared.predictor, held, result)
        write_json(own.work.parent / HELD_OUT, found)
        shutil.rmtree(own.work, ignore_errors=True)
    processes.wait()
    return found


# Prepare


def prepare(job: TrainingJob, recovery: Recovery) -> Prepared:
    """The items, the model and the settings of a stage, nothing left open."""
    seed_everything(job.seed)
    reader, items = read_items(job)
    subject = estimate.subject_of_job(job.base, job.card, job.head, items.items, len(job.dev))
    foresee = job.forecast or job.stage.micro_batch == "auto"
    program = estimate.footprint(subject, job.stage.tuning) if foresee else 0
    processes.join()
    kind = best_device()
    if job.shard:
        mesh = sharding.group(kind)
        model, parameters, packed, why = processes.in_turn(lambda: build_model(job, kind, mesh))
    else:
        model, parameters, packed, why = build_model(job, kind)
    plan = settle_plan(job, subject, parameters, packed, program, recovery)
    expected = None
    if job.forecast:
        device = Device(kind=kind, name=kind, usable=free_memory(), bf16=has_bf16())
        expected = estimate.of_plan(subject, job.stage, job.base, plan, device, packed, program)
        if estimate.is_tight(expected, device):
            steady_memory()
    model = model if job.shard else job.stage.tuning.attach(model)
    if not job.as_before:
        training_of(job.head).speed_up(model, kind)
    if plan.checkpointing:
        checkpoint(model)
    predictor, settings = training_of(job.head).judge(job, model, reader, items)
    return Prepared(
        items, model, parameters, plan, packed, why, predictor, settings, expected, recovery
    )


def read_items(job: TrainingJob) -> tuple[ChatTokeniser | Tokeniser, Items]:
    """What reads the stage's rows, and what it makes of them."""
    how = Reading(job.base, job.card, job.limits, job.stage.loss_on, job.max_rejected, job.more)
    reader, items = training_of(job.head).read(job.train, how)
    if not items.items:
        raise UserError(
            f"stage {job.name}: there is nothing to train on; the training part is empty."
        )
    return reader, items


def settle_plan(
    job: TrainingJob,
    subject: estimate.Subject,
    parameters: int,
    packed: bool,
    program: int,
    recovery: Recovery,
) -> StagePlan:
    """The settings of a stage on this machine, as earlier tries have taught."""
    stage, base = job.stage, job.base
    plan = resolve(
        stage,
        parameters,
        len(subject.rows.lengths),
        best_device(),
        has_bf16(),
        kind=training_of(job.head).rates,
        quantised=base.quantise != "none",
        processes=processes.world(),
        sharded=job.shard,
    )
    if stage.micro_batch == "auto":
        plan = processes.shared(
            lambda: estimate.fitted(subject, stage, base, plan, packed, program).plan
        )
    return recovered(plan, recovery)


def build_model(job: TrainingJob, device: str, mesh: Any = None) -> tuple[Any, int, bool, str]:
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


def packing(job: TrainingJob, model: Any) -> tuple[bool, str]:
    """Whether rows are laid end to end, and why; tried on the model itself, whatever its
    architecture claims."""
    wanted = training_of(job.head).packing(job.stage)
    if wanted == "off":
        return False, "off"
    if attention.use(model) and attention.keeps_apart(model):
        return True, "on"
    attention.leave(model)
    if wanted == "on":
        raise UserError(
            f"stage {job.name}: packing is on, but rows laid end to end would see each other in "
            f"{job.base.id}; set packing: auto."
        )
    return False, "off: rows laid end to end would see each other in this architecture"


def recovered(plan: StagePlan, recovery: Recovery) -> StagePlan:
    """A plan as earlier tries have taught; the effective batch stays."""
    micro_batch = max(1, plan.micro_batch // 2**recovery.halvings)
    return msgspec.structs.replace(
        plan,
        micro_batch=micro_batch,
        accumulation=plan.accumulation * plan.micro_batch // micro_batch,
        learning_rate=plan.learning_rate * recovery.rate,
        head_learning_rate=plan.head_learning_rate * recovery.rate,
    )


def seed_everything(seed: int) -> None:
    """Seed before the adapter and head are built, or they differ from run to run."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


# Fit


def fit(job: TrainingJob, prepared: Prepared) -> StageResult:
    """Train to the end, from the last checkpoint where there is one, and leave the model with its
    best weights."""
    model, plan, items = prepared.model, prepared.plan, prepared.items
    per_epoch = updates_per_epoch(
        len(items.items), plan.micro_batch, plan.accumulation * plan.processes
    )
    judge = Judge(job, prepared.predictor, per_epoch)
    trainer = StageTrainer(job, plan, items, model, judge, prepared.packed)
    if processes.rank():
        seed_everything(job.seed + processes.rank())  # dropout of its own
    started = time.monotonic()
    try:
        before = processes.shared(lambda: last_checkpoint(job.work))
        with EnergyMeter() as energy:
            trainer.train(resume_from_checkpoint=str(before) if before else None)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        given = isinstance(job.stage.micro_batch, int)
        if not given and plan.micro_batch > 1 and processes.world() == 1:
            raise Exhausted(plan.micro_batch) from None
        raise UserError(
            f"stage {job.name}: memory ran out with micro_batch {plan.micro_batch}; set "
            "micro_batch lower and accumulation higher, checkpointing: true, or base.window to a "
            "smaller number; residency plan says what would fit."
        ) from None
    seconds = time.monotonic() - started
    judge.restore()
    model.eval()
    attention.leave(model)
    result = msgspec.structs.replace(
        result_of(job, prepared, judge, trainer, seconds), joules=energy.joules
    )
    if job.shard:
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.accelerator.free_memory()
    return result


def last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint; half-written ones are removed."""
    whole = []
    for folder in work.glob("checkpoint-*"):
        if (folder / MARKER).is_file():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    newest = max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)
    if newest and (newest / "trained.safetensors").is_file():  # its name in earlier versions
        (newest / "trained.safetensors").rename(newest / TRAINED)
    return newest


def aged(job: TrainingJob) -> bool:
    """Whether the state that a stage goes on from was written by a version that trained
    otherwise."""
    newest = last_checkpoint(job.work)
    return newest is not None and "schema" not in read_json(newest / MARKER, dict[str, int])


def result_of(
    job: TrainingJob, prepared: Prepared, judge: Judge, trainer: StageTrainer, seconds: float
) -> StageResult:
    """What the stage did."""
    plan, items, expected = prepared.plan, prepared.items, prepared.estimate
    tokens = sum(len(item.ids) for item in items.items)
    epochs = trainer.state.epoch or 0.0
    trained = (p.numel() for p in prepared.model.parameters() if p.requires_grad)
    return StageResult(
        name=job.name,
        method=job.stage.configured.kind,
        settings=settings_of(job, prepared),
        parameters=prepared.parameters,
        trainable=sum(trained),
        metric=judge.metric_name,
        best=judge.best or 0.0,
        best_epoch=round(judge.best_epoch or epochs, 2),
        stopped=judge.stopped,
        history=tuple(judge.history),
        seconds=round(seconds, 2),
        tokens_per_second=round(tokens * epochs / seconds, 1) if seconds else 0.0,
        padding_share=0.0 if prepared.packed else round(trainer.batches.padding(), 4),
        peak_memory_mb=round(peak_memory(), 1),
        device=str(trainer.args.device),
        dtype=plan.precision,
        mask=items.proof,
        planned_memory_mb=round(expected.peak / 1e6, 1) if expected else 0.0,
        processes=plan.processes,
        recovered="; ".join(prepared.recovery.words),
    )


def settings_of(job: TrainingJob, prepared: Prepared) -> dict[str, str]:
    """Every setting as it was used, for the report."""
    plan, stage, several = prepared.plan, job.stage, prepared.plan.processes > 1
    times = f" x {plan.processes} processes" if several else ""
    found = {
        "epochs": f"{plan.epochs:g}",
        "steps": str(plan.steps),
        "steps of epochs: auto": str(plan.usual),
        "batch": f"{plan.batch} ({plan.micro_batch} x {plan.accumulation}{times})",
    }
    if plan.sharded:
        found["sharded"] = f"weights, gradients and optimiser, among {plan.processes} processes"
    found |= {
        "checkpointing": "on" if plan.checkpointing else "off",
        "memory": "steady (returned at once)" if memory_is_steady() else "kept by the allocator",
        "learning_rate": f"{plan.learning_rate:g}",
        "head_learning_rate": f"{plan.head_learning_rate:g}",
        "schedule": f"{stage.schedule}, warm-up {stage.warmup:g}",
        "optimiser": (
            f"{stage.optimiser} {stage.betas}, decay {stage.weight_decay:g}, clip {stage.clip:g}"
        ),
        "precision": plan.precision,
        "seed": str(job.seed),
        **{f"method.{k}": str(v) for k, v in stage.configured.model_dump(mode="json").items()},
    }
    if prepared.settings is None:
        return found
    limits, chat, generation = job.limits, prepared.settings.chat, prepared.settings.generation
    template = "file" if job.base.chat_template else "of the tokenizer"
    return found | {
        "packing": prepared.packing,
        "loss_on": stage.loss_on,
        "limits": (
            f"source {limits.source or 'window'}, target {limits.target or 'whole'}, over: "
            f"{limits.over}"
        ),
        "window": f"{job.base.window} tokens",
        "chat_template": f"{template}, {chat.digest[:12]}",
        **{f"generate.{k}": str(v) for k, v in generation.model_dump(mode="json").items()},
    }


# Save


def save(job: TrainingJob, prepared: Prepared, result: StageResult, found: HeldOut) -> None:
    """Write the artefact and what the stage did; the first of several processes writes."""
    model = put_together(job, prepared.model) if job.shard else prepared.model
    if processes.first():
        artefact.save(
            job.out,
            model,
            job.base,
            job.card,
            job.stage.configured,
            job.profile,
            prepared.settings,
            job.start,
            job.more,
            found.calibration,
        )
        if found.chosen is not None:
            words_beside.save(job, found.chosen)
        emptied(model)
        predictors.remember(job.out)
        write_json(job.out / "stage.json", result)
        write_jsonl(job.out / "metrics.jsonl", result.history)
    processes.wait()


def emptied(model: Any) -> None:
    """Free the memory of a model that is on disk, before it is loaded again."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = torch.empty(0, dtype=tensor.dtype)


def put_together(job: TrainingJob, model: Any) -> Any:
    """The whole model, on the CPU of the first process, from the parts of all; nothing in the
    others."""
    target = None
    model.zero_grad()
    if processes.first():
        seed_everything(job.seed)
        method = job.stage.tuning
        target = artefact.begin(job.base, job.card, job.output, method, job.start)
        target = method.attach(target).eval()
    sharding.move_into(model, target)
    return target
