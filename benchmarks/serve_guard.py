"""The guard of the server: what it costs per request, and how it treats an identity provider that
rotates keys, is flooded, hangs or fails.

The provider is a real HTTP server on loopback, in a thread of the same process, whose requests for
keys are counted; deadlines run on a clock that the benchmark moves, delays on the real one. Costs
are processor time (of Redis: time that passes), medians over rounds of one caller after another, in
one process; of the limits layer the time of the bare application is taken off. Redis is the one of
RESIDENCY_TEST_REDIS, on this machine.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from _common import ROOT, parser, report, run, say
from residency.serve.auth import OidcTokens, local_key, make_tokens
from residency.serve.auth.rate import Rate
from residency.serve.limits import Limited, fit
from residency.serve.refusals import Refusal
from residency.serve.settings import LocalKey, Oidc, RequestLimits

sys.path.insert(0, str(ROOT / "tests" / "serve"))
from provider import AUDIENCE, Clock, Provider

MINUTES = 10
COOLDOWN = 10.0
LIMITS = RequestLimits()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--requests", type=int, default=2000, help="per round (default 2,000)")
    options.add_argument("--rounds", type=int, default=9, help="the median counts (default 9)")
    options.add_argument(
        "--ids", type=int, default=10_000, help="invented key ids (default 10,000)"
    )
    given = options.parse_args()
    if given.quick:
        given.requests, given.rounds, given.ids = 50, 2, 200
    provider = Provider()
    try:
        for name in ("old", "new", "third"):
            provider.rsa(name)
        provider.ec("curve")
        later = {name: provider.published.pop(name) for name in ("new", "third")}
        rows = asyncio.run(costs(provider, given.requests, given.rounds))
        rows += asyncio.run(keys(provider, later, given.ids, given.requests))
    finally:
        provider.close()
    for row in rows:
        say(" | ".join(row))
    report("serve_guard", given, ("what", "measured"), rows)


class Server:
    """Tokens of the provider under a moved clock."""

    def __init__(self, provider: Provider) -> None:
        self.provider, self.clock = provider, Clock()
        settings = Oidc(kind="oidc", issuer=provider.issuer, audience=AUDIENCE, cooldown=COOLDOWN)
        self.tokens = OidcTokens(settings, self.clock)

    async def status(self, token: str) -> int:
        try:
            await self.tokens.caller(f"Bearer {token}")
        except Refusal as refusal:
            return refusal.status
        return 200

    async def invented(self) -> int:
        try:
            await self.tokens.keys.find(secrets.token_hex(8))
        except Refusal as refusal:
            return refusal.status
        return 200

    async def settled(self) -> None:
        self.tokens.keys.look()
        if (fetch := self.tokens.keys._fetch) is not None:
            await asyncio.wait({fetch})


async def timed(
    each: Callable[[int], Awaitable[Any]],
    requests: int,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """Median microseconds."""
    found = []
    for _ in range(rounds):
        begun = clock()
        for number in range(requests):
            await each(number)
        found.append((clock() - begun) / requests * 1e6)
    return median(found)


async def costs(provider: Provider, requests: int, rounds: int) -> list[list[str]]:
    server = Server(provider)
    rows = []
    for name, kind in (("old", "RS256, 2,048 bits"), ("curve", "ES256")):
        header = f"Bearer {provider.token(name)}"
        took = await timed(lambda _, said=header: server.tokens.caller(said), requests, rounds)
        rows.append([f"token checked ({kind})", f"{took:,.0f} µs"])
    await server.tokens.close()
    with tempfile.TemporaryDirectory() as folder:
        tokens, header = make_tokens(LocalKey(), Path(folder)), f"Bearer {local_key(Path(folder))}"
        rows.append(
            [
                "key of this machine checked",
                f"{await timed(lambda _: tokens.caller(header), requests, rounds):,.1f} µs",
            ]
        )
    rows.append(
        [
            "request counted in memory, 200 users",
            await rate(RequestLimits(per_second=1_000_000), requests, rounds, time.process_time),
        ]
    )
    if address := os.environ.get("RESIDENCY_TEST_REDIS"):
        limits = RequestLimits(per_second=1_000_000, redis=address)
        rows.append(
            [
                "request counted in Redis, 200 users",
                await rate(limits, requests, rounds, time.perf_counter),
            ]
        )
    rows.append(["sizes checked", f"{await timed(sized, requests, rounds):,.1f} µs"])
    limited = Limited(answering, LIMITS)
    around = await timed(lambda _: limited(SCOPE, receiver(), ignore), requests, rounds)
    bare = await timed(lambda _: answering(SCOPE, receiver(), ignore), requests, rounds)
    return [*rows, ["layer of limits around an application", f"{around - bare:,.0f} µs"]]


async def rate(
    limits: RequestLimits, requests: int, rounds: int, clock: Callable[[], float]
) -> str:
    counted = Rate(limits)
    run_ = secrets.token_hex(4)
    took = await timed(
        lambda number: counted.take(f"{run_}-{number % 200}"), requests, rounds, clock
    )
    await counted.close()
    return f"{took:,.0f} µs"


async def sized(_: int) -> None:
    fit(LIMITS, 400, 1200, 256, 4096)


SCOPE = {"type": "http", "path": "/extract", "headers": [(b"content-length", b"1000")]}


def receiver() -> Callable[[], Awaitable[dict[str, Any]]]:
    """One request's messages: its body, and then a client that stays."""
    given = False

    async def receive() -> dict[str, Any]:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": b"x" * 1000}

    return receive


async def ignore(_: Any) -> None:
    pass


async def answering(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def keys(
    provider: Provider, later: dict[str, Any], ids: int, requests: int
) -> list[list[str]]:
    server = Server(provider)
    token = provider.token("old")
    assert await server.status(token) == 200
    rows = [
        await rotated(server, later),
        await flood(server, ids),
        await rotated_in_flood(server, later),
    ]
    rows += [
        await hanging(server, token, requests),
        await outage(server, token),
        await withdrawn(server, token),
    ]
    await server.tokens.close()
    return rows


async def rotated(server: Server, later: dict[str, Any]) -> list[str]:
    server.provider.published["new"] = later["new"]
    token, begun = server.provider.token("new"), time.perf_counter()
    status = await server.status(token)
    took = (time.perf_counter() - begun) * 1000
    return ["rotated key: its first token", f"{status} after {took:.1f} ms"]


async def flood(server: Server, ids: int) -> list[str]:
    """Invented ids through ten cooldowns, as many in each."""
    server.clock.now += COOLDOWN
    counts, accepted = [], 0
    for _ in range(10):
        before = server.provider.fetches
        for _ in range(ids // 100):
            statuses = await asyncio.gather(*(server.invented() for _ in range(100)))
            accepted += statuses.count(200)
        counts.append(server.provider.fetches - before)
        server.clock.now += COOLDOWN
    assert not accepted
    return [
        f"fetches in a cooldown with {ids:,} invented key ids, ten cooldowns",
        f"{min(counts)} to {max(counts)}",
    ]


async def rotated_in_flood(server: Server, later: dict[str, Any]) -> list[str]:
    """The worst moment: right after the flood had its fetch."""
    await server.invented()
    server.provider.published["third"] = later["third"]
    token, begun = server.provider.token("third"), server.clock.now
    for tenth in range(1, 601):
        if await server.status(token) == 200:
            break
        server.clock.now = begun + tenth / 10
        await server.invented()
    return ["rotated key during a flood: accepted after", f"{server.clock.now - begun:.1f} s"]


async def hanging(server: Server, token: str, requests: int) -> list[str]:
    """Known tokens while the endpoint hangs and 50 strangers wait for it."""
    await server.settled()
    server.provider.hang = threading.Event()
    server.clock.now += 200
    server.tokens.keys.look()
    strangers = [asyncio.create_task(server.invented()) for _ in range(50)]
    delays = []
    for _ in range(requests):
        begun = time.perf_counter()
        assert await server.status(token) == 200
        delays.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0)
    assert server.tokens.keys._fetch is not None
    server.provider.hang.set()
    server.provider.hang = None
    await asyncio.gather(*strangers)
    return [
        "known key while the endpoint hangs: p50, longest",
        f"{median(delays):.2f} ms, {max(delays):.1f} ms",
    ]


async def outage(server: Server, token: str) -> list[str]:
    server.clock.now += COOLDOWN
    await server.settled()
    server.provider.status, before, refused = 503, server.tokens.keys.fetches, 0
    for _ in range(MINUTES * 60):
        server.clock.now += 1
        await server.settled()
        refused += await server.status(token) != 200
    asked = server.tokens.keys.fetches - before
    server.provider.status = 200
    server.clock.now += COOLDOWN
    await server.settled()
    return [
        f"outage of {MINUTES} minutes, a request a second: refused, fetches tried",
        f"{refused}, {asked}",
    ]


async def withdrawn(server: Server, token: str) -> list[str]:
    """The worst moment: right after a fetch."""
    server.provider.withdraw("old")
    begun = server.clock.now
    while await server.status(token) == 200 and server.clock.now - begun < 3600:
        server.clock.now += 1
        await server.settled()
    return ["withdrawn key: refused after (promised: 300 s)", f"{server.clock.now - begun:.0f} s"]


if __name__ == "__main__":
    run(main)
