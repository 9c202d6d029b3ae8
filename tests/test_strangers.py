"""What a stranger adds in one new file, in a copy of the tree, and uses through the command line: a
family of tasks, and a metric of written answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import warm

SRC = Path(__file__).parents[1] / "src"

FAMILY = '''
"""Amounts: whole numbers, written in brackets."""

import re

import numpy as np

from residency.core.types import Facts
from residency.tasks.families import Basis, Family, Tally
from residency.tasks.prompts import Parsed


class AmountFamily(Family):
    """An amount is right or wrong, or near."""

    metric = "near"

    def render(self, answer, text):
        return f"<{answer.facts[0][0]}>"

    def parse(self, words, text, card):
        found = re.search(r"<(\\d+)>", words)
        return Parsed(answer=Facts(facts=((found[1],),))) if found else Parsed()

    def tally(self, examples, predictions, card, *, labels=(), metrics=()):
        def apart(example, prediction):
            said = prediction.answer.facts[0][0] if prediction.answer else 1000
            return abs(int(example.gold.facts[0][0]) - int(said))

        pairs = zip(examples, predictions, strict=True)
        rows = np.array([[1, 1 / (1 + apart(*pair))] for pair in pairs])
        return Tally(
            rows=rows,
            metrics=("near",),
            statistic=lambda sums: sums[..., 1:2] / sums[..., :1],
            basis=lambda some: [Basis(len(some))],
        )


FAMILY = AmountFamily()
'''
METRIC = '''
"""Whether an answer is as long as its reference, where that is not short."""

TITLE = "Length kept"


def score(gold, said):
    if len(gold.words) < 3:
        return None
    return min(len(said.words), len(gold.words)) / max(len(said.words), len(gold.words), 1)
'''
NEVER = "TITLE = 'Never asked'\n\n\ndef score(gold, said):\n    return None\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source tree, to which a stranger adds one file."""
    return shutil.copytree(SRC, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))


def report(
    sources: list[Path], folder: Path, card: dict[str, Any], **evaluate: Any
) -> tuple[Any, str]:
    """The facts and the report of a run on invented questions with a tiny model that writes."""
    folder.mkdir()
    rows = [
        {"id": f"n{i}", "patient": f"p{i}", "q": f"How much for {i} days?", "a": f"<{i * 10}>"}
        for i in range(1, 25)
    ]
    for part, some in {"train": rows[:16], "dev": rows[16:20], "test": rows[20:]}.items():
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (folder / f"{part}.jsonl").write_text(lines, "utf-8")
    (folder / "card.yaml").write_text(yaml.safe_dump(card), "utf-8")
    recipe = {
        "schema": 1,
        "name": "strange",
        "base": "bundled:tiny-lm",
        "data": {
            "doses": {
                "format": "instructions",
                **{part: f"{part}.jsonl" for part in ("train", "dev", "test")},
                "fields": {"id": "id", "group": "patient", "question": "q", "dose": "a"},
                "profile": "synthetic",
                "lang": "en",
            }
        },
        "tasks": [{"card": "card.yaml", "data": "doses", "generate": {"max_tokens": 8}}],
        "stages": [{"method": {"kind": "lora", "r": 2}, "epochs": 1, "batch": 8}],
        "evaluate": {"bootstrap": 20, **evaluate},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    done = warm.run("run", "recipe.yaml", cwd=folder, code=warm.of_tree(*sources))
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (folder / "runs").iterdir()
    facts = json.loads((run / "facts.json").read_text("utf-8"))
    return facts, (run / "report.md").read_text("utf-8")


def scores(facts: Any) -> dict[str, Any]:
    """Metric -> score of the tuned model."""
    return {score["metric"]: score for score in facts["reports"][-1]["scores"]}


@pytest.mark.training
def test_a_family_is_one_new_file(source: Path, tmp_path: Path) -> None:
    (source / "residency/tasks/families/amounts.py").write_text(FAMILY, "utf-8")
    card = {"name": "dose", "family": "amounts", "prompt": "{{ question }}", "answer": "{{ dose }}"}
    facts, page = report([source], tmp_path / "ward", card)
    assert 0 <= scores(facts)["near"]["value"] <= 1
    assert "| Near |" in page


@pytest.mark.training
def test_a_metric_is_one_new_file_and_says_where_it_does_not_apply(
    source: Path, tmp_path: Path
) -> None:
    folder = source / "residency/metrics/answers"
    (folder / "length_kept.py").write_text(METRIC, "utf-8")
    (folder / "never.py").write_text(NEVER, "utf-8")
    prompt = {"prompt": "{{ question }}", "answer": "{{ question }} {{ dose }}"}
    card = {"name": "dose", "family": "answers", **prompt, "metric": "length_kept"}
    facts, page = report([source], tmp_path / "ward", card, metrics=["never"])
    found = scores(facts)
    assert found["length_kept"]["n"] == 4
    assert found["never"]["value"] is None and found["never"].get("n", 0) == 0
    assert "| Length kept |" in page and "| Never asked | does not apply |" in page


@pytest.mark.training
def test_a_metric_of_another_package_is_named_by_its_function(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package/ward_metrics.py").write_text(METRIC, "utf-8")
    prompt = {"prompt": "{{ question }}", "answer": "{{ question }} {{ dose }}"}
    card = {"name": "dose", "family": "answers", **prompt}
    name = "ward_metrics:score"
    facts, _ = report([SRC, tmp_path / "package"], tmp_path / "ward", card, metrics=[name])
    assert 0 <= scores(facts)[name]["value"] <= 1
