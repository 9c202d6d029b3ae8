"""Long work says how far it is: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import msgspec
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


def test_lines_say_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 of 100 steps in two minutes, 20 of them done before: 40 more take two minutes."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = StringIO()
    lines = progress.Lines(Console(file=out))
    lines.start("training", 100)
    lines.update(20, 100)
    now[0] += 120
    lines.update(60, 100, "f1 0.500")
    assert "training: 60/100 f1 0.500, 2 min left" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (7800, "2 h 10 min")],
)
def test_times_are_in_two_units_at_most(seconds: float, said: str) -> None:
    assert progress.duration(seconds) == said


def test_the_state_of_work_is_kept_for_its_owner_and_says_whether_it_lives(tmp_path: Path) -> None:
    work = progress.Followed(progress.Silent(), tmp_path)
    work.start("training", 10)
    work.end("done")
    state = progress.read_state(tmp_path)
    assert state is not None and state.alive
    assert [(one.title, one.words) for one in state.ended] == [("training", "done")]
    assert (tmp_path / progress.STATE).stat().st_mode & 0o077 == 0
    assert not msgspec.structs.replace(state, born=f"{state.born}0").alive


def test_work_goes_on_where_its_state_cannot_be_written(tmp_path: Path) -> None:
    work = progress.Followed(progress.Silent(), tmp_path / "missing")
    work.start("training", 10)
    work.update(5)
    assert progress.read_state(tmp_path / "missing") is None


def test_losses_of_a_stage_that_begins_again_take_the_place_of_the_first(tmp_path: Path) -> None:
    work = progress.Followed(progress.Silent(), tmp_path)
    work.start("training", 10)
    for step in (1, 2, 3, 1, 2):
        work.measured({"step": step, "loss": 1.0})
    assert [one["step"] for one in work.state.measured] == [1, 2]
