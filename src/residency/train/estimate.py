"""What a stage will take, before it runs: memory, time and disk, from the base's configuration
alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from residency.core.errors import UserError
from residency.core.part import Part
from residency.core.types import Value
from residency.models.adapters import Method
from residency.models.base import Base, silent
from residency.models.weights import LARGE, bare
from residency.tasks.card import Card
from residency.tasks.heads import Head
from residency.train.defaults import StagePlan
from residency.train.device import Device, device_here, held
from residency.train.stage import Stage

if TYPE_CHECKING:
    from residency.train.items import TrainingItem
    from residency.train.meta_step import Batch, Precision, StepMemory

USED_OF_GPU, USED_OF_CPU = 0.4, 0.5
"""Share of the throughput for large matrices that a training step comes to."""
CALL = {"cuda": 8e-6, "cpu": 1.5e-5}
"""Seconds that one operator costs beside its arithmetic."""
SHALLOW = (3, 6)
"""Deep models are measured at these two depths: layers are alike, the rest is a straight line."""
UNSHARED = ("freeze", "external")
"""Kinds of methods that treat layers differently; they are measured at full depth."""
Quantise = Literal["none", "nf4", "int8"]
STORED = {"nf4": 0.5 + 1 / 64 + 4 / (64 * 256), "int8": 1.0}
"""Bytes a weight; NF4: 4 bits, a scale of 8 bits for 64 of them, and one of 32 bits for 256 scales
(Dettmers et al., 2023)."""


class RowLengths(Value, frozen=True):
    """The training items, as far as memory and time depend on them."""

    lengths: tuple[int, ...]
    trained: tuple[int, ...]
    """Positions of each that reach the vocabulary; for heads its length."""

    def longest(self, micro_batch: int, packed: bool) -> Batch:
        """The heaviest micro-batch that can come up; rows end to end count as rows of their mean
        length."""
        from residency.train.meta_step import Batch

        order = sorted(range(len(self.lengths)), key=lambda i: -self.lengths[i])[:micro_batch]
        lengths = [self.lengths[i] for i in order]
        trained = sorted(self.trained, reverse=True)[:micro_batch]
        tokens = math.ceil(sum(lengths) / len(lengths)) if packed else lengths[0]
        return Batch(
            rows=len(order),
            tokens=tokens,
            trained=min(tokens, max(1, math.ceil(sum(trained) / len(trained)))),
        )


class MemoryEstimate(Value, frozen=True):
    """What a stage will take. Bytes, unless said otherwise."""

    parameters: int
    trainable: int
    plan: StagePlan
    """The settings that it was made for; where several processes share the model out, weights,
    gradients, the optimiser's state and the best weights are those of one."""
    weights: int
    gradients: int
    optimiser: int
    activations: int
    """All that comes and goes within a step: kept for the backward pass, logits, work space."""
    copies: int
    """The best weights so far, where a stop rule keeps them."""
    program: int
    """The interpreter and its libraries; 0 on a GPU, where they are not in its memory."""
    loading: int
    """Most that is held while the base is read, the program included; 0 on a GPU."""
    peak: int
    """Most at once: on a GPU of its memory, on a CPU of the process."""
    artefact: int
    borrowed: int
    """Where the model is shared out: what is put together from all parts while a layer computes."""
    checkpoints: int
    """On disk while it trains."""
    seconds: float
    """Of training alone; 0 where the device's speed is not known. Right within a factor of two or
    so."""

    @property
    def disk(self) -> int:
        """Bytes on disk at most."""
        return self.artefact + self.checkpoints


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is drawn at random afterwards is what would have been drawn."""
    import torch

    with torch.random.fork_rng(devices=[]):
        yield


@undisturbed()
def footprint(subject: Subject, method: Method) -> int:
    """Bytes that this process holds once everything is imported that training imports."""
    from residency.train.meta_step import Batch, measure_step

    depth = None if uneven(method) else min(subject.layers, 1) or None
    model = attached(subject.build(depth), settled(method, subject))
    measure_step(model, subject.head, Batch(rows=1, tokens=8, trained=1))
    return held()


class Subject(Value, frozen=True):
    """What is trained: how its model is built, and on which rows."""

    build: Callable[[int | None], Any]
    """A model on the meta device, with so many layers (all where None)."""
    layers: int
    head: Head
    rows: RowLengths
    file: int = 0
    """Bytes of the base's weights on disk; 0 where they are not here."""
    dev: int = 0
    """Rows of the stop part."""


@undisturbed()
def estimate(
    subject: Subject,
    method: Method,
    device: Device,
    plan: StagePlan,
    *,
    half: bool,
    quantise: Quantise,
    packed: bool,
    copies: bool,
    program: int | None,
) -> MemoryEstimate:
    """What the stage will take.

    ``half``: weights that are not trained are held in the precision of training; ``quantise``: the
    frozen linear layers of the body are held in 4 or 8 bits; ``packed``: rows are laid end to end;
    ``copies``: the best weights so far are kept; ``program``: bytes that the process holds before
    the base is read; ``None``: what it holds once a step was measured.
    """
    batch = subject.rows.longest(plan.micro_batch, packed)
    reading = _reading(subject) if copies and subject.dev else None
    smaller = half or quantise != "none"
    step, linear = _measured(subject, method, batch, plan, smaller, reading, device)
    program = held() if program is None else program
    saved = 0
    if quantise != "none":
        width = 4 if plan.precision == "fp32" else 2
        taken_out = max(linear, default=0) * width  # for each multiplication
        saved = round(sum(linear) * (width - STORED[quantise])) - taken_out
    whole = step.weights - saved
    activations = max(step.peak, step.reading) - step.weights - step.optimiser - step.gradients
    weights, gradients, states = (
        math.ceil(size / plan.shares) for size in (whole, step.gradients, step.optimiser)
    )
    copied = gradients if copies else 0
    shared = plan.shares > 1
    borrowed = _borrowed(subject, method, half and plan.precision != "fp32") if shared else 0
    training = weights + gradients + states + borrowed + activations
    loading = 0
    if device.kind == "cpu":
        training += program + copied
        # the first process builds the whole again, to save it
        loading = program + whole + (weights if shared else 0) + subject.file
    return MemoryEstimate(
        parameters=step.parameters,
        trainable=step.trainable,
        plan=plan,
        weights=weights,
        gradients=gradients,
        optimiser=states,
        activations=activations,
        borrowed=borrowed,
        copies=copied,
        program=program if device.kind == "cpu" else 0,
        loading=loading,
        peak=max(loading, training),
        artefact=4 * step.trainable,
        checkpoints=2 * 4 * step.trainable * (3 + bool(copied)),
        seconds=_seconds(step, batch, subject.rows, device, plan),
    )


def _seconds(
    step: StepMemory, batch: Batch, rows: RowLengths, device: Device, plan: StagePlan
) -> float:
    if not device.flops:
        return 0.0
    mean = sum(rows.lengths) / len(rows.lengths)
    share = min(1.0, mean * plan.micro_batch / (batch.rows * batch.tokens))
    used = USED_OF_GPU if device.kind == "cuda" else USED_OF_CPU
    each = step.flops * share / (device.flops * used) + step.calls * CALL[device.kind]
    return plan.steps * plan.accumulation * each


def _borrowed(subject: Subject, method: Method, half: bool) -> int:
    """Bytes put together at most: what belongs to no layer, and two layers, of which one is on its
    way, with their gradients. ``half``: what is not trained has 16 bits."""
    from residency.models import sharding

    shallow = SHALLOW[0]
    depth = None if uneven(method) or subject.layers <= shallow else shallow
    model = attached(subject.build(depth), settled(method, subject))
    lent = [{id(p): p for p in unit.parameters()} for unit in sharding.units(model)]
    inside = {key for unit in lent for key in unit}
    rest = [p for p in model.parameters() if id(p) not in inside]

    def size(parameters: Iterable[Any]) -> int:
        return sum(p.numel() * (8 if p.requires_grad else 2 if half else 4) for p in parameters)

    largest = sorted((size(unit.values()) for unit in lent), reverse=True)
    return size(rest) + sum(largest[:2])


def _reading(subject: Subject) -> Batch:
    """The heaviest batch of the stop part, whose rows are taken to be like those of the training
    part."""
    from residency.train.meta_step import Batch

    longest = max(subject.rows.lengths)
    count = max(1, min(subject.dev, READ_ROWS, subject.head.read_tokens // longest))
    return Batch(rows=count, tokens=longest, trained=min(longest, max(subject.rows.trained)))


READ_ROWS = 32
"""Rows that a predictor reads at once."""


def _measured(
    subject: Subject,
    method: Method,
    batch: Batch,
    plan: StagePlan,
    half: bool,
    reading: Batch | None,
    device: Device,
) -> tuple[StepMemory, list[int]]:
    """A step at full depth, and the sizes of the frozen linear layers of the body."""
    from residency.train.kinds import training_of
    from residency.train.meta_step import StepMemory, measure_step

    def at(depth: int | None) -> tuple[StepMemory, list[int]]:
        model = attached(subject.build(depth), method)
        training_of(subject.head).speed_up(model, device.kind)
        linear = frozen_linear(model)
        precision = cast("Precision", plan.precision)
        given = (model, subject.head, batch, precision, plan.checkpointing, half, reading)
        return measure_step(*given), linear

    method = settled(method, subject)
    shallow, deep = SHALLOW
    if uneven(method) or subject.layers <= deep:
        return at(None)
    (low, few), (high, many) = at(shallow), at(deep)
    times = (subject.layers - shallow) / (deep - shallow)
    fields = {
        name: round(getattr(low, name) + times * (getattr(high, name) - getattr(low, name)))
        for name in StepMemory.__struct_fields__
    }
    more = many[-(len(many) - len(few)) :] if len(many) > len(few) else []
    return StepMemory(**fields), [*few, *more * round(times)]


def uneven(method: Method) -> bool:
    """Whether a method may treat layers differently."""
    named = isinstance(getattr(method, "targets", None), list)
    unlike = getattr(method, "kind", "") in UNSHARED and getattr(method, "last", None) != "all"
    return named or unlike


def settled(method: Method, subject: Subject) -> Method:
    """The method with what it decides by the size of the whole model decided."""
    if getattr(method, "targets", None) != "auto" or not isinstance(method, Part):
        return method
    size = parameters_of(subject)
    return method.model_copy(update={"targets": "linear" if size < 400_000_000 else "attention"})


def attached(model: Any, method: Method) -> Any:
    """The model with the method on it, on the meta device."""
    import torch

    with torch.device("meta"), _masks_kept():
        return method.attach(model)


@contextmanager
def _masks_kept() -> Iterator[None]:
    """A prefix is begun by running the model, where transformers looks whether a mask may be left
    out; without values it cannot."""
    from transformers import masking_utils

    real = masking_utils._ignore_causal_mask_sdpa, masking_utils._ignore_bidirectional_mask_sdpa
    masking_utils._ignore_causal_mask_sdpa = masking_utils._ignore_bidirectional_mask_sdpa = (
        lambda *_, **__: False
    )
    try:
        yield
    finally:
        masking_utils._ignore_causal_mask_sdpa, masking_utils._ignore_bidirectional_mask_sdpa = real


def frozen_linear(model: Any) -> list[int]:
    """Weights in each linear layer of the body that is not trained; what stands before or behind
    the layers is not quantised."""
    import torch

    output = getattr(model, "get_output_embeddings", lambda: None)()
    return [
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not output
        and not module.weight.requires_grad
        and "lora_" not in name
    ]


def subject_of(
    config: Any,
    head: Head,
    outputs: Sequence[str],
    rows: RowLengths,
    file: int = 0,
    dev: int = 0,
) -> Subject:
    """A base as its configuration describes it, with what answers at its end."""

    def build(depth: int | None) -> Any:
        import torch

        given = copy.deepcopy(config)
        if depth is not None:
            given.num_hidden_layers = depth
            if getattr(given, "layer_types", None):
                given.layer_types = list(given.layer_types)[:depth]
        for name, value in head.sizes(outputs).items():
            setattr(given, name, value)
        with torch.device("meta"), silent():
            return bare(given, head)

    layers = int(getattr(config.get_text_config(), "num_hidden_layers", 0))
    return Subject(build=build, layers=layers, head=head, rows=rows, file=file, dev=dev)


def config_of(path: Path) -> Any:
    """A base's configuration.

    Raises ``UserError`` where transformers does not know its architecture.
    """
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        raise UserError(
            f"base: {path / 'config.json'} describes no model that transformers knows; choose "
            "another base."
        ) from None


def subject_of_job(
    base: Base, card: Card, head: Head, items: Sequence[TrainingItem], dev: int
) -> Subject:
    """What a job trains."""
    trained = (head.computed(item.ids, item.targets) for item in items)
    rows = RowLengths(lengths=tuple(len(item.ids) for item in items), trained=tuple(trained))
    path = Path(base.path)
    stored = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return subject_of(config_of(path), head, head.outputs(card), rows, stored, dev)


def of_plan(
    subject: Subject,
    stage: Stage,
    base: Base,
    plan: StagePlan,
    device: Device,
    packed: bool,
    program: int | None,
) -> MemoryEstimate:
    """The estimate of a stage whose settings are all decided."""
    from residency.train.words_beside import trainings

    method = stage.tuning
    large = device.kind == "cuda" and parameters_of(subject) >= LARGE
    found = estimate(
        subject,
        method,
        device,
        plan,
        half=not method.in_place
        and (base.dtype in ("bf16", "fp16") or (base.dtype == "auto" and large)),
        quantise=base.quantise,
        packed=packed,
        copies=stage.stop is not None and subject.dev > 0,
        program=program,
    )
    times = trainings(stage, base, subject.head, len(subject.rows.lengths), subject.dev)
    return msgspec.structs.replace(found, seconds=times * found.seconds)


def fitted(
    subject: Subject,
    stage: Stage,
    base: Base,
    plan: StagePlan,
    packed: bool,
    program: int | None,
    device: Device | None = None,
) -> MemoryEstimate:
    """The estimate of the plan with the largest micro-batch that memory holds, its effective batch
    as it was; of the smallest where none fits."""
    device = device or device_here()
    rows = plan.micro_batch * plan.accumulation
    for micro in micro_batches(rows, MOST_ROWS):
        tried = msgspec.structs.replace(plan, micro_batch=micro, accumulation=rows // micro)
        found = of_plan(subject, stage, base, tried, device, packed, program)
        if fits(found, device):
            break
    return found


MOST_ROWS = 32
"""Rows of a micro-batch that ``auto`` does not go beyond."""


def parameters_of(subject: Subject) -> int:
    """Parameters of the base, its head included."""
    return sum(p.numel() for p in subject.build(None).parameters())


TIGHT = 0.9
"""Share of the memory that is free above which a planned peak is too close to it."""


def fits(found: MemoryEstimate, device: Device) -> bool:
    """Whether a device has the memory."""
    return found.peak <= device.usable


def is_tight(found: MemoryEstimate, device: Device) -> bool:
    """Whether a process on a CPU has so little room that it takes its memory in the steady way
    (``models.running.steady_memory``)."""
    return device.kind == "cpu" and found.peak > TIGHT * device.usable


def verdict(found: MemoryEstimate, device: Device) -> str:
    """Whether it fits, and why, in a sentence."""
    heaviest = {
        "the weights": found.weights,
        "what a step keeps for its backward pass": found.activations,
        "gradients and the optimiser": found.gradients + found.optimiser,
        "what is put together from all parts": found.borrowed,
        "reading the base": found.loading - found.program if found.loading == found.peak else 0,
    }
    name, size = max(heaviest.items(), key=lambda pair: pair[1])
    says = "yes" if fits(found, device) else "no"
    words = (
        f"fits on {device.name}: {says}, because at most {human_size(found.peak)} of the usable "
        f"{human_size(device.usable)} are held at once; most of it is {name} ({human_size(size)})."
    )
    if fits(found, device) and is_tight(found, device):
        words += (
            " Little is left, so large tensors go back to the system at once, which takes up to "
            "2.2 times the processor time."
        )
    return words


def human_size(size: float) -> str:
    """Bytes for a reader: ``7.4 GB``."""
    if math.isinf(size):
        return "any"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def micro_batches(batch: int, most: int) -> Sequence[int]:
    """Micro-batches that make up an effective batch, largest first."""
    return [rows for rows in range(min(batch, most), 0, -1) if batch % rows == 0]
