"""Batches of similar length."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.tasks.heads import IGNORED, SEQUENCE, TOKENS
from residency.train.batches import LengthBatches, collate
from residency.train.items import TrainingItem

LENGTHS = random.Random(0).choices(range(3, 200), k=301)


def batches(lengths: list[int] = LENGTHS, batch: int = 8, seed: int = 1) -> LengthBatches:
    return LengthBatches(lengths, batch, seed, lambda: 0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(1, 9), st.integers(0, 5))
def test_every_row_is_seen_once_an_epoch(lengths: list[int], batch: int, epoch: int) -> None:
    found = batches(lengths, batch).order(epoch)
    assert sorted(i for rows in found for i in rows) == list(range(len(lengths)))
    assert len(found) == len(batches(lengths, batch)) == -(-len(lengths) // batch)
    assert [len(rows) for rows in found[:-1]] == [batch] * (len(found) - 1)


def test_the_order_is_that_of_seed_and_epoch() -> None:
    assert batches().order(3) == batches().order(3)
    assert len({str(batches(seed=seed).order(epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_iterating_gives_the_present_epoch() -> None:
    now = 0
    found = LengthBatches(LENGTHS, 8, 1, lambda: now)
    first = list(found)
    now = 1
    assert first == found.order(0) and list(found) == found.order(1)


def test_rows_of_similar_length_save_padding() -> None:
    order = list(range(len(LENGTHS)))
    random.Random(0).shuffle(order)
    rows = [order[i : i + 8] for i in range(0, len(order), 8)]
    padded = sum(max(LENGTHS[i] for i in row) * len(row) for row in rows)
    assert batches().padding() < (1 - sum(LENGTHS) / padded) / 2


def test_padding_is_the_share_of_tokens_that_say_nothing() -> None:
    assert batches([1, 3], 2).padding() == pytest.approx(2 / 6)
    assert batches([4, 4], 2).padding() == 0


def test_rows_are_padded_and_the_padding_is_not_trained() -> None:
    items = [
        TrainingItem(example="a", ids=[5, 6, 7], targets=[IGNORED, 1, 0]),
        TrainingItem(example="b", ids=[8], targets=[2]),
    ]
    found = collate(items, 9, TOKENS, False)
    assert found["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert found["labels"].tolist() == [[IGNORED, 1, 0], [2, IGNORED, IGNORED]]


def test_classes_are_numbers_or_one_share_per_label() -> None:
    one = [
        TrainingItem(example="a", ids=[5], targets=[2]),
        TrainingItem(example="b", ids=[8], targets=[0]),
    ]
    assert collate(one, 0, SEQUENCE, False)["labels"].tolist() == [2, 0]
    several = [
        TrainingItem(example="a", ids=[5], targets=[0.0, 1.0]),
        TrainingItem(example="b", ids=[8], targets=[1.0, 1.0]),
    ]
    labels = collate(several, 0, SEQUENCE, True)["labels"]
    assert labels.tolist() == [[0, 1], [1, 1]] and labels.is_floating_point()
