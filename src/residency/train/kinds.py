"""The kinds of models in training, one object each: how rows become items, how they are laid into
batches, what the loss is, and what judges the stop part."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from residency.core.errors import UserError
from residency.core.types import Example, PartName, Prediction, PredictorInfo
from residency.metrics.calibration import Claim
from residency.models import artefact, attention
from residency.models.artefact import GenerativeSettings
from residency.models.base import Base
from residency.models.causal import CausalPredictor, token_losses
from residency.models.encoder import EncoderPredictor
from residency.models.generation import TokenLimits
from residency.tasks.card import Card
from residency.tasks.families import of
from residency.tasks.heads import IGNORED, Head
from residency.tasks.scoring import falls
from residency.train import conversation_items, items
from residency.train.defaults import CLASSIFIER_RATES, GENERATIVE_RATES, KindRates
from residency.train.items import Items
from residency.train.stage import Stage

if TYPE_CHECKING:
    from residency.train.job import TrainingJob

LOOKED_AT = 200
"""Training rows that a trained model is asked."""
LOSS = "loss"
"""-log p per token of the answers of the stop part: what generative models are judged by unless the
recipe says otherwise."""


class Reading(NamedTuple):
    """How rows are read for a base."""

    base: Base
    card: Card
    limits: TokenLimits
    loss_on: Literal["all", "last"]
    max_rejected: float
    """Most rows, as a share, that may be too long to learn from. This, ``limits`` and ``loss_on``
    are of rows that are asked in words."""
    more: tuple[Card, ...] = ()


class Said(NamedTuple):
    """What a model says of rows that it has not learned from."""

    claims: Iterable[Claim]
    rows: int
    written: bool = False
    """Whether the claims are whole answers in words."""


class ClassifierTraining:
    """Encoders with a head: windows of notes, whose slots or labels are trained."""

    rates: KindRates = CLASSIFIER_RATES

    def read(self, examples: Sequence[Example], how: Reading) -> tuple[Any, Items]:
        """What reads rows for a base, and what it makes of them."""
        reader = artefact.tokeniser(how.base)
        return reader, items.build(examples, reader, how.card)

    def changes(self, part: Callable[[PartName], list[Example]], how: Reading) -> list[str]:
        """What becomes of training rows on their way to the model, for ``residency check``."""
        rows = part("train")
        if not rows:
            return []
        _, made = self.read(rows, how)
        changed = (f"{times} training spans: {why}" for why, times in made.changed.items())
        return [*changed, *items.limits(made.proof)]

    def packing(self, stage: Stage) -> str:
        """Whether rows are laid end to end: ``auto``, ``on`` or ``off``. Windows never are."""
        return "off"

    def speed_up(self, model: Any, device: str) -> None:
        """Let a model compute as fast as it can be trained on a kind of device."""
        if device == "cpu":
            attention.use_plain(model)

    def check_stop(self, job: TrainingJob, metric: str) -> None:
        """Raise ``UserError`` where the stop part cannot be judged by a metric."""
        if metric == LOSS:
            raise UserError(
                f"stage {job.name}: stop.metric: loss is only for generative models; name a score "
                "of the task."
            )

    def judge(
        self, job: TrainingJob, model: Any, reader: Any, made: Items
    ) -> tuple[EncoderPredictor | CausalPredictor, GenerativeSettings | None]:
        """What answers the stop part while the model is trained; of a generative model also how it
        reads and writes, nothing left open."""
        info = PredictorInfo(name="dev", base=job.base.id)
        return EncoderPredictor(model, reader, job.card, info), None

    def check_learned(self, job: TrainingJob, predictor: Any, rate: float) -> None:
        """Raise ``UserError`` where a trained model gives none of its own training rows a label,
        though they have some."""
        family, rows = of(job.card), job.train[:LOOKED_AT]
        wanted = sum(len([*family.labels(row.gold, job.card)]) for row in rows)
        given = (family.labels(one.answer, job.card) for one in predictor.predict(rows))
        if wanted and not any(name for names in given for name in names):
            raise UserError(
                f"stage {job.name}: the model gives none of {len(rows)} of its own training rows a "
                f"label, though they have {wanted}: it has learned nothing; give a learning_rate "
                f"below {rate:g}, or more epochs."
            )

    def claims(self, predictor: Any, held: Sequence[Example]) -> Said:
        """What its chances are calibrated on."""
        return Said(predictor.claims(held), len(held))

    def predictions(self, predictor: Any, dev: Sequence[Example], metric: str) -> list[Prediction]:
        """What a metric is made of."""
        return list(predictor.predict(dev))

    def loss(
        self, model: Any, inputs: dict[str, Any], multiple: bool, smoothing: float
    ) -> tuple[Any, Any, Any]:
        """The summed loss of a batch, over how many tokens (or labels), and what the model said."""
        targets = inputs.pop("labels")
        output = model(**inputs)
        total = head_loss(output.logits.float(), targets, multiple, smoothing)
        return total, targets.ne(IGNORED).sum(), output


class GenerativeTraining(ClassifierTraining):
    """Models that write: conversations, whose answers are trained."""

    rates = GENERATIVE_RATES

    def read(self, examples: Sequence[Example], how: Reading) -> tuple[Any, Items]:
        chat = artefact.chat(how.base, how.limits)
        return chat, conversation_items.build(
            examples, chat, how.card, how.loss_on, how.max_rejected, how.more
        )

    def changes(self, part: Callable[[PartName], list[Example]], how: Reading) -> list[str]:
        """What is cut, repaired or left out; every part is put into words."""
        part("dev")
        part("test")
        artefact.chat(how.base, how.limits)  # says what is wrong with a template, without rows too
        rows = part("train")
        if not rows:
            return []
        _, made = self.read(rows, how)
        left = Counter(made.rejected.values())
        return [
            *(f"{times} training rows: {why}" for why, times in made.changed.items()),
            *(f"{times} training rows left out: {why}" for why, times in left.items()),
        ]

    def packing(self, stage: Stage) -> str:
        return stage.packing

    def speed_up(self, model: Any, device: str) -> None:
        """Nothing: rows laid end to end have an attention of their own."""

    def check_stop(self, job: TrainingJob, metric: str) -> None:
        """Any will do."""

    def judge(
        self, job: TrainingJob, model: Any, reader: Any, made: Items
    ) -> tuple[EncoderPredictor | CausalPredictor, GenerativeSettings | None]:
        generation = job.generate
        if generation.max_tokens == "auto":
            most = math.ceil(1.25 * conversation_items.longest_answer(made.items))
            most = max(8, min(most, job.base.window // 2))
            generation = generation.model_copy(update={"max_tokens": most})
        info = PredictorInfo(name="dev", base=job.base.id)
        predictor = CausalPredictor(model, reader, job.card, generation, info, job.more)
        return predictor, GenerativeSettings(chat=reader, generation=generation)

    def check_learned(self, job: TrainingJob, predictor: Any, rate: float) -> None:
        """What is written is judged by its loss."""

    def claims(self, predictor: CausalPredictor, held: Sequence[Example]) -> Said:
        """Of a few rows, since they are answered one by one."""
        rows = min(len(held), predictor.most_claims)
        return Said(predictor.claims(held), rows, not predictor.chooses)

    def predictions(self, predictor: Any, dev: Sequence[Example], metric: str) -> list[Prediction]:
        """Of metrics that fall, how probable the gold answers are."""
        if not falls(metric):
            return super().predictions(predictor, dev, metric)
        losses = predictor.gold_losses(dev)
        return [
            Prediction(id=one.id, gold_loss=loss, gold_tokens=count)
            for one, (loss, count) in zip(dev, losses, strict=True)
        ]

    def loss(
        self, model: Any, inputs: dict[str, Any], multiple: bool, smoothing: float
    ) -> tuple[Any, Any, Any]:
        losses, _ = token_losses(model, inputs, smoothing)
        return losses.sum(), losses.numel(), None


KINDS: Mapping[str, ClassifierTraining] = {
    "classifier": ClassifierTraining(),
    "generative": GenerativeTraining(),
}


def training_of(head: Head) -> ClassifierTraining:
    """How what answers with a head is trained."""
    return KINDS[head.kind]  # the one place of this room that goes by the kind


def head_loss(logits: Any, targets: Any, multiple: bool, smoothing: float) -> Any:
    """The summed loss of a classifier's outputs; ``multiple``: each output says yes or no."""
    import torch

    if multiple:
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits, targets.float(), weight=targets.ne(IGNORED).float(), reduction="sum"
        )
    return torch.nn.functional.cross_entropy(
        logits.view(-1, logits.shape[-1]),
        targets.view(-1),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )
