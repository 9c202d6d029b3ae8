"""Dates: found and read in every form, and written back in the form that they came in."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.deid.dates import find_dates, write, year_only

SHIFT = timedelta(weeks=100)
CASES = [
    # language, text, date, the same 700 days earlier
    ("vi", "12/3/24", date(2024, 3, 12), "12/4/22"),
    ("vi", "12-03-2024", date(2024, 3, 12), "12-04-2022"),
    ("vi", "2024-03-12", date(2024, 3, 12), "2022-04-12"),
    ("vi", "20240312", date(2024, 3, 12), "20220412"),
    ("vi", "12 tháng 3 năm 2024", date(2024, 3, 12), "12 tháng 4 năm 2022"),
    ("vi", "02.01.2024", date(2024, 1, 2), "01.02.2022"),
    ("en", "March 12th, 2024", date(2024, 3, 12), "April 12th, 2022"),
    ("en", "Mar 1, 2024", date(2024, 3, 1), "Apr 1, 2022"),
    ("en", "3 March 2024", date(2024, 3, 3), "3 April 2022"),
    ("en", "12-Mar-24", date(2024, 3, 12), "12-Apr-22"),
    ("en", "3/12/24", date(2024, 3, 12), "4/12/22"),
    ("en", "03/12/2024", date(2024, 3, 12), "04/12/2022"),
    ("en", "MARCH 1st, 2024", date(2024, 3, 1), "APRIL 1st, 2022"),
    ("zh", "2024年3月12日", date(2024, 3, 12), "2022年4月12日"),
    ("zh", "二〇二四年三月十二日", date(2024, 3, 12), "二〇二二年四月十二日"),
    ("zh", "２０２４年３月１２日", date(2024, 3, 12), "２０２２年４月１２日"),
    ("zh", "2024.03.12", date(2024, 3, 12), "2022.04.12"),
    ("zh", "3月12日", date(2024, 3, 12), "4月12日"),
    ("en", "13.VII.2009", date(2009, 7, 13), "13.VIII.2007"),
    ("zh", "3 June 2019", date(2019, 6, 3), "3 July 2017"),
    ("vi", "05-IX-2019", date(2019, 9, 5), "05-X-2017"),
]


@pytest.mark.parametrize(("lang", "text", "value", "earlier"), CASES)
def test_a_date_is_read_and_written_back_in_its_form(
    lang: str, text: str, value: date, earlier: str
) -> None:
    assert (
        value - SHIFT == date(value.year - 2, value.month + 1, value.day) or value.day < 3
    )  # 700 days: checked by hand
    (mention,) = find_dates(f"x {text} y", lang)
    assert (mention.start, mention.text, mention.value) == (2, text, value)
    assert write(mention, value - SHIFT) == earlier


CUED = [
    ("vi", "khám ngày 15/4 lúc 8h", ["ngày 15/4"]),
    ("vi", "từ 3/6 đến 5/6", ["3/6", "5/6"]),
    ("en", "seen on 4/15", ["4/15"]),
    ("en", "due March 12", ["March 12"]),
]


@pytest.mark.parametrize(("lang", "text", "wanted"), CUED)
def test_a_day_and_a_month_are_a_date_behind_a_cue(lang: str, text: str, wanted: list[str]) -> None:
    assert [one.text for one in find_dates(text, lang)] == wanted


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("vi", "HA 120/80 mmHg, uống 1/2 viên, thổi tâm thu 3/6, Glasgow 15/15, 7.35/40/95"),
        (
            "en",
            "BP 120/80, 3/6 systolic murmur, 1/2 tablet, potassium of 4.7, 5-10 mg, T2-weighted, "
            "INR of 1.1. 12-lead ECG, may improve",
        ),
        ("zh", "血压120/80mmHg，3/6级杂音，1/2片，白细胞10.5"),
    ],
)
def test_pressures_fractions_and_values_are_no_dates(lang: str, text: str) -> None:
    assert find_dates(text, lang) == ()


def test_what_cannot_be_a_date_has_no_value() -> None:
    (mention,) = find_dates("sinh 31/02/1980", "vi")
    assert (mention.text, mention.value) == ("31/02/1980", None)


def test_only_the_year_is_left_where_no_more_may_be() -> None:
    assert [year_only(one, "zh") for one in find_dates("2024年3月12日，3月12日", "zh")] == [
        "2024年",
        "[日期]",
    ]
    assert [year_only(one, "vi") for one in find_dates("12/3/2024", "vi")] == ["2024"]


@given(
    st.dates(date(1930, 1, 1), date(2035, 12, 31)),
    st.dates(date(1930, 1, 1), date(2035, 12, 31)),
    st.sampled_from(
        [
            ("vi", "{d}/{m}/{y}"),
            ("vi", "{d:02d}-{m:02d}-{y}"),
            ("vi", "{d} tháng {m} năm {y}"),
            ("vi", "{y}-{m:02d}-{d:02d}"),
            ("zh", "{y}年{m}月{d}日"),
            ("zh", "{y}/{m:02d}/{d:02d}"),
            ("en", "{m}/{d}/{y}"),
            ("en", "{m:02d}-{d:02d}-{y}"),
        ]
    ),
)
def test_writing_and_reading_are_inverse(day: date, other: date, form: tuple[str, str]) -> None:
    lang, template = form
    (mention,) = find_dates(template.format(d=day.day, m=day.month, y=day.year), lang)
    assert mention.value == day
    (again,) = find_dates(write(mention, other), lang)
    assert again.value == other
