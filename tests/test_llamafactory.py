"""Configurations of LLaMA-Factory become recipes that run; every key is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import residency
from residency.core.errors import UserError
from residency.models.adapters import Lora
from residency.recipe import Recipe
from residency.workflows import llamafactory
from residency.workflows.finished import finished_facts

INFO = {
    "pairs": {"file_name": "pairs.json", "columns": {"prompt": "q", "response": "a"}},
    "talks": {
        "file_name": "talks.json",
        "formatting": "sharegpt",
        "columns": {"messages": "turns"},
        "tags": {
            "role_tag": "who",
            "content_tag": "says",
            "user_tag": "patient",
            "assistant_tag": "doctor",
        },
        "hf_hub_url": "somewhere/else",
    },
}
PLAIN = {
    "model_name_or_path": "some/model",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 64,
    "lora_alpha": 128,
    "lora_target": "all",
    "dataset": "pairs",
    "template": "qwen",
    "cutoff_len": 512,
    "output_dir": "saves/plain",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "learning_rate": "2e-4",
    "num_train_epochs": 1.0,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
}
ANSWERING = {
    **{
        key: value
        for key, value in PLAIN.items()
        if key not in ("num_train_epochs", "lora_rank", "lora_alpha")
    },
    "dataset": "talks",
    "max_steps": 2,
    "predict_with_generate": True,
    "max_new_tokens": 8,
    "temperature": 0.7,
    "val_size": 0.1,
    "lora_target": "q_proj,v_proj",
}
FOUR_BIT = {**PLAIN, "quantization_bit": 4, "gradient_checkpointing": False}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    pairs = [{"q": f"What is illness {i}?", "a": f"It is number {i}."} for i in range(20)]
    talks = [
        {
            "turns": [
                {"who": "patient", "says": f"Pain {i}?"},
                {"who": "doctor", "says": f"Rest {i}."},
            ]
        }
        for i in range(20)
    ]
    for name, value in (("pairs", pairs), ("talks", talks), ("dataset_info", INFO)):
        (data / f"{name}.json").write_text(json.dumps(value), "utf-8")
    return tmp_path


def configured(folder: Path, value: dict[str, Any]) -> Path:
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump(value), "utf-8")
    return file


def test_a_plain_lora_configuration_keeps_its_settings(folder: Path) -> None:
    recipe, fates = llamafactory.import_recipe(configured(folder, PLAIN))
    stage = recipe.stages[0]
    assert isinstance(stage.method, Lora)
    assert (stage.method.r, stage.method.alpha, stage.method.targets) == (64, 128, "linear")
    assert (stage.micro_batch, stage.accumulation, stage.learning_rate, stage.epochs) == (
        2,
        4,
        2e-4,
        1.0,
    )
    assert (stage.schedule, stage.warmup, recipe.base.id, recipe.base.window) == (
        "cosine",
        0.1,
        "some/model",
        512,
    )
    assert recipe.name == "saves-plain"
    assert {fate.key for fate in fates} >= set(PLAIN)
    assert not any(fate.became == "not looked at" for fate in fates)


@pytest.mark.parametrize(
    "value", [PLAIN, ANSWERING, FOUR_BIT], ids=["plain", "answering", "four bit"]
)
def test_what_is_imported_runs_on_the_bundled_model(value: dict[str, Any], folder: Path) -> None:
    file = configured(folder, value)
    recipe, _ = llamafactory.import_recipe(
        file, base="bundled:tiny-lm", ignore=("quantization_bit",)
    )
    target = folder / "recipe.yaml"
    target.write_text(llamafactory.recipe_text(recipe), "utf-8")
    again = Recipe.load(
        target, ["stages[0].steps=1", "stages[0].epochs=auto", "evaluate.bootstrap=0"]
    )
    facts = finished_facts(residency.run(again, folder / "runs"))
    assert facts.reports[-1].n == 2


def test_what_would_change_the_result_is_refused_unless_named(folder: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"quantization_bit: 4- and 8-bit bases are not there yet.*--ignore quantization_bit",
    ):
        llamafactory.import_recipe(configured(folder, FOUR_BIT))


def test_unknown_keys_are_named_with_the_nearest(folder: Path) -> None:
    _, fates = llamafactory.import_recipe(
        configured(folder, {**PLAIN, "learnin_rate": 1, "zzz": 1})
    )
    said = {fate.key: fate.became for fate in fates}
    assert said["learnin_rate"] == "unknown key; did you mean learning_rate?"
    assert said["zzz"] == "unknown key; left out"


def test_keys_of_dataset_info_without_counterpart_are_named(folder: Path) -> None:
    _, fates = llamafactory.import_recipe(configured(folder, ANSWERING))
    said = {fate.key: fate.became for fate in fates}
    assert said["dataset_info.json: talks.hf_hub_url"] == "no counterpart; left out"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage": "dpo"}, "stage: 'dpo' is not imported"),
        ({"finetuning_type": "freeze"}, "finetuning_type: 'freeze' is not there yet"),
        ({"dataset": "pear"}, r"dataset: 'pear' is not in .*; allowed: pairs, talks"),
        ({"dataset": "pairs,talks"}, "entries are of several forms"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(
    change: dict[str, Any], said: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=said):
        llamafactory.import_recipe(configured(folder, {**PLAIN, **change}))
