"""What a model starts from: found, understood, or refused in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from residency.core.errors import UserError
from residency.models import base as module
from residency.models.artefact import fresh
from residency.models.base import BaseModelSettings, load_tokenizer, max_positions, resolve
from residency.models.weights import load_weights
from residency.recipe import Recipe
from residency.tasks.card import Card, Label
from residency.tasks.heads import SEQUENCE
from residency.workflows.steps import base_of

CLASSES = Card(name="c", family="labels", labels=(Label(name="a"), Label(name="b")))
SPANS = Card(name="s", family="spans", labels=(Label(name="a"),))


def refused(id: str, root: Path = Path(), **settings: Any) -> str:
    with pytest.raises(UserError) as raised:
        resolve(BaseModelSettings(id=id, **settings), root)
    message = str(raised.value)
    assert "\n" not in message and message.startswith("base: ") and message.endswith(".")
    return message


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch, bases: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(bases["electra"], tmp_path / "bundled" / "tiny-encoder")
    monkeypatch.setattr(module, "BUNDLED", tmp_path / "bundled")


@pytest.mark.usefixtures("packaged")
def test_a_bundled_base_is_found_by_name() -> None:
    assert Path(resolve(BaseModelSettings(id="bundled:tiny-encoder")).path).name == "tiny-encoder"


@pytest.mark.usefixtures("packaged")
def test_an_unknown_bundled_name_is_answered_with_the_nearest() -> None:
    said = refused("bundled:tiny-encodr")
    assert (
        "bundled:tiny-encodr is not bundled; allowed: bundled:tiny-encoder; did you mean "
        "bundled:tiny-encoder?"
    ) in said


def test_a_missing_folder_is_named() -> None:
    assert "./nowhere does not exist" in refused("./nowhere")
    assert "nowhere does not exist" in refused("nowhere")


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert f"{tmp_path / 'model'} has no config.json" in refused("model", tmp_path)


def test_weights_that_can_run_code_are_refused_with_the_way_to_allow_them(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(bases["bert"], tmp_path / "old")
    (folder / "model.safetensors").unlink()
    model = torch.nn.Linear(1, 1)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert "has no *.safetensors" in refused(
        "old", tmp_path
    ) and "base.allow_pickle: true" in refused("old", tmp_path)
    assert resolve(BaseModelSettings(id="old", allow_pickle=True), tmp_path).allow_pickle


def test_a_hub_id_without_network_is_refused_with_what_to_do() -> None:
    said = refused("nobody/no-such-model")
    assert (
        "is neither a folder nor to be had from the hub" in said
        and "copy the model to a local folder" in said
    )


def test_a_model_that_brings_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "x.Y"}}), "utf-8")
    assert "brings its own code, which is not run" in refused(str(tmp_path))


def test_a_broken_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", "utf-8")
    assert "cannot be read" in refused(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "segmenter"),
    [
        ("phobert-base-v2", "underthesea"),
        ("PhoBERT-large", "underthesea"),
        ("vihealthbert-base-word", "underthesea"),
        ("vihealthbert-base-syllable", ""),
        ("xlm-roberta-base", ""),
    ],
)
def test_word_models_are_known_by_name(
    name: str, segmenter: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(bases["roberta"], tmp_path / name)
    assert resolve(BaseModelSettings(id=name), tmp_path).segmenter == segmenter
    assert resolve(BaseModelSettings(id=name, segmenter="none"), tmp_path).segmenter == ""


@pytest.mark.parametrize(
    ("card", "setting", "segmenter"),
    [
        ("ner", "auto", "syllables"),
        ("ner", "underthesea", "underthesea"),
        ("ner", "none", ""),
        ("classify", "auto", "underthesea"),
    ],
)
def test_a_word_model_marks_spans_by_syllables(
    card: str, setting: str, segmenter: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(bases["roberta"], tmp_path / "phobert-base-v2")
    value = {"schema": 1, "name": "t", "base": {"id": "phobert-base-v2", "segmenter": setting}}
    value |= {"data": {"notes": {"format": "jsonl", "path": "notes.jsonl", "profile": "synthetic"}}}
    value |= {"tasks": [{"card": card, "data": "notes"}]}
    assert base_of(Recipe.from_mapping(value, tmp_path)).segmenter == segmenter


@pytest.mark.parametrize(
    ("id", "segmenter"),
    [
        ("vinai/phobert-base-v2", "underthesea"),
        ("demdecuong/vihealthbert-base-word", "underthesea"),
        ("demdecuong/vihealthbert-base-syllable", ""),
    ],
)
def test_word_models_of_the_hub_are_known_by_their_id(
    id: str, segmenter: str, bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_from_hub", lambda settings, weights: (bases["roberta"], "0" * 40))
    assert resolve(BaseModelSettings(id=id)).segmenter == segmenter


def test_the_window_is_what_the_positions_allow(
    found: dict[str, Any], bases: dict[str, Path]
) -> None:
    assert {name: base.window for name, base in found.items()} == {
        "electra": 64,
        "roberta": 62,
        "bert": 64,
    }
    assert resolve(BaseModelSettings(id=str(bases["bert"]), window=32)).window == 32
    assert resolve(BaseModelSettings(id=str(bases["bert"]), window=500)).window == 64
    assert max_positions({"model_type": "roberta", "max_position_embeddings": 258}) == 256
    assert max_positions({"model_type": "modernbert", "max_position_embeddings": 8192}) == 512


@pytest.mark.parametrize("name", ["electra", "roberta", "bert"])
def test_the_longest_window_fits_the_model(name: str, found: dict[str, Any]) -> None:
    model = fresh(found[name], SPANS)
    assert model(input_ids=torch.full((1, found[name].window), 7)).logits.shape == (
        1,
        found[name].window,
        3,
    )


def test_the_digest_changes_with_the_weights_and_with_the_tokenizer(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(bases["bert"], tmp_path / "b")
    digests = {resolve(BaseModelSettings(id=str(folder))).digest}
    (folder / "README.md").write_text("words", "utf-8")
    digests.add(resolve(BaseModelSettings(id=str(folder))).digest)
    assert len(digests) == 1, "a text about it changes nothing"
    for file in ("model.safetensors", "tokenizer.json"):
        (folder / file).write_bytes((folder / file).read_bytes() + b" ")
        digests.add(resolve(BaseModelSettings(id=str(folder))).digest)
    assert len(digests) == 3


def test_modules_without_weights_of_the_base_are_known(found: dict[str, Any]) -> None:
    assert fresh(found["bert"], SPANS).fresh == ("classifier",)
    assert fresh(found["bert"], CLASSES).fresh == ("bert.pooler", "classifier"), (
        "its pooler starts from noise too"
    )
    assert fresh(found["electra"], CLASSES).fresh == ("classifier",)


def test_a_base_that_was_tuned_for_other_labels_gets_a_fresh_head(
    found: dict[str, Any], tmp_path: Path
) -> None:
    three = Card(name="t", family="labels", labels=tuple(Label(name=name) for name in "xyz"))
    tuned = load_weights(found["roberta"], SEQUENCE, three)
    tuned.save_pretrained(tmp_path)
    shutil.copy(Path(found["roberta"].path) / "tokenizer.json", tmp_path)
    shutil.copy(Path(found["roberta"].path) / "tokenizer_config.json", tmp_path)
    again = fresh(resolve(BaseModelSettings(id=str(tmp_path))), CLASSES)
    assert again.classifier.out_proj.out_features == 2
    assert again.fresh == ("classifier",)


def test_weights_that_do_not_fit_their_configuration_are_refused(
    found: dict[str, Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(found["bert"].path, tmp_path / "b")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 300}), "utf-8")
    with pytest.raises(UserError, match=r"do not fit its config\.json"):
        fresh(resolve(BaseModelSettings(id=str(folder))), CLASSES)


def test_a_vocabulary_that_is_not_the_models_is_refused(
    found: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "phobert-like"
    folder.mkdir()
    config = {"model_type": "roberta", "vocab_size": 64001, "architectures": ["RobertaModel"]}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "vocab.txt").write_text("".join(f"word{i} 1\n" for i in range(500)), "utf-8")
    (folder / "bpe.codes").write_text("", "utf-8")
    with pytest.raises(
        UserError, match=r"tokens, but config.json says vocab_size 64,001: its files"
    ):
        load_tokenizer(folder)
    shutil.copytree(found["bert"].path, tmp_path / "bert")
    config = json.loads((tmp_path / "bert" / "config.json").read_text("utf-8"))
    few = json.dumps(config | {"vocab_size": 20})
    (tmp_path / "bert" / "config.json").write_text(few, "utf-8")
    with pytest.raises(UserError, match="says vocab_size 20: its files"):
        load_tokenizer(tmp_path / "bert")


def test_loading_says_nothing_on_the_terminal(
    found: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    fresh(found["bert"], CLASSES)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
