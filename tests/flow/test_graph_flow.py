"""The road from a graph to a model: the guide's recipe, a few steps, on questions from the graph
that comes along."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import residency
from conftest import ROOT
from residency.recipe import Recipe
from residency.workflows.finished import finished_facts
from residency.workflows.graph import import_graph, write_questions

pytestmark = pytest.mark.training


def test_questions_from_a_graph_are_learned_by_the_recipe_of_the_guide(tmp_path: Path) -> None:
    import_graph("hepatobiliary", tmp_path / "graph.sqlite")
    write_questions(
        tmp_path / "graph.sqlite", tmp_path / "data/questions", 1200, ("vi", "zh", "en")
    )
    guide = (ROOT / "docs/guide/graph.md").read_text("utf-8")
    (plan,) = re.findall(r"^```yaml\n(.*?)^```", guide, re.M | re.S)
    (tmp_path / "recipe.yaml").write_text(plan, "utf-8")
    few = ["stages.0.steps=4", "stages.0.batch=8", "evaluate.limit=8", "evaluate.bootstrap=20"]
    few += ["tasks.0.generate.max_tokens=8"]
    run = residency.run(Recipe.load(tmp_path / "recipe.yaml", few), tmp_path / "runs")
    facts = finished_facts(run)
    assert {report.system.name for report in facts.reports} >= {"base", "tuned"}
    assert all(set(report.references) == {"synthetic:graph"} for report in facts.reports)
    (data,) = facts.data
    assert data.parts["train"].notes > data.parts["test"].notes > 0
    assert not data.warnings, data.warnings


def test_multiple_choice_and_short_answers_are_read_as_an_exam(tmp_path: Path) -> None:
    import_graph("hepatobiliary", tmp_path / "graph.sqlite")
    write_questions(tmp_path / "graph.sqlite", tmp_path / "q", 600, kinds=("choice", "short"))
    for items, card in (("choice", "exam"), ("short", "short-answers")):
        data = {
            "format": "exam",
            "items": items,
            "train": "q/exam.train.jsonl",
            "test": "q/exam.test.jsonl",
            "lang": "en",
            "profile": "synthetic",
        }
        recipe = {
            "schema": 1,
            "name": card,
            "base": "bundled:tiny-lm",
            "data": {"exam": data},
            "tasks": [{"card": card, "data": "exam"}],
            "stages": [{"method": {"kind": "lora"}}],
        }
        from residency.workflows.check import check

        check(Recipe.from_mapping(recipe, root=tmp_path))
