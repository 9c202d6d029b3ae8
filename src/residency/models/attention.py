"""The attention that models are given here: documents laid end to end, and trained prefixes, on
every architecture that lets its attention be chosen.

One function for both, so that they combine: each document sees the prefix of its layer and itself.
A prefix is joined to keys and values behind the cache, which therefore never holds it: cached,
uncached, checkpointed and left-padded passes agree.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "residency"
"""Name under which transformers knows the attention."""
PLAIN = "residency_plain"
"""Name of the attention in which classifiers are trained on a CPU."""
PREFIX = "prefix"
"""Attribute of an attention module that holds its trained keys and values (``models.prefix``)."""


def use(model: Any) -> bool:
    """Let a model attend this way; False where its architecture does not let it be chosen."""
    return choose(model, NAME, attend)


def choose(model: Any, name: str, function: Any) -> bool:
    """Let a model attend with a function of ours; False where its architecture does not let
    attention be chosen."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    able = getattr(model, "_supports_attention_backend", False)
    if model.config._attn_implementation not in ("sdpa", NAME) or not able:
        return False
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)
    return bool(model.config._attn_implementation == name)


def use_plain(model: Any) -> None:
    """Let a model attend in plain matrix products while it is trained on a CPU, where its
    architecture lets attention be chosen and no prefix needs another one; ``leave`` undoes it.

    A step of 12 layers of 384 in bf16 on one core takes 0.4 instead of 0.8 s at 16 x 40 tokens, 1.2
    instead of 1.8 at 16 x 128, 1.9 instead of 1.6 at 4 x 512: torch's fused kernel is slow
    backward. What is attended to is not dropped, which costs as much again (4.1 s) and is not seen
    in the scores.
    """
    if model.config._attn_implementation == "sdpa":
        choose(model, PLAIN, attend_plainly)


def leave(model: Any) -> None:
    """Back to the model's own attention, unless a prefix needs this one."""
    if model.config._attn_implementation in (NAME, PLAIN) and not any(
        hasattr(one, PREFIX) for one in model.modules()
    ):
        model.set_attn_implementation("sdpa")


def lay_end_to_end(
    rows: list[list[int]], targets: list[list[int]], device: Any = None
) -> dict[str, Any]:
    """Rows of a batch as one long one, without padding: ``input_ids``, ``labels``, ``position_ids``
    [1, tokens] and the bounds of the documents.

    Attention computes each document by itself. A block-diagonal mask would give the same numbers in
    the time of the long row squared.
    """
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


def keeps_apart(model: Any) -> bool:
    """Whether documents laid end to end give what each gives alone: tried with three short ones,
    whatever the architecture."""
    import torch

    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    words = model.config.vocab_size
    rows = [torch.randint(words, (size,), generator=generator).tolist() for size in (5, 9, 3)]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            batch = lay_end_to_end(rows, rows, device)
            batch.pop("labels")
            together = model(**batch, use_cache=False).logits[0].float()
            singles = (torch.tensor([row], device=device) for row in rows)
            alone = [model(input_ids=one, use_cache=False).logits[0].float() for one in singles]
    except (TypeError, ValueError, RuntimeError):
        return False
    finally:
        model.train(training)
    return bool(torch.allclose(together, torch.cat(alone), atol=1e-2, rtol=1e-3))


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention, by document where their bounds are given; [batch, heads,
    tokens, size] each."""
    import torch

    if cu_seq_lens_q is None:
        return _behind_prefix(module, query, key, value, attention_mask, **kwargs)
    kind = query.dtype
    # torch's CPU kernel takes twice as long backward in bf16, for documents of a note's length
    if query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
    bounds = cu_seq_lens_q.tolist()
    parts = [
        _behind_prefix(
            module, q, k, v, _window(q.shape[2], kwargs.get("sliding_window"), q.device), **kwargs
        )[0]
        for q, k, v in zip(*(_cut(tensor, bounds) for tensor in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=1).to(kind), None


def attend_plainly(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention without dropout, product by product; [batch, heads, tokens, size] each."""
    import torch

    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (one.repeat_interleave(groups, dim=1) for one in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    causal = kwargs.get("is_causal")
    if attention_mask is None and (
        getattr(module, "is_causal", True) if causal is None else causal
    ):
        shape = scores.shape[-2:]
        attention_mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
    if attention_mask is not None:
        least = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~attention_mask, least)
    shares = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    found: torch.Tensor = shares @ value
    return found.transpose(1, 2).contiguous(), None


def _behind_prefix(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in which every token also sees the module's prefix, where it has one."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    prefix = getattr(module, PREFIX, None)
    if prefix is not None:
        causal = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        tokens, seen = query.shape[2], key.shape[2]
        # torch's own causal mask begins at the first key, the prefix
        if mask is None and causal and tokens > 1:
            mask = torch.ones(1, 1, tokens, seen, dtype=torch.bool, device=key.device).tril(
                seen - tokens
            )
        if mask is not None:
            mask = torch.nn.functional.pad(
                mask, (prefix.length, 0), value=1 if mask.dtype == torch.bool else 0
            )
        keys, values = (
            part.to(key.dtype).expand(key.shape[0], -1, -1, -1) for part in prefix.both()
        )
        key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
    result: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, mask, **kwargs
    )
    return result


def _window(tokens: int, most: int | None, device: Any) -> torch.Tensor | None:
    """The mask of one document [1, 1, tokens, tokens] where a token sees only so many, itself
    included; None where it sees all before it."""
    import torch

    if most is None or tokens <= most:
        return None
    return torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=device).tril().triu(1 - most)


def _cut(tensor: torch.Tensor, bounds: list[int]) -> tuple[torch.Tensor, ...]:
    import torch

    parts: tuple[torch.Tensor, ...] = torch.split(
        tensor, [end - start for start, end in pairwise(bounds)], dim=2
    )
    return parts
