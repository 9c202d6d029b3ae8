"""Several HTTP workers beside one process that holds the weights, each started again when it dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import IO, Any

import msgspec

from residency.core.errors import ResidencyError, UserError
from residency.core.part import parse
from residency.core.types import Value
from residency.serve.engines.remote import decoded, encoded
from residency.serve.launch import application, greeting, run
from residency.serve.settings import Serve
from residency.serve.types import Served

POLL = 0.1
LONGEST_FOLDER = 75
"""Bytes of a folder's path under which a socket can lie two names deeper."""
LONGEST_PAUSE = 10.0
"""Seconds between two starts of a process that dies at once, at most."""
EARLY = 5.0
"""A process that dies within so many seconds is started again after a pause, which grows."""


class Plan(Value, frozen=True):
    """What a child process is told, on its standard input; that stays open as long as its parent
    lives."""

    settings: dict[str, Any]
    models: dict[str, str]
    socket: str
    ledger: str = ""
    """Folder of the model ledger, where there is one."""
    worker: int = 0
    listen: int = -1
    served: tuple[Served, ...] = ()


class Child:
    """A process that is started again when it dies."""

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name, self.start = name, start
        self.process = start()
        self.born, self.pause, self.due = time.monotonic(), 0.0, 0.0

    def look(self) -> int | None:
        """Start it again where it died; its former number then."""
        if self.process.poll() is None:
            return None
        now = time.monotonic()
        if not self.due:
            early = now - self.born < EARLY
            self.pause = min(LONGEST_PAUSE, self.pause * 2 or POLL) if early else 0.0
            self.due = now + self.pause
        if now < self.due:
            return None
        former, self.process = self.process.pid, self.start()
        self.born, self.due = now, 0.0
        return former


def _short() -> str | None:
    """Where the engine's socket can lie: the folder for temporary files, unless its path is too
    long for a socket (107 bytes)."""
    return "/tmp" if len(tempfile.gettempdir().encode()) > LONGEST_FOLDER else None


class Supervisor:
    """Starts the engine process and the workers, and starts again what dies."""

    def __init__(
        self,
        models: Mapping[str, Path],
        settings: Serve,
        listen: socket.socket,
        say: Callable[[str], None],
        ledger: Path | None = None,
    ) -> None:
        self.models, self.settings, self.listen, self.say, self.ledger = (
            models,
            settings,
            listen,
            say,
            ledger,
        )
        self.ending = False
        self.served: tuple[Served, ...] = ()

    def run(self) -> None:
        """Until the process is told to end. Raises ``UserError`` where the models cannot be loaded."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told)
        with tempfile.TemporaryDirectory(prefix="residency-", dir=_short()) as folder:  # mode 0700
            (Path(folder) / "metrics").mkdir()
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(Path(folder) / "metrics")
            self.folder = Path(folder)
            engine = Child("engine", lambda: self._engine(bool(self.served)))
            self._first(engine)
            workers = [
                Child(f"worker-{n}", lambda n=n: self._worker(n))  # type: ignore[misc]
                for n in range(self.settings.workers)
            ]
            for line in greeting({one.name: one for one in self.served}, self.settings):
                self.say(line)
            try:
                self._watch([engine, *workers])
            finally:
                self._end(engine, workers)

    def _told(self, number: int, frame: FrameType | None) -> None:
        self.ending = True

    def _first(self, engine: Child) -> None:
        """Wait until the models are loaded."""
        line = engine.process.stdout.readline() if engine.process.stdout else b""
        if not line:
            engine.process.wait()
            raise UserError("serve: the models could not be loaded; the line above says why.")
        self.served = msgspec.json.decode(line, type=tuple[Served, ...], dec_hook=decoded)

    def _watch(self, children: list[Child]) -> None:
        from residency.serve.records.metrics import ended

        while not self.ending:
            for child in children:
                former = child.look()
                if former is not None and child.name != "engine":
                    ended(former)
            time.sleep(POLL)

    def _end(self, engine: Child, workers: list[Child]) -> None:
        """Workers first, each when its requests have ended; then the engine."""
        for child in workers:
            _stop(child.process)
        until = time.monotonic() + self.settings.limits.drain + 10
        for child in workers:
            _wait(child.process, until - time.monotonic())
        _stop(engine.process)
        _wait(engine.process, 5)

    def _engine(self, again: bool) -> subprocess.Popen[bytes]:
        (self.folder / "engine.sock").unlink(missing_ok=True)
        return self._start(
            "engine", self._plan(), subprocess.DEVNULL if again else subprocess.PIPE, ()
        )

    def _worker(self, number: int) -> subprocess.Popen[bytes]:
        fd = self.listen.fileno()
        plan = msgspec.structs.replace(self._plan(), worker=number, listen=fd, served=self.served)
        return self._start("worker", plan, subprocess.DEVNULL, (fd,))

    def _plan(self) -> Plan:
        return Plan(
            settings=self.settings.model_dump(mode="json"),
            models={name: str(path) for name, path in self.models.items()},
            socket=str(self.folder / "engine.sock"),
            ledger=str(self.ledger or ""),
        )

    def _start(
        self, what: str, plan: Plan, out: int, fds: tuple[int, ...]
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "residency.serve.supervisor", what],
            stdin=subprocess.PIPE,
            stdout=out,
            pass_fds=fds,
            # an interruption from the keyboard reaches the parent alone, which ends them in order
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(plan, enc_hook=encoded) + b"\n")
        process.stdin.flush()
        return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _told_by(given: IO[bytes]) -> Plan:
    """What the parent says; when the parent is gone, however it ended, this process ends in order."""
    plan = msgspec.json.decode(given.readline(), type=Plan, dec_hook=decoded)

    def watch() -> None:
        while os.read(given.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    return plan


def engine_process(plan: Plan) -> None:
    """Hold the weights and compute, for workers alone."""
    import uvicorn

    from residency.serve import lead
    from residency.serve.app import ROUTES
    from residency.serve.changes import standing
    from residency.serve.engines.choose import ended, load, load_all
    from residency.serve.guard import watch
    from residency.serve.records.metrics import Metrics
    from residency.serve.records.server_log import Log, silence

    settings: Serve = parse(Serve, plan.settings, "serve")
    ledger = Path(plan.ledger) if plan.ledger else None
    models = standing({name: Path(path) for name, path in plan.models.items()}, ledger)
    engines = load_all(models, settings, lambda line: print(line, file=sys.stderr))
    silence(Log(routes=ROUTES))
    figures = Metrics(ROUTES, engines)
    leading = lead.Lead(
        engines,
        models,
        settings.workers,
        ledger,
        lambda path, name: load(path, name, settings),
        lambda name, engine: watch(engine, figures, name),
    )
    os.umask(0o077)
    config = uvicorn.Config(
        lead.application(leading),
        uds=plan.socket,
        log_config=None,
        access_log=False,
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=int(settings.limits.drain)
        + 10,  # workers listen as long as they live
    )
    config.load()
    told = (
        msgspec.json.encode(tuple(one.served for one in engines.values()), enc_hook=encoded) + b"\n"
    )

    class Telling(uvicorn.Server):
        """Says that it is ready once it is."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            sys.stdout.buffer.write(told)
            sys.stdout.buffer.flush()

    with ended(engines.values()):
        Telling(config).run()


def worker_process(plan: Plan) -> None:
    """Answer HTTP; the models are in the engine process."""
    from residency.serve.app import ROUTES
    from residency.serve.follow import Follow
    from residency.serve.records.server_log import Log, silence

    settings: Serve = parse(Serve, plan.settings, "serve")
    log = Log(routes=ROUTES)
    silence(log)
    follow = Follow(plan.worker, Path(plan.socket), settings.limits.seconds + settings.limits.drain)
    listen = socket.socket(fileno=plan.listen)
    run(
        application(settings, follow.engines(plan.served), log, plan.worker, follow),
        settings,
        listen,
    )


def child(what: str) -> None:
    """A child process; one sentence where it cannot go on."""
    plan = _told_by(sys.stdin.buffer)
    try:
        (engine_process if what == "engine" else worker_process)(plan)
    except ResidencyError as error:
        print(f"residency: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    child(sys.argv[1])
