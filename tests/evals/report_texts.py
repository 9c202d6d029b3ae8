"""Every text that a report is made of, read from the code and the templates that hold it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from residency.evals import examples_view, formats, plain, report_view, verdicts
from residency.metrics import answers

EVALS = Path(report_view.__file__).parent
BY_NAME = (
    *formats.METRICS.values(),
    *(answers.named(name).title for name in answers.names() if answers.named(name).title),
    *verdicts.PARTS.values(),
    *verdicts.WHO,
    *verdicts.WHO.values(),
    *verdicts.BESIDE.values(),
    *verdicts.INSTEAD.values(),
    *report_view.UNITS.values(),
    *examples_view.KINDS,
    *examples_view.KINDS.values(),
    *plain.TERMS,
    *plain.TERMS.values(),
    *plain.NOT_FOR,
    plain.BUNDLED,
    *("patients", "source documents", "patients or source documents", "items"),
    *("learned nothing", "not better", "cannot tell", "clearly better", "worse"),
    *("kept", "windowed", "truncated", "repaired", "rejected", "left out"),
    *("public", "synthetic", "pseudonymised"),
    *("train", "dev", "test", "epoch", "step"),
    *("no clear difference", "clearly worse", "all answers", "all labels"),
    *("Scores over all labels", "Scores over all answers"),
    "Scores over all answers (references written by a model)",
    "another label than the gold standard",
    *("Macro F1", "Micro F1", "Accuracy", "Sensitivity", "Specificity"),
)
"""Texts that the code looks up by name."""


@cache
def texts() -> set[str]:
    """All of them."""
    return {*BY_NAME, *_of_code(), *_of_templates()}


def _of_code() -> Iterator[str]:
    for path in sorted(EVALS.glob("*.py")):
        if path.stem.startswith("study"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if named and node.func.id == "words" and node.args:
                found = node.args[0]
                for text in ast.walk(found):
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        yield text.value


def _of_templates() -> Iterator[str]:
    for path in sorted((EVALS / "templates").glob("[!s]*.jinja")):  # a study has words of its own
        source = path.read_text("utf-8")
        for call in re.findall(r'\b_\(("[^"]*"(?: if [\w. ]+ else "[^"]*")?)', source):
            yield from re.findall(r'"([^"]*)"', call)
