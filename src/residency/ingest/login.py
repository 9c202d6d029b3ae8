"""Whether a login can write: what the server's catalogue says, and what the server answers when it
is asked to plan a change.

Nothing here changes or creates anything, or holds others up: ``EXPLAIN DELETE ... WHERE 1 = 0`` is
planned, its rights are checked, and nothing is run; it is asked in a savepoint that is rolled back,
inside a transaction that may only read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

POSTGRESQL = """
WITH mine AS (SELECT r.* FROM pg_roles r WHERE pg_has_role(current_user, r.oid, 'MEMBER')),
  spaces AS (SELECT oid, nspname FROM pg_namespace WHERE nspname NOT IN ('pg_catalog',
      'information_schema') AND nspname !~ '^pg_(toast|temp)'),
  things AS (SELECT c.oid, c.relkind, c.relowner FROM pg_class c JOIN spaces s ON s.oid =
      c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S'))
SELECT CASE
  WHEN EXISTS (SELECT 1 FROM mine WHERE rolsuper) THEN 'it is a superuser, or may become one'
  WHEN EXISTS (SELECT 1 FROM mine WHERE rolcreaterole OR rolcreatedb) THEN
      'it may create roles or databases'
  WHEN EXISTS (SELECT 1 FROM mine WHERE rolname IN ('pg_write_all_data', 'pg_write_server_files',
      'pg_execute_server_program', 'pg_maintain'))
    THEN 'it is in a role that writes'
  WHEN EXISTS (SELECT 1 FROM things t JOIN mine m ON t.relowner = m.oid) THEN 'it owns tables'
  WHEN EXISTS (SELECT 1 FROM pg_database d JOIN mine m ON d.datdba = m.oid WHERE d.datname =
      current_database()) THEN 'it owns the database'
  WHEN EXISTS (SELECT 1 FROM mine m WHERE has_database_privilege(m.oid, current_database(),
      'CREATE')) THEN 'it may create schemas'
  WHEN EXISTS (SELECT 1 FROM mine m, spaces s WHERE has_schema_privilege(m.oid, s.oid, 'CREATE'))
      THEN 'it may create tables in a schema'
  WHEN EXISTS (SELECT 1 FROM things t, mine m WHERE CASE WHEN t.relkind = 'S' THEN
      has_sequence_privilege(m.oid, t.oid, 'USAGE, UPDATE')
    ELSE has_table_privilege(m.oid, t.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
      OR has_any_column_privilege(m.oid, t.oid, 'INSERT, UPDATE') END) THEN 'it may change tables'
  ELSE '' END
"""

MSSQL = """
SELECT CASE
  WHEN IS_SRVROLEMEMBER('sysadmin') = 1 OR IS_MEMBER('db_owner') = 1 THEN 'it is an administrator'
  WHEN IS_MEMBER('db_datawriter') = 1 OR IS_MEMBER('db_ddladmin') = 1 OR
      IS_MEMBER('db_securityadmin') = 1 THEN 'it is in a role that writes'
  WHEN EXISTS (SELECT 1 FROM fn_my_permissions(NULL, 'SERVER') WHERE permission_name NOT IN
    ('CONNECT SQL', 'CONNECT ANY DATABASE', 'SELECT ALL USER SECURABLES') AND
    permission_name NOT LIKE 'VIEW %') THEN 'it has rights on the server beyond reading'
  WHEN EXISTS (SELECT 1 FROM fn_my_permissions(NULL, 'DATABASE') WHERE permission_name NOT IN
    ('CONNECT', 'SELECT', 'SHOWPLAN') AND permission_name NOT LIKE 'VIEW %')
    THEN 'it has rights in the database beyond reading'
  WHEN EXISTS (SELECT 1 FROM sys.objects o CROSS APPLY
      fn_my_permissions(QUOTENAME(SCHEMA_NAME(o.schema_id)) + '.' + QUOTENAME(o.name), 'OBJECT') p
    WHERE o.type IN ('U', 'V') AND p.permission_name IN ('INSERT', 'UPDATE', 'DELETE', 'ALTER',
    'CONTROL', 'TAKE OWNERSHIP') OR o.type IN ('P', 'PC', 'X') AND p.permission_name = 'EXECUTE')
    THEN 'it may change tables or run procedures'
  ELSE '' END
"""

ORACLE = """
WITH system AS (SELECT privilege FROM session_privs UNION SELECT privilege FROM role_sys_privs),
  own AS (SELECT username FROM all_users WHERE oracle_maintained = 'N'),
  mine AS (SELECT privilege, grantable FROM all_tab_privs WHERE table_schema IN
      (SELECT username FROM own) AND (grantee IN (USER, 'PUBLIC') OR grantee IN
      (SELECT role FROM session_roles))
    UNION ALL SELECT privilege, grantable FROM all_col_privs WHERE table_schema IN
      (SELECT username FROM own) AND (grantee IN (USER, 'PUBLIC') OR grantee IN
      (SELECT role FROM session_roles))
    UNION ALL SELECT privilege, grantable FROM role_tab_privs WHERE owner IN
      (SELECT username FROM own))
SELECT CASE
  WHEN EXISTS (SELECT 1 FROM system WHERE privilege NOT IN ('CREATE SESSION', 'READ ANY TABLE',
      'SELECT ANY TABLE', 'SELECT ANY DICTIONARY', 'SET CONTAINER'))
    THEN 'it has system privileges beyond reading'
  WHEN EXISTS (SELECT 1 FROM user_objects) THEN 'it owns tables or other objects'
  WHEN EXISTS (SELECT 1 FROM mine WHERE privilege NOT IN ('SELECT', 'READ', 'FLASHBACK',
      'QUERY REWRITE', 'INHERIT PRIVILEGES')) THEN 'it may change tables or run procedures'
  WHEN EXISTS (SELECT 1 FROM mine WHERE grantable = 'YES') THEN 'it may hand out rights'
  ELSE '' END FROM dual
"""
"""Of roles those count too that the login may take on and has not (``role_sys_privs``,
``role_tab_privs``). A plan of a deletion is not asked for: the server writes it into a table."""

HIDDEN = "hidden"
READING = frozenset(
    [
        "USAGE",
        "SELECT",
        "SHOW VIEW",
        "SHOW DATABASES",
        "PROCESS",
        "REPLICATION CLIENT",
        "BINLOG MONITOR",
        "SLAVE MONITOR",
        "REPLICA MONITOR",
        "SHOW CREATE ROUTINE",
    ]
)
"""Rights of MariaDB and MySQL that change nothing; a login with any other (EXECUTE and FILE among
them) is refused."""


def find_write_access(connection: Connection, tables: Iterable[str]) -> str:
    """Why a login can write, or an empty string. ``tables``: those that are read, as SQL."""
    from sqlalchemy import text

    dialect = connection.engine.dialect.name
    if dialect == "postgresql":
        found = str(connection.execute(text(POSTGRESQL)).scalar() or "")
    elif dialect in ("mysql", "mariadb"):
        found = find_granted(lambda asked: _shown(connection, asked))
    elif dialect in ("mssql", "oracle"):
        asked = {"mssql": MSSQL, "oracle": ORACLE}[dialect]
        return str(connection.execute(text(asked)).scalar() or "")
    elif dialect == "sqlite":
        return ""  # the file itself is opened for reading only
    else:
        return f"what it may do cannot be read from {dialect}"
    return found or plan_deletions(connection, tables)


def _shown(connection: Connection, asked: str) -> list[str]:
    """Lines of a SHOW statement; a role that is not taken on yet hides its rights."""
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    try:
        return [str(row[0]) for row in connection.execute(text(asked.replace(":", r"\:")))]
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return [HIDDEN]


def plan_deletions(connection: Connection, tables: Iterable[str]) -> str:
    """Ask the server to plan, not to run, the deletion of no row of each table; it answers whether
    the login might."""
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    for table in tables:
        escaped = table.replace(":", r"\:")
        nested = connection.begin_nested()
        try:
            connection.execute(text(f"EXPLAIN DELETE FROM {escaped} WHERE 1 = 0")).close()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            nested.rollback()
        else:
            nested.rollback()
            return "the server would let it delete rows"
    return ""


def find_granted(ask: Callable[[str], list[str]]) -> str:
    """Why the grants of MariaDB or MySQL let a login write, roles included, or an empty string.
    ``ask`` runs a SHOW statement."""
    lines, seen = ask("SHOW GRANTS"), set()
    while lines:
        line = lines.pop()
        if role := re.match(r"GRANT (.+?) TO (?!.*\bON\b)", line) if " ON " not in line else None:
            for name in split(role[1]):
                if name not in seen:
                    seen.add(name)
                    lines += ask(f"SHOW GRANTS FOR {name}")
            continue
        if line == HIDDEN:
            return "it may take on a role whose rights cannot be read"
        found = re.match(r"GRANT (.+?) ON (.+?) TO ", line)
        if found is None:
            if re.match(r"SET DEFAULT ROLE ", line):
                continue
            return "it has rights that cannot be read"
        rights = [re.sub(r"\s*\(.*\)$", "", right).strip().upper() for right in split(found[1])]
        if beyond := next((right for right in rights if right not in READING), ""):
            return f"it has the right {beyond}"
        if line.rstrip().upper().endswith("WITH GRANT OPTION"):
            return "it may hand out rights"
    return ""


def split(text: str) -> Iterator[str]:
    """Parts between commas that stand outside brackets and quotation marks."""
    depth, quote, start = 0, "", 0
    for position, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "`'\"":
            quote = sign
        elif sign in "()":
            depth += 1 if sign == "(" else -1
        elif sign == "," and not depth:
            yield text[start:position].strip()
            start = position + 1
    yield text[start:].strip()
