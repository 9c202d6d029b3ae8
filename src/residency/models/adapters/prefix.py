"""P-Tuning v2: trained keys and values in every layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from residency.core.errors import UserError
from residency.models.adapters.method import (
    Method,
    complete,
    freeze,
    put_back,
    read_trained,
    trained,
    write_trained,
)


class Prefix(Method):
    """Trained keys and values in front of every layer's own (P-Tuning v2: Liu et al., 2021), the
    head trained whole.

    The base stays as it is, so general ability is less at risk, and it may be quantised. Does not
    merge.
    """

    kind: Literal["prefix"] = "prefix"
    length: int = Field(default=32, ge=1, le=16_384)
    """Positions of the prefix; 128 in the published settings of 6B models."""
    projection: int | None = Field(default=None, ge=1, le=65_536)
    """Hidden units of a projection through which the prefix is trained (peft's
    ``prefix_projection`` with this ``encoder_hidden_size``); only the prefix that it makes is kept.
    None where not given."""
    adapter: str | None = None
    """Go on from a prefix in peft's format: a folder relative to the recipe. Its length is kept."""

    def attach(self, model: Any) -> Any:
        from residency.models import prefix_layers

        freeze(model)
        earlier = {one.length for _, one in prefix_layers.prefixes(model)}
        if self.adapter is not None:
            prefix_layers.from_peft(model, Path(self.adapter))
        elif not earlier:
            prefix_layers.begin(model, self.length)
        elif earlier != {self.length}:
            raise UserError(
                f"method.length: {self.length} differs from the prefix that this stage starts from "
                f"({min(earlier)}); give that, or start: base."
            )
        if self.projection is not None:
            prefix_layers.project(model, self.projection)
        for _, one in prefix_layers.prefixes(model):
            one.requires_grad_(True)
        return model

    def save(self, model: Any, folder: Path) -> None:
        from residency.models import attention, prefix_layers

        mark = f".{attention.PREFIX}."
        others = {name: tensor for name, tensor in trained(model).items() if mark not in name}
        write_trained(
            {**others, **prefix_layers.state(model)}, folder, {"offset": str(model.prefix_offset)}
        )

    def load(self, model: Any, folder: Path, *, merge: bool) -> Any:
        from residency.models import prefix_layers

        freeze(model)
        tensors, facts = read_trained(folder)
        prefix_layers.put(model, tensors, int(facts["offset"]))
        put_back(model, tensors, folder)
        complete(model, tensors, folder)
        return model.requires_grad_(False)
