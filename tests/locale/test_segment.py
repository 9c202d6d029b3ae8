"""Segmentation only joins syllables and parts words; offsets stay exact whatever the library does."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.core.errors import UserError
from residency.locale import segment as module
from residency.locale.segment import segment, segmenters


def library(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """A segmentation library that answers its calls with these words, one list a sentence."""
    rows = iter(answers)
    monkeypatch.setitem(module._SEGMENTERS, "canned", lambda: lambda _: next(rows))


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("bệnh nhân ho", ["bệnh nhân", "ho"], "bệnh_nhân ho"),
        ("ho,sốt", ["ho", ",", "sốt"], "ho , sốt"),
        ("bệnh \t nhân", ["bệnh nhân"], "bệnh_nhân"),
        ("hoà giải ðau", ["hòa giải", "đau"], "hoà_giải ðau"),
        (
            unicodedata.normalize("NFD", "bệnh nhân"),
            ["bệnh nhân"],
            unicodedata.normalize("NFD", "bệnh_nhân"),
        ),
        ("bệnh\u200b nhân", ["bệnh nhân"], "bệnh\u200b_nhân"),
        ("sốt 38.5", ["sốt 38.5"], "sốt 38.5"),
        ("mạch máu", ["mạ", "ch máu"], "mạch_máu"),
        ("38 . 5", ["38.5"], "38 . 5"),
        ("bệnh_nhân ho", ["bệnh_nhân", "ho"], "bệnh_nhân ho"),
        ("500mg", ["500", "mg"], "500 mg"),
        ("đau bụng dữ dội", ["đau bụng", "dữ"], "đau bụng dữ dội"),
        ("đau bụng", ["đau ngực"], "đau bụng"),
        ("đau bụng", [], "đau bụng"),
    ],
)
def test_words_of_the_library_become_edits(
    monkeypatch: pytest.MonkeyPatch, text: str, words: list[str], expected: str
) -> None:
    library(monkeypatch, words)
    assert segment(text, "canned").apply(text) == expected


def test_syllables_part_words_that_touch_and_join_none() -> None:
    text = "Bệnh nhân ho,sốt 38.5 (đau bụng)"
    assert segment(text, "syllables").apply(text) == "Bệnh nhân ho , sốt 38 . 5 ( đau bụng )"


def test_a_sentence_that_cannot_be_matched_leaves_the_others_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library(monkeypatch, ["lost"], ["bệnh nhân", "."])
    assert (
        segment("đau bụng.\nbệnh nhân.", "canned").apply("đau bụng.\nbệnh nhân.")
        == "đau bụng.\nbệnh_nhân ."
    )


def test_a_library_that_fails_leaves_the_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> list[str]:
        raise RuntimeError("odd input")

    monkeypatch.setitem(module._SEGMENTERS, "canned", lambda: fails)
    assert segment("đau bụng", "canned").pieces == ()


def test_an_unknown_segmenter_is_answered_with_the_allowed_names() -> None:
    with pytest.raises(
        UserError,
        match=r"'underthesee' is not known; allowed: syllables, underthesea; did you mean underthesea\?",
    ):
        segment("đau", "underthesee")
    assert segmenters() == ["syllables", "underthesea"]


def test_a_missing_package_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "underthesea", None)
    with pytest.raises(UserError, match=re.escape('pip install "residency[vi]"')):
        segment("đau", "underthesea")


class TestUnderthesea:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip(
            "underthesea", reason='needs the package underthesea: pip install "residency[vi]"'
        )

    def test_a_note(self) -> None:
        text = "Bệnh nhân nam,45 tuổi.\r\nVùng thượng   vị: đau"
        edits = segment(text, "underthesea")
        assert edits.apply(text) == "Bệnh_nhân nam , 45 tuổi .\r\nVùng thượng_vị : đau"
        assert edits.project(0, 9) == (0, 9)
        found = edits.back(10, 13)
        assert found is not None
        assert text[found[0] : found[1]] == "nam"

    def test_decomposed_text_is_cut_like_composed_text(self) -> None:
        text = "Bệnh nhân đau vùng thượng vị"
        composed = segment(text, "underthesea").apply(text)
        decomposed = unicodedata.normalize("NFD", text)
        assert "_" in composed
        assert segment(decomposed, "underthesea").apply(decomposed) == unicodedata.normalize(
            "NFD", composed
        )

    @given(
        st.lists(
            st.sampled_from(
                [
                    "bệnh nhân",
                    "hoà",
                    "ðau",
                    "e\u0323\u0302",
                    "二甲",
                    "😀",
                    "\u200b",
                    "\r\n",
                    " ",
                    ". ",
                    "5",
                    "\ud800",
                ]
            ),
            max_size=12,
        ).map("".join)
        | st.text(max_size=30)
    )
    def test_any_text_changes_only_by_spaces_and_joins(self, text: str) -> None:
        edits = segment(text, "underthesea")
        for piece in edits.pieces:
            old = text[piece.start : piece.end]
            assert (old == "" and piece.text == " ") or (old.isspace() and piece.text == "_")
