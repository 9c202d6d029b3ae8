"""Spans as tags and back."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residency.core.types import Span
from residency.tasks.bio import best_tags, decode, encode, legal, tag_names

LABELS = ("drug", "disease")
TEXT = "ab cd ef gh ij kl"
SLOTS = [(i, i + 2) for i in range(0, len(TEXT), 3)]


def span(start: int, end: int, label: str = "drug") -> Span:
    return Span(start=start, end=end, label=label, quote=TEXT[start:end])


@st.composite
def aligned(draw: st.DrawFn) -> list[Span]:
    """Spans on slots that do not overlap."""
    cuts = sorted(draw(st.sets(st.integers(0, len(SLOTS)), max_size=len(SLOTS) + 1)))
    pairs = [pair for pair in pairwise(cuts) if draw(st.booleans())]
    return [span(SLOTS[a][0], SLOTS[b - 1][1], draw(st.sampled_from(LABELS))) for a, b in pairs]


@given(aligned())
def test_aligned_spans_come_back_as_they_were(spans: list[Span]) -> None:
    tags, changed = encode(spans, SLOTS, LABELS)
    assert changed == {}
    assert decode(TEXT, tags, SLOTS, LABELS) == tuple(spans)


def test_tags_are_outside_then_begin_and_inside_of_each_label() -> None:
    assert tag_names(LABELS) == ("O", "B-drug", "I-drug", "B-disease", "I-disease")
    assert encode([span(3, 8, "disease")], SLOTS, LABELS) == ([0, 3, 4, 0, 0, 0], {})


def test_touching_spans_of_one_label_stay_two() -> None:
    spans = (span(0, 2), span(3, 5))
    assert decode(TEXT, encode(spans, SLOTS, LABELS)[0], SLOTS, LABELS) == spans


def test_a_boundary_inside_a_slot_is_widened_and_counted() -> None:
    tags, changed = encode([span(1, 4)], SLOTS, LABELS)
    assert decode(TEXT, tags, SLOTS, LABELS) == (span(0, 5),)
    assert changed == {"boundary inside a token, widened": 1}


def test_of_overlapping_spans_the_longest_is_kept_and_the_rest_counted() -> None:
    tags, changed = encode([span(0, 2), span(0, 8, "disease"), span(6, 11)], SLOTS, LABELS)
    assert decode(TEXT, tags, SLOTS, LABELS) == (span(0, 8, "disease"),)
    assert changed == {"overlaps a longer span": 2}


def test_a_span_over_no_slot_is_counted() -> None:
    assert encode([span(2, 3)], SLOTS, LABELS) == ([0] * 6, {"span without a token": 1})


def test_an_inside_tag_that_follows_nothing_of_its_label_begins_a_span() -> None:
    assert decode(TEXT, [2, 2, 4, 0, 0, 2], SLOTS, LABELS) == (
        span(0, 5),
        span(6, 8, "disease"),
        span(15, 17),
    )


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ([], True),
        ([0, 1, 2, 2, 3, 4], True),
        ([2], False),
        ([0, 2], False),
        ([1, 4], False),
        ([3, 4, 1, 1], True),
    ],
)
def test_legal_means_inside_follows_its_own_label(tags: list[int], expected: bool) -> None:
    assert legal(np.array(tags, dtype=np.intp)) is expected


def follows(before: int, tag: int) -> bool:
    """The rule of BIO, said with names."""
    names = tag_names(LABELS)
    return (
        not names[tag].startswith("I-")
        or names[before].removeprefix("B-").removeprefix("I-") == names[tag][2:]
    )


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_the_best_tags_are_the_best_of_all_legal_ones(slots: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(slots, 5)).astype(np.float32)
    paths = [
        path for path in product(range(5), repeat=slots) if all(map(follows, (0, *path), path))
    ]
    best = max(sum(float(scores[i, tag]) for i, tag in enumerate(path)) for path in paths)
    found = best_tags(scores)
    assert tuple(found.tolist()) in paths
    assert sum(float(scores[i, tag]) for i, tag in enumerate(found)) == pytest.approx(
        best, abs=1e-5
    )


def test_no_slots_have_no_tags() -> None:
    assert best_tags(np.zeros((0, 5), dtype=np.float32)).tolist() == []
