"""OpenAI's routes: chat, completions with ``echo`` and ``logprobs``, models. What is not done is
refused, never ignored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, cast
from uuid import uuid4

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from residency.core.types import Turn
from residency.serve import refusals
from residency.serve.guard import Gate, Guarded, Visit, failed, gate_of, visit_of
from residency.serve.routes.openai_bodies import (
    Chat,
    ChatAnswer,
    Completion,
    Message,
    Model,
    Models,
    TextAnswer,
)
from residency.serve.sizes import fit
from residency.serve.types import Asked, Engine, Piece, Refusal, Scored, Served

router = APIRouter(route_class=Guarded)
ENDED = b"data: [DONE]\n\n"


STREAMS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The answer, or a stream."}
}
STARTED = int(time.time())


@router.get("/v1/models", tags=["chat"], response_model=Models)
async def models(request: Request) -> Response:
    """The models that are served."""
    return JSONResponse(
        {
            "object": "list",
            "data": [_model(one.served) for one in gate_of(request).engines.values()],
        }
    )


@router.get("/v1/models/{name}", tags=["chat"], response_model=Model)
async def model(name: str, request: Request) -> Response:
    """One of them."""
    return JSONResponse(_model(gate_of(request).engine(visit_of(request), name, writes).served))


def _model(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": STARTED,
        "owned_by": "residency",
        "digest": served.digest,
        "base": served.base,
        "method": served.method,
        "card": served.card.name,
    }


def writes(served: Served) -> bool:
    """Whether a model writes."""
    return served.output == "text"


def writer(gate: Gate, visit: Visit, name: str | None) -> Engine:
    """A model that writes; raises ``Refusal`` 404, or 400 for one that marks."""
    engine = gate.engine(visit, name, writes)
    if not writes(engine.served):
        raise Refusal(
            400,
            "wrong_model",
            f"Model {engine.served.name} marks notes and does not write; use /extract or "
            "/diagnose.",
        )
    return engine


def turns_of(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """A conversation as engines read it; raises ``Refusal`` where it cannot be answered."""
    made = tuple(
        Turn(
            role="system" if one.role in ("system", "developer") else cast(Any, one.role),
            text=one.text,
        )
        for one in messages
    )
    if made[-1].role != "user":
        raise Refusal(400, "bad_turns", "The last message must be the user's.")
    if any(turn.role == "system" for turn in made[1:]):
        raise Refusal(400, "bad_turns", "A system message must be the first, and the only one.")
    return made


@router.post("/v1/chat/completions", tags=["chat"], response_model=ChatAnswer, responses=STREAMS)
async def chat(body: Chat, request: Request) -> Response:
    """The next turn of a conversation, whole or as a stream of events."""
    gate, visit = gate_of(request), visit_of(request)
    engine = writer(gate, visit, body.model)
    if body.logprobs:
        raise Refusal(
            400,
            "no_logprobs",
            "Likelihoods are given by /v1/completions, not here; leave logprobs out.",
        )
    turns = turns_of(body.messages)
    said = [turn.text for turn in turns if turn.role == "user"]
    wanted = (
        body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    )
    sizes = gate.sized(visit, engine, said, lambda: engine.count_turns(turns), wanted)
    head = _head("chatcmpl", engine.served)
    pieces = engine.write(body.asked(turns, sizes.answer))
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return await streamed(
            gate, visit, pieces, head | {"object": "chat.completion.chunk"}, _delta, with_usage
        )
    answer = await whole(gate, visit, pieces)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text},
        "finish_reason": answer.end or "stop",
        "logprobs": None,
    }
    return JSONResponse(
        head | {"object": "chat.completion", "choices": [choice], "usage": _usage(visit)}
    )


@router.post("/v1/completions", tags=["chat"], response_model=TextAnswer, responses=STREAMS)
async def completions(body: Completion, request: Request) -> Response:
    """What follows a text or tokens, without a template. With ``echo`` and ``logprobs`` the
    prompt's own likelihood comes along, as evaluation programs ask for it (``max_tokens`` may then
    be 0)."""
    gate, visit = gate_of(request), visit_of(request)
    engine = writer(gate, visit, body.model)
    if body.max_tokens == 0 and not body.echo:
        raise Refusal(400, "bad_value", "max_tokens 0 needs echo: nothing else would be answered.")
    if body.logprobs is not None and body.max_tokens != 0 and gate.settings.deidentify_answers:
        raise Refusal(
            400,
            "no_logprobs",
            "Answers are de-identified here, and likelihoods would name their words; leave "
            "logprobs out, or set max_tokens 0.",
        )
    prompts = body.prompts()
    ids = [engine.tokens(one) if isinstance(one, str) else tuple(one) for one in prompts]
    texts = [one if isinstance(one, str) else engine.text(one) for one in prompts]
    if not all(ids):
        raise Refusal(400, "bad_value", "A prompt holds no token.")
    wanted = 16 if body.max_tokens is None else body.max_tokens
    fit(gate.settings.limits, sum(map(len, ids)), answer=max(1, wanted))
    visit.read = sum(map(len, ids))
    for one in ids:
        fit(
            gate.settings.limits,
            len(one),
            answer=max(1, wanted),
            window=engine.served.window + (wanted == 0),
        )
    head = _head("cmpl", engine.served) | {"object": "text_completion"}
    asked = body.asked((), max(1, wanted))
    if body.stream:
        if len(ids) > 1 or body.echo or body.logprobs is not None:
            raise Refusal(
                400,
                "not_streamed",
                "Several prompts, echo and logprobs are not streamed; leave stream out.",
            )
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return await streamed(
            gate, visit, engine.continue_(ids[0], asked), head, _chunk, with_usage
        )
    work = [
        _completed(gate, visit, engine, body, one, text, asked, wanted)
        for one, text in zip(ids, texts, strict=True)
    ]
    choices = await together(work)
    for number, choice in enumerate(choices):
        choice["index"] = number
    return JSONResponse(head | {"choices": choices, "usage": _usage(visit)})


async def together(work: Sequence[Any]) -> list[Any]:
    """Results of several at once; where one fails the others are ended."""
    async with asyncio.TaskGroup() as group:
        try:
            tasks = [group.create_task(one) for one in work]
            return [await task for task in tasks]
        except Refusal as refusal:
            problem = refusal
            for task in tasks:
                task.cancel()
    raise problem


async def _completed(
    gate: Gate,
    visit: Visit,
    engine: Engine,
    body: Completion,
    ids: Sequence[int],
    text: str,
    asked: Asked,
    wanted: int,
) -> dict[str, Any]:
    """One prompt's answer."""
    nothing = Piece(text="", end="length")
    new = nothing if wanted == 0 else await whole(gate, visit, engine.continue_(ids, asked))
    likely = None
    if body.logprobs is not None and new.text and not new.ids:
        raise Refusal(
            400,
            "no_logprobs",
            "This model's engine does not name the tokens that it writes; leave logprobs out.",
        )
    if body.logprobs is not None:
        scored = await engine.score([*ids, *new.ids], max(1, body.logprobs))
        likely = _likely(scored, 0 if body.echo else len(ids), body.logprobs)
    words = text + new.text if body.echo else new.text
    return {"index": 0, "text": words, "finish_reason": new.end or "stop", "logprobs": likely}


def _likely(scored: Scored, start: int, top: int) -> dict[str, Any]:
    first = scored.offsets[start] if start < len(scored.offsets) else 0
    return {
        "tokens": list(scored.texts[start:]),
        "token_logprobs": list(scored.log_probabilities[start:]),
        "top_logprobs": list(scored.top[start:]) if top else None,
        "text_offset": [place - first for place in scored.offsets[start:]],
    }


async def gathered(pieces: AsyncIterator[Piece]) -> Piece:
    """An answer to its end, as one piece: its text and its tokens."""
    words, ids, last = list[str](), list[int](), Piece(text="")
    async with aclosing(cast(Any, pieces)) as reading:
        async for last in reading:
            words.append(last.text)
            ids.extend(last.ids)
    return msgspec.structs.replace(last, text="".join(words), ids=tuple(ids))


async def whole(gate: Gate, visit: Visit, pieces: AsyncIterator[Piece]) -> Piece:
    """The same, as it leaves, and counted."""
    found = await gathered(pieces)
    visit.written += found.tokens
    return msgspec.structs.replace(found, text=await gate.shown(found.text))


def _head(kind: str, served: Served) -> dict[str, Any]:
    return {
        "id": f"{kind}-{uuid4().hex}",
        "object": "",
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": served.digest,
    }


def _usage(visit: Visit) -> dict[str, int]:
    return {
        "prompt_tokens": visit.read,
        "completion_tokens": visit.written,
        "total_tokens": visit.read + visit.written,
    }


def _delta(text: str, end: str | None, first: bool) -> dict[str, Any]:
    delta: dict[str, str] = {"role": "assistant"} if first else {}
    if text or first:
        delta["content"] = text
    return {"index": 0, "delta": delta, "finish_reason": end, "logprobs": None}


def _chunk(text: str, end: str | None, first: bool) -> dict[str, Any]:
    return {"index": 0, "text": text, "finish_reason": end, "logprobs": None}


class Events(StreamingResponse):
    """A stream of events whose source is closed whatever ends it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await cast(Any, self.body_iterator).aclose()


async def streamed(
    gate: Gate,
    visit: Visit,
    pieces: AsyncIterator[Piece],
    head: dict[str, Any],
    choice: Any,
    with_usage: bool,
) -> Response:
    """An answer as server-sent events. The first piece is awaited, so that a refusal still has its
    status."""
    source = cast(Any, pieces)
    if gate.settings.deidentify_answers:
        source = _at_once(gate, source)
    try:
        first = await anext(source)
    except BaseException:
        await source.aclose()
        raise
    visit.streams = True
    return Events(
        _events(gate, visit, first, source, head, choice, with_usage),
        media_type="text/event-stream",
    )


async def _at_once(gate: Gate, pieces: Any) -> AsyncIterator[Piece]:
    """The whole answer as one piece: an identifier could lie across pieces."""
    found = await gathered(pieces)
    yield msgspec.structs.replace(found, text=await gate.shown(found.text))


async def _events(
    gate: Gate,
    visit: Visit,
    first: Piece,
    source: Any,
    head: dict[str, Any],
    choice: Any,
    with_usage: bool,
) -> AsyncIterator[bytes]:
    def event(what: dict[str, Any]) -> bytes:
        return b"data: " + msgspec.json.encode(what) + b"\n\n"

    blank: dict[str, Any] = {"usage": None} if with_usage else {}
    try:
        piece, begun = first, False
        while True:
            visit.written = piece.tokens
            if piece.text or piece.end or not begun:
                yield event(head | {"choices": [choice(piece.text, piece.end, not begun)]} | blank)
            begun = True
            if piece.end is not None:
                break
            piece = await anext(source)
        if with_usage:
            yield event(head | {"choices": [], "usage": _usage(visit)})
        gate.end(visit, 200)
        yield ENDED
    except Refusal as refusal:
        gate.noticed(visit, refusal)
        gate.end(visit, refusal.status, refusal.code)
        yield event(refusals.content("/v1/", refusal))
    except (asyncio.CancelledError, GeneratorExit):
        gate.cancelled(visit)
        raise
    except Exception as error:
        gate.crashed(error)
        gate.end(visit, 500, "internal")
        yield event(refusals.content("/v1/", failed()))
    finally:
        await source.aclose()
