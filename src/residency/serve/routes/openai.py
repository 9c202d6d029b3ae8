"""OpenAI's routes: chat, completions with ``echo`` and ``logprobs``, models. What is not done is
refused, never ignored."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal, cast
from uuid import uuid4

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from residency.core.files import NO_JSON
from residency.core.types import ToolTurn, Turn, Value
from residency.models.chat_template import ToolForm
from residency.models.sampling import Form, hash_of
from residency.serve import Refusal, server_failed
from residency.serve.engines import (
    FIELDS,
    ModelEngine,
    Piece,
    Served,
    TokenScores,
    Tools,
    WritingRequest,
    not_generative,
    unsupported,
)
from residency.serve.guard import Guard, Guarded, GuardedRequest, exchange_of, guard_of
from residency.serve.limits import check_system, fit

router = APIRouter(route_class=Guarded)
LAST = b"data: [DONE]\n\n"
STREAMS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The answer, or a stream."}
}
STARTED = int(time.time())
MOST_CHOICES = 16
"""Answers to one request."""

# Bodies as they come


class Body(BaseModel):
    """A request's body: no value is turned into another kind, no field is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


Words = Annotated[str, Field(max_length=100_000)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]


class ContentPart(Body):
    """A part of what is said; only text is read."""

    type: Literal["text"]
    text: Words


class CalledFunction(Body):
    """The call of a function."""

    name: Name
    arguments: Words

    def given(self) -> dict[str, Any]:
        """Its arguments; raises ``Refusal`` 400."""
        try:
            return msgspec.json.decode(self.arguments, type=dict[str, Any])
        except NO_JSON:
            raise Refusal(400, "bad_turns", "Arguments of a tool call are a JSON object.") from None


class ToolCall(Body):
    """A call that was made."""

    id: Name
    type: Literal["function"]
    function: CalledFunction


class OfferedFunction(Body):
    """A function that may be called."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Words | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    """Arguments are held to the schema where the call is demanded."""


class Tool(Body):
    """A tool that may be called."""

    type: Literal["function"]
    function: OfferedFunction


class NamedFunction(Body):
    """A function's name."""

    name: Name


class ToolChoice(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class Message(Body):
    """A turn of a conversation, as clients write it and as they keep it (``model_dump()``)."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Words | Annotated[list[ContentPart], Field(min_length=1, max_length=64)] | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=64)] | None = None
    tool_call_id: Name | None = None
    name: None = None
    refusal: None = None
    audio: None = None
    function_call: None = None

    @property
    def text(self) -> str:
        """Its words."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    def turn(self) -> Turn:
        """As engines read it; raises ``Refusal`` 400 where its role does not go with the rest."""
        calls, tool = self.tool_calls or (), self.role == "tool"
        if (self.content is None and not calls) or (calls and self.role != "assistant"):
            raise Refusal(
                400, "bad_turns", "A message has content, or is an assistant's tool_calls."
            )
        if tool is not (self.tool_call_id is not None):
            raise Refusal(400, "bad_turns", "Messages of the role tool have a tool_call_id.")
        if tool or calls:
            given = tuple((one.function.name, one.function.given()) for one in calls)
            return ToolTurn(role="user" if tool else "assistant", text=self.text, calls=given)
        role = cast(Any, "system" if self.role == "developer" else self.role)
        return Turn(role=role, text=self.text)


class StreamOptions(Body):
    """What a stream tells beside the answer."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class PlainText(Body):
    """Any text."""

    type: Literal["text"]


class JsonObject(Body):
    """A JSON object."""

    type: Literal["json_object"]


class NamedSchema(Body):
    """A JSON schema with its name."""

    name: Annotated[str, Field(max_length=64)]
    description: Annotated[str, Field(max_length=2000)] | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class JsonSchema(Body):
    """JSON that keeps to a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StructuredOutputs(Body):
    """One of several texts (vLLM's name for it)."""

    choice: Annotated[list[Stop], Field(min_length=1, max_length=256)]


Penalty = Annotated[float, Field(ge=-2, le=2)]


class Common(Body):
    """How an answer is written; both routes."""

    model: Annotated[str, Field(min_length=1, max_length=128)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    """Equal seeds give equal answers, where temperature is above 0; without one each is another."""
    stop: Stop | Annotated[list[Stop], Field(max_length=8)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    """Not read: who asks is known by the token."""
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    structured_outputs: StructuredOutputs | None = None
    logit_bias: None = None

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with its counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def form(self) -> Form | None:
        """What the answer must look like."""
        given = self.structured_outputs
        return None if given is None else Form(choices=tuple(given.choice))

    def requests(self, turns: tuple[Turn, ...], most: int) -> list[WritingRequest]:
        """The same as an engine reads it, once for each choice."""
        first = WritingRequest(
            turns=turns,
            max_tokens=most,
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            form=self.form(),
            whole=not self.stream,
        )
        seeds = [
            None if self.seed is None else hash_of(self.seed, number)
            for number in range(1, self.n or 1)
        ]
        return [first, *(msgspec.structs.replace(first, seed=seed) for seed in seeds)]


def _question(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 64}


QUESTIONS = (
    "Bệnh nhân nam 62 tuổi, ho khan và sốt 38.5 độ. Chẩn đoán?",
    "患者男性，咳嗽、发热三天。诊断是什么？",
    "A 62-year-old man with a dry cough and a fever of 38.5 C. Diagnosis?",
)


class ChatBody(Common):
    """A conversation that waits for its next turn."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [_question("NAME", text) for text in QUESTIONS]}
    )

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: (
        Annotated[PlainText | JsonObject | JsonSchema, Field(discriminator="type")] | None
    ) = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    store: Literal[False] | None = None
    tools: Annotated[list[Tool], Field(max_length=64)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    audio: None = None
    function_call: None = None
    functions: None = None
    metadata: None = None
    modalities: None = None
    moderation: None = None
    prediction: None = None
    prompt_cache_key: None = None
    prompt_cache_retention: None = None
    reasoning_effort: None = None
    safety_identifier: None = None
    service_tier: None = None
    verbosity: None = None
    web_search_options: None = None

    def form(self) -> Form | None:
        """As of ``Common``."""
        how, other = self.response_format, super().form()
        if how is None or isinstance(how, PlainText):
            return other
        if other is not None:
            raise Refusal(400, "two_forms", "Set response_format or structured_outputs, not both.")
        if isinstance(how, JsonObject):
            return Form(schema={"type": "object"})
        return Form(schema=how.json_schema.schema_)


Prompt = Annotated[str, Field(min_length=1, max_length=100_000)]
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=65_536)]


class CompletionBody(Common):
    """A text, or tokens, to go on from."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "NAME", "prompt": text, "max_tokens": 64} for text in QUESTIONS]
        }
    )

    prompt: (
        Prompt
        | Ids
        | Annotated[list[Prompt], Field(min_length=1, max_length=64)]
        | Annotated[list[Ids], Field(min_length=1, max_length=64)]
    )
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: None = None

    def prompts(self) -> list[str | list[int]]:
        """Every prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return cast(list[str | list[int]], self.prompt)


# Bodies as they leave


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    tool_calls: list[ToolCall] | None = None


class LikelyToken(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class WrittenToken(LikelyToken):
    top_logprobs: list[LikelyToken]


class ChatLogProbs(BaseModel):
    content: list[WrittenToken]


class ChatChoice(BaseModel):
    index: int
    message: AssistantMessage
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: ChatLogProbs | None = None


class Answered(BaseModel):
    """What both kinds of answers name. ``system_fingerprint``: the digest of the model that wrote
    it."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    usage: Usage


class ChatAnswer(Answered):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class LogProbs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(BaseModel):
    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: LogProbs | None


class TextAnswer(Answered):
    object: Literal["text_completion"]
    choices: list[TextChoice]


class ListedModel(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    digest: str
    base: str
    method: str
    card: str
    erased: str = ""


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ListedModel]


# Routes


@router.get("/v1/models", tags=["chat"], response_model=ModelList)
async def models(request: Request) -> Response:
    """The models that are served."""
    data = [_listed(one.served) for one in guard_of(request).engines.values()]
    return JSONResponse({"object": "list", "data": data})


@router.get("/v1/models/{name}", tags=["chat"], response_model=ListedModel)
async def model(name: str, request: Request) -> Response:
    """One of them."""
    found = guard_of(request).engine(exchange_of(request), name, "")
    return JSONResponse(_listed(found.served))


def _listed(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": STARTED,
        "owned_by": "residency",
        "digest": served.digest,
        "base": served.base,
        "method": served.method,
        "card": served.card.name,
        **({"erased": served.erased} if served.erased else {}),
    }


def generative(guard: Guard, exchange: GuardedRequest, body: Common) -> ModelEngine:
    """The generative model that a body names; raises ``Refusal`` 404, or 400 for a classifier and
    for a field that its engine does not do."""
    engine = guard.engine(exchange, body.model, "chat")
    if "chat" not in engine.served.routes:
        raise not_generative(engine.served.name)
    for name in sorted(body.model_fields_set):
        if getattr(body, name) is not None and engine.served.kind not in FIELDS[name][0]:
            raise unsupported(name, engine.served.kind)
    return engine


def turns_of(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """A conversation as engines read it; raises ``Refusal`` where it cannot be answered."""
    turns = tuple(one.turn() for one in messages)
    if turns[-1].role != "user":
        raise Refusal(400, "bad_turns", "The last message must be the user's, or a tool's.")
    if any(turn.role == "system" for turn in turns[1:]):
        raise Refusal(400, "bad_turns", "A system message must be the first, and the only one.")
    return turns


class Tooling(Value, frozen=True):
    """The tools of a request: what is offered, and what one call must look like where there must be
    one."""

    form: ToolForm
    offered: Tools
    demanded: Form | None
    several: bool

    def calls(self, text: str) -> list[dict[str, Any]]:
        """The calls that an answer makes; none where it makes none that can be read."""
        words = text if self.demanded is None else f"{self.form.begin}{text}"
        found, at, mark = list[dict[str, Any]](), 0, self.form.begin.strip() or "{"
        while (place := words.find(mark, at)) >= 0 and (self.several or not found):
            start = words.find("{", place)
            try:
                call, at = json.JSONDecoder().raw_decode(words, start)
                name, given = call[self.form.name], call[self.form.arguments]
            except (ValueError, KeyError, TypeError):
                break
            if not isinstance(name, str) or not isinstance(given, dict):
                break
            function = {"name": name, "arguments": json.dumps(given, ensure_ascii=False)}
            one = {"id": f"call_{uuid4().hex}", "type": "function", "function": function}
            found.append(one)
        return found

    def message(self, text: str) -> dict[str, Any]:
        """An answer as a message: words, or calls."""
        if calls := self.calls(text):
            return {"content": None, "tool_calls": calls}
        return {"content": text}


def tooling(body: ChatBody, engine: ModelEngine) -> Tooling | None:
    """The tools of a request; raises ``Refusal`` 400 where the model's template has none."""
    if not body.tools or body.tool_choice == "none":
        return None
    if (form := engine.reader.tool_form) is None:
        said = "The chat template of this model has no tools, or writes their calls in no JSON"
        raise Refusal(400, "no_tools", f"{said}; leave tools out.")
    offered = {one.function.name: one.function for one in body.tools}
    demanded, choice = None, body.tool_choice
    if isinstance(choice, ToolChoice) and choice.function.name not in offered:
        raise Refusal(400, "no_tool", "tool_choice names a tool that is not among the tools.")
    if choice not in (None, "auto"):
        own = [choice.function.name] if isinstance(choice, ToolChoice) else [*offered]
        calls = [
            {
                "type": "object",
                "properties": {
                    form.name: {"const": name},
                    form.arguments: offered[name].parameters or {"type": "object"},
                },
                "required": [form.name, form.arguments],
                "additionalProperties": False,
            }
            for name in own
        ]
        demanded = Form(schema=calls[0] if len(calls) == 1 else {"anyOf": calls})
    told = tuple(one.model_dump(exclude_none=True) for one in body.tools)
    several = body.parallel_tool_calls is not False
    return Tooling(form=form, offered=told, demanded=demanded, several=several)


@router.post("/v1/chat/completions", tags=["chat"], response_model=ChatAnswer, responses=STREAMS)
async def chat(body: ChatBody, request: Request) -> Response:
    """The next turn of a conversation, whole or as a stream of events."""
    guard, exchange = guard_of(request), exchange_of(request)
    engine = generative(guard, exchange, body)
    _check_chat(body, guard)
    turns = turns_of(body.messages)
    tools = tooling(body, engine)
    offered = tools.offered if tools else ()
    own = [turn for turn in turns if turn.role == "user" and not isinstance(turn, ToolTurn)]
    wanted = body.max_completion_tokens
    if wanted is None:
        wanted = body.max_tokens
    told = sum(engine.reader.count(turn.text) for turn in turns if turn.role == "system")
    check_system(guard.settings.limits, told)
    texts = [turn.text for turn in own]
    sizes = guard.check_words(exchange, engine, texts, turns, wanted, offered)
    asked = [_with_tools(one, tools) for one in body.requests(turns, sizes.answer)]
    await guard.charge(exchange, sizes.answer * len(asked))
    head = _head("chatcmpl", engine.served)
    if body.stream:
        head |= {"object": "chat.completion.chunk"}
        pieces = engine.write(asked[0])
        choice = _delta if tools is None else partial(_called, tools)
        if tools is not None:
            pieces = _at_once(guard, pieces)
        return await streamed(guard, exchange, pieces, head, choice, body.with_usage)

    async def answered(number: int) -> dict[str, Any]:
        """One choice."""
        answer = await whole(guard, exchange, engine.write(asked[number]))
        message = {"content": answer.text} if tools is None else tools.message(answer.text)
        end = "tool_calls" if "tool_calls" in message else answer.end or "stop"
        return {
            "index": number,
            "message": {"role": "assistant", **message},
            "finish_reason": end,
            "logprobs": await _chat_likely(engine, body, asked[number], answer),
        }

    choices = await gather_or_cancel([answered(number) for number in range(len(asked))])
    head |= {"object": "chat.completion", "choices": choices}
    return JSONResponse(head | {"usage": _usage(exchange)})


def _with_tools(request: WritingRequest, tools: Tooling | None) -> WritingRequest:
    """A request whose answer may, or must, call tools."""
    if tools is None:
        return request
    if tools.demanded is None:
        return msgspec.structs.replace(request, tools=tools.offered)
    if request.form is not None:
        said = "An answer that must call a tool has no other form; leave one of the two out."
        raise Refusal(400, "two_forms", said)
    how = {"tools": tools.offered, "form": tools.demanded, "begun": tools.form.begin}
    return msgspec.structs.replace(request, **how)


def _check_chat(body: ChatBody, guard: Guard) -> None:
    if body.top_logprobs is not None and not body.logprobs:
        raise Refusal(400, "bad_value", "top_logprobs needs logprobs: true.")
    if body.logprobs and guard.settings.deidentify_answers:
        raise _named_words()
    if body.stream and (body.logprobs or (body.n or 1) > 1):
        raise _not_streamed()


async def _chat_likely(
    engine: ModelEngine, body: ChatBody, asked: WritingRequest, answer: Piece
) -> dict[str, Any] | None:
    """How likely the tokens of an answer are, in the form of the chat."""
    if not body.logprobs:
        return None
    prompt = engine.reader.prompt(asked, engine.served.window)
    scored = await _scored(engine, prompt, answer, body.top_logprobs or 0)
    places = range(len(prompt), len(scored.ids))

    def token(text: str, value: float | None) -> dict[str, Any]:
        known = None if text.startswith("bytes:") else [*text.encode()]
        return {"token": text, "logprob": value or 0.0, "bytes": known}

    def best(place: int) -> list[dict[str, Any]]:
        found = (scored.top[place] or {}) if body.top_logprobs else {}
        return [token(text, value) for text, value in found.items()]

    content = [
        token(scored.texts[place], scored.log_probabilities[place]) | {"top_logprobs": best(place)}
        for place in places
    ]
    return {"content": content}


@router.post("/v1/completions", tags=["chat"], response_model=TextAnswer, responses=STREAMS)
async def completions(body: CompletionBody, request: Request) -> Response:
    """What follows a text or tokens, without a template. With ``echo`` and ``logprobs`` the
    prompt's own likelihood comes along, as evaluation programs ask for it (``max_tokens`` may then
    be 0)."""
    guard, exchange = guard_of(request), exchange_of(request)
    engine = generative(guard, exchange, body)
    _check_completion(body, guard)
    prompts = body.prompts()
    reader, limits, window = engine.reader, guard.settings.limits, engine.served.window
    ids = [reader.tokens(one) if isinstance(one, str) else tuple(one) for one in prompts]
    texts = [one if isinstance(one, str) else reader.text(one) for one in prompts]
    if not all(ids):
        raise Refusal(400, "bad_value", "A prompt holds no token.")
    wanted = 16 if body.max_tokens is None else body.max_tokens
    most = max(1, wanted)
    exchange.read = sum(map(len, ids))
    fit(limits, exchange.read, answer=most)
    for prompt in ids:
        fit(limits, len(prompt), answer=most, window=window + (wanted == 0))
    asked = body.requests((), most)
    await guard.charge(exchange, most * len(ids) * len(asked))
    head = _head("cmpl", engine.served) | {"object": "text_completion"}
    if body.stream:
        if len(ids) * len(asked) > 1:
            raise _not_streamed()
        pieces = engine.continue_(ids[0], asked[0])
        return await streamed(guard, exchange, pieces, head, _chunk, body.with_usage)

    async def answered(number: int) -> dict[str, Any]:
        """One answer to one prompt."""
        new, (place, choice) = Piece(text="", end="length"), divmod(number, len(asked))
        if wanted:
            new = await whole(guard, exchange, engine.continue_(ids[place], asked[choice]))
        likely = await _likely(engine, body, ids[place], new)
        words = texts[place] + new.text if body.echo else new.text
        end = new.end or "stop"
        return {"index": number, "text": words, "finish_reason": end, "logprobs": likely}

    answers = [answered(number) for number in range(len(ids) * len(asked))]
    choices = await gather_or_cancel(answers)
    return JSONResponse(head | {"choices": choices, "usage": _usage(exchange)})


def _check_completion(body: CompletionBody, guard: Guard) -> None:
    if body.max_tokens == 0 and not body.echo:
        raise Refusal(400, "bad_value", "max_tokens 0 needs echo: nothing else would be answered.")
    if body.logprobs is not None and body.max_tokens != 0 and guard.settings.deidentify_answers:
        raise _named_words()
    if body.stream and (body.echo or body.logprobs is not None):
        raise _not_streamed()


def _not_streamed() -> Refusal:
    said = "Several prompts, n above 1, echo and logprobs are not streamed; leave stream out."
    return Refusal(400, "not_streamed", said)


def _named_words() -> Refusal:
    """400: an answer that is de-identified, and likelihoods that would name its words."""
    said = "Answers are de-identified here, and likelihoods would name their words"
    return Refusal(400, "no_logprobs", f"{said}; leave logprobs out, or set max_tokens 0.")


async def gather_or_cancel(work: Sequence[Any]) -> list[Any]:
    """Results of several at once; where one fails the others are ended."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _likely(
    engine: ModelEngine, body: CompletionBody, ids: Sequence[int], new: Piece
) -> dict[str, Any] | None:
    """How likely the tokens of an answer are, with ``echo`` those of the prompt too."""
    if body.logprobs is None:
        return None
    scored = await _scored(engine, ids, new, body.logprobs)
    start = 0 if body.echo else len(ids)
    first = scored.offsets[start] if start < len(scored.offsets) else 0
    return {
        "tokens": list(scored.texts[start:]),
        "token_logprobs": list(scored.log_probabilities[start:]),
        "top_logprobs": list(scored.top[start:]) if body.logprobs else None,
        "text_offset": [place - first for place in scored.offsets[start:]],
    }


async def _scored(engine: ModelEngine, ids: Sequence[int], new: Piece, top: int) -> TokenScores:
    """How likely a prompt and what was written behind it are."""
    if new.text and not new.ids:
        unnamed = "This model's engine does not name the tokens that it writes"
        raise Refusal(400, "no_logprobs", f"{unnamed}; leave logprobs out.")
    return await engine.score([*ids, *new.ids], max(1, top))


async def gathered(pieces: AsyncIterator[Piece]) -> Piece:
    """An answer to its end, as one piece: its text and its tokens."""
    words, ids, last = list[str](), list[int](), Piece(text="")
    async with aclosing(cast(Any, pieces)) as reading:
        async for last in reading:
            words.append(last.text)
            ids.extend(last.ids)
    return msgspec.structs.replace(last, text="".join(words), ids=tuple(ids))


async def whole(guard: Guard, exchange: GuardedRequest, pieces: AsyncIterator[Piece]) -> Piece:
    """The same, as it leaves, and counted."""
    found = await gathered(pieces)
    exchange.written += found.tokens
    return msgspec.structs.replace(found, text=await guard.deidentified(found.text))


def _head(kind: str, served: Served) -> dict[str, Any]:
    return {
        "id": f"{kind}-{uuid4().hex}",
        "object": "",
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": served.digest,
    }


def _usage(exchange: GuardedRequest) -> dict[str, int]:
    return {
        "prompt_tokens": exchange.read,
        "completion_tokens": exchange.written,
        "total_tokens": exchange.read + exchange.written,
    }


Choice = Callable[[str, str | None, bool], dict[str, Any]]
"""A piece's text, why writing ended, and whether it is the first -> a choice of an event."""


def _delta(text: str, end: str | None, first: bool) -> dict[str, Any]:
    delta: dict[str, str] = {"role": "assistant"} if first else {}
    if text or first:
        delta["content"] = text
    return {"index": 0, "delta": delta, "finish_reason": end, "logprobs": None}


def _called(tools: Tooling, text: str, end: str | None, first: bool) -> dict[str, Any]:
    """The whole answer, which may be calls."""
    message = tools.message(text)
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [{"index": place, **one} for place, one in enumerate(calls)]
        end = "tool_calls"
    delta = {"role": "assistant", **message}
    return {"index": 0, "delta": delta, "finish_reason": end, "logprobs": None}


def _chunk(text: str, end: str | None, first: bool) -> dict[str, Any]:
    return {"index": 0, "text": text, "finish_reason": end, "logprobs": None}


class EventStream(StreamingResponse):
    """A stream of events whose source is closed whatever ends it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await cast(Any, self.body_iterator).aclose()


async def streamed(
    guard: Guard,
    exchange: GuardedRequest,
    pieces: AsyncIterator[Piece],
    head: dict[str, Any],
    choice: Choice,
    with_usage: bool,
) -> Response:
    """An answer as server-sent events. The first piece is awaited, so that a refusal still has its
    status."""
    source = cast(Any, pieces)
    if guard.settings.deidentify_answers:
        source = _at_once(guard, source)
    try:
        first = await anext(source)
        await asyncio.to_thread(guard.check_recording)
    except BaseException:
        await source.aclose()
        raise
    exchange.streams = True
    events = _events(guard, exchange, first, source, head, choice, with_usage)
    return EventStream(events, media_type="text/event-stream")


async def _at_once(guard: Guard, pieces: Any) -> AsyncIterator[Piece]:
    """The whole answer as one piece: an identifier could lie across pieces."""
    found = await gathered(pieces)
    yield msgspec.structs.replace(found, text=await guard.deidentified(found.text))


async def _events(
    guard: Guard,
    exchange: GuardedRequest,
    first: Piece,
    source: Any,
    head: dict[str, Any],
    choice: Choice,
    with_usage: bool,
) -> AsyncIterator[bytes]:
    def event(what: dict[str, Any]) -> bytes:
        return b"data: " + msgspec.json.encode(what) + b"\n\n"

    blank: dict[str, Any] = {"usage": None} if with_usage else {}
    try:
        piece, begun = first, False
        while True:
            exchange.written = piece.tokens
            if piece.text or piece.end or not begun:
                yield event(head | {"choices": [choice(piece.text, piece.end, not begun)]} | blank)
            begun = True
            if piece.end is not None:
                break
            piece = await anext(source)
        if with_usage:
            yield event(head | {"choices": [], "usage": _usage(exchange)})
        guard.end(exchange, 200)
        yield LAST
    except Refusal as refusal:
        guard.noticed(exchange, refusal)
        guard.end(exchange, refusal.status, refusal.code)
        yield event(refusal.content("/v1/"))
    except (asyncio.CancelledError, GeneratorExit):
        guard.cancelled(exchange)
        raise
    except Exception as error:
        guard.crashed(error)
        problem = server_failed()
        guard.end(exchange, problem.status, problem.code)
        yield event(problem.content("/v1/"))
    finally:
        await source.aclose()
