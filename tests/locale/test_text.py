"""Units are what no span may cut; sentences and tokens are built over them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.locale.text import units


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in units(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bệnh nhân đau bụng", ["Bệnh", "nhân", "đau", "bụng"]),
        ("500mg", ["500", "mg"]),
        ("G6PD", ["G", "6", "PD"]),
        ("COVID-19", ["COVID", "-", "19"]),
        ("38.5°C", ["38", ".", "5", "°", "C"]),
        ("二甲双胍500mg", ["二", "甲", "双", "胍", "500", "mg"]),
        ("CT检查", ["CT", "检", "查"]),
        ("３０天", ["３０", "天"]),
        ("かぜ、カゼ", ["か", "ぜ", "、", "カ", "ゼ"]),
        ("한국", ["한", "국"]),
        ("\U00020000\U0002a6df", ["\U00020000", "\U0002a6df"]),
        ("葛\U000e0100城", ["葛\U000e0100", "城"]),
        ("đau😀😀bụng", ["đau", "😀", "😀", "bụng"]),
        ("❤️ok", ["❤️", "ok"]),
        ("a\u200bb", ["a", "\u200b", "b"]),
        ("İstanbul", ["İstanbul"]),
        ("m²", ["m", "²"]),
        ("snake_case", ["snake", "_", "case"]),
        ("สวัสดี", ["สวัสดี"]),
        ("العَرَبِيَّة", ["العَرَبِيَّة"]),
        ("हिन्दी", ["हिन्दी"]),
        (" \u0301x", ["\u0301", "x"]),
        (" \t\r\n\u3000\u2028", []),
    ],
)
def test_units(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


@pytest.mark.parametrize("text", ["Bệnh nhân đau đầu, sốt 38.5°C", "한국 が", "Ménière Sjögren"])
def test_nfd_text_is_cut_where_nfc_text_is(text: str) -> None:
    decomposed = cut(unicodedata.normalize("NFD", text))
    assert [unicodedata.normalize("NFC", unit) for unit in decomposed] == cut(text)


@given(st.text())
def test_units_cover_every_character_that_is_not_white_space_once_and_in_order(text: str) -> None:
    covered = [position for start, end in units(text) for position in range(start, end)]
    assert covered == [position for position, character in enumerate(text) if not character.isspace()]


@given(st.text())
def test_a_unit_never_begins_with_a_mark_that_belongs_to_what_stands_before(text: str) -> None:
    for start, _ in units(text):
        if start and unicodedata.combining(text[start]):
            assert text[start - 1].isspace()
