"""Rows that join and leave between steps are continued as each would be alone, read anew at every
token; also by models whose layers look back a few tokens only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import transformers

from residency.models.side_by_side import SideBySide

SIZE = {"vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
CONFIGS = {
    "llama": transformers.LlamaConfig(**SIZE, **HEADS),
    "mistral": transformers.MistralConfig(**SIZE, **HEADS, sliding_window=4),
    "gemma3": transformers.Gemma3TextConfig(
        **SIZE, **HEADS, sliding_window=4, sliding_window_pattern=2, head_dim=8
    ),
}
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [20, 21], [33] * 7]


def alone(model: Any, prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens, without any memory."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_that_join_and_leave_are_continued_as_alone(name: str) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    rows = SideBySide(cast(Any, SimpleNamespace(model=model, pad_id=0)))
    said: list[list[int]] = [[], [], []]

    def take(scores: torch.Tensor, whose: list[int]) -> None:
        for number, row in zip(whose, scores, strict=True):
            said[number].append(int(row.argmax()))

    take(rows.join(PROMPTS[:2]), [0, 1])
    for _ in range(3):
        take(rows.step([said[0][-1], said[1][-1]]), [0, 1])
    take(rows.join(PROMPTS[2:])[-1:], [2])
    for _ in range(4):
        take(rows.step([one[-1] for one in said]), [0, 1, 2])
    rows.keep([1, 2])
    for _ in range(4):
        take(rows.step([said[1][-1], said[2][-1]]), [1, 2])
    assert said == [alone(model, p, len(s)) for p, s in zip(PROMPTS, said, strict=True)]


def test_rows_go_on_where_others_could_not_join(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]).eval()
    rows = SideBySide(cast(Any, SimpleNamespace(model=model, pad_id=0)))
    said = [int(rows.join(PROMPTS[1:2])[0].argmax())]
    calls, real = 0, torch.cat

    def scarce(*given: Any, **named: Any) -> torch.Tensor:
        nonlocal calls
        calls += named == {} and given[0][0].dim() == 4
        if calls > 3:
            raise MemoryError
        return real(*given, **named)

    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(torch, "cat", scarce)
        rows.join(PROMPTS[:1])
    for _ in range(4):
        said.append(int(rows.step(said[-1:])[0].argmax()))
    assert said == alone(model, PROMPTS[1], 5)
