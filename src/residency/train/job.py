"""What a stage needs to be trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from residency.core.types import Example, Profile
from residency.models.artefact import Output
from residency.models.base import Base
from residency.models.generation import Generation, TokenLimits
from residency.tasks.card import Card
from residency.tasks.families import head_of, of
from residency.tasks.heads import Head
from residency.train.stage import Stage

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
    """Generative models: how much they read, and how they write."""
    max_rejected: float = 1.0
    """Generative models: most rows, as a share, that may be too long to learn from."""
    more: tuple[Card, ...] = ()
    """Generative models: the cards of other tasks that rows are of, which name them."""
    start: Path | None = None
    """The artefact of the stage that this one goes on from; the base where not given."""
    forecast: bool = False
    """Estimate the memory before, and keep the estimate beside what was measured."""
    shard: bool = False
    """Share the model out among the processes at work."""
    as_before: bool = False
    """It goes on from a state of an earlier version, and is trained as that version trained: with
    torch's attention, and no CRF beside."""
    progress: Progress | None = None
    measured: Callable[[Mapping[str, float]], None] | None = None
    """Told of each loss of training and score of the stop part as it comes, with its ``step``."""

    @property
    def lexical(self) -> bool:
        """Whether a CRF over words is fitted beside the model."""
        able = self.head.words_beside and self.base.architecture == "encoder"
        return able and self.stage.lexical != "off" and not (self.shard or self.as_before)

    @property
    def calibrates(self) -> bool:
        """Whether its chances are calibrated, where there are rows to do it on."""
        off = self.stage.calibrate == "off" or self.shard or self.as_before
        able = self.head.says_chances or of(self.card).whole(self.card)
        return able and not off

    @property
    def head(self) -> Head:
        """What the model answers with."""
        return head_of(self.card, self.output)
