"""What models write instead of the form that they were asked for: read as far as it goes, each
repair named, nothing invented."""

from __future__ import annotations

import time
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.core.types import Labels, Spans
from residency.tasks import answer_repair
from residency.tasks.answer_repair import (
    ABSENT,
    AROUND,
    BY_LABEL,
    CUT,
    FOLDED,
    JSON,
    LABEL,
    LINES,
    NEXT,
    NONE,
    SINGLE,
    TWICE,
    UNKNOWN,
    UNREAD,
)
from residency.tasks.card import Card, Label
from residency.tasks.families.labels import LabelFamily
from residency.tasks.families.spans import SpanFamily
from residency.tasks.prompts import Parsed

CARD = Card(
    name="c",
    family="spans",
    labels=(
        Label(name="drug", title="thuốc"),
        Label(name="DISEASE"),
        Label(name="lab_test", title="检查"),
    ),
)
EN = "Aspirin 81 mg daily. Asthma; aspirin was stopped, asthma is stable."
VI = "Bệnh nhân hen phế quản, dùng Paracetamol 500mg. Hen phế quản ổn định."
ZH = "患者有高血压，服用阿司匹林１００ｍｇ，复查血常规。"
NFD = normalize("NFD", VI)

SPANS = [
    # words, text, [(label, start, quote)], repairs
    ('[{"label": "drug", "text": "Aspirin"}]', EN, [("drug", 0, "Aspirin")], []),
    ("[]", EN, [], []),
    ('[{"label": "drug", "text": "aspirin"}]', EN, [("drug", 29, "aspirin")], []),
    ('Here: [{"label": "drug", "text": "aspirin"}]', EN, [("drug", 29, "aspirin")], [AROUND]),
    (
        '```json\n[{"label": "drug", "text": "aspirin"}]\n```',
        EN,
        [("drug", 29, "aspirin")],
        [AROUND],
    ),
    (
        '[{"label": "drug", "text": "aspirin"}] I hope this helps!',
        EN,
        [("drug", 29, "aspirin")],
        [AROUND],
    ),
    ('[{"label": "drug", "text": "aspirin"},]', EN, [("drug", 29, "aspirin")], [JSON]),
    ("[{'label': 'drug', 'text': 'aspirin'}]", EN, [("drug", 29, "aspirin")], [JSON]),
    ('[{"label": "drug", "text": "aspirin"', EN, None, []),
    (
        '[{"label": "drug", "text": "aspirin"}, {"label": "DISEASE", "text": "asth',
        EN,
        [("drug", 29, "aspirin")],
        [JSON, CUT],
    ),
    (
        '[{"label": "drug", "text": "aspirin"}, {"label": "DIS',
        EN,
        [("drug", 29, "aspirin")],
        [JSON, CUT],
    ),
    ('[{"label": "drug", "text": "aspirin"}', EN, [("drug", 29, "aspirin")], [JSON]),
    ('[{"label": "drug", "text": "aspirin"}, ', EN, [("drug", 29, "aspirin")], [JSON]),
    ('{"label": "drug", "text": "aspirin"}', EN, [("drug", 29, "aspirin")], [SINGLE]),
    (
        '{"entities": [{"label": "drug", "text": "aspirin"}]}',
        EN,
        [("drug", 29, "aspirin")],
        [AROUND],
    ),
    (
        '{"drug": ["aspirin"], "DISEASE": ["Asthma"]}',
        EN,
        [("drug", 29, "aspirin"), ("DISEASE", 21, "Asthma")],
        [BY_LABEL],
    ),
    ('{"drug": "aspirin"}', EN, [("drug", 29, "aspirin")], [BY_LABEL]),
    (
        "drug: aspirin\nDISEASE: asthma",
        EN,
        [("drug", 29, "aspirin"), ("DISEASE", 50, "asthma")],
        [LINES],
    ),
    ("- drug: aspirin, Aspirin", EN, [("drug", 29, "aspirin"), ("drug", 0, "Aspirin")], [LINES]),
    ('[{"label": "Drug", "text": "aspirin"}]', EN, [("drug", 29, "aspirin")], [LABEL]),
    ('[{"label": "lab test", "text": "Asthma"}]', EN, [("lab_test", 21, "Asthma")], [LABEL]),
    ('[{"label": "disease", "text": "Asthma"}]', EN, [("DISEASE", 21, "Asthma")], [LABEL]),
    ('[{"label": "ｄｒｕｇ", "text": "aspirin"}]', EN, [("drug", 29, "aspirin")], [LABEL]),
    ('[{"label": "thuốc", "text": "aspirin"}]', EN, [("drug", 29, "aspirin")], [LABEL]),
    (
        '[{"label": "symptom", "text": "Asthma"}, {"label": "drug", "text": "aspirin"}]',
        EN,
        [("drug", 29, "aspirin")],
        [UNKNOWN],
    ),
    ('[{"label": "drug", "text": "ASPIRIN"}]', EN, [("drug", 0, "Aspirin")], [FOLDED]),
    ('[{"label": "drug", "text": "ASPIRIN", "n": 2}]', EN, [("drug", 29, "aspirin")], [FOLDED]),
    (
        '[{"label": "drug", "text": "heparin"}, {"label": "drug", "text": "aspirin"}]',
        EN,
        [("drug", 29, "aspirin")],
        [ABSENT],
    ),
    ('[{"label": "drug", "text": "heparin"}]', EN, None, []),
    (
        '[{"label": "drug"}, {"label": "drug", "text": "aspirin"}]',
        EN,
        [("drug", 29, "aspirin")],
        [UNREAD],
    ),
    ('["aspirin", {"label": "drug", "text": "aspirin"}]', EN, [("drug", 29, "aspirin")], [UNREAD]),
    (
        '[{"label": "drug", "text": "aspirin"}, {"label": "drug", "text": "aspirin"}]',
        EN,
        [("drug", 29, "aspirin")],
        [TWICE],
    ),
    ("None", EN, [], [NONE]),
    ("I do not know.", EN, None, []),
    ("", EN, None, []),
    (
        '[{"label": "DISEASE", "text": "asthma is\\n  stable"}]',
        EN,
        [("DISEASE", 50, "asthma is stable")],
        [FOLDED],
    ),
    ('[{"label": "DISEASE", "text": "hen phế quản"}]', VI, [("DISEASE", 10, "hen phế quản")], []),
    ('[{"label": "DISEASE", "text": "hen phế quản", "n": 2}]', VI, None, []),
    (
        '[{"label": "DISEASE", "text": "HEN PHẾ QUẢN", "n": 2}]',
        VI,
        [("DISEASE", 48, "Hen phế quản")],
        [FOLDED],
    ),
    ("Không có.", VI, [], [NONE]),
    ("thuốc: Paracetamol 500mg", VI, [("drug", 29, "Paracetamol 500mg")], [LINES, LABEL]),
    (
        '[{"label": "DISEASE", "text": "hen phế quản"}]',
        NFD,
        [("DISEASE", NFD.index("hen"), normalize("NFD", "hen phế quản"))],
        [FOLDED],
    ),
    ('[{"label": "drug", "text": "阿司匹林"}]', ZH, [("drug", 9, "阿司匹林")], []),
    ("【{“label”：“drug”，“text”：“阿司匹林”}】", ZH, [("drug", 9, "阿司匹林")], [JSON]),
    (
        '[{"label": "drug", "text": "阿司匹林100mg"}]',
        ZH,
        [("drug", 9, "阿司匹林１００ｍｇ")],
        [FOLDED],
    ),
    (
        "DISEASE实体：高血压；\n检查：血常规、血糖",
        ZH,
        [("DISEASE", 3, "高血压"), ("lab_test", 21, "血常规")],
        [LINES, LABEL, ABSENT],
    ),
    ("无", ZH, [], [NONE]),
    ("没有。", ZH, [], [NONE]),
]


@pytest.mark.parametrize(("words", "text", "spans", "repairs"), SPANS, ids=range(len(SPANS)))
def test_entities_are_read_as_far_as_the_words_go(
    words: str, text: str, spans: list[tuple[str, int, str]] | None, repairs: list[str]
) -> None:
    parsed = SpanFamily().parse(words, text, CARD)
    if spans is None:
        assert parsed == Parsed()
        return
    assert isinstance(parsed.answer, Spans)
    assert [(span.label, span.start, span.quote) for span in parsed.answer.spans] == spans
    assert all(text[span.start : span.end] == span.quote for span in parsed.answer.spans)
    assert list(parsed.repairs) == repairs


def test_the_same_item_again_is_the_next_occurrence_while_there_is_one() -> None:
    text = "pain, pain and pain"
    item = '{"label": "DISEASE", "text": "pain"}'
    parsed = SpanFamily().parse(f"[{item}, {item}, {item}, {item}]", text, CARD)
    assert isinstance(parsed.answer, Spans)
    assert [span.start for span in parsed.answer.spans] == [0, 6, 15]
    assert parsed.repairs == (NEXT, TWICE)


ONE = Card(
    name="c",
    family="labels",
    labels=(Label(name="benign"), Label(name="not benign"), Label(name="恶性", title="ác tính")),
)
MANY = ONE.model_copy(update={"multiple": True})

LABELS = [
    ("benign", ONE, ("benign",), []),
    ("Benign.", ONE, ("benign",), [LABEL]),
    ('"benign"', ONE, ("benign",), [LABEL]),
    ("Answer: benign", ONE, ("benign",), [AROUND]),
    ("The tumour is not benign.", ONE, ("not benign",), [AROUND]),
    ("benign or 恶性", ONE, None, []),
    ("benignant", ONE, None, []),
    ("这个肿瘤是恶性的。", ONE, ("恶性",), [AROUND]),
    ("ÁC TÍNH", ONE, ("恶性",), [LABEL]),
    ("", ONE, None, []),
    ('["benign", "恶性"]', MANY, ("benign", "恶性"), []),
    ("[]", MANY, (), []),
    ('Sure: ["benign"]', MANY, ("benign",), [AROUND]),
    ('["benign", "other"]', MANY, ("benign",), [UNKNOWN]),
    ('["other"]', MANY, None, []),
    ('["BENIGN", "benign"]', MANY, ("benign",), [LABEL, TWICE]),
    ("benign; 恶性", MANY, ("benign", "恶性"), [LINES]),
    ("benign、恶性。", MANY, ("benign", "恶性"), [LINES]),
    ("không có", MANY, (), [NONE]),
    ("It is benign and also 恶性 today", MANY, ("benign", "恶性"), [AROUND]),
]


@pytest.mark.parametrize(("words", "card", "labels", "repairs"), LABELS, ids=range(len(LABELS)))
def test_labels_are_read_as_far_as_the_words_go(
    words: str, card: Card, labels: tuple[str, ...] | None, repairs: list[str]
) -> None:
    parsed = LabelFamily().parse(words, "", card)
    assert parsed == (
        Parsed() if labels is None else Parsed(answer=Labels(labels=labels), repairs=tuple(repairs))
    )


WORDS = st.text(alphabet=list("[]{}\"':,：“”\\n drugDISEASEaspirin阿司匹林\n\u0301"), max_size=80)


@given(WORDS, st.sampled_from([EN, VI, ZH, NFD]))
def test_whatever_is_written_every_span_holds_and_is_named_by_the_words(
    words: str, text: str
) -> None:
    parsed = SpanFamily().parse(words, text, CARD)
    if isinstance(parsed.answer, Spans):
        said = answer_repair.fold(words)
        for span in parsed.answer.spans:
            assert span.label in CARD.names
            assert text[span.start : span.end] == span.quote
            assert set(answer_repair.fold(span.quote)) <= set(said) | set(" ")


@pytest.mark.parametrize(
    "words",
    [
        "[" * 1_000_000,
        '[{"label": ' * 100_000,
        "drug: " * 100_000,
        '{"a":' * 100_000,
        "drug: a\n" * 20_000,
        "，" * 500_000,
    ],
)
def test_hostile_words_cost_little(words: str) -> None:
    started = time.process_time()
    SpanFamily().parse(words, EN, CARD)
    LabelFamily().parse(words, EN, MANY)
    assert time.process_time() - started < 2


def test_no_repair_quotes_the_note() -> None:
    said = {
        value
        for name, value in vars(answer_repair).items()
        if name.isupper() and isinstance(value, str)
    }
    for words, text, spans, repairs in SPANS:
        assert set(SpanFamily().parse(words, text, CARD).repairs) <= said, (words, spans, repairs)
