"""Templates filled with identifiers: what is marked, in which form, and that a style keeps every
place."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import pytest

from residency.synth.people import Person, masked, parts
from residency.synth.planting import IdentifiedText, IdentifierSlots, bare, wide

PERSON = Person(
    id="P1",
    sex="female",
    born=date(1960, 3, 12),
    values={
        "name": "Trần Thị Quế Chi",
        "relative_name": "Trần Văn Đức",
        "phone": "0912345678",
        "relative_phone": "0387654321",
        "national_id": "001160012345",
        "insurance": "GD4010123456789",
        "record": "BA77",
        "address": "5 ngõ Trạm, xã Mỹ Hòa",
    },
)
WORLD: dict[str, Any] = {
    "families": ["Lý"],
    "middles": ["Văn"],
    "male": ["Tâm"],
    "female": ["Tâm"],
    "dates": ["ngày ^{d} tháng {m} năm {y}"],
    "dates_short": ["{d:02d}/{m:02d}"],
    "phone_masks": ["+84 ## ### ## ##"],
    "slots": {
        "plate": {"kind": "plate", "values": ["29A-###.##"]},
        "ward": {"kind": "", "values": ["khoa Nội"]},
    },
}


def filled(
    template: str, **more: object
) -> tuple[str, list[tuple[str, str, bool]], list[tuple[str, str]]]:
    page = IdentifiedText()
    page.fill(
        template,
        IdentifierSlots({**WORLD, **more}, "vi", random.Random(7), PERSON, date(2024, 5, 6)),
    )
    text = "".join(page.parts)
    return (
        text,
        [(text[m.start : m.end], m.kind, m.known) for m in page.marks],
        [(text[s.start : s.end], s.label) for s in page.spans],
    )


def test_what_stands_before_the_caret_is_written_and_not_marked() -> None:
    text, marks, _ = filled("Sinh {birth}.")
    assert text == "Sinh ngày 12 tháng 3 năm 1960."
    assert marks == [("12 tháng 3 năm 1960", "birth_date", True)]


def test_words_in_double_brackets_are_a_labelled_span() -> None:
    text, marks, spans = filled(
        "Dùng [[drug:Paracetamol]] [[dose:500 mg]], {n:4-4}/5 điểm tại {ward}"
    )
    assert text == "Dùng Paracetamol 500 mg, 4/5 điểm tại khoa Nội"
    assert spans == [("Paracetamol", "drug"), ("500 mg", "dose")]
    assert marks == []


@pytest.mark.parametrize(
    ("slot", "written"),
    [
        ("name:upper", "TRẦN THỊ QUẾ CHI"),
        ("name:bare", "Tran Thi Que Chi"),
        ("name:given", "Chi"),
        ("name:family", "Trần"),
        ("name:broken", "Trần Thị\nQuế Chi"),
        ("relative:lower", "trần văn đức"),
        ("doctor", "Lý Văn Tâm"),
        ("phone", "+84 91 234 56 78"),
        ("national_id:spaced", "001 160 012 345"),
        ("insurance:spaced", "GD 4 01 0123456789"),
        ("address:broken", "5 ngõ Trạm,\nxã Mỹ Hòa"),
        ("today:short", "06/05"),
    ],
)
def test_a_slot_is_written_in_the_form_that_is_asked_for(slot: str, written: str) -> None:
    text, marks, _ = filled(f"{{{slot}}}")
    assert text == written
    assert [mark[0] for mark in marks] == [written]


@pytest.mark.parametrize("style", ["upper", "lower", "bare"])
def test_a_style_changes_the_line_and_moves_no_place(style: str) -> None:
    plain, marks, spans = filled("Bà {name:given} [[symptom:đau ngực]], xe {plate}")
    typed, moved, labelled = filled(
        "Bà {name:given} [[symptom:đau ngực]], xe {plate}", styles={style: 1.0}
    )
    assert typed != plain
    assert len(typed) == len(plain)
    assert [len(mark[0]) for mark in moved] == [len(mark[0]) for mark in marks]
    assert [span[0].casefold() for span in labelled] in (["đau ngực"], ["dau nguc"])
    assert spans == [("đau ngực", "symptom")]


def test_letters_and_digits_in_full_width_and_without_marks_keep_their_number() -> None:
    assert wide("ZY12，男") == "ＺＹ１２，男"
    assert bare("Đỗ Thị Ưng") == "Do Thi Ung"


@pytest.mark.parametrize(
    ("name", "lang", "family", "given"),
    [
        ("欧阳雪", "zh", "欧阳", "雪"),
        ("王小明", "zh", "王", "小明"),
        ("买买提·艾力", "zh", "买买提", "艾力"),
        ("Mary J. Van Houten", "en", "Houten", "Mary"),
        ("Lê Thị An", "vi", "Lê", "An"),
    ],
)
def test_a_name_falls_into_family_and_given_name(
    name: str, lang: str, family: str, given: str
) -> None:
    assert parts(name, lang) == (family, given)


def test_a_mask_draws_digits_and_capitals() -> None:
    drawn = masked("@#-X", random.Random(1))
    assert drawn[0].isupper()
    assert drawn[1].isdigit()
    assert drawn[2:] == "-X"


@pytest.mark.parametrize("slot", ["unknown", "phone:nonsense"])
def test_a_slot_or_form_that_is_not_known_is_an_error(slot: str) -> None:
    with pytest.raises(KeyError):
        filled(f"{{{slot}}}")
