"""A stage: a tuning method and how it is optimised. Published settings can be given literally."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from residency.core.part import ON_OFF, Part, Share
from residency.models.adapters import Configured, Freeze, Lora, Method, Methods, method_of
from residency.models.base import Base

Auto = Literal["auto"]
Logger = Literal["tensorboard", "mlflow", "wandb"]


class Stop(Part):
    """When to end before the last epoch; the best model is kept in any case."""

    metric: str = ""
    """A score of the task, e.g. ``span_f1``; where empty the card's own, or for answers ``loss``
    (per token, lower is better)."""
    patience: int = Field(default=3, ge=1)
    """Epochs, or judgements, without a better value."""
    every: int | None = Field(default=None, ge=1)
    """Judge after so many optimiser steps, instead of after every epoch."""


class Replay(Part):
    """Rows of general data among a stage's own, so that it forgets less."""

    data: str
    """Name of an entry of ``data``."""
    share: Share
    """Of all rows that the stage trains on, those that are replayed."""


class Stage(Part):
    """One training stage."""

    name: str = Field(default="", pattern=r"^[\w-]*$")
    """Part of the stage's folder; the method's kind where not given."""
    start: str = "previous"
    """``base``, ``previous`` (the stage before; of the first, the base), or the folder of a run or
    an artefact, relative to the recipe."""
    tasks: tuple[str, ...] = ()
    """Names of the tasks that it trains; all where none are named."""
    data: str | None = None
    """Name of the entry of ``data`` that it trains on; the task's own where not given."""
    replay: Replay | None = None
    method: Methods | Auto = "auto"
    """``auto``: on an encoder with a head all layers, its token embeddings left as they are
    (``{kind: freeze, last: all}``); else ``{kind: lora}``."""
    lexical: Annotated[Literal["auto", "off"], ON_OFF] = Field(
        default="auto", exclude_if=lambda chosen: chosen == "auto"
    )
    """Encoders that mark spans: a CRF over words, shapes and a dictionary of the training part is
    fitted beside the encoder, and the probabilities of both are multiplied. How much it counts is
    chosen on the stop part; where there is none, on 15 % of the training rows, in a training
    without them that comes first. ``off``: the encoder answers alone."""
    calibrate: Annotated[Literal["auto", "off"], ON_OFF] = Field(
        default="auto", exclude_if=lambda chosen: chosen == "auto"
    )
    """Models that mark spans or choose labels: how sure they say they are is brought near how often
    they are right, by one temperature found on the stop part. Where there is none, on 15 % of the
    training rows, in a training without them that comes first: that which weighs the CRF, of an
    encoder that chooses labels one for this alone; other models where ``abstain_error`` asks for
    it. No answer changes. ``off``: chances stay as the model gives them."""
    abstain_error: Share | None = Field(default=None, exclude_if=lambda most: most is None)
    """Most of the answers given (spans, labels) that may be wrong: the confidence from which on
    that held on the same rows is kept with the model, which abstains below it in ``/diagnose``; the
    report says what it keeps and what is wrong of that on the test part. No threshold where not
    given."""
    epochs: Annotated[float, Field(le=10_000)] | Auto = "auto"
    """Passes over the training data, at most; ``auto`` suits the method and the amount of data."""
    steps: int | None = Field(default=None, ge=1, le=10**9)
    """Optimiser steps; instead of ``epochs``."""
    batch: Annotated[int, Field(le=10**6)] | Auto = "auto"
    """Effective batch: rows per optimiser step."""
    micro_batch: Annotated[int, Field(ge=1, le=10**6)] | Auto | None = None
    """Rows per forward pass; with ``accumulation`` it makes the effective batch. ``auto``: as many
    as memory holds by the plan's estimate, and half of them where that was too many."""
    accumulation: int | None = Field(default=None, ge=1, le=10**6)
    """Forward passes that make one optimiser step."""
    learning_rate: float | Auto = "auto"
    """Peak rate; ``auto`` suits the method, the size of the model and the amount of data."""
    head_learning_rate: float | Auto = "auto"
    """Rate of the fresh head."""
    optimiser: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """``adamw_8bit``: its state in 8 bits; ``paged_``: which may leave the GPU while it is short of
    memory (on a CPU there is nothing to leave). Both need bitsandbytes."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate goes after the warm-up: down to 0 in a line or a cosine, or as it is."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW: how far each step draws weights towards 0, beside the gradient."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW: how slowly the means of the gradients and of their squares change."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Of AdamW: what is added to the denominator."""
    clip: float = Field(default=1.0, ge=0)
    """Largest gradient norm; 0 for none."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the reference's probability that is spread over all labels."""
    loss_on: Literal["all", "last"] = "all"
    """Generative models: learn every answer of a conversation, or only the last."""
    packing: Annotated[Literal["auto", "on", "off"], ON_OFF] = "auto"
    """Generative models: put the rows of a batch one behind the other instead of padding them; none
    sees another. ``auto``: where the model allows it."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the computation; ``auto``: ``bf16`` where the hardware has it, else ``fp32``."""
    stop: Stop | None = Stop()
    """``null`` trains to the end and keeps the last model."""
    track: tuple[Logger, ...] = ()
    """Also log to these, where installed; ``wandb`` and a remote ``mlflow`` only for profiles that
    may leave."""

    checkpointing: bool | Auto = "auto"
    """Compute what a layer keeps again instead of keeping it: a third more time, much less memory.
    ``auto``: for bases of a billion parameters and more, on a GPU."""
    save_every: int | None = Field(default=None, ge=1)
    """Optimiser steps between states that an interrupted run goes on from; every 30 seconds where
    not given."""

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        if not self.needs_base:
            of_networks = self.model_fields_set - {
                "name",
                "start",
                "tasks",
                "data",
                "replay",
                "method",
                "stop",
                "calibrate",
                "abstain_error",
            }
            if of_networks:
                raise ValueError(
                    f"{sorted(of_networks)[0]} is about neural networks, and method.kind "
                    f"{self.configured.kind} is none; leave it out"
                )
        if self.calibrate == "off" and self.abstain_error is not None:
            raise ValueError("abstain_error needs calibrated chances; leave calibrate: off out")
        if self.steps is not None and self.epochs != "auto":
            raise ValueError("give epochs or steps, not both")
        if isinstance(self.epochs, float) and not 0 < self.epochs < math.inf:
            raise ValueError("epochs must be above 0")
        if isinstance(self.batch, int) and self.batch < 1:
            raise ValueError("batch must be at least 1")
        for rate in (self.learning_rate, self.head_learning_rate):
            if isinstance(rate, float) and not 0 < rate < math.inf:
                raise ValueError("learning rates must be above 0")
        if self.micro_batch == "auto" and self.accumulation:
            raise ValueError(
                "micro_batch is auto, so accumulation follows from batch; leave it out"
            )
        if (
            isinstance(self.batch, int)
            and isinstance(self.micro_batch, int)
            and self.accumulation
            and self.batch != self.micro_batch * self.accumulation
        ):
            raise ValueError(
                f"batch is {self.batch}, but micro_batch x accumulation is "
                f"{self.micro_batch * self.accumulation}"
            )
        for name in ("micro_batch", "accumulation"):
            rows = getattr(self, name)
            if isinstance(self.batch, int) and isinstance(rows, int) and self.batch % rows:
                raise ValueError(f"batch is {self.batch}, which {name} {rows} does not divide")
        return self

    @property
    def configured(self) -> Configured:
        """The method as it is configured, of a stage that is settled."""
        assert self.method != "auto", "the method is settled by the base"
        return self.method

    @property
    def tuning(self) -> Method:
        """The method, ready to be used."""
        return method_of(self.configured)

    @property
    def needs_base(self) -> bool:
        """Whether it starts from a base."""
        return self.method == "auto" or self.tuning.needs_base

    def settled(self, base: Base) -> Stage:
        """With the method that suits a base, where it leaves that open."""
        if self.method != "auto":
            return self
        whole = base.architecture == "encoder" and base.quantise == "none"
        # the kind is said, as it is in a recipe, or the run's own copy would be without
        method: Configured = Freeze(kind="freeze", last="all") if whole else Lora(kind="lora")
        return self.model_copy(update={"method": method})

    def title(self, number: int) -> str:
        """``1-lora``: the stage's folder."""
        kind = self.method if self.method == "auto" else self.method.kind
        return f"{number}-{self.name or kind}"
