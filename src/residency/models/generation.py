"""Settings of generative models: how much they read and write, and how they choose their words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from residency.core.part import Part


class TokenLimits(Part):
    """The most tokens that a conversation may have. What is longer is counted in the ledger,
    whatever becomes of it."""

    source: int | None = Field(default=None, ge=4)
    """Tokens of what the model reads, template included; what the window leaves beside the answer
    where not given."""
    target: int | None = Field(default=None, ge=2)
    """Tokens of an answer, its end included; as long as it is where not given."""
    over: Literal["reject", "cut"] = "reject"
    """``reject``: earlier turns are left out, oldest first; what is still too long is not used.
    ``cut``: the end of the question, and of the answer, is cut off as well; a cut answer does not
    teach that it ends there."""


class Generation(Part):
    """How answers are written. The same settings serve evaluation, prediction and chat."""

    max_tokens: int | Literal["auto"] = "auto"
    """Most tokens of an answer; ``auto``: a quarter more than the longest answer learned from."""
    temperature: float = Field(default=0.0, ge=0)
    """0: always the likeliest word."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the likeliest words that have so much probability together; 1: all."""
    top_k: int = Field(default=0, ge=0)
    """0: all words."""
    repetition_penalty: float = Field(default=1.0, ge=1)
    """By how much words that were said are less likely; 1: not at all."""
    stop: tuple[str, ...] = ()
    """Texts at which an answer ends, besides the template's own end of turn; they are not part of
    it."""
    seed: int = Field(default=0, ge=0)
    """Of the words that are drawn, where ``temperature`` is above 0."""
    choose: Literal["rank", "write"] = "rank"
    """Cards with one label a note: ``rank`` takes the label that is likeliest as the whole answer,
    which is always one of the card's; ``write`` lets the model write, and reads that."""

    @model_validator(mode="after")
    def _sensible(self) -> Generation:
        if isinstance(self.max_tokens, int) and self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")
        if any(not text for text in self.stop):
            raise ValueError("stop: an empty text stops everything; leave it out")
        return self
