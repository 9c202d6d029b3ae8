"""BLEU of a corpus (Papineni et al. 2002), as sacrebleu computes it, 0..100."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residency.metrics import overlap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

TITLE, UNBOUNDED = "BLEU (0 to 100)", True


def counts(golds: Sequence[str], answers: Sequence[str], character: bool) -> list[list[int]]:
    """What each pair adds; one tokeniser for all, so that sacrebleu itself gives the same number:
    ``zh`` as soon as one text is Chinese; it cuts what is not Chinese as ``13a`` does (HTML
    entities and full-width signs apart)."""
    return overlap.bleu_counts(golds, answers, tokeniser(character))


def of_sums(sums: Array) -> Array:
    """Summed counts [..., counts] -> BLEU [...]."""
    return overlap.bleu(sums)


def tokeniser(character: bool) -> overlap.Tokeniser:
    """sacrebleu's name of the tokeniser."""
    return "zh" if character else "13a"


def signature(character: bool) -> str:
    """In sacrebleu's own form."""
    return overlap.bleu_signature(tokeniser(character))
