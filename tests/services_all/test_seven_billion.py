"""Models of 7 billion weights in 4 bits, random ones, by llama.cpp on the processor: what its process
holds beside what `residency serve` says that it will. 4 GB of disk and 6 GB of memory, one shape
after the other."""

from __future__ import annotations

import json
import os
import subprocess
import time
import venv
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from residency.core.own_server import OwnServer
from residency.export import gguf, llama_server

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        os.environ.get("RESIDENCY_SERVICES") != "all", reason="make test-services-all runs this"
    ),
]
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".services" / "llama"
PACKAGES = ("xllamacpp==2026.10.11549", "gguf==0.19.0")
TOKENS, WRITTEN = 2048, 8
CARD = 6e9
"""Bytes that a card of 6 GB has."""
SHAPES = {
    "llama": ({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008},
              {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32}),
    "qwen2": ({"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944},
              {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}),
}  # fmt: skip
"""Of Llama 2 7B, every head of which keeps its own keys, and of Qwen2 7B, whose many words take the
most of what is beside the weights."""


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter that has llama.cpp."""
    if not (FOLDER / "made").exists():
        venv.create(FOLDER, with_pip=True, clear=True)
        subprocess.run([FOLDER / "bin/pip", "install", "--quiet", *PACKAGES], check=True)
        (FOLDER / "made").touch()
    return FOLDER / "bin/python"


def shape(architecture: str, folder: Path) -> dict[str, Any]:
    """What ``random_gguf`` is told; the configuration is in the folder as transformers keeps it."""
    import torch
    import transformers

    words, depth = SHAPES[architecture]
    config = transformers.AutoConfig.for_model(
        architecture, **words, **depth, tie_word_embeddings=False
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    header = {
        "context_length": 4096,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": config.hidden_size // config.num_attention_heads,
        "vocab_size": config.vocab_size,
    }
    tensors = {key: list(one.shape) for key, one in model.named_parameters()}
    return {"arch": architecture, "words": config.vocab_size, "header": header, "tensors": tensors}


def resident(pid: int) -> tuple[float, float]:
    """Bytes of a process in memory, now and at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (status.split(f"{key}:")[1].split()[0] for key in ("VmRSS", "VmHWM"))
    return 1024.0 * int(now), 1024.0 * int(most)


def ask(server: OwnServer, route: str, body: Any = None) -> dict[str, Any]:
    head = {"Authorization": f"Bearer {server.key}"}
    data = None if body is None else json.dumps(body).encode()
    asked = Request(f"http://127.0.0.1:{server.port}{route}", data, head)
    with urlopen(asked, timeout=3000) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def loaded(server: OwnServer) -> bool:
    try:
        return bool(ask(server, "/health")["status"])
    except OSError:
        return False


@pytest.mark.parametrize("architecture", SHAPES)
def test_seven_billion_weights_fit_a_card_of_6_gb_as_planned(
    architecture: str, python: Path, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    said, file = shape(architecture, tmp_path), tmp_path / gguf.MODEL
    (tmp_path / "shape.json").write_text(json.dumps(said))
    script = Path(__file__).with_name("random_gguf.py")
    subprocess.run([python, script, tmp_path / "shape.json", file], check=True, env={})
    token_bytes, words, layer = gguf.sizes(tmp_path)
    exported: Any = Namespace(token_bytes=token_bytes, words=words, layer=layer)
    planned = gguf.memory(exported, tmp_path, TOKENS, 1)
    how = ("--model", file, "--window", TOKENS, "--rows", 1)
    command = [str(one) for one in (python, Path(llama_server.__file__).resolve(), *how)]
    server = OwnServer(command, llama_server.KEY, {"OMP_NUM_THREADS": ""}, tmp_path / "log.txt")
    server.start()
    try:
        until = time.monotonic() + 600
        while not loaded(server):
            assert server.alive and time.monotonic() < until, (tmp_path / "log.txt").read_text()
            time.sleep(0.2)
        before, _ = resident(server.pid)
        prompt = [300 + number % 20000 for number in range(TOKENS - WRITTEN)]
        body = {"prompt": prompt, "n_predict": WRITTEN, "ignore_eos": True, "temperature": 0}
        took = ask(server, "/completion", body)["timings"]
        assert (took["prompt_n"], took["predicted_n"]) == (len(prompt), WRITTEN)
        now, most = resident(server.pid)
    finally:
        server.end()
        file.unlink()
    weights = sum(one[0] * (one[1] if one[1:] else 1) for one in said["tensors"].values())
    print(
        f"{architecture}, {weights / 1e9:.2f} billion: planned {planned[0] / 1e9:.2f} GB and "
        f"{planned[1] / 1e9:.2f} beside them; resident {before / 1e9:.2f} loaded, {now / 1e9:.2f} "
        f"after {TOKENS} tokens, {most / 1e9:.2f} at most; {took['prompt_per_second']:.1f} tokens/s "
        f"read, {took['predicted_per_second']:.1f} written"
    )
    record_property("resident over planned", round(now / sum(planned), 3))
    assert most < CARD and sum(planned) < CARD
    assert 0.9 * sum(planned) < now < 1.15 * sum(planned)
