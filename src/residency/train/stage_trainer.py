"""``transformers.Trainer`` with our batches, our loss and our rates.

Overridden are three public methods (``get_train_dataloader``, ``compute_loss``, ``save_model``),
and of the private ones, which an upgrade may take away, one: ``_load_optimizer_and_scheduler``.
Nothing public comes between reading the state of the optimiser and its first step, and there the
rates of this attempt have to take the place of those of the one that wrote the checkpoint; and a
state that processes share out would be read whole onto each GPU.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers

from residency.core.errors import UserError
from residency.models import sharding
from residency.models.attention import lay_end_to_end
from residency.models.running import best_device
from residency.tasks.heads import IGNORED
from residency.train import processes, trackers
from residency.train.batches import LengthBatches, collate
from residency.train.defaults import StagePlan
from residency.train.items import Items, TrainingItem
from residency.train.job import TrainingJob
from residency.train.judge import Judge
from residency.train.kinds import training_of
from residency.train.stage import Stage

TRAINED = "model.safetensors"
"""What a checkpoint keeps of the model, under the name that the Trainer reads."""
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


class StageTrainer(transformers.Trainer):  # type: ignore[misc]
    """The Trainer of one stage."""

    def __init__(
        self,
        job: TrainingJob,
        plan: StagePlan,
        items: Items,
        model: Any,
        judge: Judge,
        packed: bool = False,
    ) -> None:
        self.job, self.plan, self.judge, self.packed = job, plan, judge, packed
        blank = items.items[0]  # a row of the same kind that teaches nothing
        blank = TrainingItem(
            example="", ids=blank.ids[:8], targets=[IGNORED] * len(blank.targets[:8])
        )
        super().__init__(
            model=model,
            args=arguments(job, plan),
            train_dataset=[*items.items, blank],  # BLANK is the last
            callbacks=[judge, *trackers.callbacks(job.stage.track, job.out)],
            data_collator=self._collate,
            optimizers=(optimiser(model, job.stage, plan), None),
        )
        # so that it counts the trained tokens of all micro-batches for us
        self.model_accepts_loss_kwargs = True
        self.remove_callback(transformers.trainer_callback.PrinterCallback)
        lengths = [len(item.ids) for item in items.items]
        self.batches = LengthBatches(
            lengths, plan.micro_batch, job.seed, self._epoch, processes.rank(), plan.processes
        )

    def _collate(self, batch: list[TrainingItem]) -> dict[str, Any]:
        if self.packed:
            targets = [[int(target) for target in item.targets] for item in batch]
            return lay_end_to_end([item.ids for item in batch], targets)
        pad = self.judge.predictor.pad_id
        return collate(batch, pad, self.job.head, self.job.card.multiple)

    def _epoch(self) -> int:
        return int(self.state.global_step // self.judge.per_epoch)

    def get_train_dataloader(self) -> Any:
        """Batches of ``LengthBatches``."""
        loader = torch.utils.data.DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=0,
        )
        # of several processes each has its share already, which would be shared out again
        return loader if self.plan.processes > 1 else self.accelerator.prepare(loader)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
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
        elif self.plan.sharded:
            self.optimizer.state_dict()  # gives its part to the first process, which writes it next

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """With the rates of this attempt, which may be lower than those of the one that wrote the
        checkpoint."""
        if checkpoint is None:
            return
        own = [group["initial_lr"] for group in self.optimizer.param_groups]
        if self.plan.sharded:  # on the CPU: whole, it may not fit the device
            read = partial(torch.load, map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(read(Path(checkpoint) / "optimizer.pt", mmap=True))
            self.lr_scheduler.load_state_dict(read(Path(checkpoint) / "scheduler.pt"))
        else:
            super()._load_optimizer_and_scheduler(checkpoint)
        for rate, group in zip(own, self.optimizer.param_groups, strict=True):
            group["lr"] *= rate / group["initial_lr"]
            group["initial_lr"] = rate
        self.lr_scheduler.base_lrs = own
        self.lr_scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean over the trained tokens (or labels) of the whole effective batch, so micro-batches
        weigh right. Gradients are averaged over processes, while the loss is already a mean over
        the rows of all, so it counts as often as there are processes."""
        training, smoothing = training_of(self.job.head), self.job.stage.label_smoothing
        total, count, output = training.loss(model, inputs, self.job.card.multiple, smoothing)
        counted = num_items_in_batch if num_items_in_batch is not None else count
        loss = total / counted * self.plan.processes
        return (loss, output) if return_outputs else loss


def optimiser(model: Any, stage: Stage, plan: StagePlan) -> Any:
    """AdamW; the fresh head has its own rate, biases, norms and prefixes no decay.

    Raises ``UserError`` where its library is missing.
    """
    groups: dict[tuple[bool, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            head = any(part in name.split(".") for part in ("classifier", "score"))
            decayed = parameter.ndim > 1 and ".prefix." not in name
            groups.setdefault((head, decayed), []).append(parameter)
    given = [
        {
            "params": found,
            "lr": plan.head_learning_rate if head else plan.learning_rate,
            "weight_decay": stage.weight_decay if decayed else 0.0,
        }
        for (head, decayed), found in groups.items()
    ]
    make: Any = torch.optim.AdamW
    more = {"fused": True}
    if stage.optimiser != "adamw":
        try:
            import bitsandbytes
        except ImportError:
            raise UserError(
                f"stages.optimiser: {stage.optimiser} needs bitsandbytes; run pip install "
                '"residency[quantise]", or set adamw.'
            ) from None
        paged = stage.optimiser == "paged_adamw_8bit" and torch.cuda.is_available()
        make, more = bitsandbytes.optim.adamw.AdamW8bit, {"is_paged": paged}
    made = make(given, betas=stage.betas, eps=stage.epsilon, **more)
    if plan.sharded:
        sharding.keep_whole(made)
    return made


def arguments(job: TrainingJob, plan: StagePlan) -> Any:
    """The Trainer's arguments for a plan."""
    several: dict[str, Any] = {}
    if plan.processes > 1:
        several = {"ddp_backend": None, "ddp_find_unused_parameters": not plan.checkpointing}
    if plan.sharded:  # waiting for the last micro-batch would take less time, and hold them whole
        at_once = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
        several["accelerator_config"] = at_once
    return transformers.TrainingArguments(
        output_dir=str(job.work),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=SCHEDULES[job.stage.schedule],
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
        **several,
    )
