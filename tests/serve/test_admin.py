"""Models are changed while requests run: each is answered by one model, which it names; what is not
proved never answers."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serve_tools import HEADERS, KEY, LONG, NOTE, Server, Started

from residency.core.errors import GateRefused
from residency.ops.model_ledger import ModelLedger
from residency.serve.app import ROUTES
from residency.serve.auth import Caller, LocalTokens
from residency.serve.launch import load
from residency.serve.promote import current_models
from residency.serve.records.audit_chain import GLOB, Audit
from residency.serve.records.monitoring import Metrics
from residency.serve.settings import Serve


class Hospital:
    """A ledger whose name ``ner`` points to the first of two models, and a server of it."""

    def __init__(
        self, trained: list[Path], folder: Path, app: Callable[..., Any], **more: Any
    ) -> None:
        self.models = ModelLedger(folder / "models")
        self.old, self.new = (self.models.add(one).digest for one in trained)
        self.models.promote("ner", self.old)
        self.audit = Audit.open(folder / "serve", 0, b"k" * 32)
        self.folder = folder

        def engine(path: Path, name: str) -> Any:
            return load(path, name, Serve(engine="process"))

        self.first = engine(self.models.path(self.old), "ner")
        self.app = app(
            {"ner": self.first}, ledger=folder / "models", load=engine, audit=self.audit, **more
        )

    def lines(self) -> str:
        return "".join(path.read_text() for path in (self.folder / "serve").glob(GLOB))

    def now(self) -> str:
        return self.models.aliases()["ner"][-1]


@pytest.fixture
def hospital(trained: list[Path], tmp_path: Path, app: Callable[..., Any]) -> Hospital:
    return Hospital(trained, tmp_path, app)


def asked(client: Any) -> str:
    return str(client.post("/extract", json={"text": NOTE}).json()["digest"])


def test_promoted_and_rolled_back(hospital: Hospital) -> None:
    with TestClient(hospital.app, headers=HEADERS) as client:
        assert asked(client) == hospital.old
        found = client.post("/admin/models/ner/promote", json={"digest": hospital.new[:12]})
        assert found.status_code == 200, found.text
        assert (found.json()["digest"], found.json()["previous"]) == (hospital.new, hospital.old)
        assert (
            found.headers["x-residency-digest"] == hospital.new == asked(client) == hospital.now()
        )
        assert hospital.first.closed
        assert client.get("/v1/models").json()["data"][0]["digest"] == hospital.new
        again = client.post("/admin/models/ner/promote", json={"digest": hospital.new})
        assert again.status_code == 409 and "already" in again.json()["error"]["message"]
        back = client.post("/admin/models/ner/rollback")
        assert (back.status_code, back.json()["digest"]) == (200, hospital.old)
        assert asked(client) == hospital.old == hospital.now()
        end = client.post("/admin/models/ner/rollback")
        assert (
            end.status_code == 409 and "never pointed to another" in end.json()["error"]["message"]
        )
        assert client.get("/readyz").status_code == 200
    lines = [line for line in hospital.lines().splitlines() if '"what":"admin"' in line]
    assert [('"status":200' in line, "/admin/models/{alias}/" in line) for line in lines] == [
        (True, True),
        (False, True),
        (True, True),
        (False, True),
    ]
    assert f'"model":"{hospital.new}"' in lines[0]
    assert hospital.models.entries()[-1].by, "the ledger names who asked, hashed"


def test_no_request_fails_while_models_change(hospital: Hospital) -> None:
    import httpx2

    server = Server(hospital.app)
    try:
        seen: list[list[tuple[int, str, str]]] = [[] for _ in range(4)]
        stop = threading.Event()

        def ask(own: list[tuple[int, str, str]]) -> None:
            with httpx2.Client(base_url=server.address, headers=HEADERS, timeout=LONG) as client:
                while not stop.is_set():
                    found = client.post("/extract", json={"text": NOTE})
                    own.append(
                        (
                            found.status_code,
                            found.headers["x-residency-digest"],
                            found.json().get("digest"),
                        )
                    )

        threads = [threading.Thread(target=ask, args=(own,)) for own in seen]
        for thread in threads:
            thread.start()
        try:
            with httpx2.Client(base_url=server.address, headers=HEADERS, timeout=LONG) as client:
                done = client.post("/admin/models/ner/promote", json={"digest": hospital.new})
                assert done.status_code == 200, done.text
                assert asked(client) == hospital.new
        finally:
            stop.set()
            for thread in threads:
                thread.join(LONG)
        for own in seen:
            assert {status for status, _, _ in own} == {200}
            assert all(head == body for _, head, body in own)
            digests = [body for _, _, body in own]
            assert digests[0] == hospital.old
            assert digests == sorted(digests, key=lambda one: one == hospital.new), (
                "never back to the old one"
            )
        assert hospital.first.closed
    finally:
        server.end()


def test_what_is_broken_is_refused_and_the_old_one_goes_on(
    hospital: Hospital, tmp_path: Path
) -> None:
    weights = hospital.models.path(hospital.new) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with TestClient(hospital.app, headers=HEADERS) as client:
        found = client.post("/admin/models/ner/promote", json={"digest": hospital.new})
        assert (found.status_code, found.json()["error"]["code"]) == (409, "not_promoted")
        assert str(tmp_path) not in found.text
        assert (
            found.headers["x-residency-digest"] == hospital.old == asked(client) == hospital.now()
        )
        shutil.rmtree(weights.parent)
        assert (
            client.post("/admin/models/ner/promote", json={"digest": hospital.new}).status_code
            == 409
        )
        floor = client.post(
            "/admin/models/ner/promote", json={"digest": hospital.new, "require_safety": 0.9}
        )
        assert floor.status_code == 409 and "safety" in floor.json()["error"]["message"]
        assert asked(client) == hospital.old and not hospital.first.closed


def test_unknown_names_and_digests(hospital: Hospital) -> None:
    with TestClient(hospital.app, headers=HEADERS) as client:
        for path, body, status in (
            ("other/promote", {"digest": hospital.new}, 404),
            ("other/rollback", None, 404),
            ("ner/promote", {"digest": "0123456789abcdef"}, 404),
            ("ner/promote", {"digest": "no digest"}, 400),
            ("ner/promote", {}, 400),
        ):
            assert client.post(f"/admin/models/{path}", json=body).status_code == status, path
        assert asked(client) == hospital.old


class Reader(LocalTokens):
    """Knows one person, who may do all but change models."""

    async def caller(self, authorization: str | None) -> Caller:
        return Caller("reader", frozenset({"chat", "extract", "diagnose", "deidentify"}))


def test_the_scope_is_needed(trained: list[Path], tmp_path: Path, app: Callable[..., Any]) -> None:
    hospital = Hospital(trained, tmp_path, app, tokens=Reader(KEY))
    with TestClient(hospital.app, headers=HEADERS) as client:
        assert asked(client) == hospital.old
        for path in ("promote", "rollback"):
            found = client.post(f"/admin/models/ner/{path}", json={"digest": hospital.new})
            assert found.status_code == 403
        assert asked(client) == hospital.old == hospital.now()


def test_where_models_cannot_be_changed_it_is_said(client: Any) -> None:
    found = client.post("/admin/models/ner/rollback")
    assert (found.status_code, found.json()["error"]["code"]) == (409, "no_ledger")


def until(good: Callable[[], bool], seconds: float = LONG) -> None:
    end = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_the_command_promoted_is_followed(hospital: Hospital) -> None:
    with TestClient(hospital.app, headers=HEADERS) as client:
        assert asked(client) == hospital.old
        hospital.models.promote("ner", hospital.new)
        count = len(hospital.models.entries())
        until(lambda: asked(client) == hospital.new)
        until(lambda: hospital.first.closed)
        assert client.get("/readyz").status_code == 200
        assert len(hospital.models.entries()) == count, "who follows writes no line"
        again = client.post("/admin/models/ner/promote", json={"digest": hospital.new})
        assert again.status_code == 409 and "already" in again.json()["error"]["message"]
        hospital.models.rollback("ner")
        until(lambda: asked(client) == hospital.old)


def test_what_is_not_proved_here_is_not_followed_and_figures_say_so(
    trained: list[Path], tmp_path: Path, app: Callable[..., Any]
) -> None:
    figures = Metrics(ROUTES, ["ner"])
    hospital = Hospital(trained, tmp_path, app, metrics=figures)
    with TestClient(hospital.app, headers=HEADERS) as client:
        assert asked(client) == hospital.old
        weights = hospital.models.path(hospital.new) / "adapter_model.safetensors"
        whole = weights.read_bytes()
        hospital.models.promote("ner", hospital.new)
        weights.write_bytes(whole[:-8])
        behind = 'residency_model_behind{model="ner"} 1.0'
        until(lambda: behind in client.get("/metrics").text)
        assert asked(client) == hospital.old and not hospital.first.closed
        assert client.get("/readyz").status_code == 200
        weights.write_bytes(whole)
        found = client.post("/admin/models/ner/promote", json={"digest": hospital.new})
        assert found.status_code == 200, found.text
        assert asked(client) == hospital.new == hospital.now()
        assert behind not in client.get("/metrics").text


def test_what_starts_again_serves_what_the_ledger_says(trained: list[Path], tmp_path: Path) -> None:
    models = ModelLedger(tmp_path / "models")
    old, new = (models.add(one).digest for one in trained)
    models.promote("ner", old)
    given = {"ner": models.path(old), "run": trained[0]}
    assert current_models(given, tmp_path / "models") == given == current_models(given, None)
    models.promote("ner", new)
    assert current_models(given, tmp_path / "models") == {
        "ner": models.path(new),
        "run": trained[0],
    }
    assert current_models({"ner": trained[0]}, tmp_path / "models") == {
        "ner": models.path(new)
    }  # its name, its digest
    ledger = tmp_path / "models" / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"alias":"ner"', '"alias":"nor"', 1))
    with pytest.raises(GateRefused, match="was changed"):
        current_models(given, tmp_path / "models")
    assert current_models({"run": trained[0]}, tmp_path / "models") == {"run": trained[0]}


@pytest.mark.server
def test_the_server_as_it_is_started(trained: list[Path], tmp_path: Path) -> None:
    models = ModelLedger(tmp_path / "models")
    old, new = (models.add(one).digest for one in trained)
    models.promote("ner", old)
    server = Started(tmp_path, "ner", "--models", str(tmp_path / "models"))
    try:
        assert asked(server.client) == old
        found = server.client.post("/admin/models/ner/promote", json={"digest": new})
        assert found.status_code == 200, found.text
        assert asked(server.client) == new == models.aliases()["ner"][-1]
        assert server.ready() == 200
        figures = server.client.get("/metrics").text
        assert 'route="/admin/models/{alias}/promote",status="200"' in figures
        assert f'digest="{new}"' in figures
        assert server.end() == 0
    finally:
        server.client.close()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
