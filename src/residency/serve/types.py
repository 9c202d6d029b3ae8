"""What the rooms of the server hand to each other: a caller, a question, pieces of an answer, a
refusal, a served model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol

from residency.core.types import Prediction, Turn, Value
from residency.tasks.card import Card

Scope = Literal["chat", "extract", "diagnose", "deidentify", "admin"]
Kind = Literal["process", "onnx", "vllm"]
"""Where a model computes: in this project's own process, as an export (OpenVINO, ONNX Runtime), in
a vLLM server on loopback."""


class Caller(Value, frozen=True):
    """Who asks. ``subject`` is the provider's name for a person: it lives in memory only, and is
    logged as a keyed hash."""

    subject: str
    scopes: frozenset[str] = frozenset()


class Refusal(Exception):
    """A request that is not answered: the status, a code for programs, one sentence for people that
    holds nothing of the request."""

    def __init__(
        self, status: int, code: str, sentence: str, retry_after: float | None = None
    ) -> None:
        super().__init__(code)
        self.status, self.code, self.sentence, self.retry_after = (
            status,
            code,
            sentence,
            retry_after,
        )


class Served(Value, frozen=True):
    """What is known of a served model."""

    name: str
    """The alias that requests name, e.g. ``cardiology``."""
    digest: str
    """Content address of the artefact (SHA-256 of its ``artefact.json``), the same in ledger, audit
    log and answers."""
    base: str
    method: str
    """``lora``; ``prefix, freeze``: the methods of all stages."""
    output: Literal["head", "text"]
    card: Card
    kind: Kind = "process"
    dtype: str = "float32"
    window: int = 0
    """Most tokens that are read at once."""


class Asked(Value, frozen=True):
    """A conversation that waits for its next turn, and how that is to be written."""

    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


class Piece(Value, frozen=True):
    """A part of an answer. The last one names why writing ended."""

    text: str
    tokens: int = 0
    """Tokens written so far."""
    end: Literal["stop", "length"] | None = None
    ids: tuple[int, ...] = ()
    """The tokens that have been written since the last piece."""
    log_probability: float = 0.0
    """Sum of log p over the tokens written so far."""


class Scored(Value, frozen=True):
    """How likely given tokens are, each after those before it (the first has no value)."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    """Each token's own words."""
    offsets: tuple[int, ...]
    log_probabilities: tuple[float | None, ...]
    top: tuple[dict[str, float] | None, ...]
    """The likeliest tokens at each place."""


class Engine(Protocol):
    """One served model. Methods raise ``Refusal`` (503) while it cannot answer; closing an iterator
    ends the writing."""

    served: Served

    def count(self, text: str) -> int:
        """Tokens of a text, by the served tokenizer, nothing added."""
        ...

    def count_turns(self, turns: Sequence[Turn]) -> int:
        """Tokens of a whole prompt, template included."""
        ...

    def tokens(self, text: str) -> tuple[int, ...]:
        """A text as tokens, nothing added; of a model that writes."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text; of a model that writes."""
        ...

    async def mark(self, text: str) -> Prediction:
        """Spans or labels of a text, by a model with a head; or by one that writes, whose words are
        read back."""
        ...

    def write(self, asked: Asked) -> AsyncIterator[Piece]:
        """The answer to a conversation, piece by piece."""
        ...

    def continue_(self, ids: Sequence[int], asked: Asked) -> AsyncIterator[Piece]:
        """What follows tokens as they are, without a template: ``/v1/completions``."""
        ...

    async def score(self, ids: Sequence[int], top: int = 1) -> Scored:
        """How likely given tokens are."""
        ...

    async def canary(self) -> bool:
        """Whether a fixed question gets the answer that it got when the model was loaded: readiness
        is this, not a flag."""
        ...

    async def close(self) -> None:
        """End what runs, free the memory."""
        ...
