"""Models are changed while several workers answer: the one that is asked changes, the others follow
the ledger; no request fails, and each names the one model that answered it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from serve_tools import LONG, NEEDS_REDIS, NOTE, Redis, Started, Threads

from residency.core.files import process_alive
from residency.core.types import Spans
from residency.models import artefact
from residency.models.adapters import Lora, method_of
from residency.models.base import BaseModelSettings, resolve
from residency.models.generation import Generation, TokenLimits
from residency.models.predictors import remember
from residency.ops.model_ledger import ModelLedger
from residency.tasks.card import load_card

pytestmark = [pytest.mark.server, NEEDS_REDIS]


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models that write different things."""
    base, card, made = resolve(BaseModelSettings(id="bundled:tiny-lm")), load_card("qa"), []
    for seed in (5, 6):
        torch.manual_seed(seed)
        model = method_of(Lora(r=2)).attach(artefact.fresh(base, card, "text")).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.02)
        made.append(tmp_path_factory.mktemp("writers") / str(seed))
        writing = artefact.GenerativeSettings(
            chat=artefact.chat(base, TokenLimits()), generation=Generation(max_tokens=16)
        )
        artefact.save(made[-1], model, base, card, Lora(r=2), "synthetic", writing)
        remember(made[-1])
    return made


class Hospital:
    """A ledger whose name points to the first of two models, and a server of it with two workers."""

    def __init__(
        self,
        trained: list[Path],
        folder: Path,
        start: Callable[..., Started],
        redis: Redis,
        alias: str = "ner",
    ) -> None:
        self.models, self.alias = ModelLedger(folder / "models"), alias
        self.old, self.new = (self.models.add(one).digest for one in trained)
        self.models.promote(alias, self.old)
        self.server = start(
            alias,
            "--models",
            str(folder / "models"),
            "workers=2",
            f"limits.redis=redis://127.0.0.1:{redis.port}",
            "limits.per_second=100000",
            f"limits.seconds={LONG}",
            f"limits.drain={LONG}",
            "fingerprint_seconds=0.5",
        )
        self.address, self.headers = self.server.address, dict(self.server.client.headers)
        self.folder = folder

    def fresh(self) -> httpx2.Client:
        """A client with a connection of its own: whichever worker takes it answers."""
        return httpx2.Client(
            base_url=self.address, headers=self.headers, timeout=LONG, trust_env=False
        )

    def all_answer(self, digest: str) -> bool:
        """Whether whichever worker is asked answers with a model."""
        return {self.asked() for _ in range(20)} == {digest}

    def asked(self) -> str:
        with self.fresh() as client:
            found = client.post("/extract", json={"text": NOTE})
        assert found.status_code == 200, found.text
        return str(found.json()["digest"])

    def followed(self, changes: int) -> bool:
        """Whether both workers have made so many changes: any of them answers for both."""
        page = httpx2.get(f"{self.address}/metrics", trust_env=False, timeout=LONG).text
        figure = f'residency_model_changes_total{{model="{self.alias}",outcome="ok"}}'
        return f"{figure} {2.0 * changes}" in page

    def change(self, what: str, **body: Any) -> httpx2.Response:
        with self.fresh() as client:
            return client.post(
                f"/admin/models/{self.alias}/{what}", json=body or None, timeout=LONG
            )

    def now(self) -> str:
        return self.models.aliases()[self.alias][-1]

    def lines(self) -> list[str]:
        found = "".join(path.read_text() for path in (self.folder / "serve").glob("audit-*.jsonl"))
        return [line for line in found.splitlines() if '"what":"admin"' in line]


@pytest.fixture
def hospital(
    trained: list[Path], tmp_path: Path, start: Callable[..., Started], redis: Redis
) -> Hospital:
    return Hospital(trained, tmp_path, start, redis)


class Load(Threads):
    """Requests without a pause, each on a connection of its own, from several threads: (asked at,
    answered at, status, digest twice, marks)."""

    def __init__(self, hospital: Hospital, threads: int = 4) -> None:
        super().__init__(threads)
        self.hospital = hospital
        self.seen: list[tuple[float, float, int, str, str, str]] = []

    def ask(self) -> None:
        while not self.stop.is_set():
            begun = time.monotonic()
            try:
                with self.hospital.fresh() as client:
                    row = self.one(client)
            except httpx2.HTTPError as error:
                row = 0, "", "", type(error).__name__
            self.seen.append((begun, time.monotonic(), *row))

    def one(self, client: httpx2.Client) -> tuple[int, str, str, str]:
        """A request: status, digest in the header, digest in the body, what was said."""
        found = client.post("/extract", json={"text": NOTE})
        body = found.json()
        marks = [(one["start"], one["end"], one["label"]) for one in body.get("entities", ())]
        return (
            found.status_code,
            found.headers.get("x-residency-digest", ""),
            body.get("digest", ""),
            str(marks),
        )

    def during(self, seconds: float) -> None:
        time.sleep(seconds)


class Streams(Load):
    """The same with answers that are streamed, whole ones only."""

    def one(self, client: httpx2.Client) -> tuple[int, str, str, str]:
        """A stream: status, digest in the header, the digests that its pieces name, what they said."""
        body = {
            "model": "words",
            "messages": [{"role": "user", "content": "ho khan?"}],
            "max_tokens": 48,
            "stream": True,
        }
        found = client.post("/v1/chat/completions", json=body)
        events = [
            line.removeprefix("data: ")
            for line in found.text.splitlines()
            if line.startswith("data: ")
        ]
        whole = events and events[-1] == "[DONE]"
        pieces = [json.loads(event) for event in events[:-1]]
        named = {piece.get("system_fingerprint") for piece in pieces}
        said = "".join(
            one["delta"].get("content") or ""
            for piece in pieces
            for one in piece.get("choices", ())
        )
        return (
            found.status_code if whole else 0,
            found.headers.get("x-residency-digest", ""),
            str(named),
            said,
        )


def alone(path: Path) -> str:
    """What a model says of the note when it is asked without a server."""
    import asyncio

    from residency.serve.engines.in_process import load

    engine = load(path, "ner", device="cpu")
    found = asyncio.run(engine.classify(NOTE))
    asyncio.run(engine.close())
    assert isinstance(found.answer, Spans)
    return str([(one.start, one.end, one.label) for one in found.answer.spans])


def test_no_request_fails_and_none_sees_two_models(hospital: Hospital, trained: list[Path]) -> None:
    own = [alone(path) for path in trained]
    assert own[0] != own[1], "the answers must tell the models apart"
    with Load(hospital) as load:
        load.during(1)
        steady: list[tuple[float, float, str]] = []
        for number, (what, body, digest) in enumerate(
            (
                ("promote", {"digest": hospital.new[:12]}, hospital.new),
                ("rollback", {}, hospital.old),
                ("promote", {"digest": hospital.new}, hospital.new),
            ),
            start=1,
        ):
            done = hospital.change(what, **body)
            assert done.status_code == 200, done.text
            named = done.headers["x-residency-digest"], done.json()["digest"], hospital.now()
            assert named == (digest, digest, digest)
            hospital.server.until(lambda number=number: hospital.followed(number))  # type: ignore[misc]
            begun = time.monotonic()
            load.during(2)
            steady.append((begun, time.monotonic(), digest))
    seen = sorted(load.seen)
    assert len(seen) > 50
    assert {row[2] for row in seen} == {200}, {row[2:] for row in seen if row[2] != 200}
    assert all(row[3] == row[4] for row in seen), "header and body name one model"
    assert {row[4:] for row in seen} == {(hospital.old, own[0]), (hospital.new, own[1])}, (
        "content is that of the digest"
    )
    for begun, until, digest in steady:
        inside = {row[4] for row in seen if row[0] > begun and row[1] < until}
        assert inside == {digest}, "once all have followed, never back to the old one"
    lines = hospital.lines()
    assert len(lines) == 3 and all('"status":200' in line for line in lines)
    assert sum(f'"model":"{hospital.new}"' in line for line in lines) == 2
    assert [one.what for one in hospital.models.entries()[-3:]] == [
        "promote",
        "rollback",
        "promote",
    ]
    assert hospital.models.entries()[-1].by


def test_streams_end_on_the_model_that_they_began_on(
    writers: list[Path], tmp_path: Path, start: Callable[..., Started], redis: Redis
) -> None:
    hospital = Hospital(writers, tmp_path, start, redis, "words")
    with Streams(hospital) as load:
        load.during(2)
        done = hospital.change("promote", digest=hospital.new)
        assert done.status_code == 200, done.text
        hospital.server.until(lambda: hospital.followed(1))
        followed = time.monotonic()
        load.during(2)
    assert {row[2] for row in load.seen} == {200}
    assert len({row[3:] for row in load.seen}) == 2, (
        "each digest has one answer, and names it in each piece"
    )
    said = {row[3]: row[5] for row in load.seen}
    assert set(said) == {hospital.old, hospital.new} and said[hospital.old] != said[hospital.new]
    assert {row[3] for row in load.seen if row[0] > followed} == {hospital.new}
    ended = max(row[1] for row in load.seen if row[3] == hospital.old)
    assert ended > min(row[0] for row in load.seen if row[3] == hospital.new), (
        "some of both were under way at once"
    )


def test_what_is_broken_is_refused_and_followed_by_none(hospital: Hospital) -> None:
    weights = hospital.models.path(hospital.new) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with Load(hospital) as load:
        found = hospital.change("promote", digest=hospital.new)
        load.during(0.5)
    assert (found.status_code, found.json()["error"]["code"]) == (409, "not_promoted")
    assert str(hospital.folder) not in found.text
    assert {(row[2], row[4]) for row in load.seen} == {(200, hospital.old)}
    assert hospital.now() == hospital.old
    assert hospital.change("promote", digest="0123456789abcdef").status_code == 404
    assert hospital.change("rollback").status_code == 409
    assert ['"status":409' in line for line in hospital.lines()].count(True) == 2


def test_what_starts_again_comes_up_with_what_the_ledger_says(hospital: Hospital) -> None:
    assert hospital.change("promote", digest=hospital.new).status_code == 200
    hospital.server.until(lambda: hospital.followed(1))
    before = hospital.server.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    hospital.server.until(lambda: len(set(hospital.server.workers()) - set(before)) == 2)
    hospital.server.until(lambda: hospital.server.ready() == 200)
    assert hospital.all_answer(hospital.new)
    assert hospital.change("rollback").status_code == 200
    hospital.server.until(lambda: hospital.all_answer(hospital.old))


def test_what_the_command_changed_is_followed_by_all(hospital: Hospital) -> None:
    hospital.models.promote("ner", hospital.new)
    hospital.server.until(lambda: hospital.followed(1))
    assert hospital.all_answer(hospital.new)
    assert hospital.server.end() == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_manager(hospital: Hospital, how: signal.Signals) -> None:
    workers = hospital.server.workers()
    assert len(workers) == 2
    os.kill(hospital.server.process.pid, how)
    hospital.server.process.wait(LONG)
    end = time.monotonic() + LONG
    while any(process_alive(pid) for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.1)
