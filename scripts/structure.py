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
PREDICTORS = {"EncoderPredictor", "CausalPredictor", "OnnxEncoder", "CrfPredictor"}
HEADS = {"TOKENS", "SEQUENCE", "WORDS"}
CLASSES = {"TokenClassifier", "SequenceClassifier", "Classifier", "WordsHead"}
NAMED = ANSWERS | PREDICTORS | HEADS | CLASSES | {"output_layer"}
"""What names a kind of answer or of model: to compare with it, or to ask whether something is one,
is a branch. ``output_layer`` is what the methods of tuning know a model that writes by."""
WORDS = {"family", "output"}
"""Names and attributes that hold a family or a kind of output as a word: to compare one with a
string is a branch."""
KEYS = WORDS | {"answers", "classifier"}
"""Attributes (and of words names) under which a table is looked up: the same branch, written as a
table."""
FLAGS = {"generates", "writes"}
"""Names and attributes that would say yes or no for a kind: to read one is a branch."""


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
    """Places outside ``tasks/families`` that go by the family of a task, or by what kind of output
    or model it has.

    The rule: a name counts only where it holds such a thing. That is a head (an attribute
    ``.head``, a call of ``head_of``, a parameter or variable so annotated or given), a family or an
    output compared with a string, a type of answer, of predictor or of head. The ``head`` of a
    relation, a table or a request is none, and so is a name that the file itself gives to something
    else. Two values compared with each other name no kind. An
    ``assert`` takes no way: it tells the type checker what is known.
    """
    for path in sorted(src.rglob("*.py")):
        if (src / "tasks/families") in path.parents:
            continue
        text = path.read_text("utf-8")
        source, tree = text.splitlines(), ast.parse(text)
        heads, named = set(head_names(tree)), NAMED - own_names(tree)
        for node in walk_but_asserts(tree):
            if asks(node, heads, named):
                yield path.relative_to(src).as_posix(), node.lineno, source[node.lineno - 1].strip()


def walk_but_asserts(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node below, what is asserted left out."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.Assert):
            yield node
            yield from walk_but_asserts(node)


def head_names(tree: ast.AST) -> Iterator[str]:
    """Names of a file that hold heads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            if re.search(r"\b(Head|Classifier)\b", ast.unparse(node.annotation)):
                yield node.arg
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                names, values = _elements(target), _elements(node.value)
                for name, value in zip(names, values, strict=False):
                    if isinstance(name, ast.Name) and _is_head(value, set()):
                        yield name.id


def own_names(tree: ast.Module) -> set[str]:
    """Names that a file gives to values of its own."""
    targets = (one.targets for one in tree.body if isinstance(one, ast.Assign))
    return {_name(target) for each in targets for target in each}


def asks(node: ast.AST, heads: set[str], named: set[str]) -> bool:
    """Whether a piece of code goes by a family, a kind of output or of model."""
    if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        return _name(node) in FLAGS
    if isinstance(node, ast.Compare):
        sides = [each for side in (node.left, *node.comparators) for each in _elements(side)]
        if any(_called(side) in named for side in sides):
            return True
        strings = any(isinstance(side, ast.Constant) and type(side.value) is str for side in sides)
        return strings and any(_name(side) in WORDS or _is_kind(side, heads) for side in sides)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id not in ("isinstance", "issubclass") or len(node.args) != 2:
            return False
        return any(_name(one) in named for one in ast.walk(node.args[1]))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "get" and bool(node.args) and _is_key(node.args[0], heads)
    if isinstance(node, ast.Match):
        return _is_key(node.subject, heads)
    if isinstance(node, ast.MatchClass):
        return _name(node.cls) in named
    return isinstance(node, ast.Subscript) and _is_key(node.slice, heads)


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _called(node: ast.AST) -> str:
    return _name(node.func if isinstance(node, ast.Call) else node)


def _elements(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]


def _is_head(node: ast.AST, heads: set[str]) -> bool:
    """Whether an expression gives a head."""
    if isinstance(node, ast.Call):
        return _name(node.func) in ("head_of", "classifier_of")
    if isinstance(node, ast.Attribute):
        return node.attr in ("head", "classifier")
    return isinstance(node, ast.Name) and node.id in heads


def _is_kind(node: ast.AST, heads: set[str]) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "kind" and _is_head(node.value, heads)


def _is_key(node: ast.AST, heads: set[str]) -> bool:
    """Whether a table looked up under an expression is one of families, outputs or kinds."""
    word = _name(node) in (KEYS if isinstance(node, ast.Attribute) else WORDS)
    return word or _is_kind(node, heads) or _is_head(node, heads)


def frames() -> dict[str, int]:
    """Frames of ours on the ways of a row, a run and a score; see ``_frames.py``."""
    sys.path.insert(0, str(Path(__file__).parent))
    from _frames import measure

    return measure()


if __name__ == "__main__":
    main()
