"""What several processes hold in parts is, put together, what one process holds whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from shard_cases import case

from residency.core.types import StageResult
from residency.models.artefact import read
from residency.models.predictors import trained
from residency.train.trainer import train

ROOT = Path(__file__).parents[2]
NAMES = [
    *(f"bert {how}" for how in ("full", "lora", "dora", "freeze", "prefix", "checkpointed", "clipped")),
    *(f"tied {how}" for how in ("full", "lora", "answering")),
    *(f"untied {how}" for how in ("full", "lora", "freeze", "prefix", "padded", "checkpointed")),
]
TOLERANCE = 1e-5
"""Of losses and weights in fp32: sums over two processes are added in another order."""


@pytest.fixture(scope="module")
def still(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Bases of three layers without dropout: one that marks, and two that write, with the output tied to the embeddings or not."""
    root = tmp_path_factory.mktemp("still")
    source = next(path for path in (ROOT / "src").rglob("tiny-lm") if path.is_dir())
    encoder = transformers.BertConfig.from_pretrained(bases["bert"])
    encoder.num_hidden_layers, encoder.hidden_dropout_prob, encoder.attention_probs_dropout_prob = 3, 0.0, 0.0
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
        "tied": (transformers.AutoModelForCausalLM, transformers.LlamaConfig(**writer, tie_word_embeddings=True), source),
        "untied": (transformers.AutoModelForCausalLM, transformers.LlamaConfig(**writer), source),
    }
    for name, (kind, config, words) in made.items():
        torch.manual_seed(0)
        kind.from_config(config).save_pretrained(root / name)
        for file in words.iterdir():
            if not (root / name / file.name).exists() and file.suffix != ".safetensors":
                shutil.copy(file, root / name)
    return {name: str(root / name) for name in made}


def together(still: dict[str, str], out: Path, names: list[str], kill: int = 0) -> subprocess.CompletedProcess[str]:
    """The cases in two processes that share the model out."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).with_name("shard_cases.py")
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), str(script.parent)])
    return subprocess.run(
        [*command, str(script), json.dumps(still), str(out), json.dumps(names), str(kill)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def result(folder: Path) -> StageResult:
    import msgspec

    return msgspec.json.decode((folder / "out" / "stage.json").read_bytes(), type=StageResult)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (folder / "out").glob("*.safetensors")
    return safetensors.torch.load_file(path)


@pytest.fixture(scope="module")
def runs(still: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Case -> what one process made, and what two made."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    done = together(still, two, NAMES)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in NAMES:
        train(case(name, still, one / name))
    return {name: (one / name, two / name) for name in NAMES}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parts_learn_what_the_whole_learns(name: str, runs: dict[str, tuple[Path, Path]]) -> None:
    one, two = runs[name]
    alone, shared = result(one), result(two)
    assert (shared.processes, shared.trainable, shared.parameters) == (2, alone.trainable, alone.parameters)
    assert "sharded" in shared.settings and "sharded" not in alone.settings
    assert len(shared.history) == len(alone.history) > 10
    for ours, theirs in zip(shared.history, alone.history, strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)
    assert (shared.best, shared.best_epoch) == pytest.approx((alone.best, alone.best_epoch), abs=TOLERANCE)
    ours, theirs = tensors(two), tensors(one)
    assert ours.keys() == theirs.keys() and read(two / "out").files.keys() == read(one / "out").files.keys()
    for key, tensor in ours.items():
        assert tensor.dtype == theirs[key].dtype
        torch.testing.assert_close(tensor, theirs[key], atol=1e-4, rtol=1e-3, msg=key)
    assert trained(two / "out").info.digest == trained(one / "out").info.digest
