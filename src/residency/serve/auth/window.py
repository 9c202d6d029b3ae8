"""Where requests of users are remembered when one process counts alone: times of a monotonic clock,
for ``limits``' moving window.

The library's own memory looks at every user in a thread after every request (200 users: 0.9 ms of
processor time each) and follows the wall clock, which may be set back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from limits.aio.storage import MemoryStorage


class Memory(MemoryStorage):
    """Remembers the last requests of every user who asked within the window."""

    STORAGE_SCHEME = ["async+residency"]

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock
        self.times: dict[str, deque[float]] = {}
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
