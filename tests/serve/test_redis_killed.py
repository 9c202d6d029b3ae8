"""A Redis that is killed under a server with two workers: each answer is right, 429 or 503; none is
uncounted; it comes back by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from serve_tools import LONG, NEEDS_REDIS, NOTE, Redis, Started, Threads

RATE = 5
BACK_SECONDS = 60.0
"""In which requests are counted again once Redis takes connections: two where the machine is at rest."""
pytestmark = [pytest.mark.server, NEEDS_REDIS]


class Row(NamedTuple):
    """A request and its answer; times of one clock."""

    asked: float
    answered: float
    status: int
    body: Any
    again: str | None


class Load(Threads):
    """One user asks without end, on connections of their own, so that both workers are asked."""

    def __init__(self, server: Started, threads: int = 6, pause: float = 0.05) -> None:
        super().__init__(threads)
        self.server, self.pause = server, pause
        self.rows: list[Row] = []

    def ask(self) -> None:
        headers = dict(self.server.client.headers)
        while not self.stop.wait(self.pause):
            asked = time.monotonic()
            with httpx2.Client(
                base_url=self.server.address, headers=headers, timeout=LONG, trust_env=False
            ) as client:
                found = client.post("/extract", json={"text": NOTE})
            row = Row(
                asked,
                time.monotonic(),
                found.status_code,
                found.json(),
                found.headers.get("retry-after"),
            )
            self.rows.append(row)


def probe(server: Started) -> tuple[int, bool]:
    found = httpx2.get(f"{server.address}/readyz", timeout=LONG)
    return found.status_code, found.json()["counting"]


def within_the_rate(rows: list[Row]) -> None:
    """From the question of any accepted request to the answer of the fifth accepted after it more
    than a second passes."""
    taken = sorted(row for row in rows if row.status == 200)
    for first, sixth in zip(taken, taken[RATE:], strict=False):
        assert sixth.answered - first.asked > 1.0, "more than five in a second"


def test_killed_and_started_again_under_load(
    redis: Redis,
    start: Callable[..., Started],
    artefacts: dict[str, Path],
    record_property: Callable[..., None],
) -> None:
    server = start(
        str(artefacts["ner"]),
        "workers=2",
        f"limits.redis=redis://127.0.0.1:{redis.port}",
        f"limits.per_second={RATE}",
    )
    right = server.client.post("/extract", json={"text": NOTE}).json()
    time.sleep(1.2)
    with Load(server) as load:
        time.sleep(3)
        killed = time.monotonic()
        redis.kill()
        dead = time.monotonic()
        assert probe(server) == (503, False)
        server.until(lambda: len([row for row in load.rows if row.asked > dead]) > 40)
        assert probe(server) == (503, False)
        begun = time.monotonic()
        redis.begin()
        up = redis.up()
        server.until(lambda: probe(server) == (200, True), BACK_SECONDS)
        ready = time.monotonic()
        server.until(lambda: len([row for row in load.rows if row.asked > ready]) > 60)
        time.sleep(3)
    rows = sorted(load.rows)
    assert {row.status for row in rows} == {200, 429, 503}, "never 500, never without an answer"
    assert all(row.body == right for row in rows if row.status == 200)
    refused = [row for row in rows if row.status == 503]
    assert {row.body["error"]["code"] for row in refused} == {"rate_unavailable"} and all(
        row.again for row in refused
    )
    assert max(row.answered - row.asked for row in refused) < BACK_SECONDS
    down = [row for row in rows if row.asked > dead and row.answered < begun]
    assert len(down) > 20 and {row.status for row in down} == {503}, (
        "nothing is let through uncounted"
    )
    assert {row.status for row in rows if row.answered < killed} == {200, 429}
    back = min(row.answered for row in rows if row.status == 200 and row.asked > dead) - up
    assert back < BACK_SECONDS
    after = [row for row in rows if row.asked > ready]
    assert {row.status for row in after} == {200, 429}, (
        "from readiness on nothing is refused for want of Redis"
    )
    for late in (row for row in after if row.status == 429):
        counted = [r for r in rows if r.answered > late.asked - 1 and r.asked < late.answered]
        assert sum(row.status == 200 for row in counted) >= RATE, "and as many as may are let in"
    within_the_rate(rows)
    chains = [path.read_text() for path in (server.folder / "serve").glob("audit-*.jsonl")]
    assert len(chains) == 2 and all(
        '"status":503' in one and '"status":200' in one for one in chains
    ), "both took part"
    assert sum(one.count('"route":"/extract","status":200') for one in chains) == 1 + len(
        [row for row in rows if row.status == 200]
    )
    record_property("seconds until the first right answer", round(back, 3))
    print(
        f"{len(rows)} requests, {len(refused)} refused; first right answer {back:.2f} s, ready "
        f"{ready - up:.2f} s after Redis was up"
    )


def test_a_redis_that_is_back_at_once_has_forgotten_and_so_must_wait(
    redis: Redis, start: Callable[..., Started], artefacts: dict[str, Path]
) -> None:
    server = start(
        str(artefacts["ner"]),
        "workers=2",
        f"limits.redis=redis://127.0.0.1:{redis.port}",
        f"limits.per_second={RATE}",
    )
    with Load(server, pause=0.01) as load:
        for _ in range(4):
            time.sleep(1.2)  # many more than five are asked in each second: the window is full
            redis.kill()
            redis.begin()
            redis.up()
            server.until(lambda: probe(server) == (200, True), BACK_SECONDS)
        time.sleep(1.5)
    assert {row.status for row in load.rows} == {200, 429, 503}
    within_the_rate(load.rows)
