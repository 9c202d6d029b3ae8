"""A model in a repository of Triton: what its Python backend answers, refuses and never loads. The
server itself is in tests/services_all."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from export_tools import marks, writes

from fake_triton import UTILITIES, Tensor, started
from residency.core.errors import UserError
from residency.core.files import file_digest
from residency.export.triton import export
from residency.models.adapters import Full, Lora
from residency.workflows.finished import predict


@pytest.fixture(autouse=True)
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", UTILITIES)


def request(*texts: str | bytes, most: int | None = None) -> dict[str, Tensor]:
    rows = [[one if isinstance(one, bytes) else one.encode()] for one in texts]
    made = {"TEXT": Tensor("TEXT", np.array(rows, dtype=np.object_))}
    if most is not None:
        limits = np.array([[most]] * len(texts), dtype=np.int32)
        made["MAX_TOKENS"] = Tensor("MAX_TOKENS", limits)
    return made


def said(response: Any) -> list[dict[str, Any]]:
    return [json.loads(row[0]) for row in response.tensors[0].rows]


@pytest.mark.training
def test_an_encoder_answers_as_in_process_and_refuses_a_request_alone(tmp_path: Path) -> None:
    model, repository = marks(tmp_path / "spans", Full()), tmp_path / "repository"
    digest = export(model, repository, "ward")
    assert digest == file_digest(model / "artefact.json")
    with pytest.raises(UserError, match="is there already"):
        export(model, repository, "ward")
    with pytest.raises(UserError, match="no name of a model"):
        export(model, repository, "../ward")
    texts = ["Sốt 😀 cao.\r\nHo.", "患者发热，𠮷诊断为肺炎。", "x" * 5000]
    asked = [request(*texts[:2]), request(" "), request(b"\xff"), request(texts[2]), {}]
    made = started(repository, "ward").execute(asked)
    answers = [*said(made[0]), *said(made[3])]
    assert [one["answer"] for one in answers] == [
        json.loads(msgspec.json.encode(one)).get("answer") for one in predict(model, texts)
    ]
    assert {one["digest"] for one in answers} == {digest}
    assert [made[1].error, made[2].error] == ["TEXT must not be empty", "TEXT must be UTF-8"]
    assert made[4].error == "one of TEXT and PROMPT is needed"


@pytest.mark.training
def test_an_adapter_answers_on_the_base_beside_it_and_another_is_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, repository = writes(tmp_path / "words", Lora(r=4)), tmp_path / "repository"
    export(model, repository, "ward")
    backend = started(repository, "ward")
    asked = [request("Sốt?"), request("Ho?", most=3), request("Đau?", most=0)]
    made = backend.execute(asked)
    (whole,), (short,) = said(made[0]), said(made[1])
    (expected,) = predict(model, ["Sốt?"])
    assert (whole["text"], whole["tokens"]) == (expected.text, expected.tokens)
    assert short["tokens"] == 3 and made[2].error == "MAX_TOKENS must be 1 or more"

    def fails(asked: Any) -> list[bytes]:
        if any(one[0] == "Ho?" for one in asked):
            raise RuntimeError("Ho?")
        return [b"{}" for _ in asked]

    monkeypatch.setattr(backend.answers, "of", fails)
    made = backend.execute(asked[:2])
    assert said(made[0]) == [{}] and made[1].error == "the model failed (RuntimeError)"

    kept = repository / "ward" / "1" / "artefact"
    base = next((kept / "base").glob("*.safetensors"))
    whole_base = base.read_bytes()
    base.write_bytes(whole_base[:-1] + bytes([whole_base[-1] ^ 1]))
    with pytest.raises(UserError, match="another one than it was trained on"):
        started(repository, "ward")
    base.write_bytes(whole_base)
    for file in writes(tmp_path / "other", Lora(r=4), seed=6).iterdir():
        (kept / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="another model than the one that was exported"):
        started(repository, "ward")
