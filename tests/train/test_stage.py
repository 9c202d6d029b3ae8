"""A stage's settings: literal ones are used literally, open ones follow size and data."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from residency.core.errors import UserError
from residency.core.part import parse
from residency.models.adapters import Full, Lora, Prefix
from residency.train.defaults import GENERATIVE_RATES, StagePlan, resolve, updates_per_epoch
from residency.train.stage import Stage

PUBLISHED = {
    "method": {"kind": "lora", "r": 8, "alpha": 16, "dropout": 0.05, "targets": "attention"},
    "epochs": 6,
    "micro_batch": 4,
    "accumulation": 8,
    "learning_rate": 2e-4,
    "head_learning_rate": 2e-4,
    "betas": [0.9, 0.95],
    "weight_decay": 0,
    "stop": {"patience": 2},
}


def plan(settings: dict[str, Any], parameters: int = 22_000_000, rows: int = 500) -> StagePlan:
    settings = {"method": {"kind": "lora"}} | settings
    return resolve(parse(Stage, settings, "stages[0]"), parameters, rows, "cpu", False)


@pytest.mark.parametrize("parameters", [5_000_000, 7_000_000_000])
def test_published_settings_are_used_literally(parameters: int) -> None:
    found = plan(PUBLISHED, parameters)
    assert (found.micro_batch, found.accumulation, found.batch) == (4, 8, 32)
    assert (found.learning_rate, found.head_learning_rate, found.epochs) == (2e-4, 2e-4, 6)
    assert found.steps == 96, "500 rows are 125 micro-batches, 16 steps an epoch"
    stage = parse(Stage, PUBLISHED, "stages[0]")
    assert (stage.betas, stage.weight_decay, stage.stop and stage.stop.patience) == (
        (0.9, 0.95),
        0,
        2,
    )
    assert stage.method == Lora(r=8, alpha=16, dropout=0.05, targets="attention")


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 32, 33, 40, 48, 50, 64, 96, 97, 128])
@pytest.mark.parametrize("parameters", [5_000_000, 7_000_000_000])
def test_the_effective_batch_is_the_one_asked_for(batch: int, parameters: int) -> None:
    assert plan({"batch": batch}, parameters).batch == batch


def test_micro_batch_and_accumulation_share_a_batch() -> None:
    assert plan({"batch": 64}).micro_batch == 32
    assert plan({"batch": 64}, 7_000_000_000).micro_batch == 4
    found = plan({"batch": 64, "micro_batch": 16})
    assert (found.micro_batch, found.accumulation) == (16, 4)
    found = plan({"batch": 64, "accumulation": 16})
    assert (found.micro_batch, found.accumulation) == (4, 16)


def test_steps_count_optimiser_steps_whatever_the_rows() -> None:
    found = plan({"steps": 10, "batch": 16}, rows=64)
    assert found.steps == 10 and found.epochs == 2.5
    assert plan({"epochs": 0.1, "batch": 1}, rows=30).steps == 3


def test_updates_count_the_unfinished_batch_at_the_end_of_an_epoch() -> None:
    assert [updates_per_epoch(rows, 4, 2) for rows in (1, 8, 9, 17)] == [1, 1, 2, 3]


def test_small_models_get_higher_rates_and_adapters_higher_than_full_tuning() -> None:
    sizes = (5_000_000, 22_000_000, 110_000_000, 7_000_000_000)
    lora = [plan({"method": {"kind": "lora"}}, size).learning_rate for size in sizes]
    full = [plan({"method": {"kind": "full"}}, size).learning_rate for size in sizes]
    assert lora == sorted(lora, reverse=True) and full == sorted(full, reverse=True)
    assert all(a > b for a, b in zip(lora, full, strict=True))


def test_prefixes_take_the_published_rate_and_quantised_large_bases_half_of_the_adapters() -> None:
    assert {
        plan({"method": {"kind": "prefix"}}, size).learning_rate
        for size in (5_000_000, 6_000_000_000)
    } == {1e-2}
    prefix = parse(Stage, {"method": {"kind": "prefix"}}, "s")
    rates = [
        resolve(prefix, size, 500, "cpu", False, kind=GENERATIVE_RATES).learning_rate
        for size in (5_000_000, 6_000_000_000)
    ]
    assert rates == [2e-1, 1e-2], "generative models"
    lora, freeze = Stage(method=Lora()), parse(Stage, {"method": {"kind": "freeze"}}, "s")
    large = 7_000_000_000
    rates = [
        resolve(
            lora, large, 500, "cuda", True, kind=GENERATIVE_RATES, quantised=quantised
        ).learning_rate
        for quantised in (False, True)
    ]
    assert rates == [2e-4, 1e-4]
    assert resolve(freeze, large, 500, "cuda", True, kind=GENERATIVE_RATES).learning_rate == 1e-5


def test_few_rows_are_passed_over_more_often() -> None:
    epochs = [plan({}, rows=rows).epochs for rows in (10, 500, 2000, 100_000)]
    assert epochs == [20, 9, 4, 3]


@pytest.mark.parametrize(
    ("device", "bf16", "expected"),
    [("cpu", False, "fp32"), ("cpu", True, "bf16"), ("cuda", False, "fp16")],
)
def test_precision_is_what_the_hardware_multiplies_fast(
    device: str, bf16: bool, expected: str
) -> None:
    assert resolve(Stage(method=Full()), 10, 10, device, bf16).precision == expected
    assert resolve(Stage(method=Full(), precision="fp32"), 10, 10, device, bf16).precision == "fp32"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 3, "steps": 5}, "give epochs or steps, not both"),
        ({"epochs": 0}, "epochs must be above 0"),
        ({"epochs": float("inf")}, "epochs: must be a finite number or auto"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"learning_rate": 0}, "learning rates must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate: must be a finite number or auto"),
        ({"head_learning_rate": -1e-3}, "learning rates must be above 0"),
        (
            {"batch": 64, "micro_batch": 4, "accumulation": 8},
            "batch is 64, but micro_batch x accumulation is 32",
        ),
        ({"batch": 10, "micro_batch": 4}, "batch is 10, which micro_batch 4 does not divide"),
        ({"batch": 10, "accumulation": 3}, "batch is 10, which accumulation 3 does not divide"),
        ({"method": {"kind": "lora", "rank": 8}}, "method.rank: unknown key"),
        ({"method": {"kind": "lora", "merges": True}}, "method.merges: unknown key"),
        ({"method": {"kind": "lorra"}}, "did you mean lora?"),
        ({"method": {"kind": "freeze", "last": 1, "first": 1}}, "give last or first, not both"),
        ({"replay": {"data": "d", "share": 1.0}}, "replay.share: must be less than 1"),
        ({"optimiser": "adam"}, "did you mean adamw?"),
        ({"learning_rat": 1}, "did you mean learning_rate?"),
    ],
)
def test_a_faulty_setting_is_answered_in_one_sentence(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(Stage, settings, "recipe.yaml")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_stage_is_named_after_its_method_or_by_the_user() -> None:
    assert Stage(method=Lora()).title(1) == "1-lora"
    assert Stage(method=Full()).title(2) == "2-full"
    assert Stage(name="warm").title(1) == "1-warm"


def test_the_matrices_of_a_projection_take_the_rate_of_an_adapter() -> None:
    """The rate of bare keys and values, more than a hundred times as high, would tear them apart."""
    rate = {
        name: resolve(
            Stage(method=method), 4_000_000, 500, "cpu", False, kind=GENERATIVE_RATES
        ).learning_rate
        for name, method in (
            ("bare", Prefix()),
            ("projected", Prefix(projection=64)),
            ("lora", Lora()),
        )
    }
    assert rate["projected"] == rate["lora"] < rate["bare"] / 100


@pytest.mark.parametrize("words", ["packing: off", "packing: on", "lexical: off", "packing: 'off'"])
def test_on_and_off_are_words_though_yaml_reads_them_as_true_and_false(words: str) -> None:
    key, _, word = words.partition(": ")
    stage = parse(Stage, yaml.safe_load(words), "stages[0]")
    assert getattr(stage, key) == word.strip("'")


def test_a_plan_knows_the_steps_that_auto_would_have_taken() -> None:
    few, auto = (
        resolve(Stage(method=Full(), **given), 118_000_000, 500, "cpu", True)
        for given in ({"steps": 52}, {})
    )
    assert (few.steps, few.usual) == (52, auto.steps) and auto.usual == auto.steps == 15 * 32
