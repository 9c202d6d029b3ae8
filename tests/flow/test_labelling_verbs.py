"""The verbs of labelling through the console script, and what a model says to those who label."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import CLI, SECRET, lines, recipe_of, row, write_recipe
from residency.synth.clinical_notes import records

pytestmark = pytest.mark.training


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_to_label_next_leaves_out_what_was_learned_and_shows_no_text(
    finished: tuple[Path, Path], tmp_path: Path, cli: CLI
) -> None:
    _, run = finished
    pool = [*records("vi", 60, seed=1), *records("vi", 30, seed=4)]
    path = lines(
        tmp_path / "data" / "pool.jsonl", [{**row(n), "id": f"{k}"} for k, n in enumerate(pool)]
    )
    said = cli(
        "label",
        "next",
        run,
        "--pool",
        path,
        "--output",
        tmp_path / "chosen.jsonl",
        "--count",
        "10",
        "--by",
        "model",
        check=0,
    )
    chosen = rows(tmp_path / "chosen.jsonl")
    assert len(chosen) == 10 and all(int(str(one["id"])) >= 60 for one in chosen), (
        "the first 60 have been learned"
    )
    why = rows(tmp_path / "chosen.jsonl.why.jsonl")
    assert [one["how"] for one in why].count("random") == 2 and [one["note"] for one in why] == [
        one["id"] for one in chosen
    ]
    assert SECRET not in said.stdout + said.stderr and SECRET not in (
        tmp_path / "chosen.jsonl.why.jsonl"
    ).read_text("utf-8")
    seen = lines(tmp_path / "data" / "seen.jsonl", [row(n) for n in records("vi", 60, seed=1)])
    refused = cli("label", "next", run, "--pool", seen, "--output", tmp_path / "x.jsonl", check=1)
    assert (
        "holds no note that the run has not seen" in refused.stderr
        and not (tmp_path / "x.jsonl").exists()
    )


def test_likely_errors_are_listed_without_text_of_pseudonymised_notes(
    project: Path, cli: CLI, tmp_path: Path
) -> None:
    out = tmp_path / "list"
    cli(
        "label",
        "errors",
        project / "recipe.yaml",
        "--folds",
        "2",
        "--output",
        out,
        "stages.0.steps=2",
        check=0,
    )
    found = rows(out / "errors.jsonl")
    spans = sum(len(row(n)["entities"]) for n in records("vi", 60, seed=1))
    assert 0 < len(found) <= 0.03 * spans + 1
    columns = {"note", "start", "end", "score", "labelled", "believed", "decision", "mended"}
    assert set(found[0]) == columns
    assert SECRET not in "".join(path.read_text("utf-8") for path in out.iterdir())
    few = cli("label", "errors", project / "recipe.yaml", "--folds", "99", "--output", out, check=1)
    assert "give fewer folds or more notes" in few.stderr


def test_the_road_through_files_by_the_console(tmp_path: Path, cli: CLI) -> None:
    notes = list(records("en", 6, seed=8))
    lines(tmp_path / "data" / "notes.jsonl", [row(n) for n in notes])
    recipe = write_recipe(
        tmp_path,
        recipe_of("bundled:tiny-encoder", label={"data": "notes", "via": "files", "annotators": 2}),
    )
    assert "nothing has been given out yet" in cli("label", "agreement", recipe, check=1).stderr
    cli("label", "push", recipe, check=0)
    out, back = tmp_path / "labelling" / "label" / "out", tmp_path / "labelling" / "label" / "back"
    truth = {n.id: row(n)["entities"] for n in notes}
    for name, cut in (("a1", 0), ("a2", 1)):
        lines(
            back / f"{name}.jsonl",
            [
                {**one, "entities": truth[str(one["id"])][cut:]}
                for one in rows(out / f"{name}.jsonl")
            ],
        )
    pulled = cli("label", "pull", recipe, check=0)
    assert "a1: 6 of 6; 6 new, 0 changed, 0 as before" in pulled.stdout
    assert "alpha" in cli("label", "agreement", recipe, check=0).stdout
    settled = cli("label", "adjudicate", recipe, check=0)
    assert "open         6 places" in settled.stdout, "two who differ have no majority"
    page = (tmp_path / "labelling" / "agreement.html").read_text("utf-8")
    assert SECRET not in page and "pseudonymised only" in page
    kept = (tmp_path / "labelling" / "agreement.json").read_text("utf-8") + (
        tmp_path / "labelling" / "audit.jsonl"
    ).read_text("utf-8")
    assert "quote" not in kept and not any(
        str(entity["text"]) in kept for entity in truth[notes[0].id] if len(str(entity["text"])) > 8
    )
    lines(
        back / "a1.jsonl",
        [
            {**one, "entities": [{"start": 0, "end": 10**6, "label": "drug"}]}
            for one in rows(back / "a1.jsonl")
        ],
    )
    faulty = cli("label", "pull", recipe, check=1)
    assert (
        "span lies outside the text: 6 notes" in faulty.stdout
        and "something must be mended" in faulty.stderr
    )


def test_a_model_marks_the_notes_first(
    finished: tuple[Path, Path], tmp_path: Path, cli: CLI
) -> None:
    _, run = finished
    lines(tmp_path / "data" / "notes.jsonl", [row(n) for n in records("vi", 4, seed=9)])
    section = {"data": "notes", "via": "files", "prelabel": {"by": "model", "run": str(run)}}
    cli(
        "label",
        "push",
        write_recipe(tmp_path, recipe_of("bundled:tiny-encoder", label=section)),
        check=0,
    )
    given = rows(tmp_path / "labelling" / "label" / "out" / "a1.jsonl")
    assert len(given) == 4 and all(
        isinstance(one["suggested"], list) and one["entities"] is None for one in given
    )
