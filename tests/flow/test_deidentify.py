"""From a hospital's database to notes that may be learned from, and back to it for what is new."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import yaml

import warm
from conftest import CLI
from residency.deid.view import plain
from residency.synth.hospital_notes import write_hospital

KEY = "0123456789abcdef" * 4
NOTES = """
SELECT n.id, p.id AS patient, n.kind, n.written_at, n.text, p.name, p.birth_date, p.national_id, p.insurance, p.phone, p.address,
       p.record_number, p.relative_name, p.relative_phone
FROM notes n JOIN encounters e ON n.encounter_id = e.id JOIN patients p ON e.patient_id = p.id
"""


def plan(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "ward",
        "extract": {
            "url": "sqlite:///hospital.db",
            "notes": NOTES,
            "labels": "SELECT note_id, start, stop, label FROM labels",
            "columns": {"kind": "kind", "written_at": "written_at"},
            "identifiers": {
                "name": "name",
                "relative": "relative_name",
                "phone": ["phone", "relative_phone"],
                "national_id": "national_id",
                "insurance": "insurance",
                "address": "address",
                "record": "record_number",
                "birth_date": "birth_date",
            },
            "lang": "vi",
        },
        "deid": {"profile": "pseudonymised", "tagger": "off"},
        "data": {"ward": {"format": "jsonl", "path": "data/deidentified.jsonl", "lang": "vi"}},
        "tasks": [{"card": "clinical", "data": "ward"}],
        **changes,
    }


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESIDENCY_KEY", KEY)
    write_hospital(tmp_path / "hospital.db", "vi", patients=30, seed=4)
    return written(tmp_path, plan())


def written(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), "utf-8")
    return path


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (folder / "data/deidentified.jsonl").read_text("utf-8").splitlines()
    ]


def squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", plain(normalize("NFC", text)))


def everything(folder: Path, but: str = "") -> bytes:
    """All files but the hospital's own database."""
    return b"".join(
        path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("hospital.db", but)
    )


def test_notes_come_out_with_their_labels_and_without_their_patients(
    hospital: Path, cli: CLI
) -> None:
    folder = hospital.parent
    shown = cli("deid", hospital, check=0)
    database = sqlite3.connect(folder / "hospital.db")
    texts = dict(database.execute("SELECT id, text FROM notes"))
    labels = database.execute("SELECT count(*) FROM labels").fetchone()[0]
    made = rows(folder)
    report = json.loads((folder / "data/deidentified.report.json").read_text("utf-8"))
    assert len(made) + sum(report["refused"].values()) == len(texts)
    assert sum(len(row["entities"]) for row in made) >= labels * 0.98
    for row in made:
        assert all(row["text"][e["start"] : e["end"]] == e["text"] for e in row["entities"])
    out = squeezed(" ".join(row["text"] for row in made))
    for name, phone, national in database.execute("SELECT name, phone, national_id FROM patients"):
        assert squeezed(phone) not in out and squeezed(national) not in out
        assert name.encode() not in everything(
            folder, but="deidentified.jsonl"
        )  # where it may be another's surrogate
        assert name not in shown.stdout + shown.stderr
    assert len({row["group"] for row in made}) == len({id.split("-")[0] for id in texts})
    assert (folder / "identified").stat().st_mode & 0o077 == 0


def test_the_next_extraction_takes_only_what_is_new_and_patients_keep_their_codes(
    hospital: Path, cli: CLI
) -> None:
    folder = hospital.parent
    cli("deid", hospital, check=0)
    before = rows(folder)
    database = sqlite3.connect(folder / "hospital.db")
    encounter, text = database.execute(
        "SELECT encounter_id, text FROM notes ORDER BY id DESC LIMIT 1"
    ).fetchone()
    database.execute(
        "INSERT INTO notes VALUES ('Z1', ?, 'progress', '2024-06-01', ?)", (encounter, text)
    )
    database.commit()
    cli("deid", hospital, check=0)
    after = rows(folder)
    assert after[:-1] == before
    assert after[-1]["group"] == next(
        row["group"] for row in before if row["text"] == after[-1]["text"]
    )
    cli("deid", hospital, check=0)
    assert rows(folder) == after


@pytest.mark.training
def test_a_killed_process_goes_on_with_nothing_lost_or_doubled(
    hospital: Path, tmp_path: Path, cli: CLI
) -> None:
    folder = hospital.parent
    program = (
        "import sys, os, signal; from residency.workflows import deidentify as d; done = [0]; add = "
        "d.ZoneFiles.add\n"
        "def killed(self, *given):\n"
        "    done[0] += 1\n"
        "    if done[0] == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return add(self, *given)\n"
        "d.ZoneFiles.add = killed\n"
    )
    for _ in range(2):
        died = warm.run(
            "deid", hospital, "extract.segment=7", code=program, environment={"RESIDENCY_KEY": KEY}
        )
        assert died.returncode == -signal.SIGKILL
        assert not (folder / "data/deidentified.jsonl").exists()
    with (folder / "identified/ward.partial.jsonl").open("ab") as file:
        file.write(b'{"id": "torn')
    cli("deid", hospital, "extract.segment=7", check=0)
    resumed = rows(folder)
    assert len({row["id"] for row in resumed}) == len(resumed)
    count = (
        sqlite3.connect(folder / "hospital.db").execute("SELECT count(*) FROM notes").fetchone()[0]
    )
    report = json.loads((folder / "data/deidentified.report.json").read_text("utf-8"))
    assert len(resumed) + sum(report["refused"].values()) == count


def changed(recipe: dict[str, Any], section: str, **values: Any) -> dict[str, Any]:
    return {**recipe, section: {**recipe[section], **values}}


BAD = [
    ("extract", {"notes": "DELETE FROM notes"}, "is not a plain SELECT", 1),
    ("extract", {"notes": "SELECT 1; SELECT 2"}, "2 statements", 1),
    (
        "extract",
        {"notes": "WITH x AS (DELETE FROM notes RETURNING *) SELECT * FROM x"},
        "SELECT",
        1,
    ),
    ("extract", {"notes": "SELEKT nothing"}, "SELECT", 1),
    ("extract", {"notes": "SELECT id, text FROM notes"}, "gives no column 'patient'", 1),
    ("extract", {"notes": "SELECT id, text FROM missing"}, "the database refused", 1),
    ("extract", {"url": "sqlite:///gone.db"}, "does not exist", 1),
    ("extract", {"url": "env:NO_SUCH_URL"}, "NO_SUCH_URL is not set", 1),
    ("extract", {"url": "postgresql://user:secret@host/db"}, "a password does not belong", 1),
    ("deid", {"release": {"refused": 0.0, "similar": False}}, "were refused", 2),
]


@pytest.mark.parametrize(("section", "values", "sentence", "code"), BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    hospital: Path, cli: CLI, section: str, values: dict[str, Any], sentence: str, code: int
) -> None:
    if "release" in values:  # a note without a patient is refused
        database = sqlite3.connect(hospital.parent / "hospital.db")
        database.execute("UPDATE patients SET id = '' WHERE id = (SELECT min(id) FROM patients)")
        database.execute(
            "UPDATE encounters SET patient_id = '' WHERE patient_id = (SELECT min(patient_id) FROM "
            "encounters)"
        )
        database.commit()
    written(hospital.parent, changed(plan(), section, **values))
    refused = cli("deid", hospital, check=code)
    assert sentence in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "secret" not in refused.stderr
    assert not (hospital.parent / "data/deidentified.jsonl").exists()


def test_a_wrong_key_is_a_gate_that_says_no(
    hospital: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("deid", hospital, check=0)
    monkeypatch.setenv("RESIDENCY_KEY", "f" * 64)
    refused = cli("deid", hospital, check=2)
    assert "cannot be opened with this key" in refused.stderr


def test_an_anonymised_corpus_leaves_no_vault(hospital: Path, cli: CLI) -> None:
    written(hospital.parent, plan(deid={"profile": "anonymised", "tagger": "off"}))
    cli("deid", hospital, check=0)
    assert rows(hospital.parent)[0]["profile"] == "anonymised"
    assert {path.name for path in (hospital.parent / "identified").glob("vault*")} == {
        "vault.destroyed.json"
    }


@pytest.mark.training
@pytest.mark.parametrize("kept_every", [1, 1000])
def test_the_gate_knows_after_a_kill_what_it_knew_before(
    hospital: Path, cli: CLI, kept_every: int
) -> None:
    """Notes that it saw before are shown to it again where they were not kept: its counts are those
    of a run that was not killed."""
    folder = hospital.parent
    program = (
        "import sys, os, signal; from residency.workflows import deidentify as d; done = [0]; add = "
        "d.ZoneFiles.add\n"
        f"d.SEEN_BYTES = {1 << 30 if kept_every == 1 else 0}\n"
        "def killed(self, *given):\n"
        "    done[0] += 1\n"
        "    if done[0] == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return add(self, *given)\n"
        "d.ZoneFiles.add = killed\n"
    )
    died = warm.run(
        "deid", hospital, "extract.segment=7", code=program, environment={"RESIDENCY_KEY": KEY}
    )
    assert died.returncode == -signal.SIGKILL
    cli("deid", hospital, "extract.segment=7", check=0)
    report = json.loads((folder / "data/deidentified.report.json").read_text("utf-8"))
    count = (
        sqlite3.connect(folder / "hospital.db").execute("SELECT count(*) FROM notes").fetchone()[0]
    )
    assert report["gate"]["notes"] == count and report["gate"]["canaries"] >= 30


AMENDED = NOTES.replace("n.text,", "n.text, n.gone,").replace(
    "n.kind, n.written_at", "n.kind, n.at"
)


@pytest.fixture
def living(hospital: Path) -> Path:
    """The same hospital, whose notes are amended and deleted; 30 patients, small segments."""
    with sqlite3.connect(hospital.parent / "hospital.db") as database:
        database.execute("ALTER TABLE notes ADD COLUMN gone INTEGER")
        database.execute("ALTER TABLE notes ADD COLUMN at TEXT")
        database.execute("UPDATE notes SET at = '2024-01-01 ' || id")
    database.close()
    columns = {"kind": "kind", "deleted": "gone"}
    extract = plan()["extract"] | {"notes": AMENDED, "mark": "at", "segment": 7, "columns": columns}
    extract.pop("labels")
    return written(hospital.parent, plan(extract=extract))


def change(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "hospital.db") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def started_anew(living: Path, cli: CLI) -> list[str]:
    """The released rows of a fresh start on the source as it is, with the same vault, sorted."""
    folder = living.parent
    for path in (folder / "identified").glob("ward.notes.sqlite*"):
        path.unlink()
    shutil.move(folder / "data", folder / "before")
    cli("deid", living, check=0)
    return sorted((folder / "data/deidentified.jsonl").read_text("utf-8").splitlines())


def test_amended_late_and_deleted_notes_end_as_a_fresh_start_on_the_final_state(
    living: Path, cli: CLI
) -> None:
    folder = living.parent
    cli("deid", living, check=0)
    before = {row["id"]: row for row in rows(folder)}
    first, second, third = sorted(
        id for (id,) in sqlite3.connect(folder / "hospital.db").execute("SELECT id FROM notes")
    )[:3]
    change(
        folder,
        f"UPDATE notes SET text = text || char(10) || 'ho khan thêm', at = '2025' WHERE id = '{first}'",
        f"UPDATE notes SET gone = 1, at = '2026' WHERE id = '{second}'",
        f"INSERT INTO notes SELECT 'Z9', encounter_id, kind, written_at, text, NULL, '2027' "
        f"FROM notes WHERE id = '{third}'",
    )
    cli("deid", living, check=0)
    after = {row["id"]: row for row in rows(folder)}
    assert len(after) == len(before) == len(rows(folder))
    assert sum("ho khan thêm" in row["text"] for row in after.values()) == 1
    assert len(before.keys() - after.keys()) == len(after.keys() - before.keys()) == 1
    report = json.loads((folder / "data/deidentified.report.json").read_text("utf-8"))
    assert report["ledger"]["released"] == len(after)
    assert report["ledger"]["removed: no longer at the source"] == 1
    assert report["ledger"]["earlier versions of amended notes"] == 1
    assert "waiting in the zone, or erased" not in report["ledger"]
    incremental = sorted((folder / "data/deidentified.jsonl").read_text("utf-8").splitlines())
    assert started_anew(living, cli) == incremental


def test_a_patient_who_was_merged_has_one_code_and_the_notes_say_what_they_were(
    living: Path, cli: CLI
) -> None:
    folder = living.parent
    cli("deid", living, check=0)
    before = rows(folder)
    gone, stays = "P0000000", "P0000001"
    (folder / "merged.csv").write_text(f"patient,into\n{gone},{stays}\n", "utf-8")
    cli("deid", living, "extract.merged=merged.csv", check=0)
    after = rows(folder)
    assert len({row["group"] for row in before}) - 1 == len({row["group"] for row in after})
    moved = [
        json.loads(line)
        for line in (folder / "data/deidentified.moved.jsonl").read_text("utf-8").splitlines()
    ]
    assert {one["was"] for one in moved} == {r["id"] for r in before} - {r["id"] for r in after}
    assert {one["id"] for one in moved} == {r["id"] for r in after} - {r["id"] for r in before}
    assert len(after) == len(before) and moved


def test_the_report_says_what_stands_there_whatever_the_last_command_did(
    living: Path, cli: CLI
) -> None:
    folder = living.parent
    cli("deid", living, check=0)
    path = folder / "data/deidentified.report.json"
    first = json.loads(path.read_text("utf-8"))
    assert first["gate"]["canaries"] == 30
    cli("deid", living, check=0)
    again = json.loads(path.read_text("utf-8"))
    assert {**again, "extracted": 0} == {**first, "extracted": 0}
    change(
        folder,
        "INSERT INTO notes SELECT 'Z9', encounter_id, kind, written_at, text, NULL, '2027' "
        "FROM notes LIMIT 1",
    )
    shown = cli("deid", living, "deid.release.bound=0.1", check=0)
    assert "0 of 30" in shown.stdout, "the whole was tried on 30 patients, the new note on one"
    more = json.loads(path.read_text("utf-8"))
    assert more["gate"]["notes"] == first["gate"]["notes"] + 1
    assert more["replaced"]["name"] >= first["replaced"]["name"] and more["new"] == 1
    change(folder, "UPDATE notes SET gone = 1, at = '2028' WHERE id = 'Z9'")
    cli("deid", living, check=0)
    assert json.loads(path.read_text("utf-8"))["gate"] == more["gate"]
    assert json.loads(path.read_text("utf-8"))["notes"] == first["notes"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_amendment_whose_release_was_killed_is_released_once(
    living: Path, cli: CLI, moment: str
) -> None:
    """Killed with the file ready, or in its place; the new text is as long as the old one."""
    folder = living.parent
    cli("deid", living, check=0)
    change(
        folder,
        "UPDATE notes SET text = 'Z' || substr(text, 2), at = '2025' WHERE at < '2024-01-01 Z'",
    )
    name = "_begin" if moment == "before" else "_released"
    program = (
        "import sys, os, signal; from residency.workflows.deidentify import ZoneFiles as z\n"
        f"done = z.{name}\n"
        "def killed(*given):\n"
        f"    if {moment!r} == 'before': done(*given)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"z.{name} = killed\n"
    )
    died = warm.run("deid", living, code=program, environment={"RESIDENCY_KEY": KEY})
    assert died.returncode == -signal.SIGKILL
    cli("deid", living, check=0)
    made = sorted((folder / "data/deidentified.jsonl").read_text("utf-8").splitlines())
    assert all(json.loads(line)["text"].startswith("Z") for line in made)
    assert json.loads((folder / "data/deidentified.report.json").read_text("utf-8"))["new"]
    assert started_anew(living, cli) == made
