"""The audit log: no line, and no file, can be changed unnoticed; a killed worker is no tampering."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residency.core.errors import UserError
from residency.serve import Refusal
from residency.serve.records import audit_chain
from residency.serve.records.audit_chain import Audit, AuditEntry, verify

KEY = bytes(range(32))


def request(number: int) -> AuditEntry:
    return AuditEntry(
        user=f"{number:064x}",
        route="POST /extract",
        status=200,
        outcome="ok",
        ms=12.5 + number,
        model="ab" * 32,
        input_tokens=number,
    )


def chain(folder: Path, worker: int, lines: int, key: bytes = KEY) -> Path:
    log = Audit.open(folder, worker, key)
    for number in range(lines):
        log.write(request(number))
    log.close()
    return log.path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three closed chains of two workers, five requests each: a first line, five, a last one."""
    made = tmp_path_factory.mktemp("audit") / "serve"
    for worker in (0, 1, 0):
        chain(made, worker, 5)
    return made


def test_what_was_written_is_verified_and_readable_by_its_owner_alone(folder: Path) -> None:
    found = verify([folder], [KEY])
    assert (found.faults, found.notes, found.lines) == ((), (), 21)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@settings(max_examples=150)
@given(data=st.data())
def test_any_change_of_any_line_is_found(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    copy = tmp_path_factory.mktemp("tampered") / "serve"
    shutil.copytree(folder, copy)
    path = data.draw(st.sampled_from(sorted(copy.glob(audit_chain.GLOB))))
    lines = path.read_bytes().splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    how = data.draw(
        st.sampled_from(
            ["edit", "remove", "swap", "double", "insert", "cut", "cut short", "borrow"]
        )
    )
    if how == "edit":
        byte = data.draw(st.integers(0, len(lines[at]) - 2))
        other = data.draw(st.integers(32, 126).filter(lambda value: value != lines[at][byte]))
        lines[at] = lines[at][:byte] + bytes([other]) + lines[at][byte + 1 :]
    elif how == "remove":
        del lines[at]
    elif how == "swap":
        other = data.draw(st.integers(0, len(lines) - 1).filter(lambda value: value != at))
        lines[at], lines[other] = lines[other], lines[at]
    elif how == "double":
        lines.insert(at, lines[at])
    elif how == "insert":
        false = audit_chain.AuditLine(
            n=at, at=datetime.now(UTC), what="request", previous="", entry=request(9)
        )
        lines.insert(at, audit_chain.signed(false, audit_chain.signing(bytes(32)))[0])
    elif how == "cut":
        lines = lines[:at]
    elif how == "cut short":
        lines = [*lines[:at], lines[at][: data.draw(st.integers(1, len(lines[at]) - 1))]]
    else:
        donor = data.draw(
            st.sampled_from([one for one in sorted(copy.glob(audit_chain.GLOB)) if one != path])
        )
        lines[at] = donor.read_bytes().splitlines(keepends=True)[at]
    path.write_bytes(b"".join(lines))
    assert verify([copy], [KEY]).faults, how


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("with_head", [False, True])
def test_a_missing_file_is_found_whichever_it_is(
    folder: Path, tmp_path: Path, which: int, with_head: bool
) -> None:
    shutil.copytree(folder, tmp_path / "serve")
    gone = sorted((tmp_path / "serve").glob(audit_chain.GLOB))[which]
    gone.unlink()
    if with_head:
        gone.with_suffix(".head").unlink()
    assert any(
        one.file == gone.name and "missing" in one.what
        for one in verify([tmp_path / "serve"], [KEY]).faults
    )


def test_a_missing_list_or_head_is_found_and_a_later_start_does_not_mend_it(
    folder: Path, tmp_path: Path
) -> None:
    for name in ("chains-*.json", "*.head"):
        shutil.copytree(folder, tmp_path / name)
        for path in (tmp_path / name).glob(name):
            path.unlink()
        assert verify([tmp_path / name], [KEY]).faults
        chain(tmp_path / name, 0, 1)
        assert verify([tmp_path / name], [KEY]).faults


def test_a_whole_folder_put_back_is_found_only_by_heads_written_down_elsewhere(
    tmp_path: Path,
) -> None:
    chain(tmp_path / "serve", 0, 2)
    shutil.copytree(tmp_path / "serve", tmp_path / "older")
    chain(tmp_path / "serve", 0, 2)
    heads = verify([tmp_path / "serve"], [KEY]).heads
    assert not verify([tmp_path / "older"], [KEY]).faults  # what the module says cannot be seen
    assert verify([tmp_path / "older"], [KEY], heads).faults
    assert not verify([tmp_path / "serve"], [KEY], heads).faults


WRITER = """
import sys, os
from pathlib import Path
from residency.serve.records.audit_chain import Audit, AuditEntry
log = Audit.open(Path(sys.argv[1]), 0, bytes(range(32)))
for number in range(20):
    log.write(AuditEntry(user="0" * 64, route="POST /extract", status=200, outcome="ok", ms=1.0))
os.write(log._file, b'{"n":21,"at":"2026')
print("written", flush=True)
sys.stdin.read()
"""


def killed(folder: Path) -> Path:
    """A worker that was killed in the middle of a line."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return sorted(folder.glob(audit_chain.GLOB))[-1]


def test_a_killed_worker_loses_no_line_and_its_unfinished_one_is_noted_by_the_next_start(
    tmp_path: Path,
) -> None:
    path = killed(tmp_path)
    found = verify([tmp_path], [KEY])
    assert (found.faults, len(found.notes), found.lines) == ((), 1, 21)
    chain(tmp_path, 0, 1)
    found = verify([tmp_path], [KEY])
    assert found.faults == ()
    assert [one.what for one in found.notes] == [
        "ends in an unfinished line: its process was killed (as the next start noted)."
    ]
    whole = path.read_bytes()
    for changed in (
        whole[:-3],
        whole[: whole.rindex(b"\n") + 1],
        whole + b"5",
        whole[: whole[:-20].rindex(b"\n") + 1],
    ):
        path.write_bytes(changed)
        assert verify([tmp_path], [KEY]).faults


def test_lines_cut_from_a_killed_workers_chain_are_no_torn_line(tmp_path: Path) -> None:
    path = killed(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]) + lines[-2][:30])
    assert any("1 were cut off" in one.what for one in verify([tmp_path], [KEY]).faults)


def test_a_running_chain_is_verified_too(tmp_path: Path) -> None:
    log = Audit.open(tmp_path, 3, KEY)
    log.write(request(1))
    found = verify([tmp_path], [KEY])
    assert (found.faults, len(found.notes)) == ((), 1)
    log.close()


def test_chains_under_an_earlier_key_need_that_key(tmp_path: Path) -> None:
    chain(tmp_path, 0, 1, bytes(32))
    chain(tmp_path, 0, 1)
    assert not verify([tmp_path], [KEY, bytes(32)]).faults
    assert "a key that was not given" in str(verify([tmp_path], [KEY]).faults[0])


def test_older_chains_may_lie_in_another_folder(tmp_path: Path) -> None:
    first = chain(tmp_path / "serve", 0, 1)
    chain(tmp_path / "serve", 0, 1)
    (tmp_path / "old").mkdir()
    for path in (first, first.with_suffix(".head")):
        path.rename(tmp_path / "old" / path.name)
    assert verify([tmp_path / "serve"], [KEY]).faults
    assert not verify([tmp_path / "serve", tmp_path / "old"], [KEY]).faults


def test_a_new_day_begins_a_new_file(tmp_path: Path) -> None:
    times = [datetime(2026, 3, 1, 23, 59, tzinfo=UTC)]
    log = Audit.open(tmp_path, 0, KEY, clock=lambda: times[-1])
    log.write(request(1))
    times.append(times[-1] + timedelta(minutes=2))
    log.write(request(2))
    log.close()
    assert [path.name[:16] for path in sorted(tmp_path.glob(audit_chain.GLOB))] == [
        "audit-0-20260301",
        "audit-0-20260302",
    ]
    assert not verify([tmp_path], [KEY]).faults


def test_a_full_disk_refuses_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Audit.open(tmp_path, 0, KEY, every=60)
    write = os.write
    monkeypatch.setattr(audit_chain.os, "write", lambda file, data: write(file, data[:40]))
    with pytest.raises(Refusal) as refused:
        log.write(request(1))
    assert refused.value.status == 503
    monkeypatch.setattr(audit_chain.os, "write", write)
    log.write(request(2))
    log.close()
    found = verify([tmp_path], [KEY])
    assert (found.faults, found.lines) == ((), 3)


def test_a_folder_without_chains_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no audit chain"):
        verify([tmp_path], [KEY])
