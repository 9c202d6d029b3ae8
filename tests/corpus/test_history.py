"""Parts that are kept when the data grows, and parts by time and by site."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest

from residency.core.errors import UserError
from residency.core.types import Note, PartName, Split
from residency.corpus.history import History, continued
from residency.corpus.parts import split_by_group, split_by_site, split_by_time

SHARES: dict[PartName, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}


def notes(*numbers: int, each: int = 2, **given: object) -> list[Note]:
    return [
        Note(
            id=f"n{number}-{one}", group=f"p{number}", text=f"note {number} {one}", profile="public"
        )
        for number in numbers
        for one in range(each)
    ]


def history(split: Split, *had: Note) -> History:
    return History(split=split, groups={note.id: note.group for note in had})


def test_patients_keep_their_parts_and_new_ones_fill_what_lacks() -> None:
    first = notes(*range(100))
    before = split_by_group(first, SHARES, seed=1)
    grown = [
        *first,
        *notes(*range(100, 160)),
        Note(id="more", group="p3", text="x", profile="public"),
    ]
    split, _ = continued(grown, history(before, *first), {}, SHARES, seed=1)
    assert all(split.parts[id] == part for id, part in before.parts.items())
    assert split.parts["more"] == before.parts["n3-0"]
    sizes = Counter(split.parts.values())
    for part, share in SHARES.items():
        assert abs(sizes[part] / len(grown) - share) < 0.02
    assert "121" not in split.how and "120 new notes" in split.how


def test_week_by_week_the_parts_keep_their_shares() -> None:
    every, split = notes(0, 1, 2), None
    split = split_by_group(every, SHARES, seed=1)
    for week in range(1, 60):
        new = notes(3 * week, 3 * week + 1, 3 * week + 2)
        had, every = every, [*every, *new]
        split, _ = continued(every, history(split, *had), {}, SHARES, seed=1)
    sizes = Counter(split.parts.values())
    assert 0.78 < sizes["train"] / len(every) < 0.82


def test_a_patient_merged_across_parts_goes_to_train_and_is_counted() -> None:
    a, b, c = notes(1), notes(2), notes(3)
    parts: dict[str, PartName] = {n.id: "test" for n in a} | {n.id: "train" for n in [*b, *c]}
    before = history(Split(seed=1, parts=parts), *a, *b, *c)
    merged = [Note(id=f"new-{n.id}", group="p1", text=n.text, profile="public") for n in b]
    moved = {f"new-{n.id}": n.id for n in b}
    split, past = continued([*a, *merged, *c], before, moved, SHARES, seed=1)
    assert {split.parts[n.id] for n in [*a, *merged]} == {"train"}
    assert "1 patients who were in several parts went to train" in split.how
    assert past == {"p2": "train"}, "the part of a patient without notes is not forgotten"
    again, _ = continued(b, History(split=split, past=past), {}, SHARES, seed=1)
    assert {again.parts[n.id] for n in b} == {"train"}


def test_nothing_in_train_is_later_than_the_test_part_begins() -> None:
    begin = datetime(2024, 1, 1)
    rows = [
        Note(
            id=f"n{n}",
            group=f"p{n // 2}",
            text=f"note {n}",
            profile="public",
            written_at=begin + timedelta(days=(n * 37) % 200),
        )
        for n in range(200)
    ]
    split = split_by_time(rows, SHARES, seed=1)
    sizes = Counter(split.parts.values())
    assert all(abs(sizes[part] - share * 200) <= 2 for part, share in SHARES.items())
    last = {
        group: max(n.written_at for n in rows if n.group == group and n.written_at)
        for group in {n.group for n in rows}
    }
    of = {n.group: split.parts[n.id] for n in rows}
    train = max(last[group] for group, part in of.items() if part == "train")
    assert train <= min(last[group] for group, part in of.items() if part == "test")
    with pytest.raises(UserError, match="written_at"):
        split_by_time(notes(1, 2), SHARES, seed=1)


def test_no_site_is_in_two_parts() -> None:
    rows = [
        Note(id=f"n{n}", group=f"p{n}", text=f"note {n}", profile="public", department=f"s{n % 12}")
        for n in range(240)
    ]
    split = split_by_site(rows, SHARES, seed=1)
    of: dict[str, set[str]] = {}
    for row in rows:
        of.setdefault(row.department, set()).add(split.parts[row.id])
    assert all(len(parts) == 1 for parts in of.values())
    assert set(split.parts.values()) == {"train", "dev", "test"}
    with pytest.raises(UserError, match="3 sites"):
        split_by_site(notes(1, 2), SHARES, seed=1)
