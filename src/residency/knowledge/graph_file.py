"""A graph's file: one SQLite database, whose tables (``TABLES``) are its format; other programs may
read and write it."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from residency.core.errors import DataError, UserError
from residency.core.files import atomic_path
from residency.core.types import Value
from residency.knowledge.graph import Fact, Graph, Node

TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE nodes (id TEXT PRIMARY KEY, kind TEXT NOT NULL);
CREATE TABLE names (node TEXT NOT NULL, lang TEXT NOT NULL, place INTEGER NOT NULL,
                    name TEXT NOT NULL, PRIMARY KEY (node, lang, name));
CREATE TABLE codes (node TEXT NOT NULL, system TEXT NOT NULL, code TEXT NOT NULL,
                    PRIMARY KEY (node, system, code));
CREATE TABLE facts (id INTEGER PRIMARY KEY, subject TEXT NOT NULL, relation TEXT NOT NULL,
                    object TEXT NOT NULL, value TEXT NOT NULL, unit TEXT NOT NULL,
                    frequency TEXT NOT NULL, negated INTEGER NOT NULL, source TEXT NOT NULL,
                    evidence TEXT NOT NULL,
                    UNIQUE (subject, relation, object, value, unit, negated));
CREATE INDEX by_object ON facts (object, relation);
"""
"""``names.place`` 0 is the usual name, the others are synonyms; ``facts.object`` is a node's id."""
FORMAT = "residency-graph-1"


def read(path: Path) -> Graph:
    """Read a graph; ``DataError`` where the file is none."""
    if not path.is_file():
        raise UserError(f"{path}: there is no graph; make one with residency graph import.")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            about = dict(database.execute("SELECT key, value FROM about"))
            if about.get("format") != FORMAT:
                raise DataError(f"{path}: is no graph of the form {FORMAT}; import it anew.")
            graph = Graph(path, _nodes(database), _facts(database))
    except sqlite3.Error:
        raise DataError(f"{path}: is no graph; make one with residency graph import.") from None
    graph.about = about
    return graph


def _nodes(database: sqlite3.Connection) -> list[Node]:
    names = defaultdict[str, dict[str, tuple[str, ...]]](dict)
    for node, lang, name in database.execute(
        "SELECT node, lang, name FROM names ORDER BY node, lang, place, name"
    ):
        names[node][lang] = (*names[node].get(lang, ()), name)
    codes = defaultdict[str, list[tuple[str, str]]](list)
    for node, system, code in database.execute("SELECT * FROM codes ORDER BY node, system, code"):
        codes[node].append((system, code))
    rows = database.execute("SELECT id, kind FROM nodes ORDER BY id")
    return [Node(id, kind, names.get(id, {}), tuple(codes.get(id, ()))) for id, kind in rows]


def _facts(database: sqlite3.Connection) -> list[Fact]:
    columns = "id, subject, relation, object, value, unit, frequency, negated, source, evidence"
    return [
        Fact(s, r, o, source, value, unit, frequency, bool(negated), evidence, id)
        for id, s, r, o, value, unit, frequency, negated, source, evidence in database.execute(
            f"SELECT {columns} FROM facts ORDER BY id"
        )
    ]


class Written(Value, frozen=True):
    """What an import brought."""

    nodes: int
    facts: int
    again: int
    """Facts that stood there before."""


def write(
    path: Path, nodes: Iterable[Node], facts: Iterable[Fact], about: Mapping[str, str], add: bool
) -> Written:
    """Write a graph whole or not at all; ``add``: to what the file holds. Raises ``UserError``
    where a file is there and nothing is to be added."""
    if path.exists() and not add:
        raise UserError(f"{path}: is there already; add to it with --add, or name another file.")
    before = read(path) if path.exists() else None
    with atomic_path(path) as partial:
        partial.unlink(missing_ok=True)
        with closing(sqlite3.connect(partial)) as database, database:
            database.executescript(TABLES)
            if before:
                _insert(database, before.nodes.values(), before.every.values())
            told = {**(before.about if before else {}), **about, "format": FORMAT}
            database.executemany("INSERT INTO about VALUES (?, ?)", told.items())
            held, offered = _count(database, "facts"), _insert(database, nodes, facts)
            counts = _count(database, "nodes"), _count(database, "facts")
    return Written(counts[0], counts[1] - held, offered - (counts[1] - held))


def _count(database: sqlite3.Connection, table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _insert(database: sqlite3.Connection, nodes: Iterable[Node], facts: Iterable[Fact]) -> int:
    for node in nodes:
        database.execute("INSERT OR IGNORE INTO nodes VALUES (?, ?)", (node.id, node.kind))
        database.executemany(
            "INSERT OR IGNORE INTO names VALUES (?, ?, ?, ?)",
            (
                (node.id, lang, place, name)
                for lang, names in node.names.items()
                for place, name in enumerate(names)
            ),
        )
        database.executemany(
            "INSERT OR IGNORE INTO codes VALUES (?, ?, ?)",
            ((node.id, *code) for code in node.codes),
        )
    offered = 0
    for fact in facts:
        offered += 1
        database.execute(
            "INSERT OR IGNORE INTO facts VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                fact.subject,
                fact.relation,
                fact.object,
                fact.value,
                fact.unit,
                fact.frequency,
                int(fact.negated),
                fact.source,
                fact.evidence,
            ),
        )
    return offered
