"""One process that holds the weights, and engines in HTTP workers that ask it over a socket only
this server's user can open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from residency.core.part import parse
from residency.core.types import Prediction, Turn, Value
from residency.serve.engines.tokenizer import Reader, Reading
from residency.serve.types import Asked, Engine, Piece, Refusal, Scored, Served

if TYPE_CHECKING:
    import httpx2
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

T = TypeVar("T")
READY_SECONDS = 2.0
"""Longest that connecting to the engine process takes."""


class Question(Value, frozen=True):
    """What a worker asks of a model."""

    text: str = ""
    ids: tuple[int, ...] = ()
    top: int = 1
    asked: Asked | None = None


class No(Value, frozen=True):
    """A refusal on its way."""

    status: int
    code: str
    sentence: str
    retry_after: float | None = None


class Event(Value, frozen=True):
    """A line of an answer that is being written."""

    piece: Piece | None = None
    no: No | None = None


def packed(refusal: Refusal) -> No:
    """A refusal as it travels."""
    return No(
        status=refusal.status,
        code=refusal.code,
        sentence=refusal.sentence,
        retry_after=refusal.retry_after,
    )


def unpacked(no: No) -> Refusal:
    """The same at the other end."""
    return Refusal(no.status, no.code, no.sentence, no.retry_after)


def encoded(value: Any) -> Any:
    """A card on its way to another process."""
    return value.model_dump(mode="json")


def decoded(kind: type, value: Any) -> Any:
    """The same at the other end."""
    return parse(kind, value, "served")


def said(value: object, status: int = 200) -> Response:
    """An answer of the engine process."""
    from starlette.responses import Response

    return Response(msgspec.json.encode(value), status, media_type="application/json")


Using = Callable[[str], AbstractAsyncContextManager[Engine]]
"""The engine of a key for as long as it is asked; raises ``Refusal`` where it is not held any more."""


def routes(using: Using) -> list[Route]:
    """What the engine process answers of its models, each by a key that no other engine ever has."""
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def mark(request: Request) -> Response:
        wanted = await _question(request)
        return await _answered(using, request, lambda engine: engine.mark(wanted.text))

    async def score(request: Request) -> Response:
        wanted = await _question(request)
        return await _answered(using, request, lambda engine: engine.score(wanted.ids, wanted.top))

    async def canary(request: Request) -> Response:
        return await _answered(using, request, lambda engine: engine.canary())

    async def write(request: Request) -> Response:
        lines = _lines(using(request.path_params["key"]), await _question(request))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    every = {"mark": mark, "score": score, "canary": canary, "write": write}
    return [
        Route(f"/models/{{key}}/{what}", answer, methods=["POST"]) for what, answer in every.items()
    ]


async def _question(request: Request) -> Question:
    return msgspec.json.decode(await request.body(), type=Question)


async def _answered(
    using: Using, request: Request, ask: Callable[[Engine], Awaitable[object]]
) -> Response:
    try:
        async with using(request.path_params["key"]) as engine:
            return said(await ask(engine))
    except Refusal as refusal:
        return said(packed(refusal), 409)


async def _lines(
    using: AbstractAsyncContextManager[Engine], wanted: Question
) -> AsyncIterator[bytes]:
    """An answer line by line; its last line may be a refusal."""
    assert wanted.asked is not None
    try:
        async with using as engine:
            pieces = (
                engine.continue_(wanted.ids, wanted.asked)
                if wanted.ids
                else engine.write(wanted.asked)
            )
            async with aclosing(cast(Any, pieces)) as reading:
                async for piece in reading:
                    yield msgspec.json.encode(Event(piece=piece)) + b"\n"
    except Refusal as refusal:
        yield msgspec.json.encode(Event(no=packed(refusal))) + b"\n"


class Remote(Reading):
    """A model in the engine process, as a worker sees it. What is not answered is refused (503).

    ``key``: that of its engine; ``left`` is told of it once this worker asks nothing of that engine
    any more.
    """

    def __init__(
        self,
        served: Served,
        reader: Reader,
        socket: Path,
        seconds: float,
        key: str = "none",
        left: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        super().__init__(served, reader)
        self.socket, self.seconds, self.key, self.left = socket, seconds, key, left
        self._client: httpx2.AsyncClient | None = None

    @property
    def client(self) -> httpx2.AsyncClient:
        """Connections to the engine process, made in the loop that uses them."""
        if self._client is None:
            self._client = connected(self.socket, self.seconds)
        return self._client

    async def _ask(self, what: str, wanted: Question, kind: type[T]) -> T:
        import httpx2

        try:
            found = await self.client.post(
                f"/models/{self.key}/{what}", content=msgspec.json.encode(wanted)
            )
        except httpx2.HTTPError:
            raise gone() from None
        if found.status_code == 409:
            raise unpacked(msgspec.json.decode(found.content, type=No))
        if found.status_code != 200:
            raise gone()
        return msgspec.json.decode(found.content, type=kind)

    async def mark(self, text: str) -> Prediction:
        """Spans or labels of a text."""
        return await self._ask("mark", Question(text=text), Prediction)

    async def score(self, ids: Sequence[int], top: int = 1) -> Scored:
        """How likely given tokens are."""
        return await self._ask("score", Question(ids=tuple(ids), top=top), Scored)

    def write(self, asked: Asked) -> AsyncIterator[Piece]:
        """The answer to a conversation."""
        return self._pieces(Question(asked=asked))

    def continue_(self, ids: Sequence[int], asked: Asked) -> AsyncIterator[Piece]:
        """What follows tokens as they are."""
        return self._pieces(Question(ids=tuple(ids), asked=asked))

    async def _pieces(self, wanted: Question) -> AsyncIterator[Piece]:
        import httpx2

        ended = False
        try:
            content = msgspec.json.encode(wanted)
            async with self.client.stream(
                "POST", f"/models/{self.key}/write", content=content
            ) as answer:
                if answer.status_code != 200:
                    raise gone()
                async for line in answer.aiter_lines():
                    event = msgspec.json.decode(line, type=Event)
                    if event.no is not None:
                        raise unpacked(event.no)
                    if event.piece is not None:
                        ended = event.piece.end is not None
                        yield event.piece
        except (httpx2.HTTPError, msgspec.DecodeError):
            raise gone() from None
        if not ended:
            raise gone()

    async def canary(self) -> bool:
        """Whether the engine process gives its fixed answer."""
        try:
            return await self._ask("canary", Question(), bool)
        except Refusal:
            return False

    async def close(self) -> None:
        """Let go of connections."""
        if self._client is not None:
            await self._client.aclose()
        if self.left is not None:
            await self.left(self.key)


def connected(socket: Path, seconds: float | None) -> httpx2.AsyncClient:
    """A client of the engine process."""
    import httpx2

    return httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(uds=str(socket), limits=httpx2.Limits()),
        base_url="http://engine",
        timeout=httpx2.Timeout(seconds, connect=READY_SECONDS),
        trust_env=False,
    )


class Unread:
    """The tokenizer of a model that the engine process has yet to name."""

    def count(self, text: str) -> int:
        """Refused."""
        raise gone()

    def count_turns(self, turns: Sequence[Turn]) -> int:
        """Refused."""
        raise gone()

    def tokens(self, text: str) -> tuple[int, ...]:
        """Refused."""
        raise gone()

    def text(self, ids: Sequence[int]) -> str:
        """Refused."""
        raise gone()


def gone() -> Refusal:
    """503: the engine process does not answer."""
    return Refusal(503, "not_ready", "The model is not ready; try again shortly.", 1.0)
