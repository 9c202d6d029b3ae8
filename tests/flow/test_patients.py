"""A patient of an invented hospital is traced through data, split, run and models, and erased from
all of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_deidentify import KEY, plan

from conftest import CLI, lines, recipe_of, row, write_recipe
from residency.ingest.store import Store
from residency.synth.clinical_notes import records
from residency.synth.hospital_notes import write_hospital
from residency.workflows.patients.erasure_log import ErasureLog

NOTHING = "Nothing of this patient"


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A hospital's project whose notes were de-identified, split and learned from; tests work on
    copies."""
    import residency
    from residency.recipe import Recipe
    from residency.workflows.deidentify import deidentify
    from residency.workflows.split import split

    folder = tmp_path_factory.mktemp("learned") / "ward"
    folder.mkdir()
    write_hospital(folder / "hospital.db", "vi", patients=24, seed=4)
    stages = [{"method": {"kind": "lora", "r": 4}, "steps": 4, "batch": 4}]
    changes: dict[str, Any] = {
        "base": str(tiny),
        "stages": stages,
        "evaluate": {"bootstrap": 20, "show_text": True},
    }
    path = write_recipe(folder, {**plan(), **changes})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESIDENCY_KEY", KEY)
        recipe = Recipe.load(path)
        deidentify(recipe)
        residency.run(recipe, folder / "runs")
        split(recipe, folder / "split")
    return folder


@pytest.fixture
def ward(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESIDENCY_KEY", KEY)
    folder = tmp_path / "ward"
    shutil.copytree(learned, folder)
    manifest = run_of(folder) / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace(str(learned), str(folder)), "utf-8")
    return folder


def run_of(ward: Path) -> Path:
    return next(path.parent for path in (ward / "runs").glob("*/manifest.json"))


def whole(ward: Path, databases: bool = True) -> bytes:
    """Everything but the hospital's own database; the zone's too, whose counters change when they
    are only opened."""
    files = [
        path for path in sorted(ward.rglob("*")) if path.is_file() and path.name != "hospital.db"
    ]
    return b"".join(path.read_bytes() for path in files if databases or ".sqlite" not in path.name)


def split_of(ward: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_of(ward) / "data/ward.split.json").read_text("utf-8"))
    return found


def someone(ward: Path, part: str) -> tuple[str, str, list[str]]:
    """A patient of a part: the hospital's id, the group, the ids of the notes."""
    from residency.deid.engine import keyed
    from residency.deid.vault import Vault

    split = split_of(ward)
    group = next(
        split["groups"][id] for id, where in split["split"]["parts"].items() if where == part
    )
    vault = Vault.open(ward / "identified", bytes.fromhex(KEY))
    patients = [f"P{number:07}" for number in range(24)]
    (patient,) = [
        p for p in patients if vault.knows(p) and keyed(vault.secret(p), "patient") == group
    ]
    vault.close()
    return patient, group, [id for id, of in split["groups"].items() if of == group]


@pytest.mark.training
def test_a_test_patient_is_found_everywhere_and_nothing_of_it_is_left_after_erasure(
    ward: Path, cli: CLI
) -> None:
    patient, group, ids = someone(ward, "test")
    shutil.copytree(
        next((run_of(ward) / "eval").iterdir()), run_of(ward) / "compare"
    )  # as comparisons keep answers
    traced = cli("trace", patient, ward, "--json", check=0)
    found = json.loads(traced.stdout)
    assert patient not in traced.stdout + traced.stderr
    by_kind = {
        kind: [one for one in found if one["what"] == kind]
        for kind in {one["what"] for one in found}
    }
    assert set(by_kind) == {"data", "split", "ledger", "prediction", "report", "zone", "vault"}
    assert [one["rows"] for one in by_kind["zone"]] == [len(ids)]
    (data,) = by_kind["data"]
    written = (ward / "data/deidentified.jsonl").read_text("utf-8").splitlines()
    assert data["lines"] == [
        n for n, line in enumerate(written, 1) if json.loads(line)["group"] == group
    ]
    assert sorted(data["ids"]) == sorted(ids)
    systems = ("base", "crf", "dictionary", "tuned")
    assert len(by_kind["prediction"]) == 2 * len(systems), "of the run and of its evaluation"
    assert {one["rows"] for one in by_kind["prediction"]} == {len(ids)}
    assert len(by_kind["split"]) == 2
    texts = [json.loads(line)["text"] for line in written if json.loads(line)["group"] == group]
    before = whole(ward, databases=False)
    assert "Nothing was changed" in cli("erase", patient, ward, check=0).stdout
    assert whole(ward, databases=False) == before
    done = cli("erase", patient, ward, "--yes", check=0)
    assert (
        "0 models marked, 1 secret removed" in done.stdout
        and patient not in done.stdout + done.stderr
    )
    after = whole(ward)
    for code in (patient, group, *ids):
        assert code.encode() not in after
    kept = json.dumps(texts, ensure_ascii=False).encode()
    for piece in re.findall(rb"[^\\\"]{60,}", kept):
        assert piece not in after
    assert len((ward / "data/deidentified.jsonl").read_text("utf-8").splitlines()) == len(
        written
    ) - len(ids)
    assert NOTHING in cli("trace", patient, ward, check=0).stdout
    assert "is left: erased 20" in cli("erase", patient, ward, "--yes", check=0).stdout
    for path in (ward / "split/ward.split.json", run_of(ward) / "data/ward.split.json"):
        cli("split", "--verify", path, check=0)
    store = Store.open(ward / "identified", "ward", bytes.fromhex(KEY))
    assert all(
        note.patient != patient for number in store.numbers(0) for note in store.read(number)
    )
    store.close()
    cli("deid", ward / "recipe.yaml", check=0)
    assert NOTHING in cli("trace", patient, ward, check=0).stdout, (
        "the hospital still has the notes; they are not taken again"
    )


@pytest.mark.training
def test_a_model_that_learned_from_an_erased_patient_says_so_wherever_it_is_used(
    ward: Path, cli: CLI
) -> None:
    patient, group, ids = someone(ward, "train")
    run = run_of(ward)
    copied = ward / "runs/other-12345678"  # a run whose model holds the weights of the other one
    shutil.copytree(run, copied)
    shutil.rmtree(copied / "data")
    found = json.loads(cli("trace", group, ward, "--json", check=0).stdout)
    assert [one["detail"] for one in found if one["what"] == "model"] == [
        f"learned from {len(ids)} train"
    ]
    assert [Path(one["path"]).parts[-3] for one in found if one["what"] == "derived model"] == [
        "other-12345678"
    ]
    cli("erase", patient, ward, "--yes", check=0)
    said = f"{len(ids)} note{'s' if len(ids) > 1 else ''} of 1 patient that this model learned from"
    (mark,) = json.loads(next(run.glob("train/*/erased.json")).read_text("utf-8"))
    assert (
        mark["rows"] == len(ids)
        and patient not in json.dumps(mark)
        and group not in json.dumps(mark)
    )
    assert next(copied.glob("train/*/erased.json")).is_file()
    told = f"{len(ids)} văn bản của 1 bệnh nhân mà mô hình này đã học đã bị xóa"
    for name, words in (("report.html", told), ("report.md", told), ("model_card.md", said)):
        assert words in (run / name).read_text("utf-8"), name
    notes = lines(ward / "notes.jsonl", [{"text": "ho và sốt"}])
    assert (
        said
        in cli("predict", run, "--input", notes, "--output", ward / "out.jsonl", check=0).stderr
    )
    assert said in cli("check", ward / "recipe.yaml", "--runs", ward / "runs", check=0).stdout
    cli("eval", run, "evaluate.bootstrap=0", check=0)
    assert any(told in path.read_text("utf-8") for path in run.glob("evaluations/*/report.md"))
    stage = json.loads(next(run.glob("train/*/stage.json")).read_text("utf-8"))
    assert "sample" not in stage["mask"]


@pytest.mark.training
def test_an_erasure_that_is_cut_off_anywhere_is_ended_by_the_same_command(
    ward: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient, group, ids = someone(ward, "train")
    real, left = ErasureLog.add, 0

    def cut(self: ErasureLog, *given: Any, **named: Any) -> None:
        nonlocal left
        real(self, *given, **named)
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ErasureLog, "add", cut)
        for steps in range(40):
            left = steps  # the next attempt gets one step further
            if cli("erase", patient, ward, "--yes").returncode == 0:
                break
    assert 3 < steps < 39
    after = whole(ward)
    assert not [code for code in (patient, group, *ids) if code.encode() in after]
    assert len(json.loads(next(run_of(ward).glob("train/*/erased.json")).read_text("utf-8"))) == 1
    assert NOTHING in cli("erase", patient, ward, "--yes", check=0).stdout
    cli("split", "--verify", run_of(ward) / "data/ward.split.json", check=0)
    log = ErasureLog(ward / "identified/erasures.jsonl", bytes.fromhex(KEY))
    assert log.state((log.hash_id(patient),)) == "finished"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Notes with groups of their own, without a zone; nothing is trained."""
    monkeypatch.setenv("RESIDENCY_KEY", KEY)
    folder = tmp_path / "small"
    rows = [{"id": f"n{i}", "group": f"p{i // 2}", "text": f"note {i} " * 9} for i in range(12)]
    rows.append(
        {"id": "made", "group": "generator", "text": "made from another", "parents": ["n0"]}
    )
    lines(folder / "data/notes.jsonl", rows)
    write_recipe(folder, recipe_of("bundled:tiny-encoder"))
    return folder


def test_what_was_made_from_a_patients_notes_goes_with_them(small: Path, cli: CLI) -> None:
    cli("erase", "p0", small, "--yes", check=0)
    assert [
        json.loads(line)["id"]
        for line in (small / "data/notes.jsonl").read_text("utf-8").splitlines()
    ] == [f"n{i}" for i in range(2, 12)]


def test_an_id_that_another_file_has_too_is_not_taken_for_the_same_note(
    small: Path, cli: CLI
) -> None:
    other = lines(
        small / "other.jsonl", [{"id": "n0", "group": "someone else", "text": "another hospital's"}]
    )
    before = other.read_bytes()
    cli("erase", "p0", small, "--yes", check=0)
    assert other.read_bytes() == before


def test_rows_without_ids_keep_their_line_numbers(small: Path, cli: CLI) -> None:
    path = lines(
        small / "data/notes.jsonl", [{"group": f"p{i}", "text": f"note {i} " * 9} for i in range(4)]
    )
    cli("split", small / "recipe.yaml", check=0)
    cli("erase", "p1", small, "--yes", check=0)
    assert [bool(line.strip()) for line in path.read_text("utf-8").splitlines()] == [
        True,
        False,
        True,
        True,
    ]
    cli("split", "--verify", small / "split/notes.split.json", check=0)


def test_rows_that_could_not_be_used_are_the_patients_too(small: Path, cli: CLI) -> None:
    path = small / "data/notes.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(
            json.dumps(
                {
                    "id": "bad",
                    "group": "p3",
                    "text": "x",
                    "entities": [{"start": 5, "end": 9, "label": "a"}],
                }
            )
            + "\n"
        )
    traced = json.loads(cli("trace", "p3", small, "--json", check=0).stdout)
    assert traced[0]["ids"] == ["n6", "n7", "bad"]


def test_a_format_that_is_not_rewritten_is_named_and_the_erasure_stays_open(
    small: Path, cli: CLI
) -> None:
    path = small / "data/notes.csv"
    path.write_text("id,group,text\na,p1,one\nb,p2,two\n", "utf-8")
    data = {
        "notes": {
            "format": "csv",
            "path": "data/notes.csv",
            "columns": {"group": "group"},
            "lang": "vi",
        }
    }
    write_recipe(small, recipe_of("bundled:tiny-encoder", data=data))
    refused = cli("erase", "p1", small / "recipe.yaml", "--yes", check=2)
    assert f"{path}:2" in refused.stderr and "remove them there" in refused.stderr
    path.write_text("id,group,text\nb,p2,two\n", "utf-8")
    cli("erase", "p1", small / "recipe.yaml", "--yes", check=0)


def test_the_patient_may_be_named_on_standard_input(
    small: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.StringIO("p1\n"))
    assert "2 rows in 1 files" in cli("trace", "-", small, check=0).stdout


def test_bad_input_is_one_sentence_without_the_patient(
    small: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, arguments in {
        "does not exist": ("trace", "p1", small / "gone"),
        "is empty": ("trace", " ", small),
        "is no recipe": ("trace", "p1", lines(small / "x.txt", [])),
    }.items():
        said = cli(*arguments, check=1).stderr
        assert words in said and said.count("\n") == 1 and "p1" not in said
    log = small / "erasures.jsonl"
    cli("erase", "p1", small, "--yes", check=0)
    log.write_text(log.read_text("utf-8").replace('"rows":2', '"rows":3'), "utf-8")
    assert (
        "was changed, or a line before it is missing"
        in cli("erase", "p2", small, "--yes", check=2).stderr
    )
    monkeypatch.delenv("RESIDENCY_KEY")
    assert "RESIDENCY_KEY" in cli("erase", "p2", small, check=1).stderr


def test_the_log_says_what_was_done_and_not_of_whom(small: Path, cli: CLI) -> None:
    cli("erase", "p1", small, "--yes", check=0)
    text = (small / "erasures.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert [one["event"] for one in rows] == ["begun", "rewrote", "finished"]
    assert '"p1"' not in text and all(
        re.fullmatch(r"[0-9a-f]{32}", one["patient"][0]) for one in rows
    )


def test_invented_records_of_another_patient_stay_as_they_are(small: Path, cli: CLI) -> None:
    path = lines(small / "data/notes.jsonl", [row(note) for note in records("vi", 8, seed=1)])
    before = path.read_bytes()
    assert NOTHING in cli("erase", "nobody", small, "--yes", check=0).stdout
    assert path.read_bytes() == before
