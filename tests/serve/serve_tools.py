"""What tests of the server share."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest

import warm

KEY = "k" * 43
HEADERS = {"Authorization": f"Bearer {KEY}"}
LONG = 600
"""Seconds that guard against a hang, and measure nothing: a busy machine takes many times what one at
rest does."""
NOTE = "Bệnh nhân nam 62 tuổi, ho khan và sốt 38.5 độ, đau bụng vùng thượng vị."


class Server:
    """An application on a port of this machine, in a thread."""

    def __init__(self, app: Any) -> None:
        import uvicorn

        from residency.serve.app import limited

        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(limited(app), log_config=None, access_log=False, lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()
        until = time.monotonic() + LONG
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.01)

    def end(self) -> None:
        """Stop it."""
        self.server.should_exit = True
        self.thread.join(LONG)
        self.socket.close()


def free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Started:
    """``residency serve`` in a process of its own, which begins warm unless its start is tested."""

    process: subprocess.Popen[bytes] | warm.Process

    def __init__(
        self, folder: Path, *arguments: str, cwd: Path | None = None, cold: bool = False
    ) -> None:
        self.port, self.folder = free(), folder
        self.address = f"http://127.0.0.1:{self.port}"
        self.out = folder / "out.txt"
        words = ["serve", *arguments, f"port={self.port}", f"logs.folder={folder / 'serve'}"]
        if cold:
            command = [sys.executable, "-m", "residency.cli", *words]
            with self.out.open("wb") as out:
                self.process = subprocess.Popen(
                    command, stdout=out, stderr=subprocess.STDOUT, cwd=cwd
                )
        else:
            self.process = warm.Process(*words, out=self.out, err=self.out, cwd=cwd)
        self.until(lambda: self.ready() == 200)
        self.client = httpx2.Client(
            base_url=self.address, headers={"Authorization": f"Bearer {self.key()}"}, timeout=LONG
        )

    def key(self) -> str:
        path = self.folder / "serve" / "key"
        return path.read_text().strip() if path.exists() else "none"

    def ready(self) -> int:
        try:
            return httpx2.get(f"{self.address}/readyz", timeout=LONG).status_code
        except httpx2.HTTPError:
            return 0

    def until(self, good: Callable[[], bool], seconds: float = LONG) -> None:
        end = time.monotonic() + seconds
        while not good():
            assert time.monotonic() < end and self.process.poll() is None, self.out.read_text()[
                -2000:
            ]
            time.sleep(0.1)

    def workers(self) -> list[int]:
        """Processes that the server started to answer."""
        found = subprocess.run(
            ["ps", "-ww", "--ppid", str(self.process.pid), "-o", "pid=,args="],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = found.stdout.splitlines()
        return [int(line.split()[0]) for line in lines if "multiprocessing.spawn" in line]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LONG)


class Threads:
    """Asks in several threads, until its block ends or it is told to ``stop``."""

    def __init__(self, count: int) -> None:
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(count)]

    def ask(self) -> None:
        """What each thread does."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(LONG)


NEEDS_REDIS = pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("RESIDENCY_SERVICES"),
    reason="redis-server is not installed",
)


class Redis:
    """A real one on a port of its own, which keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free(), folder
        self.begin()

    def begin(self) -> None:
        options = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self.process = subprocess.Popen(
            ["redis-server", *options, "--dir", str(self.folder)], stdout=subprocess.DEVNULL
        )

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.wait(LONG) == -signal.SIGKILL

    def up(self) -> float:
        """Waits until it takes connections; when that was."""
        until = time.monotonic() + LONG
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return time.monotonic()
            except OSError:
                time.sleep(0.01)
        raise AssertionError("Redis did not come up")
