"""What is new in a database is taken once, whatever rows share a mark, come late or change."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import DataError, UserError
from residency.core.progress import Silent
from residency.ingest.rows import NO_TEXT
from residency.ingest.sources import NoteColumns, Sql
from residency.ingest.sql import NO_MARK
from residency.ingest.store import Store
from residency.ingest.transfer import CHANGED, Extraction, take


class Ward:
    """A database, a store, and what takes from one to the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = sqlite3.connect(root / "his.db", isolation_level=None)
        self.database.execute("CREATE TABLE notes (id TEXT, patient TEXT, day TEXT, text TEXT)")
        self.database.execute("CREATE TABLE labels (note TEXT, start, stop, label)")
        (root / "zone").mkdir()
        self.store = Store.open(root / "zone", "ward", b"k" * 32)

    def rows(self, *rows: tuple[str | None, str, str | None, Any]) -> None:
        self.database.executemany("INSERT INTO notes VALUES (?, ?, ?, ?)", rows)

    def take(self, notes: str = "SELECT * FROM notes", **settings: Any) -> Extraction:
        source = Sql(
            url="sqlite:///his.db", notes=notes, **{"mark": "day", "segment": 2, **settings}
        )
        return take(source, self.root, self.store, Silent())

    @property
    def ids(self) -> list[str]:
        return [note.id for number in self.store.numbers(0) for note in self.store.read(number)]


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.store.close()
    made.database.close()


def test_rows_come_in_the_order_of_marks_and_a_second_time_not(ward: Ward) -> None:
    ward.rows(
        ("c", "P", "2024-05-02", "x"), ("b", "P", "2024-05-01", "x"), ("a", "P", "2024-05-03", "x")
    )
    assert ward.take().taken == 3
    done = ward.take()
    assert (done.taken, done.again, done.skipped) == (0, 1, {})
    assert ward.ids == ["b", "c", "a"]


def test_rows_that_share_the_last_mark_are_not_lost_whatever_their_ids(ward: Ward) -> None:
    ward.rows(("m", "P", "2024-05-01", "x"))
    ward.take()
    ward.rows(
        ("a", "P", "2024-05-01", "y"), ("z", "P", "2024-05-01", "z"), ("n", "P", "2024-05-02", "w")
    )
    assert ward.take().taken == 3
    assert sorted(ward.ids) == ["a", "m", "n", "z"]


def test_rows_that_cannot_be_put_in_order_are_counted_each_time(ward: Ward) -> None:
    ward.rows(("a", "P", None, "x"), (None, "P", "2024-05-01", "x"), ("b", "P", "2024-05-01", "x"))
    for taken in (1, 0):
        done = ward.take()
        assert (done.taken, done.skipped) == (taken, {NO_MARK: 2})
    assert done.ever == {"taken": 1}


def test_a_row_without_text_is_counted_once_and_taken_when_it_has_one(ward: Ward) -> None:
    ward.rows(("a", "P", "2024-05-01", " \n"), ("b", "P", "2024-05-01", None))
    assert ward.take().skipped == {NO_TEXT: 2}
    assert ward.take().skipped == {}
    ward.database.execute("UPDATE notes SET text = 'x', day = '2024-05-02' WHERE id = 'a'")
    done = ward.take()
    assert (done.taken, done.ever) == (1, {"taken": 1, NO_TEXT: 2})


def test_a_row_that_changed_is_counted_and_not_taken_twice(ward: Ward) -> None:
    ward.rows(("a", "P", "2024-05-01", "x"))
    ward.take()
    ward.database.execute("UPDATE notes SET text = 'y', day = '2024-05-02'")
    assert ward.take().skipped == {CHANGED: 1}
    assert ward.take().ever == {"taken": 1, CHANGED: 1}, "one change is counted once"
    assert ward.ids == ["a"]


def test_a_statement_that_was_widened_is_read_anew_and_gives_what_is_new(ward: Ward) -> None:
    ward.rows(
        ("a", "P", "2024-05-03", "x"), ("b", "Q", "2024-05-01", "x"), ("c", "Q", "2024-05-02", "x")
    )
    ward.take("SELECT * FROM notes WHERE patient = 'P'")
    done = ward.take("SELECT * FROM notes")
    assert (done.taken, done.again) == (2, 1)
    assert ward.ids == ["a", "b", "c"]


def test_a_run_that_ends_in_the_middle_goes_on_behind_the_last_segment(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.rows(*((f"{n:02d}", "P", f"2024-05-{n // 3 + 1:02d}", "x") for n in range(20)))
    add, calls = Store.add, []

    def dies(self: Store, *given: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        add(self, *given)

    monkeypatch.setattr(Store, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        ward.take()
    monkeypatch.undo()
    assert len(ward.ids) == 6
    ward.take()
    assert ward.ids == [f"{n:02d}" for n in range(20)]


def test_labels_come_with_their_notes_also_over_many_fetches(ward: Ward) -> None:
    ward.rows(*((f"{n}", "P", "2024-05-01", f"đau bụng {n}") for n in range(9)))
    ward.database.executemany(
        "INSERT INTO labels VALUES (?, 0, 3, 'SYMPTOM')", [(f"{n}",) for n in range(9)]
    )
    done = ward.take(labels="SELECT note, start, stop, label FROM labels", fetch=2)
    assert done.labels_left == 0
    notes = [note for number in ward.store.numbers(0) for note in ward.store.read(number)]
    assert [[span.quote for span in note.spans] for note in notes] == [["đau"]] * 9


@pytest.mark.parametrize(
    ("start", "stop", "sentence"),
    [(0, 99, "outside its text"), ("x", 3, "whole numbers"), (3, 3, "outside its text")],
)
def test_labels_that_do_not_fit_are_one_sentence(
    ward: Ward, start: Any, stop: Any, sentence: str
) -> None:
    ward.rows(("a", "P", "2024-05-01", "đau bụng"))
    ward.database.execute("INSERT INTO labels VALUES ('a', ?, ?, 'SYMPTOM')", (start, stop))
    with pytest.raises((UserError, DataError), match=sentence):
        ward.take(labels="SELECT note, start, stop, label FROM labels")
    assert ward.ids == []


def test_notes_in_bytes_and_in_rtf_are_read_and_what_cannot_be_is_counted(ward: Ward) -> None:
    ward.rows(
        ("a", "P", "1", "sốt".encode()),
        ("b", "P", "2", b"s\xe8t"),
        ("c", "P", "3", r"{\rtf1\ansi s\u7889?t}"),
    )
    done = ward.take(lang="vi", columns=NoteColumns())
    assert (done.taken, done.skipped) == (2, {"the text cannot be read in this encoding": 1})
    assert [note.text for note in ward.store.read(1)] == ["sốt", "sốt"]


def test_a_colon_in_the_statement_is_no_parameter(ward: Ward) -> None:
    ward.rows(("a", "P", "2024-05-01", "lúc :gio 10:30"))
    assert ward.take("SELECT * FROM notes WHERE text LIKE '% :gio 10:30'").taken == 1
