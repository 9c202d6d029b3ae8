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
from residency.recipe import Recipe, json_schema
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
    "warmup_ratio": 0.0,
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


@pytest.mark.training
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


def test_four_bits_become_a_quantised_base(folder: Path) -> None:
    recipe, _ = llamafactory.import_recipe(configured(folder, FOUR_BIT))
    assert (recipe.base.quantise, recipe.stages[0].checkpointing) == ("nf4", False)


def test_what_a_configuration_leaves_out_has_the_defaults_of_the_tool(folder: Path) -> None:
    bare = {"model_name_or_path": "some/model", "stage": "sft", "dataset": "pairs"}
    recipe, fates = llamafactory.import_recipe(configured(folder, bare))
    stage, method, data = recipe.stages[0], recipe.stages[0].method, recipe.data["data"]
    assert isinstance(method, Lora)
    # as the documentation of its arguments gives them
    assert (method.r, method.alpha, method.dropout, method.targets) == (8, 16, 0.0, "linear")
    assert (recipe.base.window, recipe.seed) == (2048, 42)
    assert (stage.micro_batch, stage.accumulation, stage.epochs) == (8, 1, 3.0)
    assert (stage.learning_rate, stage.schedule, stage.warmup) == (5e-5, "linear", 0.0)
    assert (stage.weight_decay, stage.clip, stage.optimiser) == (0.0, 1.0, "adamw")
    assert (stage.precision, stage.packing, stage.stop) == ("fp32", "off", None)
    assert (data.shares, data.stop) == ({"train": 0.9, "dev": 0.0, "test": 0.1}, 0.0)
    said = {fate.key: fate.became for fate in fates}
    assert "LLaMA-Factory's default" in said["lora_rank"] and "twice" in said["lora_alpha"]
    assert said["learning_rate"].endswith("in stages[0].learning_rate")
    writing, _ = llamafactory.import_recipe(
        configured(folder, {**bare, "predict_with_generate": True})
    )
    asked = writing.tasks[0].generate
    assert (asked.temperature, asked.top_p, asked.top_k) == (0.95, 0.7, 50)


def test_the_table_holds_each_key_once_and_leads_to_keys_of_the_recipe() -> None:
    table = llamafactory.keys()
    groups = [set(table[name]) for name in ("carried", "harmless", "refused")]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert set(table["defaults"]) <= groups[0] and set(table["neutral"]) <= groups[2]
    schema = json_schema()
    for key, path in table["carried"].items():
        reached = [schema]
        for name in path.split("."):
            reached = [one for part in reached for one in _inside(part, name, schema["$defs"])]
        assert reached, (key, path)


def _inside(part: dict[str, Any], name: str, parts: dict[str, Any]) -> list[dict[str, Any]]:
    """What a key of a part may hold: parts, those of a list, those of a mapping."""
    found, todo = [], [part.get("properties", {}).get(name)]
    while todo:
        one = todo.pop()
        if not isinstance(one, dict):
            continue
        found.append(parts[one["$ref"].rpartition("/")[2]] if "$ref" in one else one)
        todo += [*one.get("anyOf", ()), *one.get("oneOf", ()), one.get("items")]
        todo.append(one.get("additionalProperties"))
    return found


BASIC = {"model_name_or_path": "some/model", "stage": "sft", "do_train": True, "dataset": "pairs"}
TAKEN: dict[str, tuple[dict[str, Any], str, Any]] = {
    "full": ({"finetuning_type": "full", "deepspeed": "z3.json"}, "method.kind", "full"),
    "freeze": ({"finetuning_type": "freeze", "freeze_trainable_layers": 3}, "method.last", 3),
    "first layers": (
        {"finetuning_type": "freeze", "freeze_trainable_layers": -3}, "method.first", 3,
    ),
    "qlora": ({"quantization_bit": 4, "quantization_method": "bnb"}, "", None),
    "dora": ({"use_dora": True}, "method.dora", True),
    "rslora": ({"use_rslora": True}, "method.rslora", True),
    "a published adapter": ({"adapter_name_or_path": "saves/one"}, "method.adapter", "saves/one"),
    "names of layers": ({"lora_target": "q_proj,v_proj"}, "method.targets", ["q_proj", "v_proj"]),
    "8-bit adam": ({"optim": "paged_adamw_8bit"}, "optimiser", "paged_adamw_8bit"),
    "checkpointing off": ({"disable_gradient_checkpointing": True}, "checkpointing", False),
    "warm-up of a stage of so many steps": ({"warmup_steps": 5, "max_steps": 50}, "warmup", 0.1),
    "constant": ({"lr_scheduler_type": "constant", "warmup_ratio": 0.1}, "warmup", 0.0),
    "the best model": (
        {"val_size": 0.1, "eval_steps": 20, "load_best_model_at_end": True}, "stop.every", 20,
    ),
    "the last model": ({"val_size": 0.1, "eval_steps": 20, "eval_strategy": "steps"}, "stop", None),
    "ray": ({"use_ray": True, "ray_num_workers": 4, "ray_run_name": "x"}, "accumulation", 4),
    "packs": ({"packing": True, "neat_packing": True}, "packing", "auto"),
    "last answers": ({"mask_history": True}, "loss_on", "last"),
    "what is published beside": (
        {"export_dir": "out", "export_size": 5, "push_to_hub": True, "hub_model_id": "one/two"},
        "method.kind", "lora",
    ),
    "a backend that is off": (
        {"use_kt": False, "kt_optimize_rule": "rule.yaml", "cpu_infer": 32, "chunk_size": 8192,
         "mode": "normal", "enable_qat": False, "qat_group_size": 32, "overlap_grad_reduce": True},
        "method.kind", "lora",
    ),
    "bf16": ({"bf16": True, "flash_attn": "fa2", "enable_liger_kernel": True}, "precision", "bf16"),
    "switches that are off": (
        {"use_galore": False, "galore_rank": 8, "use_badam": False, "badam_mode": "layer",
         "use_dft_loss": False, "pissa_init": False, "neftune_noise_alpha": None,
         "quantization_bit": None, "freeze_vision_tower": True, "mix_strategy": "concat"},
        "method.kind", "lora",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_there_is_carried_over(name: str, folder: Path) -> None:
    change, path, wanted = TAKEN[name]
    recipe, fates = llamafactory.import_recipe(configured(folder, {**BASIC, **change}))
    found: Any = recipe.stages[0].model_dump(mode="json")
    for key in filter(None, path.split(".")):
        found = found[key]
    assert not path or found == wanted
    assert {str(fate.key) for fate in fates} >= set(change)


REFUSED: list[dict[str, Any]] = [
    {"use_galore": True}, {"use_apollo": True}, {"use_badam": True}, {"use_adam_mini": True},
    {"use_muon": True}, {"use_dft_loss": True}, {"use_asft_loss": True}, {"use_eaft_loss": True},
    {"pissa_init": True}, {"loraplus_lr_ratio": 16}, {"use_llama_pro": True}, {"fp8": True},
    {"neftune_noise_alpha": 5}, {"shift_attn": True}, {"rope_scaling": "yarn"},
    {"mixture_of_depths": "convert"}, {"quantization_bit": 3}, {"use_kt": True},
    {"quantization_bit": 8, "quantization_method": "hqq"}, {"quantization_method": "eetq"},
    {"double_quantization": False, "quantization_bit": 4}, {"additional_target": "embed_tokens"},
    {"finetuning_type": "oft"}, {"lr_scheduler_type": "cosine_with_restarts"},
    {"optim": "adafactor"}, {"warmup_steps": 20}, {"train_on_prompt": True},
    {"mix_strategy": "interleave_over"}, {"resize_vocab": True}, {"image_max_pixels": 262144},
    {"video_max_pixels": 16384}, {"audio_sampling_rate": 16000}, {"freeze_vision_tower": False,
    "image_max_pixels": 1}, {"moe_aux_loss_coef": 0.1}, {"num_beams": 4},
    {"load_best_model_at_end": True, "metric_for_best_model": "rouge-l"},
    {"adapter_name_or_path": "a,b"}, {"default_system": "You help."}, {"lerning_rate": 1.0},
    {"stage": "dpo"}, {"stage": "kto"}, {"stage": "ppo"}, {"stage": "rm"}, {"stage": "pt"},
    {"dataset": None, "eval_dataset": "pairs"}, {"do_train": False}, {"dataset": "pictures"},
    {"dataset": "preferred"}, {"dataset": "called"}, {"tensor_model_parallel_size": 2},
    {"use_kt": True, "kt_optimize_rule": "rule.yaml", "cpu_infer": 32, "chunk_size": 8192},
    {"enable_qat": True, "qat_weight_dtype": "int8"}, {"train_from_scratch": True},
    {"new_special_tokens": "<a>,<b>"}, {"model_nam_or_path": "m"}, {"modes": "x"},
    {"generation_num_beams": 4}, {"virtual_pipeline_model_parallel_size": 2},
]  # fmt: skip


@pytest.mark.parametrize("change", REFUSED, ids=[str(one)[:60] for one in REFUSED])
def test_what_would_change_the_result_is_refused_by_name(
    change: dict[str, Any], folder: Path
) -> None:
    (folder / "data/dataset_info.json").write_text(
        json.dumps(
            {
                **INFO,
                "pictures": {"file_name": "pairs.json", "columns": {"images": "i"}},
                "preferred": {"file_name": "pairs.json", "ranking": True},
                "called": {
                    "file_name": "talks.json",
                    "formatting": "sharegpt",
                    "columns": {"tools": "t"},
                },
            }
        ),
        "utf-8",
    )
    with pytest.raises(UserError) as refused:
        llamafactory.import_recipe(configured(folder, {**BASIC, **change}))
    said = str(refused.value)
    names = {*change, *(str(one) for one in change.values())}
    assert any(name in said for name in names) and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            {"compute_environment": "LOCAL_MACHINE", "num_processes": 4},
            "an accelerate configuration",
        ),
        ({"distributed_type": "FSDP", "mixed_precision": "bf16"}, "an accelerate configuration"),
        ({"zero_optimization": {"stage": 3}}, "a DeepSpeed configuration"),
        ({"model_name_or_path": "m", "template": "x", "export_dir": "out"}, "for export"),
        ({"model_name_or_path": "m", "template": "x", "infer_backend": "vllm"}, "residency chat"),
        ({"model_name_or_path": "m", "task": "mmlu_test", "n_shot": 5}, "for a benchmark"),
        ({"model": "m", "peft_config": {"name": "lora"}, "train_dataset": "d"}, "v1 form"),
    ],
)
def test_configurations_of_other_tools_and_verbs_are_no_recipes(
    value: dict[str, Any], said: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=said):
        llamafactory.import_recipe(configured(folder, value))


def test_what_is_refused_can_be_left_out_by_name(folder: Path) -> None:
    file = configured(folder, {**BASIC, "use_galore": True, "galore_rank": 8})
    with pytest.raises(UserError, match=r"use_galore: GaLore is not there.*--ignore use_galore"):
        llamafactory.import_recipe(file)
    _, fates = llamafactory.import_recipe(file, ignore=("use_galore",))
    said = {fate.key: fate.became for fate in fates}
    assert said["use_galore"] == "left out: GaLore is not there"


def test_an_unknown_key_is_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(UserError, match=r"learnin_rate: is no key .*did you mean learning_rate\?"):
        llamafactory.import_recipe(configured(folder, {**PLAIN, "learnin_rate": 1}))


def test_keys_of_dataset_info_without_counterpart_are_named(folder: Path) -> None:
    _, fates = llamafactory.import_recipe(configured(folder, ANSWERING))
    said = {fate.key: fate.became for fate in fates}
    assert said["dataset_info.json: talks.hf_hub_url"] == "no counterpart; left out"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset": "pear"}, r"dataset: 'pear' is not in .*; allowed: pairs, talks"),
        ({"dataset": "pairs,talks"}, "entries are of several forms"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(
    change: dict[str, Any], said: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=said):
        llamafactory.import_recipe(configured(folder, {**PLAIN, **change}))
