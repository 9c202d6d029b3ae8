"""What a run learned from: the notes of its split that stand in the parts train and dev, counted
exactly, and only where the files are the same."""

from __future__ import annotations

import json
from pathlib import Path

from residency.core.files import file_digest
from residency.corpus import load, splitfile
from residency.models.base import NO_BASE
from residency.recipe import Recipe
from residency.workflows.compare import Contest, _step, learned_from
from residency.workflows.evaluate import Evaluation
from residency.workflows.steps import EvaluationTask, Inputs


def recipe(folder: Path, seed: int) -> Recipe:
    given = {
        "schema": 1,
        "name": "x",
        "seed": seed,
        "base": "bundled:tiny-encoder",
        "data": {"notes": {"format": "jsonl", "path": "notes.jsonl", "lang": "en"}},
        "tasks": [{"card": "classify", "data": "notes"}],
        "stages": [{"method": {"kind": "lora"}}],
    }
    return Recipe.from_mapping(given, folder)


def test_notes_that_another_run_learned_from_are_counted_exactly(tmp_path: Path) -> None:
    rows = [
        {"id": str(n), "text": f"note {n} of somebody who said {n * 7919}", "labels": ["a"]}
        for n in range(40)
    ]
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    parts = []
    for seed in (0, 1):
        made = recipe(tmp_path, seed)
        corpus = load.load(made.data["notes"], "notes", made.root, seed)
        folder = tmp_path / f"run-{seed}" / "data"
        folder.mkdir(parents=True)
        files = {"notes.jsonl": file_digest(file)}
        splitfile.write({"notes": corpus}, made.data, made.root, folder, files, "2025-11-01")
        parts.append(corpus.split.parts)
    test = {id for id, part in parts[0].items() if part == "test"}
    seen = learned_from(tmp_path / "run-1", {file_digest(file)})
    assert test and test & seen["train"], "the seeds draw different parts"
    assert test & seen["train"] == {id for id in test if parts[1][id] == "train"}
    assert test & seen["dev"] == {id for id in test if parts[1][id] == "dev"}
    assert not test & learned_from(tmp_path / "run-0", {file_digest(file)})["train"]
    assert learned_from(tmp_path / "run-1", {"another file"}) == {"train": set(), "dev": set()}


def test_systems_are_asked_anew_where_their_questions_are_others(tmp_path: Path) -> None:
    """Answers lie in a store by their key: those to one data set must not stand for another's."""

    def key(*overrides: str) -> str:
        given = {"schema": 1, "name": "x", "base": "bundled:tiny-encoder"}
        given |= {"data": {n: {"format": "jsonl", "path": f"{n}.jsonl"} for n in ("a", "b")}}
        made = Recipe.from_mapping(
            given | {"tasks": [{"card": "classify", "data": "a"}]}, tmp_path, overrides
        )
        inputs = Inputs(recipe=made, folder=tmp_path, base=NO_BASE, files={})
        asked = EvaluationTask(name="", task=made.tasks[0], data=made.tasks[0].data)
        wanted = Evaluation(
            inputs=inputs, asked=asked, artefact=tmp_path, trained_in=tmp_path, card=None
        )
        return _step(Contest(wanted=wanted, names={})).key

    assert key() == key("name=y")
    assert len({key(), key("tasks[0].data=b"), key("data.a.limit=5"), key("seed=2")}) == 4
