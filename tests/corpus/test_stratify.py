"""Groups dealt out to parts: prevalence alike in all of them, sizes kept, the worst error computed
by hand."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from residency.core.types import PARTS, PartName
from residency.corpus.stratify import NOTES, stratify, worst

SHARES: dict[PartName, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}


def wards(notes: int, labels: int, seed: int) -> list[Counter[str]]:
    """Invented patients with 1 to 60 notes each, and labels that cluster within a patient: a
    chronic disease is in all notes."""
    rng, made, count = random.Random(seed), list[Counter[str]](), 0
    common = [0.4 * 0.82**k for k in range(labels)]
    while count < notes:
        size = min(60, 1 + int(rng.expovariate(1 / 6)), notes - count)
        has = [min(0.95, share * rng.choice([0.1, 0.1, 0.3, 1, 4])) for share in common]
        one: Counter[str] = Counter({NOTES: size})
        for _ in range(size):
            one.update(f"label {k}" for k in range(labels) if rng.random() < has[k])
        made.append(one)
        count += size
    return made


def held(counts: list[Counter[str]], placed: list[PartName]) -> dict[PartName, Counter[str]]:
    found: dict[PartName, Counter[str]] = {}
    for one, part in zip(counts, placed, strict=True):
        found.setdefault(part, Counter()).update(one)
    return found


def by_hand(counts: list[Counter[str]], placed: list[PartName]) -> float:
    """Largest difference of a label's share of notes between a part and all notes."""
    labels = {label for one in counts for label in one if label != NOTES}
    every = sum(one[NOTES] for one in counts)
    errors = [0.0]
    for label in labels:
        share = sum(one[label] for one in counts) / every
        for part in set(placed):
            inside = [one for one, where in zip(counts, placed, strict=True) if where == part]
            errors.append(
                abs(sum(one[label] for one in inside) / sum(one[NOTES] for one in inside) - share)
            )
    return max(errors)


@pytest.mark.parametrize("labels", [10, 24])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_at_twenty_thousand_notes_no_prevalence_is_off_by_half_a_point(
    labels: int, seed: int
) -> None:
    counts = wards(20_000, labels, seed)
    started = time.process_time()
    placed = stratify(counts, SHARES)
    assert time.process_time() - started < 20
    assert by_hand(counts, placed) <= 0.005
    sizes = {
        part: sum(one[NOTES] for one, where in zip(counts, placed, strict=True) if where == part)
        for part in PARTS
    }
    assert all(
        sizes[part] == pytest.approx(share * 20_000, abs=60) for part, share in SHARES.items()
    )


groups = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.sampled_from("XYZ"), max_size=6)).map(
        lambda drawn: Counter(
            {
                NOTES: drawn[0],
                **{label: min(drawn[1].count(label), drawn[0]) for label in set(drawn[1])},
            }
        )
    ),
    min_size=1,
    max_size=40,
)


@forall(groups)
def test_repair_never_makes_the_sum_of_errors_worse_nor_empties_a_part(
    counts: list[Counter[str]],
) -> None:
    plain, repaired = stratify(counts, SHARES, repaired=False), stratify(counts, SHARES)
    assert set(plain) == set(repaired)

    def fourth_powers(placed: list[PartName]) -> float:
        found, every = held(counts, placed), sum(counts, Counter[str]())
        return sum(
            (one[label] / one[NOTES] - every[label] / every[NOTES]) ** 4
            for one in found.values()
            for label in every
            if label != NOTES
        )

    assert fourth_powers(repaired) <= fourth_powers(plain) + 1e-12


@forall(groups)
def test_the_worst_error_is_that_computed_by_hand(counts: list[Counter[str]]) -> None:
    placed = stratify(counts, SHARES)
    assert worst(held(counts, placed))[0] == pytest.approx(by_hand(counts, placed))


def test_the_label_and_part_that_are_worst_are_named() -> None:
    parts: dict[PartName, dict[str, int]] = {
        "train": {NOTES: 8, "a": 4, "b": 0},
        "test": {NOTES: 2, "a": 1, "b": 2},
    }
    assert worst(parts) == (0.8, "b", "test")


def test_groups_that_can_be_exchanged_are() -> None:
    # Four groups of ten, two all ill and two all well, in two halves: only one of each in each half
    # is right.
    counts = [
        Counter({NOTES: 10, "ill": 10}),
        Counter({NOTES: 10, "ill": 10}),
        Counter({NOTES: 10}),
        Counter({NOTES: 10}),
    ]
    placed = stratify(counts, {"train": 0.5, "test": 0.5})
    assert placed[0] != placed[1] and placed[2] != placed[3]
