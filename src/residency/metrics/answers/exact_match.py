"""Whether an answer is its reference to the letter."""

from __future__ import annotations

from residency.metrics import overlap
from residency.metrics.answers import Words

TITLE = "Exact match"


def score(gold: Words, said: Words) -> float:
    """1 where both say the same, case and punctuation included; an empty answer is 0."""
    return overlap.exact_match(gold.text, said.text)
