"""Asks a server on loopback, in a process of its own: HTTP/1.1 over kept connections, nothing but
sockets, so that it takes little of the machine.

  closed   ``clients`` that each ask again as soon as they are answered
  open     ``rate`` requests a second, gaps exponential, whatever the answers do
  paced    each user asks, waits 1 / ``rate`` s, asks again, whatever the answers do
  clock    each user asks at the ticks of a clock, ``rate`` a second, late or not
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

Answer = tuple[int, float, float, int]
"""User, time of sending, time of the whole answer (both of the wall clock), status."""


class Client:
    """Connections of one user, as many as he has requests under way."""

    def __init__(self, plan: dict[str, Any], user: int) -> None:
        self.port, self.user, self.number = plan["port"], user, user
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        head = "POST /extract HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        if tokens := plan.get("tokens"):
            head += f"Authorization: Bearer {tokens[user % len(tokens)]}\r\n"
        bodies = [json.dumps({"text": text}) for text in plan["texts"]]
        self.messages = [f"{head}Content-Length: {len(b)}\r\n\r\n{b}".encode() for b in bodies]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self) -> Answer:
        """One request, answered whole; status 0: the connection broke."""
        sent = time.time()
        pair = self.free.pop() if self.free else await self.connect()
        reader, writer = pair
        self.number += 7
        try:
            writer.write(self.messages[self.number % len(self.messages)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return self.user, sent, time.time(), 0
        self.free.append(pair)
        return self.user, sent, time.time(), int(head.split(b" ", 2)[1])


async def _closed(client: Client, until: float) -> list[Answer]:
    found = []
    while time.time() < until:
        found.append(await client.ask())
    return found


async def _timed(client: Client, until: float, plan: dict[str, Any]) -> list[Answer]:
    rng, rate, kind = random.Random(f"{plan.get('seed')}/{client.user}"), plan["rate"], plan["kind"]
    first = rng.random() / rate
    tasks, due = [], time.time() + first
    await asyncio.sleep(first)
    while time.time() < until:
        tasks.append(asyncio.create_task(client.ask()))
        gap = rng.expovariate(rate) if kind == "open" else 1 / rate
        due += gap
        await asyncio.sleep(gap if kind == "paced" else max(0.0, due - time.time()))
    return list(await asyncio.gather(*tasks))


async def _played(plan: dict[str, Any]) -> list[Answer]:
    clients = [Client(plan, user) for user in range(plan["clients"])]
    for client in clients * plan.get("connections", 1):  # before the clock runs
        client.free.append(await client.connect())
    until, closed = time.time() + plan["seconds"], plan["kind"] == "closed"
    each = [_closed(c, until) if closed else _timed(c, until, plan) for c in clients]
    return [answer for found in await asyncio.gather(*each) for answer in found]


def play(plan: dict[str, Any]) -> list[Answer]:
    """Ask as planned."""
    import uvloop

    return uvloop.run(_played(plan))
