"""Marked notes told again: other people and numbers in the same forms, every other word as it was."""

from __future__ import annotations

import random
import re

import pytest

from residency.synth.identified import authors, redrawn
from residency.synth.marked import MarkedNote, unmarked
from residency.synth.redrawn import Names, Redrawer
from residency.workflows.train_tagger import names_of

LANGUAGES = ("vi", "zh", "en")
NAMES = {
    "vi": Names(families=["Trần", "Lò"], given=["Bưởi", "Nghĩa"], middles=["Thị", "Đức"]),
    "zh": Names(families=["赵", "符"], given=["桂", "兰"], middles=["Xu"], whole=["古丽·买买提"]),
    "en": Names(families=["Okafor", "Quill"], given=["Ottoline", "Bram"]),
}


def told(body: str, lang: str, times: int = 60) -> list[MarkedNote]:
    """A note told again and again."""
    note, rng = unmarked("1 progress", body), random.Random(0)
    teller = Redrawer(lang, [note], NAMES[lang])
    return [teller.again(note, rng) for _ in range(times)]


def values(body: str, lang: str) -> set[str]:
    """What stands in the place of the one identifier of a note."""
    return {one.text[a:b] for one in told(body, lang) for a, b, kind in one.marks if kind}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_words_between_marks_and_their_kinds_stay(lang: str) -> None:
    note, rng = authors(lang)[0], random.Random(1)
    teller = Redrawer(lang, [note], names_of(lang))
    for _ in range(20):
        again = teller.again(note, rng)
        assert [kind for _, _, kind in again.marks] == [kind for _, _, kind in note.marks]
        assert rest(again) == rest(note)


def rest(note: MarkedNote) -> str:
    """A note without what is marked."""
    text, last = "", 0
    for start, end, _ in note.marks:
        assert last <= start < end
        text, last = text + note.text[last:start] + "|", end
    return text + note.text[last:]


def test_a_person_has_one_name_in_a_note() -> None:
    body = "Dr ⟦clinician|Kessler⟧ saw ⟦name|Ada⟧. Plan: ring ⟦clinician|Kessler⟧."
    for one in told(body, "en"):
        first, _, second = [one.text[a:b] for a, b, _ in one.marks]
        assert first == second
        assert first in {"Kessler", "Okafor", "Quill"}  # behind a title: a family name


@pytest.mark.parametrize(
    ("body", "lang", "form"),
    [
        ("⟦clinician|J.K.⟧", "en", r"[A-Z]\.[A-Z]\."),
        ("⟦name|KESSLER, Ada⟧", "en", r"[A-Z]{3,}, [A-Z][a-z]+"),
        ("⟦name|ada kessler⟧", "en", r"[a-z]+ [a-z]+"),
        ("⟦phone|0912 345-678⟧", "vi", r"0\d{3} \d{3}-\d{3}"),
        ("⟦date|03/11⟧", "en", r"(?:0[1-9]|1[0-2])/(?:[1-9]|1[0-2])"),
        ("⟦date|21st⟧", "en", r"(?:1[3-9]|20|24|25|26|27|28)th|21st|22nd|23rd"),
        ("⟦birth_date|19480517⟧", "vi", r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|1\d|2[0-8])"),
        ("⟦age|93⟧", "en", r"9\d|10[0-4]"),
        ("⟦clinician|小刘⟧", "zh", r"小[赵符桂兰刘]"),
        ("⟦name|赵 伟⟧", "zh", r"[赵符] \w|古 丽 · 买 买 提"),
        ("benh nhan ⟦name|tran van nam⟧", "vi", r"[a-z]+ [a-z]+ [a-z]+"),
    ],
)
def test_what_is_drawn_has_the_form_of_the_original(body: str, lang: str, form: str) -> None:
    drawn = values(body, lang)
    assert len(drawn) > 2
    assert not [one for one in drawn if not re.fullmatch(form, one)]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_pieces_are_the_same_for_the_same_seed_and_their_marks_lie_in_them(lang: str) -> None:
    def made(seed: int) -> list[object]:
        return list(redrawn(lang, 60, seed, names_of(lang), authors(lang)))

    assert made(3) == made(3) != made(4)
    for piece in redrawn(lang, 200, 5, names_of(lang), authors(lang)):
        end = 0
        for start, stop, kind in piece.marks:
            assert kind and end <= start < stop <= len(piece.text)
            assert piece.text[start:stop].strip()
            end = stop


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_authors_notes_are_whole(lang: str) -> None:
    notes = authors(lang)
    assert len(notes) >= 40
    assert not [one.head for one in notes if re.search("[⟦⟧⟪⟫]", one.text)]
