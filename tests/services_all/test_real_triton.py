"""A real Triton, started by the repository's script, answers as the model does in process, and is
ready when it does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from residency.core.files import file_digest
from residency.core.types import Prediction, Turn
from residency.export.triton import export
from residency.models.adapters import Lora
from residency.models.predictors import trained
from residency.synth.clinical_notes import records
from residency.workflows.finished import predict

ROOT = Path(__file__).resolve().parents[2]
CLIENT = "tritonclient[grpc]==2.73.0"
pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.environ.get("RESIDENCY_SERVICES") != "all",
        reason="real servers: make test-services-all starts and tests them",
    ),
]
NOTES = [note.text for lang in ("vi", "zh", "en") for note in islice(records(lang, 500, 7), 334)][
    :1000
]
HOSTILE = [
    "Sốt 😀👩‍⚕️ cao,\r\nviêm phổi 🫁.",
    "患者发热，𠮷诊断为肺炎。",
    "ho\u200b khan\t\n",
    "x" * 9000,
]
THOUSAND = [*NOTES[: 1000 - len(HOSTILE)], *HOSTILE]
QUESTIONS = [text[:200] for text in NOTES[::10]]


class Served:
    """The server, and how it is asked."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        ports = [free() for _ in range(3)]
        self.http, self.grpc, self.ready_at = ports
        flags = zip(("--http", "--grpc", "--ready"), map(str, ports), strict=True)
        command = [sys.executable, ROOT / "scripts" / "triton_server.py", self.repository]
        command += [part for pair in flags for part in pair]
        self.log = (folder / "triton.log").open("wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def ready(self) -> bool:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.ready_at}/readyz").status == 200
        except OSError:
            return False

    def wait(self, ready: bool, seconds: float) -> float:
        """Seconds until it is ready, or is not."""
        start = time.monotonic()
        while self.ready() != ready:
            assert time.monotonic() - start < seconds, Path(self.log.name).read_text()[-3000:]
            time.sleep(0.1)
        return time.monotonic() - start

    def over_http(self, name: str, texts: list[str]) -> list[dict[str, Any]]:
        made = []
        for start in range(0, len(texts), 50):
            some = texts[start : start + 50]
            asked = {"name": "TEXT", "shape": [len(some), 1], "datatype": "BYTES", "data": some}
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.http}/v2/models/{name}/infer",
                json.dumps({"inputs": [asked]}).encode(),
            )
            with urllib.request.urlopen(request, timeout=300) as answer:
                made += json.loads(answer.read())["outputs"][0]["data"]
        return [json.loads(one) for one in made]

    def over_grpc(self, name: str, texts: list[str]) -> list[dict[str, Any]]:
        import tritonclient.grpc as triton

        client, made = triton.InferenceServerClient(f"127.0.0.1:{self.grpc}"), []
        for start in range(0, len(texts), 50):
            rows = np.array([[one.encode()] for one in texts[start : start + 50]], dtype=np.object_)
            asked = triton.InferInput("TEXT", list(rows.shape), "BYTES")
            asked.set_data_from_numpy(rows)
            made += client.infer(name, [asked]).as_numpy("ANSWER")[:, 0].tolist()
        return [json.loads(one) for one in made]

    def kill(self, name: str) -> None:
        """End the process in which a model lives."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            mine = str(self.repository / name).encode()
            if words[0].endswith(b"triton_python_backend_stub") and any(mine in w for w in words):
                os.kill(int(path.parent.name), signal.SIGKILL)
                return
        raise AssertionError(f"{name}: no process")


def free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    sys.path.insert(0, str(ROOT / "tests" / "export"))
    from export_tools import marks, writes

    folder = tmp_path_factory.mktemp("models")
    return {
        "spans": marks(folder / "spans", Lora(r=4)),
        "words": writes(folder / "words", Lora(r=4)),
        "other": writes(folder / "other", Lora(r=4), seed=6),
    }


@pytest.fixture(scope="module")
def served(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    client = ROOT / ".services" / "triton" / "client"
    if not client.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", client, CLIENT]
        subprocess.run(pip, check=True, timeout=600)
    sys.path.append(str(client))
    folder = tmp_path_factory.mktemp("triton")
    for name in ("spans", "words"):
        export(models[name], folder / "repository", name)
    found = Served(folder)
    try:
        found.wait(True, 600)
        yield found
    finally:
        found.process.terminate()
        assert found.process.wait(60) == 0
        found.log.close()


@pytest.fixture(scope="module")
def marked(models: dict[str, Path]) -> list[Any]:
    """What is found in the notes in process."""
    return [
        json.loads(msgspec.json.encode(one)).get("answer")
        for one in predict(models["spans"], THOUSAND)
    ]


@pytest.fixture(scope="module")
def written(models: dict[str, Path]) -> list[Prediction]:
    """What is answered to the questions in process."""
    return list(predict(models["words"], QUESTIONS))


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_a_thousand_notes_are_answered_as_in_process(
    served: Served, models: dict[str, Path], marked: list[Any], way: str
) -> None:
    said = getattr(served, f"over_{way}")("spans", THOUSAND)
    assert len(said) == 1000
    assert [one["answer"] for one in said] == marked
    assert {one["digest"] for one in said} == {file_digest(models["spans"] / "artefact.json")}
    assert sum(len((one["answer"] or {}).get("spans", ())) for one in said) > 1000


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_a_hundred_answers_are_written_token_by_token_as_in_process(
    served: Served, models: dict[str, Path], written: list[Prediction], way: str
) -> None:
    said = getattr(served, f"over_{way}")("words", QUESTIONS)
    assert len(said) == 100 and any(one.text for one in written)
    assert [(one["text"] or "", one["tokens"]) for one in said] == [
        (one.text, one.tokens) for one in written
    ]
    reader = trained(models["words"]).chat.tokenizer  # type: ignore[union-attr]
    assert [reader(one["text"] or "")["input_ids"] for one in said] == [
        reader(one.text)["input_ids"] for one in written
    ]


def test_behind_the_guard_answers_are_those_in_process_and_readiness_is_a_question(
    served: Served, models: dict[str, Path], marked: list[Any], tmp_path: Path
) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "serve"))
    from serve_tools import Started

    given = [f"{name}={served.repository / name}" for name in ("spans", "words")]
    limits = ("per_second=1000", "input_tokens=4000", "work_tokens=20000", "minute_tokens=9999999")
    more = [f"triton=http://127.0.0.1:{served.http}", "fingerprint_seconds=1"]
    guard = Started(tmp_path, *given, *more, *(f"limits.{one}" for one in limits))
    try:
        for text, answer in zip(THOUSAND[:100], marked, strict=False):
            said = guard.client.post("/extract", json={"text": text, "model": "spans"}).json()
            spans = [{k: one[k] for k in ("start", "end", "label")} for one in said["entities"]]
            wanted = (answer or {}).get("spans", ())
            assert spans == [{k: one[k] for k in ("start", "end", "label")} for one in wanted]
        plain: Any = trained(models["words"])
        for text in QUESTIONS[:20]:
            turns = [{"role": "user", "content": text}]
            body = {"model": "words", "messages": turns, "max_tokens": 64}
            found = guard.client.post("/v1/chat/completions", json=body)
            assert found.status_code == 200, found.text
            answer = found.json()
            assert answer["system_fingerprint"] == file_digest(models["words"] / "artefact.json")
            said = answer["choices"][0]["message"]["content"]
            assert said.strip() == plain.answer((Turn(role="user", text=text),)).strip()
        served.kill("words")
        guard.until(lambda: guard.ready() == 503, 5)
        # refused, or answered once the model has been loaded again
        assert guard.client.post("/v1/chat/completions", json=body).status_code in (200, 503)
        guard.until(lambda: guard.ready() == 200, 300)
        assert guard.client.post("/v1/chat/completions", json=body).status_code == 200
    finally:
        guard.client.close()
        assert guard.end() == 0


def test_what_cannot_be_read_is_refused_alone(served: Served) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        served.over_http("spans", [" "])
    assert "TEXT must not be empty" in refused.value.read().decode()
    assert served.over_http("spans", ["Sốt."])[0]["answer"] is not None
    assert served.ready()


def test_a_dead_model_is_not_ready_and_comes_back_without_hands(served: Served) -> None:
    served.kill("words")
    served.wait(False, 5)
    served.wait(True, 300)
    assert served.over_http("words", ["Sốt?"])


def test_a_dead_server_comes_back_without_hands(served: Served) -> None:
    own = f"/proc/{served.process.pid}/task/{served.process.pid}/children"
    os.kill(int(Path(own).read_text().split()[0]), signal.SIGKILL)
    served.wait(False, 5)
    served.wait(True, 300)
    assert served.over_http("spans", ["Sốt."])


def test_the_adapter_of_another_model_is_never_served(
    served: Served, models: dict[str, Path], tmp_path: Path
) -> None:
    kept = served.repository / "words" / "1" / "artefact"
    shutil.copytree(kept, tmp_path / "before")
    for file in models["other"].iterdir():
        shutil.copyfile(file, kept / file.name)
    served.kill("words")
    served.wait(False, 5)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        assert not served.ready()
        with pytest.raises(urllib.error.HTTPError):
            served.over_http("words", ["Sốt?"])
        time.sleep(1)
    assert served.over_http("spans", ["Sốt."]), "others are served meanwhile"
    shutil.copytree(tmp_path / "before", kept, dirs_exist_ok=True)
    served.wait(True, 300)
    (said,) = served.over_http("words", ["Sốt?"])
    assert said["digest"] == file_digest(models["words"] / "artefact.json")
