"""Trained keys and values in front of every layer's own: P-Tuning v2 (Liu et al., 2021), prefix
tuning (Li and Liang, 2021).

Which modules attend, and with how many heads of which size, is found by running the model once:
nothing here knows an architecture. Layout and positions are those of peft's prefix checkpoints,
which come in unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from residency.core.errors import UserError
from residency.models import attention
from residency.models.running import evaluating

PROBE = "residency_probe"
TABLES = ("position_embeddings", "wpe", "embed_positions")
"""Names under which architectures keep a learned table of positions."""


class LayerPrefix(torch.nn.Module):
    """The prefix of one layer: keys and values [heads of keys, length, size of a head]."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = torch.nn.Parameter(keys), torch.nn.Parameter(values)

    def both(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values."""
        return self.keys, self.values

    @property
    def length(self) -> int:
        """Positions that every token sees before the text."""
        return int(self.both()[0].shape[1])


class Shared(torch.nn.Module):
    """What all layers' prefixes are computed from where they are projected: a vector a position
    [length, width], seen through a layer with tanh [length, hidden]."""

    def __init__(self, length: int, width: int, hidden: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Parameter(torch.randn(length, width))
        self.first = torch.nn.Linear(width, hidden)

    def forward(self) -> torch.Tensor:
        """The hidden states."""
        return torch.tanh(self.first(self.embedding))


class ProjectedPrefix(LayerPrefix):
    """The prefix of one layer while it is trained through a projection (Li and Liang's
    reparametrisation, as in P-Tuning v2): its layer's rows of the last matrix, on top of what the
    prefix began as. It begins with zeros, so as that."""

    def __init__(self, began: LayerPrefix, shared: Shared) -> None:
        torch.nn.Module.__init__(self)
        keys, values = began.both()
        self.register_buffer("began", torch.stack([keys, values]).detach().clone())
        self.shared = shared
        self.last = torch.nn.Linear(shared.first.out_features, 2 * keys.shape[0] * keys.shape[2])
        torch.nn.init.zeros_(self.last.weight)
        torch.nn.init.zeros_(self.last.bias)

    def both(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, computed anew."""
        began = self.get_buffer("began")
        _, heads, length, size = began.shape
        made = self.last(self.shared()).view(length, 2, heads, size).permute(1, 2, 0, 3)
        keys, values = (began + made).unbind()
        return keys, values


def prefixes(model: Any) -> Iterator[tuple[str, LayerPrefix]]:
    """Name of each attention module with its prefix, in the order of the layers."""
    for name, module in model.named_modules():
        if isinstance(getattr(module, attention.PREFIX, None), LayerPrefix):
            yield name, module.prefix


def begin(model: Any, length: int) -> None:
    """Give every layer a prefix of ``length`` positions.

    It begins as what the layer made of so many of the model's own tokens, drawn at random: keys and
    values of the right size, at the right positions. Raises ``UserError`` for a model that cannot
    take one.
    """
    tokens = torch.randint(vocabulary(model), (length,))
    states = probe(model, tokens)
    if not attention.use(model):  # the probe would have failed before
        raise _refusal(model)
    for name, (keys, values) in states.items():
        model.get_submodule(name).add_module(attention.PREFIX, LayerPrefix(keys, values))
    place(model, length if _causal(model, states) and _table(model) is None else 0)


def put(model: Any, tensors: dict[str, torch.Tensor], offset: int) -> None:
    """Give a model the prefixes that a file holds (``MODULE.prefix.keys`` and ``.values``).

    Raises ``UserError`` where they are of another model.
    """
    if not attention.use(model):
        raise _refusal(model)
    ends = f".{attention.PREFIX}.keys"
    names = [name.removesuffix(ends) for name in tensors if name.endswith(ends)]
    device = next(model.parameters()).device
    for name in names:
        try:
            module = model.get_submodule(name)
        except AttributeError:
            raise UserError(
                f"the prefix is of another base: this one has no module {name}."
            ) from None
        both = (tensors[f"{name}.{attention.PREFIX}.{part}"] for part in ("keys", "values"))
        module.add_module(attention.PREFIX, LayerPrefix(*(one.float().to(device) for one in both)))
    place(model, offset)


def project(model: Any, hidden: int) -> None:
    """Train a model's prefixes through one projection of ``hidden`` units; they stay what they are
    until it is trained."""
    found = list(prefixes(model))
    heads, length, size = found[0][1].both()[0].shape
    shared = Shared(length, heads * size, hidden).to(found[0][1].both()[0].device)
    for name, one in found:
        made = ProjectedPrefix(one, shared).to(one.both()[0].device)
        model.get_submodule(name).add_module(attention.PREFIX, made)


def state(model: Any) -> dict[str, torch.Tensor]:
    """The prefixes as ``put`` takes them; projected ones as what the projection makes of them,
    which is all that is kept."""
    return {
        f"{name}.{attention.PREFIX}.{part}": tensor.detach().cpu().contiguous()
        for name, one in prefixes(model)
        for part, tensor in zip(("keys", "values"), one.both(), strict=True)
    }


def probe(model: Any, tokens: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Attention module -> the keys and values [heads, tokens, size] that it computes for a text, in
    the order of the layers."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    found: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def recorded(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        found[module] = (key[0].detach().float().clone(), value[0].detach().float().clone())
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    own = model.config._attn_implementation
    if not attention.choose(model, PROBE, recorded):
        raise _refusal(model)
    device = next(model.parameters()).device
    window = min(len(tokens), _most_positions(model))
    pieces: list[dict[Any, tuple[torch.Tensor, torch.Tensor]]] = []
    try:
        with evaluating(model), torch.no_grad():
            for start in range(0, len(tokens), window):
                found.clear()
                given = tokens[start : start + window].to(device)[None]
                # on the meta device there is none: its values would be looked at
                mask = {} if given.is_meta else {"attention_mask": torch.ones_like(given)}
                model(input_ids=given, **mask)
                pieces.append(dict(found))
    except (RuntimeError, ValueError, TypeError):
        raise _refusal(model) from None
    finally:
        model.set_attn_implementation(own)
    if not pieces[0]:
        raise _refusal(model)
    names = {module: name for name, module in model.named_modules()}

    def joined(module: Any, part: int) -> torch.Tensor:
        return torch.cat([piece[module][part] for piece in pieces], dim=1)

    return {names[module]: (joined(module, 0), joined(module, 1)) for module in pieces[0]}


def place(model: Any, offset: int) -> None:
    """Let texts begin at position ``offset``: behind a prefix that stands before them.

    Where positions turn the keys (rotary), it also counts them without padding, so that a row
    padded on the left gives what it gives alone. A learned table of positions is entered so much
    further down.
    """
    if hasattr(model, "prefix_hook"):
        model.prefix_hook.remove()
        del model.prefix_hook
    model.prefix_offset = offset
    table = _table(model)
    if table is not None and offset:
        model.prefix_hook = table.register_forward_pre_hook(lambda _, ids: (ids[0] + offset,))
    elif offset:

        def behind(_: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            positions = given.get("position_ids")
            positions = _positions(args, given) if positions is None else positions
            return args, {**given, "position_ids": positions + offset}

        model.prefix_hook = model.base_model.register_forward_pre_hook(behind, with_kwargs=True)


def _positions(args: tuple[Any, ...], given: dict[str, Any]) -> torch.Tensor:
    """Positions of a text's tokens [rows, tokens], padding and the cache accounted for."""
    text = args[0] if args else given.get("input_ids")
    text = given["inputs_embeds"] if text is None else text
    tokens, mask, cache = text.shape[1], given.get("attention_mask"), given.get("past_key_values")
    if mask is not None and mask.dim() == 2:
        counted: torch.Tensor = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -tokens:]
        return counted
    past = cache.get_seq_length() if cache is not None else 0
    return torch.arange(past, past + tokens, device=text.device)[None]


def vocabulary(model: Any) -> int:
    """Number of tokens that a model knows."""
    return int(model.get_input_embeddings().weight.shape[0])


def _table(model: Any) -> Any:
    """The learned table of positions; None where positions turn the keys instead."""
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] in TABLES and isinstance(module, torch.nn.Embedding):
            return module
    return None


def _most_positions(model: Any) -> int:
    """Positions that a text may take; two fewer where they begin behind the padding token, as
    RoBERTa's do."""
    table = _table(model)
    longest = int(getattr(model.config, "max_position_embeddings", 0) or 512)
    return min(longest, table.num_embeddings) - 2 if table is not None else longest


def _causal(model: Any, states: dict[str, Any]) -> bool:
    return any(getattr(model.get_submodule(name), "is_causal", False) for name in states)


def _refusal(model: Any) -> UserError:
    kind = getattr(model.config, "model_type", "this architecture")
    return UserError(
        f"method.kind: prefix: {kind} does not let its attention take a prefix; use lora or "
        "freeze, or another base."
    )


# peft's checkpoints: one matrix [length, layers x (keys, values) x heads x size of a head]


def from_peft(model: Any, folder: Path) -> None:
    """Give a model the prefix of a peft checkpoint, at peft's positions; a head in it is taken over
    as well.

    Raises ``UserError`` where it is no prefix, or one of another model.
    """
    file = folder / "adapter_model.safetensors"
    try:
        tensors = safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError):
        raise UserError(
            f"method.adapter: {file} cannot be read; give the folder of a peft checkpoint."
        ) from None
    table = tensors.get("prompt_embeddings")
    if table is None or table.dim() != 2:
        raise UserError(
            f"method.adapter: {folder} holds no prefix (no prompt_embeddings); give one of peft's."
        )
    states = probe(model, torch.zeros(2, dtype=torch.long))
    length = table.shape[0]
    sizes = {keys.shape[::2] for keys, _ in states.values()}
    heads, size = next(iter(sizes))
    if len(sizes) != 1 or table.shape[1] != len(states) * 2 * heads * size:
        takes = sum(part[:, 0].numel() for both in states.values() for part in both)
        raise UserError(
            f"method.adapter: the prefix in {folder} is of another base: it has {table.shape[1]} "
            f"numbers a position, this base takes {takes}."
        )
    shaped = table.float().view(length, len(states), 2, heads, size)
    split = shaped.permute(1, 2, 3, 0, 4).contiguous()
    names = {
        f"{name}.{attention.PREFIX}.{part}": split[layer, which].clone()
        for layer, name in enumerate(states)
        for which, part in enumerate(("keys", "values"))
    }
    put(model, names, offset=length)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            plain = name.removeprefix("base_model.").replace(".modules_to_save.default", "")
            target = own.get(plain.removeprefix("model."))
            if target is not None and target.shape == tensor.shape:
                target.copy_(tensor)
