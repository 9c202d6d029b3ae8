"""A statement is exactly one SELECT that only reads, in every dialect and however it is dressed up."""

from __future__ import annotations

import pytest

from residency.core.errors import UserError
from residency.ingest.select import check_select, tables

READING = [
    ("", "SELECT id, text FROM notes"),
    ("", "SELECT id FROM notes;"),
    ("", "WITH n AS (SELECT id FROM notes) SELECT * FROM n"),
    ("", "SELECT id FROM a UNION ALL SELECT id FROM b"),
    (
        "postgres",
        "SELECT n.id, string_agg(l.body, E'\\n' ORDER BY l.line) AS text FROM notes n JOIN lines l "
        "ON l.note = n.id GROUP BY n.id",
    ),
    (
        "postgres",
        "SELECT text::varchar, now() AT TIME ZONE 'UTC' FROM notes WHERE text = 'a -- b; DROP "
        "TABLE c'",
    ),
    ("mysql", "SELECT GROUP_CONCAT(body SEPARATOR '\\n') AS text FROM `lines`"),
    (
        "tsql",
        "SELECT TOP 5 [id], CONVERT(nvarchar(max), text) AS text FROM [dbo].[notes] WITH (NOLOCK)",
    ),
]

DOING = {
    "postgres": [
        "DELETE FROM notes",
        "UPDATE notes SET a = 1",
        "INSERT INTO notes VALUES (1)",
        "TRUNCATE notes",
        "DROP TABLE notes",
        "WITH x AS (DELETE FROM notes RETURNING *) SELECT * FROM x",
        "WITH x AS (INSERT INTO y VALUES (1) RETURNING *) SELECT * FROM x",
        "SELECT * FROM (WITH x AS (UPDATE y SET a = 1 RETURNING *) SELECT * FROM x) z",
        "SELECT * INTO copy FROM notes",
        "SELECT * FROM notes FOR UPDATE",
        "SELECT * FROM notes FOR SHARE",
        "SELECT * FROM (SELECT * FROM notes FOR UPDATE) x",
        "COPY notes TO '/tmp/x'",
        "COPY notes FROM PROGRAM 'x'",
        "DO $$ BEGIN DELETE FROM notes; END $$",
        "CALL clean()",
        "EXPLAIN ANALYZE DELETE FROM notes",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_catalog.lo_unlink(1)",
        'SELECT "lo_unlink"(1)',
        "SELECT * FROM dblink('a', 'DELETE FROM x') AS t(a int)",
        "SELECT * FROM ROWS FROM (dblink('a', 'b'))",
        "SELECT nextval('s')",
        "SELECT setval('s', 1)",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT pg_write_file('x', 'y')",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_terminate_backend(1)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_sleep(100)",
        "SELECT query_to_xml('DELETE FROM x', true, true, '')",
        "SELECT PG_Reload_Conf()",
        "SELECT 1; DELETE FROM notes",
        "SET x = 1",
        "BEGIN",
        "LOCK TABLE notes",
        "SELECT id FROM notes -- ; DELETE",
        "SELECT /* x */ id FROM notes",
        "GRANT SELECT ON x TO y",
        "VACUUM",
        "LISTEN x",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
    ],
    "mysql": [
        "SELECT * FROM notes INTO OUTFILE '/tmp/x'",
        "SELECT * INTO OUTFILE '/tmp/x' FROM notes",
        "SELECT text INTO DUMPFILE '/tmp/x' FROM notes",
        "SELECT 1 INTO @a",
        "SELECT @a := 1",
        "SELECT * FROM notes FOR UPDATE",
        "SELECT * FROM notes LOCK IN SHARE MODE",
        "SELECT 1 /*! INTO OUTFILE '/tmp/x' */",
        "SELECT 1 /*!50000 ; DELETE FROM notes */",
        "SELECT 1 # x",
        "LOAD DATA INFILE 'x' INTO TABLE notes",
        "DO SLEEP(1)",
        "HANDLER notes OPEN",
        "SELECT GET_LOCK('a', 1)",
        "SELECT SLEEP(100)",
        "SELECT BENCHMARK(1000000, 1)",
        "SELECT load_file('/etc/passwd')",
        "SELECT sys_exec('x')",
        "REPLACE INTO notes VALUES (1)",
        "CALL clean()",
        "KILL 1",
        "SELECT * FROM notes PROCEDURE ANALYSE()",
    ],
    "tsql": [
        "SELECT * INTO copy FROM notes",
        "EXEC xp_cmdshell 'x'",
        "EXECUTE sp_who",
        "SELECT * FROM OPENROWSET('a', 'b', 'DELETE FROM x')",
        "SELECT * FROM OPENQUERY(srv, 'DELETE FROM x')",
        "SELECT * FROM notes WITH (TABLOCKX)",
        "SELECT * FROM notes WITH (UPDLOCK, HOLDLOCK)",
        "SELECT NEXT VALUE FOR s",
        "MERGE a USING b ON a.i = b.i WHEN MATCHED THEN DELETE;",
        "SELECT 1 DELETE FROM notes",
    ],
    "sqlite": [
        "ATTACH 'x' AS y",
        "PRAGMA user_version = 3",
        "SELECT load_extension('x')",
        "SELECT writefile('x', 'y')",
        "REPLACE INTO notes VALUES (1)",
    ],
}


@pytest.mark.parametrize(("dialect", "statement"), READING)
def test_what_reads_is_let_through_without_its_semicolon(dialect: str, statement: str) -> None:
    assert check_select(statement, "extract.notes", dialect) == statement.rstrip(";")


@pytest.mark.parametrize(
    ("dialect", "statement"), [(d, s) for d, found in DOING.items() for s in found]
)
def test_what_does_more_than_read_is_refused_in_one_sentence(dialect: str, statement: str) -> None:
    with pytest.raises(UserError, match=r"^extract\.notes: ") as refused:
        check_select(statement, "extract.notes", dialect)
    assert "\n" not in str(refused.value)


def test_tables_are_those_of_the_database_and_not_the_statements_own() -> None:
    statement = (
        "WITH n AS (SELECT * FROM ward.notes) SELECT * FROM n JOIN patients p ON p.id = "
        "n.patient JOIN generate_series(1, 3) g ON true"
    )
    assert sorted(tables(statement, "postgres")) == ["patients", "ward.notes"]
