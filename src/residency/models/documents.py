"""Rows of a batch one behind the other, without padding, none seeing another.

transformers' flattening collator gives one long row and says where each document ends; attention
here computes each document by itself. A block-diagonal mask would give the same numbers in the time
of the long row squared.
"""

from __future__ import annotations

from typing import Any

from residency.models.attention import leave, use

__all__ = ["flat", "holds", "leave", "use"]


def flat(rows: list[list[int]], targets: list[list[int]], device: Any = None) -> dict[str, Any]:
    """Rows as one long one: ``input_ids``, ``labels``, ``position_ids`` [1, tokens] and the bounds
    of the documents."""
    import torch
    from transformers import DataCollatorWithFlattening

    collator = DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    features = [
        {"input_ids": ids, "labels": wanted} for ids, wanted in zip(rows, targets, strict=True)
    ]
    batch: dict[str, Any] = collator(features, return_tensors="pt")
    # A mask of four dimensions is handed through as it is, so that none is built for the long row.
    batch["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


def holds(model: Any, vocabulary: int) -> bool:
    """Whether documents laid end to end give what each gives alone: tried with three short ones,
    whatever the architecture."""
    import torch

    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    rows = [
        torch.randint(vocabulary, (length,), generator=generator).tolist() for length in (5, 9, 3)
    ]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            batch = flat(rows, rows, device)
            batch.pop("labels")
            together = model(**batch, use_cache=False).logits[0].float()
            alone = [
                model(input_ids=torch.tensor([row], device=device), use_cache=False)
                .logits[0]
                .float()
                for row in rows
            ]
    except (TypeError, ValueError, RuntimeError):
        return False
    finally:
        model.train(training)
    return bool(torch.allclose(together, torch.cat(alone), atol=1e-2, rtol=1e-3))
