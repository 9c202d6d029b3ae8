"""Retrieval of terms: as BM25 says by hand, marks kept apart, codes compared at 3 and 4 characters."""

from __future__ import annotations

import os
from math import log
from pathlib import Path

import pytest

from residency.core.errors import DataError
from residency.core.types import Facts, Note
from residency.tasks.card import load_card
from residency.tasks.codec import read
from residency.tasks.examples import examples
from residency.tasks.retrieval import (
    Candidate,
    Index,
    Term,
    grams,
    mapped,
    offered,
    read_terms,
    same_code,
)

TERMS = [
    Term(code="J18.9", name="Viêm phổi, không đặc hiệu"),
    Term(code="J15.9", name="Viêm phổi do vi khuẩn"),
    Term(code="K29.7", name="Viêm dạ dày, không đặc hiệu"),
    Term(code="K86.1", name="Viêm tụy mạn"),
    Term(code="D16.9", name="U lành của tủy xương"),
    Term(code="I10", name="原发性高血压"),
]


def test_grams_are_of_composed_words_fenced_by_blanks() -> None:
    assert grams("Ho, ho") == {" h": 2, "ho": 2, "o ": 2, " ho": 2, "ho ": 2, "o h": 1}
    assert grams("tụy") != grams("tủy")


def test_scores_are_those_of_bm25_by_hand() -> None:
    index = Index(
        [Term(code="1", name="ab"), Term(code="2", name="abab"), Term(code="3", name="xy")]
    )
    # " ab ": 3 bigrams and 2 trigrams; " abab ": 5 and 4; " xy ": 3 and 2; mean 19 / 3. The gram "
    # a" is in 2 of 3 terms, as is "b "
    rarity, length = log(1 + 1.5 / 2.5), 19 / 3

    def weight(times: int, size: int) -> float:
        return times * 2.2 / (times + 1.2 * (0.25 + 0.75 * size / length))

    shared = rarity * weight(1, 5)
    alone = log(1 + 2.5 / 1.5) * weight(1, 5)
    (one, other) = index.find("ab")
    assert one.term.code == "1" and other.term.code == "2"
    # " a", "ab", "b " and " ab" are shared; "ab " too
    assert one.score == pytest.approx(5 * shared)
    assert other.score == pytest.approx(rarity * (4 * weight(1, 9) + weight(2, 9)))
    assert alone > shared


def test_free_texts_find_their_terms_in_both_scripts_with_a_slip() -> None:
    index = Index(TERMS)
    assert index.find("viêm phổi do vi khuẩn")[0].term.code == "J15.9"
    assert index.find("viem tụy mãn tính")[0].term.code == "K86.1"
    assert index.find("高血压病")[0].term.code == "I10"
    assert index.find("zzqq") == [] == index.find("")
    assert len(index.find("viêm", most=2)) == 2


def test_a_model_chooses_among_what_was_retrieved() -> None:
    fields = {"text": "viêm phổi vi khuẩn", "entry": "Viêm phổi do vi khuẩn"}
    (note,) = offered(
        [Note(id="1", text="x", profile="public", lang="vi", fields=fields)], Index(TERMS), most=2
    )
    assert note.choices == ("Viêm phổi do vi khuẩn", "Viêm phổi, không đặc hiệu")
    card = load_card("icd10")
    (example,) = examples([note], card)
    assert example.gold == Facts(facts=(("Viêm phổi do vi khuẩn",),))
    assert example.input.endswith("Danh sách:\n\nViêm phổi do vi khuẩn\nViêm phổi, không đặc hiệu")
    assert read("Viêm phổi, không đặc hiệu", example, card)[0] == Facts(
        facts=(("Viêm phổi, không đặc hiệu",),)
    )
    assert read("Không có mã phù hợp", example, card) == (Facts(), None)


def test_codes_agree_at_three_and_four_characters() -> None:
    assert same_code("J18.9", "J18.1", 3) and not same_code("J18.9", "J18.1", 4)
    assert (
        same_code("J189", "j18.9", 4)
        and not same_code("J18", "J18.9", 4)
        and not same_code("", "", 3)
    )


def test_the_measures_by_hand() -> None:
    a, b, c = (Candidate(term=term, score=1.0) for term in TERMS[:3])
    found = mapped(["J18.9", "J18.1", "K29.7", "X00"], [[a, b], [a, c], [b, c], []], tops=(1, 2))
    assert (found.n, found.top, found.three, found.four, found.unmappable) == (
        4,
        {1: 0.25, 2: 0.5},
        0.5,
        0.25,
        0.25,
    )


def test_a_file_without_the_column_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "icd.csv").write_text("code,name\nA00,Bệnh tả\n", "utf-8")
    with pytest.raises(
        DataError, match=r"icd.csv:1: has no column 'code_with_dots'; present: code, name"
    ):
        read_terms(tmp_path / "icd.csv")
    assert read_terms(tmp_path / "icd.csv", "code", "name") == [Term(code="A00", name="Bệnh tả")]


@pytest.mark.data
def test_a_name_finds_itself_among_twelve_thousand() -> None:
    folder = (
        Path(os.environ.get("RESIDENCY_SHARED_DATA", Path(__file__).parents[3] / "shared/data"))
        / "vi/icd10"
    )
    if not folder.is_dir():
        pytest.skip(
            "the ICD-10 dictionary is not here; name the folder of the corpora in "
            "RESIDENCY_SHARED_DATA"
        )
    terms = read_terms(folder / "icd10_diseases_simple.csv")
    index = Index(terms)
    assert len(terms) > 12_000
    some = terms[::400]
    found = [index.find(term.name, 5) for term in some]
    # several codes have the same name, so the first five hold the term itself
    assert (
        sum(any(c.term == term for c in cs) for term, cs in zip(some, found, strict=True))
        >= len(some) - 1
    )
