"""The recipes of published settings: valid, literal, as the guide's table says, and runnable at
reduced size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from residency.recipe import Recipe
from residency.train.defaults import resolve

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = sorted((ROOT / "recipes/published").glob("*.yaml"))
GUIDE = (ROOT / "docs/guide/published-settings.md").read_text("utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in GUIDE.split("## Where each value comes from")[1].split("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| recipe")
]


def written(recipe: str, key: str) -> Any:
    """What the file says, as it is written there."""
    value: Any = yaml.safe_load((ROOT / f"recipes/published/{recipe}.yaml").read_text("utf-8"))
    for step in re.split(r"[.\[\]]+", key):
        if step:
            value = value[int(step)] if isinstance(value, list) else value[step]
    return value


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_recipe_is_valid_and_in_the_guide(path: Path) -> None:
    assert Recipe.load(path).name == path.stem
    assert f"| `{path.stem}` |" in GUIDE and path.stem in {row[0] for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_the_table_says_what_the_file_says(row: list[str]) -> None:
    recipe, key, value, source = row
    assert written(recipe, key) == yaml.safe_load(value)
    assert source


def test_both_batches_of_the_account_that_contradicts_itself_can_be_had() -> None:
    path = ROOT / "recipes/published/lora-500-records.yaml"
    for overrides, batch in (([], 32), (["stages[0].accumulation=16"], 64)):
        stage = Recipe.load(path, overrides).stages[0]
        assert resolve(stage, 7_000_000_000, 400, "cuda", True).batch == batch


def test_the_two_runs_of_one_account_differ_in_base_and_rate_alone() -> None:
    lora, qlora = (
        yaml.safe_load((ROOT / f"recipes/published/{n}-500-records.yaml").read_text())
        for n in ("lora", "qlora")
    )
    qlora["name"], qlora["base"] = lora["name"], lora["base"]
    qlora["stages"][0].update(learning_rate=2e-4, head_learning_rate=2e-4)
    assert lora == qlora


# At reduced size, on the bundled bases

SHORT = [
    "stages[0].micro_batch=2",
    "stages[0].accumulation=1",
    "evaluate.bootstrap=0",
    "evaluate.limit=2",
]
FEW = [*SHORT, "stages[0].steps=2", "stages[0].precision=fp32", "stages[0].stop=null"]


def notes(folder: Path) -> str:
    import json

    from residency.synth.clinical_notes import records

    rows = [
        {
            "id": n.id,
            "text": n.text,
            "entities": [{"start": s.start, "end": s.end, "label": s.label} for s in n.spans],
        }
        for n in records("vi", 20, seed=1)
    ]
    return _lines(folder / "notes.jsonl", [json.dumps(row) for row in rows])


def _lines(path: Path, rows: list[str]) -> str:
    path.write_text("\n".join(rows), "utf-8")
    return str(path)


def asked(folder: Path, name: str, form: str) -> str:
    import json

    made = []
    for i in range(20):
        question, answer = f"Case {i}: which drug?", ("metformin", "insulin")[i % 2]
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        made.append(
            {
                "alpaca": {"instruction": question, "input": "", "output": answer},
                "messages": {"messages": turns},
                "promptcblue": {
                    "input": question,
                    "target": answer,
                    "type": "cls",
                    "answer_choices": [],
                    "sample_id": f"{name}{i}",
                },
                "instructions": {
                    "patient": f"woman of {i + 30}",
                    "symptoms": "cough",
                    "results": "none",
                    "diagnosis": answer,
                },
            }[form]
        )
    return _lines(folder / f"{name}.jsonl", [json.dumps(row) for row in made])


def reduced(name: str, folder: Path) -> list[str]:
    """The overrides with which a recipe runs in seconds."""
    lm = "base.id=bundled:tiny-lm"
    epochs = "stages[0].epochs=auto"
    if name in ("lora-500-records", "qlora-500-records"):
        return [
            lm,
            f"data.records.path={notes(folder)}",
            "data.records.profile=synthetic",
            epochs,
            *FEW,
        ]
    if name == "full-encoder":
        given = f"data.records.path={notes(folder)}"
        return ["base=bundled:tiny-encoder", given, "data.records.profile=synthetic", epochs, *FEW]
    if name == "medglm-two-stage":
        general, records = asked(folder, "general", "alpaca"), asked(folder, "records", "messages")
        short = [
            "stages[1].epochs=auto",
            "stages[1].steps=2",
            "stages[1].batch=2",
            "stages[1].stop=null",
        ]
        return [
            lm,
            f"data.general.path={general}",
            f"data.records.path={records}",
            "data.records.names={group: ''}",
            *FEW,
            *short,
        ]
    if name == "promptcblue-p-tuning-v2":
        file = asked(folder, "rows", "promptcblue")
        return [
            lm,
            f"data.promptcblue.train={file}",
            f"data.promptcblue.test={asked(folder, 'dev', 'promptcblue')}",
            *FEW,
        ]
    return [
        lm,
        "base.window=256",
        f"data.consultations.path={asked(folder, 'table', 'instructions')}",
        epochs,
        *FEW,
    ]


@pytest.mark.training
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_recipe_runs_at_reduced_size(path: Path, tmp_path: Path) -> None:
    import residency
    from residency.workflows.finished import finished_facts

    run = residency.run(Recipe.load(path, reduced(path.stem, tmp_path)), tmp_path / "runs")
    facts = finished_facts(run)
    assert [stage.method for stage in facts.stages] == [
        stage.method.kind for stage in Recipe.load(path).stages
    ]
    assert all(stage.trainable and stage.mask.trained for stage in facts.stages)
    assert facts.reports[-1].n == 2
