"""Overlap of texts: as the reference implementations say when they are asked in another way, and by
hand."""

from __future__ import annotations

import math
import unicodedata

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from residency.metrics import overlap

ENGLISH = [
    ("Take one tablet twice a day after meals.", "Take one tablet a day before meals ."),
    ("No sign of pneumonia on the chest film.", "There is no pneumonia."),
    ("Refer to a cardiologist.", ""),
]
VIETNAMESE = [
    (
        "Bệnh nhân nên uống thuốc sau khi ăn, ngày hai lần.",
        "Bệnh nhân uống thuốc trước khi ăn ngày hai lần.",
    ),
    ("Đau bụng vùng thượng vị, chưa rõ nguyên nhân.", "Đầu búng vùng thượng vị."),
]
CHINESE = [
    ("患者应饭后服用二甲双胍500mg，每日两次。", "患者饭前服用二甲双胍，每日两次。"),
    ("建议尽快到医院做胃镜检查。", "建议做胃镜。"),
]
WORDS = st.lists(st.sampled_from("abcdef"), max_size=12)


def totals(counts: list[list[int]]) -> overlap.Array:
    return np.array(counts, dtype=np.float64).sum(axis=0)


@pytest.mark.parametrize(
    ("pairs", "tokeniser"),
    [(ENGLISH, "13a"), (VIETNAMESE, "13a"), (CHINESE, "zh"), (CHINESE + ENGLISH, "zh")],
)
def test_bleu_and_chrf_of_summed_counts_are_sacrebleus_of_the_corpus(
    pairs: list[tuple[str, str]], tokeniser: overlap.Tokeniser
) -> None:
    references, answers = map(list, zip(*pairs, strict=True))
    expected = sacrebleu.corpus_bleu(answers, [references], tokenize=tokeniser).score
    assert 0 < expected < 100
    assert overlap.bleu(
        totals(overlap.bleu_counts(references, answers, tokeniser))
    ) == pytest.approx(expected)
    expected = sacrebleu.corpus_chrf(answers, [references]).score
    assert overlap.chrf(totals(overlap.chrf_counts(references, answers))) == pytest.approx(expected)


def test_bleu_of_chinese_is_that_of_its_characters() -> None:
    reference, answer = "建议尽快到医院做胃镜检查", "建议到医院做胃镜检查"
    expected = sacrebleu.corpus_bleu(
        [" ".join(answer)], [[" ".join(reference)]], tokenize="none"
    ).score
    assert overlap.bleu(totals(overlap.bleu_counts([reference], [answer], "zh"))) == pytest.approx(
        expected
    )


def test_bleu_by_hand() -> None:
    # unigrams 5 of 5, bigrams 3 of 4, trigrams 1 of 3, none of 2 four-grams (smoothed to 1/2 of
    # one); 5 words against 6
    counts = overlap.bleu_counts(["a b c d e f"], ["a b c e f"], "13a")
    assert counts == [[5, 6, 5, 3, 1, 0, 5, 4, 3, 2]]
    expected = 100 * math.exp(1 - 6 / 5) * (1 * 3 / 4 * 1 / 3 * (1 / 2) / 2) ** 0.25
    assert overlap.bleu(totals(counts)) == pytest.approx(expected)


def test_bleu_and_chrf_of_resampled_corpora_are_those_of_the_drawn_texts() -> None:
    references, answers = map(list, zip(*ENGLISH, *VIETNAMESE, strict=True))
    drawn = np.random.default_rng(1).integers(len(answers), size=(20, len(answers)))
    bleu_counts = np.array(overlap.bleu_counts(references, answers, "13a"), dtype=np.float64)
    chrf_counts = np.array(overlap.chrf_counts(references, answers), dtype=np.float64)
    bleu, chrf = (
        overlap.bleu(bleu_counts[drawn].sum(axis=1)),
        overlap.chrf(chrf_counts[drawn].sum(axis=1)),
    )
    assert bleu.shape == chrf.shape == (20,)
    for rows, one, other in zip(drawn, bleu, chrf, strict=True):
        said, wanted = [answers[row] for row in rows], [[references[row] for row in rows]]
        assert one == pytest.approx(sacrebleu.corpus_bleu(said, wanted).score)
        assert other == pytest.approx(sacrebleu.corpus_chrf(said, wanted).score)


def test_the_signatures_are_sacrebleus_own_and_say_that_texts_were_composed() -> None:
    version = sacrebleu.__version__
    assert (
        overlap.bleu_signature("zh")
        == f"nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:{version}|norm:NFC"
    )
    assert (
        overlap.chrf_signature()
        == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}|norm:NFC"
    )


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
@given(reference=WORDS, answer=WORDS)
@settings(max_examples=50)
def test_rouge_of_words_is_that_of_rouge_score_on_the_spaced_text(
    kind: overlap.Rouge, reference: list[str], answer: list[str]
) -> None:
    expected = RougeScorer([kind]).score(" ".join(reference), " ".join(answer))[kind].fmeasure
    assert overlap.rouge(kind, reference, answer) == pytest.approx(expected)


def test_rouge_by_hand() -> None:
    reference, answer = ["胃", "痛", "三", "天"], ["三", "天", "胃", "痛", "了"]
    assert overlap.rouge("rouge1", reference, answer) == pytest.approx(2 * 4 / (4 + 5))
    assert overlap.rouge("rouge2", reference, answer) == pytest.approx(2 * 2 / (3 + 4))
    assert overlap.rouge("rougeL", reference, answer) == pytest.approx(2 * 2 / (4 + 5))


def test_meteor_by_hand() -> None:
    # 4 of 5 words of the answer match 4 of 6, in 2 chunks
    precision, recall = 4 / 5, 4 / 6
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    expected = mean * (1 - 0.5 * (2 / 4) ** 3)
    assert overlap.meteor_exact(
        ["a", "b", "c", "d", "e", "f"], ["a", "b", "x", "e", "f"]
    ) == pytest.approx(expected)


def test_meteor_is_nltks_where_only_synonyms_and_stems_are_missing() -> None:
    # the example of nltk's documentation gives 0.6944 with WordNet; all its matches are exact but
    # for the case
    hypothesis = [
        "it",
        "is",
        "a",
        "guide",
        "to",
        "action",
        "which",
        "ensures",
        "that",
        "the",
        "military",
        "always",
        "obeys",
        "the",
        "commands",
        "of",
        "the",
        "party",
    ]
    reference = [
        "it",
        "is",
        "a",
        "guide",
        "to",
        "action",
        "that",
        "ensures",
        "that",
        "the",
        "military",
        "will",
        "forever",
        "heed",
        "party",
        "commands",
    ]
    assert overlap.meteor_exact(reference, hypothesis) == pytest.approx(0.6944, abs=5e-5)


def test_meteor_knows_no_stems_and_no_synonyms() -> None:
    assert (
        overlap.meteor_exact(["doctors"], ["doctor"])
        == overlap.meteor_exact(["doctor"], ["physician"])
        == 0
    )


@given(words=WORDS.filter(bool))
@settings(max_examples=30)
def test_equal_words_score_full_and_one_chunk_of_them_nearly_so(words: list[str]) -> None:
    assert (
        overlap.rouge("rouge1", words, words)
        == overlap.rouge("rougeL", words, words)
        == overlap.token_f1(words, words)
        == 1
    )
    assert overlap.meteor_exact(words, words) == pytest.approx(1 - 0.5 / len(words) ** 3)


@pytest.mark.parametrize(("reference", "answer"), [([], []), (["a"], []), ([], ["a"])])
def test_no_words_score_nothing_and_raise_nothing(reference: list[str], answer: list[str]) -> None:
    for kind in ("rouge1", "rouge2", "rougeL"):
        assert overlap.rouge(kind, reference, answer) == 0
    assert overlap.meteor_exact(reference, answer) == overlap.token_f1(reference, answer) == 0
    pair = [" ".join(reference)], [" ".join(answer)]
    assert (
        overlap.bleu(totals(overlap.bleu_counts(*pair, "13a")))
        == overlap.chrf(totals(overlap.chrf_counts(*pair)))
        == 0
    )


def test_exact_match_is_to_the_letter_and_never_of_nothing() -> None:
    assert overlap.exact_match("Viêm phổi.", "Viêm phổi.") == 1
    assert (
        overlap.exact_match("Viêm phổi.", "viêm phổi.")
        == overlap.exact_match("Viêm phổi.", "Viêm phổi")
        == 0
    )
    assert overlap.exact_match("", "") == 0


def test_clean_composes_and_trims() -> None:
    assert overlap.clean("\n " + unicodedata.normalize("NFD", "Đau bụng") + "\u3000") == "Đau bụng"
