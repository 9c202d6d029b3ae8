"""The map of the code (docs/architecture.md) names what is there, and the figures that the structure
is held to."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src/residency"
MAP = (ROOT / "docs/architecture.md").read_text("utf-8")
STEP = re.compile(r"`([\w/]+\.py)` `([\w.]+)`")
"""A file of the package, and a function, class or method in it."""
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@cache
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
        "branches on family or output outside the families": 12,
        "lines of benchmarks/": 4300,
        "words of prose in docs/benchmarks.md": 1500,
    }
    assert {name: found[name] for name, limit in most.items() if found[name] > limit} == {}


PLANTED = """
from residency.tasks.heads import TOKENS

WORDS = {"a word": 1}


def real(head: Head, card, answer, output, found, predictor, model):
    if head is TOKENS: ...  # counts
    if of(card).classifier is not TOKENS: ...  # counts
    if found.head.generates: ...  # counts
    if card.family == "spans": ...  # counts
    if output == "text": ...  # counts
    if found.output in ("head", "text"): ...  # counts
    if isinstance(answer, (Spans, Labels)): ...  # counts
    if isinstance(predictor, CausalPredictor): ...  # counts
    if found.answers is Labels: ...  # counts
    if output_layer(model) is None: ...  # counts
    {"spans": 1}[card.family]  # counts
    {"text": 1}.get(output)  # counts
    OBJECTS[head.kind]  # counts
    OBJECTS[found.head.kind]  # counts
    other = head_of(card, output)
    OBJECTS[other.kind]  # counts
    match answer:
        case Spans(): ...  # counts
    match card.family:  # counts
        case "spans": ...


def false(relation, columns, names, finding, first, second, value, answer):
    heads = columns[0]
    if heads in names and relation.head in names: ...
    names[heads], names.get(heads), OBJECTS[finding.kind]
    if value in WORDS: ...
    if first.head is second.head and first.card.family != second.card.family: ...
    assert isinstance(answer, Spans)
"""


def test_branches_on_families_and_kinds_are_counted_and_other_heads_are_not(
    tmp_path: Path,
) -> None:
    spec = importlib.util.spec_from_file_location("structure", ROOT / "scripts/structure.py")
    assert spec is not None and spec.loader is not None
    structure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(structure)
    for name in ("workflows/one.py", "tasks/families/one.py"):  # a family may ask what it is
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(PLANTED, "utf-8")
    wanted = [line.strip() for line in PLANTED.splitlines() if line.endswith("# counts")]
    found = sorted(structure.family_branches(tmp_path), key=lambda one: one[1])
    assert [line for _, _, line in found] == wanted
    assert {where for where, _, _ in found} == {"workflows/one.py"}
