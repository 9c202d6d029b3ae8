"""The engine in front of vLLM: what it asks, what it believes, and what it does when vLLM dies."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from residency.core.errors import UserError
from residency.core.files import process_alive
from residency.core.types import Turn
from residency.models.adapters import Full, Lora, Prefix, method_of
from residency.models.artefact import GenerativeSettings, chat, fresh, read, save
from residency.models.base import BaseModelSettings, resolve
from residency.models.generation import Generation, TokenLimits
from residency.serve import Refusal
from residency.serve.engines import Piece, WritingRequest
from residency.serve.engines.servers import VllmEngine
from residency.tasks.card import load_card

FAKE = (sys.executable, str(Path(__file__).with_name("fake_vllm.py")))
CARD = load_card("qa")
ASKED = WritingRequest(turns=(Turn(role="user", text="Gan?"),), max_tokens=8)


def trained(folder: Path, method: Any) -> Path:
    base = resolve(BaseModelSettings(id="bundled:tiny-lm"))
    writing = GenerativeSettings(chat=chat(base, TokenLimits()), generation=Generation())
    save(
        folder,
        method_of(method).attach(fresh(base, CARD, "text", [method])),
        base,
        CARD,
        method,
        "synthetic",
        writing,
    )
    return folder


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("lora") / "a", Lora(r=2))


@pytest.fixture(autouse=True)
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAKE_VLLM_SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("FAKE_VLLM", "")
    return tmp_path / "seen"


def served(artefact: Path, use: Callable[[VllmEngine], Awaitable[None]]) -> None:
    async def whole() -> None:
        engine = await VllmEngine.launch(artefact, "gan", "", command=FAKE, seconds=600)
        try:
            await use(engine)
        finally:
            await engine.close()
            assert not engine.process.alive

    asyncio.run(whole())


async def pieces(engine: VllmEngine) -> list[Piece]:
    return [piece async for piece in engine.write(ASKED)]


def test_an_answer_comes_in_pieces_and_only_one_route_is_asked(artefact: Path, seen: Path) -> None:
    async def use(engine: VllmEngine) -> None:
        found = await pieces(engine)
        assert found == [
            Piece("Gan", 1, ids=(11,), log_probability=-0.5),
            Piece(" nhiễm", 2, ids=(12,), log_probability=-1.0),
            Piece(" mỡ", 3, "stop", ids=(13,), log_probability=-1.5),
        ]
        assert await engine.probe()
        assert all(engine.process.key not in part for part in engine.process.command)

    served(artefact, use)
    asked = [json.loads(line) for line in seen.read_text("utf-8").splitlines()]
    assert {one["path"] for one in asked} == {"/v1/completions"}
    assert all(one["quiet"] for one in asked)
    written = asked[-2]["body"]
    assert all(isinstance(id, int) for id in written["prompt"]), (
        "our template and tokenizer, not vLLM's"
    )
    assert (written["model"], written["temperature"], written["max_tokens"]) == ("gan", 0.0, 8)
    assert asked[0]["argv"][asked[0]["argv"].index("--lora-modules") + 1] == f"gan={artefact}"


def test_a_score_is_per_token_and_leaves_the_written_one_out(artefact: Path) -> None:
    async def use(engine: VllmEngine) -> None:
        scored = await engine.score([5, 6, 7])
        assert scored.ids == (5, 6, 7)
        assert scored.log_probabilities == (None, -1.5, -2.5)

    served(artefact, use)


def test_an_adapter_that_is_not_at_work_is_refused(
    artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "misnamed")

    async def use(engine: VllmEngine) -> None:
        raise AssertionError("was served")

    with pytest.raises(UserError, match="not at work"):
        served(artefact, use)


def test_what_it_does_not_say_is_not_taken_for_sure(
    artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "unsure")

    async def use(engine: VllmEngine) -> None:
        assert (await pieces(engine))[-1].log_probability == -math.inf

    served(artefact, use)


def test_a_stream_that_breaks_off_is_no_answer(
    artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "cut")

    async def use(engine: VllmEngine) -> None:
        with pytest.raises(Refusal) as refused:
            await pieces(engine)
        assert refused.value.status == 503

    served(artefact, use)


def test_a_dead_process_is_503_and_not_started_again(artefact: Path) -> None:
    async def use(engine: VllmEngine) -> None:
        assert engine.fault() == ""
        os.kill(engine.process.pid, signal.SIGKILL)
        while engine.process.alive:
            await asyncio.sleep(0.01)
        with pytest.raises(Refusal) as refused:
            await pieces(engine)
        assert (refused.value.status, refused.value.code) == (503, "engine_unavailable")
        assert not await engine.probe()
        assert engine.fault() == "the vLLM process of gan has ended"

    served(artefact, use)


def test_workers_share_a_process_that_the_last_one_ends(artefact: Path, tmp_path: Path) -> None:
    async def whole() -> None:
        async def launched() -> VllmEngine:
            return await VllmEngine.launch(
                artefact, "gan", "", command=FAKE, seconds=600, shared=tmp_path / "vllm"
            )

        first, second = await launched(), await launched()
        assert first.process.pid == second.process.pid
        (address,) = (tmp_path / "vllm").glob("*/address.json")
        assert address.stat().st_mode & 0o777 == 0o600
        pid = first.process.pid
        await first.close()
        assert [piece.text for piece in await pieces(second)][-1] == " mỡ"
        third = await launched()
        assert third.process.pid == pid
        await second.close()
        assert await third.probe() and third.fault() == ""
        await third.close()
        while process_alive(pid):
            await asyncio.sleep(0.01)
        assert not address.exists()

    asyncio.run(whole())


def test_one_that_hangs_is_not_ready_whatever_its_flag_says(artefact: Path) -> None:
    async def use(engine: VllmEngine) -> None:
        engine.process.seconds = 0.2
        await engine.process._client.aclose()
        engine.process._client = None
        os.kill(engine.process.pid, signal.SIGSTOP)
        assert engine.process.alive and not await engine.probe()
        os.kill(engine.process.pid, signal.SIGCONT)

    served(artefact, use)


def test_more_than_the_window_is_refused_and_not_cut(artefact: Path) -> None:
    async def use(engine: VllmEngine) -> None:
        with pytest.raises(Refusal) as refused:
            [piece async for piece in engine.continue_([5] * engine.served.window, ASKED)]
        assert refused.value.status == 400

    served(artefact, use)


@pytest.mark.parametrize(
    ("method", "why"),
    [(Lora(r=2), ""), (Full(), ""), (Lora(r=2, dora=True), "DoRA"), (Prefix(length=2), "prefixes")],
    ids=["lora", "full", "dora", "prefix"],
)
def test_what_vllm_cannot_serve_has_a_reason(method: Any, why: str, tmp_path: Path) -> None:
    found = VllmEngine.can_serve(read(trained(tmp_path / "a", method)))
    assert (why in found) and bool(found) == bool(why)


def test_a_quantised_base_has_a_reason(artefact: Path) -> None:
    found = read(artefact)
    found = msgspec.structs.replace(found, base=msgspec.structs.replace(found.base, quantise="nf4"))
    assert "quantised (nf4)" in VllmEngine.can_serve(found)


def test_one_that_ends_at_once_is_one_sentence(artefact: Path) -> None:
    async def whole() -> None:
        await VllmEngine.launch(
            artefact, "gan", "", command=(sys.executable, "-c", "raise SystemExit(1)"), seconds=600
        )

    with pytest.raises(UserError, match="vLLM ended"):
        asyncio.run(whole())
