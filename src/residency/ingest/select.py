"""One SELECT and nothing else: what a statement may be before a hospital's database is given it."""

from __future__ import annotations

import re

from residency.core.errors import UserError

DIALECTS = {
    "sqlite": "sqlite",
    "postgresql": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
    "mssql": "tsql",
    "oracle": "oracle",
}
"""SQLAlchemy's name -> sqlglot's."""

ACTING = re.compile(
    r"^(?:lo_\w+|loread|lowrite|dblink\w*|pg_(?:write|read|ls|stat_file|file|terminate|cancel|reload|rotate|switch|create|drop|promote|"
    r"logical|replication|advisory|try_advisory|wal_replay|backup|start_backup|stop_backup|export_snapshot|import|log_backend|notify|"
    r"sleep|logdir)\w*|set_config|nextval|setval|query_to_xml\w*|cursor_to_xml\w*|table_to_xml\w*|schema_to_xml\w*|database_to_xml\w*|"
    r"ts_stat|ts_rewrite|txid_current|xpath_table|crosstab\w*|connectby|"
    r"xp_\w+|sp_\w+|openrowset|openquery|opendatasource|sys_(?:exec|eval|set)\w*|load_file|load_extension|writefile|readfile|edit|"
    r"fts3_tokenizer|get_lock|release_lock|release_all_locks|sleep|benchmark|master_pos_wait|source_pos_wait|last_value_set|"
    r"next_value_for|nextvaluefor|utl_\w+|dbms_\w+)$",
    re.IGNORECASE,
)
"""Functions that change, lock, wait, run other statements, or reach for files and other servers."""

VERBS = frozenset(
    [
        "DELETE",
        "INSERT",
        "UPDATE",
        "MERGE",
        "DROP",
        "ALTER",
        "CREATE",
        "TRUNCATE",
        "GRANT",
        "REVOKE",
        "EXEC",
        "EXECUTE",
        "CALL",
    ]
)
"""Words that may only stand in a SELECT in quotation marks: SQL Server needs no semicolon between
two statements."""

LOCKING = frozenset(
    ["TABLOCK", "TABLOCKX", "XLOCK", "UPDLOCK", "HOLDLOCK", "PAGLOCK", "ROWLOCK", "SERIALIZABLE"]
)
"""Table hints of SQL Server that hold others up."""


DOING = [
    "DML",
    "Create",
    "Drop",
    "Alter",
    "Command",
    "Into",
    "Lock",
    "Set",
    "SetItem",
    "TruncateTable",
    "Copy",
    "LoadData",
    "Merge",
    "Kill",
    "Use",
    "Pragma",
    "Attach",
    "Detach",
    "Transaction",
    "Commit",
    "Rollback",
    "Grant",
    "Revoke",
    "Execute",
    "Analyze",
    "NextValueFor",
    "PropertyEQ",
]
"""sqlglot's names of expressions that do more than read."""


def check_select(statement: str, where: str, dialect: str = "") -> str:
    """The statement without its closing semicolon; raises ``UserError`` for whatever is not exactly
    one SELECT.

    ``dialect``: sqlglot's name. A comment is refused too: servers run what some comments hold
    (``/*! ... */``), and what is a comment to one is none to another.
    """
    import sqlglot

    try:
        tokens = sqlglot.tokenize(statement, read=dialect or None)
        found = [one for one in sqlglot.parse(statement, read=dialect or None) if one is not None]
    except (sqlglot.errors.SqlglotError, RecursionError):
        raise UserError(f"{where}: is not SQL that can be read; give one SELECT.") from None
    if any(token.comments for token in tokens) or "/*" in statement:
        raise UserError(
            f"{where}: holds a comment; take it out of the statement (the recipe has # for "
            "comments)."
        )
    quoted = ("STRING", "IDENTIFIER")
    if any(one.text.upper() in VERBS and one.token_type.name not in quoted for one in tokens):
        raise UserError(
            f"{where}: is not a plain SELECT; columns that are named like a change go into "
            "quotation marks."
        )
    if len(found) != 1:
        raise UserError(f"{where}: holds {len(found)} statements; give one SELECT.")
    if fault := _find_action(found[0]):
        raise UserError(
            f"{where}: is not a plain SELECT ({fault}); extraction only reads: give one SELECT "
            "without INTO, locks or changes."
        )
    return statement.strip().rstrip(";").strip()


def tables(statement: str, dialect: str = "") -> list[str]:
    """Tables that a checked statement names, as SQL."""
    import sqlglot
    from sqlglot import exp

    tree = sqlglot.parse_one(statement, read=dialect or None)
    own = {cte.alias_or_name.casefold() for cte in tree.find_all(exp.CTE)}
    found = dict.fromkeys(
        exp.Table(
            this=table.this.copy(),
            db=_copy(table.args.get("db")),
            catalog=_copy(table.args.get("catalog")),
        ).sql(dialect=dialect or None)
        for table in tree.find_all(exp.Table)
        if isinstance(table.this, exp.Identifier)
        and (table.args.get("db") or table.name.casefold() not in own)
    )
    return list(found)


def _copy(node: object) -> object:
    copied = getattr(node, "copy", None)
    return copied() if copied else None


def _find_action(tree: object) -> str:
    """What in a statement does more than read, or an empty string."""
    from sqlglot import exp

    if not isinstance(tree, exp.Query):
        return type(tree).__name__.upper()
    doing = tuple(getattr(exp, name) for name in DOING)
    for node in tree.walk():
        if isinstance(node, doing):
            return type(node).__name__.upper()
        if isinstance(node, exp.Func):
            own = "" if isinstance(node, exp.Anonymous) else getattr(node, "sql_name", str)()
            if acting := next((name for name in (node.name, own) if ACTING.match(name)), ""):
                return f"the function {acting.lower()}"
        if isinstance(node, exp.Dot) and ACTING.match(node.this.name):  # a package of Oracle
            return f"the package {node.this.name.lower()}"
        if isinstance(node, exp.Column) and node.table and node.name.lower() == "nextval":
            return "the function nextval"
        hints = node.expressions if isinstance(node, exp.WithTableHint) else ()
        if any(hint.name.upper() in LOCKING for hint in hints):
            return "a lock"
    return ""
