"""Full tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from residency.core.errors import UserError
from residency.models.adapters.method import Method


class Full(Method):
    """Every weight is trained."""

    kind: Literal["full"] = "full"
    in_place: ClassVar[bool] = True

    def attach(self, model: Any) -> Any:
        return model.requires_grad_(True)

    def load(self, model: Any, folder: Path, *, merge: bool) -> Any:
        import safetensors
        import safetensors.torch

        try:
            tensors = safetensors.torch.load_file(folder / "model.safetensors")
            missing, unexpected = model.load_state_dict(tensors, strict=False)
        except (OSError, RuntimeError, safetensors.SafetensorError):
            raise UserError(
                f"{folder}: the weights cannot be read or are of another shape; restore it, or "
                "train again."
            ) from None
        missing = [
            name
            for name in missing
            if name not in (getattr(model, "all_tied_weights_keys", None) or {})
        ]
        if missing or unexpected:
            raise UserError(
                f"{folder}: the weights do not fit this base ({len(missing)} missing, "
                f"{len(unexpected)} unknown)."
            )
        return model.requires_grad_(False)

    def unquantised(self, model: Any) -> list[str]:
        raise UserError(
            "base.quantise: full tuning trains every weight, so none may be quantised; set none, "
            "or use lora."
        )
