"""Work under way: verbs as processes of their own, which a closed page or a stopped server leaves
alone; and what takes longer than a page may."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as waited
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar, cast

from residency.core.errors import UserError
from residency.core.files import disk_errors
from residency.core.progress import State, read_state
from residency.core.run_folder import Run
from residency.core.types import Value

T = TypeVar("T")

Status = Literal["under way", "done", "stopped", "failed"]
END_SECONDS = 10.0
"""How long a process is waited for that was told to end."""
KEPT = 32
"""Answers that are kept of what takes long."""


class Standing(Value, frozen=True):
    """How a run stands."""

    status: Status
    state: State | None = None
    """How far its process is, or was when it ended."""
    words: str = ""
    """Why it ended, where it failed."""


class Work:
    """The processes of runs. A run is known by its folder, which may not be there yet."""

    def __init__(self) -> None:
        self._started: dict[Path, subprocess.Popen[bytes]] = {}
        self._turn = threading.Lock()

    def start(self, run: Path, verb: Sequence[str], others: Sequence[Path]) -> None:
        """Start a verb for a run. Raises ``UserError`` where one of the ``others``, the runs of its
        project, is under way."""
        with self._turn:
            if any(
                self.standing(one).status == "under way" for one in {run, *others, *self._of(run)}
            ):
                raise UserError("A run of this project is under way; wait for it, or stop it.")
            said = _said(run)
            with disk_errors(said):
                said.parent.mkdir(parents=True, exist_ok=True)
                said.unlink(missing_ok=True)
                file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "wb") as out:
                self._started[run] = subprocess.Popen(
                    [sys.executable, "-m", "residency", *verb],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C ends the pages and leaves the work alone
                )

    def _of(self, run: Path) -> list[Path]:
        """What was started for runs that lie beside a run."""
        return [one for one in self._started if one.parent == run.parent]

    def started(self, runs: Path) -> list[Path]:
        """The runs of a folder that were started from here and have no manifest: they begin, or
        ended before they began."""
        found = (
            path.with_name(path.name.removeprefix(SAID)[:-4]) for path in runs.glob(f"{SAID}*.txt")
        )
        return [path for path in found if not (path / "manifest.json").is_file()]

    def stop(self, run: Path) -> None:
        """End the process of a run and those that it has started; the same verb goes on from
        there."""
        process, state = self._started.get(run), read_state(run)
        if process is not None and process.poll() is None:
            _end(process.pid)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        elif state is not None and state.alive:
            _end(state.process)

    def standing(self, run: Path) -> Standing:
        """How a run stands."""
        process, state = self._started.get(run), read_state(run)
        if (process is not None and process.poll() is None) or (state and state.alive):
            return Standing(status="under way", state=state)
        done = (run / "manifest.json").is_file() and Run(run).manifest.status
        if done == "done":
            return Standing(status="done", state=state)
        words = _last_words(run)
        return Standing(status="failed" if words else "stopped", state=state, words=words)


def _end(process: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(process) == process:
            os.killpg(process, signal.SIGTERM)
        else:
            os.kill(process, signal.SIGTERM)


SAID = ".said-"


def _said(run: Path) -> Path:
    """The file of what a process that was started from here has said."""
    return run.with_name(f"{SAID}{run.name}.txt")


def _last_words(run: Path) -> str:
    """The sentence with which a verb ended; or, of a fault of ours, what kind it was."""
    try:
        lines = _said(run).read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        if line.startswith("residency: "):
            return line.removeprefix("residency: ")
    if "Traceback (most recent call last):" in lines:
        return f"It ended by a fault of the program ({lines[-1].partition(':')[0]})."
    return ""


class Background:
    """What takes longer than a page may: asked for once, and looked at until it is there."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "pages")
        self._asked: OrderedDict[str, Future[object]] = OrderedDict()
        self._turn = threading.Lock()

    def ask(self, key: str, work: Callable[[], T], seconds: float = 1.0) -> T | None:
        """The result of ``work``, done once for a key; None where it is not there in so many
        seconds. Raises what the work raised."""
        with self._turn:
            if key not in self._asked:
                self._asked[key] = self._pool.submit(cast("Callable[[], object]", work))
                while len(self._asked) > KEPT:
                    self._asked.popitem(last=False)
            found = self._asked[key]
        waited([found], seconds)
        return cast(T, found.result()) if found.done() else None
