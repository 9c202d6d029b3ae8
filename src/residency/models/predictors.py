"""Which predictor answers for a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from residency.core.errors import UserError
from residency.models.base import Base
from residency.tasks.card import MARKED, Card

if TYPE_CHECKING:
    from residency.models.artefact import Output
    from residency.models.causal import CausalPredictor
    from residency.models.encoder import EncoderPredictor


def output_of(wanted: Literal["auto", "head", "text"], base: Base, card: Card) -> Output:
    """How a task is answered; raises ``UserError`` where base and card do not go together."""
    chosen: Output = wanted if wanted != "auto" else ("head" if card.family in MARKED else "text")
    if chosen == "head" and card.family not in MARKED:
        raise UserError(
            f"tasks[0].output: head cannot answer card {card.name}, whose answers are written; set auto or text."
        )
    if chosen == "text" and base.architecture != "causal":
        raise UserError(
            f"base: {base.id} does not write, and card {card.name} is to be answered in words; choose a causal model, "
            "for example bundled:tiny-lm."
        )
    return chosen


def trained(folder: Path) -> EncoderPredictor | CausalPredictor:
    """The predictor of an artefact."""
    from residency.models.artefact import read
    from residency.models.causal import CausalPredictor
    from residency.models.encoder import EncoderPredictor

    if read(folder).output == "text":
        return CausalPredictor.from_artefact(folder)
    return EncoderPredictor.from_artefact(folder)
