"""Plug-ins: what they mark is replaced like everything else; what is not on this machine is one
sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from residency.core.errors import UserError
from residency.core.part import External
from residency.core.types import RawNote
from residency.deid.engine import DeidentifiedNote, Deidentifier
from residency.deid.options import Deid
from residency.deid.plugins import Presidio, Tagger
from residency.deid.vault import Vault


class Analyzer:
    """Stands in for Presidio: finds a word that our rules have no reason to find."""

    def __init__(self, **given: Any) -> None:
        self.languages = given["supported_languages"]

    def analyze(self, text: str, language: str, score_threshold: float) -> list[SimpleNamespace]:
        at = text.find("Zorbax")
        kinds = ("PERSON", "DATE_TIME")
        return [
            SimpleNamespace(start=at, end=at + 6, entity_type=kind) for kind in kinds if at >= 0
        ]


@pytest.fixture
def presidio(monkeypatch: pytest.MonkeyPatch) -> None:
    analyzer, engines, spacy = (
        ModuleType("presidio_analyzer"),
        ModuleType("nlp_engine"),
        ModuleType("spacy"),
    )

    class Registry:
        def __init__(self, supported_languages: list[str]) -> None: ...

        def load_predefined_recognizers(self, languages: list[str]) -> None: ...

    class Spacy:
        def __init__(self, models: list[dict[str, str]]) -> None: ...

    analyzer.AnalyzerEngine, analyzer.RecognizerRegistry, engines.SpacyNlpEngine = (
        Analyzer,
        Registry,
        Spacy,
    )  # type: ignore[attr-defined]
    engines.NlpEngineProvider = None  # type: ignore[attr-defined]
    spacy.blank = lambda lang: lang  # type: ignore[attr-defined]
    spacy.util = SimpleNamespace(is_package=lambda name: False)  # type: ignore[attr-defined]
    for name, module in (
        ("presidio_analyzer", analyzer),
        ("presidio_analyzer.nlp_engine", engines),
        ("spacy", spacy),
    ):
        monkeypatch.setitem(sys.modules, name, module)


def test_what_presidio_finds_of_our_kinds_is_replaced(presidio: None, tmp_path: Path) -> None:
    part = External(target="residency.deid.plugins:Presidio", options={"languages": ["en"]})
    engine = Deidentifier(Deid(), Vault.open(tmp_path, bytes(32)), [part.load(Presidio)])
    done = engine.process(
        RawNote(id="1", patient="p", text="seen with zorbax and Zorbax today", lang="en")
    )
    assert isinstance(done, DeidentifiedNote)
    assert "Zorbax" not in done.note.text and "zorbax" in done.note.text
    assert [(one.kind, one.by) for one in done.findings] == [("name", "plugin:presidio")]


def test_presidio_is_asked_about_its_languages_only(presidio: None) -> None:
    assert list(Presidio(languages=["en"]).find("Zorbax", "vi")) == []


def test_a_spacy_model_that_is_not_here_is_not_downloaded(presidio: None) -> None:
    with pytest.raises(UserError, match="en_core_web_sm is not installed"):
        Presidio(models={"en": "en_core_web_sm"})


def test_presidio_without_its_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(UserError, match="needs presidio-analyzer"):
        Presidio()


def test_a_label_must_become_a_kind_that_there_is(presidio: None) -> None:
    with pytest.raises(UserError, match="PERSON: human is no kind"):
        Presidio(kinds={"PERSON": "human"})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model that marks every word that begins with z as a person: its output is set by hand."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "seen", "with", "zorbax", "today"]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=0,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=32,
        id2label={0: "O", 1: "B-PER"},
        label2id={"O": 0, "B-PER": 1},
    )
    network = BertForTokenClassification(config)
    with torch.no_grad():
        for parameter in network.bert.embeddings.parameters():
            parameter.zero_()
        network.bert.embeddings.LayerNorm.weight.fill_(1)
        network.bert.embeddings.word_embeddings.weight[6, 0] = 1  # normalised to 2.6 beside -0.4
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor([1.0, 0.0]))
        network.classifier.weight[1, 0] = 5
    folder = tmp_path / "model"
    network.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def test_what_a_model_tags_is_found_at_its_place_in_long_notes_too(model: Path) -> None:
    tagger = Tagger(str(model), {"PER": "name"})
    text = "seen today with " * 40 + "zorbax today"
    assert [(text[one.start : one.end], one.kind, one.by) for one in tagger.find(text, "vi")] == [
        ("zorbax", "name", "plugin:tagger")
    ]
    assert list(tagger.find("  ", "vi")) == []
    assert list(Tagger(str(model), {"PER": "name"}, languages=["en"]).find(text, "vi")) == []


def test_a_model_that_is_not_here_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no token classification model on this machine"):
        Tagger(str(tmp_path / "nothing"), {})


def test_the_plug_in_of_the_guide_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/guide/deidentification.md").read_text("utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    made: dict[str, Any] = {}
    exec(compile(code, "guide", "exec"), made)
    engine = Deidentifier(
        Deid(), Vault.open(tmp_path, bytes(32)), [made["Wards"](["Ward Magnolia"])]
    )
    done = engine.process(
        RawNote(id="1", patient="p", text="moved to Ward Magnolia at night", lang="en")
    )
    assert isinstance(done, DeidentifiedNote) and "Magnolia" not in done.note.text


def test_the_rule_of_the_guide_is_one(tmp_path: Path) -> None:
    import msgspec
    import yaml

    from residency.deid.rules import IdentifierRule

    page = (Path(__file__).parents[2] / "docs/guide/deidentification.md").read_text("utf-8")
    (rule,) = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["rules"]
    assert msgspec.convert(rule, IdentifierRule).cues == ("ward pager",)
