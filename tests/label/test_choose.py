"""What to label next, and what is likely wrong."""

from __future__ import annotations

import numpy as np
import pytest

from residency.core.types import Note, Span
from residency.label.active import choose, uncertainty
from residency.label.suspects import find_suspects, rank_suspects


def note(id: str, text: str) -> Note:
    return Note(id=id, text=text, profile="synthetic")


def test_uncertainty_is_the_sum_of_doubts_over_the_root_of_the_length() -> None:
    chances = np.array([[0.9, 0.1], [0.4, 0.6], [1.0, 0.0], [0.5, 0.5]])
    with np.errstate(divide="ignore"):
        found = uncertainty(np.log(chances).astype(np.float32))
    assert found == pytest.approx((0.1 + 0.4 + 0.0 + 0.5) / 2)  # four slots, whose root is 2
    assert uncertainty(np.zeros((0, 2), dtype=np.float32)) == 0.0


def test_of_two_alike_only_the_first_is_chosen_before_something_new() -> None:
    pool = [
        note("a", "viêm phổi nặng hai bên"),
        note("b", "viêm phổi nặng hai bên."),
        note("c", "患者腹痛三天"),
    ]
    chosen = choose(pool, [1.0, 0.99, 0.3], 2, at_random=0)
    assert {one.note for one in chosen} == {"a", "c"}
    assert {one.note for one in choose(pool, [1.0, 0.99, 0.3], 2, at_random=0, diverse=False)} == {
        "a",
        "b",
    }


def test_what_is_like_a_labelled_note_comes_last() -> None:
    pool = [note("a", "viêm phổi nặng hai bên"), note("b", "gãy xương đùi trái")]
    (one,) = choose(pool, [1.0, 0.9], 1, labelled=["viêm phổi nặng hai bên"], at_random=0)
    assert one.note == "b" and one.novelty > 0.5


def test_a_share_is_drawn_at_random_and_each_note_once() -> None:
    pool = [note(f"n{k}", f"note number {k} of the ward") for k in range(100)]
    chosen = choose(pool, [k / 100 for k in range(100)], 50, at_random=0.2, seed=1)
    assert len({one.note for one in chosen}) == 50
    assert [one.how for one in chosen].count("random") == 10
    assert chosen == choose(pool, [k / 100 for k in range(100)], 50, at_random=0.2, seed=1)
    drawn = [
        {
            one.note
            for one in choose(pool, [0.0] * 100, 50, at_random=0.2, seed=s)
            if one.how == "random"
        }
        for s in range(200)
    ]
    times = [
        sum(n.id in one for one in drawn) for n in pool
    ]  # 200 draws of 10 in 100: 20 each, deviation 4.2
    assert min(times) > 3 and max(times) < 40, "evenly from the whole pool"


def test_a_small_pool_is_taken_whole() -> None:
    assert len(choose([note("a", "x"), note("b", "y")], [0.1, 0.2], 10)) == 2


LABELS = ("drug", "test")  # tags: O, B-drug, I-drug, B-test, I-test
SLOTS = [(0, 3), (4, 7), (8, 11)]


def beliefs(*tags: int, sure: float = 0.9) -> np.ndarray:
    rows = np.full((len(tags), 5), (1 - sure) / 4, dtype=np.float32)
    rows[range(len(tags)), tags] = sure
    return np.log(rows)


def labelled(*spans: Span) -> Note:
    return Note(id="n", text="abc def ghi", profile="synthetic", spans=spans)


def span(start: int, end: int, label: str) -> Span:
    return Span(start=start, end=end, label=label, quote="abc def ghi"[start:end])


def test_what_the_model_reads_alike_is_no_suspect() -> None:
    assert list(find_suspects(labelled(span(0, 3, "drug")), SLOTS, beliefs(1, 0, 0), LABELS)) == []


@pytest.mark.parametrize(
    ("given", "tags", "place"),
    [
        ((), (0, 1, 0), (4, 7)),  # missing
        ((span(0, 3, "test"),), (1, 0, 0), (0, 3)),  # label
        ((span(0, 3, "drug"),), (1, 2, 0), (0, 7)),  # boundary: one place, not two
        ((span(8, 11, "drug"),), (0, 0, 0), (8, 11)),  # invented
    ],
)
def test_each_kind_of_error_is_one_place(
    given: tuple[Span, ...], tags: tuple[int, ...], place: tuple[int, int]
) -> None:
    (one,) = find_suspects(labelled(*given), SLOTS, beliefs(*tags), LABELS)
    assert (one.start, one.end) == place
    assert one.score == pytest.approx(np.log(0.9 / 0.025), abs=1e-5)


def test_the_list_is_as_long_as_asked_and_the_surest_come_first() -> None:
    found = [
        *find_suspects(labelled(), SLOTS, beliefs(1, 0, 0, sure=0.6), LABELS),
        *find_suspects(labelled(), SLOTS, beliefs(0, 0, 1, sure=0.95), LABELS),
    ]
    assert [one.start for one in rank_suspects(found, 0.5, 4)] == [8, 0]
    assert len(rank_suspects(found, 0.25, 4)) == 1
