"""Rows of a batch one behind the other, without padding, none seeing another.

transformers' flattening collator gives one long row and says where each document ends; attention here computes each
document by itself. A block-diagonal mask would give the same numbers in the time of the long row squared.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "residency_documents"
"""Name under which transformers knows the attention."""


def use(model: Any) -> bool:
    """Let a model attend within documents; False where its architecture does not let attention be chosen."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation != "sdpa" or not getattr(model, "_supports_attention_backend", False):
        return False
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return True


def leave(model: Any) -> None:
    """Back to the model's own attention."""
    if model.config._attn_implementation == NAME:
        model.set_attn_implementation("sdpa")


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention, by document where their bounds are given; [1, heads, tokens, size] each."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return result
    kind = query.dtype
    if (
        query.device.type == "cpu"
    ):  # torch's CPU kernel takes twice as long backward in bf16, for documents of a note's length
        query, key, value = query.float(), key.float(), value.float()
    bounds = cu_seq_lens_q.tolist()
    parts = [
        sdpa_attention_forward(module, q, k, v, None, **kwargs)[0]
        for q, k, v in zip(*(_cut(tensor, bounds) for tensor in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=1).to(kind), None


def _cut(tensor: torch.Tensor, bounds: list[int]) -> tuple[torch.Tensor, ...]:
    import torch

    parts: tuple[torch.Tensor, ...] = torch.split(tensor, [end - start for start, end in pairwise(bounds)], dim=2)
    return parts


def flat(rows: list[list[int]], targets: list[list[int]], device: Any = None) -> dict[str, Any]:
    """Rows as one long one: ``input_ids``, ``labels``, ``position_ids`` [1, tokens] and the bounds of the documents."""
    import torch
    from transformers import DataCollatorWithFlattening

    collator = DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    features = [{"input_ids": ids, "labels": wanted} for ids, wanted in zip(rows, targets, strict=True)]
    batch: dict[str, Any] = collator(features, return_tensors="pt")
    # A mask of four dimensions is handed through as it is, so that none is built for the long row.
    batch["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def holds(model: Any, vocabulary: int) -> bool:
    """Whether documents laid end to end give what each gives alone: tried with three short ones, whatever the architecture."""
    import torch

    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in (5, 9, 3)]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            batch = flat(rows, rows, device)
            batch.pop("labels")
            together = model(**batch, use_cache=False).logits[0].float()
            alone = [
                model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[0].float() for row in rows
            ]
    except (TypeError, ValueError, RuntimeError):
        return False
    finally:
        model.train(training)
    return bool(torch.allclose(together, torch.cat(alone), atol=1e-2, rtol=1e-3))
