"""Overlap of a written answer with its reference, by the implementations that publications use.

ROUGE is rouge_score's (Lin 2004), METEOR nltk's (Lavie and Agarwal 2007), BLEU (Papineni et al.
2002) and chrF (Popović
2015) sacrebleu's (Post 2018). What a word is depends on the language, so ROUGE and METEOR are given
      words; BLEU and chrF cut a text themselves and are given the text, in NFC.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Words = Sequence[str]
Rouge = Literal["rouge1", "rouge2", "rougeL"]
Tokeniser = Literal["13a", "zh"]
"""How sacrebleu cuts a text for BLEU: ``zh`` makes each Chinese character a token and is ``13a``
for the rest."""

BLEU_COUNTS = 10
"""Lengths of answer and reference, then the n-grams of order 1 to 4 that were right, then those
that were written."""
CHRF_COUNTS = 18
"""For the character n-grams of order 1 to 6: those written, those of the reference, those in
both."""


def clean(text: str) -> str:
    """The text as all metrics see it: NFC, without white space around it."""
    return unicodedata.normalize("NFC", text).strip()


def basic_tokens(text: str) -> list[str]:
    """The tokens of BERT's basic tokeniser: lower case without accents, each Chinese character and
    sign by itself."""
    normaliser, splitter = _basic()
    return [token for token, _ in splitter.pre_tokenize_str(normaliser.normalize_str(text))]


def common_subsequence(one: Words, other: Words) -> int:
    """Length of the longest common subsequence of two texts."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, candidate in enumerate(other, start=1):
            above = row[at]
            row[at] = before + 1 if word == candidate else max(above, row[at - 1])
            before = above
    return row[-1]


def rouge(kind: Rouge, reference: Words, answer: Words) -> float:
    """F-measure of ROUGE-1, ROUGE-2 or ROUGE-L (longest common subsequence) in 0..1; 0.0 where
    either has no words."""
    return float(_rouge(kind).score(reference, answer)[kind].fmeasure)


def meteor_exact(reference: Words, answer: Words) -> float:
    """METEOR in 0..1 where only equal words match: stems and synonyms exist for English alone, and
    need a download."""
    from nltk.translate.meteor_score import single_meteor_score

    return float(
        single_meteor_score(reference, answer, preprocess=str, stemmer=_Itself(), wordnet=_Itself())
    )


def token_f1(reference: Words, answer: Words) -> float:
    """F1 of the words that both hold, whatever their order (SQuAD, Rajpurkar et al. 2016): ROUGE-1
    over other words."""
    return rouge("rouge1", reference, answer)


def exact_match(reference: str, answer: str) -> float:
    """1.0 where both say the same to the letter, case and punctuation included (SQuAD's drops
    them); an empty answer is 0.0."""
    return float(bool(answer) and reference == answer)


def bleu_counts(
    references: Sequence[str], answers: Sequence[str], tokeniser: Tokeniser
) -> list[list[int]]:
    """What each pair adds to the counts of BLEU: [pairs, ``BLEU_COUNTS``]."""
    return _counts(_bleu(tokeniser), references, answers)


def chrf_counts(references: Sequence[str], answers: Sequence[str]) -> list[list[int]]:
    """What each pair adds to the counts of chrF: [pairs, ``CHRF_COUNTS``]."""
    return _counts(_chrf(), references, answers)


def bleu(sums: Array) -> Array:
    """BLEU of a corpus, 0..100, of its summed counts: [..., ``BLEU_COUNTS``] -> [...].

    As sacrebleu by default: answers that are all shorter than four tokens score 0, even where they
    are right.
    """
    return _of_sums(lambda counts: _bleu("13a")._compute_score_from_stats(counts).score, sums)


def chrf(sums: Array) -> Array:
    """chrF2 of a corpus, 0..100, of its summed counts: [..., ``CHRF_COUNTS``] -> [...]."""
    return _of_sums(lambda counts: _chrf()._compute_score_from_stats(counts).score, sums)


def bleu_signature(tokeniser: Tokeniser) -> str:
    """How BLEU was computed, in sacrebleu's own form, and that the texts were in NFC."""
    return _signature(_bleu(tokeniser))


def chrf_signature() -> str:
    """How chrF was computed, in sacrebleu's own form, and that the texts were in NFC."""
    return _signature(_chrf())


def word_signature(package: str) -> str:
    """How a metric over words was computed, in the form of sacrebleu's signatures."""
    return (
        f"{package}:{version(package)}|case:lower|punctuation:no|tok:words, CJK "
        "characters|stemmer:no|norm:NFC"
    )


def _signature(metric: Any) -> str:
    metric.num_refs = 1
    return f"{metric.get_signature()}|norm:NFC"


class _Words:
    """rouge_score's tokeniser for what is cut already."""

    def tokenize(self, words: Words) -> Words:
        return words


class _Itself:
    """A stemmer that leaves words as they are, and a WordNet that knows none."""

    def stem(self, word: str) -> str:
        return word

    def synsets(self, word: str) -> tuple[()]:
        return ()


@cache
def _basic() -> tuple[Any, Any]:
    from tokenizers import normalizers, pre_tokenizers

    normaliser = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )
    return normaliser, pre_tokenizers.BertPreTokenizer()


@cache
def _rouge(kind: Rouge) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=_Words())


@cache
def _bleu(tokeniser: Tokeniser) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(
        tokenize=tokeniser, force=True
    )  # answers may end in " .": no warning that they look tokenised


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def _counts(metric: Any, references: Sequence[str], answers: Sequence[str]) -> list[list[int]]:
    # What sacrebleu's own significance tests resample; it has no public name. A test holds it to
    # `corpus_score`.
    found: list[list[int]] = metric._extract_corpus_statistics(list(answers), [list(references)])
    return found


def _of_sums(score: Callable[[list[int]], float], sums: Array) -> Array:
    import numpy as np

    rows = np.rint(sums).astype(np.int64).reshape(-1, sums.shape[-1]).tolist()
    return np.array([score(row) for row in rows]).reshape(sums.shape[:-1])
