"""What the server keeps of requests is what its clients were told: every layer's answers, once each,
in audit log, log and figures."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from serve_tools import HEADERS, KEY, LONG, NOTE, Server

from residency.serve import limits
from residency.serve.app import ROUTES, create_app
from residency.serve.auth import LocalTokens
from residency.serve.auth.rate import Rate
from residency.serve.guard import Guard
from residency.serve.records.audit_chain import Audit
from residency.serve.records.monitoring import Log, Metrics, Users
from residency.serve.settings import Serve

REQUESTS = int(os.environ.get("REQUESTS", "320"))
"""Of all eight clients."""
CHAT = {"model": "words", "messages": [{"role": "user", "content": NOTE}], "max_tokens": 8}
KINDS: list[tuple[str, str, Any]] = [
    ("POST", "/extract", {"text": NOTE, "model": "ner"}),
    ("POST", "/extract", {"text": NOTE, "model": "nobody"}),
    ("POST", "/extract", {"words": NOTE}),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", CHAT | {"stream": True}),
    ("GET", "/extract", None),
    ("GET", "/patients/nguyen-van-an", None),
    ("POST", "/v1/completions", {"model": "words", "prompt": ["x" * 3000]}),
    ("GET", "/openapi.json", None),
]


class Kept:
    """A server, and what it keeps."""

    def __init__(self, engines: dict[str, Any], folder: Path, **given: Any) -> None:
        bounds = {"per_second": 100_000, "minute_tokens": 10**9, "body_bytes": 2048, **given}
        self.settings = Serve.model_validate({"limits": bounds})
        self.audit, self.log = Audit.open(folder, 0, b"k" * 32), io.StringIO()
        self.metrics = Metrics(ROUTES, engines)
        self.app = create_app(
            Guard(
                self.settings,
                engines,
                LocalTokens(KEY),
                Rate(self.settings.limits),
                Users(b"x" * 32),
                self.audit,
                self.metrics,
                Log(self.log, ROUTES),
            )
        )

    def counts(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """Status -> how often, in audit log, log and figures."""
        lines = map(json.loads, self.audit.path.read_text().splitlines())
        audit = Counter(str(one["entry"]["status"]) for one in lines if one["what"] == "request")
        written = map(json.loads, self.log.getvalue().splitlines())
        log = Counter(str(one["status"]) for one in written if one["event"] == "request")
        figures: Counter[str] = Counter()
        for family in text_string_to_metric_families(self.metrics.render().decode()):
            for sample in family.samples:
                if sample.name == "residency_requests_total":
                    figures[sample.labels["status"]] += int(sample.value)
        return audit, log, figures


def cut(address: str, body: bytes, sent: int, wait: float) -> str:
    """A request whose client leaves when he has sent so many bytes of its body; what he heard."""
    host, port = address.removeprefix("http://").split(":")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), 10) as made:
        made.sendall(head.encode() + body[:sent])
        if wait:
            return made.recv(64).split()[1].decode()
    return "gone"


@pytest.mark.server
def test_what_is_kept_is_what_clients_were_told(
    engines: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.5)
    kept = Kept({name: engines[name] for name in ("ner", "words")}, tmp_path, at_once=3)
    server, heard = Server(kept.app), list[str]()
    body = json.dumps(CHAT).encode()

    def ask(seed: int) -> None:
        chance = random.Random(seed)
        with httpx2.Client(base_url=server.address, timeout=LONG, trust_env=False) as client:
            for _ in range(REQUESTS // 8):
                if (kind := chance.random()) < 0.1:
                    heard.append(cut(server.address, body, chance.choice([0, 20, len(body)]), 0))
                elif kind < 0.15:
                    heard.append(cut(server.address, body, 20, 5))
                else:
                    method, path, sent = chance.choice(KINDS)
                    headers = HEADERS if chance.random() < 0.9 else {}
                    found = client.request(method, path, json=sent, headers=headers)
                    heard.append(str(found.status_code))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(LONG + REQUESTS)
    kept.app.state.limited.draining = True
    for _ in range(5):
        late = httpx2.post(
            f"{server.address}/extract", json={"text": NOTE}, trust_env=False, timeout=LONG
        )
        heard.append(str(late.status_code))
    until = time.monotonic() + LONG
    while kept.app.state.limited._under_way and time.monotonic() < until:
        time.sleep(0.02)
    server.end()
    told = Counter(heard)
    print(f"{told.total()} requests: {dict(sorted(told.items()))}")
    assert told.total() == REQUESTS // 8 * 8 + 5
    assert {"200", "400", "401", "404", "405", "408", "413", "503", "gone"} <= told.keys()
    gone = told.pop("gone")
    for found in kept.counts():
        assert found.total() == told.total() + gone
        # one that left is kept too: cancelled, or answered before that was seen
        assert not told - found and (found - told).total() == gone
    assert "nguyen" not in kept.log.getvalue() + kept.audit.path.read_text()


def test_probes_are_answered_before_a_body_is_read(engines: dict[str, Any], tmp_path: Path) -> None:
    kept = Kept({"ner": engines["ner"]}, tmp_path)
    server = Server(kept.app)
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as made:
        made.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n")
        assert made.recv(64).startswith(b"HTTP/1.1 200")
    server.end()


def full() -> bool:
    return False


def test_what_cannot_be_kept_is_not_answered_and_not_ready(
    engines: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept({"words": engines["words"]}, tmp_path)
    with TestClient(kept.app, headers=HEADERS) as client:
        assert client.get("/readyz").json()["recording"] is True
        monkeypatch.setattr(kept.audit, "ready", full)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["recording"]) == (503, False)
        stream = client.post("/v1/chat/completions", json=CHAT | {"stream": True})
        assert (stream.status_code, stream.json()["error"]["code"]) == (503, "audit")


@pytest.mark.training
def test_work_is_prompts_times_answers(app: Callable[..., Any]) -> None:
    bounds = {"work_tokens": 600, "user_tokens": 600, "minute_tokens": 900, "per_second": 1000}
    with TestClient(app(limits=bounds), headers=HEADERS) as client:

        def ask(prompts: int, most: int) -> tuple[int, str]:
            body = {"model": "words", "prompt": ["Gan?"] * prompts, "max_tokens": most}
            found = client.post("/v1/completions", json=body)
            return found.status_code, found.json().get("error", {}).get("code", "")

        assert ask(64, 512) == (400, "too_long")
        assert ask(2, 200)[0] == 200  # 400 and the prompts
        assert ask(2, 200)[0] == 200
        assert ask(2, 200) == (429, "token_limit")
        assert ask(1, 10)[0] == 200  # what was refused has not been counted
        told = [{"role": "system", "content": "x " * 3000}, {"role": "user", "content": "Gan?"}]
        long = client.post("/v1/chat/completions", json={"model": "words", "messages": told})
        assert (long.status_code, long.json()["error"]["code"]) == (400, "too_long")
        assert "system text" in long.json()["error"]["message"]
