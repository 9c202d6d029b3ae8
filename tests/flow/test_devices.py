"""Several processes learn what one process learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import warm
from conftest import CLI, ROOT

CHANGES = [
    "evaluate.bootstrap=0",
    "evaluate.baselines=[]",
    "stages[0].precision=fp32",
    "stages[0].batch=8",
    "stages[0].micro_batch=2",
]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT / "src"),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore",
}


def torchrun(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *TORCHRUN, *map(str, command)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )


def without_dropout(recipe: Path, base: Path) -> None:
    """Processes draw noise of their own, so only what has none can be compared."""
    config = json.loads((base / "config.json").read_text("utf-8"))
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        config[name] = 0.0
    folder = recipe.parent / "still"
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    given = yaml.safe_load(recipe.read_text("utf-8"))
    given["base"] = str(folder)
    given["stages"] = [{"method": {"kind": "lora", "r": 4}, "epochs": 3, "stop": {"patience": 5}}]
    recipe.write_text(yaml.safe_dump(given), "utf-8")


def losses(runs: Path) -> tuple[list[float], dict[str, Any], dict[str, Any]]:
    (manifest,) = runs.glob("*/manifest.json")
    (stage,) = manifest.parent.glob("train/*/stage.json")
    found = json.loads(stage.read_text("utf-8"))
    return (
        [entry["loss"] for entry in found["history"] if "loss" in entry],
        found,
        json.loads(manifest.read_text("utf-8")),
    )


@pytest.mark.training
def test_two_processes_have_the_losses_of_one_and_the_first_alone_writes(
    project: Path, tiny: Path, tmp_path: Path, cli: CLI
) -> None:
    recipe = project / "recipe.yaml"
    without_dropout(recipe, tiny)
    words = "stages[0].lexical=off"  # two processes of our own have a CRF beside the encoder
    cli("run", recipe, "--runs", tmp_path / "one", *CHANGES, words, check=0)
    two = warm.run(
        "run",
        recipe,
        "--runs",
        tmp_path / "two",
        *CHANGES,
        "launch.processes=2",
    )
    assert two.returncode == 0, two.stderr
    command = ["-m", "residency.cli", "run", recipe, "--runs", tmp_path / "own"]
    own = torchrun(*command, *CHANGES, words)
    assert own.returncode == 0, own.stderr
    alone, stage, manifest = losses(tmp_path / "one")
    assert manifest.get("launch", "") == "" and stage.get("processes", 1) == 1
    for name in ("two", "own"):
        together, stage, manifest = losses(tmp_path / name)
        assert together == pytest.approx(alone, abs=1e-5)
        assert (stage["processes"], manifest["launch"], manifest["status"]) == (
            2,
            "2 processes",
            "done",
        )
        assert stage["settings"]["batch"] == "8 (2 x 2 x 2 processes)"


@pytest.mark.training
def test_a_batch_that_cannot_be_shared_out_is_refused_in_a_sentence(
    project: Path, tmp_path: Path
) -> None:
    done = warm.run(
        "run",
        project / "recipe.yaml",
        "--runs",
        tmp_path,
        "stages[0].batch=7",
        "launch.processes=2",
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        "residency: stages.batch: 7 rows cannot be shared out among 2 processes; give a multiple "
        "of 2."
    )


@pytest.mark.training
def test_two_stages_whose_model_is_shared_out_have_the_losses_and_say_the_same_as_of_one_process(
    project: Path, tiny: Path, tmp_path: Path
) -> None:
    recipe = project / "recipe.yaml"
    without_dropout(recipe, tiny)
    given = yaml.safe_load(recipe.read_text("utf-8"))
    full = {"name": "whole", "method": {"kind": "full"}, "epochs": 2, "stop": {"patience": 5}}
    given["stages"] = [
        full,
        {"method": {"kind": "lora", "r": 4}, "epochs": 2, "stop": {"patience": 5}},
    ]
    for stage in given["stages"]:
        stage.update(precision="fp32", batch=8, micro_batch=2)
    given["launch"] = {"shard": True}
    recipe.write_text(yaml.safe_dump(given), "utf-8")
    command = ["run", recipe, "evaluate.bootstrap=0", "evaluate.baselines=[]"]
    alone = warm.run(*command, "--runs", tmp_path / "one")
    assert alone.returncode == 1
    assert alone.stderr.strip().splitlines()[-1] == (
        "residency: launch.shard: one process has nobody to share with; set launch.processes to 2 "
        "or more, or shard: false."
    )
    assert not list((tmp_path / "one").glob("*/train"))
    for name, count, words in (
        ("one", 1, ["launch.shard=false"]),
        ("two", 1, ["launch.processes=2"]),
        ("own", 2, []),  # as torchrun would have started them
    ):
        done = warm.together(count, [*command, *words, "--runs", tmp_path / name])
        assert done.returncode == 0, done.stderr

    def found(name: str) -> tuple[list[float], list[float], str]:
        (manifest,) = (tmp_path / name).glob("*/manifest.json")
        stages = [
            json.loads(path.read_text("utf-8"))
            for path in sorted(manifest.parent.glob("train/*/stage.json"))
        ]
        assert len(stages) == 2
        history = [
            entry["loss"] for stage in stages for entry in stage["history"] if "loss" in entry
        ]
        said = [
            json.loads(path.read_text("utf-8"))
            for path in sorted(manifest.parent.glob("train/*/canary.json"))
        ]
        assert len(said) == 2
        chances = [value for one in said for text in one["values"] for value in text]
        return history, chances, json.loads(manifest.read_text("utf-8")).get("launch", "")

    losses, chances, launched = found("one")
    assert launched == "" and len(losses) > 10 and len(chances) > 100
    for name in ("two", "own"):
        shared = found(name)
        assert shared[0] == pytest.approx(losses, abs=1e-5)
        assert shared[1] == pytest.approx(chances, abs=1e-4)
        assert shared[2] == "2 processes, sharded"
