"""PostgreSQL and MariaDB for real: what is new is taken once, whatever happens on the way, by a
login that cannot write."""

from __future__ import annotations

import json
import sqlite3
import time
from datetime import timedelta

import pytest
from real_servers import NOTES, Hospital


def test_200_000_notes_stream_in_bounded_memory_and_a_killed_connection_costs_and_doubles_none(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    hospital.fill(NOTES)
    begun = time.monotonic()
    process = hospital.start("extract")
    while (
        process.poll() is None
        and stored(hospital.folder / "identified/ward.notes.sqlite") < NOTES // 4
    ):
        time.sleep(0.1)
    kill_reader(hospital)
    out, err = process.communicate()
    first = time.monotonic() - begun
    assert process.returncode == 1, (out, err)
    assert "the connection was lost" in err and len(err.strip().splitlines()) == 1, err
    held = hospital.taken()
    assert NOTES // 4 <= len(held) < NOTES and len(set(held)) == len(held)
    begun = time.monotonic()
    _, _, peak = hospital.call("extract")
    seconds = first + time.monotonic() - begun
    ids = hospital.taken()
    assert len(ids) == len(set(ids)) == NOTES
    assert peak < 400
    out, _, _ = hospital.call("extract")
    assert "0 new notes" in out
    with capsys.disabled():
        print(
            f"\n{hospital.kind}: connection killed after {len(held):,} of {NOTES:,} notes, none "
            "lost or doubled; "
            f"{seconds:.1f} s in all ({NOTES / seconds:,.0f} rows/s), peak {peak} MB"
        )


def stored(database: object) -> int:
    try:
        found = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)
        try:
            return int(found.execute("SELECT coalesce(sum(notes), 0) FROM segments").fetchone()[0])
        finally:
            found.close()
    except sqlite3.Error:
        return 0


def kill_reader(hospital: Hospital) -> None:
    if hospital.kind == "postgresql":
        assert (
            hospital.value(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = "
                "'reader'"
            )
            >= 1
        )
    else:
        with hospital.engine.connect() as connection:
            ids = [
                row[0]
                for row in connection.exec_driver_sql(
                    "SELECT id FROM information_schema.processlist WHERE user = 'reader'"
                )
            ]
            assert ids
            for id in ids:
                connection.exec_driver_sql(f"KILL {id}")


def test_new_rows_are_taken_and_rows_that_share_the_last_mark_are_not_lost(
    hospital: Hospital,
) -> None:
    hospital.fill(1000, first=101)
    hospital.call("extract")
    last = hospital.value("SELECT max(changed_at) FROM notes")
    hospital.sql(
        f"INSERT INTO notes VALUES (1, 'P1', '{last}', 'a note of the last minute with a lower "
        "id', 'x', '1')",
        f"INSERT INTO notes VALUES (9000, 'P1', '{last}', 'a note of the last minute with a higher "
        "id', 'x', '1')",
        "INSERT INTO notes VALUES (9001, 'P1', '2031-01-01 00:00:00', 'a note that is new', 'x', "
        "'1')",
    )
    out, _, _ = hospital.call("extract")
    assert "3 new notes" in out
    assert {"1", "9000", "9001"} <= set(hospital.taken())
    out, _, _ = hospital.call("extract")
    assert "0 new notes" in out


def test_the_whole_road_gives_released_notes_and_appends_what_is_new(hospital: Hospital) -> None:
    hospital.fill(1200)
    hospital.call("deid", "extract.segment=100")
    released = hospital.folder / "data/deidentified.jsonl"
    first = released.read_bytes()
    assert first.count(b"\n") == 1200
    hospital.fill(50, first=5000, when="2030-01-01 00:00:00")
    hospital.call("deid", "extract.segment=100")
    assert released.read_bytes().startswith(first)
    assert released.read_bytes().count(b"\n") == 1250


def refused(hospital: Hospital, why: str) -> None:
    _, err, _ = hospital.call("extract", check=2)
    assert "can write" in err and why in err, err
    assert len(err.strip().splitlines()) == 1 and "secret" not in err
    assert not hospital.taken()


@pytest.mark.parametrize(
    "right", ["INSERT", "UPDATE", "DELETE", "UPDATE (text)", "INSERT (id)", "TRIGGER", "TRUNCATE"]
)
def test_a_login_with_any_right_to_change_is_refused(hospital: Hospital, right: str) -> None:
    right = {("mysql", "TRUNCATE"): "DROP"}.get(
        (hospital.kind, right), right
    )  # there, TRUNCATE needs DROP
    hospital.login("writer", "SELECT", right)
    hospital.recipe("writer")
    refused(
        hospital,
        "it may change tables"
        if hospital.kind == "postgresql"
        else f"it has the right {right.split()[0]}",
    )


POSTGRESQL = [
    (["ALTER ROLE writer SUPERUSER"], "superuser", ["ALTER ROLE writer NOSUPERUSER"]),
    (["ALTER ROLE writer CREATEDB"], "create roles or databases", ["ALTER ROLE writer NOCREATEDB"]),
    (["GRANT pg_write_all_data TO writer"], "role that writes", []),
    (["ALTER TABLE notes OWNER TO writer"], "owns tables", ["ALTER TABLE notes OWNER TO postgres"]),
    (["GRANT CREATE ON SCHEMA public TO writer"], "tables in a schema", []),
    (["GRANT CREATE ON DATABASE his TO writer"], "create schemas", []),
    (
        ["CREATE SEQUENCE s", "GRANT USAGE ON SEQUENCE s TO writer"],
        "change tables",
        ["DROP SEQUENCE s"],
    ),
    (
        [
            "DROP ROLE IF EXISTS hands",
            "CREATE ROLE hands",
            "GRANT DELETE ON notes TO hands",
            "ALTER ROLE writer NOINHERIT",
            "GRANT hands TO writer",
        ],
        "change tables",
        ["DROP OWNED BY hands", "DROP ROLE hands"],
    ),
]


@pytest.mark.parametrize("admin", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("grants", "why", "undo"), POSTGRESQL, ids=[why for _, why, _ in POSTGRESQL]
)
def test_postgresql_rights_beyond_tables_are_seen(
    hospital: Hospital, grants: list[str], why: str, undo: list[str]
) -> None:
    hospital.login("writer", "SELECT")
    hospital.sql(*grants)
    hospital.recipe("writer")
    try:
        refused(hospital, why)
    finally:
        hospital.sql(*undo, "DROP OWNED BY writer", "DROP ROLE writer")


MARIADB = [
    (["GRANT INSERT ON *.* TO writer@localhost"], "INSERT"),
    (["GRANT ALL PRIVILEGES ON his.* TO writer@localhost"], "ALL PRIVILEGES"),
    (["GRANT FILE ON *.* TO writer@localhost"], "FILE"),
    (["GRANT EXECUTE ON his.* TO writer@localhost"], "EXECUTE"),
    (
        ["CREATE DATABASE IF NOT EXISTS other", "GRANT DELETE ON other.* TO writer@localhost"],
        "DELETE",
    ),
    (
        [
            "CREATE OR REPLACE ROLE hands",
            "GRANT UPDATE ON his.* TO hands",
            "GRANT hands TO writer@localhost",
        ],
        "role whose rights cannot be read",
    ),
    (
        [
            "CREATE OR REPLACE ROLE hands",
            "GRANT UPDATE ON his.* TO hands",
            "GRANT hands TO writer@localhost",
            "SET DEFAULT ROLE hands FOR writer@localhost",
        ],
        "UPDATE",
    ),
    (["GRANT SELECT ON his.notes TO writer@localhost WITH GRANT OPTION"], "hand out rights"),
]


@pytest.mark.parametrize("admin", ["mariadb"], indirect=True)
@pytest.mark.parametrize(("grants", "why"), MARIADB)
def test_mariadb_rights_of_roles_other_schemas_and_files_are_seen(
    hospital: Hospital, grants: list[str], why: str
) -> None:
    hospital.login("writer", "SELECT")
    hospital.sql(*grants)
    hospital.recipe("writer")
    refused(hospital, why)


def test_the_server_itself_says_that_the_reader_may_not_delete(hospital: Hospital) -> None:
    from sqlalchemy import create_engine

    from residency.ingest.login import plan_deletions

    hospital.fill(1)
    hospital.login("writer", "SELECT", "DELETE")
    for login, answer in (("reader", ""), ("writer", "the server would let it delete rows")):
        engine = create_engine(hospital.login_url(login))
        with engine.connect() as connection:
            assert plan_deletions(connection, ["notes"]) == answer
            connection.rollback()
        engine.dispose()
    assert hospital.value("SELECT count(*) FROM notes") == 1


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO notes (id, changed_at) VALUES (1, '2024-01-01')",
        "DELETE FROM notes",
        "CREATE TABLE t (a INT)",
        "UPDATE notes SET text = ''",
    ],
)
def test_a_write_in_the_transaction_that_reads_is_refused_by_the_server(
    hospital: Hospital, statement: str
) -> None:
    """The administrator's own login, which may do everything, accepted by ``writing_login``."""
    from sqlalchemy import create_engine, text

    from residency.core.errors import UserError
    from residency.ingest.sources import Sql
    from residency.ingest.sql import open_to_read

    hospital.fill(10)
    settings = Sql(url="env:X", notes="SELECT * FROM notes", writing_login=True)
    engine = create_engine(hospital.url.set(database="his"))
    with (
        pytest.raises(UserError, match="the database refused"),
        open_to_read(engine, settings, []) as connection,
    ):
        connection.execute(text(statement))
    engine.dispose()
    assert hospital.value("SELECT count(*) FROM notes WHERE text <> ''") == 10


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"notes": "SELECT id, patient, text FROM notes", "mark": ""}, "gives no column"),
        ({"notes": "SELECT * FROM nowhere"}, "the database refused"),
        ({"notes": "SELECT * FROM notes FOR UPDATE"}, "is not a plain SELECT"),
    ],
)
def test_bad_statements_are_one_sentence(
    hospital: Hospital, values: dict[str, str], sentence: str
) -> None:
    hospital.recipe(**values)
    _, err, _ = hospital.call("extract", check=1)
    assert sentence in err and len(err.strip().splitlines()) == 1


def test_a_server_that_is_not_there_is_one_sentence(hospital: Hospital) -> None:
    hospital.environment["HOSPITAL_DB"] = hospital.environment["HOSPITAL_DB"].replace(
        "/his", "/gone"
    )
    _, err, _ = hospital.call("extract", check=1)
    assert (
        "the database refused" in err and len(err.strip().splitlines()) == 1 and "secret" not in err
    )


def test_amended_late_and_deleted_notes_reach_what_was_released(hospital: Hospital) -> None:
    hospital.fill(300)
    hospital.call("deid", "extract.segment=50")
    released = hospital.folder / "data/deidentified.jsonl"
    before = {json.loads(line)["id"]: line for line in released.read_text("utf-8").splitlines()}
    last = hospital.value("SELECT max(changed_at) FROM notes")
    late = last - timedelta(days=3)
    hospital.sql(
        f"UPDATE notes SET text = 'ho khan hai ngày', changed_at = '{last}' WHERE id = 7",
        f"INSERT INTO notes VALUES (901, 'P1', '{late}', 'sốt cao ba ngày', 'x', '1')",
        "DELETE FROM notes WHERE id IN (11, 12)",
    )
    hospital.call("deid", "extract.again=7")
    hospital.call("deid", "extract.absent=5%")
    texts = [json.loads(line) for line in released.read_text("utf-8").splitlines()]
    after = {row["id"]: row["text"] for row in texts}
    assert len(after) == len(texts) == 300 + 1 - 2
    assert sorted(after.values()).count("ho khan hai ngày") == 1
    assert list(after.values()).count("sốt cao ba ngày") == 1
    assert len(before.keys() - after.keys()) == 2 and len(after.keys() - before.keys()) == 1
    _, err, _ = hospital.call("extract", "extract.absent=0.0001", check=None)
    assert not err or "no longer at the source" in err
    with hospital.store() as store:
        assert store.head.counts["amended"] == 1 and store.held() == 299


def test_lines_of_a_note_are_joined_also_where_only_one_has_changed(hospital: Hospital) -> None:
    hospital.sql(
        "CREATE TABLE note_lines (id INTEGER, line_no INTEGER, patient VARCHAR(20), changed_at "
        "TIMESTAMP NOT NULL, text VARCHAR(200))",
        *(
            f"INSERT INTO note_lines VALUES ({n}, {line}, 'P{n}', '2024-05-0{line} 00:00:00', "
            f"'dòng {line} của {n}')"
            for n in (1, 2, 3)
            for line in (2, 1, 3)
        ),
    )
    grant = (
        "ON note_lines TO reader"
        if hospital.kind == "postgresql"
        else (f"ON {hospital.name}.note_lines TO reader@localhost")
    )
    hospital.sql(f"GRANT SELECT {grant}")
    hospital.recipe(
        notes="SELECT id, line_no, patient, changed_at, text FROM note_lines",
        columns={"line": "line_no"},
        identifiers={},
    )
    hospital.call("extract")
    hospital.sql(
        "UPDATE note_lines SET text = 'khác', changed_at = '2024-06-01' WHERE id = 2 AND line_no = 1"
    )
    out, _, _ = hospital.call("extract")
    assert "1 amended" in out
    with hospital.store() as store:
        notes = {n.id: n.text for number in store.numbers(0) for n in store.read(number)}
    assert notes["2"] == "khác\ndòng 2 của 2\ndòng 3 của 2" and len(notes) == 3
