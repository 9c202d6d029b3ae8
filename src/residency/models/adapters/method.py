"""What every tuning method is, and what it needs to know of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from residency.core.errors import UserError
from residency.core.part import Part
from residency.models.base import HEADS, silent

CHANGED = "changed.safetensors"


class Method(Part):
    """Base of the tuning methods."""

    merges: ClassVar[bool] = False
    """Whether what it trains can be added to the base's weights, so that answering costs nothing
    more."""
    in_place: ClassVar[bool] = False
    """Whether it changes weights of the base: they must be there in 32 bits, and not quantised."""
    needs_base: ClassVar[bool] = True
    """Whether it changes a base; one that does not is a model of its own (``models/crf.py``)."""

    def attach(self, model: Any) -> Any:
        """The model with only what this method trains left trainable."""
        # an external method that forgot to say what it does
        raise TypeError(f"{type(self).__name__} attaches nothing.")

    def save(self, model: Any, folder: Path) -> None:
        """Write what was trained, and nothing else, as safetensors."""
        with silent():
            model.save_pretrained(folder, safe_serialization=True)

    def load(self, model: Any, folder: Path, *, merge: bool) -> Any:
        """A base with fresh head -> the trained model; merged where asked for and possible."""
        raise TypeError(f"{type(self).__name__} loads nothing.")

    def unquantised(self, model: Any) -> list[str]:
        """Modules that it trains whole, which a quantised base must therefore keep as they are;
        ``model`` has no weights yet.

        Raises ``UserError`` where the method cannot work on a quantised base at all.
        """
        return []


def fresh(model: Any) -> tuple[str, ...]:
    """Modules without the base's weights: they are trained whole and saved, whatever the method."""
    if output_layer(model) is not None:  # a method is given a model, and knows no head
        return ()
    return tuple(getattr(model, "fresh", ())) or tuple(
        name for name in HEADS if hasattr(model, name)
    )


def output_layer(model: Any) -> Any:
    """What gives a model an output for each token of its vocabulary; ``None`` for one with a
    head."""
    return getattr(model, "get_output_embeddings", lambda: None)()


def freeze(model: Any) -> None:
    """Leave nothing trainable but fresh modules."""
    heads = fresh(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(name.startswith(head + ".") for head in heads))


def save_trained(model: Any, folder: Path, metadata: dict[str, str] | None = None) -> None:
    """Write every trainable tensor, under its name in the model, and nothing else."""
    write_trained(trained(model), folder, metadata)


def trained(model: Any) -> dict[str, Any]:
    """Every trainable tensor under its name in the model."""
    return {
        name: p.detach().cpu().contiguous()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def write_trained(
    tensors: dict[str, Any], folder: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as what was trained."""
    import safetensors.torch

    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, folder / CHANGED, metadata)


def read_trained(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors that ``save_trained`` wrote, and what it said of them."""
    import safetensors

    try:
        with safetensors.safe_open(folder / CHANGED, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        raise UserError(
            f"{folder / CHANGED}: cannot be read; restore it, or train again."
        ) from None


def complete(model: Any, tensors: dict[str, Any], where: Path) -> None:
    """Raises ``UserError`` where something that is trained in a model was not among the tensors
    that it was given."""
    missing = [
        name for name, p in model.named_parameters() if p.requires_grad and name not in tensors
    ]
    if missing:
        raise UserError(
            f"{where}: {len(missing)} tensors that were trained are missing; restore it, or train "
            "again."
        )


def put_back(model: Any, tensors: dict[str, Any], where: Path) -> None:
    """Put tensors in the place of a model's own.

    Raises ``UserError`` for one that the model does not have in this shape.
    """
    import torch

    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name not in own or own[name].shape != tensor.shape:
                raise UserError(
                    f"{where}: the weights do not fit this base ({name} is missing or of another "
                    "shape)."
                )
            own[name].copy_(tensor)
