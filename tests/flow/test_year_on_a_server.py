"""A year of a hospital on a real server, its weekly commands killed at random moments: the training
set is that of a fresh start on what the server then holds.

``RESIDENCY_YEAR`` says how many notes there are.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import MetaData, create_engine, insert, make_url, select
from sqlalchemy.pool import NullPool
from test_deidentify import KEY
from test_year import Hospital, parts_of

NOTES = int(os.environ.get("RESIDENCY_YEAR", "120"))
"""Notes of the year on a real server; from 1,000 on it has 52 weeks and 50 kills."""


def on_server(admin: str, database: str) -> str:
    """The tables of a database in a new database of a PostgreSQL server, whose reader's URL is
    put into the environment; the administrator's URL of it."""
    url = make_url(admin)
    apart = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with apart.connect() as server:
        for statement in ("DROP DATABASE IF EXISTS year", "CREATE DATABASE year"):
            server.exec_driver_sql(statement)
        if not server.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = 'clerk'").scalar():
            server.exec_driver_sql("CREATE ROLE clerk LOGIN")
    year = url.set(database="year")
    tables = MetaData()
    source = create_engine(database, poolclass=NullPool)
    tables.reflect(source)
    with source.connect() as given, create_engine(year, poolclass=NullPool).begin() as taken:
        tables.create_all(taken)
        for table in tables.sorted_tables:
            taken.execute(insert(table), [dict(r) for r in given.execute(select(table)).mappings()])
        taken.exec_driver_sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        taken.exec_driver_sql("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO clerk")
        taken.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk")
    reader = year.set(username="clerk", password=None)
    os.environ["HOSPITAL_DB"] = reader.render_as_string(False)
    return year.render_as_string(False)


def killed_after(hospital: Hospital, seconds: float) -> bool:
    """Whether the weekly command, in a process of its own, was killed so long after its start."""
    if not (child := os.fork()):
        try:
            hospital.run()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.services
@pytest.mark.timeout(0 if NOTES >= 1000 else 1500)
def test_a_year_on_a_real_server_whose_weeks_are_killed_ends_as_a_fresh_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = os.environ.get("RESIDENCY_TEST_POSTGRESQL", "")
    if not admin:
        pytest.skip("needs RESIDENCY_TEST_POSTGRESQL: make test-services starts a server")
    monkeypatch.setenv("RESIDENCY_KEY", KEY)
    monkeypatch.setenv("HOSPITAL_DB", "")
    weeks, kills, compared = (
        (52, 50, {4, 13, 26, 39, 52}) if NOTES >= 1000 else (4, 6, {1, 2, 3, 4})
    )
    hospital = Hospital(tmp_path / "ward", NOTES // 2, partial(on_server, admin), "new")
    hospital.ids = hospital.ids[:NOTES]
    hospital.size = len(hospital.ids)
    chance, took, killed, seen = random.Random(1), 2.0, 0, Counter[str]()
    for number in range(weeks):
        hospital.week(number, weeks)
        for _ in range((number + 1) * kills // weeks - number * kills // weeks):
            killed += killed_after(hospital, chance.uniform(0, took))
        begun = time.monotonic()
        done = hospital.run()
        took = time.monotonic() - begun
        assert done.extracted is not None
        seen = Counter(done.extracted.ever)
        if number + 1 in compared:
            assert hospital.started_anew().training_set() == hospital.training_set()
            with capsys.disabled():
                print(f"\nweek {number + 1}: {took:.1f} s, the same; {killed} killed; {dict(seen)}")
    assert killed >= kills // 2
    assert seen["taken"] >= len(parts_of(hospital.folder)) and seen["amended"] > 0
