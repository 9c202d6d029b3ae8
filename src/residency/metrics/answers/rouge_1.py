"""ROUGE-1 (Lin 2004): words in common."""

from __future__ import annotations

from residency.metrics.answers import Words
from residency.metrics.overlap import rouge, word_signature

TITLE = "ROUGE-1"


def score(gold: Words, said: Words) -> float:
    """F-measure in 0..1; 0 where either has no words."""
    return rouge("rouge1", gold.words, said.words)


def signature() -> str:
    """The package that computes it, and how words are cut."""
    return word_signature("rouge_score")
