"""A new identifier is one new file: a rule beside the others is picked up and used by the command
line, in a copy of the tree."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

import warm

SRC = Path(__file__).parents[1] / "src"

RULE = r"""
language: en
rules:
  - id: locker
    kind: other
    cues: [locker]
    pattern: '<IS>(?P<v>[A-Z]{2}~\d{2})(?!\w)'
    positive: ["locker: [QX~41] emptied"]
    negative: ["locker room"]
"""
NOTE = "Cough for three days. Valuables in locker QX~41, no fever."


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source tree, to which a stranger adds one file."""
    return shutil.copytree(SRC, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))


def deidentified(source: Path, folder: Path) -> str:
    """The text of a hospital's one note, as ``residency deid`` writes it."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / "hospital.db")) as database:
        database.execute("CREATE TABLE notes (id TEXT, patient TEXT, text TEXT)")
        database.execute("INSERT INTO notes VALUES ('n1', 'p1', ?)", (NOTE,))
        database.commit()
    query = "SELECT id, patient, text FROM notes"
    recipe = {
        "schema": 1,
        "name": "ward",
        "extract": {"url": "sqlite:///hospital.db", "notes": query, "lang": "en"},
        "deid": {"tagger": "off"},
        "data": {"ward": {"format": "jsonl", "path": "data/deidentified.jsonl", "lang": "en"}},
        "tasks": [{"card": "clinical", "data": "ward"}],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    done = warm.run(
        *("deid", "recipe.yaml"),
        cwd=folder,
        environment={"PYTHONPATH": str(source), "RESIDENCY_KEY": "0123456789abcdef" * 4},
        code=warm.of_tree(source),
    )
    assert done.returncode == 0, done.stderr
    (line,) = (folder / "data/deidentified.jsonl").read_text("utf-8").splitlines()
    return str(json.loads(line)["text"])


@pytest.mark.sample
@pytest.mark.parametrize("name", ["locker", "en_locker"])
def test_a_rule_in_one_new_file_is_found_by_the_command_line(
    source: Path, tmp_path: Path, name: str
) -> None:
    rules = source / "residency/deid/rules"
    text = RULE if name == "locker" else RULE.replace("language: en\n", "")
    (rules / f"{name}.yaml").write_text(text, "utf-8")
    found = deidentified(source, tmp_path / "ward")
    assert "QX~41" not in found
    assert found.startswith("Cough for three days. Valuables in locker ")


@pytest.mark.sample
def test_a_rule_for_a_language_that_is_not_known_is_one_sentence(
    source: Path, tmp_path: Path
) -> None:
    path = source / "residency/deid/rules/locker.yaml"
    path.write_text(RULE.replace("language: en", "language: tlh"), "utf-8")
    with pytest.raises(AssertionError, match=r"locker\.yaml: language: 'tlh'"):
        deidentified(source, tmp_path / "ward")
