"""Agreement on a small fixed set by hand; drift, time and invented annotators."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from residency.core.types import Note, Span
from residency.label.agreement import agree, estimate
from residency.label.annotations import Annotation
from residency.label.differences import places
from residency.label.simulate import Habits, simulate
from residency.synth.clinical_notes import records
from residency.tasks.card import load_card

CARD = load_card("clinical")


def span(start: int, end: int, label: str, *attributes: str) -> Span:
    return Span(start=start, end=end, label=label, attributes=attributes)


def said(name: str, **notes: list[Span]) -> dict[str, Annotation]:
    return {
        id: Annotation(note=id, annotator=name, spans=tuple(spans)) for id, spans in notes.items()
    }


NOTES = {
    id: Note(id=id, text=text, profile="synthetic")
    for id, text in {"m": "abcd efgh", "n": "ijkl"}.items()
}


def test_pairs_labels_and_confusion_of_a_small_set_by_hand() -> None:
    given = {
        "a1": said("a1", m=[span(0, 4, "drug"), span(5, 9, "dose")], n=[span(0, 4, "test")]),
        "a2": said("a2", m=[span(0, 4, "drug"), span(5, 8, "dose")], n=[span(0, 4, "result")]),
        "a3": said("a3", m=[span(0, 4, "drug")], n=[span(0, 4, "test")]),
    }
    found = agree(NOTES, given, CARD.names, samples=0)
    scores = {one.metric: one.value for one in (*found.pooled, *found.pairs, *found.annotators)}
    assert scores["strict_f1/a1~a2"] == pytest.approx(2 * 1 / 6)  # drug alike, of three spans each
    assert scores["strict_f1/a1~a3"] == pytest.approx(2 * 2 / 5)
    assert scores["strict_f1/a2~a3"] == pytest.approx(2 * 1 / 5)
    assert scores["relaxed_f1/a1~a2"] == pytest.approx(2 * 2 / 6)  # dose overlaps
    assert scores["strict_f1"] == pytest.approx(2 * 4 / 16)
    assert scores["strict_f1/drug"] == 1.0 and scores["strict_f1/test"] == pytest.approx(2 * 1 / 4)
    assert scores["strict_f1/history"] is None, "nobody used it"
    assert scores["strict_f1/a3"] == pytest.approx(2 * 3 / 10)
    assert found.confusion["test"] == {"result": 2, "test": 2} and found.confusion["result"] == {
        "test": 2
    }
    assert found.confusion["dose"] == {"dose": 2, "-": 2} and found.confusion["drug"] == {"drug": 6}
    assert [one.note for one in found.worst] == ["n", "m"]


def test_notes_that_only_one_has_done_faulty_and_skipped_ones_do_not_count() -> None:
    from msgspec.structs import replace

    from residency.label.annotations import AnnotationFault

    base = {name: said(name, m=[span(0, 4, "drug")], n=[]) for name in ("a1", "a2")}
    base["a2"]["n"] = replace(base["a2"]["n"], faults=(AnnotationFault(reason="x"),))
    found = agree(NOTES, base, CARD.names, samples=0)
    assert (found.notes, found.done) == (1, {"a1": 2, "a2": 1})
    base["a2"]["n"] = replace(base["a2"]["n"], faults=(), skipped=True)
    assert agree(NOTES, base, CARD.names, samples=0).notes == 1


def test_places_hold_every_span_once_and_ids_change_with_what_is_said() -> None:
    versions = {"a1": (span(0, 4, "x"), span(6, 8, "y")), "a2": (span(3, 6, "x"),), "a3": ()}
    first, second = places("n", versions)
    assert (first.start, first.end, second.start, second.end) == (0, 6, 6, 8)
    assert first.majority is None and second.majority == (), (
        "two of three say that nothing is there"
    )
    assert len(first.candidates) == 3
    other = places("n", {**versions, "a3": (span(0, 4, "x"),)})[0]
    assert other.id != first.id and other.majority == (span(0, 4, "x"),)


def test_an_attribute_alone_is_a_difference() -> None:
    (one,) = places("n", {"a1": (span(0, 4, "x", "negated"),), "a2": (span(0, 4, "x"),)})
    assert not one.unanimous and one.majority is None


def test_the_names_of_candidates_cannot_be_told_from_their_order() -> None:
    firsts = []
    for k in range(200):
        (one,) = places(f"n{k}", {"a1": (span(0, 4, "x"),), "a2": (span(0, 4, "y"),)})
        firsts.append(one.candidates[0][0].label)
    assert 60 < firsts.count("x") < 140  # 200 coins: 100, deviation 7


def test_time_left_is_seconds_per_character_of_the_first_notes_times_the_characters_left() -> None:
    notes = {
        f"n{k:02}": Note(id=f"n{k:02}", text="x" * 100, profile="synthetic") for k in range(50)
    }
    done = {id: Annotation(note=id, annotator="a1", at=id, seconds=36.0) for id in list(notes)[:30]}
    late = {
        id: Annotation(note=id, annotator="a1", at="z" + id, seconds=9999.0)
        for id in list(notes)[20:30]
    }
    found = estimate("a1", {**done, **late}, notes)
    assert found is not None and (found.notes, found.left, found.median) == (20, 20, 36.0)
    assert found.hours == pytest.approx(20 * 36 / 3600) and found.low == pytest.approx(found.high)
    assert estimate("a1", dict(list(done.items())[:4]), notes) is None


def test_an_invented_annotator_errs_as_often_as_its_habits_say_and_every_time_alike() -> None:
    notes = list(records("vi", 150, seed=3))
    only = Habits(missed=0.1, boundary=0, label=0, attributes=0, invented=0, tires=0)
    made = list(simulate(notes, CARD, "a1", habits=only))
    total = sum(len(note.spans) for note in notes)
    kept = sum(len(one.spans) for one in made)
    assert abs(kept / total - 0.9) < 0.02  # thousands of spans: deviation below 0.006
    assert made == list(simulate(notes, CARD, "a1", habits=only))
    for note, one in zip(notes, simulate(notes, CARD, "a3"), strict=True):
        assert all(
            note.text[s.start : s.end] == s.quote and s.label in CARD.names for s in one.spans
        )
        ends = [(s.start, s.end) for s in one.spans]
        assert ends == sorted(ends) and all(a[1] <= b[0] for a, b in pairwise(ends))


def test_drift_is_found_where_an_annotator_tires_and_not_where_none_does() -> None:
    notes = {
        f"n{k:03}": Note(id=f"n{k:03}", text="abcdefghij " * 8, profile="synthetic")
        for k in range(200)
    }
    truth = [span(11 * k, 11 * k + 10, "drug") for k in range(8)]
    rng = random.Random(0)

    def done(name: str, late: float) -> dict[str, Annotation]:
        return {
            id: Annotation(
                note=id,
                annotator=name,
                at=f"{k:04}",
                spans=tuple(s for s in truth if rng.random() > (late if k >= 100 else 0.05)),
            )
            for k, id in enumerate(notes)
        }

    steady = agree(notes, {"a1": done("a1", 0.05), "a2": done("a2", 0.05)}, ("drug",), 200)
    tired = agree(notes, {"a1": done("a1", 0.05), "a2": done("a2", 0.4)}, ("drug",), 200)
    (change, *_) = [one.change for one in tired.drift]
    assert change.high is not None and change.high < -0.1
    low, high = steady.drift[0].change.low, steady.drift[0].change.high
    assert low is not None and high is not None and low < 0 < high
