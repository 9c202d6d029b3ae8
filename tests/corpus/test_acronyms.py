"""Short forms: cut out by code points, composed afterwards, with what they may stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from residency.core.errors import DataError
from residency.core.types import Labels
from residency.corpus.formats.acronyms import Acronyms
from residency.corpus.load import files, load
from residency.tasks.card import load_card
from residency.tasks.examples import examples, fixed

ROWS = [
    {
        "text": "kt gan bình thường",
        "start_char_idx": 0,
        "length_acronym": 2,
        "expansion": "kích thước",
    },
    {
        "text": normalize("NFD", "mổ bằng kt mới"),
        "start_char_idx": 12,
        "length_acronym": 2,
        "expansion": "kỹ thuật",
    },
    {"text": "nm tá tràng", "start_char_idx": 0, "length_acronym": 2, "expansion": "niêm mạc"},
    {"text": "ngắn", "start_char_idx": 3, "length_acronym": 9, "expansion": "x"},
]


def source(folder: Path, **settings: Any) -> Acronyms:
    (folder / "train.json").write_text(json.dumps(ROWS), "utf-8")
    (folder / "dictionary.json").write_text(
        json.dumps({"kt": ["kích thước", normalize("NFD", "kỹ thuật")]}), "utf-8"
    )
    return Acronyms(
        format="acronyms",
        train="train.json",
        lang="vi",
        profile="public",
        max_rejected=0.5,
        **settings,
    )


def test_the_choices_of_a_row_are_what_its_short_form_may_stand_for(tmp_path: Path) -> None:
    data = source(tmp_path, dictionary="dictionary.json")
    assert [path.name for path in files(data, tmp_path)] == ["dictionary.json", "train.json"]
    corpus = load(data, "x", tmp_path, 0)
    card = fixed(load_card("acronym"), corpus.notes, "data.x")
    assert card.names == ("kích thước", "kỹ thuật", "niêm mạc")
    one, other, third = examples(corpus.notes, card)
    assert one.choices == other.choices == ("kích thước", "kỹ thuật")
    assert other.gold == Labels(labels=("kỹ thuật",)) and '"kt" viết đầy đủ' in other.input
    assert third.choices == (), "not in the dictionary: all labels are open"
    assert [entry.reason for entry in corpus.ledger if entry.status == "rejected"] == [
        "the short form lies outside the text"
    ]


def test_a_dictionary_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    data = source(tmp_path, dictionary="dictionary.json")
    (tmp_path / "dictionary.json").write_text("[1]", "utf-8")
    with pytest.raises(
        DataError, match=r"dictionary.json: is no dictionary of short forms .*; give \{short form"
    ):
        load(data, "x", tmp_path, 0)
