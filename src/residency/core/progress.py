"""What long work says while it goes on: a bar on a terminal, plain lines elsewhere, nothing inside
a library; and a small file, by which another process can follow it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from residency.core.errors import UserError
from residency.core.files import write_bytes
from residency.core.types import Value

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class Tracker:
    """Told of each piece of work: a title, then how far it is, then its end. This one says
    nothing."""

    def start(self, title: str, total: int | None = None) -> None:
        """A piece of work begins."""

    def update(self, done: int, total: int | None = None, words: str = "") -> None:
        """So much of it is done."""

    def measured(self, values: Mapping[str, float]) -> None:
        """A loss or a score on the way, with the ``step`` that it is of."""

    def end(self, words: str = "") -> None:
        """It has ended."""


Silent = Tracker


class Pace:
    """How fast a piece of work goes, since it was first looked at: work that is gone on with has
    much done already, and that says nothing of its speed."""

    def __init__(self) -> None:
        self.first: tuple[int, float] | None = None

    def left(self, done: int, total: int) -> float | None:
        """Seconds until all is done; None where that cannot be said yet."""
        now = time.monotonic()
        if self.first is None or done < self.first[0]:
            self.first = (done, now)
        before, since = self.first
        if done <= before or not total:
            return None
        return (now - since) / (done - before) * max(0, total - done)


def duration(seconds: float) -> str:
    """A time in two units at most: ``40 s``, ``3 min``, ``2 h 10 min``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Lines(Tracker):
    """One line at the start, every 15 seconds, and at the end."""

    EVERY = 15.0

    def __init__(self, console: Console) -> None:
        self.console = console
        self.title, self.total, self.said, self.began = "", 0, 0.0, 0.0
        self.pace = Pace()

    def start(self, title: str, total: int | None = None) -> None:
        self.title, self.total, self.pace = title, total or 0, Pace()
        self.said = self.began = time.monotonic()
        self.console.print(f"{title} ...", highlight=False, markup=False)

    def update(self, done: int, total: int | None = None, words: str = "") -> None:
        self.total = total or self.total
        left = self.pace.left(done, self.total)
        if time.monotonic() - self.said >= self.EVERY:
            self.said = time.monotonic()
            of = f"/{self.total}" if self.total else ""
            line = f"{self.title}: {done}{of} {words}".rstrip()
            line += f", {duration(left)} left" if left is not None and left >= 1 else ""
            self.console.print(line, highlight=False, markup=False)

    def end(self, words: str = "") -> None:
        seconds = time.monotonic() - self.began
        line = f"{self.title}: {words or 'done'} ({seconds:.1f} s)"
        self.console.print(line, highlight=False, markup=False)


class Bars(Tracker):
    """A bar for each piece of work."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.title, self.began = "", 0.0

    def start(self, title: str, total: int | None = None) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.title, self.began = title, time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            console=self.console,
            transient=True,
        )
        self.bar.add_task(title, total=total, words="")
        self.bar.start()

    def update(self, done: int, total: int | None = None, words: str = "") -> None:
        if self.bar is not None:
            task = self.bar.tasks[0]
            self.bar.update(task.id, completed=done, total=total or task.total, words=words)

    def end(self, words: str = "") -> None:
        from rich.markup import escape

        self.close()
        seconds = time.monotonic() - self.began
        said = escape(f"{self.title}: {words or 'done'}")
        self.console.print(f"[green]✓[/] {said} [dim]({seconds:.1f} s)[/]", highlight=False)

    def close(self) -> None:
        """Take the bar away; work that failed says nothing."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class Ended(Value, frozen=True):
    """A piece of work that has ended."""

    title: str
    words: str
    seconds: float


class State(Value, frozen=True):
    """How far the work of a process is. Titles, numbers and names of metrics: no text of a note."""

    process: int
    born: str
    """When that process began, as its system counts: a number of a process is given twice."""
    title: str = ""
    done: int = 0
    total: int = 0
    words: str = ""
    left: float | None = None
    """Seconds until the piece under way is done."""
    measured: tuple[dict[str, float], ...] = ()
    """Losses and scores of the piece that last had some."""
    ended: tuple[Ended, ...] = ()
    at: float = 0.0
    """When this was written, in seconds since 1970."""

    @property
    def alive(self) -> bool:
        """Whether the process still works."""
        return bool(self.born) and birth(self.process) == self.born


STATE = ".progress.json"
"""The file of the state, in the folder of the run that the work is for."""
MOST_MEASURED = 500
"""Losses that a state keeps, the latest."""


def birth(process: int) -> str:
    """When a process began, in ticks since its system did; empty where there is none, or where the
    system does not say."""
    try:
        said = Path(f"/proc/{process}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    fields = said.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def read_state(folder: Path) -> State | None:
    """The last state of the work on a run; None where it left none."""
    try:
        return msgspec.json.decode((folder / STATE).read_bytes(), type=State)
    except (OSError, msgspec.DecodeError):
        return None


class Followed(Tracker):
    """Also writes the state into a folder, where that is there, for its owner alone: at most twice
    a second, and at the start and end of each piece. Work goes on where it cannot be written."""

    EVERY = 0.5

    def __init__(self, inner: Tracker, folder: Path) -> None:
        self.inner, self.folder = inner, folder
        self.state = State(process=os.getpid(), born=birth(os.getpid()))
        self.pace, self.began, self.written, self.fresh = Pace(), 0.0, 0.0, True

    def start(self, title: str, total: int | None = None) -> None:
        self.inner.start(title, total)
        self.pace, self.began, self.fresh = Pace(), time.monotonic(), True
        state = replace(self.state, title=title, done=0, total=total or 0, words="", left=None)
        self._write(state, now=True)

    def update(self, done: int, total: int | None = None, words: str = "") -> None:
        self.inner.update(done, total, words)
        total = total or self.state.total
        left = self.pace.left(done, total)
        self._write(replace(self.state, done=done, total=total, words=words, left=left))

    def measured(self, values: Mapping[str, float]) -> None:
        self.inner.measured(values)
        before = () if self.fresh else self.state.measured
        if before and values["step"] < before[-1]["step"]:  # begun again, with other settings
            before = tuple(one for one in before if one["step"] < values["step"])
        self.fresh = False
        self._write(replace(self.state, measured=(*before, dict(values))[-MOST_MEASURED:]))

    def end(self, words: str = "") -> None:
        self.inner.end(words)
        seconds = round(time.monotonic() - self.began, 1)
        ended = Ended(title=self.state.title, words=words, seconds=seconds)
        state = replace(self.state, title="", words="", left=None)
        self._write(replace(state, ended=(*self.state.ended, ended)), now=True)

    def _write(self, state: State, now: bool = False) -> None:
        self.state = replace(state, at=round(time.time(), 1))
        if not now and time.monotonic() - self.written < self.EVERY:
            return
        self.written = time.monotonic()
        if self.folder.is_dir():
            with suppress(UserError):
                write_bytes(self.folder / STATE, msgspec.json.encode(self.state), private=True)


@contextmanager
def tracker(console: Console, folder: Path | None = None) -> Iterator[Tracker]:
    """Bars on a terminal, lines elsewhere; a bar never outlives the block, so an error leaves the
    cursor visible. ``folder``: of the run, for those who follow it from elsewhere."""
    shown = Bars(console) if console.is_terminal else Lines(console)
    try:
        yield shown if folder is None else Followed(shown, folder)
    finally:
        if isinstance(shown, Bars):
            shown.close()
