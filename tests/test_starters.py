"""Folders to begin with: an empty project, and the demo's invented hospital."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from residency.core.errors import UserError
from residency.recipe import Recipe
from residency.synth.clinical_notes import LABELS
from residency.tasks.card import load_card
from residency.workflows import check
from residency.workflows.init import demo_key, write_demo, write_project


def test_a_new_project_lacks_nothing_but_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_project(tmp_path / "liver-2024")
    assert {path.name for path in written} == {
        "recipe.yaml",
        "README.md",
        "my-card.yaml",
        ".gitignore",
    }
    recipe = Recipe.load(tmp_path / "liver-2024" / "recipe.yaml")
    assert recipe.name == "liver-2024"
    assert load_card("cards/my-card.yaml", recipe.root).family == "spans"
    # the base is not what is asked here
    monkeypatch.setattr(check, "base_of", lambda recipe: None)
    findings, _ = check.check(recipe)
    (finding,) = findings
    assert finding.level == "error"
    assert finding.message.startswith("data.notes.path: data/notes.jsonl matches no file")


@pytest.mark.parametrize(
    "name", ["2024", "yes", "null", "1e3", "_x", ".hidden", "gan mật", "x" * 100, "- -"]
)
def test_the_recipe_is_valid_whatever_the_folder_is_called(tmp_path: Path, name: str) -> None:
    write_project(tmp_path / name)
    assert isinstance(Recipe.load(tmp_path / name / "recipe.yaml").name, str)


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n", "utf-8")
    assert tmp_path / ".gitignore" not in write_project(tmp_path)
    assert (tmp_path / ".gitignore").read_text("utf-8") == "mine\n"
    with pytest.raises(UserError, match=r"recipe\.yaml: is there already; choose another folder"):
        write_project(tmp_path)


@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_the_demo_begins_with_an_invented_hospital_and_finds_it_again(
    tmp_path: Path, lang: str
) -> None:
    path = write_demo(tmp_path, lang, patients=3)
    recipe = Recipe.load(path)
    assert recipe.name == f"hospital-{lang}" and recipe.extract and recipe.deid
    assert recipe.data["notes"].origin == "synthetic:hospital", (
        "the report says that the patients are invented"
    )
    with closing(sqlite3.connect(path.parent / "hospital.db")) as database:
        assert database.execute("SELECT count(*) FROM patients").fetchone() == (3,)
        for text, start, stop, label in database.execute(
            "SELECT text, start, stop, label FROM labels JOIN notes ON id = note_id"
        ):
            assert label in LABELS and text[start:stop].strip() == text[start:stop] != ""
    before = (path.parent / "hospital.db").read_bytes()
    assert (
        write_demo(tmp_path, lang, patients=3) == path
        and (path.parent / "hospital.db").read_bytes() == before
    )


def test_the_key_of_the_demo_is_drawn_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    key = demo_key(tmp_path)
    assert len(bytes.fromhex(key)) == 32 and demo_key(tmp_path) == key
    assert (tmp_path / "zone.key").stat().st_mode & 0o777 == 0o600


def test_the_demo_speaks_three_languages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fr"):
        write_demo(tmp_path, "fr")
    assert list(tmp_path.iterdir()) == []


def test_the_written_recipe_is_plain_yaml(tmp_path: Path) -> None:
    write_project(tmp_path / "p")
    assert yaml.safe_load((tmp_path / "p" / "recipe.yaml").read_text("utf-8"))["schema"] == 1
