"""What is new in a database is taken once, whatever rows share a mark, come late or change."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import DataError, UserError
from residency.core.progress import Silent
from residency.core.types import RawNote
from residency.ingest.rows import NO_TEXT
from residency.ingest.sources import NoteColumns, Sql
from residency.ingest.sql import NO_MARK
from residency.ingest.store import Store
from residency.ingest.transfer import OLDER, TWICE, Extraction, take


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

    def rows_of(self, statement: str, *rows: tuple[Any, ...]) -> None:
        self.database.executemany(statement, rows)

    @property
    def notes(self) -> list[RawNote]:
        return [note for number in self.store.numbers(0) for note in self.store.read(number)]

    @property
    def ids(self) -> list[str]:
        return [note.id for note in self.notes]

    @property
    def texts(self) -> dict[str, str]:
        return {note.id: note.text for note in self.notes}

    @property
    def patients(self) -> dict[str, str]:
        return {note.id: note.patient for note in self.notes}


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


def test_a_row_that_changed_is_taken_in_the_place_of_the_earlier_version(ward: Ward) -> None:
    ward.rows(("a", "P", "2024-05-01", "x"))
    ward.take()
    ward.database.execute("UPDATE notes SET text = 'y', day = '2024-05-02'")
    done = ward.take()
    assert (done.taken, done.amended, done.skipped) == (0, 1, {})
    assert ward.take().ever == {"taken": 1, "amended": 1}, "one change is counted once"
    assert ward.texts == {"a": "y"} and ward.store.held() == 1


def test_two_texts_under_one_id_in_one_reading_are_counted_and_do_not_change_places(
    ward: Ward,
) -> None:
    ward.rows(("a", "P", "1", "x"), ("a", "P", "2", "y"))
    for taken, twice in ((1, {TWICE: 1}), (0, {})):
        done = ward.take(mark="", segment=1)
        assert (done.taken, done.amended, done.skipped) == (taken, 0, twice)
    assert ward.texts == {"a": "x"}


def test_of_several_versions_the_highest_counts_whatever_their_order(ward: Ward) -> None:
    ward.database.execute("ALTER TABLE notes ADD COLUMN version")
    put = "INSERT INTO notes VALUES ('a', 'P', ?, ?, ?)"
    for day, text, version in (("2", "nine", 9), ("3", "ten", 10), ("4", "eight", 8)):
        ward.database.execute(put, (day, text, version))
    columns = NoteColumns(version="version")
    done = ward.take(columns=columns, segment=1)
    assert (done.taken, done.amended, done.skipped) == (1, 1, {OLDER: 1})
    assert ward.texts == {"a": "ten"}, "10 is later than 9, as numbers are"
    ward.database.execute(put, ("5", "late", 2))
    assert ward.take(columns=columns).ever[OLDER] == 2, "each is counted once"
    assert ward.texts == {"a": "ten"}


def test_a_note_that_is_marked_deleted_goes_and_comes_back_with_its_mark_taken_away(
    ward: Ward,
) -> None:
    ward.database.execute("ALTER TABLE notes ADD COLUMN gone")
    ward.rows_of("INSERT INTO notes VALUES (?, 'P', ?, 'x', ?)", ("a", "1", None), ("b", "2", "0"))
    columns = NoteColumns(deleted="gone")
    assert ward.take(columns=columns).taken == 2
    ward.database.execute("UPDATE notes SET gone = '2024-05-01', day = '3' WHERE id = 'a'")
    done = ward.take(columns=columns)
    assert (done.removed, ward.ids, ward.store.held()) == (1, ["b"], 1)
    assert ward.take(columns=columns).removed == 0
    ward.database.execute("UPDATE notes SET gone = NULL, day = '4' WHERE id = 'a'")
    assert ward.take(columns=columns).taken == 1
    assert sorted(ward.ids) == ["a", "b"]


def test_a_note_whose_text_was_emptied_is_no_note_any_more(ward: Ward) -> None:
    ward.rows(("a", "P", "1", "x"), ("b", "P", "1", "y"))
    ward.take()
    ward.database.execute("UPDATE notes SET text = ' ', day = '2' WHERE id = 'a'")
    assert ward.take().removed == 1
    assert ward.ids == ["b"]


def test_what_is_absent_from_a_reading_of_the_whole_is_removed_within_a_limit(ward: Ward) -> None:
    ward.rows(*((f"{n}", "P", f"{n}", "x") for n in range(10)))
    ward.take()
    ward.database.execute("DELETE FROM notes WHERE id = '3'")
    assert ward.take().removed == 0, "a note that is not asked for is not missed"
    assert ward.take(absent=0.1).removed == 1
    assert ward.ids == [f"{n}" for n in range(10) if n != 3]
    ward.database.execute("DELETE FROM notes WHERE id < '5'")
    with pytest.raises(UserError, match="4 of 9 notes are no longer at the source, more than 10%"):
        ward.take(absent=0.1)
    assert len(ward.ids) == 9


@pytest.mark.parametrize(
    ("days", "late", "again"),
    [
        (("2024-05-08", "2024-05-02"), "2024-05-02", 7),
        (("2024-05-08 10:00:00", "2024-05-02 09:00:00"), "2024-05-02 09:00:00", 7),
        ((800, 790), 790, 15),
    ],
)
def test_a_row_that_comes_late_is_taken_where_its_window_is_asked_again(
    ward: Ward, days: tuple[Any, Any], late: Any, again: int
) -> None:
    ward.database.execute("CREATE TABLE marked (id TEXT, patient TEXT, day, text TEXT)")
    put = "INSERT INTO marked VALUES (?, 'P', ?, 'x')"
    ward.database.execute(put, ("a", days[0]))
    ward.take("SELECT * FROM marked")
    ward.database.execute(put, ("late", late))
    assert ward.take("SELECT * FROM marked").taken == 0
    assert ward.take("SELECT * FROM marked", again=again).taken == 1
    assert ward.take("SELECT * FROM marked", again=again).taken == 0


def test_a_window_behind_marks_that_have_no_order_of_their_own_is_one_sentence(ward: Ward) -> None:
    ward.rows(("a", "P", "first", "x"))
    ward.take()
    with pytest.raises(UserError, match="neither numbers nor times"):
        ward.take(again=7)


def test_lines_of_a_note_are_joined_in_their_order_and_one_that_changes_changes_the_note(
    ward: Ward,
) -> None:
    ward.database.execute("CREATE TABLE lined (id, patient, day, text, line_no)")
    put = "INSERT INTO lined VALUES (?, 'P', ?, ?, ?)"
    ward.rows_of(put, ("a", "3", "hai", 2), ("b", "1", "một mình", 1), ("a", "1", "một", 1))
    ward.rows_of(put, ("a", "2", "mười", 10), ("c", "1", "x", 1), ("c", "1", "y", 1))
    asked: dict[str, Any] = {"columns": NoteColumns(line="line_no"), "segment": 1}
    done = ward.take("SELECT * FROM lined", **asked)
    assert done.taken == 2 and list(done.skipped.values()) == [2]
    assert ward.texts == {"a": "một\nhai\nmười", "b": "một mình"}
    ward.database.execute("UPDATE lined SET text = 'HAI', day = '9' WHERE line_no = 2")
    assert ward.take("SELECT * FROM lined", **asked).amended == 1
    assert ward.texts["a"] == "một\nHAI\nmười"


def test_patients_that_were_merged_are_one_also_in_notes_that_were_taken_before(
    ward: Ward,
) -> None:
    ward.rows(("a", "P", "1", "x"), ("b", "Q", "2", "y"), ("c", "R", "3", "z"))
    ward.take()
    (ward.root / "merged.csv").write_text("patient,into\nQ,P\nP,O\n", "utf-8")
    done = ward.take(merged="merged.csv")
    assert (done.taken, done.amended) == (0, 2)
    assert ward.patients == {"a": "O", "b": "O", "c": "R"}
    ward.rows(("d", "Q", "4", "new"))
    ward.take(merged="merged.csv")
    assert ward.patients["d"] == "O"
    (ward.root / "merged.csv").write_text("patient,into\n", "utf-8")
    ward.take(merged="merged.csv")
    assert ward.patients == {"a": "P", "b": "Q", "c": "R", "d": "Q"}, "a merge is taken back"
    (ward.root / "merged.csv").write_text("patient,into\nP,Q\nQ,P\n", "utf-8")
    with pytest.raises(DataError, match="in a circle"):
        ward.take(merged="merged.csv")


def test_merges_are_read_from_the_database_too(ward: Ward) -> None:
    ward.rows(("a", "P", "1", "x"), ("b", "Q", "2", "y"))
    ward.database.execute("CREATE TABLE merges (loser, winner)")
    ward.database.execute("INSERT INTO merges VALUES ('Q', 'P')")
    ward.take(merges="SELECT loser, winner FROM merges")
    assert ward.patients == {"a": "P", "b": "P"}


def test_patients_with_one_name_and_birth_date_are_one_once_a_person_says_so(ward: Ward) -> None:
    ward.database.execute("CREATE TABLE named (id, patient, day, text, name, born)")
    put = "INSERT INTO named VALUES (?, ?, '1', 'x', ?, ?)"
    rows = (("a", "P", "Trần Thị An", "1960-02-01"), ("b", "Q", "TRẦN THỊ AN", "1960-02-01"))
    ward.rows_of(put, *rows, ("c", "R", "Trần Thị An", "1961-02-01"))
    asked: dict[str, Any] = {"identifiers": {"name": "name", "birth_date": "born"}}
    assert ward.take("SELECT * FROM named", **asked).candidates == 1
    path = ward.root / "zone/ward.candidates.csv"
    assert path.read_text("utf-8") == "patient,into,confirmed\nQ,P,\n"
    assert ward.patients == {"a": "P", "b": "Q", "c": "R"}, "nobody has said so yet"
    path.write_text("patient,into,confirmed\nQ,P,yes\n", "utf-8")
    done = ward.take("SELECT * FROM named", **asked)
    assert (done.amended, done.candidates) == (1, 0)
    assert ward.patients == {"a": "P", "b": "P", "c": "R"}
    sealed = b"".join(one.read_bytes() for one in path.parent.glob("*.sqlite*"))
    assert "Trần".encode() not in sealed and b"1960" not in sealed


def test_a_store_that_an_earlier_version_made_goes_on(ward: Ward) -> None:
    ward.rows(("a", "P", "1", "x"), ("b", "P", "2", "y"))
    ward.take()
    for name in ("version", "reading"):
        ward.store.database.execute(f"ALTER TABLE taken DROP COLUMN {name}")
    old = ward.store.hash_with_key("P\0x")
    query = "UPDATE taken SET content = ? WHERE id = ?"
    ward.store.database.execute(query, (old, ward.store.hash_with_key("a")))
    ward.store.close()
    ward.store = Store.open(ward.root / "zone", "ward", b"k" * 32)
    assert ward.texts == {"a": "x", "b": "y"}
    done = ward.take(absent=0.0)
    assert (done.taken, done.amended, done.again, done.removed) == (0, 0, 2, 0)


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
