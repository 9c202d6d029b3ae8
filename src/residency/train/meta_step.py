"""A training step on tensors that have a shape and no values: what it would hold in memory and how
much it would compute.

The model is built from its configuration and the tuning method is attached to it on the meta
device, where nothing has content. Then one optimiser step runs on fake tensors (torch's own, made
for this), and every tensor that comes into being is counted until it is released. So nothing here
knows an architecture or a method: both are the ones that training uses.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from residency.core.types import Value
from residency.models.base import silent
from residency.tasks.heads import Head

Precision = Literal["fp32", "bf16", "fp16"]
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

FINE = 1.004
"""A new high that is less than this above the last is not looked at: so precise is the peak."""


class Batch(Value, frozen=True):
    """What one forward pass reads."""

    rows: int
    tokens: int
    """Of each row, padding included."""
    trained: int
    """Positions of each row that reach the vocabulary; heads look at all."""


class StepMemory(Value, frozen=True):
    """What a step holds at once, in bytes, and computes."""

    parameters: int
    trainable: int
    weights: int
    """Of the model, adapters included."""
    gradients: int
    optimiser: int
    peak: int
    """Most that is held at once, weights included."""
    reading: int
    """Most that is held at once while the stop part is read, without gradients; 0 where there is
    none."""
    flops: int
    """Of one forward and backward pass."""
    calls: int
    """Of operators, in one forward and backward pass and one step of the optimiser."""


class HeldBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = self.calls = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls += func is not torch.ops.prim.device.default
        self.add(tensor for tensor in tree_iter(result) if isinstance(tensor, torch.Tensor))
        return result

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count tensors, each storage once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._known:
                self._known.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, key, storage.nbytes())
                if self.now > FINE * self.most:
                    gc.collect()  # fake tensors form cycles, real ones do not
                    self.most = max(self.most, self.now)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def measure_step(
    model: Any,
    head: Head,
    batch: Batch,
    precision: Precision = "fp32",
    checkpointing: bool = False,
    half: bool = False,
    reading: Batch | None = None,
) -> StepMemory:
    """One optimiser step of a model on the meta device, ready to be trained; afterwards the model
    is of no more use.

    ``half``: weights that are not trained are held in the precision of training. ``reading``: a
    batch that is read without gradients.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    with _collected(), FakeTensorMode(allow_non_fake_inputs=True):
        materialise(model, TYPES[precision] if half and precision != "fp32" else None)
        if checkpointing:
            checkpoint(model)
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, fused=True)
        held, flops = HeldBytes(), FlopCounterMode(display=False)
        # in this order: the counter takes some operators apart, which none but it should see
        with flops, held:
            held.add(tensor for module in model.modules() for tensor in _own(module))
            weights = held.now
            for parameter in trained:
                parameter.grad = torch.zeros_like(parameter)
            gradients = held.now - weights
            optimiser.step()
            states = held.now - weights - gradients
            optimiser.zero_grad()
            held.calls = 0
            loss = _loss(model, head, batch, precision)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()
            most, calls, computed = held.most, held.calls, flops.get_total_flops()
            del loss
            read = _read(model, head, reading, precision, held) if reading is not None else 0
    return StepMemory(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in trained),
        weights=weights,
        gradients=gradients,
        optimiser=states,
        peak=most,
        reading=read,
        flops=computed,
        calls=calls,
    )


def _read(model: Any, head: Head, batch: Batch, precision: Precision, held: HeldBytes) -> int:
    """Most bytes that are held while a batch is read without gradients."""
    held.most = held.now
    model.eval()
    with torch.no_grad():
        _loss(model, head, batch, precision)
    return held.most


@contextmanager
def _collected() -> Iterator[None]:
    """What is there already is not looked through each time that garbage is collected."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def materialise(model: Any, frozen: torch.dtype | None) -> None:
    """Give every parameter and buffer of a model on the meta device a place, in a mode of fake
    tensors."""
    known: dict[int, tuple[Any, Any]] = {}
    for module in model.modules():
        for own in (module._parameters, module._buffers):
            for name, old in own.items():
                if old is None:
                    continue
                if id(old) not in known:  # tied weights stay one
                    learned = isinstance(old, torch.nn.Parameter)
                    smaller = frozen and learned and not old.requires_grad
                    kind = frozen if smaller and old.is_floating_point() else old.dtype
                    new = torch.empty(old.shape, dtype=kind)
                    if learned:
                        new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
                    known[id(old)] = (new, old)
                own[name] = known[id(old)][0]


def checkpoint(model: Any) -> None:
    """Keep only the inputs of each layer for the backward pass, and compute the rest again."""
    enable = getattr(model, "activation_checkpointing_enable", None)
    with silent():
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})  # its older name


def _own(module: Any) -> Iterator[torch.Tensor]:
    tensors = (*module._parameters.values(), *module._buffers.values())
    yield from (tensor for tensor in tensors if tensor is not None)


def _loss(model: Any, head: Head, batch: Batch, precision: Precision) -> torch.Tensor:
    """As the trainer's, with targets of no meaning."""
    ids = torch.zeros(batch.rows, batch.tokens, dtype=torch.long)
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    given |= head.inputs(batch.trained)
    mixed = nullcontext() if precision == "fp32" else torch.autocast("cpu", dtype=TYPES[precision])
    with mixed:
        logits = model(**given).logits.float()
        rows = logits.reshape(-1, logits.shape[-1])
        targets = torch.zeros(rows.shape[0], dtype=torch.long)
        return torch.nn.functional.cross_entropy(rows, targets)
