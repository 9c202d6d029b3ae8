"""An exported encoder answers as torch does, and says what it is made of."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")

from residency.core.errors import UserError
from residency.core.types import Example, Span, Spans
from residency.export.onnx import export
from residency.models import onnx_encoder as exported_models
from residency.models import predictors
from residency.models.adapters import Freeze, Full, Lora, Prefix, method_of
from residency.models.artefact import fresh, load, save
from residency.models.encoder import EncoderPredictor
from residency.models.onnx_encoder import FP32, INT8, OnnxEncoder
from residency.tasks.card import Card, Label

pytestmark = pytest.mark.training

SPANS = Card(name="s", family="spans", labels=(Label(name="thuốc"), Label(name="病")))
LABELS = Card(name="c", family="labels", labels=(Label(name="a"), Label(name="b"), Label(name="c")))
TEXTS = (
    "Bệnh nhân ho khan, dùng metformin 500mg.",
    unicodedata.normalize("NFD", "Bệnh nhân sốt cao, đau bụng vùng thượng vị."),
    "患者男性，咳嗽、发热三天。😷 诊断为肺炎。",
    "Blood pressure 120/80 👩‍⚕️ no fever.",
    "",
    " \n",
    "ho " * 200,
)


def trained(folder: Path, base: Any, method: Any, card: Card = SPANS) -> Path:
    """An artefact whose head and adapter are far from where they began."""
    torch.manual_seed(3)
    model = method_of(method).attach(fresh(base, card)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
            elif "classifier" in name and parameter.ndim > 1:
                parameter.mul_(60)
    save(folder, model, base, card, method, "synthetic")
    return folder


def given(texts: Any) -> list[Example]:
    return [
        Example(id=str(i), task="t", input=text, profile="synthetic")
        for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    "method", [Lora(r=2), Freeze(last=1), Full()], ids=["lora", "freeze", "full"]
)
@pytest.mark.parametrize("name", ["electra", "roberta", "bert"])
def test_logits_equal_those_of_plain_transformers(
    name: str, method: Any, found: dict[str, Any], tmp_path: Path
) -> None:
    artefact = trained(tmp_path / "a", found[name], method)
    made = export(artefact, tmp_path / "out")
    assert made.equal_within <= 1e-4
    _, model, _ = load(artefact)
    ours = OnnxEncoder.from_export(tmp_path / "out", "fp32", threads=1)
    rows = [[2, *range(20, 20 + n), 3] for n in (1, 40, 7, 19)]
    for row, scores in zip(rows, next(iter(ours.forward([rows]))), strict=True):
        with torch.inference_mode():
            alone = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1).numpy()
        np.testing.assert_allclose(scores[: len(row)], alone, atol=1e-4)


@pytest.mark.parametrize("card", [SPANS, LABELS], ids=["spans", "labels"])
def test_answers_and_offsets_are_those_of_torch(
    card: Card, found: dict[str, Any], tmp_path: Path
) -> None:
    artefact = trained(tmp_path / "a", found["electra"], Lora(r=2), card)
    export(artefact, tmp_path / "out")
    ours, torchs = (
        predictors.exported(tmp_path / "out", threads=1),
        EncoderPredictor.from_artefact(artefact),
    )
    answers = [one.answer for one in ours.predict(given(TEXTS))]
    for text, answer, expected in zip(TEXTS, answers, torchs.predict(given(TEXTS)), strict=True):
        if card.family == "spans":
            assert answer == expected.answer
            assert isinstance(answer, Spans)
            assert all(span.quote == text[span.start : span.end] for span in answer.spans)
        else:
            assert answer.labels == expected.answer.labels  # type: ignore[union-attr]
    if card.family == "spans":
        assert any(answer.spans for answer in answers)  # type: ignore[union-attr]
        for one, two in zip(ours.marginals(TEXTS), torchs.marginals(TEXTS), strict=True):
            np.testing.assert_allclose(one.log_probabilities, two.log_probabilities, atol=1e-4)


def test_8_bits_are_kept_only_where_held_out_examples_say_so(
    found: dict[str, Any], tmp_path: Path
) -> None:
    artefact = trained(tmp_path / "a", found["electra"], Full())
    without = export(artefact, tmp_path / "without")
    assert not without.int8.kept and set(without.files) >= {FP32} and INT8 not in without.files
    gold = [
        Example(
            id=one.id,
            task="t",
            input=one.input,
            profile="synthetic",
            gold=Spans(spans=(Span(start=0, end=2, label="病", quote=one.input[:2]),)),
        )
        for one in given(TEXTS[:4])
    ]
    made = export(artefact, tmp_path / "out", gold)
    assert made.int8.fp32 is not None and made.int8.score is not None
    assert (
        made.int8.kept
        == (made.int8.score >= made.int8.fp32 - 0.002)
        == (tmp_path / "out" / INT8).is_file()
    )
    assert json.loads((tmp_path / "out" / "onnx.json").read_text("utf-8"))["int8"]["examples"] == 4


def test_8_bits_that_answer_worse_are_thrown_away(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = trained(tmp_path / "a", found["electra"], Full())
    truth = list(EncoderPredictor.from_artefact(artefact).predict(given(TEXTS[:4])))
    gold = [
        Example(id=one.id, task="t", input=one.input, profile="synthetic", gold=answer.answer)
        for one, answer in zip(given(TEXTS[:4]), truth, strict=True)
    ]
    other = trained(tmp_path / "b", found["electra"], Full(), SPANS)
    _, broken, _ = load(other)
    with torch.no_grad():
        broken.classifier.weight.mul_(-1)

    def worse(fp32: Path, int8: Path) -> None:
        from residency.export.onnx import write_graph

        write_graph(broken, int8)

    monkeypatch.setattr("residency.export.onnx.write_int8", worse)
    made = export(artefact, tmp_path / "out", gold)
    assert made.int8.fp32 == 1.0 and not made.int8.kept and not (tmp_path / "out" / INT8).exists()
    with pytest.raises(UserError, match="8 bits"):
        OnnxEncoder.from_export(tmp_path / "out", "int8")


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_both_runtimes_give_the_logits_of_torch(
    runtime: str, found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = trained(tmp_path / "a", found["electra"], Full())
    export(artefact, tmp_path / "out")
    if runtime == "onnxruntime":
        monkeypatch.setattr(exported_models, "openvino", lambda: None)
    _, model, tokeniser = load(artefact)
    run = exported_models.graph(tmp_path / "out", "fp32", 1)
    for lengths in ((1,), (3, 17, 33), (tokeniser.longest,)):
        rows = [[2, *range(20, 19 + n)] for n in lengths]
        ours = exported_models.forward(run, rows, tokeniser.pad_id, tokeniser.longest)
        for row, scores in zip(rows, ours, strict=True):
            with torch.inference_mode():
                alone = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1).numpy()
            np.testing.assert_allclose(scores[: len(row)], alone, atol=1e-4)


def test_16_bits_are_measured_and_kept_only_where_this_processor_computes_in_them(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = trained(tmp_path / "a", found["electra"], Full())
    truth = EncoderPredictor.from_artefact(artefact).predict(given(TEXTS[:4]))
    gold = [
        Example(id=one.id, task="t", input=one.input, profile="synthetic", gold=answer.answer)
        for one, answer in zip(given(TEXTS[:4]), truth, strict=True)
    ]
    if exported_models.bf16_here():
        made = export(artefact, tmp_path / "here", gold)
        assert made.bf16.fp32 == 1.0 and made.bf16.score is not None
        assert made.bf16.kept == (made.bf16.score >= 0.998) == (made.best == "bf16")
        kept = msgspec.structs.replace(made, bf16=msgspec.structs.replace(made.bf16, kept=True))
        assert kept.best == "bf16"
    monkeypatch.setattr(exported_models, "bf16_here", lambda: False)
    monkeypatch.setattr("residency.export.onnx.bf16_here", lambda: False)
    made = export(artefact, tmp_path / "elsewhere", gold)
    assert not made.bf16.kept and "not measured" in made.bf16.reason and made.best != "bf16"
    kept = msgspec.structs.replace(made, bf16=msgspec.structs.replace(made.bf16, kept=True))
    assert kept.best != "bf16", "kept on another machine, and this one cannot"
    with pytest.raises(UserError, match=r"bfloat16.*use fp32"):
        OnnxEncoder.from_export(tmp_path / "elsewhere", "bf16")


def test_the_runtime_counts_no_users(tmp_path: Path) -> None:
    code = (
        "import sys; from residency.models.onnx_encoder import openvino; assert openvino() is not "
        "None; "
        "import openvino.tools.ovc.telemetry_utils; print(sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "None", done.stderr[-500:]


def test_a_prefix_is_refused_with_the_way_out(found: dict[str, Any], tmp_path: Path) -> None:
    artefact = trained(tmp_path / "a", found["bert"], Prefix(length=4))
    with pytest.raises(UserError, match=r"prefix.*serve it in process"):
        export(artefact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_changed_file_is_refused(found: dict[str, Any], tmp_path: Path) -> None:
    export(trained(tmp_path / "a", found["bert"], Full()), tmp_path / "out")
    (tmp_path / "out" / FP32).write_bytes(b"x")
    with pytest.raises(UserError, match=r"model\.onnx: is missing or was changed"):
        OnnxEncoder.from_export(tmp_path / "out")


def test_a_folder_that_holds_something_is_left_alone(found: dict[str, Any], tmp_path: Path) -> None:
    artefact = trained(tmp_path / "a", found["bert"], Full())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("x")
    with pytest.raises(UserError, match="already holds"):
        export(artefact, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]
