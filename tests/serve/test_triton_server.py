"""The script that runs Triton leaves nothing of a server that was killed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from serve_tools import LONG

from residency.core.files import process_alive
from test_repository import load


def test_what_outlives_a_killed_server_is_ended_before_it_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, ended, told = load("triton_server"), threading.Event(), tmp_path / "models"
    monkeypatch.setattr(script, "EVERY", 0.05)
    monkeypatch.setattr(script, "AGAIN", 0.05)
    dying = f"sleep 1000 & echo $! >> {told}; kill -9 $$"
    thread = threading.Thread(target=script.run, args=(["sh", "-c", dying], ended))
    thread.start()
    until = time.monotonic() + 60
    while time.monotonic() < until and (not told.exists() or told.read_text().count("\n") < 2):
        time.sleep(0.02)
    ended.set()
    thread.join(LONG)
    models = [int(pid) for pid in told.read_text().split()]
    assert len(models) >= 2 and os.getpid() not in models
    while time.monotonic() < until and any(map(running, models)):
        time.sleep(0.02)
    assert not any(map(running, models))


def running(pid: int) -> bool:
    """Whether a process is there, and not the mere name of one that has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return process_alive(pid) and state != "Z"
