"""Identifiers of the row are found however a note writes them, and ordinary words are not taken for
them."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from residency.deid.find import resolve
from residency.deid.known import known_finder

VI = (
    ("name", "Nguyễn Thị Phương Hoài"),
    ("national_id", "001203123456"),
    ("insurance", "DN4790123456789"),
    ("phone", "0912345678"),
    ("record", "BN-0012O45"),
)
ZH = (("name", "欧阳志强"), ("national_id", "11010519491231002X"), ("phone", "13800138000"))
EN = (("name", "Margaret A. Holloway"), ("record", "MRN00123456"), ("phone", "(212) 555-0147"))


def found(identifiers: tuple[tuple[str, str], ...], text: str, lang: str) -> list[str]:
    text = normalize("NFC", text)
    return [
        text[one.start : one.end]
        for one in resolve(known_finder(identifiers, lang).find(text, lang))
    ]


@pytest.mark.parametrize(
    ("identifiers", "lang", "way"),
    [
        (VI, "vi", "NGUYỄN THỊ PHƯƠNG HOÀI"),
        (VI, "vi", "nguyen thi phuong hoai"),
        (VI, "vi", "Nguyễn Thi Phuong Hoài"),
        (VI, "vi", "Phương Hoài"),
        (VI, "vi", "Nguyễn Hoài"),
        (VI, "vi", "Hoài Nguyễn Thị Phương"),
        (VI, "vi", "Hoài ᴺguyễn ᵀhị ᴾhương"),  # modifier letters, which have no case
        (VI, "vi", "N.T.P.H"),
        (VI, "vi", "N.T.P.Hoài"),
        (VI, "vi", "N g u y ễ n T h ị P h ư ơ n g H o à i"),
        (VI, "vi", "Nguyễn-Thị-Phương-Hoài"),
        (VI, "vi", "NguyễnThịPhươngHoài"),
        (VI, "vi", "Nguyễn Thị\nPhương Hoài"),
        (VI, "vi", "Ｎｇｕｙễｎ Thị Phương Hoài"),
        (VI, "vi", "Nguyễn\u200b Thị\u00ad Phương\u2060 Hoài"),
        (VI, "vi", "Nguyễn Thị Phương " + normalize("NFD", "Hoài")),
        (VI, "vi", "Nguуеn Thị Phưоng Hоài"),  # some letters are Cyrillic
        (VI, "vi", "Nguyễn Thị Phương Hοài"),  # a Greek omicron
        (VI, "vi", "001 203 123 456"),
        (VI, "vi", "OO12O3123456"),  # O for 0
        (VI, "vi", "00l203I23456"),  # l and I for 1
        (VI, "vi", "DN-4-79-0123456789"),
        (VI, "vi", "4790123456789"),
        (VI, "vi", "+84 912 345 678"),
        (VI, "vi", "091\n2345678"),
        (VI, "vi", "BN0012045"),
        ((("name", "Trần Văn An"),), "vi", "TVAn"),
        ((("name", "买买提·艾力"),), "zh", "艾力"),
        (ZH, "zh", "欧阳志强"),
        (ZH, "zh", "欧 阳 志 强"),
        (ZH, "zh", "欧阳\n志强"),
        (ZH, "zh", "１１０１０５ １９４９１２３１ ００２Ｘ"),
        (ZH, "zh", "11010519491231002x"),
        (ZH, "zh", "+86 138-0013-8000"),
        (EN, "en", "HOLLOWAY, MARGARET A."),
        (EN, "en", "Margaret Holloway"),
        (EN, "en", "M.A.H."),
        (EN, "en", "Holloway"),
        (EN, "en", "Mаrgaret Holloway"),  # a Cyrillic a
        (EN, "en", "mrn oo123456"),
        (EN, "en", "212.555.0147"),
        (EN, "en", "1-212-555-0147"),
        # small letters, family name first: one part is no ordinary word
        ((("name", "Mark O'Brien"),), "en", "o'brien mark"),
        ((("name", "Grace Smith-Jones"),), "en", "smith-jones grace"),
        ((("name", "Rose van der Berg"),), "en", "van der berg rose"),
        ((("name", "Art Kowalczyk"),), "en", "kowalczyk, art"),
        ((("name", "Phạm Ly"),), "vi", "ly phạm"),
        # initials in a table, or before an age
        ((("name", "Nguyễn Văn An"),), "vi", "N.V.A"),
        # a text that was read by a machine
        (VI, "vi", "O9l 234 5 678"),
        (EN, "en", "2l2 555 Ol47"),
        ((("name", "John Doe"),), "en", "J0hn Doe"),
        ((("birth_date", "1960-03-12"),), "vi", "l2/O3/l96O"),
        ((("birth_date", "1960-03-12"),), "vi", "1 2 / 0 3 / 1 9 6 0"),
        ((("birth_date", "1960-03-12"),), "en", "O3.l2.1960"),
        ((("birth_date", "1960-03-12"),), "zh", "196O 年 0 3 月 12"),
        ((("name", "陈秀兰"),), "zh", "C.X.L"),
    ],
)
def test_an_identifier_is_found_however_it_is_written(
    identifiers: tuple[tuple[str, str], ...], lang: str, way: str
) -> None:
    before, after = (
        ("Hôm nay ", " về.")
        if lang == "vi"
        else ("今天", "来院")
        if lang == "zh"
        else ("today ", " came.")
    )
    hits = found(identifiers, before + way + after, lang)
    letters = "".join(sign for sign in normalize("NFC", way) if sign.isalnum())
    assert "".join(sign for hit in hits for sign in hit if sign.isalnum()) == letters


@pytest.mark.parametrize(
    ("identifiers", "lang", "text"),
    [
        (VI, "vi", "Bệnh nhân hoài nghi, phương hướng rõ; 10012031234567; 09123456789"),
        ((("name", "Đặng Đình Đạt"),), "vi", "Chưa có chỉ định đặt catheter, mục đích đạt."),
        ((("name", "Trần Văn Nam"),), "vi", "Nam giới, nam khoa, phía Nam"),
        ((("name", "Lê Minh Hương"),), "vi", "K+ 4,4mmol/L.\nHướng dẫn ăn; L. hướng"),
        (ZH, "zh", "志强不在，2138001380001"),
        ((("name", "Hope Young"),), "en", "young and hopeful; hopefully younger"),
    ],
)
def test_ordinary_words_and_longer_numbers_are_left(
    identifiers: tuple[tuple[str, str], ...], lang: str, text: str
) -> None:
    assert found(identifiers, text, lang) == []


def test_a_given_name_that_is_no_common_word_is_found_in_small_letters_behind_a_cue() -> None:
    assert found((("name", "Lò Văn Pành"),), "con: pành đưa vào", "vi") == ["pành"]


@pytest.mark.parametrize(
    ("name", "lang", "text", "wanted"),
    [
        ("Nguyễn Văn An", "vi", "BN: N.V.A", ["N.V.A"]),
        ("Nguyễn Văn An", "vi", "Họ tên | NVA | Tuổi", ["NVA"]),
        ("Nguyễn Văn An", "vi", "3\tNVA\t64\tnam", ["NVA"]),
        ("Trần Hoàng Anh", "vi", "CĐ: THA, ĐTĐ", []),  # tăng huyết áp
        ("John Doe", "en", "Pt: J.D.", ["J.D"]),
        ("John Doe", "en", "4 | JD | 64 | F", ["JD"]),
        ("John Doe", "en", "JD 64M, MI", ["JD"]),
        ("Mary Ingram", "en", "MI in 2010, MI again", []),
        ("John Doe", "en", "|JD|", ["JD"]),
        ("John Doe", "en", "| 4 | JD | stable |", ["JD"]),
        ("John Doe", "en", "JD\tstable\nKT\tfor CT", ["JD"]),
        ("Nguyễn Văn An", "vi", "| N.A | THA |", ["N.A"]),
        ("Mary Ingram", "en", "| MI | HR 80 |", []),  # an infarction
        ("Mary Ingram", "en", "bed | Name | plan\n4 | MI | CT", ["MI"]),
        ("Nguyễn Văn An", "vi", "Giường|BN|CĐ\n4|NVA|THA", ["NVA"]),
        ("Trần Hoàng Anh", "vi", "Giường|BN|CĐ\n4|Hoà|THA", []),
        ("陈秀兰", "zh", "患者：CXL", ["CXL"]),
        ("陈秀兰", "zh", "床2 陈XX 发热", ["陈"]),
        ("常林", "zh", "胸部异常X线表现", []),
    ],
)
def test_initials_of_the_row_are_found_where_a_person_is_meant(
    name: str, lang: str, text: str, wanted: list[str]
) -> None:
    assert found((("name", name),), text, lang) == wanted


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("Đặng Trâm Anh", "Đặng Thị A, chị Anh mệt", ["Anh"]),  # a title that is a name
        ("Đặng Trâm Anh", "giải thích cho anh, Trâm Anh ổn", ["Trâm Anh"]),
        ("Chị Hoa", "chị Hoa mệt", ["Hoa"]),
    ],
)
def test_a_title_that_is_a_given_name_is_one(name: str, text: str, wanted: list[str]) -> None:
    assert [one for one in found((("name", name),), text, "vi") if one in wanted] == wanted


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("Will O'Brien", "o'brien will need a scan", ["o'brien"]),
        ("Will O'Brien", "o'brien, will", ["o'brien, will"]),
        ("Will O'Brien", "O&#39;Brien,&nbsp;Will", ["O&#39;Brien,&nbsp;Will"]),
        ("Will Stone", "the stone will pass", []),
        ("Will Stone", "pt stone will for review", ["stone will"]),
    ],
)
def test_two_ordinary_words_in_a_row_are_a_name_where_something_says_so(
    name: str, text: str, wanted: list[str]
) -> None:
    assert found((("name", name),), text, "en") == wanted


def test_two_initials_inside_of_longer_ones_or_of_a_code_are_nobody() -> None:
    own = known_finder((("name", "Hoàng Quang Huy"),), "vi")
    assert not list(own.find("Mã bệnh nhân: HH-0382465; HQH.7745; BN: P.H.Q.H.N. ho", "vi"))
    for text in ("Bệnh nhân: H.H. ho", "Bệnh nhân: HQH-1948", "BN: H.Q.H. 1948"):
        assert [one.kind for one in own.find(text, "vi")] == ["name"], text


@pytest.mark.parametrize(
    ("name", "lang", "text", "wanted"),
    [
        ("Dawn Addison", "en", "Dawn was tearful. Addison's disease since 1999.", ["Dawn"]),
        ("Paul Baker", "en", "a Baker cyst behind the knee; Mr Baker walked", ["Baker"]),
        ("April Marsh", "en", "review in April; April Marsh agrees", ["April Marsh"]),
        ("Jean-Luc Moreau", "en", "J.-L. Moreau seen; JL Moreau", ["J.-L. Moreau", "JL Moreau"]),
        ("Tran Van Khoa", "en", "seen: Tran VK", ["Tran VK"]),
        ("Thomas B. Archer", "en", "given b archer's tea, then B. Archer left", ["B. Archer"]),
        ("Trần Thái Dương", "vi", "đau thái dương; Thái Dương kể", ["Thái Dương"]),
        ("Trần Thái Dương", "vi", "Thái \u2067Dương: khô", ["Thái \u2067Dương"]),
        ("Lê Thị Hồng", "vi", "Hồng (con gái) ký; hồng cầu", ["Hồng"]),
        ("Đỗ Văn Chu", "vi", "Đỗ Văn Chu chu kỳ", ["Đỗ Văn Chu"]),
        ("Phan Văn Bé", "vi", "em bé 3 kg; anh Bé mệt", ["Bé"]),
        ("程序", "zh", "程序，男，40岁；按程序办理", ["程序"]),
        ("赵秀珍", "zh", "2床 秀珍 已起床", ["秀珍"]),
        ("周国栋", "zh", "国栋妈妈来电", ["国栋"]),
        ("白云山", "zh", "服白云山颗粒", []),
    ],
)
def test_a_name_that_may_be_a_word_is_told_by_what_stands_around_it(
    name: str, lang: str, text: str, wanted: list[str]
) -> None:
    assert found((("name", name),), text, lang) == wanted


@pytest.mark.parametrize(
    ("kind", "value", "lang", "text", "wanted"),
    [
        ("address", "18 Hawthorne Ave, Salem, OR", "en", "moved back to Hawthorne", ["Hawthorne"]),
        ("address", "浙江省绍兴市", "zh", "绍兴人，务农", ["绍兴"]),
        ("email", "ann.roe+w@example.org", "en", "ann dot roe at example dot org", None),
    ],
)
def test_parts_of_addresses_and_of_mail_are_found(
    kind: str, value: str, lang: str, text: str, wanted: list[str] | None
) -> None:
    assert found(((kind, value),), text, lang) == (wanted or [text])


@pytest.mark.parametrize(
    ("kind", "value", "lang", "text", "wanted"),
    [
        ("phone", "0577-88112233", "zh", "座机8811-2233，血糖8.8", "8811-2233"),
        ("phone", "(802) 555-0177", "en", "call 555 0177 after 5", "555 0177"),
        ("address", "天津市滨海新区", "zh", "回滨海后复查", "滨海"),
        ("name", "苏木", "zh", "患者苏木，方用苏木10g", "苏木"),
        ("name", "Lý Thị Gái", "vi", "con gái đưa vào; chị Gái mệt", "Gái"),
    ],
)
def test_local_numbers_new_districts_and_names_that_are_herbs_or_kin(
    kind: str, value: str, lang: str, text: str, wanted: str
) -> None:
    assert found(((kind, value),), text, lang) == [wanted]
