"""P-Tuning v2: trained keys and values in every layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from residency.core.errors import UserError
from residency.models.adapters.method import Method, complete, freeze, put_back, read_trained, save_trained


class Prefix(Method):
    """Trained keys and values in front of every layer's own (P-Tuning v2: Liu et al., 2021), the head trained whole.

    The base stays as it is, so general ability is less at risk, and it may be quantised. Does not merge.
    """

    kind: Literal["prefix"] = "prefix"
    length: int = Field(default=32, ge=1)
    """Positions of the prefix; 128 in the published settings of 6B models."""
    adapter: str | None = None
    """Go on from a prefix in peft's format: a folder, relative to the recipe. Its length is kept."""

    def attach(self, model: Any) -> Any:
        from residency.models import prefix

        freeze(model)
        earlier = {one.length for _, one in prefix.prefixes(model)}
        if self.adapter is not None:
            prefix.from_peft(model, Path(self.adapter))
        elif not earlier:
            prefix.begin(model, self.length)
        elif earlier != {self.length}:
            raise UserError(
                f"method.length: {self.length} differs from the prefix that this stage starts from ({min(earlier)}); give "
                "that, or start: base."
            )
        for _, one in prefix.prefixes(model):
            one.requires_grad_(True)
        return model

    def save(self, model: Any, folder: Path) -> None:
        save_trained(model, folder, {"offset": str(model.prefix_offset)})

    def load(self, model: Any, folder: Path, *, merge: bool) -> Any:
        from residency.models import prefix

        freeze(model)
        tensors, facts = read_trained(folder)
        prefix.put(model, tensors, int(facts["offset"]))
        put_back(model, tensors, folder)
        complete(model, tensors, folder)
        return model.requires_grad_(False)
