"""What long work says while it goes on: a bar on a terminal, plain lines elsewhere, nothing inside
a library."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

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

    def end(self, words: str = "") -> None:
        """It has ended."""


Silent = Tracker


class Lines(Tracker):
    """One line at the start, every 15 seconds, and at the end."""

    EVERY = 15.0

    def __init__(self, console: Console) -> None:
        self.console = console
        self.title, self.total, self.said, self.began = "", 0, 0.0, 0.0

    def start(self, title: str, total: int | None = None) -> None:
        self.title, self.total = title, total or 0
        self.said = self.began = time.monotonic()
        self.console.print(f"{title} ...", highlight=False, markup=False)

    def update(self, done: int, total: int | None = None, words: str = "") -> None:
        self.total = total or self.total
        if time.monotonic() - self.said >= self.EVERY:
            self.said = time.monotonic()
            of = f"/{self.total}" if self.total else ""
            line = f"{self.title}: {done}{of} {words}".rstrip()
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


@contextmanager
def tracker(console: Console) -> Iterator[Tracker]:
    """Bars on a terminal, lines elsewhere; a bar never outlives the block, so an error leaves the
    cursor visible."""
    if not console.is_terminal:
        yield Lines(console)
        return
    bars = Bars(console)
    try:
        yield bars
    finally:
        bars.close()
