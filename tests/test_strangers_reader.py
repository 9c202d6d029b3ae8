"""What a stranger adds in one new file is used through the command line: a format of data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import residency

READER = '''"""Notes parted by lines of dashes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from residency.corpus.reader import Row, Source


class Dashed(Source):
    """A file of notes with a line of dashes between them."""

    format: Literal["dashed"]
    dashes: int = 3
    """How many dashes part two notes."""

    def rows(self, path: Path) -> Iterator[Row]:
        notes = path.read_text("utf-8").split(f"\\n{'-' * self.dashes}\\n")
        for number, text in enumerate(notes, start=1):
            label, _, words = text.partition(": ")
            yield Row(line=number, text=words, labels=(label,))
'''
RECIPE = """schema: 1
name: dashed
data:
  x: {format: dashed, path: notes.txt, dashes: 4, lang: en, profile: synthetic}
tasks: [{card: classify, data: x}]
"""


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A copy of the source tree with one file more, and a recipe beside it."""
    source = Path(residency.__file__).parent
    shutil.copytree(
        source, tmp_path / "src/residency", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "src/residency/corpus/formats/dashed.py").write_text(READER)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    notes = [f"{'ill' if number % 2 else 'well'}: note {number}" for number in range(60)]
    (tmp_path / "notes.txt").write_text("\n----\n".join(notes))
    return tmp_path


def residency_verb(stranger: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(stranger / "src")}
    command = [sys.executable, "-m", "residency.cli", *arguments]
    return subprocess.run(
        command, check=False, cwd=stranger, env=environment, capture_output=True, text=True
    )


def test_a_new_reader_is_checked_split_and_described_through_the_command_line(stranger: Path):
    check = residency_verb(stranger, "check", "recipe.yaml")
    assert check.returncode == 0, check.stdout + check.stderr
    assert "60" in check.stdout
    split = residency_verb(stranger, "split", "recipe.yaml")
    assert split.returncode == 0, split.stderr
    found = json.loads((stranger / "split/x.split.json").read_text())
    assert len(found["split"]["parts"]) == 60 and found["data"]["format"] == "dashed"
    schema = residency_verb(stranger, "schema")
    assert "dashed" in schema.stdout and "How many dashes part two notes." in schema.stdout


def test_a_typo_in_the_settings_of_a_new_reader_is_answered_with_its_keys(stranger: Path):
    wrong = residency_verb(stranger, "check", "recipe.yaml", "data.x.dahses=2")
    assert wrong.returncode == 1
    assert "data.x.dahses: unknown key" in wrong.stderr and "did you mean dashes?" in wrong.stderr
    wrong = residency_verb(stranger, "check", "recipe.yaml", "data.x.format=dashedd")
    assert "data.x.format: 'dashedd' is not known" in wrong.stderr
    assert "did you mean dashed?" in wrong.stderr
