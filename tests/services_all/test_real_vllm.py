"""A LoRA run in a real vLLM gives the tokens that it gives in process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from residency.core.types import Turn
from residency.models.adapters import Lora, method_of
from residency.models.artefact import GenerativeSettings, chat, fresh, load_chat, save
from residency.models.base import BaseModelSettings, resolve
from residency.models.causal import CausalPredictor
from residency.models.generation import Generation, TokenLimits
from residency.serve.engines import WritingRequest
from residency.serve.engines.servers import VllmEngine
from residency.tasks.card import load_card

PYTHON = os.environ.get("RESIDENCY_TEST_VLLM", "")
pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PYTHON, reason="RESIDENCY_TEST_VLLM names no interpreter that has vLLM"),
]
QUESTIONS = ("肝炎怎么治疗？", "J44.1 là bệnh gì?", "What is the treatment of asthma?")


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    """A LoRA adapter whose answers are not the base's."""
    base, card, generation = (
        resolve(BaseModelSettings(id="bundled:tiny-lm")),
        load_card("qa"),
        Generation(max_tokens=24),
    )
    torch.manual_seed(5)
    model: Any = method_of(Lora(r=4)).attach(fresh(base, card, "text")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    save(
        tmp_path / "a",
        model,
        base,
        card,
        Lora(r=4),
        "synthetic",
        GenerativeSettings(chat=chat(base, TokenLimits()), generation=generation),
    )
    return tmp_path / "a"


def test_tokens_in_vllm_are_those_in_process(artefact: Path) -> None:
    tuned, base = (
        CausalPredictor.from_artefact(artefact, device="cpu"),
        CausalPredictor.untuned_of(artefact, device="cpu"),
    )
    turns = [(Turn(role="user", text=text),) for text in QUESTIONS]
    expected = [tuned.answer(one) for one in turns]
    assert expected != [base.answer(one) for one in turns], "the adapter does nothing"
    _, model, speaker = load_chat(artefact)
    ids = speaker.prompt(turns[0], 900)[0] or []
    with torch.inference_mode():
        logs = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
    plain = [float(logs[i, id]) for i, id in enumerate(ids[1:])]

    async def served() -> None:
        engine = await VllmEngine.launch(
            artefact, "qa", PYTHON, dtype="float32", log=artefact / "vllm.log"
        )
        try:
            written = []
            for one in turns:
                asked = WritingRequest(turns=one, max_tokens=24)
                written.append("".join([piece.text async for piece in engine.write(asked)]))
            assert written == expected
            scored = await engine.score(ids)
            assert scored.log_probabilities[1:] == pytest.approx(plain, abs=1e-3)
            assert await engine.probe()
        finally:
            await engine.close()

    asyncio.run(served())
