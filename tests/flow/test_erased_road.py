"""After the whole road nothing of an erased patient is left: not in a file that any step wrote, and
a copy of a project is cleared without the original."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_deidentify import KEY, plan

from conftest import CLI, lines, write_recipe
from residency.deid.engine import keyed
from residency.deid.vault import Vault
from residency.synth.hospital_notes import write_hospital


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after extract, deid, split, train, predict, push, pull, agreement, adjudicate."""
    import residency
    from residency.recipe import Recipe
    from residency.workflows.deidentify import deidentify
    from residency.workflows.label import rehearse
    from residency.workflows.split import split

    folder = tmp_path_factory.mktemp("road") / "ward"
    folder.mkdir()
    write_hospital(folder / "hospital.db", "vi", patients=16, seed=4)
    changes: dict[str, Any] = {
        "stages": [{"method": {"kind": "crf"}}],
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
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "data/deidentified.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def written(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file but the hospital's own, the sealed ones, and what a marked model is made of."""
    for path in sorted(folder.rglob("*")):
        model = "train" in path.parts and path.name != "stage.json"
        sealed = ".sqlite" in path.name or path.name == "hospital.db"
        if path.is_file() and not sealed and not model:
            yield path, path.read_bytes().decode("utf-8", "replace")


def own_strings(folder: Path, patient: str, group: str) -> set[str]:
    """Codes, the hospital's identifiers that are no names, stretches of 20 characters and label
    quotes that no other patient's note holds."""
    every = rows(folder)
    own = [row for row in every if row["group"] == group]
    others = "\n".join(row["text"] for row in every if row["group"] != group)
    found = {patient, group, *(row["id"] for row in own)}
    database = sqlite3.connect(folder / "hospital.db")
    columns = "national_id, insurance, phone, record_number, relative_phone"
    query = f"SELECT {columns} FROM patients WHERE id = ?"
    found |= {str(value) for value in database.execute(query, (patient,)).fetchone() if value}
    for row in own:
        for line in row["text"].splitlines():
            found |= {line[at : at + 20] for at in range(len(line) - 19)}
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
    vault = Vault.open(copy / "identified", bytes.fromhex(KEY))
    groups = {keyed(vault.secret(f"P{n:07}"), "patient"): f"P{n:07}" for n in range(16)}
    vault.close()
    parts = json.loads((copy / "split/ward.split.json").read_text("utf-8"))
    whom = {
        part: next(parts["groups"][id] for id, of in parts["split"]["parts"].items() if of == part)
        for part in ("train", "test")
    }
    for group in whom.values():
        patient = groups[group]
        strings = own_strings(copy, patient, group)
        assert len(strings) > 100
        held = {path.relative_to(copy) for path, text in written(copy) if group in text}
        assert any(path.parts[0] == "labelling" for path in held), "the road wrote something there"
        done = cli("erase", patient, copy, "--yes", check=0)
        assert "1 secret removed" in done.stdout
        left = {
            (str(path.relative_to(copy)), one)
            for path, text in written(copy)
            for one in strings
            if one in text
        }
        assert left == set()
        traced = cli("trace", patient, copy, check=0).stdout
        assert "Nothing of this patient" in traced
    assert len(rows(copy)) == sum(row["group"] not in whom.values() for row in first)
    assert before == {path: path.read_bytes() for path in before}, "the original is as it was"
    assert (run / "report.html").is_file()
    assert any(run.glob("train/*/erased.json"))


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
    assert len(vault) == 16, "the secret is still there"
    vault.close()
    (copy / "letter.txt").unlink()
    assert "1 secret removed" in cli("erase", row["group"], copy, "--yes", check=0).stdout
