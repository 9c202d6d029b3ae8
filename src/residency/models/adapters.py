"""Tuning methods: what each attaches to a base, saves and loads. One class each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from residency.core.errors import UserError
from residency.core.part import External, Part
from residency.models.base import HEADS, silent


class Method(Part):
    """Base of the tuning methods."""

    def attach(self, model: Any) -> Any:
        """The model with only what this method trains left trainable."""
        raise TypeError(
            f"{type(self).__name__} attaches nothing."
        )  # an external method that forgot to say what it does

    def save(self, model: Any, folder: Path) -> None:
        """Write what was trained, and nothing else, as safetensors."""
        with silent():
            model.save_pretrained(folder, safe_serialization=True)

    def load(self, model: Any, folder: Path, *, merge: bool) -> Any:
        """A base with fresh head -> the trained model; merged where asked for and possible."""
        raise TypeError(f"{type(self).__name__} loads nothing.")


class Lora(Method):
    """Low-rank adapters on linear layers (Hu et al., 2021), the head trained whole."""

    kind: Literal["lora"] = "lora"
    r: int = Field(default=16, ge=1)
    """Rank."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale is alpha / r; twice the rank where not given."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's input that is dropped; 0.05 is usual for large models. It costs a quarter of the time
    on a CPU, and small encoders have dropout of their own."""
    targets: Literal["auto", "attention", "linear"] | list[str] = "auto"
    """``attention``: query, key, value, output; ``linear``: every linear layer of the body; or names. ``auto`` is
    ``linear`` for bases under 400 million parameters, ``attention`` above."""

    def attach(self, model: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=self.r,
            lora_alpha=2 * self.r if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=lora_targets(model, self.targets),
            modules_to_save=list(fresh(model)) or None,
            bias="none",
            task_type="CAUSAL_LM" if writes(model) else None,
        )
        with expected_warnings():
            return get_peft_model(model, config)

    def load(self, model: Any, folder: Path, *, merge: bool) -> Any:
        from peft import PeftModel

        with expected_warnings():
            loaded = PeftModel.from_pretrained(model, folder, is_trainable=False)
        return loaded.merge_and_unload() if merge else loaded


class Full(Method):
    """Every weight is trained."""

    kind: Literal["full"] = "full"

    def attach(self, model: Any) -> Any:
        return model

    def load(self, model: Any, folder: Path, *, merge: bool) -> Any:
        import safetensors.torch

        missing, unexpected = model.load_state_dict(
            safetensors.torch.load_file(folder / "model.safetensors"), strict=False
        )
        missing = [name for name in missing if name not in (getattr(model, "all_tied_weights_keys", None) or {})]
        if missing or unexpected:
            raise UserError(
                f"{folder}: the weights do not fit this base ({len(missing)} missing, {len(unexpected)} unknown)."
            )
        return model


class ExternalMethod(External):
    """A method of another package."""


Methods = Annotated[Lora | Full | ExternalMethod, Field(discriminator="kind")]


def method_of(configured: Lora | Full | ExternalMethod) -> Method:
    """The method itself, imported where it lives elsewhere."""
    return configured.load(Method) if isinstance(configured, ExternalMethod) else configured


def fresh(model: Any) -> tuple[str, ...]:
    """Modules without the base's weights: they are trained whole and saved, whatever the method."""
    if writes(model):
        return ()
    return tuple(getattr(model, "fresh", ())) or tuple(name for name in HEADS if hasattr(model, name))


def writes(model: Any) -> bool:
    """Whether a model has an output for each token of its vocabulary, and no head."""
    return getattr(model, "get_output_embeddings", lambda: None)() is not None


@contextmanager
def expected_warnings() -> Iterator[None]:
    """peft asks transformers for a property by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def lora_targets(model: Any, wanted: str | list[str]) -> list[str]:
    """Names of the linear modules that get an adapter; fresh modules and embeddings never do.

    Raises ``UserError`` for names that the model does not have.
    """
    import torch

    untrained = fresh(model)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not any(name == head or name.startswith(head + ".") for head in untrained)
        and "embeddings_project" not in name
        and not (writes(model) and module is model.get_output_embeddings())
    ]
    if isinstance(wanted, list):
        unknown = [
            target for target in wanted if not any(name == target or name.endswith("." + target) for name in names)
        ]
        if unknown:
            have = sorted({name.rsplit(".", 1)[-1] for name in names})
            raise UserError(f"method.targets: {', '.join(unknown)} not in this base; allowed: {', '.join(have)}.")
        return [name for name in names if any(name == target or name.endswith("." + target) for target in wanted)]
    small = sum(p.numel() for p in model.parameters()) < 400_000_000
    if wanted == "linear" or (wanted == "auto" and small):
        return names
    attention = [name for name in names if "att" in name.lower()]
    return attention or names
