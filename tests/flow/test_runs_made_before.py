"""Runs and artefacts that the version before this one made: known as finished, evaluated, served,
answered from, and continued from where they were cut off.

``data/runs-made-before.tar.xz`` holds three small runs on invented notes (a classifier of tokens, a
generative model, and a run that was killed in its training), and what the version that made them
answered and measured (``expected/``).
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from conftest import CLI, ROOT
from residency.recipe import Recipe

sys.path.append(str(ROOT / "tests" / "serve"))

from serve_tools import Started

PACK = Path(__file__).parent / "data" / "runs-made-before.tar.xz"

pytestmark = pytest.mark.training


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs in a folder of their own, which is also the working directory.

    A run's folder ends in the digest of its recipe, and that holds where the recipe lies.
    """
    folder = tmp_path.resolve() / "before"
    with tarfile.open(PACK) as archive:
        archive.extractall(folder, filter="data")
    monkeypatch.chdir(folder)
    for path in folder.glob("runs/*/manifest.json"):
        path.write_text(path.read_text("utf-8").replace("@ROOT@", str(folder)), "utf-8")
        name = path.parent.name.partition("-")[0]
        digest = Recipe.load(folder / f"{name}.yaml").digest
        path.parent.rename(path.parent.with_name(f"{name}-{digest[:8]}"))
    return folder


def run_of(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"runs/{name}-*")
    return found


def scores(path: Path) -> list[tuple[str, str, float | None]]:
    """System, metric and value of every score of a reports file; of the systems that the version
    before measured."""
    reports = json.loads(path.read_text("utf-8"))
    return [
        (report["system"]["name"], score["metric"], score.get("value"))
        for report in reports
        if report["system"]["name"] in ("base", "tuned")
        for score in report["scores"]
    ]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", ["marks", "writes"])
def test_a_finished_run_is_known_as_finished(before: Path, cli: CLI, name: str) -> None:
    made = {path: path.stat().st_mtime_ns for path in run_of(before, name).rglob("*.json")}
    told = cli("run", f"{name}.yaml", "--explain", check=0).stdout
    assert [line.split()[1:] for line in told.splitlines()] == [["cached"]] * 4, told
    cli("run", f"{name}.yaml", check=0)
    assert made == {path: path.stat().st_mtime_ns for path in run_of(before, name).rglob("*.json")}


@pytest.mark.parametrize("name", ["marks", "writes"])
def test_a_finished_run_is_measured_again_with_the_same_scores(
    before: Path, cli: CLI, name: str
) -> None:
    cli("eval", run_of(before, name), check=0)
    (again,) = run_of(before, name).glob("evaluations/*/eval/*/reports.json")
    (first,) = run_of(before, name).glob("eval/*/reports.json")
    assert [one[:2] for one in scores(again)] == [one[:2] for one in scores(first)]
    for now, then in zip(scores(again), scores(first), strict=True):
        if now[2] is None:  # where nothing was said it was 0 then
            assert "precision" in now[1] and then[2] == 0
        else:
            assert now[2] == pytest.approx(then[2], abs=1e-6), now


@pytest.mark.parametrize(("name", "asked"), [("marks", "ask.jsonl"), ("writes", "questions.jsonl")])
def test_a_finished_run_answers_as_it_did(before: Path, cli: CLI, name: str, asked: str) -> None:
    out = before / "out.jsonl"
    cli("predict", run_of(before, name), "--input", f"expected/{asked}", "--output", out, check=0)
    assert rows(out) == rows(before / f"expected/{name}.jsonl")


def test_a_run_that_was_killed_goes_on_from_its_last_state(before: Path, cli: CLI) -> None:
    cut = run_of(before, "cut")
    cli("run", "cut.yaml", check=0)
    (metrics,) = cut.glob("train/*/metrics.jsonl")
    expected = rows(before / "expected/cut-metrics.jsonl")
    losses = [one["loss"] for one in rows(metrics) if "loss" in one]
    assert losses == pytest.approx([one["loss"] for one in expected if "loss" in one], abs=1e-3)
    (measured,) = cut.glob("eval/*/reports.json")
    wanted = scores(before / "expected/cut-reports.json")
    assert [one[:2] for one in scores(measured)] == [one[:2] for one in wanted]
    for now, then in zip(scores(measured), wanted, strict=True):
        assert (now[2] or 0.0) == pytest.approx(then[2], abs=0.02), now  # 0: nothing was said


def test_a_finished_run_is_served(before: Path, tmp_path: Path) -> None:
    server = Started(tmp_path, str(run_of(before, "marks")))
    try:
        asked = rows(before / "expected/ask.jsonl")[0]
        answer = server.client.post("/extract", json={"text": asked["text"]}).json()
        wanted = rows(before / "expected/marks.jsonl")[0]
        found = [(one["start"], one["end"], one["label"]) for one in answer["entities"]]
        assert found == [(one["start"], one["end"], one["label"]) for one in wanted["entities"]]
    finally:
        server.client.close()
        server.end()
