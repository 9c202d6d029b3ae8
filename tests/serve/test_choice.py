"""Which engine serves what, with a process in vLLM's place."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serve_tools import HEADERS

from residency.core.errors import UserError
from residency.serve.engines import servers
from residency.serve.launch import end, load_all
from residency.serve.settings import Serve

FAKE = Path(__file__).with_name("fake_vllm.py")
ASK = {"model": "words", "messages": [{"role": "user", "content": "Gan?"}], "max_tokens": 8}


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What looks like the interpreter of an environment with vLLM."""
    monkeypatch.setenv("FAKE_VLLM_SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("FAKE_VLLM", "")
    script = tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exit 0\nshift 2\nexec "{sys.executable}" "{FAKE}" "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def test_vllm_serves_what_it_can_and_the_rest_is_served_here(
    artefacts: dict[str, Path], python: str, app: Any
) -> None:
    said: list[str] = []
    models = {name: artefacts[name] for name in ("words", "ner")}
    engines = load_all(models, Serve(engine="vllm", vllm_python=python), said.append)
    try:
        assert {name: one.served.kind for name, one in engines.items()} == {
            "words": "vllm",
            "ner": "process",
        }
        assert (
            len(said) == 1 and said[0].startswith("ner: served in process: ") and "/" not in said[0]
        )
        gone: list[str] = []
        made = app(engines, fingerprint_seconds=0.2, stop=gone.append)
        with TestClient(made, headers=HEADERS) as client:
            answer = client.post("/v1/chat/completions", json=ASK)
            assert answer.json()["choices"][0]["message"]["content"] == "Gan nhiễm mỡ"
            assert client.get("/readyz").status_code == 200
            findings = {"model": "words", "patient_info": "Nam", "symptoms": "ho"}
            assert client.post("/diagnose", json=findings).json()["confidence"] == pytest.approx(
                2.718281828**-0.5, abs=1e-6
            )
            assert gone == []
            process: Any = engines["words"].process  # type: ignore[attr-defined]
            os.kill(process.pid, signal.SIGKILL)
            until = time.monotonic() + 600
            while process.alive and time.monotonic() < until:
                time.sleep(0.01)
            dead = client.post("/v1/chat/completions", json=ASK)
            assert (dead.status_code, "retry-after" in dead.headers) == (503, True)
            assert client.get("/readyz").status_code == 503
            until = time.monotonic() + 600
            while not gone and time.monotonic() < until:
                time.sleep(0.05)
            assert gone[0] == "the vLLM process of words has ended"
            assert client.post("/extract", json={"text": "ho"}).status_code == 200
    finally:
        end(engines.values())
    assert not process.alive


def test_auto_takes_vllm_only_with_a_gpu_and_where_it_is_installed(
    artefacts: dict[str, Path], python: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words, with_vllm = artefacts["words"], Serve(vllm_python=python)
    monkeypatch.setattr(servers, "gpu", lambda: False)
    assert servers.refused(words, with_vllm) == "there is no GPU"
    monkeypatch.setattr(servers, "gpu", lambda: True)
    assert servers.refused(words, with_vllm) is None
    assert "head" in str(servers.refused(artefacts["ner"], with_vllm))
    missing = str(tmp_path / "none")
    assert servers.refused(words, Serve(vllm_python=missing)) == "vLLM is not installed"
    with pytest.raises(UserError, match="vllm_python: vLLM is not installed there"):
        servers.refused(words, Serve(engine="vllm", vllm_python=missing))
