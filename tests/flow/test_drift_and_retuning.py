"""A year of a small ward: a template changes, another department joins, labels are poisoned."""

from __future__ import annotations

import json
import random
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import lines, write_recipe
from residency.core.errors import DataError, GateRefused, UserError
from residency.core.progress import Silent
from residency.core.types import Note
from residency.ops.model_ledger import ModelLedger
from residency.recipe import Recipe
from residency.workflows import retune as retuning
from residency.workflows import watch as watching
from residency.workflows.retune import retune
from residency.workflows.run import run
from residency.workflows.watch import watch

BEGINS = date(2026, 1, 5)
SYLLABLES = [a + b for a in "bdghklmnprstvx" for b in ("a", "en", "ila", "or", "um", "iso")]
WARDS: dict[str, list[str]] = {
    "old": [
        "Patient reports {s} and was given {d} today.",
        "On the ward with {s}; {d} continued, seen with {o}.",
        "No change of {o}. Complains of {s}, {d} twice.",
    ],
    "new": [
        "Rx {d} / Sx {s} / {o} ok",
        "Sx: {s} ({o}) -> {d}",
        "Plan {d}; {o}, {s} noted",
    ],
    "other": [
        "Theatre list {o}: {d} before knife, afterwards {s}",
        "Anaesthesia gave {d}. Woke with {s}. Drain {o}",
        "Wound {o}, {s} on moving, {d} at night",
    ],
}


def word(chance: random.Random, end: str, length: int = 2) -> str:
    return "".join(chance.choice(SYLLABLES) for _ in range(length)) + end


def note(number: int, ward: str, at: date | None = None, wrong: float = 0.0) -> dict[str, Any]:
    """An invented record; ``wrong``: the chance that a label is another one."""
    chance = random.Random(f"{number} {ward}")
    text, spans = "", []
    for piece in chance.choices(WARDS[ward], k=3):
        for part in piece.replace("{", "|{").replace("}", "}|").split("|"):
            ends = {"{s}": ["itis", "algia", ""], "{d}": ["ol", "in", ""], "{o}": ["us", "in", ""]}
            value = word(chance, chance.choice(ends[part])) if part in ends else part
            if part in ("{s}", "{d}"):
                label = "symptom" if (part == "{s}") != (chance.random() < wrong) else "drug"
                spans.append({"start": len(text), "end": len(text) + len(value), "label": label})
            text += value
        text += " "
    row = {"id": f"{ward}-{number}", "group": f"p{ward}{number}", "text": text, "entities": spans}
    return row | (
        {"written_at": datetime.combine(at, datetime.min.time()).isoformat()} if at else {}
    )


def ward_of(week: int, changes: bool) -> str:
    return "old" if week < 20 or not changes else "new" if week < 40 else "other"


def project(folder: Path, changes: bool = True, weeks: int = 26, labelled: int = 12) -> Path:
    """A run on 120 old records, and a field of weeks with labelled and unlabelled ones."""
    lines(folder / "data/train.jsonl", [note(n, "old") for n in range(120)])
    lines(folder / "data/test.jsonl", [note(n, "old") for n in range(200, 300)])
    gold, pool = [], []
    for week in range(weeks):
        for n in range(labelled + 60):
            row = note(
                10_000 + 100 * week + n, ward_of(week, changes), BEGINS + timedelta(7 * week)
            )
            (gold if n < labelled else pool).append(row)
    lines(folder / "field/gold.jsonl", gold)
    lines(folder / "field/pool.jsonl", [{**row, "entities": []} for row in pool])
    value = {
        "schema": 1,
        "name": "ward",
        "seed": 1,
        "data": {"w": {"format": "jsonl", "train": "data/train.jsonl", "test": "data/test.jsonl"}},
        "tasks": [{"card": "ner", "data": "w"}],
        "stages": [{"method": {"kind": "crf"}}],
        "evaluate": {"bootstrap": 100},
        "watch": {"gold": "field/gold.jsonl", "pool": "field/pool.jsonl"},
    }
    return run(Recipe.load(write_recipe(folder, value)), folder / "runs").folder


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("ward"))


@pytest.fixture
def copy(ward: Path, tmp_path: Path) -> Path:
    shutil.copytree(ward.parents[1], tmp_path / "ward")
    return tmp_path / "ward/runs" / ward.name


def asked(run: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in (run / "retune/ask.jsonl").read_text("utf-8").splitlines()]


def label(run: Path, wrong: float = 0.0) -> None:
    """What annotators make of the records that were asked for."""
    rows = [
        {**note(int(row["id"].rpartition("-")[2]), row["id"].rpartition("-")[0], wrong=wrong)}
        | {"written_at": row["written_at"]}
        for row in asked(run)
    ]
    lines(run.parents[1] / "field/labelled.jsonl", rows)


def test_a_changed_template_is_found_and_nothing_before_it(copy: Path) -> None:
    found, page = watch(copy)
    print(found)
    assert found.verdict == "drift"
    assert all(week.evidence < 200 for week in found.weeks[:20])
    text = page.read_text("utf-8")
    assert "Drift" in text and "no proof" in text
    assert 'residency_field_drift{run="' in (copy / "watch/watch.prom").read_text("utf-8")
    assert not any(word in (copy / "watch/watch.json").read_text() for word in ("Rx ", "Patient"))


def test_the_loop_asks_once_tunes_once_and_promotes_what_is_better(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, runs = copy.parents[1] / "models", copy.parent
    ModelLedger(models).add(retuning.artefact_of(copy), copy)
    ModelLedger(models).promote("ward", copy.name)

    def step(*overrides: str) -> str:
        return retune(copy, overrides, runs, models, "ward")

    assert "Asked for 100 records" in step()
    first = asked(copy)
    assert len(first) == 100 and all(row["entities"] == [] for row in first)
    assert "Waiting" in step() and asked(copy) == first
    label(copy)
    calls = []
    real = retuning.tune

    def fails_once(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise OSError("the machine went down")
        return real(*given)

    monkeypatch.setattr(retuning, "tune", fails_once)
    with pytest.raises(OSError):
        step("watch.labelled=field/labelled.jsonl")
    said = step("watch.labelled=field/labelled.jsonl")
    assert said.startswith("ward -> ") and asked(copy) == first
    before = ModelLedger(models).entries()
    assert step("watch.labelled=field/labelled.jsonl") == said and len(calls) == 2
    assert ModelLedger(models).entries() == before


def test_poisoned_labels_of_a_new_template_are_refused_by_models_of_other_records(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retune(copy, runs=copy.parent)
    label(copy, wrong=0.3)
    monkeypatch.setattr(retuning, "_agrees", lambda *_: None)
    monkeypatch.setattr(retuning, "tune", lambda *_: pytest.fail("it was tuned"))
    with pytest.raises(GateRefused, match=r"not tuned: models .* doubt"):
        retune(copy, ["watch.labelled=field/labelled.jsonl"], copy.parent)


def test_poisoned_labels_of_known_records_are_refused_by_the_old_model(copy: Path) -> None:
    field, path = watching.open_field(copy), copy.parents[1] / "field/batch.jsonl"

    def batch(wrong: float) -> list[Note]:
        lines(path, [note(n, "old", BEGINS, wrong) for n in range(5000, 5100)])
        return watching.read_field(field.recipe, "field/batch.jsonl", "batch", field.card)

    retuning._agrees(field, batch(0.0), field.notes[:100], Silent())
    with pytest.raises(GateRefused, match="not tuned: the model agrees"):
        retuning._agrees(field, batch(0.3), field.notes[:100], Silent())


def test_a_model_of_poisoned_labels_does_not_pass_the_check(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retune(copy, runs=copy.parent)
    label(copy, wrong=0.8)
    monkeypatch.setattr(retuning, "check_labels", lambda *_: None)
    for _ in range(2):  # the same is said again, and nothing is tuned again
        with pytest.raises(GateRefused, match=r"not promoted: .*F1 .* ward-\w+ stays"):
            retune(copy, ["watch.labelled=field/labelled.jsonl"], copy.parent)
        monkeypatch.setattr(retuning, "tune", lambda *_: pytest.fail("it was tuned again"))


def test_bad_input_is_one_sentence(copy: Path) -> None:
    field = copy.parents[1] / "field"
    with pytest.raises(UserError, match=r"watch\.gold: names no labelled records"):
        watch(copy, ["watch.gold=''"])
    lines(field / "undated.jsonl", [note(1, "new")])
    with pytest.raises(DataError, match="1 of 1 records have no written_at"):
        watch(copy, ["watch.gold=field/undated.jsonl"])
    other = note(1, "new", BEGINS)
    other["entities"][0]["label"] = "tumour"
    lines(field / "other.jsonl", [other])
    with pytest.raises(DataError, match="1 labels are not those of the run's card"):
        watch(copy, ["watch.gold=field/other.jsonl"])
    models = copy.parents[1] / "broken"
    models.mkdir()
    (models / "ledger.jsonl").write_text("{}\n")
    with pytest.raises(GateRefused, match="was changed"):
        retune(copy, runs=copy.parent, ledger=models, alias="ward")
    assert not (copy / "retune/ask.jsonl").exists()


def test_a_label_without_errors_in_the_baseline_is_not_said_to_be_nearly_decided(
    copy: Path,
) -> None:
    _, page = watch(copy)
    text = page.read_text("utf-8")
    assert "not watched alone" in text and "about 1<" not in text
