"""An HTTP worker follows the engine process: it hears which engine answers for a name, and changes
when all workers do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from residency.core.errors import ResidencyError
from residency.serve.changes import Order, Promoted
from residency.serve.engines.remote import No, Remote, Unread, connected, decoded, gone, unpacked
from residency.serve.engines.tokenizer import reader_of
from residency.serve.lead import Done, Hello, Left, Model, Told
from residency.serve.routes.admin import Changes
from residency.serve.types import Engine, Refusal, Served

if TYPE_CHECKING:
    import httpx2

    from residency.serve.guard import Gate

AGAIN = 0.1
"""Seconds until an engine process that does not answer is asked again."""


class Follow(Changes):
    """What a worker hears, and the changes that it is asked for, which the engine process makes."""

    def __init__(self, worker: int, socket: Path, seconds: float) -> None:
        super().__init__()
        self.worker, self.socket, self.seconds = worker, socket, seconds
        self.token, self.heard = "", asyncio.Event()
        self.ready: dict[str, Remote] = {}
        """Made ready, by key; they do not answer yet."""
        self.keys: dict[str, str] = {}
        self._client: httpx2.AsyncClient | None = None
        self._listening: asyncio.Task[None] | None = None

    def engines(self, served: tuple[Served, ...]) -> dict[str, Engine]:
        """What stands for models until the engine process has said what answers: it refuses (503)."""
        return {one.name: Remote(one, Unread(), self.socket, self.seconds) for one in served}

    @property
    def client(self) -> httpx2.AsyncClient:
        """Connections of its own to the engine process: what it hears waits for no request."""
        if self._client is None:
            self._client = connected(self.socket, None)
        return self._client

    async def start(self, gate: Gate) -> None:
        """Listen from now on; returns when it has heard what answers, or that the engine process is
        not there."""
        gate.open.clear()
        self._listening = asyncio.create_task(self._keep(gate))
        await self.heard.wait()

    async def close(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _keep(self, gate: Gate) -> None:
        import httpx2

        while True:
            try:
                await self._listen(gate)
            except httpx2.HTTPError:
                pass  # the engine process is not there; it is started again
            except Exception as error:
                gate.crashed(error)
            gate.open.set()
            self.heard.set()
            await asyncio.sleep(AGAIN)

    async def _listen(self, gate: Gate) -> None:
        """Hear and do, until the engine process ends or says something that cannot be done."""
        self.token, self.ready = uuid4().hex, {}
        hello = msgspec.json.encode(Hello(worker=self.worker, token=self.token))
        async with self.client.stream("POST", "/follow", content=hello) as answer:
            async for line in answer.aiter_lines():
                told = msgspec.json.decode(line, type=Told, dec_hook=decoded)
                why = await self._do(gate, told)
                done = Done(token=self.token, number=told.number, why=why)
                await self.client.post("/done", content=msgspec.json.encode(done))
                if why and told.what == "now":
                    return

    async def _do(self, gate: Gate, told: Told) -> str:
        """Do what is told; why it cannot be done."""
        try:
            if told.what == "hold":
                gate.open.clear()
            elif told.what == "prepare":
                for model in told.models:
                    self.ready[model.key] = await self._made(gate, model)
            else:
                await self._now(gate, told.models)
        except (ResidencyError, OSError, ValueError):
            return "its tokenizer cannot be read"
        return ""

    async def _now(self, gate: Gate, models: tuple[Model, ...]) -> None:
        """These answer."""
        for model in models:
            name = model.served.name
            if self.keys.get(name) == model.key:
                continue
            proved = model.key in self.ready
            engine = self.ready.pop(model.key, None) or await self._made(gate, model)
            await gate.swap.replace(name, engine)
            self.keys[name] = model.key
            if proved:
                gate.answers(name)
            else:
                gate.shows(name, engine)
        self.ready = {}
        gate.open.set()
        self.heard.set()

    async def _made(self, gate: Gate, model: Model) -> Remote:
        """An engine's stand-in; its tokenizer is read where it is not the one of the model that
        answers."""
        before = gate.swap.now(model.served.name)
        same = (
            isinstance(before, Remote)
            and before.key != "none"
            and before.served.digest == model.served.digest
        )
        if same and isinstance(before, Remote):
            reader = before.reader
        else:
            reader = await asyncio.to_thread(reader_of, Path(model.folder), model.served.name)
        return Remote(model.served, reader, self.socket, self.seconds, model.key, self._left)

    async def _left(self, key: str) -> None:
        import httpx2

        with suppress(httpx2.HTTPError, RuntimeError):  # the engine process, or this worker, ends
            await self.client.post(
                "/left", content=msgspec.json.encode(Left(token=self.token, key=key))
            )

    async def made(self, gate: Gate, order: Order) -> Promoted:
        """Let the engine process make a change. Raises ``Refusal``."""
        import httpx2

        try:
            found = await self.client.post("/change", content=msgspec.json.encode(order))
        except httpx2.ConnectError:
            raise gone() from None
        except httpx2.HTTPError:
            raise unknown() from None
        if found.status_code == 409:
            raise unpacked(msgspec.json.decode(found.content, type=No))
        if found.status_code != 200:
            raise unknown()
        return Promoted.model_validate_json(found.content)


def unknown() -> Refusal:
    """503: the engine process ended during a change."""
    return Refusal(
        503,
        "change_unknown",
        "The change was cut; ask /v1/models, and residency model list, what the name points to.",
        1.0,
    )
