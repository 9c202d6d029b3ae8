"""Weeks of a hospital: after each the training set is that of a fresh start on what the source then
holds, byte for byte, given the same secret, history of parts and labels."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from test_deidentify import AMENDED, KEY, plan

from conftest import write_recipe
from residency.corpus.load import Corpus, load
from residency.ingest.store import Store
from residency.recipe import Recipe
from residency.synth.hospital_notes import write_hospital
from residency.workflows.deidentify import Outcome, deidentify
from residency.workflows.split import split

SHOWN = f"{AMENDED} WHERE n.shown = 1"
RECIPE = plan(
    seed=3,
    extract=plan()["extract"]
    | {
        "notes": f"{SHOWN} UNION ALL {SHOWN} AND n.twice = 1",
        "merges": "SELECT patient, stays FROM merges",
        "mark": "at",
        "again": 14,
        "segment": 25,
        "columns": {"kind": "kind", "deleted": "gone"},
    },
    deid={"jobs": 1, "tagger": "off", "release": {"canaries": 5, "refused": 0.5, "similar": 1.0}},
    data={
        "ward": {
            "format": "jsonl",
            "path": "data/deidentified.jsonl",
            "lang": "vi",
            "history": "split/ward.split.json",
        }
    },
)


Placing = Callable[[str], str]


class Hospital:
    """A hospital whose notes come, are amended, deleted and merged; and a project on it.

    ``place``: puts the tables of an SQLite file elsewhere, and gives the URL; what reads there is
    in ``HOSPITAL_DB``. ``rates``: of what a week's amended and deleted notes are a share, of those
    that are ``there`` or ``new``.
    """

    def __init__(
        self, folder: Path, patients: int, place: Placing | None = None, rates: str = "there"
    ) -> None:
        self.folder, self.rates = folder, rates
        folder.mkdir()
        write_hospital(folder / "hospital.db", "vi", patients=patients, seed=5)
        self.url = f"sqlite:///{folder / 'hospital.db'}"
        if place:
            self.url = place(self.url)
        url = {"url": "env:HOSPITAL_DB"} if place else {}
        self.path = write_recipe(folder, {**RECIPE, "extract": {**RECIPE["extract"], **url}})
        self.change(
            "ALTER TABLE notes ADD COLUMN at TEXT",
            "ALTER TABLE notes ADD COLUMN gone INTEGER",
            "ALTER TABLE notes ADD COLUMN shown INTEGER DEFAULT 0",
            "ALTER TABLE notes ADD COLUMN twice INTEGER DEFAULT 0",
            "CREATE TABLE merges (patient TEXT, stays TEXT)",
        )
        self.chance = random.Random(7)
        self.ids = [id for (id,) in self.ask("SELECT id FROM notes ORDER BY id")]
        self.patients = [id for (id,) in self.ask("SELECT id FROM patients ORDER BY id")]
        self.chance.shuffle(self.ids)
        self.chance.shuffle(self.patients)
        self.size = len(self.ids)
        self.merging = len(self.patients) // 200  # 0.5 % of the patients, in a year

    def ask(self, query: str) -> list[tuple[str, ...]]:
        with create_engine(self.url, poolclass=NullPool).connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def change(self, *statements: str) -> None:
        with create_engine(self.url, poolclass=NullPool).begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def week(self, number: int, weeks: int) -> None:
        """New notes, 3 % of them late; 8 % amended, 1 % deleted; merges; some twice."""
        today = date(2024, 1, 1) + timedelta(weeks=number)
        size = self.size // weeks + 1
        new, before = (
            self.ids[:size],
            [id for (id,) in self.ask("SELECT id FROM notes WHERE shown = 1 AND gone IS NULL")],
        )
        self.ids = self.ids[size:]
        statements = []
        for id in new:
            late = timedelta(days=10) if self.chance.random() < 0.03 else timedelta()
            statements.append(
                f"UPDATE notes SET shown = 1, at = '{today - late}' WHERE id = '{id}'"
            )
        self.chance.shuffle(before)
        of = len(before if self.rates == "there" else new)
        amended = max(2, round(of * 0.08))
        for id in before[:amended]:
            more = f"text || '\nThêm tuần {number}.'"
            statements.append(f"UPDATE notes SET text = {more}, at = '{today}' WHERE id = '{id}'")
        statements += [
            f"UPDATE notes SET gone = 1, at = '{today}' WHERE id = '{id}'"
            for id in before[amended : amended + max(1, round(of * 0.01))]
        ]
        statements += [f"UPDATE notes SET twice = 1 WHERE id = '{id}'" for id in new[:2]]
        merges = max(weeks // (2 if self.rates == "there" else 4), self.merging)
        for _ in range((number + 1) * merges // weeks - number * merges // weeks):
            gone, stays = self.patients.pop(), self.patients.pop()
            statements.append(f"INSERT INTO merges VALUES ('{gone}', '{stays}')")
        self.change(*statements)

    def run(self) -> Outcome:
        """The weekly command."""
        recipe = Recipe.load(self.path)
        done = deidentify(recipe)
        split(recipe, self.folder / "split")
        return done

    def corpus(self) -> Corpus:
        recipe = Recipe.load(self.path)
        return load(recipe.data["ward"], "ward", recipe.root, recipe.seed)

    def training_set(self) -> bytes:
        """What is learned from, as it is learned from."""
        return b"\n".join(map(msgspec.json.encode, self.corpus().part("train")))

    def started_anew(self) -> Hospital:
        """The same hospital and secret, and the history of parts; nothing else."""
        other = object.__new__(Hospital)
        other.folder = self.folder.parent / "anew"
        shutil.rmtree(other.folder, ignore_errors=True)
        shutil.copytree(
            self.folder, other.folder, ignore=shutil.ignore_patterns("data", "*.notes.sqlite*")
        )
        other.path = other.folder / "recipe.yaml"
        deidentify(Recipe.load(other.path))
        return other


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    monkeypatch.setenv("RESIDENCY_KEY", KEY)
    return Hospital(tmp_path / "ward", patients=60)


def split_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "split/ward.split.json").read_text("utf-8"))
    return dict(found["split"])


def parts_of(folder: Path) -> dict[str, str]:
    return dict(split_of(folder)["parts"])


@pytest.mark.training
def test_after_each_week_the_training_set_is_that_of_a_fresh_start(hospital: Hospital) -> None:
    before: dict[str, str] = {}
    ever: Counter[str] = Counter()
    for number in range(5):
        hospital.week(number, 6)
        done = hospital.run()
        assert done.extracted is not None
        ever.update({"amended": done.extracted.amended, "removed": done.extracted.removed})
        now, how = parts_of(hospital.folder), split_of(hospital.folder)["how"]
        moved = {id for id in now.keys() & before.keys() if now[id] != before[id]}
        assert all(now[id] == "train" for id in moved), "only a merge moves notes, and to train"
        assert not moved or "went to train" in how
        assert hospital.started_anew().training_set() == hospital.training_set()
        before = now
    assert ever["amended"] > 5 and ever["removed"] >= 4
    sizes = Counter(before.values())
    assert 0.7 < sizes["train"] / len(before) < 0.9


def killed_at(hospital: Hospital, moment: int) -> bool:
    """Whether the weekly command, in a process of its own, was killed before its nth
    transaction."""
    if not (child := os.fork()):
        left, begun = [moment], Store.writing

        def writing(self: Store) -> AbstractContextManager[None]:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return begun(self)

        Store.writing = writing  # type: ignore[method-assign, assignment]
        try:
            deidentify(Recipe.load(hospital.path))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.sample
def test_a_process_killed_at_random_moments_ends_the_same(hospital: Hospital) -> None:
    chance, killed = random.Random(1), 0
    for number in range(3):
        hospital.week(number, 6)
        killed += sum(killed_at(hospital, chance.randrange(1, 20)) for _ in range(5))
        hospital.run()
        assert hospital.started_anew().training_set() == hospital.training_set()
    assert killed >= 5
