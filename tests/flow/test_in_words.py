"""Entities and labels answered in words: trained, read back, scored as spans and labels, what could
not be read shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import residency
from residency import Recipe
from residency.core.progress import Silent
from residency.core.types import Labels, Note
from residency.models import predictors
from residency.models.generation import Generation
from residency.tasks.card import load_card
from residency.tasks.codec import conversation
from residency.tasks.examples import examples
from residency.workflows import predict
from residency.workflows.evaluate import examples_of_run
from residency.workflows.finished import finished_facts

DRUGS = ("aspirin", "heparin", "insulin", "warfarin")


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")


def rows(count: int) -> list[dict[str, Any]]:
    """Short notes with one drug each; every third is of cardiology."""
    made = []
    for number in range(count):
        drug = DRUGS[number % 4]
        text = f"Day {number}: {drug} given."
        start = text.index(drug)
        made.append(
            {
                "id": f"n{number}",
                "text": text,
                "entities": [{"start": start, "end": start + len(drug), "label": "drug"}],
                "labels": ["blood" if drug in ("heparin", "warfarin") else "other"],
            }
        )
    return made


def recipe(folder: Path, card: str, **task: Any) -> Recipe:
    lines(folder / "data" / "notes.jsonl", rows(80))
    return Recipe.from_mapping(
        {
            "schema": 1,
            "name": card,
            "base": "bundled:tiny-lm",
            "data": {
                "notes": {
                    "format": "jsonl",
                    "path": "data/notes.jsonl",
                    "lang": "en",
                    "profile": "synthetic",
                }
            },
            "tasks": [{"card": card, "data": "notes", "output": "text", **task}],
            "stages": [
                {"method": {"kind": "full"}, "steps": 100, "batch": 8, "learning_rate": 1e-3}
            ],
            "evaluate": {"bootstrap": 20},
        },
        root=folder,
    )


def test_entities_in_words_are_learned_scored_as_spans_and_counted_where_they_cannot_be_read(
    tmp_path: Path,
) -> None:
    run = residency.run(recipe(tmp_path, "ner", generate={"max_tokens": 40}), tmp_path / "runs")
    base, *_, tuned = finished_facts(run).reports
    f1 = {
        r.system.name: next(s.value for s in r.scores if s.metric == "span_f1")
        for r in (base, tuned)
    }
    assert f1["base"] == 0
    assert f1["tuned"] > 0.5
    assert base.failures == base.n
    assert tuned.failures < tuned.n / 2
    shown = (run.folder / "report.md").read_text("utf-8")
    assert (
        "base: 100.0 % of the answers were not in the form that was asked for; 0 of 8 could be "
        "repaired"
    ) in shown

    lines(tmp_path / "ask.jsonl", [{"id": "x", "text": "Day 90: insulin given."}])
    predict.predict_file(
        next(run.folder.glob("train/1-*")),
        tmp_path / "ask.jsonl",
        tmp_path / "out.jsonl",
        tracker=Silent(),
    )
    (found,) = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert [(one["label"], one["text"]) for one in found["entities"]] == [("drug", "insulin")]


def test_one_label_is_ranked_among_the_cards_and_never_unreadable(tmp_path: Path) -> None:
    plan = recipe(tmp_path, "classify")
    run = residency.run(plan, tmp_path / "runs")
    base, *_, tuned = finished_facts(run).reports
    assert (base.failures, tuned.failures, tuned.repaired) == (0, 0, 0)
    score = {
        r.system.name: next(s.value for s in r.scores if s.metric == "accuracy")
        for r in (base, tuned)
    }
    assert score["tuned"] > 0.9

    predictor = predictors.trained(next(run.folder.glob("train/1-*")))
    asked = examples_of_run(run, "test")
    ranked = list(predictor.predict(asked))
    for prediction in ranked:
        assert isinstance(prediction.answer, Labels)
        assert prediction.answer.labels[0] in ("blood", "other")
        assert 0.5 <= prediction.answer.scores[0] <= 1
    predictor.generation = Generation(max_tokens=8, choose="write")  # type: ignore[union-attr]
    written = [prediction.answer for prediction in predictor.predict(asked)]
    assert [one and one.labels for one in written if isinstance(one, Labels)] == [
        one.answer.labels for one in ranked if isinstance(one.answer, Labels)
    ]


@pytest.mark.parametrize(
    ("lang", "words"),
    [("vi", "Liệt kê"), ("zh-CN", "列表"), ("en", "List the"), ("fr", "List the")],
)
def test_the_question_is_put_in_the_language_of_the_note(lang: str, words: str) -> None:
    note = Note(id="n", text="x", profile="synthetic", lang=lang)
    (example,) = examples([note], load_card("clinical"))
    assert words in conversation(example, load_card("clinical"))[-1].text
