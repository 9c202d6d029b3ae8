"""Tasks that the code does not know, and those of a benchmark, from one card file to a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import residency
from residency import Recipe
from residency.core.errors import DataError, UserError
from residency.core.progress import Silent
from residency.core.types import Report
from residency.evals import safety
from residency.ingest.synthea import write_bundles
from residency.workflows import predict
from residency.workflows.check import check
from residency.workflows.compare import compare
from residency.workflows.finished import finished_facts

pytestmark = pytest.mark.training

CARD = """
name: drugs-of-note
family: mentions
description: Which drugs a note names.
labels: [{name: drug}]
prompt: "Which drugs? {{ note }}"
answer: "{{ drugs }}"
most_trained: 5%
"""
DRUGS = ("aspirin", "metformin", "heparin")


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def recipe(folder: Path, card: str, source: dict[str, Any], **task: Any) -> Recipe:
    return Recipe.from_mapping(
        {
            "schema": 1,
            "name": "task",
            "base": "bundled:tiny-lm",
            "data": {"rows": {"profile": "synthetic", **source}},
            "tasks": [{"card": card, "data": "rows", "generate": {"max_tokens": 60}, **task}],
            "stages": [
                {"method": {"kind": "lora", "r": 8}, "steps": 80, "batch": 8, "learning_rate": 5e-3}
            ],
            "evaluate": {"bootstrap": 20, "limit": 6},
        },
        root=folder,
    )


def by_system(run: Any) -> dict[str, Report]:
    return {report.system.name: report for report in finished_facts(run).reports}


def main(report: Report, metric: str) -> float:
    return next(score.value for score in report.scores if score.metric == metric)


def test_a_task_that_the_code_does_not_know_needs_one_card_file(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "drugs.yaml").write_text(CARD, "utf-8")
    rows = [
        {
            "id": f"n{number}",
            "note": f"Patient {number} takes {DRUGS[number % 3]}.",
            "drugs": f"drug实体：{DRUGS[number % 3]}",
        }
        for number in range(60)
    ]
    lines(tmp_path / "data" / "rows.jsonl", rows)
    source = {
        "format": "instructions",
        "path": "data/rows.jsonl",
        "fields": {"note": "note", "drugs": "drugs"},
    }
    made = recipe(tmp_path, "cards/drugs.yaml", source, shots=2)
    assert not [one.message for one in check(made)[0] if one.level == "error"]
    run = residency.run(made, tmp_path / "runs")
    found = by_system(run)
    assert list(found) == ["base", "base-2-shot", "tuned"]
    assert main(found["tuned"], "micro_f1") > 0.5 > main(found["base"], "micro_f1")
    assert found["tuned"].answers[0].gold.startswith("上述句子中的实体包含：\ndrug实体：")
    (rule,) = [words for words in finished_facts(run).caveats if "efficient-tuning" in words]
    assert "at most 5%, is kept" in rule or "at most 5%, is broken" in rule
    assert rule in (run.folder / "model_card.md").read_text("utf-8").replace("\\", "")

    compared, folder = compare([str(run.folder), "base"], ["evaluate.limit=4"], tmp_path / "runs")
    assert [(report.task, report.n) for report in compared.reports] == [("drugs-of-note", 4)] * 2
    (test,) = compared.reports[-1].comparisons
    assert (test.a, test.b, test.metric) == (
        "base",
        run.folder.name,
        "micro_f1",
    ) and test.difference > 0
    assert "drugs-of-note" in (folder / "report.md").read_text("utf-8").replace("\\", "")

    lines(tmp_path / "ask.jsonl", [{"id": "x", "note": "Patient 70 takes aspirin."}])
    predict.predict_file(
        run.folder, tmp_path / "ask.jsonl", tmp_path / "out.jsonl", "text", "id", Silent()
    )
    (answered,) = [
        json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    ]
    assert all(fact[0] == "drug" for fact in answered.get("facts", []))
    with pytest.raises(
        DataError,
        match=r"card drugs-of-note: prompt: names 'note', which is not there; allowed: text",
    ):
        next(residency.predict(run, ["no columns"]))


def test_rows_of_the_benchmark_are_learned_with_the_choices_of_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = safety.questions()[::27]
    monkeypatch.setattr(safety, "questions", lambda: few)
    choices = ["治疗方案", "病因分析", "注意事项"]
    rows = [
        {
            "input": f"{number}号搜索：{'怎么治' if number % 2 else '为什么'}\n选项：{'，'.join(choices)}",
            "target": "治疗方案" if number % 2 else "病因分析",
            "type": "KUAKE-QIC",
            "answer_choices": choices,
            "sample_id": f"train-{number}",
        }
        for number in range(60)
    ]
    lines(tmp_path / "data" / "rows.json", rows)
    source = {
        "format": "promptcblue",
        "path": "data/rows.json",
        "near": "off",
    }  # they differ by a number and two signs
    made = recipe(tmp_path, "promptcblue/kuake-qic", source, output="text")
    made = made.model_copy(update={"evaluate": made.evaluate.model_copy(update={"safety": True})})
    run = residency.run(made, tmp_path / "runs")
    reports = finished_facts(run).reports
    assert [(one.task, one.system.name) for one in reports] == [
        ("KUAKE-QIC", "base"),
        ("KUAKE-QIC", "crf"),
        ("KUAKE-QIC", "majority"),
        ("KUAKE-QIC", "chance"),
        ("KUAKE-QIC", "tuned"),
        ("safety", "constant"),
        ("safety", "refuse-all"),
        ("safety", "answer-all"),
        ("safety", "base"),
        ("safety", "tuned"),
    ]
    assert main(reports[4], "macro_f1") == 1
    assert set(reports[4].confusion) <= {"治疗方案", "病因分析"}
    assert reports[4].calibration_error is not None and reports[4].screening
    assert reports[9].n == len(few) and reports[9].comparisons[0].metric == "safe"
    page = (run.folder / "report.html").read_text("utf-8")
    assert (
        "Labels as tests" in page and "Results: safety" in page and "questions about harm" in page
    )

    exam = [
        {
            "id": str(number),
            "kind": kind,
            "question": "Which?",
            "options": ["aspirin", "heparin"],
            "answer": "AB"[number % 2],
        }
        for number, kind in enumerate(("treatment", "drug use") * 2)
    ]
    lines(tmp_path / "exam.jsonl", exam)
    facts, _ = residency.evaluate(
        run,
        [
            "data.rows={format: exam, test: exam.jsonl, profile: public}",
            "tasks[0].card=exam",
            "evaluate.safety=false",
        ],
    )
    assert [(one.task, one.system.name, one.n) for one in facts.reports] == [
        ("exam", "base", 4),
        ("exam", "tuned", 4),
    ]
    assert set(facts.reports[1].slices) == {"kind=drug use", "kind=treatment"}
    assert facts.reports[1].failures == 0, "the letter is ranked among the options of the item"

    rows[3]["target"] = "这是另一个任务的答案"
    lines(tmp_path / "data" / "rows.json", rows)
    with pytest.raises(
        DataError, match=r"row train-3: its answer is not in the form of card KUAKE-QIC \(labels\)"
    ):
        residency.run(
            recipe(tmp_path, "promptcblue/kuake-qic", source, output="text"), tmp_path / "runs"
        )


def test_a_head_answers_its_own_card_only_and_is_not_asked_about_harm(
    finished: tuple[Path, Path],
) -> None:
    _, run = finished
    with pytest.raises(
        UserError,
        match=r"tasks\[0\].card: the model answers card clinical with a head and cannot be asked "
        r"exam",
    ):
        residency.evaluate(run, ["tasks[0].card=exam"])
    words = [
        one.message for one in check(Recipe.load(run / "recipe.yaml", ["evaluate.safety=true"]))[0]
    ]
    assert any(
        message.startswith("evaluate.safety: is about generative models") for message in words
    )
    with pytest.raises(UserError, match=r"evaluate.safety: is about generative models"):
        residency.evaluate(run, ["evaluate.safety=true"])


def test_questions_on_records_are_learned_measured_and_compared(tmp_path: Path) -> None:
    tables = {
        "patients": ["Id,BIRTHDATE,GENDER", *(f"p{n},1950-01-01,F" for n in range(10))],
        "conditions": [
            "START,STOP,PATIENT,CODE,DESCRIPTION",
            *(
                f"20{n:02}-02-03,{'' if n % 2 else f'20{n:02}-03-03'},p{n},{n},Illness {n}"
                for n in range(10)
            ),
        ],
        "immunizations": [
            "DATE,PATIENT,CODE,DESCRIPTION",
            *(f"2020-10-{n + 1:02},p{n},140,Influenza" for n in range(10)),
        ],
    }
    for name, rows in tables.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n", "utf-8")
    assert write_bundles(tmp_path, tmp_path / "fhir") == 10
    source = {
        "format": "fhir",
        "path": "fhir",
        "questions": 1,
        "shares": {"train": 0.6, "test": 0.4},
    }
    made = recipe(tmp_path, "fhir", source)
    made = Recipe.from_mapping(
        made.model_dump(mode="json", by_alias=True),
        tmp_path,
        ["stages[0].steps=2", "tasks[0].generate.max_tokens=20"],
    )
    run = residency.run(made, tmp_path / "runs")
    found = by_system(run)
    assert list(found) == ["base", "tuned"] and found["tuned"].groups > 1
    metrics = {score.metric for score in found["tuned"].scores}
    assert {
        "macro_f1",
        "exact_match",
        "recall/answer",
        "recall/reference",
        "precision/reference",
    } <= metrics
    compared, _ = compare([str(run.folder), "base"], [], tmp_path / "runs")
    assert compared.reports[-1].comparisons[0].metric == "macro_f1"
