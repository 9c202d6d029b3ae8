"""Which predictor answers for a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from residency.core.errors import UserError
from residency.models.base import Base
from residency.tasks.card import Card
from residency.tasks.families import head_of, of

if TYPE_CHECKING:
    from residency.models.artefact import Output
    from residency.models.causal import CausalPredictor
    from residency.models.encoder import EncoderPredictor
    from residency.models.onnx_encoder import OnnxEncoder


def output_of(wanted: Literal["auto", "head", "text"], base: Base, card: Card) -> Output:
    """How a task is answered; raises ``UserError`` where base and card do not go together."""
    able = of(card).classifier is not None
    chosen: Output = wanted if wanted != "auto" else ("head" if able else "text")
    if chosen == "head" and not able:
        raise UserError(
            f"tasks[0].output: head cannot answer card {card.name}, whose answers are written; set "
            "auto or text."
        )
    if chosen == "text" and base.architecture != "causal":
        raise UserError(
            f"base: {base.id} is no generative model, and card {card.name} is to be answered in "
            "words; choose a causal model, for example bundled:tiny-lm."
        )
    return chosen


def trained(
    folder: Path, card: Card | None = None, name: str = "tuned"
) -> EncoderPredictor | CausalPredictor:
    """The predictor of an artefact, for the card that it learned; a generative model can be asked
    another one."""
    from residency.models.artefact import read
    from residency.models.causal import CausalPredictor
    from residency.models.encoder import EncoderPredictor

    if read(folder).head.generates:
        return CausalPredictor.from_artefact(folder, name, card=card)
    return EncoderPredictor.from_artefact(folder, name)


def exported(folder: Path, threads: int | None = None, name: str = "onnx") -> OnnxEncoder:
    """The predictor of an encoder in ONNX, in 8 bits where that answers as well."""
    from residency.models.onnx_encoder import OnnxEncoder

    return OnnxEncoder.from_export(folder, threads=threads, name=name)


def answers(folder: Path, card: Card, output: str) -> bool:
    """Whether an artefact can be asked a card: in words any, with a head only one of the same
    outputs."""
    from residency.models.artefact import read

    found, head = read(folder), head_of(card, output)
    return found.head is head and head.outputs(found.task()) == head.outputs(card)


def longest_answer(folders: Iterable[Path]) -> int | None:
    """Most tokens of an answer that any of several artefacts was given; None for a single one,
    whose own counts."""
    from residency.models.artefact import read

    found = [read(folder) for folder in folders]
    counts = [one.generation().max_tokens for one in found]
    return (
        max((count for count in counts if isinstance(count, int)), default=None)
        if len(found) > 1
        else None
    )


def allow(predictor: EncoderPredictor | CausalPredictor, most: int | None) -> None:
    """Let a generative model write so many tokens, so that systems are compared at one length."""
    from residency.models.causal import CausalPredictor

    if most is not None and isinstance(predictor, CausalPredictor):
        predictor.generation = predictor.generation.model_copy(update={"max_tokens": most})
