"""``residency split``: written, the same as a run's, proved again, and refused once anything has
changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import CLI, SECRET, lines, recipe_of, row, write_recipe
from residency.synth.clinical_notes import records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 invented notes and a recipe; nothing is trained."""
    folder = tmp_path / "project"
    lines(folder / "data" / "notes.jsonl", [row(note) for note in records("vi", 60, seed=1)])
    write_recipe(folder, recipe_of("bundled:tiny-encoder"))
    return folder


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")


def test_a_split_is_written_with_a_page_and_without_text_and_holds(folder: Path, cli: CLI) -> None:
    shown = cli("split", folder / "recipe.yaml", check=0)
    assert "notes.split.json" in shown.stdout
    for path in (folder / "split").iterdir():
        assert SECRET not in path.read_text("utf-8"), path
    report = (folder / "split/report.md").read_text("utf-8")
    assert "Nothing stands in two parts" in report and "| train | " in report
    assert (
        "holds (60 notes"
        in cli("split", "--verify", folder / "split/notes.split.json", check=0).stdout
    )


def test_a_run_of_the_same_recipe_has_the_same_split(
    finished: tuple[Path, Path], tmp_path: Path, cli: CLI
) -> None:
    project, run = finished
    cli("split", project / "recipe.yaml", "--output", tmp_path / "split", check=0)
    one, two = (
        json.loads(path.read_text("utf-8"))
        for path in (tmp_path / "split/notes.split.json", run / "data/notes.split.json")
    )
    assert one.pop("root") != two.pop("root")
    assert one.pop("seal") != two.pop("seal")
    assert one == two
    cli("split", "--verify", run / "data/notes.split.json", check=0)
    assert (run / "data/report.html").is_file()


def test_a_folder_that_is_moved_as_a_whole_still_holds(
    folder: Path, tmp_path: Path, cli: CLI
) -> None:
    cli("split", folder / "recipe.yaml", check=0)
    shutil.move(folder, tmp_path / "elsewhere")
    cli("split", "--verify", tmp_path / "elsewhere/split/notes.split.json", check=0)


def _note_added(folder: Path) -> None:
    with (folder / "data/notes.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "one more"}) + "\n")


def _file_gone(folder: Path) -> None:
    (folder / "data/notes.jsonl").rename(folder / "data/other.jsonl")


def _note_moved(folder: Path) -> None:
    path = folder / "split/notes.split.json"
    found = json.loads(path.read_text("utf-8"))
    first = next(iter(found["split"]["parts"]))
    found["split"]["parts"][first] = "test" if found["split"]["parts"][first] != "test" else "train"
    path.write_text(json.dumps(found), "utf-8")


@pytest.mark.parametrize(
    ("change", "words", "code"),
    [
        (_note_added, "data/notes.jsonl was changed", 2),
        (_file_gone, "matches no file", 1),
        (_note_moved, "was changed after it was written", 2),
    ],
)
def test_what_has_changed_since_is_refused_in_one_sentence(
    folder: Path, cli: CLI, change: Any, words: str, code: int
) -> None:
    cli("split", folder / "recipe.yaml", check=0)
    change(folder)
    done = cli("split", "--verify", folder / "split/notes.split.json", check=code)
    assert words in done.stderr and done.stderr.count("\n") == 1 and SECRET not in done.stderr


def test_parts_that_were_moved_and_sealed_again_are_found_out_by_what_stands_in_two_parts(
    folder: Path, cli: CLI
) -> None:
    import msgspec

    from residency.corpus import load
    from residency.corpus.parts import count_parts, make_split
    from residency.corpus.splitfile import read, seal
    from residency.recipe import Recipe

    cli("split", folder / "recipe.yaml", check=0)
    path = folder / "split/notes.split.json"
    file, recipe = read(path), Recipe.load(folder / "recipe.yaml")
    notes = load.load(recipe.data["notes"], "notes", recipe.root, recipe.seed).notes
    one = next(
        id
        for id, group in file.groups.items()
        if list(file.groups.values()).count(group) > 1 and file.split.parts[id] == "train"
    )
    split = make_split(notes, {**file.split.parts, one: "test"}, file.split.seed, file.split.how)
    carried = {part: dict(counts) for part, counts in count_parts(notes, split.parts).items()}
    path.write_bytes(
        msgspec.json.encode(seal(msgspec.structs.replace(file, split=split, carried=carried)))
    )
    assert "1 patient in both train and test" in cli("split", "--verify", path, check=2).stderr


def test_given_parts_that_leak_are_a_note_or_exit_code_2(folder: Path, cli: CLI) -> None:
    rows = [row(note) for note in records("vi", 60, seed=1)]
    lines(folder / "data/train.jsonl", rows[:50])
    lines(folder / "data/test.jsonl", [*rows[50:], {**rows[0], "id": "copy"}])
    parts = {
        "format": "jsonl",
        "train": "data/train.jsonl",
        "test": "data/test.jsonl",
        "lang": "vi",
    }
    path = write_recipe(folder, recipe_of("bundled:tiny-encoder", data={"notes": parts}))
    assert (
        "note: data.notes: 1 text in both train and test (1 test note, copy)."
        in cli("check", path, check=0).stdout
    )
    refused = cli("check", path, "data.notes.leak=refuse", check=2)
    assert "refused: data.notes: 1 text in both train and test" in refused.stdout
    assert (
        "give each to one part"
        in cli("run", path, "data.notes.leak=refuse", "--runs", folder / "runs", check=2).stderr
    )
    assert "leak=warn" in cli("split", path, "data.notes.leak=refuse", check=2).stderr
    assert not (folder / "split").exists()
    cli("split", path, check=0)
    assert "1 text in both train and test" in (folder / "split/report.md").read_text("utf-8")
    cli("split", "--verify", folder / "split/notes.split.json", check=0)


def test_verify_takes_nothing_but_a_file(folder: Path, cli: CLI) -> None:
    assert (
        "takes one split file"
        in cli("split", "--verify", folder / "recipe.yaml", "seed=1", check=1).stderr
    )
    assert "is not valid JSON" in cli("split", "--verify", folder / "recipe.yaml", check=1).stderr
