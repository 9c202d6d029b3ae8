"""lm-evaluation-harness asks a served model through both of its local backends, and finds what it
finds in process.

``RESIDENCY_TEST_LM_EVAL`` names the interpreter of an environment that has it: see
docs/guide/evaluation.md, with ``lm-eval[api]``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PYTHON = os.environ.get("RESIDENCY_TEST_LM_EVAL", "")
pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not PYTHON, reason="RESIDENCY_TEST_LM_EVAL names no interpreter that has lm-eval"
    ),
]
HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
THINGS = {
    "máu": "đỏ",
    "lá cây": "xanh",
    "血液": "红",
    "草": "绿",
    "blood": "red",
    "grass": "green",
    "the sky": "blue",
    "a leaf": "green",
    "bile": "green",
    "a vein": "blue",
    "a rash": "red",
    "pus": "green",
}
CHOICES = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
output_type: multiple_choice
test_split: test
doc_to_text: "Which colour is {{thing}}?"
doc_to_choice: [red, green, blue, đỏ, xanh, 红, 绿, a colour that nobody has seen]
doc_to_target: "{{colour}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
OPEN = """
task: open
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
output_type: generate_until
test_split: test
doc_to_text: "Which colour is {{thing}}?"
doc_to_target: "{{colour}}"
generation_kwargs: {until: ["\\n\\n", "###"], max_gen_toks: 12, do_sample: false, temperature: 0}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """A LoRA adapter whose answers are not the base's."""
    import torch

    from residency.models import artefact as made
    from residency.models.adapters import Lora, method_of
    from residency.models.base import BaseModelSettings, resolve
    from residency.models.generation import Generation, TokenLimits
    from residency.tasks.card import load_card

    base, card = resolve(BaseModelSettings(id="bundled:tiny-lm")), load_card("qa")
    torch.manual_seed(5)
    model: Any = method_of(Lora(r=4)).attach(made.fresh(base, card, "text")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    writing = made.GenerativeSettings(
        chat=made.chat(base, TokenLimits()), generation=Generation(max_tokens=24)
    )
    made.save(tmp_path / "words", model, base, card, Lora(r=4), "synthetic", writing)
    return tmp_path / "words"


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Two invented tasks, offline."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"thing": thing, "colour": colour} for thing, colour in THINGS.items()]
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
    )
    for name, text in (("colours", CHOICES), ("open", OPEN)):
        (folder / f"{name}.yaml").write_text(
            text.replace("FILE", str(folder / "rows.jsonl")), "utf-8"
        )
    return folder


@pytest.fixture
def server(artefact: Path, tmp_path: Path) -> Iterator[Any]:
    sys.path.insert(0, str(HERE.parent / "serve"))
    from serve_tools import Started

    made = Started(tmp_path, str(artefact), "limits.per_second=1000")
    yield made
    made.client.close()
    made.end()


def test_scores_over_http_are_those_in_process(artefact: Path, server: Any, tasks: Path) -> None:
    from residency.models.artefact import read

    path = os.pathsep.join([str(SOURCE), os.environ.get("RESIDENCY_TEST_LM_EVAL_PATH", "")])
    done = subprocess.run(
        [
            PYTHON,
            str(HERE / "harness_asked.py"),
            str(artefact),
            server.address,
            str(read(artefact).base.path),
            str(tasks),
        ],
        env={
            **os.environ,
            "PYTHONPATH": path,
            "OPENAI_API_KEY": server.key(),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HOME": str(tasks / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert "RESULT" in done.stdout, (done.stdout[-2000:], done.stderr[-4000:])
    found = json.loads(done.stdout.rpartition("RESULT")[2])
    choices, answers = found["choices"], found["answers"]
    mine = choices.pop("in process")
    assert len(mine["said"]) == len(THINGS) and all(len(one) == 8 for one in mine["said"])
    for way, theirs in choices.items():
        assert theirs["scores"] == pytest.approx(mine["scores"], abs=1e-4), way
        for ours, other in zip(mine["said"], theirs["said"], strict=True):
            assert [float(p) for p, _ in other] == pytest.approx(
                [float(p) for p, _ in ours], abs=1e-4
            ), way
            assert [greedy for _, greedy in other] == [greedy for _, greedy in ours], way
    assert answers["served"]["scores"] == pytest.approx(answers["in process"]["scores"], abs=1e-4)
    assert answers["served"]["said"] == answers["in process"]["said"]
    assert any(one[0] for one in answers["served"]["said"])
