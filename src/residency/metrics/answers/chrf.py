"""chrF2 of a corpus (Popović 2015), as sacrebleu computes it, 0..100."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residency.metrics import overlap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

TITLE, UNBOUNDED = "chrF (0 to 100)", True


def counts(golds: Sequence[str], answers: Sequence[str], character: bool) -> list[list[int]]:
    """What each pair adds."""
    return overlap.chrf_counts(golds, answers)


def of_sums(sums: Array) -> Array:
    """Summed counts [..., counts] -> chrF [...]."""
    return overlap.chrf(sums)


def signature(character: bool) -> str:
    """In sacrebleu's own form."""
    return overlap.chrf_signature()
