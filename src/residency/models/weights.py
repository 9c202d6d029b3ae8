"""A base's weights, as a task and a method need them: with a head or as it writes, in 32 or 16
bits, or quantised."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from residency.core.errors import UserError
from residency.core.types import PredictorInfo
from residency.models.base import HEADS, Base, silent
from residency.tasks.card import Card
from residency.tasks.heads import Head

LARGE = 1_000_000_000
"""Parameters from which weights that stay as they are are held in 16 bits on a GPU."""


def load_weights(
    base: Base, head: Head, card: Card, *, in_place: bool = False, whole: Sequence[str] = ()
) -> Any:
    """The base with what answers a task: with a fresh classifier, or as it writes.

    ``in_place`` and ``whole`` as for ``weights_options``.
    """
    own = head.config(card)
    kept = [*whole, *HEADS, "pooler"] if own else whole
    try:
        with silent():
            model, report = transformers_class(head).from_pretrained(
                base.path,
                output_loading_info=True,
                ignore_mismatched_sizes=bool(own),
                **own,
                **weights_options(base, in_place, kept),
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"base: {base.id} cannot be loaded as {head.title} ({type(error).__name__}); choose "
            "another base."
        ) from None
    resized = [str(found[0]) for found in report["mismatched_keys"]]
    if any(name.split(".")[0] not in HEADS for name in resized):
        raise UserError(
            f"base: the weights of {base.id} do not fit its config.json; copy the model again."
        )
    model.fresh = fresh_modules(model, {*report["missing_keys"], *resized}) if own else ()
    for name in model.fresh:
        in_32_bits(model.get_submodule(name))
    return quantised(model)


def bare(config: Any, head: Head) -> Any:
    """A model in 32 bits that is built from a configuration, its weights still to be loaded."""
    import torch

    model = transformers_class(head).from_config(config, dtype=torch.float32)
    model.fresh = tuple(name for name in HEADS if hasattr(model, name))
    return model


def transformers_class(head: Head) -> Any:
    """The class of transformers that has a head. Its losses for pictures, which nobody asks for
    here, would import scipy."""
    with unseen("scipy", "transformers.utils.import_utils", "is_scipy_available"):
        import transformers.modeling_utils
    return getattr(transformers, head.auto)


@contextmanager
def unseen(package: str, module: str, *answers: str) -> Iterator[None]:
    """Keep a library from importing a package that it can do without, which takes half a second or
    more of processor time. Does nothing where the package has been imported already.

    ``answers``: functions of ``module`` that remember whether the package is there; they are asked
    again afterwards.
    """
    if package in sys.modules:
        yield
        return

    def forget() -> None:
        for name in answers if module in sys.modules else ():
            getattr(sys.modules[module], name).cache_clear()

    sys.modules[package] = None  # type: ignore[assignment]  # as the language has it
    forget()
    try:
        yield
    finally:
        del sys.modules[package]
        forget()


def weights_options(base: Base, in_place: bool, whole: Sequence[str]) -> dict[str, Any]:
    """How ``from_pretrained`` is to hold a base's weights.

    ``in_place``: some of them are trained, so they are held in 32 bits. ``whole``: modules that are
    never quantised. Raises ``UserError`` where the recipe asks for both 16 bits and training in
    place, or for a library that is missing.
    """
    import torch

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if in_place and base.dtype not in ("auto", "fp32"):
        raise UserError(
            f"base.dtype: {base.dtype} does not do for weights that are trained; set fp32, or use "
            "lora."
        )
    cuda = torch.cuda.is_available()
    large = cuda and not in_place and stored_size(Path(base.path)) >= LARGE
    short = torch.bfloat16 if cuda and torch.cuda.get_device_capability()[0] >= 8 else torch.float16
    kind = kinds.get(base.dtype, short if large else torch.float32)
    options: dict[str, Any] = {
        "dtype": kind,
        "trust_remote_code": False,
        "use_safetensors": None if base.allow_pickle else True,
    }
    if base.quantise != "none":
        import importlib.util

        from transformers import BitsAndBytesConfig

        if importlib.util.find_spec("bitsandbytes") is None:
            raise UserError(
                f"base.quantise: {base.quantise} needs bitsandbytes; run pip install "
                '"residency[quantise]", or set none.'
            )
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=base.quantise == "nf4",
            load_in_8bit=base.quantise == "int8",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=short if cuda else torch.float32,
            llm_int8_skip_modules=list(whole),
        )
        options["device_map"] = {"": "cuda" if cuda else "cpu"}
    return options


def stored_size(path: Path) -> int:
    """Parameters of a base, from the headers of its files."""
    import math

    from safetensors import safe_open

    total = 0
    for file in path.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


def in_32_bits(module: Any) -> None:
    """Hold a head in 32 bits, whatever comes in."""
    import torch

    if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in module.parameters()):
        module.float()
        module.register_forward_pre_hook(lambda _, given: tuple(one.float() for one in given))


def quantised(model: Any) -> Any:
    """A model whose 4-bit weights stay as they are stored.

    bitsandbytes repacks them at the first evaluation on a CPU with AVX512-BF16, and what is
    trained, merged or saved after that is wrong, silently; so it is told that this CPU has none.
    """
    if not getattr(model, "is_quantized", False):
        return model
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    # transformers' Trainer takes a quantised base only with adapters of peft, and asks this
    # attribute; ours train beside it too.
    model._hf_peft_config_loaded = True
    return model


def size(model: Any) -> int:
    """Parameters of a model, those of 4-bit weights counted one by one."""
    counted = 0
    for parameter in model.parameters():
        packed = (
            type(parameter).__name__ == "Params4bit"
            and getattr(parameter, "quant_state", None) is not None
        )
        counted += parameter.quant_state.shape.numel() if packed else parameter.numel()
    return counted


def describe(name: str, base: Base, method: str, model: Any) -> PredictorInfo:
    """What a predictor says of itself in results."""
    return PredictorInfo(
        name=name, base=base.id, method=method, digest=base.digest, parameters=size(model)
    )


def fresh_modules(model: Any, missing: Collection[str]) -> tuple[str, ...]:
    """The modules that start from noise: the head, and what else the base brings no weights for (a
    pooler).

    Each is the largest that holds none of the base's weights.
    """
    names = [name for name, _ in model.named_parameters()]
    found = {head for head in HEADS if hasattr(model, head)}
    for name in missing:
        if any(name.startswith(head + ".") for head in found):
            continue
        parts = name.split(".")
        for depth in range(1, len(parts)):
            prefix = ".".join(parts[:depth])
            if all(each in missing for each in names if each.startswith(prefix + ".")):
                break
        found.add(prefix)
    return tuple(sorted(found))
