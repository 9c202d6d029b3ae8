"""A person of the notes is one invented person: sex, parts, forms, numbers and all notes agree.

The mentions are marked by the test, so that only their surrogates are looked at, and taken apart here
by other means than in the code under test. All people are invented."""

from __future__ import annotations

import random
import re
from datetime import date, timedelta
from pathlib import Path
from unicodedata import normalize

import pytest

from residency.core.types import RawNote
from residency.deid.engine import DeidentifiedNote, Deidentifier
from residency.deid.find import Finding
from residency.deid.options import Deid
from residency.deid.vault import Vault

GIVEN = {
    "vi": {
        "female": "Hoa Lan Linh Nga Hương Thảo Trang Yến Hằng Nhung Phượng Thủy Huyền Quỳnh Oanh",
        "male": "Hùng Dũng Cường Tuấn Sơn Long Phong Quân Thắng Trung Đạt Huy Kiên Hiếu Nghĩa",
    },
    "en": {
        "female": "Mary Patricia Linda Barbara Susan Karen Nancy Margaret Emily Donna Ruth Sharon",
        "male": "James John Robert Michael David Richard Thomas Daniel Kevin Brian George Edward",
    },
    "zh": {
        "female": "秀英 桂兰 丽娟 婷婷 雪梅 芳 娜 静 淑芬 燕 玉梅 美玲",
        "male": "建国 志强 国强 伟 磊 军 建军 海涛 永刚 勇 浩 德刚",
    },
}
FAMILY = {
    "vi": [
        "Nguyễn",
        "Trần",
        "Lê",
        "Phạm",
        "Hoàng",
        "Phan",
        "Vũ",
        "Đặng",
        "Bùi",
        "Đỗ",
        "Hồ",
        "Ngô",
        "Dương",
        "Lý",
        "Đinh",
    ],
    "en": [
        "Smith",
        "Johnson",
        "Williams",
        "Jones",
        "Miller",
        "Davis",
        "Wilson",
        "Anderson",
        "Okafor",
        "Vossler",
        "Lindqvist",
    ],
    "zh": ["王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "欧阳", "司马"],
}
MIDDLE = {"vi": ["Văn", "Hữu", "Ngọc", "Thanh", "Minh Đức"], "en": ["", "A.", "Lee", "B."]}
SAYS = {
    "vi": {"female": "bà ", "male": "ông "},
    "en": {"female": "Mrs. ", "male": "Mr. "},
    "zh": {"female": "女士", "male": "先生"},
}


def bare(text: str) -> str:
    decomposed = normalize("NFD", text.replace("đ", "d").replace("Đ", "D"))
    return "".join(sign for sign in decomposed if not "\u0300" <= sign <= "\u036f")


class Hospital:
    """De-identifies notes whose mentions are given, (kind, before, mention, behind) each in a line."""

    def __init__(self, folder: Path) -> None:
        vault = Vault.open(folder, bytes(range(32)))
        vault.begin()
        self.engine = Deidentifier(Deid(), vault)
        self.found: list[Finding] = []
        self.engine.findings = lambda *_: self.found  # type: ignore[method-assign]

    def tell(
        self, patient: str, lang: str, row: tuple[tuple[str, str], ...], *said: tuple[str, ...]
    ) -> list[str]:
        text, self.found = "", []
        for kind, before, mention, behind in said:
            start = len(text) + len(before)
            self.found.append(Finding(start, start + len(mention), kind, "plugin:test"))
            text += f"{before}{mention}{behind}\n"
        note = RawNote(id="1", patient=patient, text=text, lang=lang, identifiers=row)
        done = self.engine.process(note)
        assert isinstance(done, DeidentifiedNote), done
        lines = done.note.text.splitlines()
        return [
            line[len(before) : len(line) - len(behind)]
            for line, (_, before, _, behind) in zip(lines, said, strict=True)
        ]


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


Name = tuple[str, str, str]
"""Family, middle and given name."""


def person(lang: str, rng: random.Random) -> tuple[Name, str]:
    sex = rng.choice(("female", "male"))
    middle = rng.choice(MIDDLE.get(lang, [""]))
    if lang == "vi" and sex == "female":
        middle = rng.choice(["Thị", "Thị Thanh", "Ngọc"])
    elif lang == "vi" and rng.random() < 0.3:
        middle = "Văn"
    return (rng.choice(FAMILY[lang]), middle, rng.choice(GIVEN[lang][sex].split())), sex


def forms(lang: str, family: str, middle: str, given: str) -> dict[str, str]:
    """Ways to write a name; made of the original for the note, and of the surrogate's parts for what
    is expected."""
    if lang == "zh":
        made = {"full": family + given, "family": family}
        return {**made, "spaced": " ".join(family + given)}
    order = (family, middle, given) if lang == "vi" else (given, middle, family)
    full = " ".join(part for part in order if part)
    made = {"full": full, "upper": full.upper(), "lower": full.lower(), "given": given}
    initials = ".".join(word[0] for word in full.split())
    made["initials"] = initials + "."
    if lang == "vi":
        made["unmarked"], made["short"] = bare(full), f"{family} {given}"
    else:
        made["family"], made["swapped"] = family, f"{family}, {given}"
        made["initial"] = f"{given[0]}. {family}"
    return made


def parts(lang: str, full: str, original: Name) -> Name:
    if lang == "zh":
        cut = len(original[0])
        return full[:cut], "", full[cut:]
    words = full.split(" ")
    first, last = words[0], words[-1]
    middle = " ".join(words[1:-1])
    return (first, middle, last) if lang == "vi" else (last, middle, first)


def told_sex(lang: str, given: str) -> set[str]:
    """The sexes of a given name, by lists that the surrogates are not drawn from."""
    from residency.deid.names.lists import name_data

    if lang == "zh":
        signs = {
            "female": "芳娜静丽艳娟霞燕婷雪莉倩洁琳英兰梅玲芬淑萱琪怡涵",
            "male": "伟强磊军勇杰涛超刚鹏浩豪斌国峰",
        }
        return {sex for sex, own in signs.items() if set(own) & set(given)}
    data = name_data(lang)
    return {sex for sex in ("female", "male") if given in data[sex]}


def check(hospital: Hospital, lang: str, number: int, known: bool) -> None:
    rng = random.Random(f"{lang}{number}")
    name, sex = person(lang, rng)
    written = forms(lang, *name)
    row = (("name", written["full"]),) if known else ()
    title = SAYS[lang][sex]
    ahead, behind = ("", title) if lang == "zh" else (title, "")
    said = [("name", ahead, written["full"], behind)]
    for form, text in written.items():
        lone = form == "family" and lang != "zh"
        said.append(("name", title if lone else "", text, "医生" if form == "family" else ""))
    said.append(("clinician", "", written["full"], ""))
    made = hospital.tell(f"p{number}", lang, row, *said)
    full, clinician = made[0], made[-1]
    own = parts(lang, full, name)
    expected = forms(lang, *own)
    assert dict(zip(written, made[1:-1], strict=True)) == expected, (name, made)
    assert clinician == full != written["full"]
    assert told_sex(lang, own[2]) in (set(), {sex}, {"female", "male"}), (name, sex, made)
    if lang == "vi" and "Thị" in name[1]:
        assert "Thị" in own[1]
    order = [*said[1:]]
    rng.shuffle(order)
    again = hospital.tell(f"p{number}", lang, row, *order)  # another note of the patient
    kept = dict(zip([one[2] for one in said], made, strict=True))
    assert again == [kept[one[2]] for one in order]


@pytest.mark.parametrize("known", [True, False], ids=["of the row", "of the note alone"])
@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_sex_parts_forms_and_notes_agree(hospital: Hospital, lang: str, known: bool) -> None:
    for number in range(60):
        check(hospital, lang, number, known)


@pytest.mark.sample
@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_sex_parts_forms_and_notes_agree_for_1000_persons(hospital: Hospital, lang: str) -> None:
    for number in range(1000):
        check(hospital, lang, number, known=number % 2 == 0)


def test_relatives_with_one_family_name_still_have_one(hospital: Hospital) -> None:
    said = [
        ("name", "", "Trần Thị Hoa", ""),
        ("relative", "con trai ", "Trần Văn Sơn", ""),
        ("relative", "chồng ", "Lê Văn Hùng", ""),
    ]
    others = 0
    for number in range(30):
        patient, son, husband = hospital.tell(f"k{number}", "vi", (), *said)
        assert patient.split()[0] == son.split()[0]
        others += patient.split()[0] != husband.split()[0]
    assert others > 20


PHONES = {
    "vi": ["0912345678", "0912 345 678", "0912.345.678", "+84 912 345 678", "84912345678"],
    "zh": [
        "13800138000",
        "138-0013-8000",
        "138 0013 8000",
        "+86 138 0013 8000",
        "１３８００１３８０００",
    ],
    "en": ["2125550147", "(212) 555-0147", "212.555.0147", "+1 212 555 0147", "1-212-555-0147"],
}


@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_a_phone_is_one_phone_in_all_its_forms(hospital: Hospital, lang: str) -> None:
    for number in range(50):
        said = [("phone", "", one, "") for one in PHONES[lang]]
        made = hospital.tell(f"t{number}", lang, (), *said)
        tails = {normalize("NFKC", re.sub(r"\D", "", one))[-9:] for one in made}
        assert len(tails) == 1
        for old, new in zip(PHONES[lang], made, strict=True):
            assert re.sub(r"\d", "9", old) == re.sub(r"\d", "9", new)
            assert old[:3] == new[:3] or not old.startswith("+")
        assert made[0] != PHONES[lang][0]


def birth(rng: random.Random) -> date:
    return date(1930, 1, 1) + timedelta(days=rng.randrange(34000))


def test_an_identity_number_agrees_with_the_moved_birth_date_and_the_sex(
    hospital: Hospital,
) -> None:
    from stdnum.iso7064 import mod_11_2

    for number in range(100):
        rng = random.Random(number)
        born, male = birth(rng), rng.random() < 0.5
        body = f"110101{born:%Y%m%d}{rng.randrange(500) * 2 + male:03d}"
        chinese = body + mod_11_2.calc_check_digit(body)
        said = [
            ("birth_date", "出生日期：", f"{born:%Y-%m-%d}", ""),
            ("national_id", "", chinese, ""),
        ]
        row = (("national_id", chinese),) if number % 2 else ()
        day, identity = hospital.tell(f"z{number}", "zh", row, *said)
        assert identity[6:14] == day.replace("-", "")
        assert int(identity[16]) % 2 == male
        assert mod_11_2.is_valid(identity) and identity[:6] != "110101"
        sign = (2 if born.year >= 2000 else 0) + (not male)
        cccd = f"001{sign}{born:%y}{rng.randrange(10**6):06d}"
        said = [("birth_date", "sinh ", f"{born:%d/%m/%Y}", ""), ("national_id", "", cccd, "")]
        day, identity = hospital.tell(f"v{number}", "vi", row and (("national_id", cccd),), *said)
        year = int(day[-4:])
        assert identity[4:6] == day[-2:]
        assert int(identity[3]) == (2 if year >= 2000 else 0) + (not male)


def test_a_postcode_stays_a_postcode_and_parts_of_an_address_agree_with_it(
    hospital: Hospital,
) -> None:
    whole = "12 Oak St, Dayton, OH 45402"
    texts = [whole, "45402", "Dayton", "SW1A 1AA"]
    for number in range(30):
        made = hospital.tell(f"a{number}", "en", (), *(("address", "", one, "") for one in texts))
        street, town, state = made[0].split(", ")
        assert re.fullmatch(r"\d\d \w+ St", street) and re.fullmatch(r"[A-Z]{2} \d{5}", state)
        assert made[1] == state[3:] != "45402"
        assert made[2] == town != "Dayton"
        assert re.fullmatch(r"[A-Z]{2}\d[A-Z] \d[A-Z]{2}", made[3])
    made = hospital.tell("a", "vi", (), ("address", "", "số 12 đường Lê Lợi, quận 1", ""))
    assert re.fullmatch(r"số \d\d đường [\w ]+, quận \d", made[0])
    made = hospital.tell("a", "zh", (), ("address", "", "合肥市蜀山区长江路12号3栋501室", ""))
    assert re.fullmatch(r"\w+市\w+区\w+路\d\d号\d栋\d{3}室", made[0])


def test_the_sex_that_the_row_says_counts_in_every_note(hospital: Hospital) -> None:
    for number in range(40):
        male = number % 2 == 0
        row = (("name", "Lê Thanh An"), ("national_id", f"001{0 if male else 1}48012345"))
        (made,) = hospital.tell(f"s{number}", "vi", row, ("name", "BN ", "Lê Thanh An", ""))
        assert told_sex("vi", made.split()[-1]) <= {"male" if male else "female"}


def test_surrogates_of_an_earlier_vault_stay(tmp_path: Path) -> None:
    """What a patient was given before persons were one: a figure of that version."""
    hospital = Hospital(tmp_path)
    vault = hospital.engine.vault
    vault._insert(vault.entry("old"), bytes(range(32)))
    said = [
        ("name", "", "Trần Thị Hoài", ""),
        ("name", "", "Hoài", ""),
        ("phone", "", "0912345678", ""),
    ]
    assert hospital.tell("old", "vi", (), *said) == EARLIER


EARLIER = ["Tạ Thị Dung", "Vượng", "0993882639"]
