"""A server of another program that this one starts for itself: loopback, a random port, a random
key that never is an argument."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from residency.core.files import locked, process_alive


class Address(msgspec.Struct, frozen=True):
    """Where a shared server answers; in a file that only its user reads."""

    port: int
    key: str
    pid: int


class OwnServer:
    """A process that is told ``--host`` and ``--port``, and its key in the environment.

    Its output goes nowhere unless ``log`` names a file: on a crash such servers print the requests
    that they were working on. ``shared``: a folder through which several processes use one server.
    Whoever comes first starts it, and whoever leaves last ends it; each holds a lock meanwhile,
    which the system releases where one is killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        key_variable: str,
        environment: Mapping[str, str] = {},
        log: Path | None = None,
        shared: Path | None = None,
    ) -> None:
        self.command, self.log, self.shared = tuple(command), log, shared
        self.key, self.port, self.pid = secrets.token_urlsafe(32), 0, 0
        self._environment = {**environment, key_variable: self.key}
        self._child: subprocess.Popen[bytes] | None = None
        self._using = -1

    @property
    def alive(self) -> bool:
        """Whether the process runs; it may still be deaf, which only a question shows."""
        if self._child is not None:
            return self._child.poll() is None
        return self.pid > 0 and process_alive(self.pid)

    def start(self) -> None:
        """Start it, or find it started by another process."""
        if self.shared is None:
            self._start()
            return
        self.shared.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.shared):
            if not self._find(self.shared / "address.json"):
                self._start()
                address = msgspec.json.encode(Address(self.port, self.key, self.pid))
                made = os.open(self.shared / "address.json", os.O_WRONLY | os.O_CREAT, 0o600)
                with os.fdopen(made, "wb") as file:
                    file.truncate()
                    file.write(address)
            self._using = os.open(self.shared / "users", os.O_WRONLY | os.O_CREAT, 0o600)
            fcntl.flock(self._using, fcntl.LOCK_SH)

    def _find(self, path: Path) -> bool:
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Address)
        except (OSError, msgspec.DecodeError):
            return False
        before = self.port, self.key, self.pid
        self.port, self.key, self.pid = found.port, found.key, found.pid
        if not self.alive:
            self.port, self.key, self.pid = before
        return self.alive

    def _start(self) -> None:
        self.port = free_port()
        environment = {**os.environ, **self._environment}
        environment.pop("PYTHONPATH", None)  # it has an environment of its own
        with contextlib.ExitStack() as stack:
            out: Any = stack.enter_context(self.log.open("ab")) if self.log else subprocess.DEVNULL
            self._child = subprocess.Popen(
                [*self.command, "--host", "127.0.0.1", "--port", str(self.port)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._child.pid

    def end(self) -> None:
        """End it and its children, by the group that it was started in; a shared one where nobody
        else uses it any more."""
        if not self.pid:
            return
        with locked(self.shared) if self.shared is not None else contextlib.nullcontext():
            if self.shared is None or self._last(self.shared):
                for sign in (signal.SIGTERM, signal.SIGKILL):  # its children may outlive it
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(self.pid, sign)
                    until = time.monotonic() + 10
                    while self.alive and time.monotonic() < until:
                        time.sleep(0.05)
            elif self._child is not None:  # others end it; that it is gone is noticed here
                threading.Thread(target=self._child.wait, name="server", daemon=True).start()
        self.pid, self._child = 0, None

    def _last(self, shared: Path) -> bool:
        """Let go of a shared process; whether nobody else uses it."""
        try:
            fcntl.flock(self._using, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(self._using)
        (shared / "address.json").unlink(missing_ok=True)
        return True


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def end_shared(folder: Path) -> None:
    """End what processes that are gone have left behind."""
    for path in folder.glob("*/address.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            os.killpg(msgspec.json.decode(path.read_bytes(), type=Address).pid, signal.SIGKILL)
