"""Notes out of a SQL database: one SELECT, streamed, by a login that cannot write, in a transaction that may not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residency.core.errors import DataError, GateRefused, UserError, allowed
from residency.core.types import RawNote, Span, Value
from residency.ingest.settings import Extract

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

DIALECTS = {"sqlite": "sqlite", "postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql", "mssql": "tsql"}
"""SQLAlchemy's name -> sqlglot's."""


class Place(Value, frozen=True):
    """How far an extraction is: the mark and the id of the last note that was taken."""

    mark: Any = None
    id: Any = None


def check_select(statement: str, where: str, dialect: str = "") -> str:
    """The statement without its closing semicolon; raises ``UserError`` for whatever is not exactly one SELECT."""
    import sqlglot
    from sqlglot import exp

    try:
        found = [one for one in sqlglot.parse(statement, read=dialect or None) if one is not None]
    except sqlglot.errors.SqlglotError:
        raise UserError(f"{where}: is not SQL that can be read; give one SELECT.") from None
    if len(found) != 1:
        raise UserError(f"{where}: holds {len(found)} statements; give one SELECT.")
    writing = (
        exp.Insert,
        exp.Update,
        exp.Delete,
        exp.Merge,
        exp.Create,
        exp.Drop,
        exp.Alter,
        exp.Command,
        exp.Into,
        exp.Lock,
        exp.Set,
        exp.TruncateTable,
    )
    if not isinstance(found[0], exp.Query) or any(True for _ in found[0].find_all(*writing)):
        raise UserError(
            f"{where}: is not a plain SELECT; extraction only reads: give one SELECT without INTO, locks or changes."
        )
    return statement.strip().rstrip(";").strip()


def connect(settings: Extract, root: Path) -> Engine:
    """An engine for the settings' database; nothing is opened yet. Raises ``UserError`` for a URL that is none (never shown)."""
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    text = settings.url
    if text.startswith("env:"):
        text = os.environ.get(text[4:], "")
        if not text:
            raise UserError(
                f"extract.url: the environment variable {settings.url[4:]} is not set; it must hold the database's URL."
            )
    try:
        url = make_url(text)
        if url.get_backend_name() == "sqlite":
            path = (root / (url.database or "")).resolve()
            if not path.is_file():
                raise UserError(f"extract.url: {path} does not exist; give the database's file.")
            return create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
        return create_engine(url, pool_pre_ping=False)
    except (ArgumentError, NoSuchModuleError, ImportError):
        raise UserError(
            "extract.url: is not a database URL that can be used; e.g. postgresql+psycopg://user@host/name in env:NAME."
        ) from None


@contextmanager
def reading(engine: Engine, settings: Extract) -> Iterator[Connection]:
    """A connection in a read-only transaction, its login tried.

    Raises ``GateRefused`` for a login that can write, ``UserError`` where the database cannot be reached or goes away.
    """
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        with engine.connect() as connection:
            dialect = engine.dialect.name
            if dialect == "postgresql":
                connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
                connection.commit()
            elif dialect in ("mysql", "mariadb"):
                connection.execute(text("SET SESSION TRANSACTION READ ONLY"))
                connection.commit()
            elif dialect == "sqlite":
                connection.execute(text("PRAGMA query_only = ON"))
            if not settings.writing_login and can_write(connection, dialect):
                raise GateRefused(
                    "extract.url: this login can write to the hospital's database; use one with SELECT alone, "
                    "or set extract.writing_login to true and say why in your records."
                )
            yield connection
            connection.rollback()
    except DBAPIError as error:
        lost = " or the connection was lost" if error.connection_invalidated else ""
        raise UserError(
            f"extract: the database refused ({type(error.orig).__name__}){lost}; check the server, the login and the names in the statement, then run again: it goes on where it was."
        ) from None
    except SQLAlchemyError as error:
        raise UserError(f"extract: the database cannot be used ({type(error).__name__}).") from None


def can_write(connection: Connection, dialect: str) -> bool:
    """Whether the login has any right to change data, as the server's own catalogue says."""
    from sqlalchemy import text

    if dialect == "postgresql":
        asked = text(
            "SELECT bool_or(has_table_privilege(c.oid, 'INSERT') OR has_table_privilege(c.oid, 'UPDATE') OR has_table_privilege(c.oid, 'DELETE')) "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_temp%'"
        )
        return bool(connection.execute(asked).scalar())
    if dialect in ("mysql", "mariadb"):
        grants = " ".join(str(row[0]).upper() for row in connection.execute(text("SHOW GRANTS")))
        return any(
            right in grants for right in ("ALL PRIVILEGES", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER")
        )
    if dialect == "mssql":
        asked = text(
            "SELECT HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'INSERT') + HAS_PERMS_BY_NAME(DB_NAME(), 'DATABASE', 'UPDATE')"
        )
        return bool(connection.execute(asked).scalar())
    return False  # SQLite: the file itself is opened for reading only


def notes(settings: Extract, root: Path, after: Place = Place()) -> Iterator[tuple[RawNote, Place]]:
    """Notes beyond a place, in the order of mark and id, each with its own place; constant memory.

    Raises ``UserError`` for a statement that is not a SELECT, a missing column or a database that cannot be reached.
    """
    from sqlalchemy import text

    engine = connect(settings, root)
    dialect = DIALECTS.get(engine.dialect.name, "")
    inner = check_select(settings.notes, "extract.notes", dialect)
    labels = check_select(settings.labels, "extract.labels", dialect) if settings.labels else ""
    quote = engine.dialect.identifier_preparer.quote_identifier
    mark, id = quote(settings.mark or settings.columns.id), quote(settings.columns.id)
    beyond = f" WHERE {mark} > :mark OR ({mark} = :mark AND {id} > :id)" if after.id is not None else ""
    statement = text(f"SELECT * FROM ({inner}) AS taken{beyond} ORDER BY {mark}, {id}")
    values = {"mark": after.mark, "id": after.id} if beyond else {}
    try:
        with reading(engine, settings) as connection:
            _check_columns(connection, inner, settings)
            marked = _labels(connection, labels) if labels else {}
            result = connection.execution_options(stream_results=True, yield_per=settings.fetch).execute(
                statement, values
            )
            for row in result.mappings():
                yield (
                    _note({str(name): value for name, value in row.items()}, settings, marked),
                    Place(row[settings.mark or settings.columns.id], row[settings.columns.id]),
                )
    finally:
        engine.dispose()


def _check_columns(connection: Connection, inner: str, settings: Extract) -> None:
    from sqlalchemy import text

    present = list(connection.execute(text(f"SELECT * FROM ({inner}) AS taken WHERE 1 = 0")).keys())
    wanted = {f"extract.columns.{name}": column for name, column in settings.columns if column}
    wanted |= {f"extract.identifiers.{kind}": column for kind, column in settings.columns_of()}
    if settings.mark:
        wanted["extract.mark"] = settings.mark
    for where, column in wanted.items():
        if column not in present:
            raise UserError(f"{where}: the statement gives no column {column!r}; {allowed(present, column)}.")


def _labels(connection: Connection, statement: str) -> dict[str, list[tuple[int, int, str]]]:
    """Note -> (start, stop, label); offsets count code points of the text as it is stored."""
    from sqlalchemy import text

    found: dict[str, list[tuple[int, int, str]]] = {}
    for row in connection.execute(text(statement)):
        if len(row) != 4:
            raise UserError("extract.labels: must give four columns: note, start, stop and label.")
        found.setdefault(str(row[0]), []).append((int(row[1]), int(row[2]), str(row[3])))
    return found


def _note(row: Mapping[str, Any], settings: Extract, marked: Mapping[str, list[tuple[int, int, str]]]) -> RawNote:
    columns = settings.columns
    id, written = str(row[columns.id]), row[columns.written_at] if columns.written_at else None
    text = str(row[columns.text] or "")
    spans = []
    for start, stop, label in marked.get(id, ()):
        if not 0 <= start < stop <= len(text):
            raise DataError(
                f"extract.labels: a label of a note lies outside its text (characters {start} to {stop} of {len(text)}); check the offsets."
            )
        spans.append(Span(start=start, end=stop, label=label, quote=text[start:stop]))
    return RawNote(
        id=id,
        patient="" if row[columns.patient] is None else str(row[columns.patient]),
        text=text,
        lang=str(row[columns.lang] or "") if columns.lang else settings.lang,
        kind=str(row[columns.kind] or "") if columns.kind else "",
        written_at=_when(written),
        spans=tuple(spans),
        identifiers=tuple(
            (kind, str(row[column])) for kind, column in settings.columns_of() if row[column] not in (None, "")
        ),
    )


def _when(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    try:
        return datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None
