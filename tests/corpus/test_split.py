"""Splits: groups whole, shares met, labels spread alike, the same for the same seed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from residency.core.errors import UserError
from residency.core.types import PARTS, Note, PartName, Span
from residency.corpus.parts import keep_given, split_by_group, split_by_hash

SHARES: dict[PartName, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}


def note(id: str, group: str = "", text: str = "", labels: tuple[str, ...] = ()) -> Note:
    spans = tuple(Span(start=0, end=1, label=label) for label in labels)
    return Note(id=id, text=text or f"text {id}", profile="public", group=group or id, spans=spans)


@st.composite
def corpora(draw: st.DrawFn) -> list[Note]:
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 15), st.integers(0, 25), st.lists(st.sampled_from("XYZ"), max_size=3)
            ),
            max_size=40,
        )
    )
    return [
        note(f"n{i}", f"g{group}", f"text {text}", tuple(labels))
        for i, (group, text, labels) in enumerate(rows)
    ]


def connected(notes: list[Note]) -> list[set[str]]:
    """Notes that share a group or a text, by brute force."""
    sets: list[tuple[set[str], set[str]]] = []
    for one in notes:
        keys, ids = {"g" + one.group, "t" + one.text}, {one.id}
        for other in [s for s in sets if s[0] & keys]:
            keys, ids = keys | other[0], ids | other[1]
            sets.remove(other)
        sets.append((keys, ids))
    return [ids for _, ids in sets]


@forall(corpora(), st.integers(0, 5))
def test_every_note_has_a_part_and_what_belongs_together_stays_together(
    notes: list[Note], seed: int
):
    split = split_by_group(notes, SHARES, seed)
    assert set(split.parts) == {n.id for n in notes}
    for ids in connected(notes):
        assert len({split.parts[id] for id in ids}) == 1


@forall(corpora(), st.integers(0, 5))
def test_no_part_exceeds_its_share_by_more_than_the_largest_group(notes: list[Note], seed: int):
    sizes = Counter(split_by_group(notes, SHARES, seed).parts.values())
    largest = max((len(ids) for ids in connected(notes)), default=0)
    for part, share in SHARES.items():
        assert sizes[part] - share * len(notes) <= largest


@forall(corpora(), st.integers(0, 5), st.randoms())
def test_the_same_seed_gives_the_same_split_whatever_the_order(
    notes: list[Note], seed: int, random: object
):
    shuffled = list(notes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = split_by_group(notes, SHARES, seed), split_by_group(shuffled, SHARES, seed)
    assert one.parts == other.parts
    assert one.digest == other.digest


@forall(corpora(), st.integers(0, 5))
def test_train_is_never_empty_and_no_part_is_where_there_are_three_groups(
    notes: list[Note], seed: int
):
    sizes = Counter(split_by_group(notes, SHARES, seed).parts.values())
    atoms = len(connected(notes))
    assert sizes["train"] or not notes
    if atoms >= 3:
        assert all(sizes[part] for part in PARTS)


@pytest.mark.parametrize(
    ("notes", "parts"),
    [(1, {"train": 1}), (2, {"train": 1, "test": 1}), (3, {"train": 1, "dev": 1, "test": 1})],
)
def test_a_handful_of_notes_can_be_split(notes: int, parts: dict[str, int]):
    assert (
        Counter(split_by_group([note(str(i)) for i in range(notes)], SHARES, 7).parts.values())
        == parts
    )


def test_a_thousand_notes_are_split_to_the_note_and_their_labels_with_them():
    labels = [
        ("common",) if i % 2 else ("common", "rare") if i % 20 == 0 else () for i in range(1000)
    ]
    split = split_by_group([note(str(i), labels=labels[i]) for i in range(1000)], SHARES, 7)
    assert Counter(split.parts.values()) == {"train": 800, "dev": 100, "test": 100}
    assert split.balance["rare"] == {"train": 40, "dev": 5, "test": 5}
    assert split.balance["common"] == {"train": 440, "dev": 55, "test": 55}


def test_another_seed_draws_other_notes():
    notes = [note(str(i)) for i in range(100)]
    assert split_by_group(notes, SHARES, 1).parts != split_by_group(notes, SHARES, 2).parts


def test_the_large_groups_are_not_all_in_train():
    # 20 patients with 9 notes, 180 with one: which of them are held out must not depend on their
    # size.
    notes = [note(f"{g}-{i}", str(g)) for g in range(200) for i in range(9 if g < 20 else 1)]
    held_out = [0, 0]
    for seed in range(20):
        parts = split_by_group(notes, SHARES, seed).parts
        held_out[0] += sum(parts[f"{g}-0"] != "train" for g in range(20))
        held_out[1] += sum(parts[f"{g}-0"] != "train" for g in range(20, 200))
    assert held_out[0] / (20 * 20) == pytest.approx(0.2, abs=0.06)
    assert held_out[1] / (180 * 20) == pytest.approx(0.2, abs=0.02)


def test_texts_that_differ_by_unicode_form_or_blanks_are_one_text():
    notes = [
        note("a", text="sốt  cao"),
        note("b", text="sô\u0301t\ncao"),
        *(note(f"c{i}") for i in range(8)),
    ]
    for seed in range(10):
        parts = split_by_group(notes, SHARES, seed).parts
        assert parts["a"] == parts["b"]


def test_the_digest_is_that_of_the_sorted_pairs():
    split = split_by_group([note("b"), note("a")], {"train": 1.0}, 7)
    expected = hashlib.sha256(
        json.dumps([["a", "train"], ["b", "train"]], separators=(",", ":")).encode()
    ).hexdigest()
    assert split.digest == expected


def test_given_parts_stay_and_dev_is_drawn_from_train():
    train, test = (
        [note(f"r{i}", f"g{i // 2}") for i in range(100)],
        [note(f"t{i}") for i in range(10)],
    )
    split = keep_given({"train": train, "test": test}, 0.1, 7)
    assert Counter(split.parts.values()) == {"train": 90, "dev": 10, "test": 10}
    assert {split.parts[n.id] for n in test} == {"test"}
    assert all(split.parts[f"r{i}"] == split.parts[f"r{i + 1}"] for i in range(0, 100, 2))


@pytest.mark.parametrize(("dev", "stop"), [([note("d")], 0.5), ([], 0.0)])
def test_dev_is_not_drawn_where_it_is_given_or_not_wanted(dev: list[Note], stop: float):
    split = keep_given({"train": [note(str(i)) for i in range(10)], "dev": dev}, stop, 7)
    assert Counter(split.parts.values())["train"] == 10


def test_what_train_and_test_have_in_common_is_said():
    train = [note("a", "p1", "same"), note("b", "p2", "b"), note("c", "p3", "c")]
    test = [note("x", "p9", " same "), note("y", "p2", "y")]
    assert keep_given({"train": train, "test": test}, 0, 7).how.endswith(
        "1 texts and 1 groups are in both train and test"
    )


def test_parts_by_hash_are_those_of_the_hash_alone():
    notes = [note(f"n{number}", text=f"câu hỏi {number}") for number in range(200)]
    found = split_by_hash(notes, SHARES, seed=1).parts
    for one in notes:
        tenth = int(hashlib.sha256(one.text.encode()).hexdigest(), 16) % 10
        assert found[one.id] == ("train" if tenth < 8 else "dev" if tenth == 8 else "test")


@forall(corpora(), st.integers(1, 40))
def test_by_hash_what_belongs_together_stays_together_and_growth_moves_nothing(
    notes: list[Note], more: int
):
    before = split_by_hash(notes, SHARES, seed=0).parts
    assert all(len({before[id] for id in group}) == 1 for group in connected(notes))
    grown = [
        *notes,
        *(note(f"new{number}", text=f"a text of its own {number}") for number in range(more)),
    ]
    assert split_by_hash(grown, SHARES, seed=9).parts.items() >= before.items()


@pytest.mark.parametrize(
    ("shares", "whole"),
    [({"train": 0.85, "test": 0.15}, 100), ({"train": 0.995, "test": 0.005}, 1000)],
)
def test_finer_shares_take_a_larger_modulus(shares: dict[PartName, float], whole: int):
    notes = [note(f"n{number}", text=str(number)) for number in range(2000)]
    found = split_by_hash(notes, shares, seed=0).parts
    least = round(shares["train"] * whole)
    for one in notes:
        assert (found[one.id] == "test") == (
            int(hashlib.sha256(one.text.encode()).hexdigest(), 16) % whole >= least
        )


def test_shares_that_no_modulus_meets_are_refused():
    with pytest.raises(UserError, match="per mille"):
        split_by_hash([note("a")], {"train": 2 / 3, "test": 1 / 3}, seed=0)
