"""Notes out of a SQL database: one SELECT, streamed, by a login that cannot write, in a transaction
that may not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from residency.core.errors import DataError, GateRefused, UserError, allowed
from residency.ingest.login import find_write_access
from residency.ingest.rows import Labels, RowOutcome, note_of, note_of_lines
from residency.ingest.select import DIALECTS, check_select, tables
from residency.ingest.sources import Sql

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Dialect, Engine

T = TypeVar("T")
NO_MARK = "the row has no mark, or no id"
MOST_IN = 1000
"""Values that Oracle takes in one list."""


def connect(settings: Sql, root: Path) -> Engine:
    """An engine for the settings' database; nothing is opened yet. Raises ``UserError`` for a URL
    that is none (never shown)."""
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    text = settings.url
    if text.startswith("env:"):
        text = os.environ.get(text[4:], "")
        if not text:
            raise UserError(
                f"extract.url: the environment variable {settings.url[4:]} is not set; it must "
                "hold the database's URL."
            )
    try:
        url = make_url(text)
        if url.get_backend_name() == "sqlite":
            path = (root / (url.database or "")).resolve()
            if not path.is_file():
                raise UserError(f"extract.url: {path} does not exist; give the database's file.")
            return create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
        return create_engine(url, pool_pre_ping=False, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError):
        raise UserError(
            "extract.url: is not a database URL that can be used; e.g. "
            "postgresql+psycopg://user@host/name in env:NAME, with the driver installed."
        ) from None


@contextmanager
def open_to_read(engine: Engine, settings: Sql, asked: list[str]) -> Iterator[Connection]:
    """A connection in a read-only transaction, its login tried on the tables that are asked for.

    Raises ``GateRefused`` for a login that can write, ``UserError`` where the database cannot be
    reached or goes away.
    """
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    readonly = {
        "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "mysql": "SET SESSION TRANSACTION READ ONLY",
        "mariadb": "SET SESSION TRANSACTION READ ONLY",
        "sqlite": "PRAGMA query_only = ON",
        "oracle": "SET TRANSACTION READ ONLY",
    }  # SQL Server has no such mode: there the login's rights alone hold
    try:
        with engine.connect() as connection:
            if statement := readonly.get(engine.dialect.name):
                connection.execute(text(statement))
                if engine.dialect.name != "oracle":  # there it holds for this transaction alone
                    connection.commit()
            if not settings.writing_login and (why := find_write_access(connection, asked)):
                raise GateRefused(
                    f"extract.url: this login can write to the hospital's database ({why}); use "
                    "one with SELECT alone, "
                    "or set extract.writing_login to true and say why in your records."
                )
            yield connection
            connection.rollback()
    except DBAPIError as error:
        lost = " or the connection was lost" if error.connection_invalidated else ""
        raise UserError(
            f"extract: the database refused ({type(error.orig).__name__}){lost}; check the server, "
            "the login and the names in the statement, then run again: it goes on where it was."
        ) from None
    except SQLAlchemyError as error:
        raise UserError(f"extract: the database cannot be used ({type(error).__name__}).") from None


def notes(settings: Sql, root: Path, mark: tuple[str, str] | None = None) -> Iterator[RowOutcome]:
    """What became of each row from a mark on (that mark's own rows included), in the order of
    marks; constant memory.

    Raises ``UserError`` for a statement that is not a SELECT, a missing column or a database that
    cannot be reached.
    """
    from sqlalchemy import text

    engine = connect(settings, root)
    dialect = DIALECTS.get(engine.dialect.name, "")
    inner = check_select(settings.notes, "extract.notes", dialect)
    labels = check_select(settings.labels, "extract.labels", dialect) if settings.labels else ""
    asked = [table for one in (inner, labels) if one for table in tables(one, dialect)]
    column = settings.mark or settings.columns.id
    try:
        with open_to_read(engine, settings, asked) as connection:
            _check_columns(connection, inner, settings)
            if missing := _unmarked(connection, inner, settings):
                yield RowOutcome(skipped=NO_MARK, rows=missing)
            statement = order_by_mark(
                inner,
                quoting(engine.dialect),
                settings,
                mark is not None,
            )
            result = connection.execution_options(
                stream_results=True, yield_per=settings.fetch
            ).execute(text(statement), {"mark": behind(mark, settings.again)} if mark else {})
            with _labels(engine, settings, labels) as labels_of, _let_go(result):
                names = list(map(str, result.keys()))
                groups = (
                    [dict(zip(names, row, strict=True)) for row in group]
                    for group in result.partitions(settings.fetch)
                )
                if settings.columns.line:
                    yield from _lined(groups, settings, column, labels_of)
                    return

                def outcomes(group: Sequence[Mapping[str, Any]]) -> list[RowOutcome]:
                    labelled = labels_of([row[settings.columns.id] for row in group])
                    return [note_of(r, settings, "", labelled, mark_of(r[column])) for r in group]

                yield from chain.from_iterable(ahead(map(outcomes, groups)))
    finally:
        engine.dispose()


def ahead(groups: Iterator[T]) -> Iterator[T]:
    """What an iterator gives, the next one made in a thread meanwhile: the server and its answers
    do not wait for what is done with a group, nor that for them."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, groups, None)
        while (group := coming.result()) is not None:
            coming = thread.submit(next, groups, None)
            yield group


def _lined(
    groups: Iterable[Sequence[Mapping[str, Any]]],
    settings: Sql,
    column: str,
    labels_of: Callable[[Sequence[Any]], Labels],
) -> Iterator[RowOutcome]:
    """Notes of which every line is a row, the rows of a note behind one another. Marks lie in
    another order, so the source is read so far only at its end."""
    last = None
    for id, lines in groupby(chain.from_iterable(groups), key=itemgetter(settings.columns.id)):
        note = list(lines)
        marks = (row[column] for row in note)
        last = max((*marks, last) if last is not None else marks)
        yield note_of_lines(note, settings, "", labels_of([id]))
    if last is not None:
        yield RowOutcome(rows=0, mark=mark_of(last))


def merges(settings: Sql, root: Path) -> dict[str, str]:
    """Patient -> into, as the statement ``extract.merges`` gives them."""
    from sqlalchemy import text

    engine = connect(settings, root)
    dialect = DIALECTS.get(engine.dialect.name, "")
    statement = check_select(settings.merges, "extract.merges", dialect)
    try:
        with open_to_read(engine, settings, tables(statement, dialect)) as connection:
            rows = connection.execute(text(escape_colons(statement))).fetchall()
    finally:
        engine.dispose()
    if any(len(row) != 2 or None in row for row in rows):
        raise UserError("extract.merges: must give two columns, patient and into, none empty.")
    return {str(patient): str(into) for patient, into in rows}


@contextmanager
def _let_go(result: CursorResult[Any]) -> Iterator[None]:
    """PyMySQL reads what is left of a stream when it is forgotten, and complains on the terminal
    where the connection is gone."""
    stream = getattr(result.cursor, "_result", None)
    try:
        yield
    except BaseException:
        if stream is not None and hasattr(stream, "unbuffered_active"):
            stream.unbuffered_active = False
        raise


def order_by_mark(inner: str, quote: Any, settings: Sql, resumed: bool) -> str:
    """The statement that is sent: the user's, from a mark on, in the order of marks."""
    mark, id = quote(settings.mark or settings.columns.id), quote(settings.columns.id)
    beyond = f"{mark} >= :mark" if resumed else f"{mark} IS NOT NULL"
    both = "" if mark == id else f" AND {id} IS NOT NULL"
    order = mark if mark == id else f"{mark}, {id}"
    if settings.columns.line:  # of a note that has changed all lines are wanted
        ids = f"SELECT {id} FROM ({escape_colons(inner)}\n) changed WHERE {beyond}{both}"
        beyond, both, order = f"{id} IN ({ids})", f" AND {mark} IS NOT NULL", id
    return f"SELECT * FROM ({escape_colons(inner)}\n) taken WHERE {beyond}{both} ORDER BY {order}"


def quoting(dialect: Dialect) -> Callable[[str], str]:
    """How a column is named in a statement. Oracle gives names without quotation marks in capitals,
    SQLAlchemy gives these back in small letters: in quotation marks they would not be found."""
    names = dialect.identifier_preparer
    return names.quote if dialect.requires_name_normalize else names.quote_identifier


def escape_colons(statement: str) -> str:
    """A statement whose colons are no parameters."""
    return statement.replace(":", r"\:")


def mark_of(value: Any) -> tuple[str, str]:
    """A mark as (type, value), so that it comes back as what it was; raises ``DataError`` for a
    type that cannot be kept."""
    if isinstance(value, bool | int | float | str | Decimal | UUID):
        return type(value).__name__, str(value)
    if isinstance(value, datetime | date):
        return type(value).__name__, value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes", bytes(value).hex()
    raise DataError(
        f"extract.mark: holds a {type(value).__name__}; take a column of numbers, times or text."
    )


def behind(mark: tuple[str, str], by: float) -> Any:
    """A mark that lies so far before one (days, where it is a time), as the database takes it;
    raises ``UserError`` where marks are neither numbers nor times."""
    value = value_of(mark)
    if not by:
        return value
    if isinstance(value, datetime | date):
        return value - timedelta(days=by)
    if isinstance(value, Decimal):
        return value - Decimal(by)
    if isinstance(value, int | float):
        return value - by
    try:
        time = datetime.fromisoformat(value) - timedelta(days=by)
    except (TypeError, ValueError):
        raise UserError(
            "extract.again: marks are neither numbers nor times, so nothing lies behind one; take "
            "another column as extract.mark, or leave it out."
        ) from None
    if len(value) == len("2024-05-01"):
        return time.date().isoformat()
    return time.isoformat(sep=value[10])


def value_of(mark: tuple[str, str]) -> Any:
    """The mark as the database takes it."""
    return KINDS.get(mark[0], str)(mark[1])


KINDS: dict[str, Callable[[str], Any]] = {
    "bool": "True".__eq__,
    "int": int,
    "float": float,
    "Decimal": Decimal,
    "UUID": UUID,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "bytes": bytes.fromhex,
}
"""Type of a mark -> what makes it of its text."""


def _check_columns(connection: Connection, inner: str, settings: Sql) -> None:
    from sqlalchemy import text

    present = list(
        connection.execute(
            text(f"SELECT * FROM ({escape_colons(inner)}\n) taken WHERE 1 = 0")
        ).keys()
    )
    wanted = settings.wanted() | ({"extract.mark": settings.mark} if settings.mark else {})
    for where, column in wanted.items():
        if column not in present:
            raise UserError(
                f"{where}: the statement gives no column {column!r}; {allowed(present, column)}."
            )


def _unmarked(connection: Connection, inner: str, settings: Sql) -> int:
    """Rows that cannot be put in order: they are never taken, and counted each time."""
    from sqlalchemy import text

    quote = quoting(connection.dialect)
    names = dict.fromkeys(quote(name) for name in (settings.mark, settings.columns.id) if name)
    none = " OR ".join(f"{name} IS NULL" for name in names)
    return int(
        connection.execute(
            text(f"SELECT count(*) FROM ({escape_colons(inner)}\n) taken WHERE {none}")
        ).scalar()
        or 0
    )


@contextmanager
def _labels(
    engine: Engine, settings: Sql, statement: str
) -> Iterator[Callable[[Sequence[Any]], Labels]]:
    """What gives the labels of some notes: note -> (start, stop, label); offsets count code points
    of the text as it is stored.

    A connection of its own: the first one is in the middle of its rows.
    """
    from sqlalchemy import bindparam, text

    if not statement:
        yield lambda ids: {}
        return
    with open_to_read(engine, settings, []) as connection:
        first = connection.execute(
            text(f"SELECT * FROM ({escape_colons(statement)}\n) marked WHERE 1 = 0")
        )
        names = list(first.keys())
        if len(names) != 4:
            raise UserError("extract.labels: must give four columns: note, start, stop and label.")
        note = quoting(engine.dialect)(names[0])
        asked = text(
            f"SELECT * FROM ({escape_colons(statement)}\n) marked WHERE {note} IN :ids"
        ).bindparams(bindparam("ids", expanding=True))

        def of(ids: Sequence[Any]) -> Labels:
            found: Labels = {}
            groups = (ids[at : at + MOST_IN] for at in range(0, len(ids), MOST_IN))
            for row in chain.from_iterable(
                connection.execute(asked, {"ids": list(group)}) for group in groups
            ):
                try:
                    found.setdefault(str(row[0]), []).append(
                        (int(row[1]), int(row[2]), str(row[3]))
                    )
                except (TypeError, ValueError):
                    raise UserError(
                        "extract.labels: start and stop must be whole numbers; check its columns."
                    ) from None
            return found

        yield of
