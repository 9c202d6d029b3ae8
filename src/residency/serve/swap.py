"""Which engine answers for a name, and how another takes its place while requests run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from residency.core.errors import GateRefused, ResidencyError
from residency.models import fingerprint
from residency.models.fingerprint import Fingerprint
from residency.serve.types import Engine, Refusal


class Held:
    """An engine and how many requests run on it."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.running, self.retired, self.ended = engine, 0, False, asyncio.Event()

    async def leave(self) -> None:
        """Close it where it is retired and nothing runs on it any more."""
        if self.retired and not self.running and not self.ended.is_set():
            self.ended.set()
            await self.engine.close()


class Swap:
    """Names of models and the engines behind them. For one event loop."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._flips: dict[str, asyncio.Lock] = {}
        self._leaving: set[Held] = set()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are served."""
        return tuple(self._held)

    def put(self, name: str, engine: Engine) -> None:
        """Serve an engine under a name that is not served yet: at start, before any request."""
        if name in self._held:
            raise ValueError(f"{name} is served already; flip it")
        self._held[name] = Held(engine)

    def now(self, name: str) -> Engine:
        """The engine behind a name, to ask what it is; to let it answer, use ``using``. Raises
        ``Refusal`` (404)."""
        return self._of(name).engine

    def _of(self, name: str) -> Held:
        if (held := self._held.get(name)) is None:
            raise Refusal(
                404,
                "model_not_found",
                "No model of this name is served; /v1/models lists those that are.",
            )
        return held

    def _still(self, engine: Engine) -> Held | None:
        return next(
            (one for one in (*self._held.values(), *self._leaving) if one.engine is engine), None
        )

    def holds(self, engine: Engine) -> bool:
        """Whether an engine answers, or still ends what it began."""
        return self._still(engine) is not None

    @asynccontextmanager
    async def using(self, name: str, engine: Engine | None = None) -> AsyncIterator[Engine]:
        """The engine behind a name for the length of a request: it is not closed before, whatever
        takes its place meanwhile."""
        held = self.hold(name, engine)
        try:
            yield held.engine
        finally:
            if (closing := self.release(held)) is not None:
                await asyncio.shield(closing)

    def hold(self, name: str, engine: Engine | None = None) -> Held:
        """The same where a request's end is not the end of a block; give it to ``release``.
        ``engine``: this one, also where another has its place by now; raises ``Refusal`` (503)
        where it is closed."""
        held = self._of(name) if engine is None else self._still(engine)
        if held is None:
            raise Refusal(503, "not_ready", "The model is not ready; try again shortly.", 1.0)
        held.running += 1
        return held

    def release(self, held: Held) -> asyncio.Task[None] | None:
        """A request has ended; where its engine is retired, what may close it now."""
        held.running -= 1
        if not held.retired:
            return None
        closing = asyncio.get_running_loop().create_task(self._leave(held))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing

    async def _leave(self, held: Held) -> None:
        await held.leave()
        if held.ended.is_set():
            self._leaving.discard(held)

    async def flip(
        self,
        name: str,
        load: Callable[[], Engine],
        known: Fingerprint | None = None,
        agreed: Callable[[Engine], Awaitable[object]] | None = None,
    ) -> Engine:
        """Load another engine beside the one that answers (in a thread), prove it, and let it
        answer from now on.

        ``known``: what was recorded of its model at training time. ``agreed`` is asked once it is
        proved; what it raises ends the change, and nothing comes between its end and the flip.
        Requests that run end on the old engine, which is then closed. Raises ``GateRefused`` where
        it cannot be loaded or proved: then the old one goes on.
        """
        async with self._flips.setdefault(name, asyncio.Lock()):
            try:
                engine = await asyncio.to_thread(load)
            except ResidencyError as error:
                raise GateRefused(f"{name}: not promoted: {error}") from None
            try:
                await proved(engine, known)
                if agreed is not None:
                    await agreed(engine)
            except BaseException:
                await engine.close()
                raise
            await self.replace(name, engine)
            return engine

    async def replace(self, name: str, engine: Engine) -> None:
        """Let another engine answer from now on; the old one is closed after its last request."""
        before, self._held[name] = self._held.get(name), Held(engine)
        if before is not None:
            before.retired = True
            self._leaving.add(before)
            await self._leave(before)

    async def close(self) -> None:
        """Close every engine, also those that requests still run on."""
        every = [*self._held.values(), *self._leaving]
        self._held.clear()
        self._leaving.clear()
        for held in every:
            if not held.ended.is_set():
                held.ended.set()
                await held.engine.close()


async def proved(engine: Engine, known: Fingerprint | None) -> None:
    """An engine that answers, and, where it can say how likely tokens are, says what was recorded,
    within the tolerance of its kind.

    Raises ``GateRefused``.
    """
    name = engine.served.name
    if not await engine.canary():
        raise GateRefused(f"{name}: not promoted: it does not answer the fixed question.")
    if known is None or engine.served.output != "text":
        return
    kind = f"{engine.served.kind} {engine.served.dtype}"
    if (most := known.tolerances.get(kind)) is None:
        raise GateRefused(f"{name}: not promoted: no tolerance was recorded for {kind}.")
    said = [await engine.score(ids) for ids in known.ids]
    gap = fingerprint.furthest(
        known.values, [[one for one in each.log_probabilities if one is not None] for each in said]
    )
    if not gap <= most:
        raise GateRefused(
            f"{name}: not promoted: its log-probabilities are not those of training time (largest "
            f"difference {gap:.3g}, allowed "
            f"{most:g} for {kind})."
        )
