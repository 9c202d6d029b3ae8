"""A minute base model, records and recipes to run whole flows on in seconds."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import warm
from residency.core.types import Note
from residency.synth.clinical_notes import records

ROOT = Path(__file__).resolve().parents[2]
SECRET = "Zyxwvutsrq"
"""A word planted in notes; it must turn up nowhere outside the data."""
CLI = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole flows train. And peft asks transformers for a name that it will drop; that is theirs to
    settle."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.training)
            item.add_marker(
                pytest.mark.filterwarnings(
                    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
                )
            )


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """A minute model is slower on several threads; what the command line silences by the
    environment is silent here."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Electra of one layer with a byte-level tokenizer, fresh weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import ElectraConfig, ElectraForMaskedLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base") / "tiny"
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([note.text for note in records("vi", 40, seed=3)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {
        "pad": "<pad>",
        "bos": "<s>",
        "eos": "</s>",
        "unk": "<unk>",
        "mask": "<mask>",
        "cls": "<s>",
        "sep": "</s>",
    }
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in names.items()}
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=tokenizer.get_vocab_size(),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=0,
    )
    ElectraForMaskedLM(config).save_pretrained(folder, safe_serialization=True)
    return folder


def row(note: Note) -> dict[str, Any]:
    return {
        "id": note.id,
        "group": note.group,
        "lang": note.lang,
        "kind": note.kind,
        "origin": note.origin,
        "text": f"{note.text}\n{SECRET}",
        "entities": [
            {"start": s.start, "end": s.end, "label": s.label, "text": s.quote} for s in note.spans
        ],
    }


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), "utf-8")
    return path


def recipe_of(base: Path | str, **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "flow",
        "seed": 7,
        "base": str(base),
        "data": {"notes": {"format": "jsonl", "path": "data/notes.jsonl", "lang": "vi"}},
        "tasks": [{"card": "clinical", "data": "notes"}],
        "stages": [{"method": {"kind": "lora", "r": 4}, "steps": 10, "batch": 8}],
        "evaluate": {"bootstrap": 20},
        **changes,
    }


def write_recipe(folder: Path, recipe: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), "utf-8")
    return path


@pytest.fixture
def project(tmp_path: Path, tiny: Path) -> Path:
    """A folder with 60 invented notes and a recipe that learns from them."""
    folder = tmp_path / "project"
    lines(folder / "data" / "notes.jsonl", [row(note) for note in records("vi", 60, seed=1)])
    write_recipe(folder, recipe_of(tiny))
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> tuple[Path, Path]:
    """A project and its finished run; tests only read it, or write below ``evaluations``."""
    import residency
    from residency.recipe import Recipe

    folder = tmp_path_factory.mktemp("finished") / "project"
    lines(folder / "data" / "notes.jsonl", [row(note) for note in records("vi", 60, seed=1)])
    lines(folder / "data" / "other.jsonl", [row(note) for note in records("vi", 10, seed=2)])
    recipe = Recipe.load(write_recipe(folder, recipe_of(tiny)))
    return folder, residency.run(recipe, folder / "runs").folder


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CLI:
    """``residency ARGUMENTS`` through the console script's own function, in this process."""

    def call(*arguments: object, check: int | None = None) -> subprocess.CompletedProcess[str]:
        from residency.cli import main

        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(sys, "argv", ["residency", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        code = left.value.code if isinstance(left.value.code, int) else 0
        assert check is None or code == check, out + err
        return subprocess.CompletedProcess([], code, out, err)

    return call


def process(
    *arguments: object, cwd: Path | None = None, code: str = ""
) -> subprocess.CompletedProcess[str]:
    """``residency ARGUMENTS`` in a process of its own that begins cold, after ``code``; ``warm.run`` is
    cheaper where that is not what is tested."""
    program = (
        f"import sys; {code}\nfrom residency.cli import main\nsys.argv[0] = 'residency'; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "80",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


class Killable(warm.Process):
    """What ``scripts/kill_test.py`` starts, waits for and kills."""

    def __init__(self, recipe: Path, runs: Path, checkpoint: float) -> None:
        code = f"import residency.train.judge as j; j.CHECKPOINT_SECONDS = {checkpoint}"
        said = runs.with_suffix(".said")
        super().__init__("run", recipe, "--runs", runs, out=said, err=said, code=code)

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        self.returncode = self.wait(timeout)
        return b"", self.err.read_bytes()


@pytest.fixture
def killed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[Path], str]:
    """What ``scripts/kill_test.py`` says of a recipe whose run is killed twice, in processes that
    begin warm."""
    path = ROOT / "scripts" / "kill_test.py"
    spec = importlib.util.spec_from_file_location("kill_test", path)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "start", Killable)
    monkeypatch.setattr(script, "seconds_to_load", lambda: 0.0)

    def call(recipe: Path) -> str:
        (tmp_path / "kills").mkdir()
        script.measure(recipe, tmp_path / "kills", kills=2, seed=0, checkpoint=0.1)
        return capsys.readouterr().out

    return call


def spoken(folder: Path) -> list[Path]:
    """Files outside data/ that hold the planted word."""
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "data"
    ]
    return [path for path in files if SECRET.encode() in path.read_bytes()]
