"""Processes that begin at once in one folder, killed at any moment and begun again: one key for all,
chains that verify, figures that can be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from residency.serve.records import audit_chain
from residency.serve.records.audit_chain import verify
from residency.serve.records.monitoring import log_keys
from residency.serve.settings import Logs

WORKER = """
import os, random, signal, sys, time
from pathlib import Path
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[2]
from residency.serve.auth import local_key
from residency.serve.records.audit_chain import Audit, AuditEntry
from residency.serve.records.monitoring import Metrics, forget_dead_workers, log_key
from residency.serve.settings import Logs
import prometheus_client
folder, entry = Path(sys.argv[1]), AuditEntry(user="", route="/extract", status=200, outcome="ok", ms=1)
metrics, chance = Path(sys.argv[2]), random.Random(7)

def work():
    forget_dead_workers()
    local_key(folder)
    log = Audit.open(folder, os.getpid(), log_key(Logs(folder=str(folder))), every=0.01)
    figures = Metrics(("/extract",), ["ner"])
    while True:
        log.write(entry)
        figures.request("/extract", 200, 0.1, "ner")
        figures.ready("ner", True)
        figures.render()

for _ in range(12):
    begun = []
    for _ in range(6):
        if not (pid := os.fork()):
            try:
                work()
            except BaseException as error:
                print(type(error).__name__, error, file=sys.stderr, flush=True)
                os._exit(1)
        begun.append(pid)
    until = 0 if chance.random() < 0.5 else time.monotonic() + 60
    while time.monotonic() < until and not any((metrics / f"counter_{pid}.db").is_file() for pid in begun):
        time.sleep(0.001)
    for pid in begun:
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
    for pid in begun:
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, "one failed"
print(Metrics(("/extract",), ["ner"]).render().decode())
"""


def test_killed_at_any_moment_and_begun_again(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    folder = tmp_path / "serve"
    done = subprocess.run(
        [sys.executable, "-c", WORKER, folder, tmp_path / "metrics"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 'residency_requests_total{model="ner",route="/extract",status="200"}' in done.stdout
    found = verify([folder], log_keys(Logs(), folder))
    assert found.faults == () and found.lines > 12
    keys = {one.name for one in folder.glob("*key*") if not one.name.startswith(".")}
    assert keys == {"key", "log.key"}


MOMENTS = {
    "before it is listed": "audit_chain._list = gone",
    "before it has its name": "pathlib.Path.rename = gone",
    "before its list is there": "pathlib.Path.replace = gone",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_one_that_is_killed_as_its_chain_begins_accuses_nobody(tmp_path: Path, moment: str) -> None:
    key = bytes(range(32))
    audit_chain.Audit.open(tmp_path, 0, key).close()
    begin = (
        "import os, pathlib, sys\nfrom residency.serve.records import audit_chain\n"
        f"gone = lambda *_: os._exit(9)\n{MOMENTS[moment]}\n"
        f"audit_chain.Audit.open(pathlib.Path(sys.argv[1]), 1, {key!r})"
    )
    killed = subprocess.run([sys.executable, "-c", begin, tmp_path], check=False)
    assert killed.returncode == 9
    assert verify([tmp_path], [key]).faults == ()
    audit_chain.Audit.open(tmp_path, 2, key).close()
    assert verify([tmp_path], [key]).faults == ()


def test_one_that_was_killed_as_it_began_is_a_chain_and_is_missed(tmp_path: Path) -> None:
    key = bytes(range(32))
    audit_chain.Audit.open(tmp_path, 0, key).close()
    last = next(tmp_path.glob(audit_chain.GLOB))
    begun = last.with_suffix(".partial")
    last.rename(begun)
    assert verify([tmp_path], [key]).faults == ()
    begun.write_bytes(begun.read_bytes().replace(b'"open"', b'"close"'))
    assert "was edited" in str(verify([tmp_path], [key]).faults[0])
    begun.unlink()
    assert "is missing" in str(verify([tmp_path], [key]).faults[0])


def test_figures_are_read_while_a_worker_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from residency.serve.records.monitoring import Metrics

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / f"counter_{os.getpid()}.db").touch()  # made, and not begun with
    assert Metrics(("/extract",), ["ner"]).render() == b""
