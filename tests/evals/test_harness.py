"""A model of ours as lm-evaluation-harness asks it; the harness itself where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import UserError
from residency.core.types import Turn
from residency.evals.harness import Scorer, model_of
from residency.models.base import BaseModelSettings, resolve
from residency.models.causal import CausalPredictor
from residency.models.generation import Generation, TokenLimits
from residency.tasks.card import load_card

TASK = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
output_type: multiple_choice
test_split: test
doc_to_text: "Which colour is {{thing}}?"
doc_to_choice: [red, green, blue]
doc_to_target: "{{colour}}"
metric_list: [{metric: acc}]
"""


@pytest.fixture(scope="module")
def predictor() -> CausalPredictor:
    base = resolve(BaseModelSettings(id="bundled:tiny-lm"), Path())
    return CausalPredictor.untuned(base, load_card("qa"), TokenLimits(), Generation())


def by_hand(predictor: CausalPredictor, before: list[int], after: list[int]) -> tuple[float, bool]:
    """One token after the other, from the model's own probabilities."""
    import torch

    total, greedy, ids = 0.0, True, list(before)
    with torch.no_grad():
        for token in after:
            chances = predictor.model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
            total += float(chances[token].log())
            greedy &= int(chances.argmax()) == token
            ids.append(token)
    return total, greedy


def ids(predictor: CausalPredictor, text: str) -> list[int]:
    found: list[int] = predictor.chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_likelihood_is_that_of_the_continuation_behind_the_question(
    predictor: CausalPredictor,
) -> None:
    prompt = predictor.chat.prompt((Turn(role="user", text="Fever?"),), 500)[0]
    assert prompt is not None
    found = Scorer(predictor).likelihood("Fever?", " yes, since Monday")
    total, greedy = by_hand(predictor, prompt, ids(predictor, "yes, since Monday"))
    assert found == (pytest.approx(total, abs=1e-3), greedy)
    bare = Scorer(predictor, chat=False).likelihood("Fever? ", "yes")
    assert bare[0] == pytest.approx(
        by_hand(
            predictor,
            ids(predictor, "Fever?"),
            ids(predictor, "Fever? yes")[len(ids(predictor, "Fever?")) :],
        )[0],
        abs=1e-3,
    )


def test_what_is_written_is_the_likeliest_and_ends_where_it_is_told(
    predictor: CausalPredictor,
) -> None:
    scorer = Scorer(predictor)
    words = scorer.written("What is fever?", [], 12)
    assert words and scorer.likelihood("What is fever?", words)[1]
    sign = words[len(words) // 2]
    assert scorer.written("What is fever?", [sign], 12) == words.partition(sign)[0]


def test_a_long_text_is_read_in_windows(predictor: CausalPredictor) -> None:
    scorer = Scorer(predictor)
    text = "no fever since Monday"
    assert scorer.rolling(text) == pytest.approx(
        by_hand(predictor, [scorer.first], ids(predictor, text))[0], abs=1e-3
    )
    scorer.window, tokens = 4, ids(predictor, text)
    parts = [
        ([scorer.first], tokens[:3]),
        *(([tokens[at - 1]], tokens[at : at + 3]) for at in range(3, len(tokens), 3)),
    ]
    assert scorer.rolling(text) == pytest.approx(
        sum(by_hand(predictor, *part)[0] for part in parts), abs=1e-3
    )


def test_the_harness_that_is_missing_is_named(
    predictor: CausalPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(UserError, match="lm-eval is not installed"):
        model_of(predictor)


def test_a_task_of_the_harness_runs_on_our_model(
    predictor: CausalPredictor, tmp_path: Path
) -> None:
    lm_eval: Any = pytest.importorskip(
        "lm_eval", reason="lm-eval is not installed (docs/guide/evaluation.md)"
    )
    from lm_eval.tasks import TaskManager

    things = {"blood": "red", "grass": "green", "the sky": "blue", "a leaf": "green"}
    rows = [{"thing": thing, "colour": colour} for thing, colour in things.items()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "colours.yaml").write_text(
        TASK.replace("FILE", str(tmp_path / "rows.jsonl")), "utf-8"
    )
    found = lm_eval.simple_evaluate(
        model=model_of(predictor),
        tasks=["colours"],
        task_manager=TaskManager(include_path=str(tmp_path)),
        bootstrap_iters=0,
    )
    scorer = Scorer(predictor)
    likeliest = [
        max(
            ("red", "green", "blue"),
            key=lambda one: scorer.likelihood(f"Which colour is {row['thing']}?", one)[0],
        )
        for row in rows
    ]
    right = sum(one == row["colour"] for one, row in zip(likeliest, rows, strict=True))
    assert found["results"]["colours"]["acc,none"] == right / 4
