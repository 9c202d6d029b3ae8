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


SEVERAL = """
import contextlib, io, json, sys
from residency.cli import main
told = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["residency", *words.split()]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as left:
            told.append([left.code or 0, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def told(stranger: Path, *commands: str) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of commands of the stranger's tree, one after the other in a
    process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps(commands)],
        check=False,
        cwd=stranger,
        env=os.environ | {"PYTHONPATH": str(stranger / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def test_a_new_reader_is_checked_split_and_described_and_its_keys_are_named_through_the_command_line(
    stranger: Path,
) -> None:
    check, split, schema, key, name = told(
        stranger,
        "check recipe.yaml",
        "split recipe.yaml",
        "schema",
        "check recipe.yaml data.x.dahses=2",
        "check recipe.yaml data.x.format=dashedd",
    )
    assert check[0] == 0 and "60" in check[1], check
    assert split[0] == 0, split
    found = json.loads((stranger / "split/x.split.json").read_text())
    assert len(found["split"]["parts"]) == 60 and found["data"]["format"] == "dashed"
    assert "dashed" in schema[1] and "How many dashes part two notes." in schema[1]
    assert key[0] == name[0] == 1
    assert "data.x.dahses: unknown key" in key[2] and "did you mean dashes?" in key[2]
    assert "data.x.format: 'dashedd' is not known" in name[2] and "did you mean dashed?" in name[2]
