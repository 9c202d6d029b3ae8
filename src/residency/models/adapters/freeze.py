"""Training some layers and leaving the others as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from residency.core.errors import UserError
from residency.models.adapters.method import (
    Method,
    complete,
    freeze,
    put_back,
    read_trained,
    save_trained,
)


class Freeze(Method):
    """The last or first layers are trained, with the fresh head; every other weight stays. Only
    what changed is saved."""

    kind: Literal["freeze"] = "freeze"
    last: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    """So many layers nearest the output, or all of them; 2 where neither ``last`` nor ``first`` is
    given. ``all`` leaves the token embeddings as they are, which in a multilingual base are most of
    its weights and hardly move."""
    first: int | None = Field(default=None, ge=1)
    """So many layers nearest the input."""
    embeddings: bool = False
    """Train the token embeddings too."""
    head: bool = False
    """Generative models: train the output layer too, which in many models is the embeddings."""
    in_place: ClassVar[bool] = True

    @model_validator(mode="after")
    def _either(self) -> Freeze:
        if self.last is not None and self.first is not None:
            raise ValueError("give last or first, not both")
        return self

    def attach(self, model: Any) -> Any:
        freeze(model)
        for name in self.unquantised(model):
            model.get_submodule(name).requires_grad_(True)
        from residency.models.prefix_layers import prefixes

        for _, one in prefixes(model):
            # an earlier stage's prefix lies within the layers, and stays as it is
            one.requires_grad_(False)
        return model

    def unquantised(self, model: Any) -> list[str]:
        """Names of the modules that are trained.

        Raises ``UserError`` where there are fewer layers than asked for.
        """
        name, count = layers(model)
        which, wanted = "last", count if self.last == "all" else self.last or 2
        if self.first is not None:
            which, wanted = "first", self.first
        if wanted > count:
            raise UserError(
                f"method.{which}: {wanted} is more than this base's {count} layers; give at most "
                f"{count}."
            )
        chosen = range(wanted) if which == "first" else range(count - wanted, count)
        found = [f"{name}.{number}" for number in chosen]
        wholes = [model.get_input_embeddings()] if self.embeddings else []
        if self.head and model.get_output_embeddings() is not None:
            wholes.append(model.get_output_embeddings())
        modules = model.named_modules()
        return found + [name for name, one in modules if any(one is whole for whole in wholes)]

    def save(self, model: Any, folder: Path) -> None:
        save_trained(model, folder)

    def load(self, model: Any, folder: Path, *, merge: bool) -> Any:
        tensors, _ = read_trained(folder)
        put_back(model, tensors, folder)
        complete(self.attach(model), tensors, folder)
        return model.requires_grad_(False)


def layers(model: Any) -> tuple[str, int]:
    """Name of the list that holds a model's layers, and how many they are.

    Raises ``UserError`` for an architecture that has no such list.
    """
    import torch

    count = int(getattr(model.config.get_text_config(), "num_hidden_layers", 0))
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return name, count
    kind = getattr(model.config, "model_type", "this architecture")
    raise UserError(
        f"method.kind: freeze: {kind} does not keep its layers apart; use lora or full, or another "
        "base."
    )
