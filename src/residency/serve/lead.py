"""The engine process leads: it says which engine answers for a name, and all HTTP workers change at
the same moment.

Each worker listens to it all along, and says of everything that it is told that it is done, or why
not. A change goes so: the new model is proved and loaded here; every worker makes ready what it
needs of it (``prepare``); every worker keeps new requests waiting (``hold``); the line is added to
the ledger; every worker is told what answers (``now``). Where one of them does not say yes before
the line is added, nothing changes, for any of them. From the first answer of the new model on no
new request is answered by the old one, by whichever worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import msgspec

from residency.core.errors import GateRefused
from residency.core.types import Value
from residency.serve.changes import Load, Order, Promoted, changed, no
from residency.serve.engines.remote import encoded, gone, packed, routes, said
from residency.serve.swap import Held, Swap
from residency.serve.types import Engine, Refusal, Served

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PREPARE_SECONDS = 30.0
"""Longest that a worker may take to read a new model's tokenizer."""
HOLD_SECONDS = 5.0
"""Longest that workers may take to answer while requests wait."""


class Model(Value, frozen=True):
    """An engine, as workers need to know it."""

    key: str
    served: Served
    folder: str


class Told(Value, frozen=True):
    """What workers are told."""

    number: int
    what: Literal["prepare", "hold", "now"]
    models: tuple[Model, ...] = ()
    """To make ready, or all that answer now."""


class Hello(Value, frozen=True):
    """What a worker says first."""

    worker: int
    token: str
    """Its own for this connection."""


class Done(Value, frozen=True):
    """What a worker says of what it was told."""

    token: str
    number: int
    why: str = ""
    """Why it could not be done."""


class Left(Value, frozen=True):
    """A worker asks nothing of an engine any more."""

    token: str
    key: str


class Follower:
    """A worker that listens."""

    def __init__(self, hello: Hello) -> None:
        self.worker, self.token = hello.worker, hello.token
        self.queue: asyncio.Queue[Told] = asyncio.Queue()
        self.waited: dict[int, asyncio.Future[str]] = {}
        self.held: dict[str, Held] = {}

    def tell(self, told: Told) -> asyncio.Future[str]:
        """What it will say of it: nothing where it is done."""
        self.queue.put_nowait(told)
        self.waited[told.number] = asyncio.get_running_loop().create_future()
        return self.waited[told.number]

    def done(self, number: int, why: str) -> None:
        """It has said so."""
        if (waited := self.waited.pop(number, None)) is not None and not waited.done():
            waited.set_result(why)


class Lead:
    """The engines of this process, and the workers that ask them. ``shows`` is told which engine
    answers for a name."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        folders: Mapping[str, Path],
        workers: int,
        ledger: Path | None,
        load: Load,
        shows: Callable[[str, Engine], None],
    ) -> None:
        self.swap, self.workers, self.ledger, self.load, self.shows = (
            Swap(),
            workers,
            ledger,
            load,
            shows,
        )
        self.models: dict[str, tuple[Engine, Model]] = {}
        """By key, also those that are not told yet, and those that are leaving."""
        self.followers: list[Follower] = []
        self.number = 0
        self.one, self.settled = asyncio.Lock(), asyncio.Event()
        self.settled.set()
        self.loop: asyncio.AbstractEventLoop | None = None
        for name, engine in engines.items():
            self.swap.put(name, engine)
            self._takes(engine, folders[name])
            shows(name, engine)

    def _takes(self, engine: Engine, folder: Path) -> Model:
        made = Model(key=uuid4().hex, served=engine.served, folder=str(folder))
        self.models[made.key] = engine, made
        return made

    def using(self, key: str) -> AbstractAsyncContextManager[Engine]:
        """An engine for the length of a question. Raises ``Refusal`` 503 where it is not held any
        more."""
        if key not in self.models:
            raise gone()
        engine, model = self.models[key]
        return self.swap.using(model.served.name, engine)

    # Workers

    async def follow(self, hello: Hello) -> AsyncIterator[bytes]:
        """All that a worker is told for as long as it listens; first, what answers."""
        await self.settled.wait()  # who comes in the middle of a change waits for its end
        follower = Follower(hello)
        self.followers.append(follower)
        self._now(follower)
        try:
            while True:
                yield msgspec.json.encode(await follower.queue.get(), enc_hook=encoded) + b"\n"
        finally:
            self.followers.remove(follower)
            for number in list(follower.waited):
                follower.done(number, "it ended")
            for held in follower.held.values():
                self.swap.release(held)

    def _now(self, follower: Follower) -> asyncio.Future[str]:
        """Tell a worker what answers now, which is not closed before it says that it has left it."""
        now = {id(self.swap.now(name)) for name in self.swap.names}
        models = {key: model for key, (engine, model) in self.models.items() if id(engine) in now}
        for key, model in models.items():
            if key not in follower.held:
                follower.held[key] = self.swap.hold(model.served.name)
        return follower.tell(Told(number=self._next(), what="now", models=tuple(models.values())))

    def _next(self) -> int:
        self.number += 1
        return self.number

    def find(self, token: str) -> Follower | None:
        """The worker of a connection."""
        return next((one for one in self.followers if one.token == token), None)

    def left(self, said: Left) -> None:
        """A worker asks nothing of an engine any more."""
        follower = self.find(said.token)
        if follower is not None and said.key in follower.held:
            self.swap.release(follower.held.pop(said.key))

    # Changes

    async def change(self, order: Order) -> Promoted:
        """Make a change, for all workers or for none. Raises ``Refusal``."""
        if self.ledger is None:
            raise no(
                "no_ledger",
                "No model that is served here comes from a model ledger; serve it by its name in "
                "one.",
            )
        self.loop = asyncio.get_running_loop()
        async with self.one:
            try:
                done = await changed(self.swap, self.ledger, self.load, order, self)
                self.shows(order.alias, self.swap.now(order.alias))
                return done
            finally:
                await self._settle()

    async def prepare(self, engine: Engine, folder: Path) -> None:
        """Let each worker make ready what it needs of a new model. Raises ``GateRefused``."""
        self.settled.clear()
        await self._all("prepare", PREPARE_SECONDS, (self._takes(engine, folder),))

    def hold(self) -> None:
        """Let each worker keep new requests waiting. Called in a thread. Raises ``GateRefused``."""
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(self._all("hold", HOLD_SECONDS), self.loop).result()

    async def _all(
        self, what: Literal["prepare", "hold"], seconds: float, models: tuple[Model, ...] = ()
    ) -> None:
        if {one.worker for one in self.followers} != set(range(self.workers)):
            raise GateRefused(
                "not promoted: not every worker listens at the moment; try again shortly."
            )
        told = Told(number=self._next(), what=what, models=models)
        asked = {one: one.tell(told) for one in self.followers}
        await asyncio.wait(asked.values(), timeout=seconds)
        for one, answer in asked.items():
            why = (
                answer.result()
                if answer.done()
                else f"it did not answer within {seconds:g} seconds"
            )
            if why:
                raise GateRefused(
                    f"not promoted: worker {one.worker} cannot take part: {why.rstrip('.')}."
                )

    async def _settle(self) -> None:
        """Tell all workers what answers now, whatever came of a change, and forget what is not held
        any more."""
        if self.settled.is_set():
            return  # nobody was told of it
        self.models = {
            key: found for key, found in self.models.items() if self.swap.holds(found[0])
        }
        told = [self._now(one) for one in self.followers]
        self.settled.set()
        if told:
            await asyncio.wait(told, timeout=HOLD_SECONDS)

    async def close(self) -> None:
        """End the engines."""
        await self.swap.close()


def application(lead: Lead) -> Starlette:
    """What the engine process answers."""
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def follow(request: Request) -> Response:
        hello = msgspec.json.decode(await request.body(), type=Hello)
        return StreamingResponse(lead.follow(hello), media_type="application/x-ndjson")

    async def done(request: Request) -> Response:
        told = msgspec.json.decode(await request.body(), type=Done)
        if (follower := lead.find(told.token)) is not None:
            follower.done(told.number, told.why)
        return said(True)

    async def left(request: Request) -> Response:
        lead.left(msgspec.json.decode(await request.body(), type=Left))
        return said(True)

    async def change(request: Request) -> Response:
        try:
            made = await lead.change(msgspec.json.decode(await request.body(), type=Order))
        except Refusal as refusal:
            return said(packed(refusal), 409)
        return said(made.model_dump())

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        yield
        await lead.close()

    every = {"follow": follow, "done": done, "left": left, "change": change}
    own = [Route(f"/{what}", answer, methods=["POST"]) for what, answer in every.items()]
    return Starlette(routes=[*own, *routes(lead.using)], lifespan=life)
