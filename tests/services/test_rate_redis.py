"""Rates counted in a real Redis: processes share one count, a Redis that is killed lets nobody
through, and nothing of a user is in it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from real_servers import needed

from residency.serve import Refusal
from residency.serve.auth.rate import Rate
from residency.serve.settings import RequestLimits

WORKER = """
import asyncio, json, sys, time
from residency.serve.auth.rate import Rate
from residency.serve.settings import RequestLimits
from residency.serve import Refusal

async def main(address, user):
    rate, taken, refused = Rate(RequestLimits(redis=address), workers=2), [], 0
    await rate.ready()
    print("ready", flush=True)
    until = float(sys.stdin.readline())
    while time.time() < until:
        asked = time.time()
        try:
            await rate.take(user)
            taken.append((asked, time.time()))
        except Refusal as refusal:
            assert refusal.status == 429, refusal.code
            refused += 1
        await asyncio.sleep(0.01)
    await rate.close()
    print(json.dumps({"taken": taken, "refused": refused}))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def test_two_processes_share_one_count() -> None:
    address = needed("RESIDENCY_TEST_REDIS")
    command = [sys.executable, "-c", WORKER, address, f"user-{time.time_ns()}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    workers = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    until = f"{time.time() + 6}\n"  # when both have come up
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(until)
        worker.stdin.flush()
    found = [json.loads(worker.communicate()[0]) for worker in workers]
    assert all(one["refused"] for one in found)
    assert all(one["taken"] for one in found)  # both took part
    taken = sorted(pair for one in found for pair in one["taken"])
    assert len(taken) >= 10
    for first, sixth in zip(taken, taken[5:], strict=False):
        assert (
            sixth[1] - first[0] > 1.0
        )  # from the first's question to the sixth's answer, whatever lay between


@contextmanager
def redis(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    program = shutil.which("redis-server") or pytest.fail("redis-server is not installed")
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def status(rate: Rate, user: str) -> int:
    try:
        await rate.take(user)
    except Refusal as refusal:
        return refusal.status
    return 200


async def up(rate: Rate) -> None:
    for _ in range(2000):
        if await rate.ready():
            return
        await asyncio.sleep(0.05)
    pytest.fail("Redis did not come up")


def test_a_killed_redis_is_503_until_it_is_back(tmp_path: Path) -> None:
    needed("RESIDENCY_TEST_REDIS")
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def play() -> None:
        rate = Rate(RequestLimits(redis=f"redis://127.0.0.1:{port}/0"), workers=2)
        with redis(tmp_path, port):
            await up(rate)
            assert (
                await asyncio.gather(*(status(rate, f"user-{n}") for n in range(20))) == [200] * 20
            )
        begun = time.perf_counter()
        assert await asyncio.gather(*(status(rate, f"user-{n}") for n in range(20))) == [503] * 20
        assert time.perf_counter() - begun < 20
        assert not await rate.ready()
        with redis(tmp_path, port):
            await up(rate)
            assert (
                await asyncio.gather(*(status(rate, f"user-{n}") for n in range(20))) == [200] * 20
            )
            statuses = [await status(rate, "one") for _ in range(8)]
            assert statuses == [200] * 5 + [429] * 3
        await rate.close()

    asyncio.run(play())


def test_a_stopped_redis_is_503_in_bounded_time_and_goes_on(tmp_path: Path) -> None:
    """Stopped, not killed: its port still accepts, nothing answers."""
    needed("RESIDENCY_TEST_REDIS")
    import signal
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def play() -> None:
        rate = Rate(RequestLimits(redis=f"redis://127.0.0.1:{port}/0"), workers=2)
        with redis(tmp_path, port) as process:
            await up(rate)
            assert await status(rate, "user") == 200
            process.send_signal(signal.SIGSTOP)
            begun = time.perf_counter()
            assert (
                await asyncio.gather(*(status(rate, f"user-{n}") for n in range(20))) == [503] * 20
            )
            assert time.perf_counter() - begun < 20
            process.send_signal(signal.SIGCONT)
            await up(rate)
            assert await status(rate, "other") == 200
        await rate.close()

    asyncio.run(play())
