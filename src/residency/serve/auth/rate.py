"""How often a user may ask: a moving window that is exact at its edge, counted by ``limits``, in
memory or in Redis for several workers.

Where Redis does not answer nothing is let through uncounted: the answer is 503 with Retry-After,
until it is back. One that was started anew has forgotten the last second: it is used once it has
run for longer than that. Redis ends counts by the wall clock: where that was set back they are
begun anew, since they would else stand for as long as it was set back.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, Storage

from residency.core.errors import UserError
from residency.serve import Refusal
from residency.serve.settings import RequestLimits

REDIS_SECONDS = 0.5
"""Longest that a request waits for Redis, connecting included."""
STEPS = 10
CLOCK_SECONDS = 1
"""How much longer than it may a count seems to last where no clock was changed."""
GROWN_SECONDS = 2
"""Whole seconds that Redis says it runs, from which on it has surely run for one."""
SCHEMES = ("redis", "rediss")
MINUTE = 60
T = TypeVar("T")


class Rate:
    """Counts requests of users, who are named by a hash: ids neither stay in memory nor reach
    Redis."""

    def __init__(
        self, limits: RequestLimits, workers: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
        from limits.aio.strategies import MovingWindowRateLimiter

        if workers > 1 and not limits.redis:
            raise UserError(
                f"limits.redis: {workers} workers need a Redis to count together; give "
                "redis://HOST:PORT, or set workers to 1."
            )
        self.shared = bool(limits.redis)
        self.storage = _redis(limits.redis) if limits.redis else Memory(clock)
        self.item = RateLimitItemPerSecond(limits.per_second)
        self.minute = RateLimitItemPerMinute(limits.minute_tokens)
        self.window = MovingWindowRateLimiter(self.storage)

    async def take(self, user: str) -> None:
        """Count one request of a user (his hashed id); raises ``Refusal`` 429 above the limit, 503
        where it cannot be counted."""
        if await self._hit(user):
            return
        if not await self._outlived(self.item, user) or not await self._hit(user):
            many = f"More than {self.item.amount} requests in one second"
            raise Refusal(429, "rate_limit", f"{many}; wait a second and ask again.", 1.0)

    async def _hit(self, user: str) -> bool:
        return await self._counted(self.window.hit(self.item, user))

    async def spend(self, user: str, tokens: int) -> None:
        """Count a request's work in tokens; where it does not fit the user's minute it is not
        counted. Raises ``Refusal`` 429 and 503 as ``take``."""
        key, most = self.minute.key_for(user), self.minute.amount
        if await self._counted(self.storage.incr(key, MINUTE, tokens)) <= most:
            return
        if await self._outlived(self.minute, user):
            await self.spend(user, tokens)
            return
        await self._counted(self.storage.incr(key, MINUTE, -tokens))
        until = await self._counted(self.storage.get_expiry(key))
        said = f"More than {most} tokens of work in one minute; wait until it is over."
        raise Refusal(429, "token_limit", said, min(MINUTE, max(1.0, until - time.time())))

    async def _outlived(self, item: RateLimitItem, user: str) -> bool:
        """Whether a count of Redis would last longer than it may; then it is forgotten."""
        if not self.shared:
            return False
        key = item.key_for(user)
        left = await self._counted(self.storage.get_expiry(key)) - time.time()
        if outlived := left > item.get_expiry() + CLOCK_SECONDS:
            await self._counted(self.storage.clear(key))
        return outlived

    async def _counted(self, asked: Coroutine[Any, Any, T]) -> T:
        """What the count says; raises ``Refusal`` 503 where Redis does not answer."""
        if not self.shared:
            return await asked
        try:
            return await _in_time(asked)
        except Exception:  # redis raises more than its own while a connection breaks
            raise uncounted() from None

    async def ready(self) -> bool:
        """Whether requests can be counted at the moment."""
        try:
            return await _in_time(self.storage.check())
        except Exception:  # as above
            return False

    async def close(self) -> None:
        """Let go of connections."""
        if self.shared:
            await self.storage.bridge.storage.aclose()  # type: ignore[attr-defined]


async def _in_time(asked: Coroutine[Any, Any, T]) -> T:
    """What Redis says; raises ``TimeoutError`` where it says nothing for ``REDIS_SECONDS``.

    Waited for in short steps, so that time in which this process itself stood still (a model is
    loaded beside the one that answers) counts as one step and not against Redis.
    """
    task = asyncio.ensure_future(asked)
    try:
        for _ in range(STEPS):
            if (await asyncio.wait({task}, timeout=REDIS_SECONDS / STEPS))[0]:
                if task.cancelled():
                    break  # by its connection, which was closed
                return task.result()
        raise TimeoutError
    finally:
        task.cancel()


def uncounted() -> Refusal:
    """503: the count of requests cannot be kept."""
    said = "Requests cannot be counted at the moment; try again shortly."
    return Refusal(503, "rate_unavailable", said, 1.0)


def _redis(address: str) -> Storage:
    from limits.aio.storage import RedisStorage
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as Broken

    if urlsplit(address).scheme not in SCHEMES:
        raise UserError(
            "limits.redis: not the address of a Redis; give redis://HOST:PORT/NUMBER, rediss:// "
            "for TLS."
        )
    return RedisStorage(
        f"async+{address}",
        implementation="redispy",
        key_prefix="residency",
        socket_timeout=STEPS * REDIS_SECONDS,
        socket_connect_timeout=STEPS * REDIS_SECONDS,
        redis_connect_func=_grown,  # type: ignore[arg-type]
        # once: a kept connection to a Redis that was restarted is made anew
        retry=Retry(NoBackoff(), 1, supported_errors=(Broken,)),  # type: ignore[arg-type]
    )


async def _grown(connection: Any) -> None:
    """Raises ``ConnectionError`` of a new connection to a Redis that has just begun. A restart ends
    all connections, so none escapes this."""
    from redis.exceptions import ConnectionError as Broken
    from redis.exceptions import ResponseError

    await connection.on_connect()
    await connection.send_command("INFO", "server")
    try:
        said = await connection.read_response()
    except ResponseError:
        return  # this user of Redis may not ask
    runs = re.search(
        r"uptime_in_seconds:(\d+)", said.decode() if isinstance(said, bytes) else str(said)
    )
    if runs is not None and int(runs[1]) < GROWN_SECONDS:
        raise Broken("Redis has just begun")


class Memory(MemoryStorage):
    """Where requests of users are remembered when one process counts alone: times of a monotonic
    clock, for the moving window of ``limits``, and the work of their minutes.

    The library's own memory looks at every user in a thread after every request (200 users: 0.9 ms
    of processor time each) and follows the wall clock, which may be set back.
    """

    STORAGE_SCHEME = ["async+residency"]

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock
        self.times: dict[str, deque[float]] = {}
        self.minutes: dict[str, tuple[int, float]] = {}
        """Key -> work so far, and when that is forgotten."""
        self.swept = clock()

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Whether a request fits the window, both of whose ends belong to it; counts it if so.
        Nothing is awaited: no other comes between."""
        now = self.clock()
        self._sweep(now, expiry)
        times = self.times.setdefault(key, deque())
        while times and times[0] < now - expiry:
            times.popleft()
        if len(times) + amount > limit:
            return False
        times.extend([now] * amount)
        return True

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a count that ends so many seconds after its beginning."""
        now = self.clock()
        self._sweep(now, int(expiry))
        count, until = self.minutes.get(key, (0, 0.0))
        if until <= now:
            count, until = 0, now + expiry
        self.minutes[key] = (count + amount, until)
        return count + amount

    async def get_expiry(self, key: str) -> float:
        """When a count ends, by the wall clock."""
        return time.time() + max(0.0, self.minutes.get(key, (0, 0.0))[1] - self.clock())

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the window of a user began, and how many requests are in it."""
        now = self.clock()
        times = [one for one in self.times.get(key, ()) if one >= now - expiry]
        return (times[0] if times else now), len(times)

    def _sweep(self, now: float, expiry: int) -> None:
        """Forget users whose last request left the window; at most once in a window's length."""
        if now - self.swept > expiry:
            self.swept = now
            self.times = {
                key: times
                for key, times in self.times.items()
                if times and times[-1] >= now - expiry
            }
            self.minutes = {key: one for key, one in self.minutes.items() if one[1] > now}
