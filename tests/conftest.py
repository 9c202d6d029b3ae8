"""Tiny models built in process, and no way out of this machine."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # as the command line does
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # for tiny models, threads cost more than they give

import ipaddress
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

hypothesis_settings.register_profile(
    "residency",
    max_examples=int(os.environ.get("RESIDENCY_EXAMPLES", "150")),
    deadline=None,  # a loaded machine is no fault
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
hypothesis_settings.register_profile(
    "fast", hypothesis_settings.get_profile("residency"), max_examples=25
)
hypothesis_settings.load_profile("residency")


@pytest.hookimpl(trylast=True)  # when folders have marked theirs
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests train or start servers come first: workers that take whole files then end
    together, on files of seconds."""
    slow = {
        item.path
        for item in items
        if any(map(item.get_closest_marker, ("training", "server", "services")))
    }
    items.sort(key=lambda item: item.path not in slow)


SENTENCES = (
    "Bệnh nhân nam 62 tuổi, ho khan và sốt 38.5 độ, đau bụng vùng thượng vị.",
    "Bệnh nhân được điều trị bằng metformin 500mg, ngày uống 2 lần.",
    "患者男性，咳嗽、发热三天，诊断为肺炎。",
    "予以阿莫西林治疗，体温38.5℃，无过敏史。",
    "The patient was admitted with pneumonia and takes metformin 500 mg twice daily.",
    "Blood pressure 120/80, no fever; asthma was treated with salbutamol.",
)
"""What the tokenizers of the tests are trained on: invented, in the three languages."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = (
            address[0] if isinstance(address, tuple) else "localhost"
        )  # a path: a socket of this machine
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise OSError("tests have no network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and os.getuid() == 0
    if (
        not mounted
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "none", place],
            capture_output=True,
            check=False,
        ).returncode
    ):
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random bases: ``electra``, ``roberta`` (both byte-level BPE), ``bert``
    (WordPiece)."""
    import torch
    import transformers

    root = tmp_path_factory.mktemp("bases")
    size = {
        "num_hidden_layers": 1,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "pad_token_id": 0,
        "vocab_size": 600,
    }
    configs = {
        "electra": transformers.ElectraConfig(
            **size, embedding_size=16, max_position_embeddings=64
        ),
        "roberta": transformers.RobertaConfig(
            **size, max_position_embeddings=64, bos_token_id=1, eos_token_id=2
        ),
        "bert": transformers.BertConfig(**size, max_position_embeddings=64),
    }
    for name, config in configs.items():
        torch.manual_seed(0)
        folder = root / name
        transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
        tokenizer = word_piece() if name == "bert" else byte_level()
        tokenizer.save_pretrained(folder)
    return {name: root / name for name in configs}


def byte_level() -> Any:
    """A byte-level BPE tokenizer."""
    import tokenizers
    import transformers

    backend = tokenizers.ByteLevelBPETokenizer()
    backend.train_from_iterator(
        SENTENCES,
        vocab_size=500,
        min_frequency=1,
        special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"],
    )
    return wrapped(transformers, tokenizers, backend._tokenizer)


def word_piece() -> Any:
    """A WordPiece tokenizer as BERT's, which keeps case and marks."""
    import tokenizers
    import transformers

    backend = tokenizers.BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    backend.train_from_iterator(SENTENCES, vocab_size=500, min_frequency=1, show_progress=False)
    return wrapped(transformers, tokenizers, backend._tokenizer)


def wrapped(transformers: Any, tokenizers: Any, backend: Any) -> Any:
    first, last = backend.token_to_id("[CLS]"), backend.token_to_id("[SEP]")
    backend.post_processor = tokenizers.processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


@pytest.fixture(scope="session")
def found(bases: dict[str, Path]) -> dict[str, Any]:
    """The tiny bases, resolved."""
    from residency.models.base import BaseModelSettings, resolve

    return {name: resolve(BaseModelSettings(id=str(path))) for name, path in bases.items()}
