"""A hospital's database on a real server, and commands that are run on it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KEY = "5a" * 32
NOTES = 200_000
PROGRAM = """
import sys
from pathlib import Path
from residency.cli import main
sys.argv[0] = "residency"
try:
    main()
finally:
    marks = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print("peak", int(marks[0].split()[1]) // 1024, "MB", flush=True)
"""


def needed(name: str) -> str:
    """What scripts/services.py says of a service."""
    found = os.environ.get(name, "")
    if not found and os.environ.get("RESIDENCY_SERVICES"):
        pytest.fail(f"{name} is not set, though services were to be started")
    if not found:
        pytest.skip(f"needs {name}: make test-services starts real servers")
    return found


class Hospital:
    """A database of notes on a real server, a login that reads, and a recipe."""

    def __init__(self, admin: str, name: str, folder: Path) -> None:
        from sqlalchemy import create_engine, make_url

        self.url, self.name, self.folder = make_url(admin), name, folder
        self.kind = self.url.get_backend_name()
        self.server = create_engine(self.url, isolation_level="AUTOCOMMIT")
        self.engine = create_engine(self.url.set(database=name), isolation_level="AUTOCOMMIT")

    def sql(self, *statements: str, here: bool = True) -> None:
        with (self.engine if here else self.server).connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def value(self, statement: str) -> Any:
        with self.engine.connect() as connection:
            return connection.exec_driver_sql(statement).scalar()

    def make(self) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {self.name}", f"CREATE DATABASE {self.name}", here=False)
        text = "LONGTEXT" if self.kind == "mysql" else "TEXT"
        self.sql(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, patient VARCHAR(20), changed_at "
            f"TIMESTAMP NOT NULL, text {text}, name VARCHAR(80), phone VARCHAR(20))",
            "CREATE INDEX changed ON notes (changed_at)",
        )
        if self.kind == "postgresql":
            self.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        self.login("reader", "SELECT")

    def login(self, name: str, *rights: str) -> None:
        if self.kind == "postgresql":
            self.sql(f"DROP OWNED BY {name}" if self._has(name) else "SELECT 1", here=True)
            self.sql(f"DROP ROLE IF EXISTS {name}", f"CREATE ROLE {name} LOGIN", here=False)
            for right in rights:
                self.sql(f"GRANT {right} ON notes TO {name}")
        else:
            self.sql(
                f"DROP USER IF EXISTS {name}@localhost",
                f"CREATE USER {name}@localhost IDENTIFIED BY 'secret'",
                here=False,
            )
            for right in rights:
                self.sql(f"GRANT {right} ON {self.name}.notes TO {name}@localhost")

    def _has(self, name: str) -> bool:
        return bool(self.value(f"SELECT count(*) FROM pg_roles WHERE rolname = '{name}'"))

    def fill(self, count: int, first: int = 1, when: str = "2024-05-01 00:00:00") -> None:
        """Notes of an invented hospital, told over and over with other ids; a hundred of them share
        a time."""
        from residency.synth.hospital_notes import notes

        base = [planted.note for planted in notes("vi", 400, seed=3)]
        rows = (
            (
                number,
                f"{note.patient}",
                when if number % 100 else "2024-05-01 00:00:00",
                note.text,
                values["name"],
                values["phone"],
            )
            for number, note in zip(
                range(first, first + count), itertools.cycle(base), strict=False
            )
            for values in (dict(reversed(note.identifiers)),)
        )
        if self.kind == "postgresql":
            connection = self.engine.raw_connection()
            with connection.cursor() as cursor, cursor.copy("COPY notes FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            connection.close()
            self.sql(
                "UPDATE notes SET changed_at = changed_at + (id / 100) * interval '1 minute' "
                f"WHERE id >= {first}",
                "ANALYZE notes",
            )
        else:
            connection = self.engine.raw_connection()
            with connection.cursor() as cursor:
                while group := list(itertools.islice(rows, 2000)):
                    cursor.executemany("INSERT INTO notes VALUES (%s, %s, %s, %s, %s, %s)", group)
            connection.close()
            self.sql(
                "UPDATE notes SET changed_at = changed_at + INTERVAL (id DIV 100) MINUTE WHERE id "
                f">= {first}",
                "ANALYZE TABLE notes",
            )

    def recipe(self, login: str = "reader", **extract: Any) -> Path:
        path = self.folder / "recipe.yaml"
        plan = {
            "schema": 1,
            "name": "ward",
            "extract": {
                "url": "env:HOSPITAL_DB",
                "notes": "SELECT id, patient, changed_at, text, name, phone FROM notes",
                "identifiers": {"name": "name", "phone": "phone"},
                "mark": "changed_at",
                "lang": "vi",
                **extract,
            },
            "deid": {"profile": "pseudonymised", "tagger": "off"},
            "data": {"ward": {"format": "jsonl", "path": "data/deidentified.jsonl", "lang": "vi"}},
            "tasks": [{"card": "clinical", "data": "ward"}],
        }
        path.write_text(yaml.safe_dump(plan), "utf-8")
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "RESIDENCY_KEY": KEY,
            "HOSPITAL_DB": self.login_url(login),
        }
        return path

    def login_url(self, login: str) -> str:
        secret = "secret" if self.kind == "mysql" else None
        host = "127.0.0.1"
        return self.url.set(
            username=login, password=secret, host=host, database=self.name
        ).render_as_string(False)

    def start(self, verb: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, verb, str(self.folder / "recipe.yaml"), *arguments],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, verb: str, *arguments: str, check: int | None = 0) -> tuple[str, str, int]:
        """(output, errors, peak memory in MB)"""
        process = self.start(verb, *arguments)
        out, err = process.communicate()
        assert check is None or process.returncode == check, (process.returncode, err[-2000:])
        return out, err, int(out.split("peak ")[1].split()[0])

    @contextmanager
    def store(self) -> Iterator[Any]:
        from residency.ingest.store import Store

        found = Store.open(self.folder / "identified", "ward", bytes.fromhex(KEY))
        try:
            yield found
        finally:
            found.close()

    def taken(self) -> list[str]:
        """Ids of all notes in the zone."""
        with self.store() as store:
            return [note.id for number in store.numbers(0) for note in store.read(number)]
