"""Units are what no span may cut; sentences and tokens are built over them."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.core.units import units
from residency.locale import Locale, load, packaged
from residency.locale.segment import segmenters
from residency.locale.tokenise import detect, sentences, tokens


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
    assert covered == [
        position for position, character in enumerate(text) if not character.isspace()
    ]


@given(st.text())
def test_a_unit_never_begins_with_a_mark_that_belongs_to_what_stands_before(text: str) -> None:
    for start, _ in units(text):
        if start and unicodedata.combining(text[start]):
            assert text[start - 1].isspace()


def split(text: str, lang: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text, lang)]


@pytest.mark.parametrize(
    ("lang", "expected"),
    [
        ("vi", ["Sốt 3 ngày.", "Ho nhiều!", "Đau không?", "Không."]),
        ("vi", ["BS. Nguyễn khám tại TP. Hồ Chí Minh, lúc 3.5 giờ.", "Về."]),
        ("vi", ["Uống thuốc v.v. và nghỉ.", "Tái khám."]),
        ("vi", ["Theo dõi viêm phổi (?) và ?lao.", "Chụp lại."]),
        ("en", ["Seen by Dr. Smith, e.g. twice.", "T 38.5."]),
        ("en", ['"Really?" she said.', "(Seen before.)", "Then home... and back."]),
        ("en", ["Given p.o. twice (see 3.).", "No fever.", "no cough."]),
        ("zh", ["患者发热3天。", "体温38.5℃；", "咳嗽！"]),
        ("zh", ["诊断：1.肺炎 2.糖尿病。", "“好。”"]),
        ("", ["Sốt.", "发热。"]),
        ("th", ["One.", "Two."]),
    ],
)
def test_sentences(lang: str, expected: list[str]) -> None:
    joint = "" if lang == "zh" else " "
    assert split(joint.join(expected), lang) == expected


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\n\n  ", "\u2028"])
def test_a_line_break_ends_a_sentence(line_break: str) -> None:
    assert split(f"1. Tim đều{line_break}2. Phổi trong", "vi") == ["1. Tim đều", "2. Phổi trong"]


def test_a_full_stop_ends_a_sentence_where_the_space_was_forgotten() -> None:
    assert split("Đau bụng.Nôn 2 lần.Sốt 38.5 độ", "vi") == [
        "Đau bụng.",
        "Nôn 2 lần.",
        "Sốt 38.5 độ",
    ]


def test_abbreviations_are_known_in_decomposed_text() -> None:
    text = unicodedata.normalize("NFD", "ĐD. Lan.")
    assert split(text, "vi") == [text]


@given(
    st.text() | st.lists(st.sampled_from([*"aB1.。?!…)('\" \n中"])).map("".join),
    st.sampled_from(["vi", "zh", "en", ""]),
)
def test_sentences_cover_everything_but_white_space_in_order(text: str, lang: str) -> None:
    found = sentences(text, lang)
    covered = [position for start, end in found for position in range(start, end)]
    assert covered == sorted(set(covered))
    assert all(text[position].isspace() for position in set(range(len(text))) - set(covered))
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in found)


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("Đau bụng, ĐẦU búng", "vi", ["đau", "bụng", "đầu", "búng"]),
        (unicodedata.normalize("NFD", "Đầu"), "vi", ["đầu"]),
        (
            "Hoà hòa; thuý thúy; quý khoẻ khỏe hoàn",
            "vi",
            ["hoà", "hoà", "thuý", "thuý", "quý", "khoẻ", "khoẻ", "hoàn"],
        ),
        ("hoà hòa", "", ["hoà", "hòa"]),
        ("患者服用Metformin500mg。", "zh", ["患", "者", "服", "用", "metformin", "500", "mg"]),
        ("G6PD-deficient (3.5)", "en", ["g", "6", "pd", "deficient", "3", "5"]),
        ("😀 … !", "en", []),
        ("İ", "en", ["i\u0307"]),
    ],
)
def test_tokens(text: str, lang: str, expected: list[str]) -> None:
    assert tokens(text, lang) == expected


@given(st.text(alphabet="aăâđêôơưẾộòÝ 中文1.\u0301\u0323", max_size=30))
def test_tokens_do_not_depend_on_the_normal_form(text: str) -> None:
    assert tokens(unicodedata.normalize("NFD", text), "vi") == tokens(
        unicodedata.normalize("NFC", text), "vi"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("患者发热3天", "zh"),
        ("二甲双胍500mg", "zh"),
        ("行CT及MRI检查", "zh"),
        ("Bệnh nhân đau bụng", "vi"),
        (unicodedata.normalize("NFD", "Bệnh nhân đau bụng"), "vi"),
        ("ho ba ngày", "vi"),
        ("Nguyễn Văn A", "vi"),
        ("The patient was seen by 王 on Monday", "en"),
        ("café au lait spots", "en"),
        ("Ménière disease", "en"),
        ("ho 3 ngay", "en"),
        ("120/80 ...", ""),
        ("สวัสดี", ""),
        ("", ""),
    ],
)
def test_detect(text: str, expected: str) -> None:
    assert detect(text) == expected


@pytest.mark.parametrize("text", ["Sốt 38.5 độ. ", "发热38.5℃。", "3.5 ", "(?) ", "\n", "....... "])
def test_long_texts_take_linear_time(text: str) -> None:
    long = text * (100_000 // len(text))
    began = time.process_time()
    units(long), sentences(long, "vi"), tokens(long, "vi"), detect(long)
    assert time.process_time() - began < 3  # about 0.3 s; quadratic work would take minutes


@pytest.mark.parametrize("code", packaged())
def test_every_packaged_locale_loads_and_is_whole(code: str) -> None:
    locale = load(code)
    assert locale.code == code
    assert locale.name and locale.native_name and locale.sentence_ends
    assert all(abbreviation.endswith(".") for abbreviation in locale.abbreviations)
    assert locale.segmenter in ("", *segmenters())


def test_a_tag_with_a_region_is_its_language() -> None:
    assert load("zh-CN") == load("zh_Hans") == load("zh")
    assert load("zh").unit == "character"


@pytest.mark.parametrize("code", ["th", "", "../vi", "vietnamese"])
def test_an_unknown_language_is_generic_and_never_an_error(code: str) -> None:
    assert load(code) == Locale(code=code, name=code, native_name=code)
