"""METEOR (Lavie and Agarwal 2007) in which only equal words match."""

from __future__ import annotations

from residency.metrics import overlap
from residency.metrics.answers import Words

TITLE = "METEOR, exact form"


def score(gold: Words, said: Words) -> float:
    """In 0..1: stems and synonyms exist for English alone, and need a download."""
    return overlap.meteor_exact(gold.words, said.words)


def signature() -> str:
    """The package that computes it, and how words are cut."""
    return overlap.word_signature("nltk")
