"""Short answers from a run to marks in its report: sheets, sheets that come back, a judge model; and
the exam of the guide on the run that its page makes."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import residency
from residency import Recipe
from residency.cli import app
from residency.core.errors import GateRefused, UserError
from residency.core.types import Report
from residency.evals import safety
from residency.evals.floor import SafetyFloor, safety_gate
from residency.ops.model_ledger import safety as noted
from residency.ops.proof import address
from residency.workflows.finished import artefact_of, finished_facts
from residency.workflows.ratings import judge, sheets, take
from residency.workflows.study import new

POINTS = ["oxygen", "call for help"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on short answers, two steps of training, with the questions about harm."""
    folder = tmp_path_factory.mktemp("short")
    rows = [
        {
            "id": str(i),
            "question": f"What helps in case {i}?",
            "answer": "Oxygen.",
            "points": POINTS,
        }
        for i in range(20)
    ]
    (folder / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    given = {
        "schema": 1,
        "name": "short",
        "base": "bundled:tiny-lm",
        "data": {
            "pairs": {
                "format": "exam",
                "items": "short",
                "path": "exam.jsonl",
                "profile": "synthetic",
                "lang": "en",
                "near": "off",
                "shares": {"train": 0.6, "test": 0.4},
            }
        },
        "tasks": [{"card": "short-answers", "data": "pairs", "generate": {"max_tokens": 8}}],
        "stages": [{"method": {"kind": "lora"}, "steps": 2, "batch": 4}],
        "evaluate": {"bootstrap": 20, "limit": 4, "safety": True},
    }
    with pytest.MonkeyPatch.context() as patch:
        few = [one for one in safety.questions() if one.lang == "en"][::6]
        patch.setattr(safety, "questions", lambda: few)
        made = residency.run(Recipe.from_mapping(given, folder), folder / "runs")
        yield made.folder


def fill(path: Path, mark: Any) -> Path:
    """Write a mark into each row; ``mark`` makes it of the answer."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        head, *rows = csv.reader(file)
    for number, row in enumerate(rows):
        row[4] = mark(number)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


@contextmanager
def server(words: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server of chat completions that always says the same."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps({"choices": [{"message": {"content": words}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    found = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}/v1", asked
    finally:
        found.shutdown()
        found.server_close()


def test_marks_of_people_and_of_a_model_stand_in_the_report(run: Path, tmp_path: Path) -> None:
    ann, bob = sheets(run, ["ann", "bob"], tmp_path)
    with ann.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8, "four items, answered by the base and by the tuned model"
    assert {row["points"] for row in rows} == {"• oxygen\n• call for help"}
    assert all(row["question"].startswith("What helps in case") for row in rows)
    with pytest.raises(UserError, match=r"ann.csv: is there already"):
        sheets(run, ["ann"], tmp_path)

    fill(ann, str)
    before = (run / "report.md").read_bytes(), (run / "facts.json").read_bytes()
    with pytest.raises(UserError, match=r"bob.csv:2: mark must be a number from 0 to 10"):
        take(run, [ann, bob])
    assert before == ((run / "report.md").read_bytes(), (run / "facts.json").read_bytes())
    fill(bob, lambda number: "5,5")
    with pytest.raises(UserError, match="is a second sheet of ann"):
        take(run, [ann, ann])

    done = CliRunner().invoke(app, ["ratings", "read", str(run), str(ann), str(bob)])
    assert done.exit_code == 0, done.output
    assert "Ratings of short-answers" in done.output and "people (2)" in done.output
    (found,) = finished_facts(residency.Run(run)).ratings
    assert set(found.systems) == {"base", "tuned"} and found.raters == {"ann": 8, "bob": 8}
    marks = {system: scores[0] for system, scores in found.systems.items()}
    assert sum(one.value * one.n for one in marks.values()) == pytest.approx(sum(range(8)) + 44)
    assert found.agreement[0].metric == "alpha/people"

    with server("Mark: 3") as (url, asked):
        api = f"evaluate.apis.big={{url: '{url}', model: big-7b}}"
        facts, unread = judge(run, "big", [api])
        assert unread == 0 and "- call for help" in str(asked[0])
        assert 4 <= len(asked) <= 8, "what two systems answered alike is asked once"
    (found,) = facts.ratings
    assert [one.metric for one in found.systems["tuned"]] == ["mark/people", "mark/model:big-7b"]
    assert found.systems["tuned"][1].value == 3
    for name in ("report.html", "report.md"):
        page = (run / name).read_text("utf-8")
        assert "Ratings" in page and "the model big-7b" in page and "people (2)" in page


def test_the_run_stands_as_finished_and_a_report_that_is_made_again_holds_the_marks(
    run: Path, tmp_path: Path
) -> None:
    take(run, [fill(path, lambda number: "6") for path in sheets(run, ["cy"], tmp_path)])
    recipe = Recipe.load(run / "recipe.yaml", [])
    recipe = Recipe.from_mapping(recipe.mapping(), run.parents[1])
    again = residency.run(recipe, run.parent)
    assert again.folder == run and set(again.done.values()) == {"cached"}
    (run / "report.html").unlink()
    again = residency.run(recipe, run.parent)
    assert again.done["report"] == "run" and again.done["eval/short-answers"] == "cached"
    assert "cy" in finished_facts(again).ratings[0].raters
    assert "Ratings" in (run / "report.html").read_text("utf-8")


def test_people_judge_safety_and_a_floor_looks_at_them(run: Path, tmp_path: Path) -> None:
    (path,) = sheets(run, ["dan"], tmp_path, task="safety", lang="en")
    facts = take(run, [fill(path, lambda number: "2")])
    judged = [one for one in facts.reports if one.task == "safety, judged by people"]
    assert [one.system.name for one in judged][-2:] == ["base", "tuned"]
    assert {score.metric: score.value for score in judged[-1].scores}["safe"] == 1
    floor = SafetyFloor(safe=0.8, judge="people")
    with pytest.raises(GateRefused, match="lets one sentence to every question through"):
        safety_gate(facts.reports, floor)  # dan finds the constant answers safe too
    kept: Report | None = noted(run, artefact_of(run), floor)
    assert kept is not None and kept.baselines
    with pytest.raises(GateRefused, match="lets one sentence to every question through"):
        safety_gate(kept, floor)
    assert "Judged by people, blind" in (run / "report.html").read_text("utf-8")


def test_the_exam_of_the_guide_is_sat_by_the_run_of_its_page(run: Path, tmp_path: Path) -> None:
    """docs/guide/tasks.md, on a recipe as in docs/guide/answers.md."""
    page = (Path(__file__).parents[2] / "docs/guide/tasks.md").read_text("utf-8")
    (line,) = [one for one in page.splitlines() if one.startswith("residency eval RUN 'data.")]
    items = [
        {"id": str(i), "kind": "treatment", "question": "?", "options": ["a", "b"], "answer": "A"}
        for i in range(3)
    ]
    text = "".join(json.dumps(one) + "\n" for one in items)
    exam = tmp_path / "exam.jsonl"
    exam.write_text(text, "utf-8")
    data = line.split("'")[1].replace("exam.jsonl", str(exam))
    overrides = [data, line.split("'")[3], "evaluate.safety=false"]
    facts, _ = residency.evaluate(run, overrides)
    assert [(one.task, one.system.name, one.n) for one in facts.reports] == [
        ("exam", "base", 3),
        ("exam", "tuned", 3),
    ]
    with pytest.raises(UserError, match=r"data.notes: .*task.* asks data.pairs"):
        residency.evaluate(run, [overrides[0].replace("pairs", "notes"), *overrides[1:]])


def test_a_study_of_a_run_compares_its_systems_and_knows_its_model(
    run: Path, tmp_path: Path
) -> None:
    made = new([str(run)], tmp_path / "study", ["ann"], items=4)
    assert (made.items, made.left_out) == (4, 0)
    key = json.loads((tmp_path / "study.key.json").read_text())
    known = {one["name"]: one.get("artefact", "") for one in key["systems"]}
    assert known == {"base": "", "tuned": address(artefact_of(run))}
    page = (tmp_path / "study/items.jsonl").read_text()
    assert run.name not in page and known["tuned"] not in page and "What helps in case" in page
    with pytest.raises(UserError, match="has no written answers of tund"):
        new([f"{run}:tund", f"{run}:base"], tmp_path / "other", ["ann"], items=4)
