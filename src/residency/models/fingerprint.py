"""What a trained model says of a few fixed texts, kept with it: the proof that what is loaded later
is that model.

It is recorded of the model as it was loaded again, in each kind of numbers that it may be served
in: one in training rounds otherwise (autocast, an adapter apart), and is not what is served.

The texts are invented, in three languages. Of a generative model: log p of each token after those
before it. Of one with a head: the log-probability of each output, at each token or of the whole.
Numbers only; nothing of the training data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from residency.core.types import Value
from residency.models.base import Base
from residency.models.chat_template import ChatTokeniser
from residency.models.running import evaluating
from residency.models.tokens import Tokeniser
from residency.tasks.heads import Head

FILE = "canary.json"
"""Its name since the first version: artefacts keep it."""
SCHEMA = 2
OF_TRAINING = 1
"""The schema of earlier versions, which asked the model in training."""
HALF = "bfloat16"
"""What models that are held in 32 bits may also be served in."""
TEXTS = (
    "Bệnh nhân nam 62 tuổi ho khan và sốt 38.5 độ, được chẩn đoán viêm phổi, dùng amoxicillin 500 "
    "mg ngày 3 lần.",
    "患者男性，62岁，咳嗽、发热三天，体温38.5℃，诊断为肺炎，予以阿莫西林治疗，无过敏史。",
    "A 62-year-old man has had a dry cough and a fever of 38.5 °C for three days; pneumonia; "
    "amoxicillin 500 mg three times a day.",
)
MOST_TOKENS = 64
MOST_OUTPUTS = 512
"""Outputs of a head that are kept for a token."""

TOLERANCES = {
    "process float32": 1e-3,
    "process bfloat16": 0.1,
    "process float16": 0.05,
    "process nf4": 0.25,
    "process int8": 0.25,
    "onnx float32": 1e-3,
    "onnx bfloat16": 0.15,
    "onnx int8": 0.5,
    "vllm float32": 0.01,
    "vllm bfloat16": 0.15,
    "vllm float16": 0.1,
}
"""Engine and numbers -> largest difference of a log-probability, in units of the larger of 1 and
what was recorded.

In process each is held against what was recorded in the same numbers; between processors with and
without instructions for them the bundled models differ by 3e-6 in 32 bits and by 0.028 in bfloat16.
The others have room for kernels of their own, and for 4 and 8 bits that round differently by
device."""
ROUNDING = 0.25
"""A difference up to here may be one of rounding alone."""


class Fingerprint(Value, frozen=True):
    """What was recorded."""

    schema: int
    dtype: str
    """The numbers that it was recorded in."""
    device: str
    ids: tuple[tuple[int, ...], ...]
    """Tokens of each text, as they were read."""
    values: tuple[tuple[float, ...], ...]
    """Log-probabilities, text by text, in the order of tokens and outputs."""
    tolerances: dict[str, float]
    others: dict[str, tuple[tuple[float, ...], ...]] = {}
    """Other numbers that it may be served in -> the same."""
    words: tuple[tuple[float, ...], ...] = ()
    """What the CRF beside an encoder says, where there is one."""

    def within(self, numbers: str) -> tuple[tuple[float, ...], ...]:
        """What was recorded in these numbers; in those that it is held in where nothing was."""
        return self.others.get(numbers, self.values)


def record(
    model: Any, reader: Tokeniser | ChatTokeniser, base: Base, head: Head
) -> Fingerprint | None:
    """What a model says now; nothing where it cannot be asked or says what is no number. One in 32
    bits is in 16 afterwards."""
    try:
        ids = rows(reader)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None
    held, device = numbers(model, base), next(model.parameters()).device.type
    if (values := _rounded(model, ids, head)) is None:
        return None
    others = {}
    if held == "float32" and (half := _rounded(in_numbers(model, HALF), ids, head)) is not None:
        others[HALF] = half
    return Fingerprint(
        schema=SCHEMA,
        dtype=held,
        device=device,
        ids=ids,
        values=values,
        tolerances=dict(TOLERANCES),
        others=others,
    )


def _rounded(
    model: Any, ids: Sequence[Sequence[int]], head: Head
) -> tuple[tuple[float, ...], ...] | None:
    try:
        found = tuple(tuple(round(one, 6) for one in said) for said in measure(model, ids, head))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None  # a trained model is kept, whatever its fingerprint
    return found if all(isfinite(one) for said in found for one in said) else None


def in_numbers(model: Any, dtype: str) -> Any:
    """The same model, held in other numbers."""
    import torch

    return model.to(getattr(torch, dtype))


def numbers(model: Any, base: Base) -> str:
    """The numbers that a model is held in: ``float32``, ``bfloat16``, ``nf4`` ..."""
    if base.quantise != "none":
        return base.quantise
    kind = next(
        (one.dtype for one in model.parameters() if one.is_floating_point()), "torch.float32"
    )
    return str(kind).removeprefix("torch.")


def rows(reader: Tokeniser | ChatTokeniser) -> tuple[tuple[int, ...], ...]:
    """The fixed texts as tokens."""
    return tuple(tuple(ids) for ids in reader.beginnings(TEXTS, MOST_TOKENS))


def measure(model: Any, ids: Sequence[Sequence[int]], head: Head) -> list[list[float]]:
    """Log-probabilities of each row, one row at a time."""

    def log_probabilities(row: Any, found: Any) -> list[float]:
        said = head.log_probabilities(found.logits[0].float(), row[0])
        return said[..., :MOST_OUTPUTS].flatten().double().cpu().tolist()  # type: ignore[no-any-return]

    return _each(model, ids, log_probabilities)


def states(model: Any, ids: Sequence[Sequence[int]]) -> list[Any]:
    """The last states of the body, for a model whose head says nothing of its base."""

    def last(row: Any, found: Any) -> Any:
        return found.hidden_states[-1][0].float().cpu()

    return _each(model, ids, last, output_hidden_states=True)


def _each(
    model: Any, ids: Sequence[Sequence[int]], take: Callable[[Any, Any], Any], **more: Any
) -> list[Any]:
    """What is taken of the model's output for each row."""
    import torch

    device, found = next(model.parameters()).device, []
    with evaluating(model), torch.inference_mode():
        for row in ids:
            given = torch.tensor([list(row)], device=device)
            mask = torch.ones_like(given)
            found.append(take(given, model(input_ids=given, attention_mask=mask, **more)))
    return found


def furthest(recorded: Sequence[Sequence[float]], now: Sequence[Sequence[float]]) -> float:
    """The largest difference between two measurements, in units of the larger of 1 and the recorded
    value; infinite where they are not of the same tokens, or something is no number."""
    if [len(one) for one in recorded] != [len(one) for one in now]:
        return float("inf")
    pairs = [
        pair
        for one, other in zip(recorded, now, strict=True)
        for pair in zip(one, other, strict=True)
    ]
    gaps = [abs(a - b) / max(1.0, abs(a)) for a, b in pairs]
    return float("inf") if any(gap != gap for gap in gaps) else max(gaps, default=float("inf"))
