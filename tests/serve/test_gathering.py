"""Who asks alone is not kept waiting for others; those who come together are computed together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from residency.serve.engines.in_process import Batcher

EVER = 3600.0
"""Seconds that no test waits."""


def test_one_alone_is_computed_at_once_and_several_gather() -> None:
    sizes = list[int]()

    def compute(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return [2 * item for item in items]

    async def asked() -> None:
        with ThreadPoolExecutor(1) as pool:
            batch: Batcher[int, int] = Batcher(compute, pool, EVER, 4)
            assert await batch(1) == 2 and await batch(2) == 4
            assert await asyncio.gather(*map(batch, range(3))) == [0, 2, 4]
            assert sizes == [1, 1, 1, 2], "the others gathered while the first was computed"
            one = asyncio.ensure_future(batch(7))
            assert not (await asyncio.wait([one], timeout=0.05))[0], "after several, one waits"
            assert await asyncio.gather(one, *map(batch, range(3))) == [14, 0, 2, 4]
            assert sizes[4:] == [4]

    asyncio.run(asyncio.wait_for(asked(), 60))
