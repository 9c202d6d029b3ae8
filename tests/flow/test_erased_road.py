"""After the whole road nothing of an erased patient is left: not in a file that any step wrote, and
a copy of a project is cleared without the original."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_deidentify import KEY, plan

from conftest import CLI, lines, write_recipe
from residency.core.sealed import MAGIC
from residency.deid.engine import keyed
from residency.deid.vault import Vault
from residency.synth.hospital_notes import write_hospital

ERASED = int(os.environ.get("RESIDENCY_ERASED", "2"))
"""How many patients are erased, in turn of the train and the test part."""
PATIENTS = max(16, 3 * ERASED)
WORDS = re.compile(r"[^\W\d_]+|\d+|\S")
RUN = 20
"""Characters of a stretch of a note."""


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after extract, deid, split, train, predict, push, pull, agreement, adjudicate; its
    records in a knowledge base."""
    import residency
    from residency.knowledge.passages import KnowledgeBase
    from residency.recipe import Recipe
    from residency.workflows.deidentify import deidentify
    from residency.workflows.knowledge import accept_all, add_records
    from residency.workflows.label import rehearse
    from residency.workflows.split import split

    folder = tmp_path_factory.mktemp("road") / "ward"
    folder.mkdir()
    write_hospital(folder / "hospital.db", "vi", patients=PATIENTS, seed=4)
    changes: dict[str, Any] = {
        "base": "bundled:tiny-encoder",
        "stages": [{"method": {"kind": "lora", "r": 4}, "steps": 4, "batch": 4}],
        "evaluate": {"bootstrap": 20, "show_text": True},
        "label": {"data": "ward", "via": "files", "annotators": 2, "bootstrap": 20},
    }
    path = write_recipe(folder, {**plan(), **changes})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESIDENCY_KEY", KEY)
        recipe = Recipe.load(path)
        deidentify(recipe)
        residency.run(recipe, folder / "runs")
        split(recipe, folder / "split")
        rehearse(recipe)
        with KnowledgeBase(folder / "ward.kb", "ward") as base:
            assert add_records(base, recipe, "ward")
            accept_all(base, "dr-lan")
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "data/deidentified.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def written(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file but the hospital's own and the base's words; sealed stores and weights as they lie
    on the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("hospital.db", "tokenizer.json"):
            yield path, path.read_bytes().decode("utf-8", "replace")


def holding(folder: Path, strings: set[str]) -> set[tuple[str, str]]:
    """(File, string) of every file that holds one, stretches found by sliding over its text."""
    short = [one for one in strings if len(one) != RUN]
    found = set()
    for path, text in written(folder):
        name = str(path.relative_to(folder))
        found |= {(name, one) for one in short if one in text}
        found |= {
            (name, text[at : at + RUN]) for at in range(len(text)) if text[at : at + RUN] in strings
        }
    return found


def own_strings(folder: Path, patient: str, group: str, erased: set[str]) -> set[str]:
    """Codes, the hospital's identifiers that are no names, stretches of 20 characters and label
    quotes that no note of those who stay holds, also not in small letters, on one line and with
    ``75mg`` as two words: so models keep the words of those who stay."""
    every = rows(folder)
    own = [row for row in every if row["group"] == group]
    others = "\n".join(row["text"] for row in every if row["group"] not in erased)
    low = others.lower()
    others = "\n".join([others, " ".join(low.split()), " ".join(WORDS.findall(low))])
    found = {patient, group, *(row["id"] for row in own)}
    database = sqlite3.connect(folder / "hospital.db")
    columns = "national_id, insurance, phone, record_number, relative_phone"
    query = f"SELECT {columns} FROM patients WHERE id = ?"
    found |= {str(value) for value in database.execute(query, (patient,)).fetchone() if value}
    for row in own:
        for line in row["text"].splitlines():
            found |= {line[at : at + RUN] for at in range(len(line) - RUN + 1)}
        found |= {span["text"] for span in row["entities"] if len(span["text"]) >= 8}
    return {one for one in found if one not in others}


@pytest.mark.training
def test_nothing_of_an_erased_patient_is_left_after_the_whole_road_and_the_original_stays(
    road: Path, cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDENCY_KEY", KEY)
    copy = tmp_path / "copy"
    shutil.copytree(road, copy)
    before = {path: path.read_bytes() for path in road.rglob("*") if path.is_file()}
    run = next(path.parent for path in (copy / "runs").glob("*/manifest.json"))
    first = rows(copy)
    lines(copy / "asked.jsonl", [{"id": row["id"], "text": row["text"]} for row in first])
    cli("predict", run, "--input", copy / "asked.jsonl", "--output", copy / "out.jsonl", check=0)
    digest = cli("model", "add", run, "--models", copy / "models", check=0).stdout.split()[0]
    vault = Vault.open(copy / "identified", bytes.fromhex(KEY))
    groups = {keyed(vault.secret(f"P{n:07}"), "patient"): f"P{n:07}" for n in range(PATIENTS)}
    vault.close()
    parts = json.loads((copy / "split/ward.split.json").read_text("utf-8"))
    of_part = {
        part: dict.fromkeys(
            parts["groups"][id] for id, of in parts["split"]["parts"].items() if of == part
        )
        for part in ("test", "train")
    }
    few = list(of_part["test"])[: ERASED // 2]
    whom = {*few, *list(of_part["train"])[: ERASED - len(few)]}
    strings = {one: own_strings(copy, groups[one], one, whom) for one in sorted(whom)}
    assert holding(copy, set.union(*strings.values())), "the scanner sees what stands there"
    # first those whom the model learned from: what they share with the others goes with the last
    for group in [one for one in (*of_part["train"], *of_part["test"]) if one in whom]:
        patient = groups[group]
        assert len(strings[group]) > 100
        held = {path.relative_to(copy) for path, text in written(copy) if group in text}
        assert any(path.parts[0] == "labelling" for path in held), "the road wrote something there"
        assert Path("ward.kb") in held
        done = cli("erase", patient, copy, "--yes", check=0)
        assert "1 secret removed" in done.stdout
        traced = cli("trace", patient, copy, check=0).stdout
        assert "Nothing of this patient" in traced
    assert holding(copy, set.union(*strings.values())) == set()
    with closing(sqlite3.connect(copy / "ward.kb")) as base:
        left = base.execute("select count(distinct patient) from documents").fetchone()
    assert left[0] == PATIENTS - len(whom), "those who stay are there"
    assert len(rows(copy)) == sum(row["group"] not in whom for row in first)
    assert before == {path: path.read_bytes() for path in before}, "the original is as it was"
    assert (run / "report.html").is_file()
    assert any(run.glob("train/*/erased.json"))
    assert (copy / "models/sha256" / digest / "erased.json").is_file(), "its copy is refused too"


@pytest.mark.training
def test_a_file_that_is_not_rewritten_is_named_before_the_secret_is_dropped(
    road: Path, cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDENCY_KEY", KEY)
    copy = tmp_path / "copy"
    shutil.copytree(road, copy)
    row = rows(copy)[0]
    (copy / "letter.txt").write_text(f"see {row['text']}", "utf-8")
    refused = cli("erase", row["group"], copy, "--yes", check=2)
    assert "letter.txt" in refused.stderr and row["text"][:20] not in refused.stderr
    vault = Vault.open(copy / "identified", bytes.fromhex(KEY))
    assert len(vault) == PATIENTS, "the secret is still there"
    vault.close()
    (copy / "letter.txt").unlink()
    packed = io.BytesIO(json.dumps(row).encode())
    for name in ("sent.zip", "sent.tgz", "sent.jsonl.gz"):
        if name.endswith("zip"):
            with zipfile.ZipFile(copy / name, "w") as archive:
                archive.writestr("notes.jsonl", packed.getvalue())
        elif name.endswith("tgz"):
            with tarfile.open(copy / name, "w:gz") as tar:
                member = tarfile.TarInfo("notes.jsonl")
                member.size = len(packed.getvalue())
                tar.addfile(member, io.BytesIO(packed.getvalue()))
        else:
            (copy / name).write_bytes(gzip.compress(packed.getvalue()))
        assert name in cli("erase", row["group"], copy, "--yes", check=2).stderr
        (copy / name).unlink()
    (copy / "kept.backup").write_bytes(MAGIC + b"sealed")
    traced = cli("trace", row["group"], copy, check=0)
    assert "kept.backup" in " ".join((traced.stdout + traced.stderr).split())
    assert "1 secret removed" in cli("erase", row["group"], copy, "--yes", check=0).stdout
