"""Metrics of a written answer, one in each file, chosen by a card's ``metric`` or by
``evaluate.metrics``.

A file holds one function ``score(gold, said)``: the value for one answer, whose mean over the
examples is reported, or ``None`` where the metric does not apply to it. A new file is a new metric;
one of another package is named ``package.module:function``. What is a metric of a whole corpus has
two functions instead: ``counts(golds, answers, character)``, what each pair adds to sums, and
``of_sums``.

A file may also say ``TITLE``, ``LOWER_IS_BETTER``, ``UNBOUNDED`` (it does not end at 0 and 1) and
``signature()``: how it was computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from residency.core.errors import UserError, allowed
from residency.core.part import imported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Words(NamedTuple):
    """A text as the metrics see it."""

    text: str
    words: list[str]
    """Chinese by character, all else by word, in lower case, without punctuation."""
    content: list[str]
    """Without the articles of English."""


class AnswerMetric(NamedTuple):
    """How written answers are compared with their references."""

    name: str
    score: Callable[[Words, Words], float | None] | None
    """(reference, answer) -> the value for one example."""
    counts: Callable[[Sequence[str], Sequence[str], bool], Sequence[Sequence[float]]] | None = None
    """(references, answers, whether some are of a language without blanks) -> what each pair adds
    to the sums."""
    of_sums: Callable[[Array], Array] | None = None
    """Sums [..., counts] -> the metric [...]."""
    signature: Callable[..., str] | None = None
    title: str = ""
    lower_is_better: bool = False
    unbounded: bool = False


@cache
def named(name: str) -> AnswerMetric:
    """A metric by the name of its file, or as ``package.module:function``.

    Raises ``UserError`` where there is none.
    """
    if ":" in name:
        score = imported(name)
        if not callable(score):
            raise UserError(f"metric: {name} is no function of a reference and an answer.")
        return AnswerMetric(name, score, title=name.partition(":")[2])
    if name not in names():
        raise UserError(f"metric: {name!r} is not known; {allowed(names(), name)}.")

    def own(what: str, otherwise: Any = None) -> Any:
        return getattr(module, what, otherwise)

    module = import_module(f"{__name__}.{name}")
    return AnswerMetric(
        name,
        own("score"),
        own("counts"),
        own("of_sums"),
        own("signature"),
        own("TITLE", ""),
        own("LOWER_IS_BETTER", False),
        own("UNBOUNDED", False),
    )


def names() -> list[str]:
    """Names of the packaged metrics."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
