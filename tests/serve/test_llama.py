"""The engine in front of llama.cpp: what it asks, what it believes, what it refuses."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from residency.core.errors import UserError
from residency.core.files import file_digest, read_json, write_json
from residency.core.types import Turn
from residency.export import gguf
from residency.models import artefact as artefacts
from residency.models import fingerprint
from residency.models.sampling import Form
from residency.serve import Refusal
from residency.serve.engines import Piece, WritingRequest
from residency.serve.engines.servers import LlamaEngine, planned
from residency.serve.launch import described, load
from residency.serve.settings import Serve

FAKE = (sys.executable, str(Path(__file__).with_name("fake_llama.py")))
ASKED = WritingRequest(turns=(Turn(role="user", text="Gan?"),), max_tokens=3)


@pytest.fixture
def exported(artefacts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the export writes it; its llama.cpp says -2.5 of every token."""
    monkeypatch.setenv("FAKE_LLAMA", "-2.5")
    monkeypatch.setenv("FAKE_LLAMA_SEEN", str(tmp_path / "seen"))
    return made(artefacts["words"], tmp_path / "gguf")


def made(source: Path, folder: Path) -> Path:
    folder.mkdir()
    found = artefacts.read(source)
    chat = artefacts.chat_of(found, source)
    chat.tokenizer.save_pretrained(folder / gguf.TOKENIZER)
    (folder / gguf.MODEL).write_bytes(b"x" * 1000)
    ids = fingerprint.rows(chat)
    said = fingerprint.Fingerprint(
        schema=fingerprint.SCHEMA,
        dtype="q4_0",
        device="cpu",
        ids=ids,
        values=tuple((-2.5,) * (len(row) - 1) for row in ids),
        tolerances={"q4_0": 0.25},
    )
    export = gguf.Gguf(
        artefact=file_digest(source / "artefact.json"),
        base=found.base.id,
        base_digest=found.base.digest,
        method=found.kinds,
        card=found.card,
        profile=found.profile,
        files={gguf.MODEL: file_digest(folder / gguf.MODEL)},
        numbers="q4_0",
        prompts="token ids",
        equal=0,
        compared=3,
        window=found.base.window,
        limits=found.limits,
        generate=found.generate,
        fingerprint=said,
        token_bytes=3840,
        words=8192,
    )
    write_json(folder / gguf.FILE, export)
    return folder


def served(folder: Path, use: Callable[[LlamaEngine], Awaitable[None]]) -> None:
    async def whole() -> None:
        engine = await LlamaEngine.launch(folder, "gan", Serve(), command=FAKE, seconds=20)
        try:
            await use(engine)
        finally:
            await engine.close()
            assert not engine.process.alive

    asyncio.run(whole())


def test_an_answer_comes_in_pieces_by_token_ids_of_ours(exported: Path, tmp_path: Path) -> None:
    async def use(engine: LlamaEngine) -> None:
        assert [piece async for piece in engine.write(ASKED)] == [
            Piece("Gan", 1, log_probability=-2.5),
            Piece(" nhiễm", 2, log_probability=-5.0),
            Piece("", 2, "stop", log_probability=-5.0),
        ]
        assert await engine.probe()
        assert all(engine.process.key not in part for part in engine.process.command)

    served(exported, use)
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert {one["path"] for one in seen} == {"/completion"}
    (written,) = [one["body"] for one in seen if one["body"].get("stream")]
    assert all(isinstance(token, int) for token in written["prompt"])
    assert (written["n_predict"], written["temperature"], written["seed"]) == (3, 0.0, -1)


def test_where_it_says_nothing_of_a_token_nothing_is_sure(exported: Path) -> None:
    longer = msgspec.structs.replace(ASKED, max_tokens=8)

    async def use(engine: LlamaEngine) -> None:
        last = [piece async for piece in engine.write(longer)][-1]
        assert (last.tokens, last.log_probability) == (4, -math.inf)

    served(exported, use)


def test_one_that_says_something_else_than_at_export_is_refused(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_LLAMA", "-4.0")

    async def use(engine: LlamaEngine) -> None:
        raise AssertionError("was served")

    with pytest.raises(UserError, match=r"largest difference 0\.6, allowed 0\.25"):
        served(exported, use)


def test_a_changed_file_is_refused(exported: Path) -> None:
    (exported / gguf.MODEL).write_bytes(b"y" * 1000)
    with pytest.raises(UserError, match=r"model\.gguf: is missing or was changed"):
        described(exported, "gan", Serve())


def test_an_export_of_an_earlier_version_is_refused(exported: Path) -> None:
    found = read_json(exported / gguf.FILE, gguf.Gguf)
    write_json(exported / gguf.FILE, msgspec.structs.replace(found, fingerprint=None))
    with pytest.raises(UserError, match="an earlier version exported it"):
        described(exported, "gan", Serve())


def test_without_llama_cpp_the_setting_is_named(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"llama_python: .* llama\.cpp is not installed there"):
        load(exported, "gan", Serve(llama_python=str(tmp_path / "none")))


def test_a_form_is_handed_on_and_one_that_cannot_be_held_to_is_refused(exported: Path) -> None:
    async def use(engine: LlamaEngine) -> None:
        choice = msgspec.structs.replace(ASKED, form=Form(choices=("có", "𠮷")))
        assert engine.body([5], choice)["grammar"].startswith("%llguidance")
        wrong = msgspec.structs.replace(ASKED, form=Form(schema={"type": "objct"}))
        with pytest.raises(Refusal) as refused:
            engine.body([5], wrong)
        assert (refused.value.status, refused.value.code) == (400, "bad_form")

    served(exported, use)


def test_memory_is_that_of_weights_tokens_of_all_answers_and_a_batch(exported: Path) -> None:
    settings = Serve.model_validate({"batch_rows": 2, "limits": {"context_tokens": 0}})
    window = 512 + 512
    beside = 2 * window * 3840 + 4 * 512 * 8192
    assert planned(exported, settings) == (1000, beside)
    assert described(exported, "gan", settings).window == window
