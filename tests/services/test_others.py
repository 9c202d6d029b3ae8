"""Redis answers, and Chromium shows a report page."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from real_servers import needed

from residency.core.page import Page, Section, write_page


def test_redis_answers() -> None:
    url = urlsplit(needed("RESIDENCY_TEST_REDIS"))
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=60) as connection:
        connection.sendall(b"SET seen 1\r\nINCR seen\r\n")
        assert connection.recv(64) == b"+OK\r\n:2\r\n"


def test_chromium_shows_a_report_page(tmp_path: Path) -> None:
    program = needed("RESIDENCY_TEST_CHROMIUM")
    section = Section(
        title="Counts", columns=("what", "how many"), rows=(("notes", "12"),), numeric=(1,)
    )
    path = write_page(
        Page(title="A report", lead="Everything is accounted for.", sections=(section,)), tmp_path
    )
    picture = tmp_path / "page.png"
    options = [
        "--headless",
        "--disable-gpu",
        "--no-first-run",
        "--hide-scrollbars",
        "--window-size=900,700",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    options += ["--no-sandbox"] if os.getuid() == 0 else []
    subprocess.run(
        [program, *options, f"--screenshot={picture}", path.as_uri()],
        check=True,
        capture_output=True,
    )
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (900, 700)
    assert len(set(data)) > 100 and len(data) > 5_000, "a blank page packs into less"
