"""Low-rank adapters, and the linear layers that they go to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from residency.core.errors import UserError
from residency.models.adapters.method import Method, fresh, output_layer
from residency.models.weights import size, unseen

unseen_bitsandbytes = partial(
    unseen, "bitsandbytes", "peft.import_utils", "is_bnb_available", "is_bnb_4bit_available"
)
"""It brings torch's compilers along; a base that is quantised has imported it already."""


class Lora(Method):
    """Low-rank adapters on linear layers (Hu et al., 2021), the head trained whole.

    On a base with ``quantise: nf4`` this is QLoRA (Dettmers et al., 2023).
    """

    kind: Literal["lora"] = "lora"
    r: int = Field(default=16, ge=1, le=16_384)
    """Rank of the two matrices whose product is added to a layer."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale is alpha / r; twice the rank where not given."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's input that is dropped; 0.05 is usual for large models. It costs a
    quarter of the time on a CPU, and small encoders have dropout of their own."""
    targets: Literal["auto", "attention", "linear"] | list[str] = "auto"
    """``attention``: query, key, value, output; ``linear``: every linear layer of the body; or
    names. ``auto`` is ``linear`` for bases under 400 million parameters, ``attention`` above."""
    rslora: bool = False
    """Scale by alpha / sqrt(r), which keeps high ranks stable (Kalajdzievski, 2023)."""
    dora: bool = False
    """Train the length of each weight column apart from its direction (Liu et al., 2024)."""
    adapter: str | None = None
    """Go on from a published adapter: a folder in peft's format, relative to the recipe. Its rank,
    scale and targets are kept; give none beside it."""
    merges: ClassVar[bool] = True

    @model_validator(mode="after")
    def _either(self) -> Lora:
        given = sorted({"r", "alpha", "targets", "rslora", "dora"} & self.model_fields_set)
        if self.adapter is not None and given:
            raise ValueError(
                f"adapter brings its own {', '.join(given)}; leave "
                f"{'it' if len(given) == 1 else 'them'} out"
            )
        return self

    @unseen_bitsandbytes()
    def attach(self, model: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        if self.dora and getattr(model, "is_loaded_in_8bit", False):
            raise UserError(
                "method.dora: does not work on a base in 8 bits; set base.quantise: nf4, or dora: "
                "false."
            )
        if self.adapter is not None:
            return self._continued(model, Path(self.adapter))
        config = LoraConfig(
            r=self.r,
            lora_alpha=2 * self.r if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=lora_targets(model, self.targets),
            modules_to_save=list(fresh(model)) or None,
            bias="none",
            use_rslora=self.rslora,
            use_dora=self.dora,
            task_type=task_type(model),
        )
        with expected_warnings():
            return get_peft_model(model, config)

    def _continued(self, model: Any, folder: Path) -> Any:
        """The model with a published adapter, to be trained further; the fresh head is trained and
        saved with it."""
        import safetensors.torch
        from peft import (
            LoraConfig,
            PeftConfig,
            get_peft_model,
            get_peft_model_state_dict,
            set_peft_model_state_dict,
        )

        try:
            config = PeftConfig.from_pretrained(str(folder))
            tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
            raise UserError(
                f"method.adapter: {folder} holds no adapter that can be read; give a folder with "
                "adapter_config.json and adapter_model.safetensors."
            ) from None
        if not isinstance(config, LoraConfig):
            raise UserError(
                f"method.adapter: {folder} is no LoRA but {config.peft_type.value}; give a LoRA "
                "adapter."
            )
        kept = set(config.modules_to_save or ())
        config.modules_to_save = sorted(kept | set(fresh(model))) or None
        config.inference_mode, config.lora_dropout = False, self.dropout
        config.base_model_name_or_path = None
        config.task_type = task_type(model)
        refusal = UserError(
            f"method.adapter: {folder} does not fit this base; give the base it was trained on."
        )
        try:
            with expected_warnings():
                wrapped = get_peft_model(model, config)
                own = get_peft_model_state_dict(wrapped)
                heads = {name: tensor for name, tensor in own.items() if "lora_" not in name}
                set_peft_model_state_dict(wrapped, {**heads, **tensors})
        except (ValueError, RuntimeError, KeyError):
            raise refusal from None
        if not own.keys() - heads.keys() <= tensors.keys() <= own.keys():
            raise refusal
        return wrapped

    @unseen_bitsandbytes()
    def load(self, model: Any, folder: Path, *, merge: bool) -> Any:
        """Raises ``UserError`` where a tensor of the file finds no place, or a place no tensor:
        peft says nothing, and the base answers."""
        import safetensors
        from peft import PeftModel, get_peft_model_state_dict

        try:
            with safetensors.safe_open(folder / "adapter_model.safetensors", "pt") as file:
                given = set(file.keys())
            with expected_warnings():
                loaded = PeftModel.from_pretrained(model, folder, is_trainable=False)
                wanted = set(get_peft_model_state_dict(loaded))
        except (OSError, RuntimeError, ValueError, KeyError, safetensors.SafetensorError):
            raise UserError(
                f"{folder}: the adapter cannot be read or does not fit this base; give the base "
                "that it was trained on, or train again."
            ) from None
        if given != wanted:
            raise UserError(
                f"{folder}: the adapter does not fit this base ({len(given - wanted)} tensors "
                f"without a place, {len(wanted - given)} missing); give the base that it was "
                "trained on, or train again."
            )
        return loaded.merge_and_unload() if merge else loaded


@contextmanager
def expected_warnings() -> Iterator[None]:
    """peft asks transformers for a property by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )
        # said by ``load``, as an error
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        yield


def task_type(model: Any) -> str | None:
    """What peft calls a model that writes, whose adapter other programs load by this word."""
    return None if output_layer(model) is None else "CAUSAL_LM"


def lora_targets(model: Any, wanted: str | list[str]) -> list[str]:
    """Names of the linear modules that get an adapter; fresh modules and embeddings never do.

    Raises ``UserError`` for names that the model does not have.
    """
    import torch

    def ends(name: str, target: str) -> bool:
        return name == target or name.endswith("." + target)

    untrained, last = fresh(model), output_layer(model)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not any(name == head or name.startswith(head + ".") for head in untrained)
        and "embeddings_project" not in name
        and module is not last
    ]
    if isinstance(wanted, list):
        unknown = [target for target in wanted if not any(ends(name, target) for name in names)]
        if unknown:
            have = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in names}))
            raise UserError(
                f"method.targets: {', '.join(unknown)} not in this base; allowed: {have}."
            )
        return [name for name in names if any(ends(name, target) for target in wanted)]
    if wanted == "linear" or (wanted == "auto" and size(model) < 400_000_000):
        return names
    attention = [name for name in names if "att" in name.lower()]
    return attention or names
