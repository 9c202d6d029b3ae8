"""A CRF over words beside an encoder that marks spans: for each slot their probabilities are
multiplied, weighted, and the likeliest legal tags are read off the product.

What two models that see different things agree on is right more often than what either says
(a product of experts: Hinton 2002, Neural Computation 14, 1771-1800). With a few hundred records
words, shapes and a dictionary of the training part are as good as a small encoder, and each finds
what the other misses.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from residency.core.files import read_json
from residency.core.types import Value
from residency.core.units import units
from residency.models.crf import FEATURES, WEIGHTS, CrfPredictor
from residency.tasks.card import Card

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]
    Slots = Sequence[tuple[int, int]]

FILE = "blend.json"
LEAST = -7.0
"""Least log-probability that either may give a tag, so that none forbids it alone."""


class BlendWeight(Value, frozen=True):
    """How much the CRF counts, and how that was found."""

    weight: float
    """Exponent of the CRF's probabilities; the encoder's have 1 - ``weight``."""
    rows: int = 0
    """Rows that neither had learned from, on which the weight was chosen; 0: it is the one
    of few rows."""
    seconds: float = 0.0
    """Of a training without these rows, which found the weight and was not kept."""
    joules: float | None = None
    """Its energy, where the machine says it."""
    metric: str = ""
    scores: Mapping[str, float] = {}
    """Weight -> the metric on these rows."""


class Blend:
    """The CRF of an artefact and its weight."""

    def __init__(self, crf: CrfPredictor, weight: float) -> None:
        self.crf, self.weight = crf, weight

    @classmethod
    def of(cls, folder: Path, card: Card) -> Blend | None:
        """Of an artefact or an export; ``None`` where its encoder answers alone."""
        if not (folder / FILE).is_file():
            return None
        crf = CrfPredictor.of_files(folder, card, "crf", "words")
        return cls(crf, read_json(folder / FILE, BlendWeight).weight)

    def __call__(self, text: str, slots: Slots, scores: Scores) -> Scores:
        """log p of each tag for each slot of a text, [slots, tags], of what the encoder gives."""
        return product(scores, self.words(text, slots), self.weight)

    def words(self, text: str, slots: Slots) -> Scores:
        """What the CRF gives. A slot that holds several units has the tag of its first."""
        bounds = units(text)
        starts = [start for start, _ in bounds]
        own = self.crf.log_marginals(text, bounds)
        return own[[bisect_left(starts, start) for start, _ in slots]]


def product(encoder: Scores, words: Scores, weight: float) -> Scores:
    """The weighted product of two distributions for each slot, [slots, tags], in logs."""
    import numpy as np

    mixed = (1 - weight) * np.maximum(encoder, LEAST) + weight * np.maximum(words, LEAST)
    mixed = mixed - np.logaddexp.reduce(mixed, axis=-1, keepdims=True)
    return mixed.astype(np.float32)


def take_along(artefact: Path, folder: Path) -> None:
    """Copy what stands beside an artefact's encoder, where anything does."""
    if (artefact / FILE).is_file():
        for name in (FILE, WEIGHTS, FEATURES):
            shutil.copy2(artefact / name, folder / name)
