"""``residency ui`` as a process: it answers this machine, and ends when it is told to."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from residency.core.errors import UserError
from residency.pages.launch import listen


@pytest.mark.server
def test_the_printed_address_opens_the_pages_and_nothing_is_logged(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "residency", "ui", str(tmp_path), "--port", "0"]
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as served,
        ExitStack() as stack,
    ):
        assert served.stdout is not None
        stack.callback(served.kill)
        address = served.stdout.readline().strip()
        found = urlsplit(address)
        assert found.hostname == "127.0.0.1"
        connection = HTTPConnection(found.hostname, found.port or 0, timeout=600)
        stack.callback(connection.close)
        connection.request("GET", f"/?{found.query}")
        answer = connection.getresponse()
        answer.read()
        cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        assert answer.status == 303
        connection.request("GET", "/", headers={"cookie": cookie})
        page = connection.getresponse()
        assert page.status == 200
        assert re.search("<h1>", page.read().decode())
        served.send_signal(signal.SIGINT)
        out, err = served.communicate(timeout=600)
        assert (out, err) == ("", "")


def test_a_port_that_is_taken_is_said() -> None:
    with listen(0) as first, pytest.raises(UserError, match="is taken"):
        listen(first.getsockname()[1])
