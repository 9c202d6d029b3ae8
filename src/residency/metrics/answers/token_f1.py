"""F1 of the words that answer and reference both hold, whatever their order (SQuAD, Rajpurkar et
al. 2016)."""

from __future__ import annotations

from residency.metrics import overlap
from residency.metrics.answers import Words

TITLE = "Token F1"


def score(gold: Words, said: Words) -> float:
    """In 0..1, without the articles of English."""
    return overlap.token_f1(gold.content, said.content)


def signature() -> str:
    """The package that computes it, and how words are cut."""
    return overlap.word_signature("rouge_score")
