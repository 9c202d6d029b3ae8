"""One user's work does not hold up another's: measured with real requests (SECONDS=60 at rest), and the
rule by itself."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx2
import pytest
from provider import Provider
from serve_tools import Started

from residency.core.types import Turn
from residency.serve.engines import ASKER, WritingRequest

SMALL = {
    "model": "words",
    "messages": [{"role": "user", "content": "Gan?"}],
    "max_tokens": 16,
}
PROMPTS = [list(range(100, 132))] * 16
HEAVIEST = (
    ("/v1/chat/completions", SMALL | {"max_tokens": 500, "n": 16, "temperature": 1}),
    ("/v1/completions", {"model": "words", "prompt": PROMPTS, "max_tokens": 480}),
    (
        "/v1/completions",
        {"model": "words", "prompt": PROMPTS, "max_tokens": 0, "echo": True, "logprobs": 5},
    ),
)
"""As much as one request may ask for: 8,192 tokens written to one prompt and to 16, 512 scored."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    made.rsa("one")
    yield made
    made.close()


@pytest.mark.server
@pytest.mark.sample
@pytest.mark.timeout(1200)
@pytest.mark.skipif("SECONDS" not in os.environ, reason="a measurement: SECONDS=60 at rest")
def test_small_requests_beside_the_heaviest_take_three_times_as_long_at_most(
    artefacts: dict[str, Path], tmp_path: Path, provider: Provider
) -> None:
    seconds, heard = float(os.environ["SECONDS"]), Counter[int]()
    how = [f"auth.issuer={provider.issuer}", f"auth.jwks={provider.jwks}", "auth.kind=oidc"]
    server = Started(tmp_path, f"words={artefacts['words']}", *how, "auth.audience=residency")
    clients = {
        user: httpx2.Client(
            base_url=server.address,
            headers={"Authorization": f"Bearer {provider.token('one', sub=user, exp=2**40)}"},
            timeout=90,
            trust_env=False,
        )
        for user in ("small", "heavy")
    }

    def small(most: float) -> list[float]:
        """Seconds of each request, one after the other."""
        times, until = list[float](), time.monotonic() + most
        while time.monotonic() < until:
            begun = time.perf_counter()
            answer = clients["small"].post("/v1/chat/completions", json=SMALL)
            times.append(time.perf_counter() - begun)
            assert answer.status_code == 200, answer.text
            time.sleep(0.2)  # five a second are allowed
        return times

    def heavy(ended: threading.Event, numbers: Any) -> None:
        while not ended.is_set():
            path, body = HEAVIEST[next(numbers) % len(HEAVIEST)]
            try:
                answer = clients["heavy"].post(path, json=body)
                heard[answer.status_code] += 1
            except httpx2.HTTPError:
                heard[0] += 1
            time.sleep(0.2 if answer.status_code < 400 else 1)

    try:
        small(3)
        alone, numbers, ended = small(seconds / 3), count(), threading.Event()
        threads = [threading.Thread(target=heavy, args=(ended, numbers)) for _ in range(12)]
        for one in threads:
            one.start()
        time.sleep(2)
        beside = small(seconds)
        ended.set()
        for one in threads:
            one.join(120)
        alone += small(seconds / 3)
    finally:
        for client in clients.values():
            client.close()
        server.client.close()
        server.end()
    p95 = [quantiles(times, n=20)[-1] for times in (alone, beside)]
    print(f"{len(alone)}, {len(beside)} requests, p95 {p95[0]:.3f}, {p95[1]:.3f} s; heavy {heard}")
    assert p95[1] <= 3 * p95[0]


async def written(engine: Any, user: str, most: int, seed: int = 0) -> tuple[str, float]:
    """An answer that a user asks for, and when it ended."""
    ASKER.set(user)
    turns = (Turn(role="user", text="Gan?"),)
    asked = WritingRequest(turns=turns, max_tokens=most, temperature=1.0, seed=seed, whole=True)
    pieces = [piece async for piece in engine.write(asked)]
    return "".join(piece.text for piece in pieces), time.perf_counter()


def test_who_asks_for_little_does_not_wait_for_who_asks_for_much(engines: dict[str, Any]) -> None:
    engine = engines["words"]

    async def all_of() -> tuple[Any, Any, list[Any]]:
        async with asyncio.TaskGroup() as group:
            much = [group.create_task(written(engine, "much", 60, seed)) for seed in range(40)]
            await asyncio.sleep(0.05)
            little = group.create_task(written(engine, "little", 8, 7))
        alone = await written(engine, "little", 8, 7)
        return little.result(), alone, [one.result() for one in much]

    little, alone, much = asyncio.run(all_of())
    assert little[0] == alone[0], "company changes nothing of an answer"
    # the 32 rows that fill a common batch end one soon after the other: who waits for a place
    # among them ends behind the half of all
    assert little[1] < median(ended for _, ended in much)
    while engine.writing.running:  # the step that told the last one ends behind it
        time.sleep(0.01)
    assert not engine.writing.common.everything


def test_scores_of_many_prompts_do_not_hold_up_an_answer(engines: dict[str, Any]) -> None:
    engine = engines["words"]

    async def scored() -> float:
        ASKER.set("much")
        await engine.score(list(range(100, 500)))
        return time.perf_counter()

    async def all_of() -> tuple[float, list[float]]:
        async with asyncio.TaskGroup() as group:
            much = [group.create_task(scored()) for _ in range(30)]
            await asyncio.sleep(0.01)
            little = group.create_task(written(engine, "little", 8))
        return little.result()[1], sorted(one.result() for one in much)

    little, much = asyncio.run(all_of())
    assert little < much[-1]
