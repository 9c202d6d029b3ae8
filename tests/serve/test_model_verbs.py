"""``residency model`` and ``residency audit``, as they are typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from residency import cli
from residency.models.adapters import Lora
from residency.models.artefact import fresh, save
from residency.models.base import BaseModelSettings, resolve
from residency.models.predictors import remember
from residency.serve.records.audit_chain import GLOB, Audit, AuditEntry
from residency.tasks.card import Card, Label

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["residency", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def artefact(folder: Path, base: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    card = Card(name="s", family="spans", labels=(Label(name="thuốc"),))
    found = resolve(BaseModelSettings(id=str(base)))
    model = Lora(r=2).attach(fresh(found, card)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    save(folder, model, found, card, Lora(r=2), "synthetic")
    remember(folder)
    return folder


def test_add_promote_list_and_roll_back(call: Call, bases: dict[str, Path], tmp_path: Path) -> None:
    where = ("--models", str(tmp_path / "models"))
    digests = []
    for seed in (1, 2):
        code, out, err = call(
            "model", "add", str(artefact(tmp_path / str(seed), bases["bert"], seed)), *where
        )
        assert (code, err) == (0, "")
        digests.append(out.split()[0])
    for digest in digests:
        code, out, err = call("model", "promote", "ner", digest[:12], *where)
        assert (code, err) == (0, "")
        assert out.startswith(f"ner -> {digest}\nproved on process float32: ")
        assert "; process bfloat16: " in out
    code, out, _ = call("model", "list", *where)
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]][1] == [digests[1][:12], "ner"]
    code, out, _ = call("model", "rollback", "ner", *where)
    assert (code, out.splitlines()[0]) == (0, f"ner -> {digests[0]}")
    weights = tmp_path / "models/sha256" / digests[1] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    code, out, err = call("model", "promote", "ner", digests[1][:12], *where)
    assert (code, out) == (2, "")
    assert err.startswith("residency: not promoted: ")
    assert err.count("\n") == 1


def test_the_audit_log_is_verified(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "ab" * 32
    monkeypatch.setenv("RESIDENCY_LOG_KEY", key)
    for _ in range(2):
        log = Audit.open(tmp_path / "serve", 0, bytes.fromhex(key))
        log.write(
            AuditEntry(user="0" * 64, route="POST /extract", status=200, outcome="ok", ms=1.0)
        )
        log.close()
    code, out, err = call("audit", "verify", str(tmp_path / "serve"))
    assert (code, err) == (0, "")
    assert out.startswith("6 lines in 2 chains; head ")
    code, out, _ = call("audit", "head", str(tmp_path / "serve"))
    assert code == 0
    assert [json.loads(line)["n"] for line in out.splitlines()] == [2, 2]
    (tmp_path / "heads").write_text(out)
    for path in sorted((tmp_path / "serve").glob(GLOB))[1:]:
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(lines[0] + lines[2])
    code, out, err = call(
        "audit", "verify", str(tmp_path / "serve"), "--anchors", str(tmp_path / "heads")
    )
    assert code == 2
    assert "follows a gap: lines 2 to 2 were removed or moved." in out
    assert err.count("\n") == 1


def test_without_a_key_nothing_is_verified(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESIDENCY_LOG_KEY", raising=False)
    code, _, err = call("audit", "verify", str(tmp_path))
    assert code == 1
    assert "no key to verify with; set RESIDENCY_LOG_KEY" in err
