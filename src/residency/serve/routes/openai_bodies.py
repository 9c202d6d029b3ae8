"""Bodies of OpenAI's routes, as they come and as they leave."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from residency.core.types import Turn
from residency.serve.types import Asked


class Body(BaseModel):
    """A request's body: no value is turned into another kind, no field is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Part(Body):
    """A part of what is said; only text is read."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=100_000)]


class Message(Body):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: (
        Annotated[str, Field(max_length=100_000)]
        | Annotated[list[Part], Field(min_length=1, max_length=64)]
    )

    @property
    def text(self) -> str:
        """Its words."""
        return (
            self.content
            if isinstance(self.content, str)
            else "".join(part.text for part in self.content)
        )


class StreamOptions(Body):
    """What a stream tells beside the answer."""

    include_usage: bool = False


class ResponseFormat(Body):
    """Plain text."""

    type: Literal["text"]


Stop = (
    Annotated[str, Field(min_length=1, max_length=200)]
    | Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=8)]
)


class Common(Body):
    """How an answer is written; both routes."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] = 0
    stop: Stop | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=1)] = 1
    user: Annotated[str, Field(max_length=512)] | None = None
    """Not read: who asks is known by the token."""
    presence_penalty: Annotated[float, Field(ge=0, le=0)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] = 0.0

    def stops(self) -> tuple[str, ...]:
        """Texts at which writing ends."""
        return (
            ()
            if self.stop is None
            else (self.stop,)
            if isinstance(self.stop, str)
            else tuple(self.stop)
        )

    def asked(self, turns: tuple[Turn, ...], most: int) -> Asked:
        """The same as an engine reads it."""
        return Asked(
            turns=turns,
            max_tokens=most,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=self.stops(),
        )


def _question(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 64}


ASKED = (
    "Bệnh nhân nam 62 tuổi, ho khan và sốt 38.5 độ. Chẩn đoán?",
    "患者男性，咳嗽、发热三天。诊断是什么？",
    "A 62-year-old man with a dry cough and a fever of 38.5 C. Diagnosis?",
)


class Chat(Common):
    """A conversation that waits for its next turn."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [_question("NAME", text) for text in ASKED]}
    )

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    """Only of /v1/completions."""


Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=65_536)]


class Completion(Common):
    """A text, or tokens, to go on from."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "NAME", "prompt": text, "max_tokens": 64} for text in ASKED]
        }
    )

    prompt: (
        Annotated[str, Field(min_length=1, max_length=100_000)]
        | Ids
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=100_000)]],
            Field(min_length=1, max_length=64),
        ]
        | Annotated[list[Ids], Field(min_length=1, max_length=64)]
    )
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] = 1

    def prompts(self) -> list[str | list[int]]:
        """Every prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return cast(list[str | list[int]], self.prompt)


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Said(BaseModel):
    role: Literal["assistant"]
    content: str


class ChatChoice(BaseModel):
    index: int
    message: Said
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class ChatAnswer(BaseModel):
    """An answer. ``system_fingerprint``: the digest of the model that wrote it."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class Likely(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(BaseModel):
    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: Likely | None


class TextAnswer(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    digest: str
    base: str
    method: str
    card: str


class Models(BaseModel):
    object: Literal["list"]
    data: list[Model]
