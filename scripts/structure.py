"""How the code is built, in figures: rooms, import edges and circles, lengths, branches on the
family of a task, and how many functions of ours stand on the way.

    python scripts/structure.py             the figures that need nothing but the files
    python scripts/structure.py --frames    also runs a small recipe and counts frames

An edge is a pair of rooms (or files) of which one imports the other, lazy imports included; imports
for type checking alone are left out. A frame is a function on the stack that stands in a file of
``src/residency``; comprehensions and the command line are left out.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import grimp

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src/residency"
ANSWERS = {"Spans", "Labels", "Text", "Facts", "Tree"}
"""Types of answers: a question for one of them is a question for the family."""
KINDS = {"family", "output", "head", "classifier"}
"""Names and attributes that hold a family, a kind of output, or what gives it."""
VALUES = {"head", "text", "spans", "labels", "answers", "sections", "tree", "MARKED", "FACTS"} | {
    "TOKENS",
    "SEQUENCE",
    "WORDS",
}


def main() -> None:
    graph = grimp.build_graph("residency", exclude_type_checking_imports=True, cache_dir=None)
    rooms, between = edges(graph, "residency")
    files, inside = edges(graph, "residency.serve", deep=True)
    lengths = sorted(length for _, _, length in functions(SRC.rglob("*.py")))
    long = [(where, name, n) for where, name, n in functions(SRC.rglob("*.py")) if n > 60]
    branches = list(family_branches(SRC))
    loose = [path for path in SRC.glob("*.py") if path.stem not in ("__init__", "__main__")]
    table = {
        "lines of src/": lines(SRC.rglob("*.py")),
        "files of src/": len(list(SRC.rglob("*.py"))),
        "children of the package": len(rooms),
        "import edges between them": between,
        "files of serve/": len(files),
        "import edges inside serve/": inside,
        "import circles between files": len(found := circles(graph)),
        "modules loose at the top": len(loose),
        "functions above 60 lines": len(long),
        "median lines of a function": median(lengths),
        "branches on family or output outside the families": len(branches),
        "lines of benchmarks/": lines((ROOT / "benchmarks").glob("*.py")),
        "words of prose in docs/benchmarks.md": prose(ROOT / "docs/benchmarks.md"),
    }
    if "--frames" in sys.argv:
        table |= frames()
    for name, value in table.items():
        print(f"{value:>8,}  {name}")
    if "-v" in sys.argv:
        for circle in found:
            print("circle:", ", ".join(circle))
        for where, name, length in long:
            print(f"long: {where} {name} {length}")
        for where, line, text in branches:
            print(f"branch: {where}:{line}: {text}")


def lines(paths: Iterable[Path]) -> int:
    return sum(len(path.read_text("utf-8").splitlines()) for path in paths)


def prose(path: Path) -> int:
    """Words outside tables, code and headings."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.S)
    return sum(len(line.split()) for line in text.splitlines() if not line.startswith(("|", "#")))


def edges(graph: grimp.ImportGraph, package: str, deep: bool = False) -> tuple[set[str], int]:
    """The children (or all modules below) of a package, and the number of pairs that import."""
    depth = package.count(".") + 2

    def place(module: str) -> str:
        return module if deep else ".".join(module.split(".")[:depth])

    below = {module for module in graph.modules if module.startswith(f"{package}.")}
    pairs = {
        (place(one), place(other))
        for one in below
        for other in graph.find_modules_directly_imported_by(one)
        if other in below
    }
    within = {place(module) for module in below} | ({package} if deep else set())
    return within, sum(one != other for one, other in pairs)


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Sets of files that import each other in a circle (strongly connected, by Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph.find_modules_directly_imported_by(module)):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for module in sorted(graph.modules):
        if module not in index:
            visit(module)
    return found


def functions(paths: Iterable[Path]) -> Iterator[tuple[str, str, int]]:
    """File, name and lines of every function, its decorators left out."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                yield path.relative_to(SRC).as_posix(), node.name, length


def family_branches(src: Path) -> Iterator[tuple[str, int, str]]:
    """Places outside ``tasks/families`` that ask for the family of a task, the kind of its output
    or the type of an answer: comparisons, ``isinstance``, ``match``, and tables looked up by them.
    """
    for path in sorted(src.rglob("*.py")):
        if (src / "tasks/families") in path.parents:
            continue
        text = path.read_text("utf-8")
        source = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if asks(node):
                yield path.relative_to(src).as_posix(), node.lineno, source[node.lineno - 1].strip()


def asks(node: ast.AST) -> bool:
    """Whether a piece of code asks for a family, a kind of output, or what kind of model it is."""
    if isinstance(node, ast.Attribute):
        return node.attr == "generates" and isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        return any(_kind(side) for side in sides) and any(_value(side) for side in sides)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id != "isinstance" or len(node.args) != 2:
            return False
        return any(
            isinstance(one, ast.Name) and one.id in ANSWERS for one in ast.walk(node.args[1])
        )
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "get" and bool(node.args) and _kind(node.args[0])
    if isinstance(node, ast.Match):
        return _kind(node.subject)
    if isinstance(node, ast.MatchClass):
        return isinstance(node.cls, ast.Name) and node.cls.id in ANSWERS
    return isinstance(node, ast.Subscript) and _kind(node.slice)


def _kind(node: ast.AST) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in KINDS


def _value(node: ast.AST) -> bool:
    if isinstance(node, ast.Tuple | ast.Set | ast.List):
        return any(map(_value, node.elts))
    found = node.value if isinstance(node, ast.Constant) else getattr(node, "id", None)
    return found in VALUES


def frames() -> dict[str, int]:
    """Frames of ours on the ways of a row, a run and a score; see ``_frames.py``."""
    sys.path.insert(0, str(Path(__file__).parent))
    from _frames import measure

    return measure()


if __name__ == "__main__":
    main()
