"""A recipe becomes a measured model; what is done is found again; the model answers and is measured
elsewhere."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import residency
from conftest import CLI, SECRET, lines, process, recipe_of, spoken, write_recipe
from residency.core.errors import UserError
from residency.core.run_folder import Run
from residency.corpus import load
from residency.models.artefact import read
from residency.recipe import Recipe
from residency.synth.clinical_notes import records
from residency.workflows.finished import finished_facts

pytestmark = pytest.mark.training


def test_a_run_holds_artefact_scores_report_and_manifest_and_no_text_in_its_log(
    finished: tuple[Path, Path],
) -> None:
    project, run = finished
    artefact = read(run / "train/1-lora")
    assert artefact.task().names[:2] == ("diagnosis", "symptom")
    assert artefact.files.keys() >= {"adapter_model.safetensors", "tokenizer.json"}
    facts = json.loads((run / "facts.json").read_text())
    assert [report["system"]["name"] for report in facts["reports"]] == [
        "base",
        "crf",
        "dictionary",
        "tuned",
    ]
    assert (
        facts["reports"][-1]["n"]
        + sum(facts["data"][0]["parts"][p]["notes"] for p in ("train", "dev"))
        == 60
    )
    assert facts["reports"][-1]["comparisons"][0]["metric"] == "span_f1"
    for name in (
        "report.html",
        "report.md",
        "model_card.md",
        "plots/scores-clinical.svg",
        "plots/training-1-lora.svg",
    ):
        assert (run / name).stat().st_size > 500, name
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["status"] == "done" and manifest["profile"] == "pseudonymised"
    assert list(manifest["steps"]) == ["data", "train/1-lora", "eval/clinical", "report"]
    assert list(manifest["inputs"]) == ["data/notes.jsonl"]
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {key for event in events for key in event} == {"time", "event", "step", "how", "seconds"}
    assert list(run.rglob("*.partial")) == [] and not (run / ".work").exists()
    assert spoken(project) == []


def test_the_second_run_is_all_cached_and_loads_nothing_heavy(finished: tuple[Path, Path]) -> None:
    project, run = finished
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"}
    heavy = (
        "import atexit; atexit.register(lambda: print([m for m in ('torch', 'transformers', "
        "'peft', 'matplotlib') if m in sys.modules]))"
    )
    started = os.times()
    again = process("run", project / "recipe.yaml", "--runs", project / "runs", code=heavy)
    spent = os.times()
    seconds = [spent[two] - started[two] for two in (2, 3)]  # of processor, of what was waited for
    assert sum(seconds) < 5
    assert again.returncode == 0 and again.stderr == ""
    assert "Nothing has changed" in again.stdout and again.stdout.endswith("[]\n")
    assert max(map(len, again.stdout.split("\nreport")[0].splitlines())) <= 80
    assert {
        path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"
    } == before


def test_a_changed_evaluation_reuses_the_training_of_the_earlier_run(
    finished: tuple[Path, Path], cli: CLI
) -> None:
    project, run = finished
    told = cli(
        "run",
        project / "recipe.yaml",
        "evaluate.bootstrap=10",
        "--runs",
        project / "runs",
        "--explain",
        check=0,
    )
    words = dict(line.split(maxsplit=1) for line in told.stdout.splitlines())
    assert words == {
        "data": "found in an earlier run",
        "train/1-lora": "found in an earlier run",
        "eval/clinical": "runs: evaluate.bootstrap 20 -> 10",
        "report": "runs: recipe.evaluate.bootstrap 20 -> 10; eval changed",
    }
    other = residency.run(
        Recipe.load(project / "recipe.yaml", ["evaluate.bootstrap=10"]), project / "runs"
    )
    assert other.folder != run
    assert list(other.done.values()) == ["borrowed", "borrowed", "run", "run"]
    assert other.folder.name in (other.folder / "report.html").read_text("utf-8")


def test_explaining_and_what_is_finished_read_no_row(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, run = finished
    read: list[str] = []
    real = load.read_parts

    def counted(data: load.Data, name: str, *others: Any) -> Any:
        read.append(name)
        return real(data, name, *others)

    monkeypatch.setattr(load, "read_parts", counted)
    recipe = Recipe.load(project / "recipe.yaml")
    assert {words for _, words in residency.explain(recipe, project / "runs")} == {"cached"}
    assert residency.run(recipe, project / "runs").folder == run
    other = Recipe.load(project / "recipe.yaml", ["data.notes.limit=20", "seed=8"])
    assert len(residency.explain(other, project / "runs")) == 4
    assert read == []
    residency.evaluate(run, ["evaluate.bootstrap=15"])
    assert read == ["notes"], "once, for all steps"
    residency.evaluate(run, ["evaluate.bootstrap=15"])
    assert read == ["notes"]


def test_explaining_writes_nothing(project: Path, cli: CLI) -> None:
    told = cli("run", project / "recipe.yaml", "--runs", project / "runs", "--explain", check=0)
    assert told.stdout.count("runs: no result yet") == 4
    assert sorted(path.name for path in project.iterdir()) == ["data", "recipe.yaml"]


def test_a_run_that_was_killed_before_its_last_word_is_called_done_by_the_next(
    finished: tuple[Path, Path],
) -> None:
    project, run = finished
    manifest = run / "manifest.json"
    whole = manifest.read_text("utf-8")
    manifest.write_text(whole.replace('"done"', '"running"'), "utf-8")
    (run / ".work" / "left").mkdir(parents=True)
    again = residency.run(Recipe.load(project / "recipe.yaml"), project / "runs")
    assert set(again.done.values()) == {"cached"}
    assert json.loads(manifest.read_text("utf-8")) == json.loads(whole)
    assert not (run / ".work").exists()


def test_prediction_answers_every_note_once_with_offsets_into_its_text(
    finished: tuple[Path, Path], tmp_path: Path, cli: CLI
) -> None:
    notes = [{"id": f"n{i}", "text": note.text} for i, note in enumerate(records("vi", 9, seed=5))]
    source, answers = lines(tmp_path / "in.jsonl", notes), tmp_path / "out" / "answers.jsonl"
    answers.parent.mkdir()
    told = cli("predict", finished[1], "--input", source, "--output", answers, check=0)
    assert f"9 notes answered in {answers}\n" in told.stdout
    found = [json.loads(line) for line in answers.read_text("utf-8").splitlines()]
    assert [one["id"] for one in found] == [note["id"] for note in notes]
    for note, one in zip(notes, found, strict=True):
        for entity in one["entities"]:
            assert note["text"][entity["start"] : entity["end"]] == entity["text"]
    assert list(answers.parent.iterdir()) == [answers]


def test_prediction_taken_up_after_a_cut_gives_the_same_bytes(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from residency.workflows import predict

    source = lines(
        tmp_path / "in.jsonl",
        [{"id": i, "text": n.text} for i, n in enumerate(records("vi", 7, seed=5))],
    )
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    assert predict.predict_file(finished[1], source, whole) == 7
    real = predict.predict

    def until_killed(*arguments: object) -> object:
        for number, answer in enumerate(real(*arguments)):  # type: ignore[arg-type]
            if number == 4:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(predict, "FLUSH", 2)
    monkeypatch.setattr(predict, "predict", until_killed)
    with pytest.raises(KeyboardInterrupt):
        predict.predict_file(finished[1], source, cut)
    partial = tmp_path / "cut.jsonl.partial"
    partial.write_bytes(partial.read_bytes() + b'{"id":"4","ent')  # a line that was cut off
    assert not cut.exists()
    asked = []
    monkeypatch.setattr(
        predict, "predict", lambda run, notes: real(run, (asked.append(n.id) or n for n in notes))
    )  # type: ignore[func-returns-value]
    assert predict.predict_file(finished[1], source, cut) == 7
    assert asked == ["4", "5", "6"]
    assert cut.read_bytes() == whole.read_bytes() and not partial.exists()


def test_evaluation_from_another_folder_with_other_settings_and_other_data(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: CLI
) -> None:
    project, run = finished
    monkeypatch.chdir(tmp_path)
    cli("eval", run, "evaluate.bootstrap=50", check=0)
    facts, folder = residency.evaluate(run, ["data.notes.test=data/other.jsonl"])
    assert folder.parent == run / "evaluations"
    assert [report.n for report in facts.reports] == [10, 10]
    assert json.loads((folder / "manifest.json").read_text())["status"] == "done"
    assert f"predict {run} " in (folder / "model_card.md").read_text("utf-8")
    settings = [
        json.loads((path / "facts.json").read_text())
        for path in (run / "evaluations").iterdir()
        if (path / "facts.json").is_file()
    ]
    assert {
        tuple(r["scores"][0]["procedure"][:18] for r in one["reports"]) for one in settings
    } >= {
        ("jackknife over 4 g",) * 4,
        ("jackknife over 7 g",) * 2,
    }
    assert {"bootstrap: 50\n" in one["recipe"] for one in settings} == {False, True}
    assert list(tmp_path.iterdir()) == [] and spoken(project) == []


def test_the_same_numbers_come_from_the_run_and_from_its_evaluation(
    finished: tuple[Path, Path],
) -> None:
    _, run = finished
    facts, _ = residency.evaluate(run)
    before = finished_facts(Run(run))
    assert [report.scores for report in facts.reports] == [
        report.scores for report in before.reports
    ]


@pytest.mark.parametrize(
    ("card", "labels"), [("classify", ["liver", "heart"]), ("multilabel", ["liver", "heart;old"])]
)
def test_classification_from_csv(project: Path, tiny: Path, card: str, labels: list[str]) -> None:
    with (project / "data" / "notes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "text", "what"])
        for i, note in enumerate(records("en", 40, seed=1)):
            writer.writerow([f"p{i}", note.text[:80] + f" {SECRET}", labels[i % 2]])
    data = {
        "format": "csv",
        "path": "data/notes.csv",
        "columns": {"text": "text", "labels": "what", "group": "patient"},
    }
    if card == "multilabel":
        data["separator"] = ";"
    recipe = recipe_of(
        tiny, name=card, data={"notes": data}, tasks=[{"card": card, "data": "notes"}]
    )
    run = residency.run(Recipe.load(write_recipe(project, recipe)), project / "runs")
    tuned = finished_facts(run).reports[-1]
    assert tuned.scores[0].metric == ("exact_match" if card == "multilabel" else "accuracy")
    answer = next(iter(residency.predict(run, ["Chest pain."]))).answer
    assert msgspec.to_builtins(answer)["labels"] is not None
    assert spoken(project) == []


def test_two_processes_never_work_on_one_run(finished: tuple[Path, Path]) -> None:
    project, run = finished
    with (
        Run(run).locked(),
        pytest.raises(UserError, match="another process is working on this run"),
    ):
        residency.run(Recipe.load(project / "recipe.yaml"), project / "runs")


def test_the_public_names_exist() -> None:
    import residency

    assert all(getattr(residency, name) is not None for name in residency.__all__)
    assert "torch" in sys.modules, (
        "these tests train, so the one about heavy imports runs in its own process"
    )
