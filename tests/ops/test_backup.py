"""``residency backup`` and ``residency restore``: what comes back is what was there, and nothing
else does."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from residency.core import zones
from residency.core.errors import GateRefused, UserError
from residency.core.run_folder import Run
from residency.core.sealed import CHUNK
from residency.core.types import RawNote
from residency.core.zones import open_zone
from residency.deid.vault import Vault
from residency.ingest.store import Store
from residency.serve.records.audit_chain import Audit, AuditEntry, verify
from residency.workflows.backup import backup, restore

KEY, LOG_KEY = b"k" * 32, b"l" * 32
WORD = "Zyxwvutsrq"
ENTRY = AuditEntry(user="u", route="/extract", status=200, outcome="ok", ms=1.0)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """A project as it lies on a disk: a zone, a run, a model ledger, the server's folder."""
    root = tmp_path / "hospital"
    zone = open_zone(root / "identified")
    vault = Vault.open(zone.root, KEY)
    vault.secret("P1")
    vault.close()
    store = Store.open(zone.root, "ner", KEY)
    store.add([store.pack(RawNote(id="1", patient="P1", text=f"{WORD} ho khan.", lang="vi"))])
    store.close()
    (zone.root / "review.jsonl").write_text(WORD, "utf-8")
    for name, data in (
        ("runs/ner-1/manifest.json", b"{}"),
        ("runs/ner-1/weights.bin", os.urandom(CHUNK + 7)),
        ("models/ledger.jsonl", b'{"n":1}\n'),
        ("models/sha256/ab/model.bin", b"weights"),
        ("empty", b""),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "nothing").mkdir()
    (root / "latest").symlink_to("runs/ner-1")
    (root / "runs/ner-1/weights.bin").chmod(0o440)
    audit = Audit.open(root / "serve", 0, LOG_KEY)
    audit.write(ENTRY)
    audit.close()
    return root


def files(root: Path) -> dict[str, str]:
    """Files that are not locks, by their content; databases by what is in their tables."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".lock" and path.name != ".lock":
            data = path.read_bytes()
            if path.suffix == ".sqlite":
                with closing(sqlite3.connect(path)) as database:
                    data = "\n".join(database.iterdump()).encode()
            found[str(path.relative_to(root))] = sha256(data).hexdigest()
    return found


def test_what_is_restored_is_what_was_backed_up(hospital: Path, tmp_path: Path) -> None:
    made = backup([hospital], tmp_path / "day.backup", KEY)
    assert restore(tmp_path / "day.backup", tmp_path / "new", KEY) == made
    back = tmp_path / "new" / "hospital"
    assert files(back) == files(hospital)
    assert set(made.files) == {
        f"hospital/{name}" for name in files(hospital) if not name.startswith("latest/")
    }
    assert made.files["hospital/models/sha256/ab/model.bin"] == sha256(b"weights").hexdigest()
    assert (back / "nothing").is_dir() and (back / "latest").readlink() == Path("runs/ner-1")
    for name in ("identified", "identified/vault.sqlite", "serve", "runs/ner-1/weights.bin"):
        was, now = (hospital / name).stat().st_mode, (back / name).stat().st_mode
        assert stat.S_IMODE(now) == stat.S_IMODE(was), name
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_vault_and_notes_open_again_and_the_audit_log_verifies(
    hospital: Path, tmp_path: Path
) -> None:
    vault = Vault.open(hospital / "identified", KEY)
    secret = vault.secret("P1")
    vault.close()
    backup([hospital / "identified", hospital / "serve"], tmp_path / "day.backup", KEY)
    restore(tmp_path / "day.backup", tmp_path / "new", KEY)
    vault = Vault.open(open_zone(tmp_path / "new/identified").root, KEY)
    assert vault.knows("P1") and vault.secret("P1") == secret
    vault.close()
    store = Store.open(tmp_path / "new/identified", "ner", KEY)
    assert store.read(1)[0].text == f"{WORD} ho khan."
    store.close()
    assert verify([tmp_path / "new/serve"], [LOG_KEY]).faults == ()


def test_nothing_is_read_of_an_archive_without_its_key(hospital: Path, tmp_path: Path) -> None:
    archive = tmp_path / "day.backup"
    backup([hospital], archive, KEY)
    data = archive.read_bytes()
    assert not any(word in data for word in (WORD.encode(), b"vault", b"hospital", b"SQLite"))
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with pytest.raises(GateRefused, match="cannot be opened with this key"):
        restore(archive, tmp_path / "new", b"x" * 32)


@pytest.mark.parametrize("place", [0, 20, 40, CHUNK // 2, CHUNK + 40, -200, -1])
def test_one_bit_that_flipped_is_refused_and_nothing_is_left(
    hospital: Path, tmp_path: Path, place: int
) -> None:
    archive = tmp_path / "day.backup"
    backup([hospital], archive, KEY)
    data = bytearray(archive.read_bytes())
    data[place] ^= 1
    archive.write_bytes(data)
    with pytest.raises((GateRefused, UserError), match=r"day\.backup"):
        restore(archive, tmp_path / "new", KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day.backup", "hospital"]


@pytest.mark.parametrize("kept", [0, 30, 35, CHUNK, 35 + CHUNK + 16, -1])
def test_a_part_of_an_archive_is_refused(hospital: Path, tmp_path: Path, kept: int) -> None:
    archive = tmp_path / "day.backup"
    backup([hospital], archive, KEY)
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises((GateRefused, UserError), match=r"day\.backup"):
        restore(archive, tmp_path / "new", KEY)
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_backed_up_or_restored_is_refused_before_anything_is_written(
    hospital: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="which is backed up"):
        backup([hospital], hospital / "deep" / "day.backup", KEY)
    with pytest.raises(UserError, match="which is backed up"):
        backup([hospital / "models", hospital], hospital / "day.backup", KEY)
    with pytest.raises(UserError, match="is not there"):
        backup([hospital / "none"], tmp_path / "day.backup", KEY)
    (tmp_path / "other/hospital").mkdir(parents=True)
    with pytest.raises(UserError, match="another of the same name"):
        backup([hospital, tmp_path / "other/hospital"], tmp_path / "day.backup", KEY)
    (hospital / "away").symlink_to(tmp_path / "other")
    with pytest.raises(UserError, match="leads outside"):
        backup([hospital], tmp_path / "day.backup", KEY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hospital", "other"]
    (hospital / "away").unlink()
    backup([hospital], tmp_path / "day.backup", KEY)
    with pytest.raises(UserError, match="is there already"):
        backup([hospital], tmp_path / "day.backup", KEY)
    with pytest.raises(UserError, match="is there already"):
        restore(tmp_path / "day.backup", hospital, KEY)
    with pytest.raises(UserError, match="is no archive"):
        restore(hospital / "empty", tmp_path / "new", KEY)
    assert not (tmp_path / "new").exists()


def test_a_run_that_is_worked_on_is_left_out_and_a_zone_that_is_worked_on_waits(
    hospital: Path, tmp_path: Path
) -> None:
    with Run(hospital / "runs/ner-1").locked():
        made = backup([hospital], tmp_path / "first", KEY)
    assert [one for one in made.left_out if "ner-1" in one and "working on this run" in one]
    assert not any("ner-1" in name for name in made.files)
    zone = open_zone(hospital / "identified")
    with zones.locked(zone, "ner"), pytest.raises(UserError, match="another command works on ner"):
        backup([hospital], tmp_path / "second", KEY)
    assert not (tmp_path / "second").exists()


def test_a_model_whose_base_lies_elsewhere_is_said(hospital: Path, tmp_path: Path) -> None:
    for name, id, path in (
        ("ab", "phobert", tmp_path / "bases/phobert"),
        ("cd", "bundled:tiny-encoder", tmp_path / "package"),
        ("ef", "own", hospital / "own"),
    ):
        (hospital / "models/sha256" / name).mkdir(exist_ok=True)
        (hospital / "models/sha256" / name / "artefact.json").write_text(
            f'{{"schema": 1, "base": {{"id": "{id}", "path": "{path}"}}}}'
        )
    made = backup([hospital], tmp_path / "day.backup", KEY)
    assert [one.partition(":")[0] for one in made.left_out] == ["phobert"]


def test_what_is_written_meanwhile_is_taken_as_it_was_at_one_moment(
    hospital: Path, tmp_path: Path
) -> None:
    """Rows come in pairs, audit lines all the time; no copy holds one half of either."""
    path = hospital / "pairs.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE pairs (n INTEGER)")
    stop, audit = threading.Event(), Audit.open(hospital / "serve", 1, LOG_KEY)

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            while not stop.is_set():
                database.execute("BEGIN")
                for number in (1, -1):
                    database.execute("INSERT INTO pairs VALUES (?)", (number,))
                database.execute("COMMIT")
                audit.write(ENTRY)

    threads = [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    try:
        for number in range(8):
            backup([hospital], tmp_path / f"{number}.backup", KEY)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    audit.close()
    lines = []
    for number in range(8):
        restore(tmp_path / f"{number}.backup", tmp_path / str(number), KEY)
        back = tmp_path / str(number) / "hospital"
        with closing(sqlite3.connect(back / "pairs.sqlite")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert database.execute("SELECT coalesce(sum(n), 0) FROM pairs").fetchone() == (0,)
        found = verify([back / "serve"], [LOG_KEY])
        assert found.faults == ()
        lines.append(found.lines)
    assert lines == sorted(lines) and lines[0] < lines[-1], "the log grew between the copies"


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_a_killed_command_leaves_nothing_that_looks_whole(
    hospital: Path, tmp_path: Path, verb: str
) -> None:
    """Killed while the archive is read or written: it waits at a pipe that nobody fills."""
    backup([hospital], tmp_path / "whole", KEY)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    made = tmp_path / "made"
    call = {
        "restore": f"restore(Path({str(pipe)!r}), Path({str(made)!r}), b'k' * 32)",
        "backup": (
            "import residency.workflows.backup as one\n"
            "one._add = lambda *_: time.sleep(600)\n"
            f"backup([Path({str(hospital)!r})], Path({str(made)!r}), b'k' * 32)"
        ),
    }[verb]
    code = (
        "import time\nfrom pathlib import Path\n"
        f"from residency.workflows.backup import backup, restore\n{call}"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    beside = made.with_name("made.partial")
    writer = None
    if verb == "restore":
        writer = os.open(pipe, os.O_RDWR)
        os.write(writer, (tmp_path / "whole").read_bytes()[:40_000])
    end = time.monotonic() + 600
    while not beside.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert beside.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    if writer is not None:
        os.close(writer)
    assert not made.exists()
    if verb == "restore":
        restore(tmp_path / "whole", made, KEY)
    else:
        backup([hospital], made, KEY)
    assert not beside.exists() and made.exists()
