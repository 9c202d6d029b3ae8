"""Asks a server on loopback, in a process of its own: HTTP/1.1 over kept connections, nothing but
sockets, so that it takes little of the machine.

A plan (JSON) on standard input; on standard output a list of [user, sent, answered, status], times
in seconds of the wall clock.

  closed   ``clients`` that each ask again as soon as they are answered
  open     ``rate`` requests a second, gaps exponential, whatever the answers do
  paced    each user asks, waits 1 / ``rate`` s, asks again, whatever the answers do
  clock    each user asks at the ticks of a clock, ``rate`` a second, late or not
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

import uvloop

Answer = tuple[int, float, float, int]


class Client:
    """Connections of one user, as many as he has requests under way."""

    def __init__(self, plan: dict[str, Any], user: int) -> None:
        self.plan, self.user, self.number = plan, user, user
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        head = (
            f"POST /extract HTTP/1.1\r\nHost: 127.0.0.1:{plan['port']}\r\nContent-Type: "
            "application/json\r\n"
        )
        tokens = plan.get("tokens", [])
        if tokens:
            head += f"Authorization: Bearer {tokens[user % len(tokens)]}\r\n"
        self.messages = [
            f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
            for body in (json.dumps({"text": text}).encode() for text in plan["texts"])
        ]

    async def connect(self, count: int) -> None:
        """So many connections, opened before the clock runs."""
        for _ in range(count):
            self.free.append(await asyncio.open_connection("127.0.0.1", self.plan["port"]))

    async def ask(self) -> Answer:
        """One request, answered whole; status 0: the connection broke."""
        sent = time.time()
        pair = (
            self.free.pop()
            if self.free
            else await asyncio.open_connection("127.0.0.1", self.plan["port"])
        )
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


async def closed(plan: dict[str, Any], clients: list[Client], until: float) -> list[Answer]:
    async def one(client: Client) -> list[Answer]:
        found = []
        while time.time() < until:
            found.append(await client.ask())
        return found

    return [answer for found in await asyncio.gather(*map(one, clients)) for answer in found]


async def paced(plan: dict[str, Any], clients: list[Client], until: float) -> list[Answer]:
    rng, rate, kind = random.Random(plan.get("seed", 0)), plan["rate"], plan["kind"]

    async def one(client: Client, first: float) -> list[Answer]:
        tasks, due = [], time.time() + first
        await asyncio.sleep(first)
        while time.time() < until:
            tasks.append(asyncio.create_task(client.ask()))
            gap = rng.expovariate(rate) if kind == "open" else 1 / rate
            due += gap
            await asyncio.sleep(gap if kind == "paced" else max(0.0, due - time.time()))
        return list(await asyncio.gather(*tasks))

    found = await asyncio.gather(*(one(client, rng.random() / rate) for client in clients))
    return [answer for each in found for answer in each]


async def main() -> None:
    plan = json.loads(sys.stdin.read())
    clients = [Client(plan, user) for user in range(plan["clients"])]
    for client in clients:
        await client.connect(plan.get("connections", 1))
    play = closed if plan["kind"] == "closed" else paced
    print(json.dumps(await play(plan, clients, time.time() + plan["seconds"])))


if __name__ == "__main__":
    uvloop.run(main())
