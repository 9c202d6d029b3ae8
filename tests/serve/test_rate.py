"""Requests of a user in any second: never more than allowed, counted in memory (several workers:
tests/services/test_rate_redis.py)."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residency.core.errors import UserError
from residency.serve import Refusal
from residency.serve.auth.rate import Rate
from residency.serve.settings import RequestLimits

PER_SECOND = 5


async def accepted(rate: Rate, user: str) -> bool:
    try:
        await rate.take(user)
    except Refusal as refusal:
        assert (refusal.status, refusal.code, refusal.retry_after) == (429, "rate_limit", 1.0)
        return False
    return True


def most_in_a_second(times: list[float]) -> int:
    """The most of sorted times in any window of one second, both of its ends included."""
    return max(
        (sum(1 for other in times if start <= other <= start + 1.0) for start in times), default=0
    )


def test_the_window_is_counted_as_by_hand() -> None:
    assert most_in_a_second([0.0, 0.5, 1.0, 1.1, 1.6]) == 3
    assert most_in_a_second([0.0, 0.5, 1.0, 1.4, 1.5]) == 4


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from([0.0, 0.001, 0.05, 0.199, 0.2, 0.201, 0.5, 0.999, 1.0, 1.001]), max_size=80
    )
)
def test_never_more_than_allowed_in_any_second_and_never_less(steps: list[float]) -> None:
    """Whatever the times: at most five in any second, and a request is refused only where five lie
    in the second before it."""

    async def play() -> None:
        now = 1_000_000.0
        rate = Rate(RequestLimits(per_second=PER_SECOND), clock=lambda: now)
        taken: list[tuple[float, float]] = []
        for step in steps:
            now += step
            before = sum(1 for other in taken if other >= now - 1.0)
            assert await accepted(rate, "user") == (before < PER_SECOND)
            if before < PER_SECOND:
                taken.append(now)
        assert most_in_a_second(taken) <= PER_SECOND

    asyncio.run(play())


def test_users_who_left_are_forgotten() -> None:
    async def play() -> None:
        now = 50.0
        rate = Rate(RequestLimits(), clock=lambda: now)
        for number in range(10_000):
            now += 0.001
            assert await accepted(rate, f"user-{number}")
        assert len(rate.storage.times) <= 2100  # type: ignore[attr-defined]  # those of the last two seconds
        reset, left = await rate.window.get_window_stats(rate.item, "user-9999")
        assert (round(reset, 3), left) == (61.0, 4)

    asyncio.run(play())


def test_never_more_than_allowed_in_any_second_of_real_time() -> None:
    async def play() -> list[tuple[float, float]]:
        rate = Rate(RequestLimits(per_second=PER_SECOND))
        taken: list[tuple[float, float]] = []
        while len(taken) < 3 * PER_SECOND:  # 0, 1 and 2 s
            asked = time.time()
            answers = await asyncio.gather(*(accepted(rate, "user") for _ in range(3)))
            taken += [(asked, time.time())] * sum(answers)
            await asyncio.sleep(0.005)
        return taken

    taken = asyncio.run(play())
    for first, sixth in zip(taken, taken[PER_SECOND:], strict=False):
        assert sixth[1] - first[0] > 1.0  # from question to answer, whatever lay between


def test_users_do_not_count_for_each_other() -> None:
    async def play() -> None:
        rate = Rate(RequestLimits(per_second=2))
        assert [await accepted(rate, user) for user in "aababbc"] == [
            True,
            True,
            True,
            False,
            True,
            False,
            True,
        ]

    asyncio.run(play())


def test_several_workers_need_redis() -> None:
    with pytest.raises(UserError, match=r"limits\.redis"):
        Rate(RequestLimits(), workers=2)
    for address in ("http://127.0.0.1/", "127.0.0.1:6379", "memory://"):
        with pytest.raises(UserError, match=r"limits\.redis"):
            Rate(RequestLimits(redis=address), workers=2)


def test_a_redis_that_is_not_there_is_503_and_not_uncounted() -> None:
    async def play() -> None:
        rate = Rate(RequestLimits(redis="redis://:secret@127.0.0.1:1/0"), workers=2)
        begun = time.perf_counter()
        with pytest.raises(Refusal) as refusal:
            await rate.take("user")
        assert (refusal.value.status, refusal.value.retry_after) == (503, 1.0)
        assert "secret" not in refusal.value.sentence
        assert time.perf_counter() - begun < 20  # a busy machine; it would never answer by itself
        assert not await rate.ready()
        await rate.close()

    asyncio.run(play())


@pytest.mark.parametrize("fault", [RuntimeError("closed"), AttributeError("at_eof")], ids=repr)
def test_whatever_breaks_while_it_is_asked_is_503(fault: Exception) -> None:
    async def broken() -> bool:
        raise fault

    async def all_of() -> None:
        rate = Rate(RequestLimits(redis="redis://127.0.0.1:1"))
        with pytest.raises(Refusal) as refusal:
            await rate._counted(broken())
        assert refusal.value.status == 503
        asked = asyncio.ensure_future(asyncio.sleep(9))
        asyncio.get_running_loop().call_later(0.01, asked.cancel)
        with pytest.raises(Refusal):
            await rate._counted(asked)  # type: ignore[arg-type]

    asyncio.run(all_of())


def test_a_redis_that_hangs_is_503_in_bounded_time() -> None:
    async def play() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1024):
                pass
            writer.close()

        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        rate = Rate(RequestLimits(redis=f"redis://127.0.0.1:{port}/0"))
        begun = time.perf_counter()
        with pytest.raises(Refusal) as refusal:
            await rate.take("user")
        assert refusal.value.status == 503
        assert time.perf_counter() - begun < 20  # a busy machine; it would never answer by itself
        assert not await rate.ready()
        await rate.close()
        server.close()

    asyncio.run(play())
