"""Long work says how far it is: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from residency.core import progress


def shown(terminal: bool, fail: bool = False) -> str:
    console = Console(
        file=StringIO(), force_terminal=terminal, width=80, color_system=None, legacy_windows=False
    )
    with progress.tracker(console) as tracker:
        tracker.start("training [1]", 3)
        for done in range(1, 4):
            tracker.update(done, words="span_f1 0.5")
        if fail:
            raise ValueError("no")
        tracker.end("best [red] 0.5")
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_lines_where_nobody_watches_begin_and_end_the_work_and_come_every_so_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = shown(terminal=False)
    assert "\x1b" not in written and "\r" not in written
    assert written.splitlines()[0] == "training [1] ..."
    assert written.splitlines()[1].startswith("training [1]: best [red] 0.5 (")
    monkeypatch.setattr(progress.Lines, "EVERY", 0.0)
    assert shown(terminal=False).splitlines()[1:4] == [
        f"training [1]: {n}/3 span_f1 0.5" for n in (1, 2, 3)
    ]


def test_a_bar_on_a_terminal_that_gives_way_to_one_line() -> None:
    written = shown(terminal=True)
    assert "training [1]" in written and "3/3" in written
    assert "✓ training [1]: best [red] 0.5 (" in written.splitlines()[-1]


def test_the_cursor_is_back_after_an_error() -> None:
    console = Console(file=StringIO(), force_terminal=True, width=80)
    with pytest.raises(ValueError, match="no"), progress.tracker(console) as tracker:
        tracker.start("training", 3)
        raise ValueError("no")
    assert isinstance(console.file, StringIO)
    written = console.file.getvalue()
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_silence_is_possible() -> None:
    silent = progress.Silent()
    silent.start("a")
    silent.update(1)
    silent.end()
