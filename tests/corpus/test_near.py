"""Near-duplicates: what is called near is near, copies are found, forms that many patients share
tie nobody together."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from residency.core.types import Note
from residency.corpus.near import grams, near_duplicates, near_pairs, signature


def note(id: str, text: str, group: str = "") -> Note:
    return Note(id=id, text=text, profile="synthetic", group=group or id)


def shingles(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(len(text) - 4)} or {text}


def jaccard(a: str, b: str) -> float:
    one, two = shingles(a), shingles(b)
    return len(one & two) / len(one | two)


def words(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [
        "".join(rng.choices("bcdgnmaouiệ áđ患者发热", k=rng.randint(3, 8))) for _ in range(count)
    ]


@forall(
    st.lists(st.text("ab c", min_size=1, max_size=12), unique=True, max_size=25),
    st.sampled_from([0.5, 0.8, 0.95]),
)
def test_no_pair_that_is_called_near_falls_short_of_the_threshold(
    texts: list[str], threshold: float
) -> None:
    for a, b in near_pairs(texts, threshold):
        assert jaccard(texts[a], texts[b]) >= threshold


def test_pairs_well_above_the_threshold_are_all_joined() -> None:
    texts = []
    for seed in range(200):
        one = words(60, seed)
        texts += [
            " ".join(one),
            " ".join([*one[:-2], "other", "end"]),
        ]  # two words of sixty are new
    assert all(jaccard(texts[2 * i], texts[2 * i + 1]) > 0.85 for i in range(200))
    assert set(near_pairs(texts, 0.8)) == {(2 * i, 2 * i + 1) for i in range(200)}


def test_clusters_are_those_of_all_pairs_compared_by_hand() -> None:
    rng, texts = random.Random(3), []
    for seed in range(30):
        text = words(40, 1000 + seed)
        for _ in range(rng.randint(1, 5)):
            text = [word if rng.random() > 0.03 else "x" + word for word in text]
            texts.append(" ".join(text))
    far = [
        pair
        for pair in combinations(range(len(texts)), 2)
        if jaccard(texts[pair[0]], texts[pair[1]]) >= 0.8
    ]
    joined = {i: {i} for i in range(len(texts))}
    for a, b in far:
        union = joined[a] | joined[b]
        for i in union:
            joined[i] = union
    expected = sorted({tuple(sorted(members)) for members in joined.values() if len(members) > 1})
    found = near_duplicates([note(str(i), text) for i, text in enumerate(texts)], 0.8)
    assert sorted(tuple(sorted(map(int, members))) for members in found) == expected
    assert len(expected) > 10


@pytest.mark.parametrize("length", [20, 80, 1500])
def test_equal_values_of_two_signatures_estimate_their_similarity(length: int) -> None:
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(300):
        common = rng.integers(0, 2**64, size=int(length * 0.6), dtype=np.uint64)
        one, two = (
            rng.integers(0, 2**64, size=int(length * 0.2), dtype=np.uint64) for _ in range(2)
        )
        a, b = (np.unique(np.concatenate([common, own])) for own in (one, two))
        estimates.append(np.mean(signature(a) == signature(b)))
    assert np.mean(estimates) == pytest.approx(0.6, abs=0.03)


def test_the_grams_of_a_text_are_as_many_as_it_has_different_ones() -> None:
    for text in ("abcdeabcde", "患者男性，咳嗽、发热三天。", "đau bụng 𝟙𝟚", "ab", "x"):
        assert len(grams(text)) == len(shingles(text))


FORM = (
    "Khoa Nội Tổng hợp, phiếu theo dõi hằng ngày, dùng chung cho mọi bệnh nhân nội trú của bệnh "
    "viện\n" * 3
)


def test_a_form_that_many_patients_have_ties_nobody_together() -> None:
    notes = [note(str(i), FORM + " ".join(words(8, i))) for i in range(40)]
    assert jaccard(notes[0].text, notes[1].text) > 0.4
    assert near_duplicates(notes, 0.4) == []
    assert (
        len(
            near_duplicates(
                [*notes, *(note(f"other {i}", str(i)) for i in range(60))], 0.4, boilerplate=0.9
            )[0]
        )
        == 40
    )


def test_a_note_that_is_only_a_form_is_like_no_other() -> None:
    notes = [note(str(i), FORM + ("" if i < 20 else "\n".join(words(8, i)))) for i in range(40)]
    assert near_duplicates(notes, 0.8) == []


def test_a_text_that_many_patients_have_as_a_whole_is_no_form() -> None:
    text = " ".join(words(40, 1))
    notes = [*(note(str(i), text) for i in range(30)), note("edited", text + " thêm")]
    assert len(near_duplicates(notes, 0.8)[0]) == 31


def test_a_line_that_one_patient_repeats_is_no_form() -> None:
    notes = [note(str(i), " ".join(words(40, 1)) + f" {i}", group="p") for i in range(40)]
    assert len(near_duplicates(notes, 0.8)[0]) == 40


def test_case_blanks_and_unicode_form_make_no_difference() -> None:
    notes = [
        note("a", "Sốt  cao, ho khan ba ngày"),
        note("b", "so\u0302\u0301t cao, Ho khan ba ngày"),
        note("c", "khác"),
    ]
    assert near_duplicates(notes, 0.9) == [["a", "b"]]


def test_ten_thousand_copies_with_a_number_are_one_cluster_within_seconds() -> None:
    text = " ".join(words(120, 5))
    assert (
        len(near_duplicates([note(str(i), f"{text} {i}", group="p") for i in range(2000)], 0.8)[0])
        == 2000
    )
