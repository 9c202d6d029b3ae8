"""vLLM as a process of its own on loopback: how it is started, reached, and started again when it
dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from residency.serve.types import Refusal

ROUTES = frozenset({"/v1/completions"})
"""All that is ever asked of it: other routes answer without the key, or echo what they are given."""
QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
AGAIN = 5.0
"""Seconds after which a client may come back while it starts again."""


def down() -> Refusal:
    """What a request gets while vLLM cannot answer."""
    return Refusal(
        503, "engine_unavailable", "The model is not available at the moment; try again.", AGAIN
    )


class VllmProcess:
    """A vLLM server that only this process can use: loopback, a random port, a random key that
    never is an argument.

    Its output goes nowhere unless ``log`` names a file: on a crash vLLM prints the requests that it
    was working on.
    """

    def __init__(
        self, command: Sequence[str], log: Path | None = None, seconds: float = 120
    ) -> None:
        self.command, self.log, self.seconds = tuple(command), log, seconds
        self.key = secrets.token_urlsafe(32)
        self.port = 0
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Any = None

    @property
    def alive(self) -> bool:
        """Whether the process runs; it may still be deaf, which only a question shows."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the running process, 0 where there is none."""
        return self._process.pid if self._process is not None and self.alive else 0

    def start(self) -> None:
        """Start it, ending what is left of the one before."""
        self.end()
        self.port = free_port()
        self.starts += 1
        environment = {**os.environ, **QUIET, **OFFLINE, "VLLM_API_KEY": self.key}
        environment.pop("PYTHONPATH", None)  # it has an environment of its own
        with contextlib.ExitStack() as stack:
            out: Any = stack.enter_context(self.log.open("ab")) if self.log else subprocess.DEVNULL
            self._process = subprocess.Popen(
                [*self.command, "--host", "127.0.0.1", "--port", str(self.port)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self) -> None:
        """End it and its children, by the group that it was started in."""
        if self._process is None:
            return
        for sign, wait in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(wait)
                if sign == signal.SIGTERM:
                    continue  # its children may outlive it
        self._process = None

    async def let_go(self) -> None:
        """Close the connections to it: they are those of one event loop."""
        if self._client is not None:
            with contextlib.suppress(RuntimeError):  # that loop has ended, and they with it
                await self._client.aclose()
            self._client = None

    async def close(self) -> None:
        """End it, and the connections to it."""
        await self.let_go()
        await asyncio.to_thread(self.end)

    def _http(self) -> Any:
        import httpx2

        if self._client is None:
            self._client = httpx2.AsyncClient(
                trust_env=False, timeout=httpx2.Timeout(self.seconds, connect=2)
            )
        return self._client

    def _request(self, route: str, body: dict[str, Any]) -> Any:
        if route not in ROUTES:
            raise ValueError(f"{route} is not a route that may be asked")
        return self._http().build_request(
            "POST",
            f"http://127.0.0.1:{self.port}{route}",
            json=body,
            headers={"Authorization": f"Bearer {self.key}"},
        )

    async def ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """Its answer; raises ``Refusal`` (503) where it gives none."""
        import httpx2

        request = self._request(route, body)
        try:
            answer = await self._http().send(request)
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
        except (httpx2.HTTPError, ValueError, OSError):
            pass
        raise down()

    async def stream(
        self, route: str, body: dict[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed answer; closing the iterator ends the request, and with it the
        writing."""
        import httpx2

        request = self._request(route, {**body, "stream": True})
        answer, done = None, False
        try:
            answer = await self._http().send(request, stream=True)
            if answer.status_code != 200:
                raise down()
            async for line in answer.aiter_lines():
                data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                if data == "[DONE]":
                    done = True
                    break
                if data:
                    yield json.loads(data)
        except (httpx2.HTTPError, ValueError, OSError):
            raise down() from None
        finally:
            if answer is not None:
                await answer.aclose()
        if not done:
            raise down()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
