"""The map of the code (docs/architecture.md) names what is there, and the figures that the structure
is held to."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src/residency"
MAP = (ROOT / "docs/architecture.md").read_text("utf-8")
STEP = re.compile(r"`([\w/]+\.py)` `([\w.]+)`")
"""A file of the package, and a function, class or method in it."""
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def defined(path: Path) -> set[str]:
    """Functions, classes and methods (``Class.method``) of a file."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            inner = (one for one in node.body if isinstance(one, FUNCTION))
            found |= {node.name, *(f"{node.name}.{one.name}" for one in inner)}
        elif isinstance(node, FUNCTION):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_every_step_of_a_trip_is_in_the_code() -> None:
    steps = STEP.findall(MAP)
    assert len(steps) >= 24
    missing = [
        f"{file} {name}"
        for file, name in steps
        if not (SRC / file).is_file() or name not in defined(SRC / file)
    ]
    assert missing == []


def test_every_room_is_on_the_map_and_every_room_of_the_map_is_there() -> None:
    rooms = {path.parent.name for path in SRC.glob("*/__init__.py")}
    assert rooms == set(re.findall(r"^\| `(\w+)/` \|", MAP, flags=re.M))


def test_the_structure_keeps_its_figures() -> None:
    told = subprocess.run(
        [sys.executable, ROOT / "scripts/structure.py"], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 1) for line in told.splitlines())
    found = {name: float(value.replace(",", "")) for value, name in rows}
    most = {
        "children of the package": 21,
        "import edges between them": 100,
        "files of serve/": 20,
        "import edges inside serve/": 60,
        "import circles between files": 0,
        "modules loose at the top": 3,
        "functions above 60 lines": 0,
        "branches on family or output outside the families": 56,
        "lines of benchmarks/": 4300,
        "words of prose in docs/benchmarks.md": 1500,
    }
    assert {name: found[name] for name, limit in most.items() if found[name] > limit} == {}
