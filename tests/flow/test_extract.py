"""What goes wrong between a hospital's records and its zone is one sentence, names nobody, and
leaves nothing half-written."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import warm
from conftest import CLI

KEY = "0123456789abcdef" * 4
SECRET = "Zyxwvutsrq"
"""A word in every note and name; it must turn up nowhere outside the sources and the zone, and
there only sealed."""


def plan(**extract: Any) -> dict[str, Any]:
    source = {
        "kind": "csv",
        "path": "inbox",
        "identifiers": {"name": "name"},
        "lang": "vi",
    } | extract
    return {
        "schema": 1,
        "name": "ward",
        "extract": {key: value for key, value in source.items() if value is not None},
        "deid": {"profile": "pseudonymised", "tagger": "off", "release": {"refused": 0.9}},
        "data": {"ward": {"format": "jsonl", "path": "data/deidentified.jsonl", "lang": "vi"}},
        "tasks": [{"card": "clinical", "data": "ward"}],
    }


SQL = {
    "kind": None,
    "path": None,
    "url": "sqlite:///hospital.db",
    "notes": "SELECT id, patient, text, name FROM notes",
}


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe on a table and, under another name, on a database with the same notes."""
    monkeypatch.setenv("RESIDENCY_KEY", KEY)
    rows = [
        (f"N{n}", f"P{n}", f"Bệnh nhân {SECRET} Văn An sốt ngày {n}.", f"{SECRET} Văn An")
        for n in range(1, 31)
    ]
    (tmp_path / "inbox").mkdir()
    table = "\n".join(["id,patient,text,name", *(",".join(row) for row in rows)])
    (tmp_path / "inbox" / f"{SECRET}.csv").write_text(table + "\n", "utf-8")
    with sqlite3.connect(tmp_path / "hospital.db") as database:
        database.execute(
            "CREATE TABLE notes (id TEXT PRIMARY KEY, patient TEXT, text TEXT, name TEXT)"
        )
        database.executemany("INSERT INTO notes VALUES (?, ?, ?, ?)", rows)
    database.close()
    return written(tmp_path, plan())


def written(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), "utf-8")
    return path


def nowhere(folder: Path, *outputs: str) -> None:
    """The planted word is in no output and in no file but the sources."""
    assert not any(SECRET in output for output in outputs)
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "hospital.db" and path.parent.name != "inbox":
            assert SECRET.encode() not in path.read_bytes(), path


def test_extraction_takes_what_is_new_into_the_zone_and_says_so_on_one_page(
    ward: Path, cli: CLI
) -> None:
    first = cli("extract", ward, check=0)
    again = cli("extract", ward, check=0)
    assert "30 new notes, 0 taken before, 0 rows not taken; 30 notes in the zone" in first.stdout
    assert "0 new notes" in again.stdout
    told = json.loads((ward.parent / "data/ward.extraction.json").read_text("utf-8"))
    assert (told["taken"], told["held"], told["ever"]) == (0, 30, {"taken": 30})
    assert "30" in (ward.parent / "data/ward.extraction.html").read_text("utf-8")
    nowhere(ward.parent, first.stdout, first.stderr)


def test_de_identification_extracts_first_and_accounts_for_every_row(ward: Path, cli: CLI) -> None:
    with (ward.parent / "inbox/more.csv").open("w", encoding="utf-8") as file:
        file.write("id,patient,text,name\nN31,P1,,x\nN32,,không có mã,x\nN1,P1,khác,x\n")
    done = cli("deid", ward, check=0)
    told = json.loads((ward.parent / "data/deidentified.report.json").read_text("utf-8"))
    assert told["ledger"] == {
        "released": 30,
        "refused: the note names no patient": 1,
        "not taken: the note has no text": 1,
        "not taken: the id was given twice, with different texts": 1,
    }
    page = (ward.parent / "data/deidentified.report.html").read_text("utf-8")
    assert "What became of every row" in page and "The release check" in page
    nowhere(ward.parent, done.stdout, done.stderr)


def test_both_roads_give_the_same_notes(ward: Path, cli: CLI) -> None:
    cli("deid", ward, "deid.jobs=1", "extract.segment=10", check=0)
    alone = (ward.parent / "data/deidentified.jsonl").read_bytes()
    for name in ("ward.notes.sqlite", "ward.notes.sqlite-wal", "ward.notes.sqlite-shm"):
        (ward.parent / "identified" / name).unlink(missing_ok=True)
    (ward.parent / "data/deidentified.jsonl").unlink()
    written(ward.parent, plan(**SQL))
    cli("deid", ward, "deid.jobs=2", "extract.segment=3", check=0)
    together = (ward.parent / "data/deidentified.jsonl").read_bytes()
    assert sorted(alone.splitlines()) == sorted(together.splitlines())


def damaged(name: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def do(folder: Path, patch: pytest.MonkeyPatch) -> None:
        path = folder / "identified" / name
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        for suffix in ("-wal", "-shm"):
            path.with_name(name + suffix).unlink(missing_ok=True)

    return do


def cut_segment(folder: Path, patch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(folder / "identified/ward.notes.sqlite") as database:
        database.execute("UPDATE segments SET value = substr(value, 1, length(value) / 2)")
        database.execute("DELETE FROM sealed WHERE name = 'deid'")
    database.close()
    (folder / "data/deidentified.jsonl").unlink()


def open_zone(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "identified").chmod(0o755)


def changed_file(folder: Path, patch: pytest.MonkeyPatch) -> None:
    with (folder / f"inbox/{SECRET}.csv").open("a", encoding="utf-8") as file:
        file.write("N99,P9,x,y\n")


AFTER = [
    (lambda f, m: m.setenv("RESIDENCY_KEY", "f" * 64), "cannot be opened with this key", 2),
    (lambda f, m: m.setenv("RESIDENCY_KEY", "hush"), "does not hold a key", 1),
    (
        lambda f, m: m.delenv("RESIDENCY_KEY"),
        "RESIDENCY_KEY: the environment variable is not set",
        1,
    ),
    (damaged("vault.sqlite"), "vault", (1, 2)),
    (damaged("ward.notes.sqlite"), "ward.notes.sqlite", (1, 2)),
    (cut_segment, "was tampered with", 2),
    (open_zone, "open to other users", 2),
    (changed_file, "file 1 of 1 (by name) changed after it was taken", 1),
    (lambda f, m: (f / "data/deidentified.jsonl").unlink(), "is gone", 1),
]


@pytest.mark.parametrize(
    ("harm", "sentence", "code"), AFTER, ids=[sentence for _, sentence, _ in AFTER]
)
def test_harm_done_between_two_commands_is_one_sentence(
    ward: Path,
    cli: CLI,
    monkeypatch: pytest.MonkeyPatch,
    harm: Any,
    sentence: str,
    code: int | tuple[int, ...],
) -> None:
    cli("deid", ward, check=0)
    harm(ward.parent, monkeypatch)
    released = ward.parent / "data/deidentified.jsonl"
    before = released.read_bytes() if released.exists() else None
    failed = cli("deid", ward)
    assert failed.returncode in (code if isinstance(code, tuple) else (code,)), failed.stderr
    assert sentence in failed.stderr and len(failed.stderr.strip().splitlines()) == 1, failed.stderr
    assert "hush" not in failed.stderr
    assert (released.read_bytes() if released.exists() else None) == before
    nowhere(ward.parent, failed.stdout, failed.stderr)


BAD = [
    ({**SQL, "notes": "UPDATE notes SET text = ''"}, "is not a plain SELECT", 1),
    (
        {**SQL, "notes": "SELECT id, patient, text FROM notes /*! FOR UPDATE */"},
        "is not a plain SELECT|holds a comment",
        1,
    ),
    ({**SQL, "notes": "SELECT id, patient, body FROM notes"}, "the database refused", 1),
    (
        {**SQL, "identifiers": {"name": "nmae"}},
        "extract.identifiers.name: the statement gives no column 'nmae'",
        1,
    ),
    ({**SQL, "url": "sqlite:///gone.db"}, "does not exist", 1),
    ({**SQL, "url": "env:NO_SUCH_URL"}, "NO_SUCH_URL is not set", 1),
    ({**SQL, "url": "mysql://reader:hush@host/db"}, "a password does not belong", 1),
    ({"identifiers": {"name": "nmae"}}, "has no column 'nmae'", 1),
    ({"path": "nowhere/*.csv"}, "there is no file", 1),
    ({"encoding": "utf-16"}, "has no column 'id'", 1),
    ({"columns": {"id": "code"}}, "has no column 'code' among its 4", 1),
    ({"keep": "a while"}, "extract.keep", 1),
    ({"kind": "hl7", "identifiers": None, "path": "inbox", "keep": -1}, "extract.keep", 1),
]


@pytest.mark.parametrize("verb", ["extract", "deid"])
@pytest.mark.parametrize(("values", "sentence", "code"), BAD)
def test_a_source_that_cannot_be_used_is_one_sentence(
    ward: Path, cli: CLI, verb: str, values: dict[str, Any], sentence: str, code: int
) -> None:
    written(ward.parent, plan(**values))
    failed = cli(verb, ward, check=code)
    assert re.search(sentence, failed.stderr) or sentence in failed.stderr, failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1 and "hush" not in failed.stderr
    assert not (ward.parent / "data").exists()
    nowhere(ward.parent, failed.stdout, failed.stderr)


@pytest.mark.training
@pytest.mark.parametrize("limit", [6_000, 40_000, 60_000, 80_000, 200_000])
def test_a_full_disk_leaves_nothing_half_written_and_the_next_command_goes_on(
    ward: Path, cli: CLI, limit: int
) -> None:
    """Simulated: no file of the process may grow beyond so many bytes."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    failed = warm.run("deid", ward, "extract.segment=2", code=code)
    if failed.returncode:
        assert failed.returncode == 1, failed.stderr
        assert len(failed.stderr.strip().splitlines()) == 1, failed.stderr
        assert not (ward.parent / "data/deidentified.jsonl").exists()
    nowhere(ward.parent, failed.stdout, failed.stderr)
    cli("deid", ward, check=0)
    ids = [
        json.loads(line)["id"]
        for line in (ward.parent / "data/deidentified.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(ids) == len(set(ids)) == 30


def test_notes_older_than_the_limit_leave_the_zone_and_are_accounted_for(
    ward: Path, cli: CLI
) -> None:
    cli("extract", ward, check=0)
    with sqlite3.connect(ward.parent / "identified/ward.notes.sqlite") as database:
        database.execute("UPDATE segments SET taken_at = '2020-01-01T00:00:00+00:00'")
    database.close()
    cli("deid", ward, check=0)
    told = json.loads((ward.parent / "data/deidentified.report.json").read_text("utf-8"))
    assert told["extracted"]["expired"] == 30 and told["extracted"]["held"] == 0
    assert told["ledger"] == {
        "released": 0,
        "refused: removed from the zone before it was de-identified": 30,
    }


def test_notes_leave_the_zone_with_their_release_where_none_are_to_be_kept(
    ward: Path, cli: CLI
) -> None:
    cli("deid", ward, "extract.keep=0", check=0)
    shown = cli("extract", ward, check=0)
    assert "0 new notes" in shown.stdout and "0 notes in the zone" in shown.stdout


def test_a_refused_release_says_why_on_a_page_and_keeps_the_notes_for_the_next_try(
    ward: Path, cli: CLI
) -> None:
    (ward.parent / "inbox/more.csv").write_text(
        "id,patient,text,name\nN32,,không có mã,x\n", "utf-8"
    )
    refused = cli("deid", ward, "deid.release.refused=0.0", check=2)
    assert (
        "were refused" in refused.stderr and not (ward.parent / "data/deidentified.jsonl").exists()
    )
    assert "The release check said no" in (
        ward.parent / "data/deidentified.refused.html"
    ).read_text("utf-8")
    cli("deid", ward, check=0)
    assert len((ward.parent / "data/deidentified.jsonl").read_text("utf-8").splitlines()) == 30
    assert not (ward.parent / "data/deidentified.refused.html").exists()


def test_two_commands_on_one_zone_do_not_meet(ward: Path, cli: CLI) -> None:
    import fcntl

    cli("extract", ward, check=0)
    with (ward.parent / "identified/ward.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = cli("deid", ward, check=1)
    assert (
        "another command works on ward" in refused.stderr
        and len(refused.stderr.strip().splitlines()) == 1
    )
    cli("deid", ward, check=0)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_release_that_was_killed_half_way_is_ended_once(
    ward: Path, cli: CLI, moment: str
) -> None:
    """Killed with the joined file ready or already in its place, and nothing noted of it."""
    program = (
        "import sys, os, signal; from residency.workflows import deidentify as d; joined = d._joined\n"
        "def killed(*given):\n"
        f"    if {moment!r} == 'after': joined(*given)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "d._joined = killed\n"
    )
    cli("deid", ward, check=0)
    (ward.parent / "inbox/more.csv").write_text("id,patient,text,name\nN32,P3,ho khan,x\n", "utf-8")
    died = warm.run("deid", ward, code=program, environment={"RESIDENCY_KEY": KEY})
    assert died.returncode == -signal.SIGKILL, died.stderr
    cli("deid", ward, check=0)
    ids = [
        json.loads(line)["id"]
        for line in (ward.parent / "data/deidentified.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(ids) == len(set(ids)) == 31


def test_an_anonymised_corpus_is_final_and_leaves_no_identified_note(ward: Path, cli: CLI) -> None:
    cli("deid", ward, "deid.profile=anonymised", check=0)
    (ward.parent / "inbox/more.csv").write_text("id,patient,text,name\nN32,P3,ho khan,x\n", "utf-8")
    again = cli("deid", ward, "deid.profile=anonymised", check=0)
    assert "nothing can be added" in again.stdout
    assert len((ward.parent / "data/deidentified.jsonl").read_text("utf-8").splitlines()) == 30
    with sqlite3.connect(ward.parent / "identified/ward.notes.sqlite") as database:
        assert database.execute("SELECT count(*) FROM segments").fetchone() == (0,)
    database.close()
    refused = cli("extract", ward, "deid.profile=anonymised", check=1)
    assert "was anonymised" in refused.stderr
