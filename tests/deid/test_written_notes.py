"""The written notes: whole and large enough, apart from each other, and read as they are
marked. Nothing here runs a finder on them, and no failure shows their text."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from residency.deid.engine import normal_form
from residency.deid.find import KINDS
from residency.synth.hospital_notes import Planted

sys.path.insert(0, str(Path(__file__).parent))
from written_notes import WRITTEN, planted, read_written

SETS, LANGUAGES = ("choose", "final", "later"), ("vi", "zh", "en")
EACH = [(name, lang) for name in SETS for lang in LANGUAGES]
NOTES = {
    *("discharge", "progress", "nursing", "lab", "imaging", "referral", "chat", "table", "ocr"),
    *("no_diacritics", "all_caps", "mixed_language", "family_history"),
}


def source(name: str, lang: str) -> str:
    return (WRITTEN / name / f"{lang}.txt").read_text("utf-8")


PEOPLE = {"name", "relative", "clinician"}
PARTS = {"vi": 3, "zh": 3, "en": 2}
"""Words of a full name at the least; of Chinese, signs."""


def full_names(name: str, lang: str) -> set[str]:
    notes = read_written(name, lang)
    values = [
        one.note.text[mark.start : mark.end]
        for one in notes
        for mark in one.marks
        if mark.kind in PEOPLE
    ]
    parts = [re.findall(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]{2,}", v.casefold()) for v in values]
    return {" ".join(words) for words in parts if len(words) >= PARTS[lang]}


@pytest.mark.parametrize(("name", "lang"), EACH)
def test_brackets_are_balanced_and_do_not_nest(name: str, lang: str) -> None:
    brackets = re.sub(r"[^⟦⟧⟪⟫]", "", source(name, lang))
    assert bool(re.fullmatch("(?:⟦⟧|⟪⟫)*", brackets))
    assert len(re.findall(r"⟦\w+\|[^⟦⟧]+⟧", source(name, lang))) == brackets.count("⟦")


@pytest.mark.parametrize(("name", "lang"), EACH)
def test_every_kind_is_known_and_every_sort_of_note_is_there(name: str, lang: str) -> None:
    notes = read_written(name, lang)
    assert {mark.kind for one in notes for mark in one.marks} <= set(KINDS)
    sorts = Counter(one.note.id.split()[-1] for one in notes)
    assert set(sorts) == NOTES
    assert min(sorts.values()) >= 3


@pytest.mark.parametrize(("name", "lang"), EACH)
def test_a_set_has_sixty_notes_and_five_hundred_places_that_must_stay(name: str, lang: str) -> None:
    notes = read_written(name, lang)
    assert len(notes) >= 60
    assert sum(len(one.note.spans) for one in notes) >= 500
    assert len({one.note.id for one in notes}) == len(notes)


@pytest.mark.parametrize(("name", "lang"), EACH)
def test_what_is_marked_stands_where_it_is_said_to(name: str, lang: str) -> None:
    text = "".join(one.note.text for one in read_written(name, lang))
    assert not re.search("[⟦⟧⟪⟫]|^===", text, re.M)
    for one in read_written(name, lang):
        assert not normal_form(one.note.text).pieces
        spans = one.note.spans
        assert all(one.note.text[span.start : span.end] == span.quote for span in spans)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_two_sets_share_no_full_name(lang: str) -> None:
    choose, final = (full_names(name, lang) for name in SETS[:2])
    fewest, shared = min(len(choose), len(final)), len(choose & final)
    assert (fewest >= 40, shared) == (True, 0)


def marked(text: str, lang: str = "en") -> Planted:
    return planted("a note", text, lang)


def test_a_note_is_read_with_its_identifiers_and_what_must_stay() -> None:
    one = marked("Pt ⟦name|Jo Ray⟧ on ⟪warfarin 5 mg⟫, age ⟦age|93 years⟧.")
    assert one.note.text == "Pt Jo Ray on warfarin 5 mg, age 93 years."
    assert [(m.start, m.end, m.kind) for m in one.marks] == [(3, 9, "name"), (32, 34, "age")]
    assert [span.quote for span in one.note.spans] == ["warfarin 5 mg"]


def test_a_row_holds_the_first_full_name_and_the_first_of_other_kinds() -> None:
    one = marked(
        "⟦name|Jo⟧ is ⟦name|Jo  Ray⟧, ⟦phone|555-0101⟧, wife ⟦relative|Al Ray⟧ ⟦phone|555-0102⟧"
    )
    assert one.note.identifiers == (("name", "Jo Ray"), ("phone", "555-0101"))
    assert [mark.known for mark in one.marks] == [True, True, True, False, False]


def test_a_note_without_a_full_name_has_no_row() -> None:
    one = marked("⟦name|Jo⟧, ⟦phone|555-0101⟧")
    assert one.note.identifiers == ()
    assert not any(mark.known for mark in one.marks)


@pytest.mark.parametrize(
    ("age", "number"),
    [("93 tuổi", "93"), ("98t", "98"), ("九十三岁", "九十三"), ("ninety-one", "ninety-one")],
)
def test_the_unit_of_an_age_identifies_nobody(age: str, number: str) -> None:
    (mark,) = marked(f"⟦age|{age}⟧", "zh").marks
    assert age[mark.start : mark.end] == number
