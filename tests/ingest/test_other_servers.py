"""Oracle and SQL Server by the statements that they are sent: a stand-in for their drivers answers,
for no such server stands here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import sqlglot

from residency.core.errors import GateRefused, UserError
from residency.ingest import sql
from residency.ingest.login import MSSQL, ORACLE
from residency.ingest.select import DIALECTS, check_select
from residency.ingest.sources import Sql

DAY = datetime(2026, 5, 1, 9, 30)
ROWS = [("N1", "P1", "Sốt cao", DAY), ("N2", "P2", "Ho 😀", DAY)]
NOTES = "SELECT id, patient, text, changed_at FROM his.notes"


class Driver:
    """What SQLAlchemy needs of a driver, with one answer for each kind of statement."""

    paramstyle = "named"
    version = __version__ = "3.0.0"
    apilevel, threadsafety = "2.0", 1

    def __init__(self, dialect: str, why: str = "") -> None:
        self.dialect, self.why = dialect, why
        self.sent: list[tuple[str, Any]] = []
        self.commits = 0
        self.paramstyle = "named" if dialect == "oracle" else "qmark"
        for name in ("Error", "DatabaseError", "InterfaceError", "OperationalError"):
            setattr(self, name, type(name, (Exception,), {}))

    def __getattr__(self, name: str) -> Any:
        """Types that a dialect names."""
        if name.startswith("_"):
            raise AttributeError(name)
        return type(name, (), {})

    def makedsn(self, *given: Any, **named: Any) -> str:
        """Oracle's name of a server."""
        return "server"

    def connect(self, *given: Any, **named: Any) -> Connection:
        return Connection(self)


class Connection:
    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.outputtypehandler = self.inputtypehandler = None
        self.autocommit, self.version = False, "19.0.0"

    def cursor(self) -> Cursor:
        return Cursor(self.driver)

    def commit(self) -> None:
        self.driver.commits += 1

    def rollback(self) -> None: ...

    def close(self) -> None: ...


class Cursor:
    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.arraysize, self.rowcount, self.lastrowid = 1, -1, None
        self.description: list[tuple[Any, ...]] | None = None
        self.left: Iterator[Any] = iter(())

    def execute(self, statement: str, given: Any = None) -> None:
        self.driver.sent.append((statement, given))
        names, rows = self.answer(statement)
        self.description = [(name, str, None, None, None, None, True) for name in names]
        self.left = iter(rows)
        if not names:
            self.description = None

    def answer(self, statement: str) -> tuple[list[str], list[Any]]:
        named = ["ID", "PATIENT", "TEXT", "CHANGED_AT"]
        named = named if self.driver.dialect == "oracle" else [name.lower() for name in named]
        if statement.strip() in (MSSQL.strip(), ORACLE.strip()):
            return ["WHY"], [(self.driver.why,)]
        if statement.startswith("SET"):
            return [], []
        if "count(*)" in statement:
            return ["N"], [(0,)]
        return named, [] if "1 = 0" in statement else ROWS

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return [row for _, row in zip(range(size or self.arraysize), self.left, strict=False)]

    def fetchall(self) -> list[Any]:
        return list(self.left)

    def fetchone(self) -> Any:
        return next(self.left, None)

    def setinputsizes(self, *given: Any, **named: Any) -> None: ...

    def close(self) -> None: ...


URLS = {"oracle": "oracle+oracledb://reader@host/his", "mssql": "mssql+pyodbc://reader@server_name"}


def taken(
    monkeypatch: pytest.MonkeyPatch,
    dialect: str,
    mark: tuple[str, str] | None = None,
    why: str = "",
) -> tuple[Driver, list[Any]]:
    driver = Driver(dialect, why)
    made = sqlalchemy.create_engine(URLS[dialect], module=driver, _initialize=False)
    monkeypatch.setattr(sql, "connect", lambda settings, root: made)
    settings = Sql(url="env:X", notes=NOTES, mark="changed_at", lang="vi")
    return driver, list(sql.notes(settings, Path(), mark))


@pytest.mark.parametrize("dialect", URLS)
def test_notes_come_out_as_the_driver_gives_them(
    monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    _, found = taken(monkeypatch, dialect)
    assert [(one.note.id, one.note.patient, one.note.text) for one in found] == [
        row[:3] for row in ROWS
    ]
    assert {one.mark for one in found} == {("datetime", DAY.isoformat())}


@pytest.mark.parametrize("dialect", URLS)
def test_each_statement_that_is_sent_is_the_servers_own_sql_and_reads_alone(
    monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    driver, _ = taken(monkeypatch, dialect, ("datetime", DAY.isoformat()))
    statements = [statement for statement, _ in driver.sent if not statement.startswith("SET")]
    assert len(statements) == 4  # rights, columns, rows without a mark, notes
    for statement in statements:
        assert check_select(statement, "sent", DIALECTS[dialect])
        assert not re.search(r"\)\s+AS\s+\w+\s+WHERE", statement)  # no alias of a table for Oracle
    (name, given) = driver.sent[-1]
    wanted = {
        "oracle": "WHERE changed_at >= :mark AND id IS NOT NULL ORDER BY changed_at, id",
        "mssql": "WHERE [changed_at] >= ? AND [id] IS NOT NULL ORDER BY [changed_at], [id]",
    }
    assert name.endswith(wanted[dialect])
    assert given == {"oracle": {"mark": DAY}, "mssql": (DAY,)}[dialect]


def test_oracle_reads_in_one_transaction_that_may_not_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver, _ = taken(monkeypatch, "oracle")
    assert driver.sent[0][0] == "SET TRANSACTION READ ONLY"
    assert driver.commits == 0  # a commit would end it


@pytest.mark.parametrize("dialect", URLS)
def test_a_login_that_can_write_is_refused_with_what_the_server_said(
    monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    with pytest.raises(GateRefused, match=r"can write .* \(it owns tables\)"):
        taken(monkeypatch, dialect, why="it owns tables")


@pytest.mark.parametrize("name", ["oracle", "tsql"])
def test_the_question_for_rights_is_one_select(name: str) -> None:
    statement = {"oracle": ORACLE, "tsql": MSSQL}[name]
    assert len(sqlglot.parse(statement, read=name)) == 1
    assert check_select(statement, "rights", name)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT id FROM notes FOR UPDATE",
        "BEGIN DELETE FROM notes; END;",
        "SELECT utl_http.request('http://x') FROM dual",
        "SELECT dbms_pipe.receive_message('x', 10) FROM dual",
        "SELECT seq.nextval FROM dual",
        "MERGE INTO notes USING x ON (1 = 1) WHEN MATCHED THEN UPDATE SET a = 1",
    ],
)
def test_a_statement_of_oracle_that_does_more_than_read_is_refused(statement: str) -> None:
    with pytest.raises(UserError):
        check_select(statement, "extract.notes", "oracle")
