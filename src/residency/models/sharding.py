"""A model whose weights several processes share out: each holds its part of every tensor and
borrows the rest for as long as a layer computes.

This is torch's fully sharded data parallel (``fully_shard``; Zhao et al., 2023). Parameters keep
their names and stay where they were in the model, but hold only this process's part; whatever reads
or writes whole tensors goes through this module. What is marked *together* is called by every
process at the same point.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from residency.core.errors import UserError

MARK = "residency_sharded"
"""Attribute of a model that is shared out."""


def group(device: str) -> Any:
    """The processes at work, as those that share out on a kind of device. *Together*."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device, (torch.distributed.get_world_size(),))


def shard(model: Any, mesh: Any) -> Any:
    """Share out a model's tensors among a ``group``: each layer by itself, then what is left.
    Nothing is sent: every process keeps its part of what it has.

    Raises ``UserError`` for a model with tensors that cannot be cut.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if any(p.ndim == 0 for p in model.parameters()):
        raise UserError(
            "launch.shard: this base has single numbers among its weights, which cannot be shared "
            "out; set false."
        )
    # of work in place on its output, which nothing here does
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    # the model last: or what the root holds would stay whole after judging
    for unit in (*units(model), model):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    if hasattr(model, "peft_config"):  # writes with the model inside it, beside its own hooks
        register_fsdp_forward_method(model, "generate")
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    model.register_load_state_dict_pre_hook(_cut_weights)
    setattr(model, MARK, True)
    # so that transformers' Trainer leaves it as it is
    inner._is_distributed_loading_by_transformers = True
    return model


def units(model: Any) -> list[Any]:
    """The modules that are borrowed whole, one after the other: layers, and embeddings of their
    own."""
    wanted = int(getattr(model.config.get_text_config(), "num_hidden_layers", 0))
    modules = (each for each in model.modules() if isinstance(each, torch.nn.ModuleList))
    lists = (each for each in modules if len(each) == wanted)
    layers = list(next(lists, ()))
    names = ("get_input_embeddings", "get_output_embeddings")
    ends = [getattr(model, name)() for name in names if hasattr(model, name)]
    apart = [end for end in ends if isinstance(end, torch.nn.Module) and not _tied(model, end)]
    return [*layers, *apart]


def _tied(model: Any, module: Any) -> bool:
    """Whether a weight is also another module's, so that both must be borrowed together."""
    own = {id(p) for p in module.parameters()}
    inside = {id(each) for each in module.modules()}
    others = (each for each in model.modules() if id(each) not in inside)
    return any(id(p) in own for each in others for p in each._parameters.values() if p is not None)


def sharded(model: Any) -> bool:
    """Whether a model's tensors are shared out."""
    return bool(getattr(model, MARK, False))


def parts(model: Any) -> dict[str, torch.Tensor]:
    """A copy of this process's part of what is trained, on the CPU."""
    return {name: part(p).detach().to("cpu", copy=True).contiguous() for name, p in trained(model)}


def trained(model: Any) -> Iterator[tuple[str, Any]]:
    """The trained parameters by name."""
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def part(tensor: Any) -> torch.Tensor:
    """What this process holds of a tensor: all of it, where it is not shared out."""
    held: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return held


def put_parts(model: Any, held: dict[str, torch.Tensor]) -> None:
    """Put back what ``parts`` copied."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in held.items():
            part(own[name]).copy_(tensor)


def whole(
    model: Any, held: dict[str, torch.Tensor] | None = None, keep: bool = True
) -> dict[str, torch.Tensor]:
    """The trained tensors put together on the CPU, or those that ``parts`` copied; nothing where
    not ``keep``. *Together*."""
    made = {}
    own = dict(model.named_parameters())
    for name in held if held is not None else [name for name, _ in trained(model)]:
        tensor = own[name].detach() if held is None else like(own[name], held[name])
        full = tensor.full_tensor()
        if keep:
            made[name] = full.to("cpu", copy=True).contiguous()
    return made


def like(parameter: Any, held: torch.Tensor) -> Any:
    """This process's part of a tensor that is shared out as a parameter is."""
    from torch.distributed.tensor import DTensor

    mesh = parameter.device_mesh
    return DTensor.from_local(
        held.to(mesh.device_type),
        mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def cut(parameter: Any, tensor: torch.Tensor) -> Any:
    """A whole tensor shared out as a parameter is; every process has it, so nothing is sent."""
    from torch.distributed.tensor import distribute_tensor

    mesh = parameter.device_mesh
    return distribute_tensor(
        tensor.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None
    )


def _cut_weights(model: Any, whole: dict[str, Any], prefix: str, *_: Any) -> None:
    """Lets a model that is shared out load tensors that are whole."""
    own = dict(model.named_parameters())
    for name, tensor in whole.items():
        if name in own:
            whole[name] = cut(own[name], tensor)


def read_parts(model: Any, file: Path) -> dict[str, torch.Tensor]:
    """This process's part of each tensor of a safetensors file, on the CPU.

    Raises ``UserError`` for one that the model does not have in this shape.
    """
    from safetensors import safe_open

    own, found = dict(model.named_parameters()), {}
    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            tensor = tensors.get_tensor(name)
            if name not in own or own[name].shape != tensor.shape:
                raise UserError(
                    f"{file}: the weights do not fit this base ({name} is missing or of another "
                    "shape)."
                )
            found[name] = part(cut(own[name], tensor)).to("cpu", copy=True)
    return found


def move_into(model: Any, target: Any) -> None:
    """Write the trained tensors into a model that is whole, one at a time; ``target`` is none where
    a process only gives. *Together*."""
    own = dict(target.named_parameters()) if target is not None else {}
    with torch.no_grad():
        for name, parameter in trained(model):
            full = parameter.detach().full_tensor()
            if target is not None:
                own[name].copy_(full)


def keep_whole(optimiser: Any) -> None:
    """Let an optimiser's state be saved whole and loaded from what is whole: the file is that of
    one process. ``state_dict`` is then called *together*."""
    optimiser.register_state_dict_post_hook(_gathered)
    optimiser.register_load_state_dict_pre_hook(_cut)


def _gathered(optimiser: Any, found: dict[str, Any]) -> dict[str, Any]:
    from torch.distributed.tensor import DTensor

    def full(value: Any) -> Any:
        return value.full_tensor().cpu() if isinstance(value, DTensor) else value

    state = {
        number: {name: full(value) for name, value in each.items()}
        for number, each in found["state"].items()
    }
    return {**found, "state": state}


def _cut(optimiser: Any, found: dict[str, Any]) -> dict[str, Any]:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def share(number: int, value: Any) -> Any:
        parameter = parameters[number]
        same = isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape == parameter.shape
        return cut(parameter, value) if same else value

    state = {
        number: {name: share(number, value) for name, value in each.items()}
        for number, each in found["state"].items()
    }
    return {**found, "state": state}
