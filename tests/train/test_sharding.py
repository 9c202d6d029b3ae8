"""What several processes hold in parts is, put together, what one process holds whole."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from shard_cases import case, spoiled

import warm
from residency.core.errors import UserError
from residency.core.files import read_json
from residency.core.types import StageResult
from residency.models import sharding
from residency.models.artefact import read
from residency.models.predictors import trained
from residency.train.stage_trainer import StageTrainer
from residency.train.trainer import train

pytestmark = pytest.mark.training

ROOT = Path(__file__).parents[2]
NAMES = [
    *(
        f"bert {how}"
        for how in ("full", "lora", "dora", "freeze", "prefix", "checkpointed", "clipped")
    ),
    *(f"tied {how}" for how in ("full", "lora", "answering")),
    *(f"untied {how}" for how in ("full", "lora", "freeze", "prefix", "padded", "checkpointed")),
]
KILLED = ["bert full", "untied lora"]
TOLERANCE = 1e-5
"""Of losses and weights in fp32: sums over two processes are added in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Where all workers of the tests find what one of them has made; one at a time makes something
    there."""
    own = tmp_path_factory.getbasetemp()
    root = (own if worker_id == "master" else own.parent) / "sharing-out"
    root.mkdir(exist_ok=True)
    return root


@contextmanager
def once(folder: Path) -> Iterator[bool]:
    """Whether this worker is the first, and has to fill a folder; others wait until it is full."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not folder.exists()


@pytest.fixture(scope="module")
def still(bases: dict[str, Path], folder: Path) -> dict[str, str]:
    """Bases of three layers without dropout: one that marks, and two that write, with the output
    tied to the embeddings or not."""
    root = folder / "bases"
    with once(root) as first:
        if first:
            make_bases(bases, root.with_suffix(".partial"))
            root.with_suffix(".partial").rename(root)
    return {name: str(root / name) for name in ("bert", "tied", "untied")}


def make_bases(bases: dict[str, Path], root: Path) -> None:
    """Write them."""
    source = next(path for path in (ROOT / "src").rglob("tiny-lm") if path.is_dir())
    encoder = transformers.BertConfig.from_pretrained(bases["bert"])
    encoder.num_hidden_layers, encoder.hidden_dropout_prob, encoder.attention_probs_dropout_prob = (
        3,
        0.0,
        0.0,
    )
    writer: dict[str, Any] = {
        "vocab_size": len(transformers.AutoTokenizer.from_pretrained(source)),
        "hidden_size": 33,  # no multiple of 2, so that parts are of unequal size
        "head_dim": 6,
        "intermediate_size": 49,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
    }
    made = {
        "bert": (transformers.AutoModelForMaskedLM, encoder, bases["bert"]),
        "tied": (
            transformers.AutoModelForCausalLM,
            transformers.LlamaConfig(**writer, tie_word_embeddings=True),
            source,
        ),
        "untied": (transformers.AutoModelForCausalLM, transformers.LlamaConfig(**writer), source),
    }
    for name, (kind, config, words) in made.items():
        torch.manual_seed(0)
        kind.from_config(config).save_pretrained(root / name)
        for file in words.iterdir():
            if not (root / name / file.name).exists() and file.suffix != ".safetensors":
                shutil.copy(file, root / name)


def together(
    still: dict[str, str], out: Path, names: list[str], kill: int = 0
) -> subprocess.CompletedProcess[str]:
    """The cases in two processes that share the model out."""
    words = [json.dumps(still), out, json.dumps(names), kill]
    return warm.together(2, words, script=Path(__file__).with_name("shard_cases.py"))


def result(folder: Path) -> StageResult:
    return read_json(folder / "out" / "stage.json", StageResult)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (folder / "out").glob("*.safetensors")
    return safetensors.torch.load_file(path)


@pytest.fixture(scope="module")
def runs(still: dict[str, str], folder: Path) -> dict[str, tuple[Path, Path]]:
    """Case -> what one process made, and what two made."""
    root = folder / "runs"
    with once(root) as first:
        if first:
            partial = root.with_suffix(".partial")
            done = together(still, partial / "two", NAMES)
            assert done.returncode == 0, done.stderr[-3000:]
            for name in NAMES:
                train(case(name, still, partial / "one" / name))
            partial.rename(root)
    return {name: (root / "one" / name, root / "two" / name) for name in NAMES}


@pytest.mark.training
@pytest.mark.parametrize("name", NAMES)
def test_parts_learn_what_the_whole_learns(
    name: str, runs: dict[str, tuple[Path, Path]], still: dict[str, str]
) -> None:
    one, two = runs[name]
    alone, shared = result(one), result(two)
    assert (shared.processes, shared.trainable, shared.parameters) == (
        2,
        alone.trainable,
        alone.parameters,
    )
    assert "sharded" in shared.settings and "sharded" not in alone.settings
    assert len(shared.history) == len(alone.history) > 10
    for ours, theirs in zip(shared.history, alone.history, strict=True):
        epoch = ours[
            "epoch"
        ]  # counted in micro-batches, of which the last of a pass may be filled up
        assert ours == pytest.approx({**theirs, "epoch": epoch}, abs=TOLERANCE)
    assert shared.best == pytest.approx(alone.best, abs=TOLERANCE)
    ours, theirs = tensors(two), tensors(one)
    assert (
        ours.keys() == theirs.keys()
        and read(two / "out").files.keys() == read(one / "out").files.keys()
    )
    for key, tensor in ours.items():
        assert tensor.dtype == theirs[key].dtype
        torch.testing.assert_close(tensor, theirs[key], atol=1e-4, rtol=1e-3, msg=key)
    rows = case(name, still, one).dev
    said = [
        [answer.answer for answer in trained(folder / "out").predict(rows)] for folder in (one, two)
    ]
    assert said[0] == said[1] and len(said[0]) == 5


@pytest.mark.training
@pytest.mark.parametrize("name", KILLED)
def test_a_killed_run_goes_on_to_the_same_losses_and_so_does_one_process_from_its_state(
    name: str, runs: dict[str, tuple[Path, Path]], still: dict[str, str], tmp_path: Path
) -> None:
    one, two = runs[name]
    assert together(still, tmp_path / "cut", [name], kill=9).returncode != 0
    cut = tmp_path / "cut" / name
    assert [path.name for path in (cut / "work").iterdir()] == ["checkpoint-8"]
    shutil.copytree(cut, tmp_path / "other" / name)
    done = together(still, tmp_path / "cut", [name])
    assert done.returncode == 0, done.stderr[-3000:]
    assert result(cut).history == result(two).history
    ours, theirs = tensors(cut), tensors(two)
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []
    train(case(name, still, tmp_path / "other" / name))
    alone = result(tmp_path / "other" / name).history
    losses = [
        [entry.get("loss", 0.0) for entry in history] for history in (alone, result(one).history)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=TOLERANCE)


@pytest.mark.training
def test_a_loss_that_is_not_a_number_takes_all_parts_back(
    still: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "bert spoiled"
    done = together(still, tmp_path / "two", [name])
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setattr(StageTrainer, "compute_loss", spoiled([7]))
    train(case(name, still, tmp_path / "one" / name))
    alone, shared = result(tmp_path / "one" / name), result(tmp_path / "two" / name)
    assert (
        shared.recovered
        == "the loss is not a number at step 7, went back to step 4 with half the rate"
    )
    losses = [[entry.get("loss", 0.0) for entry in found.history] for found in (alone, shared)]
    assert losses[0] == pytest.approx(losses[1], abs=TOLERANCE)


def test_single_numbers_among_the_weights_are_refused_in_a_sentence() -> None:
    model = torch.nn.Linear(2, 2)
    model.scale = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(
        UserError, match=r"launch\.shard: this base has single numbers among its weights"
    ) as refused:
        sharding.shard(model, None)
    assert "\n" not in str(refused.value)


def test_layers_and_embeddings_are_lent_one_by_one_unless_they_are_tied(
    still: dict[str, str],
) -> None:
    kinds = {
        name: [
            type(unit).__name__
            for unit in sharding.units(
                transformers.AutoModelForCausalLM.from_pretrained(still[name])
            )
        ]
        for name in ("tied", "untied")
    }
    layers = ["LlamaDecoderLayer"] * 3
    assert kinds == {"tied": layers, "untied": [*layers, "Embedding", "Linear"]}
