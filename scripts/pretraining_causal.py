"""What is particular to the bundled causal model: its shape, its conversations, its objective.

The tokenizer, the sources and what is held out are those of the encoder.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from pretraining_text import SHARED, SOURCES, Source, load_heldout, text_hash

LENGTH = 1024
"""Tokens of a row; the first SHORT of the steps use rows a quarter as long."""
SHORT = 0.8
TOKENS = 8192
"""Tokens of a step."""
SPOKEN = {"huatuo-liver", "pubmedqa", "icd10-vi"}
"""Sources that are (also) seen as conversations, so that the tokens between turns mean something.
The largest question corpus is not among them: answering its questions is left to tuning."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + "
    "message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def conversations() -> list[str]:
    """Training parts of the spoken sources, as the chat template writes them, without the first
    token."""
    heldout = load_heldout()
    found: list[str] = []
    for source in SOURCES:
        if source.name in SPOKEN:
            for turns in _turns(source, heldout):
                roles = ("user", "assistant")
                found.append(
                    "".join(f"<|{roles[i % 2]}|>{turn}<|end|>" for i, turn in enumerate(turns))
                )
    return found


def _turns(source: Source, heldout: frozenset[str]) -> Iterator[list[str]]:
    path = SHARED / source.file
    kept = {
        key for key, text in source.read(path) if not {text_hash(key), text_hash(text)} & heldout
    }
    if source.name == "icd10-vi":
        for _, text in ((key, text) for key, text in source.read(path) if key in kept):
            code, _, name = text.partition(" ")
            yield [f"{code} là bệnh gì?", name]
    elif source.name == "pubmedqa":
        for key, row in json.loads(path.read_text("utf-8")).items():
            if key in kept:
                yield [row["QUESTION"], row["LONG_ANSWER"]]
    else:
        text = path.read_text("utf-8")
        rows = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(line) for line in text.splitlines()]
        )
        for row in rows:
            if row["instruction"] in kept:
                parts = [
                    part.strip()
                    for part in re.split(r"<(?:user|bot)>:", row["instruction"])
                    if part.strip()
                ]
                turns = [*parts, row["output"].strip()]
                if len(turns) % 2 == 0:
                    yield turns


def config():
    """5 layers of 192, Llama shape, input and output embeddings shared: 3.8 million parameters."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=8192,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=[8, 2],
    )


def pack(texts: list[str], talks: list[str], tokenizer: Tokenizer, seed: int) -> np.ndarray:
    """Rows of LENGTH tokens: ``<s> text </s>`` and ``<s> turns`` in random order, one behind the
    other."""
    start, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    encoded = tokenizer.encode_batch([*texts, *talks], add_special_tokens=False)
    rows = [
        [start, *e.ids, end] if i < len(texts) else [start, *e.ids] for i, e in enumerate(encoded)
    ]
    order = np.random.default_rng(seed).permutation(len(rows))
    flat = np.concatenate([np.array(rows[i], dtype=np.int64) for i in order])
    return flat[: len(flat) // LENGTH * LENGTH].reshape(-1, LENGTH)


def optimisers(model: torch.nn.Module, peak: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers (about half the steps of AdamW), AdamW for embeddings and
    norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=peak, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def pretrain(ids: np.ndarray, steps: int, peak: float, seed: int, log: Path):
    """Next-token prediction; returns the model."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = LlamaForCausalLM(config())
    both = optimisers(model, peak)
    warmup, falling = max(1, steps // 50), steps // 2

    def shape(step: int) -> float:
        return min((step + 1) / warmup, max(0.02, min(1.0, (steps - step) / falling)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(one, shape) for one in both]
    rows = TOKENS // LENGTH
    order, started, lines = np.empty(0, dtype=np.int64), time.monotonic(), []
    model.train()
    for step in range(steps):
        if len(order) < rows:
            order = np.concatenate([order, rng.permutation(len(ids))])
        chosen, order = ids[order[:rows]], order[rows:]
        batch = torch.from_numpy(
            chosen.reshape(-1, LENGTH // 4 if step < SHORT * steps else LENGTH)
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), batch[:, 1:].flatten()
        )
        for one in both:
            one.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for one, schedule in zip(both, schedules, strict=True):
            one.step()
            schedule.step()
        if step % 10 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            lines.append(
                {"step": step, "loss": round(loss.item(), 4), "seconds": round(seconds, 1)}
            )
            log.write_text("\n".join(map(json.dumps, lines)) + "\n")
            rate = (step + 1) * TOKENS / seconds
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {rate:,.0f} tokens/s", flush=True)
        if step and step % 300 == 0:
            torch.save(model.state_dict(), log.with_name("unfinished.pt"))
    return model
