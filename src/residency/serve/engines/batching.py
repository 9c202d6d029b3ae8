"""Dynamic batching: requests that come within a moment are computed together, in one thread, none
longer than it must wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def _alike(_: object) -> Hashable:
    return None


class Batcher(Generic[In, Out]):
    """Collects items and computes them together. ``compute`` runs in ``pool``; items whose ``key``
    differs are never together.

    The first item waits ``wait`` seconds for others; while a batch is computed the next one
    gathers, and follows at once.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[In]], Sequence[Out]],
        pool: ThreadPoolExecutor,
        wait: float,
        most: int,
        key: Callable[[In], Hashable] = _alike,
        watch: Callable[[int, int], None] | None = None,
    ) -> None:
        self.compute, self.pool, self.wait, self.most, self.key, self.watch = (
            compute,
            pool,
            wait,
            most,
            key,
            watch,
        )
        self.waiting: list[tuple[In, asyncio.Future[Out]]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.busy = False

    async def __call__(self, item: In) -> Out:
        """The result of one item; an error of another item of its batch does not reach it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Out] = loop.create_future()
        self.waiting.append((item, future))
        if not self.busy and len(self.waiting) >= self.most:
            self._start()
        elif not self.busy and self.timer is None:
            self.timer = loop.call_later(self.wait, self._start)
        return await future

    def _start(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.waiting = [pair for pair in self.waiting if not pair[1].cancelled()]
        if self.busy or not self.waiting:
            return
        wanted = self.key(self.waiting[0][0])
        chosen = [pair for pair in self.waiting if self.key(pair[0]) == wanted][: self.most]
        taken = {id(future) for _, future in chosen}
        self.waiting = [pair for pair in self.waiting if id(pair[1]) not in taken]
        self.busy = True
        if self.watch:
            self.watch(len(self.waiting), len(chosen))
        asyncio.get_running_loop().create_task(self._compute(chosen))

    async def _compute(self, chosen: list[tuple[In, asyncio.Future[Out]]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(
                self.pool, self._results, [item for item, _ in chosen]
            )
            for (_, future), result in zip(chosen, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except BaseException as error:
            for _, future in chosen:
                if not future.done():
                    future.set_exception(error)
        finally:
            self.busy = False
            self._start()

    def _results(self, items: list[In]) -> list[Out | BaseException]:
        """Results, or errors; where a batch fails each item is tried alone, so that only the one at
        fault fails."""
        try:
            return list(self.compute(items))
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [result for item in items for result in self._results([item])]
