"""Old encodings and formatted notes are read exactly, or not at all; labels move with the text."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from residency.ingest.decode import (
    Unreadable,
    by_font,
    decode_bytes,
    format_of,
    of_html,
    of_rtf,
    read,
    tcvn3,
    vni,
)
from residency.ingest.rows import spans_of

# Written by hand from the code charts: what a Western system shows of texts in these fonts.
TCVN3 = [
    (
        "BÖnh nh©n n÷ 62 tuæi, ®au bông vïng th­îng vÞ.",
        "Bệnh nhân nữ 62 tuổi, đau bụng vùng thượng vị.",
    ),
    ("ChÈn ®o¸n: viªm phæi", "Chẩn đoán: viêm phổi"),
    ("§au ®Çu, sèt 39 ®é", "Đau đầu, sốt 39 độ"),
    ("TiÒn sö: t¨ng huyÕt ¸p, ®¸i th¸o ®­êng", "Tiền sử: tăng huyết áp, đái tháo đường"),
    ("Hä vµ tªn: NguyÔn V¨n Tó", "Họ và tên: Nguyễn Văn Tú"),
]
VNI = [
    (
        "Beänh nhaân nöõ 62 tuoåi, ñau buïng vuøng thöôïng vò.",
        "Bệnh nhân nữ 62 tuổi, đau bụng vùng thượng vị.",
    ),
    ("Chaån ñoaùn: vieâm phoåi", "Chẩn đoán: viêm phổi"),
    ("Ñau ñaàu, soát 39 ñoä", "Đau đầu, sốt 39 độ"),
    ("Tieàn söû: taêng huyeát aùp, ñaùi thaùo ñöôøng", "Tiền sử: tăng huyết áp, đái tháo đường"),
    ("HOÏ VAØ TEÂN: NGUYEÃN VAÊN TUÙ", "HỌ VÀ TÊN: NGUYỄN VĂN TÚ"),
    ("Tieáng Vieät", "Tiếng Việt"),
    ("nghæ, kyõ, lyù, myõ, quyø, tî", "nghỉ, kỹ, lý, mỹ, quỳ, tỵ"),
]
VOWELS = "aăâeêioôơuưy"
LETTERS = {
    normalize("NFC", v + m)
    for v in VOWELS
    for m in ("", "\u0300", "\u0301", "\u0303", "\u0309", "\u0323")
} | {"đ"}


@pytest.mark.parametrize(("stored", "text"), TCVN3)
def test_tcvn3_is_read_as_its_font_draws_it(stored: str, text: str) -> None:
    assert by_font(stored, "tcvn3")[0] == text


@pytest.mark.parametrize(("stored", "text"), VNI)
def test_vni_letters_of_one_and_two_signs_are_read_as_the_font_draws_them(
    stored: str, text: str
) -> None:
    assert by_font(stored, "vni")[0] == text


def test_every_vietnamese_letter_has_a_code_of_its_own_in_both_fonts() -> None:
    plain = set("aeiouy")
    assert set(tcvn3().values()) >= LETTERS - plain
    assert len({v for v in tcvn3().values() if v in LETTERS}) == len(
        [v for v in tcvn3().values() if v in LETTERS]
    )
    assert set(vni().values()) >= (LETTERS - plain) | {letter.upper() for letter in LETTERS - plain}


def test_all_letters_come_back_from_a_writer_made_of_the_table() -> None:
    text = "".join(sorted(LETTERS))
    for encoding, table in (("tcvn3", tcvn3()), ("vni", vni())):
        back = {
            letter: stored
            for stored, letter in table.items()
            if stored.islower() or len(stored) == 1
        }
        stored = " ".join(back.get(letter, letter) for letter in text)
        assert by_font(stored, encoding)[0] == " ".join(text)  # type: ignore[arg-type]


def test_composed_and_decomposed_tcvn3_give_the_same_letter() -> None:
    assert by_font("a³ ©³", "tcvn3")[0] == "á ấ"


@pytest.mark.parametrize(
    ("stored", "encoding"),
    [("bø", "vni"), ("38°C", "tcvn3"), ("bệnh", "vni"), ("bệnh", "tcvn3"), ("病", "vni")],
)
def test_what_no_font_draws_is_not_guessed(stored: str, encoding: str) -> None:
    with pytest.raises(Unreadable) as refused:
        by_font(stored, encoding)  # type: ignore[arg-type]
    assert stored not in str(refused.value)


def test_labels_of_the_stored_text_move_to_the_letters() -> None:
    stored = "Beänh nhaân ñau buïng"
    text, edits = by_font(stored, "vni")
    (span,) = spans_of([(stored.index("ñau"), len(stored), "SYMPTOM")], text, edits)
    assert span.quote == "đau bụng" == text[span.start : span.end]


@pytest.mark.parametrize(
    ("data", "encoding", "lang", "text"),
    [
        ("患者男性，咳嗽".encode("gb18030"), "gb18030", "", "患者男性，咳嗽"),
        ("患者男性，咳嗽".encode("gb18030"), "auto", "zh", "患者男性，咳嗽"),
        ("bệnh nhân".encode(), "auto", "vi", "bệnh nhân"),
        (b"\xef\xbb\xbfx", "auto", "", "x"),
        ("bệnh".encode("utf-16"), "auto", "vi", "bệnh"),
        (b"\xce nh\xe2n", "cp1258", "vi", "Î nhân"),
        (b"a\xec \xf0", "cp1258", "vi", "a\u0301 đ"),
        (b"B\xd6nh nh\xa9n", "tcvn3", "vi", "BÖnh nh©n"),
    ],
)
def test_bytes_are_read_in_the_encoding_that_is_named_or_plain_to_see(
    data: bytes, encoding: str, lang: str, text: str
) -> None:
    assert decode_bytes(data, encoding, lang) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "encoding", "lang"),
    [
        (b"B\xd6nh nh\xa9n", "auto", "vi"),
        (b"\xff\xff", "utf-8", ""),
        (b"\x81", "gb18030", "zh"),
        (b"\xb2\xa1\xff", "auto", "zh"),
    ],
)
def test_bytes_that_are_not_plain_to_see_are_not_guessed(
    data: bytes, encoding: str, lang: str
) -> None:
    with pytest.raises(Unreadable):
        decode_bytes(data, encoding, lang)  # type: ignore[arg-type]


RTF = (
    r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0 Arial;}}\f0\fs20 B\u7879?nh nh\u226?n \b "
    r"s\u7889?t\b0\par Hai ng\'e0y.}"
)
HTML = (
    "<html><head><style>p {color: red}</style><script>x()</script></head><body><p>B&#7879;nh "
    "nhân <b>sốt</b></p><table><tr><td>Mạch</td><td>80</td></tr></table>ho<br>khan</body></html>"
)


def test_rtf_gives_its_words() -> None:
    assert of_rtf(RTF) == "Bệnh nhân sốt\nHai ngày."


def test_html_gives_its_words_a_line_for_each_block_and_no_scripts() -> None:
    assert of_html(HTML) == "Bệnh nhân sốt\nMạch\t80\nho\nkhan"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (RTF, "rtf"),
        (HTML, "html"),
        ("<p>sốt</p>", "html"),
        ("a<br/>b", "html"),
        ("HA < 90, Na <135, K> 5", "plain"),
        ("p<0.05 và n<b>a", "plain"),
        ("<không rõ>", "plain"),
        ("", "plain"),
    ],
)
def test_formatted_text_is_told_by_its_signs(text: str, kind: str) -> None:
    assert format_of(text) == kind


def test_offsets_do_not_survive_formatted_text() -> None:
    assert read("<p>sốt</p>", "auto", "vi", "auto") == ("sốt", None)
    assert read("<p>sốt</p>", "auto", "vi", "plain")[0] == "<p>sốt</p>"
