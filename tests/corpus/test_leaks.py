"""The audit of a split: every kind of tie between two parts is counted, by pair of parts, with ids
and without text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from residency.core.errors import GateRefused
from residency.core.types import Note, PartName
from residency.corpus.formats.jsonl import Jsonl
from residency.corpus.groups import atoms
from residency.corpus.leaks import find_leaks, grouping
from residency.corpus.load import Corpus, load
from residency.corpus.near import near_duplicates
from residency.corpus.parts import keep_given, split_by_group

SHARES: dict[PartName, float] = {"train": 0.6, "dev": 0.2, "test": 0.2}


def note(
    id: str, group: str = "", text: str = "", parents: tuple[str, ...] = (), source: str = ""
) -> Note:
    return Note(
        id=id,
        text=text or f"{id} said",
        profile="public",
        group=group or id,
        parents=parents,
        source=source,
    )


LEAKS = [
    ("patient", note("a", group="p"), note("b", group="p")),
    ("text", note("a", text="sốt  cao"), note("b", text="so\u0302\u0301t cao")),
    ("parent", note("a"), note("b", parents=("a",))),
    ("parent", note("a", parents=("gone",)), note("b", parents=("gone",))),
    ("source", note("a", source="article 1"), note("b", source="article 1")),
]


@pytest.mark.parametrize(("tie", "one", "two"), LEAKS)
@pytest.mark.parametrize("parts", [("train", "test"), ("train", "dev"), ("dev", "test")])
def test_every_tie_between_two_parts_is_a_leak_of_its_kind(
    tie: str, one: Note, two: Note, parts: tuple[PartName, PartName]
) -> None:
    found = find_leaks([one, two, note("c")], {"a": parts[0], "b": parts[1], "c": "train"})
    assert [(leak.tie, leak.parts, leak.sets, leak.notes, leak.ids) for leak in found] == [
        (tie, parts, 1, 1, ("b",))
    ]
    assert find_leaks([one, two], {"a": parts[0], "b": parts[0]}) == ()


def test_near_duplicates_in_two_parts_are_a_leak() -> None:
    text = (
        "Bệnh nhân nam, đau ngực trái lan ra sau lưng từ ba giờ trước, vã mồ hôi nhiều, khó "
        "thở "
        "nhẹ khi nằm"
    )
    notes = [note("a", text=text + "."), note("b", text=text + ", mạch 96.")]
    near = near_duplicates(notes, 0.8)
    assert [leak.tie for leak in find_leaks(notes, {"a": "train", "b": "test"}, near)] == [
        "near-duplicate"
    ]


def test_counts_are_of_sets_and_of_the_notes_of_the_second_part() -> None:
    notes = [
        *(note(f"a{i}", group=f"p{i % 3}") for i in range(9)),
        *(note(f"b{i}", group=f"p{i % 2}") for i in range(7)),
    ]
    (leak,) = find_leaks(notes, {one.id: "train" if one.id[0] == "a" else "test" for one in notes})
    assert (leak.sets, leak.notes, len(leak.ids)) == (2, 7, 5)
    assert leak.words == "2 patients in both train and test (7 test notes, e.g. b0, b2, b4, b6, b1)"


@st.composite
def corpora(draw: st.DrawFn) -> list[Note]:
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 12),
                st.integers(0, 20),
                st.lists(st.integers(0, 30), max_size=2),
                st.integers(-20, 5),
            ),
            max_size=30,
        )
    )
    texts = [
        "".join(chr(97 + (text * 7 + k * k * (text + 1)) % 26) for k in range(60))
        for text in range(21)
    ]
    return [
        note(
            f"n{i}",
            f"g{group}",
            texts[text][: 60 - i % 3],
            tuple(f"n{parent}" for parent in parents if parent != i),
            f"s{source}" if source > 0 else "",
        )
        for i, (group, text, parents, source) in enumerate(rows)
    ]


@forall(corpora(), st.integers(0, 5))
def test_a_split_by_group_leaks_nothing(notes: list[Note], seed: int) -> None:
    near = near_duplicates(notes, 0.8)
    split = split_by_group(notes, SHARES, seed, near)
    assert find_leaks(notes, split.parts, near) == ()
    # The same without the code under test: brute force over all pairs.
    cluster = {id: number for number, ids in enumerate(near) for id in ids}
    for one in notes:
        for two in notes:
            tied = (
                one.group == two.group
                or one.text == two.text
                or one.id in two.parents
                or set(one.parents) & set(two.parents)
                or (one.source and one.source == two.source)
                or cluster.get(one.id, -1) == cluster.get(two.id, -2)
            )
            assert not tied or split.parts[one.id] == split.parts[two.id]


@forall(corpora(), st.integers(0, 5))
def test_dev_that_is_drawn_from_train_leaks_nothing_into_it(notes: list[Note], seed: int) -> None:
    near = near_duplicates(notes, 0.8)
    split = keep_given({"train": notes}, 0.3, seed, near)
    assert find_leaks(notes, split.parts, near) == ()


def test_ties_reach_through_others() -> None:
    notes = [
        note("a", group="p"),
        note("b", group="p", text="same"),
        note("c", text="same"),
        note("d", parents=("c",)),
        note("e"),
    ]
    assert [[one.id for one in atom] for atom in atoms(notes)] == [["a", "b", "c", "d"], ["e"]]


def test_one_set_of_more_than_a_twentieth_of_the_notes_is_warned_of_with_what_to_change() -> None:
    notes = [note(f"n{i}", group="ward" if i < 40 else "") for i in range(400)]
    assert (
        "40 of 400 notes are tied together" in grouping(notes).warning
        and "group" in grouping(notes).warning
    )
    assert grouping(notes[25:]).warning == ""
    near = [[f"n{i}" for i in range(100, 160)]]
    assert "one cluster of near-duplicates holds 60 of 400" in grouping(notes, near).warning
    assert "near" in grouping(notes, near).warning


def put(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def read(folder: Path, **settings: Any) -> Corpus:
    put(
        folder,
        "a.jsonl",
        *({"text": chr(97 + i) * 9, "id": f"a{i}", "group": f"p{i}"} for i in range(10)),
    )
    put(folder, "b.jsonl", {"text": "another one", "id": "b", "group": "p3"})
    return load(Jsonl(format="jsonl", train="a.jsonl", test="b.jsonl", **settings), "x", folder, 0)


def test_a_leak_of_given_parts_is_said_and_refused_where_that_is_asked_for(tmp_path: Path) -> None:
    assert read(tmp_path).warnings == ("1 patient in both train and test (1 test note, b)",)
    with pytest.raises(GateRefused, match=r"data\.x: 1 patient in both train and test .*leak=warn"):
        read(tmp_path, leak="refuse")


def test_near_can_be_switched_off_as_yaml_says_it(tmp_path: Path) -> None:
    assert Jsonl(format="jsonl", path="a", near=False).near == "off"  # type: ignore[arg-type]
    assert Jsonl(format="jsonl", path="a", near="90%").near == 0.9  # type: ignore[arg-type]
