"""Tuned models to export, made in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from residency.models.adapters import method_of
from residency.models.artefact import GenerativeSettings, chat, fresh, save
from residency.models.base import BaseModelSettings, resolve
from residency.models.generation import Generation, TokenLimits
from residency.tasks.card import load_card


def writes(folder: Path, method: Any, seed: int = 5) -> Path:
    """A model that writes, tuned so that its answers are not the base's."""
    base, card = resolve(BaseModelSettings(id="bundled:tiny-lm")), load_card("qa")
    torch.manual_seed(seed)
    model: Any = method_of(method).attach(fresh(base, card, "text")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    made = GenerativeSettings(chat=chat(base, TokenLimits()), generation=Generation(max_tokens=64))
    save(folder, model, base, card, method, "synthetic", made)
    return folder


def marks(folder: Path, method: Any) -> Path:
    """An encoder with a head, tuned a little."""
    base, card = resolve(BaseModelSettings(id="bundled:tiny-encoder")), load_card("clinical")
    torch.manual_seed(5)
    model: Any = method_of(method).attach(fresh(base, card)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    save(folder, model, base, card, method, "synthetic")
    return folder
