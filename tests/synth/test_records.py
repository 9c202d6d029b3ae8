"""The invented records: exact labels, enough of each, the same for the same seed."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import islice

import pytest

from residency.core.errors import UserError
from residency.core.types import Note
from residency.synth.clinical_notes import LABELS, records
from residency.synth.knowledge import LANGS, knowledge
from residency.synth.slots import SLOTS
from residency.tasks.card import load_card

EDGES = " \t\n,.;:，。；：、"
each_language = pytest.mark.parametrize("lang", LANGS)


@cache
def notes_of(lang: str) -> list[Note]:
    return list(records(lang, 2000, seed=3))


def test_the_card_has_the_labels_that_are_generated() -> None:
    found = {span.label for lang in LANGS for note in notes_of(lang) for span in note.spans}
    assert set(load_card("clinical").names) == set(LABELS) == found


@each_language
def test_every_quote_is_the_text_between_its_offsets(lang: str) -> None:
    for note in notes_of(lang):
        for span in note.spans:
            assert note.text[span.start : span.end] == span.quote != ""


@each_language
def test_no_span_overlaps_or_touches_blanks_and_punctuation_at_its_edges(lang: str) -> None:
    for note in notes_of(lang):
        for span in note.spans:
            assert span.quote == span.quote.strip(EDGES)
        for left, right in zip(note.spans, note.spans[1:], strict=False):
            assert left.end <= right.start


@each_language
def test_each_label_has_its_share_in_200_notes(lang: str) -> None:
    counts = Counter(span.label for note in notes_of(lang)[:200] for span in note.spans)
    for label in LABELS:
        assert counts[label] >= 0.02 * counts.total(), label


@each_language
def test_every_diagnosis_and_nothing_else_has_an_icd_10_code(lang: str) -> None:
    for note in notes_of(lang):
        for span in note.spans:
            assert (span.label == "diagnosis") == (span.code is not None)
            assert span.code is None or re.fullmatch(r"[A-Z]\d\d(\.\d)?", span.code)


@each_language
def test_negated_family_and_uncertain_mentions_occur(lang: str) -> None:
    marks = Counter(
        (span.label, attribute)
        for note in notes_of(lang)[:200]
        for span in note.spans
        for attribute in span.attributes
    )
    for mark in [
        ("symptom", "negated"),
        ("history", "negated"),
        ("history", "family"),
        ("allergy", "negated"),
    ]:
        assert marks[mark] >= 10, mark
    for mark in [("diagnosis", "uncertain"), ("diagnosis", "negated")]:
        assert marks[mark] >= 10, mark


@each_language
def test_the_same_words_take_several_labels_by_their_place(lang: str) -> None:
    labels: dict[str, set[str]] = {}
    for note in notes_of(lang):
        for span in note.spans:
            labels.setdefault(span.quote.lower(), set()).add(span.label)
    names = [name.lower() for name in knowledge(lang).conditions["htn"].names]
    assert any({"diagnosis", "history"} <= labels[name] for name in names)
    assert sum({"drug", "allergy"} <= found for found in labels.values()) >= 5


@each_language
def test_a_drug_that_the_patient_is_allergic_to_is_not_given(lang: str) -> None:
    known = knowledge(lang)
    owners = {name.lower(): key for key, drug in known.drugs.items() for name in drug.names}
    banned = {name.lower(): item.avoid for item in known.allergens.values() for name in item.names}
    for note in notes_of(lang):
        allergens = [
            s.quote.lower() for s in note.spans if s.label == "allergy" and not s.attributes
        ]
        forbidden = {key for quote in allergens for key in banned.get(quote, frozenset())}
        given = {owners.get(s.quote.lower()) for s in note.spans if s.label == "drug"}
        assert not forbidden & given, note.id


@each_language
def test_nearly_all_notes_are_distinct_and_of_the_length_of_a_note(lang: str) -> None:
    notes = notes_of(lang)
    assert len({note.text for note in notes}) >= 0.9 * len(notes)
    low, high = (120, 600) if lang == "zh" else (50, 330)
    sizes = [len(note.text) if lang == "zh" else len(note.text.split()) for note in notes]
    assert sum(low <= size <= high for size in sizes) >= 0.95 * len(notes)


@each_language
def test_a_patient_has_several_notes_on_average(lang: str) -> None:
    groups = Counter(note.group for note in notes_of(lang))
    assert 1.4 <= len(notes_of(lang)) / len(groups) <= 1.8
    assert max(groups.values()) >= 3


@each_language
def test_notes_are_declared_synthetic(lang: str) -> None:
    note = notes_of(lang)[122]
    assert (note.id, note.lang, note.profile, note.origin) == (
        f"{lang}-000123",
        lang,
        "synthetic",
        "synthetic:records",
    )
    assert re.fullmatch(r"p\d{5}", note.group)
    assert {note.kind for note in notes_of(lang)} == {
        "admission",
        "progress",
        "discharge",
        "outpatient",
    }


@each_language
def test_a_note_depends_on_language_and_seed_and_not_on_the_count(lang: str) -> None:
    few = list(records(lang, 7, seed=3))
    assert few == notes_of(lang)[:7] == list(islice(records(lang, 10**9, seed=3), 7))
    assert [note.text for note in few] != [note.text for note in records(lang, 7, seed=4)]


def test_an_unknown_language_is_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"'xx'.*allowed: vi, zh, en"):
        records("xx", 1)


@each_language
def test_everything_that_a_condition_refers_to_exists(lang: str) -> None:
    known = knowledge(lang)
    for condition in known.conditions.values():
        assert set(condition.symptoms) <= set(known.symptoms)
        assert set(condition.signs) <= set(known.signs)
        assert set(condition.drugs) <= set(known.drugs)
        assert set(condition.procedures) <= set(known.procedures)
        assert set(condition.differential + condition.comorbid) <= set(known.conditions)
        for key, kind in condition.tests:
            assert kind in (known.tests[key].findings or known.tests[key].ranges)
    for allergen in known.allergens.values():
        assert allergen.avoid <= set(known.drugs)


@each_language
def test_no_two_conditions_share_a_name(lang: str) -> None:
    owners = Counter(
        name for condition in knowledge(lang).conditions.values() for name in set(condition.names)
    )
    assert max(owners.values()) == 1, owners.most_common(3)


def test_a_note_keeps_its_text_out_of_its_repr() -> None:
    note: Note = notes_of("en")[0]
    assert note.text not in repr(note)


@each_language
def test_every_slot_of_every_sentence_can_be_filled(lang: str) -> None:
    sections = knowledge(lang).style.sections.values()
    slots = {
        piece[1]
        for s in sections
        for line in s.full + s.terse
        for piece in line
        if piece[0] == "slot"
    }
    assert slots <= set(SLOTS)
