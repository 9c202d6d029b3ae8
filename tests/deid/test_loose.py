"""A text of which no patient is known. All people are invented."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from residency.deid.known import known_finder
from residency.deid.loose import replace_identifiers

TEXTS = {
    "vi": (
        "Bệnh nhân Nguyễn Văn An, điện thoại 0912 345 678, vào viện 12/03/2024.",
        ["Nguyễn Văn An", "0912 345 678", "12/03/2024"],
    ),
    "zh": (
        "患者王小明，电话13812345678，2024年3月12日入院。",
        ["王小明", "13812345678", "2024年3月12日"],
    ),
    "en": (
        "Mr. John Smith, phone (212) 555-0134, was seen on 12 March 2024.",
        ["John Smith", "(212) 555-0134", "12 March 2024"],
    ),
}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("lang", sorted(TEXTS))
def test_offsets_are_those_of_the_text_as_it_came_and_as_it_leaves(lang: str, form: str) -> None:
    text, wanted = TEXTS[lang]
    text = normalize(form, text)
    done = replace_identifiers(text, lang)
    assert [normalize("NFC", text[one.start : one.end]) for one in done.replacements] == wanted
    kept_before, kept_after, last, new_last = [], [], 0, 0
    for one in (
        done.replacements
    ):  # what lies between is what it was, and nothing of what was found is left
        kept_before.append(text[last : one.start])
        kept_after.append(done.text[new_last : one.new_start])
        last, new_last = one.end, one.new_end
    assert [normalize("NFC", part) for part in kept_before] == kept_after
    assert not any(one in done.text for one in wanted)


def test_a_line_end_of_two_signs_is_one_before_and_counted_right() -> None:
    text = "Note\r\nMr. John Smith\r\nseen"
    (one,) = replace_identifiers(text, "en").replacements
    assert text[one.start : one.end] == "John Smith"


def test_two_calls_do_not_agree() -> None:
    assert len({replace_identifiers(TEXTS["en"][0], "en").text for _ in range(8)}) > 1


def test_what_is_replaced_by_itself_is_left_and_the_rest_is_replaced() -> None:
    done = replace_identifiers("Mr. John Smith is 90 years old.", "en")
    assert "90 years old" in done.text and "Smith" not in done.text
    assert len(done.replacements) == 1


def test_a_lone_dot_in_a_known_name_is_no_part_of_it() -> None:
    finder = known_finder((("name", "Nguyễn . An"),), "vi")
    assert list(finder.find("Hôm qua Nguyễn An đã về.", "vi"))
