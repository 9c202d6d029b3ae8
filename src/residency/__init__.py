"""Residency: from rows in a hospital database to a specialist model that answers on the hospital's
own machine.

The Python API is what the command line uses:

    import residency

    recipe = residency.Recipe.load("recipe.yaml")
    findings, data = residency.check(recipe)
    run = residency.run(recipe)
    for answer in residency.predict(run, ["Chẩn đoán: viêm phổi."]):
        print(answer.answer)
    facts, folder = residency.evaluate(run, ["evaluate.bootstrap=2000"])
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

# Training libraries import bitsandbytes, which warns on a CPU that it has no kernels from the hub:
# none are wanted.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

if TYPE_CHECKING:
    from residency.core.errors import DataError, GateRefused, ResidencyError, UserError
    from residency.core.run_folder import Run
    from residency.core.types import Note, Prediction, RawNote, Span
    from residency.recipe import Recipe
    from residency.workflows.bench import bench
    from residency.workflows.check import check
    from residency.workflows.compare import compare
    from residency.workflows.evaluate import evaluate
    from residency.workflows.finished import open_run, predict
    from residency.workflows.run import explain, run

__version__ = "0.1.0"

_WHERE = {
    **dict.fromkeys(
        ("DataError", "GateRefused", "ResidencyError", "UserError"), "residency.core.errors"
    ),
    **dict.fromkeys(("Note", "Prediction", "RawNote", "Span"), "residency.core.types"),
    **dict.fromkeys(("explain", "run"), "residency.workflows.run"),
    **dict.fromkeys(("open_run", "predict"), "residency.workflows.finished"),
    "Recipe": "residency.recipe",
    "bench": "residency.workflows.bench",
    "check": "residency.workflows.check",
    "evaluate": "residency.workflows.evaluate",
    "compare": "residency.workflows.compare",
    "Run": "residency.core.run_folder",
}

__all__ = [
    "DataError",
    "GateRefused",
    "Note",
    "Prediction",
    "RawNote",
    "Recipe",
    "ResidencyError",
    "Run",
    "Span",
    "UserError",
    "__version__",
    "bench",
    "check",
    "compare",
    "evaluate",
    "explain",
    "open_run",
    "predict",
    "run",
]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return __all__


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for, so that ``import residency`` loads
    nothing."""
    if name not in _WHERE:
        raise AttributeError(f"module 'residency' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
