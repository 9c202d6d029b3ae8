"""What a written answer states: negation and its scope in three languages, letters that are chosen,
marks; what is unsure cannot be read.

``statements_*.jsonl`` were written by a language model that was given only the kinds, and committed before
the reader was scored on them (first and second figures: ``docs/benchmarks.md``).
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from residency.tasks.card import Card, Label, load_card
from residency.tasks.families.labels import LabelFamily
from residency.tasks.negation import word
from residency.tasks.statements import read_labels, read_mark, without_thought

EN = ("effusion", "pneumothorax", "mass")
VI = ("tràn dịch", "tràn khí", "u")
ZH = ("胸腔积液", "气胸", "肿块")
SEVERAL = [
    (EN, "No effusion, pneumothorax or mass.", ()),
    (EN, "No effusion or pneumothorax, but there is a mass.", ("mass",)),
    (EN, "Neither effusion nor pneumothorax is seen; mass present.", ("mass",)),
    (EN, "Effusion and mass are absent. Pneumothorax is present.", ("pneumothorax",)),
    (EN, "effusion: yes, pneumothorax: no, mass: no", ("effusion",)),
    (EN, "Absent:\n- effusion\n- mass\nPresent:\n- pneumothorax", ("pneumothorax",)),
    (EN, "{'effusion': False, 'pneumothorax': True}", ("pneumothorax",)),
    (EN, "Not only effusion but also a mass.", ("effusion", "mass")),
    (EN, "No abnormality except effusion.", ("effusion",)),
    (EN, "Effusion? No. Mass? Yes.", ("mass",)),
    (EN, "Effusion cannot be excluded.", None),
    (EN, "Effusion or mass.", None),
    (EN, "Effusion, pneumothorax and mass are common findings.", None),
    (EN, "The patient is well.", None),
    (EN, "<think>effusion, mass</think>None of these.", ()),
    (EN, "<think>effusion", None),
    (VI, "Không có tràn dịch, tràn khí hay u.", ()),
    (VI, "Không có tràn dịch nhưng có tràn khí.", ("tràn khí",)),
    (VI, "Cả tràn dịch lẫn tràn khí đều không có.", ()),
    (VI, "Không những có tràn dịch mà còn có u.", ("tràn dịch", "u")),
    (VI, "Chưa loại trừ tràn khí.", None),
    (ZH, "无胸腔积液、气胸，有肿块。", ("肿块",)),
    (ZH, "未见气胸，但见胸腔积液。", ("胸腔积液",)),
    (ZH, "胸腔积液和气胸均未见", ()),
    (ZH, "胸腔积液（-），气胸（+）", ("气胸",)),
    (ZH, "不能排除气胸", None),
]


@pytest.mark.parametrize(("labels", "answer", "held"), SEVERAL, ids=range(len(SEVERAL)))
def test_several_labels_are_held_or_denied_as_far_as_a_negation_reaches(
    labels: tuple[str, ...], answer: str, held: tuple[str, ...] | None
) -> None:
    assert read_labels(answer, labels, multiple=True).labels == held


ONE = [
    (("malignant", "benign"), "not malignant", None),
    (("malignant", "benign"), "not malignant but benign", ("benign",)),
    (("malignant", "benign"), "benign rather than malignant", ("benign",)),
    (("malignant", "benign"), "It may be malignant. Final answer: benign", ("benign",)),
    (("malignant", "benign"), "I cannot tell whether it is malignant or benign.", None),
    (("positive", "not positive"), "The smear is not positive.", ("not positive",)),
    (("pneumonia", "viral pneumonia"), "This is viral pneumonia.", ("viral pneumonia",)),
    (("相关", "不相关"), "不相关。", ("不相关",)),
    (("相关", "不相关"), "不是相关的", None),
    (("yes", "no", "maybe"), "There is no evidence.", None),
    (("yes", "no", "maybe"), "No, it does not.", ("no",)),
    (("lành tính", "ác tính"), "Không phải ác tính mà là lành tính.", ("lành tính",)),
]


@pytest.mark.parametrize(("labels", "answer", "held"), ONE, ids=range(len(ONE)))
def test_of_one_label_the_one_that_is_committed_to_is_read(
    labels: tuple[str, ...], answer: str, held: tuple[str, ...] | None
) -> None:
    assert read_labels(answer, labels).labels == held


LETTERS = [
    ("B", "B"),
    ("(b)", "B"),
    ("Đáp án: b", "B"),
    ("B. Because A is harmful.", "B"),
    ("A car moves.", None),
    ("Hepatitis B, vitamin C.", None),
    ("A or B", None),
    ("The answer is not A but C.", "C"),
    ("At first I chose A, but the final answer is D.", "D"),
    ("A: no\nB: yes\nC: no\nD: no", "B"),
    ("A is wrong.", None),
    ("\\boxed{C}", "C"),
    ("Đáp án: B", "B"),
    ("A, B, D đều sai nên chọn C.", "C"),
    ("viêm gan B", None),
    ("故选B", "B"),
    ("【答案】D", "D"),
    ("A、C、D均错误，B正确。", "B"),
    ("维生素C缺乏", None),
    ("AC", None),
]


@pytest.mark.parametrize(("answer", "letter"), LETTERS, ids=range(len(LETTERS)))
def test_a_letter_counts_where_it_is_chosen(answer: str, letter: str | None) -> None:
    found = read_labels(answer, "ABCD").labels
    assert found == (None if letter is None else (letter,))


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ("AC", "AC"),
        ("A, C", "AC"),
        ("A và C", "AC"),
        ("A、C正确，B、D错误", "AC"),
        ("The correct options are A and C.", "AC"),
        ("None of the options is correct.", ""),
        ("A or C", None),
        ("Everything but B", None),
    ],
)
def test_several_letters_may_be_right(answer: str, letters: str | None) -> None:
    found = read_labels(answer, "ABCD", multiple=True).labels
    assert found == (None if letters is None else tuple(letters))


@pytest.mark.parametrize(
    ("answer", "mark"),
    [
        ("1. The answer covers all 4 points. Mark: 9", 9),
        ("8", 8),
        ("Mark: 6.5/10", 6.5),
        ("Điểm: 7,5", 7.5),
        ("得分：8分", 8),
        ("I would give it 7 out of 10.", 7),
        ("It covers 3 of the points.", None),
        ("Mark: 80/100", None),
        ("Between 6 and 7.", None),
        ("very good", None),
    ],
)
def test_a_mark_is_not_any_number(answer: str, mark: float | None) -> None:
    assert read_mark(answer) == mark


def test_titles_are_other_words_for_labels() -> None:
    card = Card(
        name="c",
        family="labels",
        multiple=True,
        language="vi",
        labels=(Label(name="effusion", title="tràn dịch"), Label(name="mass", title="khối u")),
    )
    parsed = LabelFamily().parse("Có tràn dịch, không có khối u.", "", card)
    assert parsed.answer is not None and LabelFamily().labels(parsed.answer, card) == ("effusion",)


def test_an_exam_answered_with_two_letters_cannot_be_read() -> None:
    assert LabelFamily().parse("A, C", "", load_card("exam")).answer is None


def test_thoughts_are_dropped_closed_or_not() -> None:
    assert without_thought("<think>A</think> B") == "B"
    assert without_thought("A</think>B") == "B"
    assert without_thought("<think>A") == ""


@pytest.mark.parametrize("words", ["A, " * 50_000, "no effusion, " * 50_000, "[" * 300_000])
def test_hostile_answers_cost_little(words: str) -> None:
    started = time.process_time()
    read_labels(words, EN, multiple=True)
    read_labels(words, "ABCD", multiple=True)
    assert time.process_time() - started < 3


@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_statements_by_another_author_are_read_as_they_are_meant(lang: str) -> None:
    """At most 1 % read wrongly, at most 10 % not read, nothing read as its opposite."""
    count, wrong, unread, opposite = scored(f"statements_{lang}.jsonl")
    assert count >= 300
    assert wrong <= 0.01 * count and unread <= 0.1 * count and opposite == 0


def test_statements_of_a_third_author_stay_as_they_are_read() -> None:
    """First and second figures stand in docs/benchmarks.md; 40 of 390 are not read today."""
    parts = zip(
        *(scored(f"statements_later_{lang}.jsonl") for lang in ("vi", "zh", "en")), strict=True
    )
    count, wrong, unread, _ = map(sum, parts)
    assert count == 390 and wrong <= 0.01 * count and unread <= 40


def test_statements_of_a_fourth_author_stay_as_they_are_read() -> None:
    """By a language model, before it saw the reader: at first 5 of 180 were read wrongly and 12 not."""
    count, wrong, unread, opposite = scored("statements_fourth.jsonl")
    assert count == 180 and wrong == opposite == 0 and unread <= 9


@pytest.mark.parametrize(
    ("name", "count", "unread"),
    [
        ("fifth", 910, 30),
        ("sixth", 259, 15),
        ("seventh", 226, 15),
        ("eighth", 147, 10),
        ("ninth", 300, 15),
        ("tenth", 150, 15),
    ],
)
def test_later_sets_of_a_language_model_stay_as_they_are_read(
    name: str, count: int, unread: int
) -> None:
    """Each was committed before it was scored, and the reader mended after each. First readings, read
    wrongly and not: fifth 29 and 106 of 910 (at least 300 a language), sixth 9 and 13 of 259, seventh 7
    and 28 of 226, eighth 3 and 25 of 147, ninth 7 and 28 of 300,
    tenth 5 and 13 of 150."""
    parts = [scored(f"statements_{name}_{lang}.jsonl") for lang in ("vi", "zh", "en")]
    rows, wrong, not_read, opposite = map(sum, zip(*parts, strict=True))
    assert rows == count and wrong <= 0.01 * rows and opposite == 0 and not_read <= unread


def test_blanks_within_words_of_the_lexicon_are_kept() -> None:
    """A pattern once lost the blank before every second word of "không ghi nhận"."""
    assert word("no", ("vi",)).fullmatch("không ghi nhận")
    assert word("no", ("en",)).fullmatch("no evidence of")


OTHERS_OF_THE_KINDS = [
    (EN, "Her father had a mass. She has none of these.", ()),
    (EN, "Apart from effusion there is nothing.", ("effusion",)),
    (EN, "It leans towards effusion.", None),
    (EN, "It is not that there is no mass.", None),
    (VI, "Ngoài tràn khí ra không có gì.", ("tràn khí",)),
    (ZH, "否认气胸、肿块，现有胸腔积液。", ("胸腔积液",)),
    (ZH, "不表现为气胸。", ()),
    ("ABCD", "All statements except A are correct.", ("B", "C", "D")),
    ("ABCD", "答案：A C D", ("A", "C", "D")),
    (EN, "The mass described last spring is no longer seen.", ()),
    (EN, "A mass cannot be diagnosed on this film alone.", None),
    (EN, "The registrar asked about effusion and mass.", None),
    (EN, "Stay in bed whenever effusion recurs.", None),
    (EN, "Findings: []", ()),
    (VI, "Báo bác sĩ ngay khi có tràn khí.", None),
    (ZH, "上周的气胸现已痊愈。", ()),
    (ZH, "一旦气胸，立即就医。", None),
    (EN, "The effusion was tapped in May and has not recurred.", ()),
    (VI, "Đáp án: []", ()),
    (ZH, "阿司匹林是预防气胸的常用药物之一。", None),
    (ZH, "照理应有气胸。", None),
]


@pytest.mark.parametrize(("labels", "answer", "held"), OTHERS_OF_THE_KINDS, ids=range(21))
def test_what_was_misread_at_first_is_read_in_other_words_too(
    labels: tuple[str, ...], answer: str, held: tuple[str, ...] | None
) -> None:
    assert read_labels(answer, labels, multiple=True).labels == held


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Final: benign (earlier I wrote malignant, which was wrong).", "benign"),
        ("Kết luận: benign (trước đó tôi ghi malignant).", "benign"),
        ("结论：benign（之前写的是 malignant）", "benign"),
    ],
)
def test_a_bracket_that_takes_back_what_was_said_before_is_no_answer(
    answer: str, label: str
) -> None:
    assert read_labels(answer, ("malignant", "benign")).labels == (label,)


def scored(name: str) -> tuple[int, int, int, int]:
    """(rows of a file, read wrongly, not read, of those read wrongly with other labels)."""
    file = Path(__file__).with_name(name)
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    wrong = unread = opposite = 0
    for row in rows:
        found = read_labels(
            row["answer"], row["labels"], multiple=row["multiple"], language=row["lang"]
        ).labels
        right = found == row["want"] or {*(found or ["-"])} == {*(row["want"] or ["-"])}
        if (found is None) == (row["want"] is None) and right:
            continue
        unread += found is None
        wrong += found is not None
        opposite += found is not None and row["want"] is not None
    return len(rows), wrong, unread, opposite
