"""What 2,000 requests leave behind in the server's memory."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serve_tools import LONG, NOTE, Started

REQUESTS = int(os.environ.get("REQUESTS", "2000"))
WARM = 400
"""Requests in which everything is asked for the first time."""
MOST = 0.05
ALWAYS = {"limits.per_second": 100_000, "limits.minute_tokens": 10**9, "limits.body_bytes": 8192}
DOSE = {"type": "object", "properties": {"mg": {"type": "integer", "minimum": 1, "maximum": 9}}}
FORM = {"type": "json_schema", "json_schema": {"name": "dose", "schema": DOSE}}


def body(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """A request of any kind: no two notes or questions are equal."""
    text = f"{chance.getrandbits(40):x} " + " ".join(
        chance.sample(NOTE.split(), chance.randint(3, 12))
    )
    chat = {"model": "words", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
    kinds: list[tuple[str, dict[str, Any]]] = [
        *[("/extract", {"text": text, "model": "ner"})] * 6,
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", chat | {"stream": True}),
        ("/v1/chat/completions", chat | {"temperature": 1, "seed": 1, "response_format": FORM}),
        ("/extract", {"text": text, "model": text[:10]}),
        ("/extract", {"text": text * 500, "model": "ner"}),
        (f"/patients/{text[:10]}", {}),
    ]
    return chance.choice(kinds)


def ask(server: Started, seed: int, count: int, heard: Counter[int]) -> None:
    chance = random.Random(seed)
    headers = dict(server.client.headers)
    with httpx2.Client(base_url=server.address, headers=headers, timeout=LONG) as client:
        for _ in range(count):
            path, sent = body(chance)
            heard[client.post(path, json=sent).status_code] += 1


def after(server: Started, count: int, seed: int) -> tuple[int, Counter[int]]:
    """The server's resident bytes once eight clients have asked so often in all, and what they
    heard."""
    heard = [Counter[int]() for _ in range(8)]
    threads = [
        threading.Thread(target=ask, args=(server, 8 * seed + number, count // 8, one))
        for number, one in enumerate(heard)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024, sum(heard, Counter[int]())


@pytest.mark.server
def test_two_thousand_requests_leave_no_memory_behind(
    start: Callable[..., Started], artefacts: dict[str, Path]
) -> None:
    served = [f"{name}={artefacts[name]}" for name in ("ner", "words")]
    server = start(*served, *(f"{name}={value}" for name, value in ALWAYS.items()))
    before, _ = after(server, WARM, 0)
    then, heard = after(server, REQUESTS, 1)
    print(f"{before / 1e6:.0f} MB, then {then / 1e6:.0f} MB: {then / before - 1:+.1%}; {heard}")
    assert heard.total() == REQUESTS and {200, 404, 413} <= heard.keys() and not heard[500]
    assert then < before * (1 + MOST)
