"""Limits of a request around an application: by messages, and through a real server with real
connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import uvicorn
from serve_tools import LONG

from residency.serve import Refusal
from residency.serve import limits as limits_module
from residency.serve.limits import App, HeadInTime, Limited
from residency.serve.settings import RequestLimits

BODY = 2048


class Told:
    """What an application was told, and did."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.cancelled = 0
        self.bodies: list[bytes] = []
        self.release = asyncio.Event()
        self.problems: list[BaseException] = []


def application(told: Told) -> App:
    """Echoes; ``/slow`` waits to be released; ``/stream`` writes events until then; ``/crash``,
    ``/refuse``, ``/half`` and ``/silent`` fail."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.begun += 1
        try:
            await handler(scope["path"], await receive(), send)
            told.ended += 1
        except asyncio.CancelledError:
            told.cancelled += 1
            raise

    async def handler(path: str, message: Any, send: Any) -> None:
        told.bodies.append(message["body"])
        path = path.removeprefix("/v1")
        if path == "/crash":
            raise ValueError("NGUYEN VAN A")
        if path == "/refuse":
            raise Refusal(429, "rate_limit", "Too often.", 1.0)
        if path == "/silent":
            return
        if path == "/slow":
            await told.release.wait()
        kind = b"text/event-stream" if path == "/stream" else b"application/json"
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]}
        )
        if path == "/half":
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            raise ValueError("NGUYEN VAN A")
        if path == "/stream":
            while not told.release.is_set():
                await send(
                    {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True}
                )
                await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"{}"})
        if path == "/after":
            await told.release.wait()

    return app


@asynccontextmanager
async def served(
    told: Told, **limits: Any
) -> AsyncIterator[tuple[httpx2.AsyncClient, Limited, int]]:
    """A real server on loopback with a client of it."""
    limited = Limited(
        application(told),
        RequestLimits(**{"body_bytes": BODY} | limits),
        crashed=told.problems.append,
    )
    config = uvicorn.Config(
        limited, http=HeadInTime, port=0, lifespan="off", log_level="critical", access_log=False
    )
    server = uvicorn.Server(config)
    with config_socket(config) as socket:
        task = asyncio.create_task(server._serve([socket]))
        while not server.started:
            await asyncio.sleep(0.01)
        port = socket.getsockname()[1]
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=LONG
        ) as client:
            yield client, limited, port
        told.release.set()
        server.should_exit = True
        await asyncio.wait_for(task, LONG)


def config_socket(config: uvicorn.Config) -> Any:
    import socket

    made = socket.create_server(("127.0.0.1", 0))
    config.load()
    return made


def run(play: Callable[..., Awaitable[None]], **limits: Any) -> Told:
    async def whole() -> Told:
        told = Told()
        async with served(told, **limits) as (client, limited, port):
            await asyncio.wait_for(play(told, client, limited, port), LONG)
        return told

    return asyncio.run(whole())


async def until(true: Callable[[], bool], seconds: float = LONG) -> None:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, "it did not happen"
        await asyncio.sleep(0.005)


def test_a_body_within_the_limit_arrives_whole() -> None:
    async def play(told: Told, client: Any, *_: Any) -> None:
        assert (await client.post("/", content=b"x" * BODY)).json() == {}
        assert told.bodies == [b"x" * BODY]

    run(play)


@pytest.mark.parametrize("size", [BODY + 1, 1_000_000, 9_000_000])
@pytest.mark.parametrize("declared", [True, False])
def test_a_larger_body_is_413_and_never_reaches_the_application(size: int, declared: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, size, 50_000):
            yield b"x" * min(50_000, size - at)

    async def play(told: Told, client: Any, *_: Any) -> None:
        headers = {"content-length": str(size)} if declared else {}
        try:
            answer = await client.post("/v1/x", content=pieces(), headers=headers)
        except httpx2.TransportError:  # beyond what is read away, the connection may end first
            assert size > 8_388_608
        else:
            assert answer.status_code == 413
            assert answer.headers["connection"] == "close"
            assert answer.json()["error"]["code"] == "body_too_large"
            assert str(BODY) in answer.json()["error"]["message"]
        assert told.begun == 0
        assert (await client.get("/")).status_code == 200

    run(play)


def test_a_body_that_does_not_come_is_408() -> None:
    async def play(told: Told, client: Any, limited: Limited, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
        assert b" 408 " in await reader.readline()
        writer.close()
        assert told.begun == 0
        assert limited.reading == 0

    run(play, seconds=0.2)


@pytest.mark.parametrize("head", [b"", b"POST / HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_does_not_come_ends_its_connection(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the second one of a connection."""
    monkeypatch.setattr(limits_module, "HEADER_SECONDS", 0.3)

    async def play(told: Told, client: Any, limited: Limited, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if head:
            writer.write(b"GET /one HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b" 200 " in await reader.readline()
            writer.write(head)
        assert b"HTTP/1.1" not in await asyncio.wait_for(reader.read(), LONG)
        writer.close()
        assert told.begun == bool(head)

    run(play)


def test_a_request_beyond_its_time_is_504_and_cancelled() -> None:
    async def play(told: Told, client: Any, limited: Limited, _: int) -> None:
        begun = time.monotonic()
        answer = await client.post("/v1/slow", json={"note": "NGUYEN VAN A"})
        assert answer.status_code == 504
        assert answer.json()["error"]["type"] == "server_error"
        assert "NGUYEN" not in answer.text
        assert time.monotonic() - begun < LONG  # it would never end by itself
        assert told.cancelled == 1
        assert not limited.running

    run(play, seconds=0.2)


def test_a_stream_beyond_its_time_ends_with_the_error() -> None:
    async def play(told: Told, client: Any, *_: Any) -> None:
        answer = await client.post("/v1/stream")
        events = [line for line in answer.text.split("\n\n") if line]
        assert events[0] == "data: {}"
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "timeout"
        assert told.cancelled == 1

    run(play, seconds=0.2)


def test_too_many_at_once_are_503_and_come_again() -> None:
    async def play(told: Told, client: Any, limited: Limited, _: int) -> None:
        first = [asyncio.create_task(client.post("/slow")) for _ in range(3)]
        await until(lambda: told.begun == 3)
        busy = await client.post("/slow")
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
        assert busy.json() == {
            "error": {"code": "busy", "message": busy.json()["error"]["message"]}
        }
        assert (await client.get("/healthz")).status_code == 200  # probes are answered all the same
        told.release.set()
        assert [answer.status_code for answer in await asyncio.gather(*first)] == [200] * 3
        assert (await client.post("/slow")).status_code == 200
        assert told.begun == 5

    run(play, at_once=3)


@pytest.mark.parametrize("path", ["/slow", "/stream"])
def test_a_client_that_leaves_cancels_its_request(path: str) -> None:
    """Streamed or not."""

    async def play(told: Told, client: Any, limited: Limited, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST " + path.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
        )
        await until(lambda: told.begun == 1)
        assert not told.cancelled
        writer.close()
        await until(lambda: told.cancelled == 1)
        await until(lambda: not limited.running)
        assert told.ended == 0

    told = run(play)
    assert not told.problems


def test_a_client_that_leaves_within_its_body_is_forgotten() -> None:
    async def play(told: Told, client: Any, limited: Limited, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
        await until(lambda: limited.reading == 1)
        writer.close()
        await until(lambda: limited.reading == 0)
        assert told.begun == 0

    run(play)


def test_work_after_the_answer_is_not_cancelled() -> None:
    async def play(told: Told, client: Any, limited: Limited, _: int) -> None:
        assert (await client.post("/after")).status_code == 200
        await asyncio.sleep(0.05)
        assert len(limited.running) == 1
        told.release.set()
        await until(lambda: told.ended == 1)
        assert told.cancelled == 0

    run(play)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/crash", 500, "internal"), ("/silent", 500, "internal"), ("/refuse", 429, "rate_limit")],
)
@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_failures_are_said_in_the_shape_of_the_path_without_a_word(
    path: str, status: int, code: str, prefix: str
) -> None:
    async def play(told: Told, client: Any, *_: Any) -> None:
        answer = await client.post(prefix + path)
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["code"] == code
        assert set(error) == (
            {"message", "type", "code", "param"} if prefix else {"code", "message"}
        )
        assert "NGUYEN" not in answer.text + str(answer.headers)

    told = run(play)
    assert len(told.problems) == (path == "/crash")


def test_an_answer_that_breaks_off_is_seen_as_broken() -> None:
    async def play(told: Told, client: Any, *_: Any) -> None:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post("/half")

    told = run(play)
    assert len(told.problems) == 1


def test_a_draining_server_ends_what_runs_and_takes_nothing_new() -> None:
    async def play(told: Told, client: Any, limited: Limited, _: int) -> None:
        running = [asyncio.create_task(client.post("/slow")) for _ in range(5)]
        await until(lambda: told.begun == 5)
        drained = asyncio.create_task(limited.drain())
        await asyncio.sleep(0.02)
        refused = await client.post("/slow")
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert refused.json()["error"]["code"] == "shutting_down"
        assert (await client.get("/healthz")).status_code == 200
        assert not drained.done()
        told.release.set()
        assert [answer.status_code for answer in await asyncio.gather(*running)] == [200] * 5
        assert await drained == 0

    run(play)


def test_a_body_that_was_arriving_when_draining_began_is_answered() -> None:
    async def play(told: Told, client: Any, limited: Limited, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
        await until(lambda: limited.reading == 1)
        drained = asyncio.create_task(limited.drain())
        await asyncio.sleep(0.02)
        assert not drained.done()
        writer.write(b"defghij")
        assert b" 200 " in await reader.readline()
        assert await drained == 0
        writer.close()

    run(play)


def test_draining_is_bounded_and_the_rest_is_told() -> None:
    async def play(told: Told, client: Any, limited: Limited, _: int) -> None:
        running = [asyncio.create_task(client.post("/slow")) for _ in range(3)]
        await until(lambda: told.begun == 3)
        begun = time.monotonic()
        assert await limited.drain() == 3
        assert time.monotonic() - begun < LONG  # they would never end by themselves
        answers = await asyncio.gather(*running)
        assert {(answer.status_code, answer.json()["error"]["code"]) for answer in answers} == {
            (503, "shutting_down")
        }

    run(play, drain=0.1)
