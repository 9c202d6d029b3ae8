"""A card that puts columns into words: patient, symptoms and results go in, a diagnosis comes out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import residency
from residency import Recipe
from residency.core.errors import DataError
from residency.core.progress import Silent
from residency.workflows import predict
from residency.workflows.check import check
from residency.workflows.finished import finished_facts

COLUMNS = ("id", "patient", "symptoms", "results", "diagnosis")


def table(path: Path, drop: str = "") -> None:
    """Sixty invented consultations as a CSV file."""
    columns = [name for name in COLUMNS if name != drop]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for number in range(60):
            lungs = number % 2
            writer.writerow(
                {
                    "id": f"c{number}",
                    "patient": f"woman of {30 + number}",
                    "symptoms": "cough and fever" if lungs else "burning on passing water",
                    "results": "shadow on the film" if lungs else "nitrite positive",
                    "diagnosis": "pneumonia" if lungs else "cystitis",
                }
            )


def recipe(folder: Path, **changes: Any) -> Recipe:
    source = {
        "format": "instructions",
        "path": "data/table.csv",
        "fields": {name: name for name in COLUMNS[1:]},
        "lang": "en",
        "profile": "synthetic",
    }
    return Recipe.from_mapping(
        {
            "schema": 1,
            "name": "consultation",
            "base": "bundled:tiny-lm",
            "data": {"table": source},
            "tasks": [{"card": "consultation", "data": "table", "generate": {"max_tokens": 8}}],
            "stages": [
                {"method": {"kind": "lora", "r": 4}, "steps": 30, "batch": 8, "learning_rate": 5e-3}
            ],
            "evaluate": {"bootstrap": 20},
            **changes,
        },
        root=folder,
    )


def test_columns_become_a_consultation_whose_diagnosis_is_learned_and_predicted(
    tmp_path: Path,
) -> None:
    table(tmp_path / "data" / "table.csv")
    run = residency.run(recipe(tmp_path), tmp_path / "runs")
    facts = finished_facts(run)
    exact = {
        report.system.name: next(
            score.value for score in report.scores if score.metric == "exact_match"
        )
        for report in facts.reports
    }
    assert exact == {"base": 0.0, "tuned": 1.0}

    asked = [
        {
            "id": "x",
            "patient": "man of 50",
            "symptoms": "cough and fever",
            "results": "shadow on the film",
        },
        {
            "id": "y",
            "patient": "man of 51",
            "symptoms": "burning on passing water",
            "results": "nitrite positive",
        },
    ]
    (tmp_path / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    answers = tmp_path / "answers.jsonl"
    artefact = next(run.folder.glob("train/1-*"))
    predict.predict_file(artefact, tmp_path / "ask.jsonl", answers, "text", "id", Silent())
    found = [json.loads(line) for line in answers.read_text("utf-8").splitlines()]
    assert [row["answer"] for row in found] == ["pneumonia", "cystitis"]


def test_a_column_that_the_card_names_and_the_table_lacks_is_one_sentence(tmp_path: Path) -> None:
    table(tmp_path / "data" / "table.csv", drop="results")
    with pytest.raises(DataError, match="results") as refused:
        residency.run(recipe(tmp_path), tmp_path / "runs")
    assert len(str(refused.value).splitlines()) == 1
    findings, _ = check(recipe(tmp_path))
    assert any(finding.level == "error" and "results" in finding.message for finding in findings)
