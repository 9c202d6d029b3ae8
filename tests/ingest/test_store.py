"""Notes in the zone are sealed, whole and in place, and go when their time is over."""

from __future__ import annotations

import hmac
import sqlite3
import zlib
from datetime import UTC, datetime, timedelta, timezone
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from residency.core.errors import GateRefused, UserError
from residency.core.types import RawNote
from residency.ingest.store import Packed, Store

KEY = b"k" * 32
SECRET = "Zyxwvutsrq"


def notes(first: int, count: int = 3) -> list[RawNote]:
    return [
        RawNote(
            id=f"N{n}", patient=f"P{n % 2}", text=f"{SECRET} {n}", identifiers=(("name", SECRET),)
        )
        for n in range(first, first + count)
    ]


def packed(store: Store, first: int) -> list[Packed]:
    return [store.pack(note) for note in notes(first)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.open(tmp_path, "ward", KEY)
    made.add(packed(made, 0), {"no text": 2}, ("int", "3"))
    made.add(packed(made, 3))
    return made


def reopened(store: Store, *statements: str, key: bytes = KEY) -> Store:
    store.close()
    with sqlite3.connect(store.path) as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return Store.open(store.path.parent, "ward", key)


def test_what_was_stored_comes_back_and_is_nowhere_to_be_read(store: Store) -> None:
    store = reopened(store)
    assert [note for number in store.numbers(0) for note in store.read(number)] == notes(0, 6)
    assert store.head.mark == ("int", "3") and store.head.counts == {"taken": 6, "no text": 2}
    store.close()
    data = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    for hidden in (SECRET, "N0", "P1"):
        assert hidden.encode() not in data
    assert store.path.stat().st_mode & 0o077 == 0


def test_a_store_of_an_earlier_version_goes_on_with_its_own_hashes(store: Store) -> None:
    index = hmac.new(KEY, b"segments index", "sha256").digest()
    assert store.hash_with_key("N0") == blake2b(b"N0", key=index, digest_size=16).digest()
    store.put("head", replace(store.head, keyed=""))
    store = reopened(store, "DELETE FROM taken")
    assert store.hash_with_key("N0") == hmac.new(index, b"N0", "sha256").digest()[:16]
    store.add(packed(store, 6))
    assert reopened(store).known(["N6", "N9"])["N6"] is not None


def test_what_a_reading_stored_is_written_through_at_its_end(store: Store) -> None:
    with pytest.raises(KeyError), store.reading():
        store.add(packed(store, 6))
        raise KeyError
    assert store.database.execute("PRAGMA synchronous").fetchone() == (2,)
    found = sqlite3.connect(f"file:{store.path}?immutable=1", uri=True)
    assert found.execute("SELECT max(number) FROM segments").fetchone() == (3,)
    found.close()


def test_another_key_opens_nothing(store: Store) -> None:
    with pytest.raises(GateRefused, match="cannot be opened with this key"):
        reopened(store, key=b"x" * 32)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM segments WHERE number = 2",
        "DELETE FROM segments WHERE number = 1",
        "DELETE FROM sealed",
        "INSERT INTO segments SELECT 3, notes, taken_at, value FROM segments WHERE number = 2",
    ],
)
def test_a_segment_that_is_dropped_or_added_is_noticed_at_once(
    store: Store, statement: str
) -> None:
    with pytest.raises(GateRefused, match=r"missing|tampered"):
        reopened(store, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE segments SET value = (SELECT value FROM segments WHERE number = 2)",
        "UPDATE segments SET value = substr(value, 1, length(value) - 9) WHERE number = 1",
        "UPDATE segments SET value = X'00' WHERE number = 1",
        "UPDATE segments SET notes = 2 WHERE number = 1",
    ],
)
def test_a_segment_that_is_swapped_cut_or_changed_is_not_read(store: Store, statement: str) -> None:
    with pytest.raises(GateRefused, match="tampered"):
        reopened(store, statement).read(1)


def test_a_segment_of_another_store_with_the_same_key_is_not_read(
    store: Store, tmp_path: Path
) -> None:
    other = Store.open(tmp_path, "other", KEY)
    other.add(packed(other, 0))
    other.close()
    with pytest.raises(GateRefused, match="tampered"):
        reopened(
            store,
            f"ATTACH '{other.path}' AS o",
            "UPDATE segments SET value = (SELECT value FROM o.segments) WHERE number = 1",
        ).read(1)


def test_a_file_that_was_cut_is_one_sentence(store: Store) -> None:
    store.close()
    with store.path.open("r+b") as file:
        file.truncate(store.path.stat().st_size // 2)
    with pytest.raises((UserError, GateRefused)) as refused:
        opened = Store.open(store.path.parent, "ward", KEY)
        for number in opened.numbers(0):
            opened.read(number)
    assert "\n" not in str(refused.value)


def test_a_segment_and_its_mark_are_written_together_or_not_at_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.head

    def fails(*given: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "put", fails)
    with pytest.raises(UserError, match="disk full"):
        store.add(packed(store, 6), mark=("int", "9"))
    monkeypatch.undo()
    assert store.head == before
    store = reopened(store)
    assert store.head == before and list(store.numbers(0)) == [1, 2] and store.taken("N6") is None


def test_old_segments_are_removed_with_a_line_in_the_ledger_and_nothing_of_them_is_left(
    store: Store,
) -> None:
    old = (datetime.now(UTC) - timedelta(days=31)).isoformat(timespec="seconds")
    store = reopened(store, f"UPDATE segments SET taken_at = '{old}' WHERE number = 1")
    sealed = store.database.execute("SELECT value FROM segments WHERE number = 1").fetchone()[0]
    assert store.expire(30) == 3
    assert list(store.numbers(0)) == [2] and store.held() == 3
    assert [row[1:] for row in store.ledger() if row[1] == "removed"] == [
        ("removed", 1, 3, "kept long enough")
    ]
    assert store.taken("N0") is not None, "what was taken is not taken again"
    store.close()
    assert sealed[:64] not in b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    assert list(Store.open(store.path.parent, "ward", KEY).numbers(0)) == [2]


def test_a_patient_who_is_erased_is_in_no_segment_and_the_others_are(store: Store) -> None:
    assert store.erase(lambda note: note.patient == "P1") == 3
    assert store.erase(lambda note: note.patient == "P1") == 0
    store = reopened(store)
    assert [note.id for number in store.numbers(0) for note in store.read(number)] == [
        "N0",
        "N2",
        "N4",
    ]


def test_a_note_whose_time_has_a_zone_is_found_in_its_segment_again(tmp_path: Path) -> None:
    store, zone = Store.open(tmp_path, "ward", KEY), timezone(timedelta(hours=7))
    note = replace(notes(0, 1)[0], written_at=datetime(2024, 5, 1, 8, tzinfo=zone))
    store.add([store.pack(note)])
    assert [one.id for one in store.read(1)] == ["N0"]
    # An earlier version of this package had the zone in what it kept of the content.
    rest = msgspec.json.encode(replace(note, id="", text="", patient=""))
    kept = store.hash_with_key(f"{note.patient}\0{note.text}\0".encode() + rest)
    store.database.execute("UPDATE taken SET content = ?, reading = 1", (kept,))
    assert [one.id for one in store.read(1)] == ["N0"]
    later = store.hash_with_key(store.pack(replace(note, text="khác")).data)
    store.database.execute("UPDATE taken SET content = ?", (later,))
    assert store.read(1) == []


def test_segments_that_an_earlier_version_compressed_are_read(store: Store) -> None:
    sealed = zlib.compress(msgspec.msgpack.encode(notes(0)), 1)
    store.database.execute(
        "UPDATE segments SET value = ? WHERE number = 1",
        (store._encrypt(sealed, store._name(1, 3)),),
    )
    assert store.read(1) == notes(0)


def test_what_a_killed_reading_met_is_known_when_the_store_is_opened_again(store: Store) -> None:
    taken = store.database.execute("SELECT id, content, version, reading FROM taken").fetchall()
    store.database.execute("DELETE FROM taken")
    older = [(id, b"old", "1", 0) for id, *_ in taken]
    store.database.executemany("INSERT INTO recent VALUES (?, ?, ?, ?)", [*older, *taken])
    store = reopened(store)
    assert store.known(["N0"])["N0"] == (store.pack(notes(0)[0]).content, "", 0)
    assert store.database.execute("SELECT count(*) FROM recent").fetchone() == (0,)
    assert [note.id for note in store.read(1)] == ["N0", "N1", "N2"]
