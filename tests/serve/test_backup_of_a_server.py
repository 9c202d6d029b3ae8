"""A server's folders backed up while it answers: another machine says the same, and the audit log
holds."""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx2
import pytest
from serve_tools import LONG, NOTE, Started, Threads

import warm
from residency.ops.model_ledger import ModelLedger

pytestmark = [pytest.mark.server]
KEY = "5" * 64
NOTES = [f"{NOTE} Lần {number}, dùng metformin {number}00mg." for number in range(1, 9)]


class Asking(Threads):
    """Asks again and again."""

    def __init__(self, server: Started) -> None:
        super().__init__(2)
        self.server, self.statuses = server, list[int]()

    def ask(self) -> None:
        while not self.stop.is_set():
            self.statuses.append(
                self.server.client.post("/extract", json={"text": NOTES[0]}).status_code
            )


def answers(server: Started) -> list[object]:
    """What is said of the notes, without what differs from request to request."""
    found = [server.client.post("/extract", json={"text": one}).json() for one in NOTES]
    return [{k: v for k, v in one.items() if k not in ("id", "ms", "created")} for one in found]


def residency(*words: str) -> subprocess.CompletedProcess[str]:
    return warm.run(*words, environment={"RESIDENCY_KEY": KEY})


def test_a_backup_under_load_answers_the_same_on_an_empty_machine(
    trained: list[Path], tmp_path: Path
) -> None:
    old, archive, new = tmp_path / "old", tmp_path / "day.backup", tmp_path / "new"
    old.mkdir()
    models = ModelLedger(old / "models")
    models.promote("ner", models.add(trained[1]).digest)
    settings = ("ner", "limits.per_second=1000", "limits.minute_tokens=9000000")
    server = Started(old, *settings, "--models", str(old / "models"))
    try:
        before = answers(server)
        with Asking(server) as asking:
            server.until(lambda: len(asking.statuses) > 20)
            done = residency(
                "backup", str(old / "models"), str(old / "serve"), "--out", str(archive)
            )
            count = len(asking.statuses)
            server.until(lambda: len(asking.statuses) > count + 10)
        assert (done.returncode, done.stderr) == (0, "")
        assert set(asking.statuses) == {200}, "nobody was held up or refused"
    finally:
        server.client.close()
        server.end()

    done = residency("restore", str(archive), "--into", str(new))
    assert (done.returncode, done.stderr) == (0, "")
    verified = residency("audit", "verify", str(new / "serve"))
    assert verified.returncode == 0, verified.stdout
    lines = int(verified.stdout.splitlines()[-1].split()[0])
    assert lines > len(NOTES) + 20, "what was asked before the backup is in it"

    again = Started(new, *settings, "--models", str(new / "models"))
    try:
        assert answers(again) == before
        assert httpx2.get(f"{again.address}/readyz", timeout=LONG).status_code == 200
    finally:
        again.client.close()
        again.end()
    assert residency("audit", "verify", str(new / "serve")).returncode == 0

    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    refused = residency("restore", str(archive), "--into", str(tmp_path / "none"))
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert not (tmp_path / "none").exists()
