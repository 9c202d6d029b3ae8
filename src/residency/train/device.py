"""What a stage is trained on: a GPU or the processor, the memory that it has, and its speed."""

from __future__ import annotations

import math
import re
import resource
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, Literal

from residency.core.errors import UserError, allowed
from residency.core.types import Value

GPUS = Path(__file__).parent / "gpus.toml"
CONTEXT = 0.5e9
"""Bytes that CUDA and its libraries take from a card for themselves."""
LOSS_OF_GPU = 0.06
"""Share of a card's memory that is lost between the blocks that are handed out."""


class Device(Value, frozen=True):
    """What is trained on."""

    kind: Literal["cpu", "cuda"]
    name: str
    usable: float
    """Bytes that training may take."""
    bf16: bool
    """Whether the hardware multiplies bf16 fast."""
    flops: float = 0.0
    """Per second, for large matrices; 0 where it is not known."""


def device_named(name: str) -> Device:
    """A card by its memory (``24GB``) or name (``rtx4090``).

    Raises ``UserError`` for a name that is not known.
    """
    cards = _cards()
    size = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)?", name.strip(), re.IGNORECASE)
    card = cards.get(name.lower().replace(" ", "").replace("-", ""))
    if card is None and size is None:
        raise UserError(
            f"gpu: {name!r} is not known; give its memory, for example 24GB, or "
            f"{allowed(cards, name)}."
        )
    memory = float(card["memory"]) if card else float(size[1]) if size else 0.0
    return Device(
        kind="cuda",
        name=name,
        usable=memory * 2**30 * (1 - LOSS_OF_GPU) - CONTEXT,
        bf16=bool(card["bf16"]) if card else True,
        flops=float(card["tflops"]) * 1e12 if card else 0.0,
    )


def _cards() -> dict[str, dict[str, Any]]:
    return tomllib.loads(GPUS.read_text("utf-8"))


def device_here() -> Device:
    """The GPU at hand, else this machine's processor and the memory that is free."""
    import torch

    bf16 = has_bf16()
    if not torch.cuda.is_available():
        return Device(
            kind="cpu",
            name="this processor",
            usable=free_memory(),
            bf16=bf16,
            flops=_cpu_flops(bf16),
        )
    free, _ = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name().lower().replace(" ", "")
    card = next((card for key, card in _cards().items() if key in name), None)
    flops = card["tflops"] * 1e12 if card else 0.0
    return Device(kind="cuda", name=name, usable=free * (1 - LOSS_OF_GPU), bf16=bf16, flops=flops)


def has_bf16() -> bool:
    """Whether the GPU at hand, or else the processor, multiplies bf16 fast."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    return bool(torch.cpu._is_avx512_bf16_supported())


def free_memory() -> float:
    """Bytes that this machine, or the container, can still give, with what this process holds
    already."""
    found = _kilobytes("/proc/meminfo", "MemAvailable")
    return math.inf if found is None else min(found * 1024.0, _container_memory()) + held()


def _container_memory(group: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that a container (a control group of Linux, version 2) can still give."""
    try:
        most = float((group / "memory.max").read_text())
        lines = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(lines["inactive_file"])
    except (OSError, ValueError, KeyError):  # no container, or one without a limit ("max")
        return math.inf
    return most - used


def held() -> int:
    """Bytes that this process holds; 0 where the system does not say."""
    return 1024 * (_kilobytes("/proc/self/status", "VmRSS") or 0)


def peak_memory() -> float:
    """Most that was held at once, in MB: of the GPU where there is one, else by this process."""
    torch = sys.modules.get("torch")  # what was not loaded holds nothing
    if torch is not None and torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e6
    # getrusage also counts what the parent held when it started us
    found = _kilobytes("/proc/self/status", "VmHWM")
    if found is not None:
        return found / 1000
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _kilobytes(file: str, name: str) -> int | None:
    """A figure of one of Linux's files on memory; None on another system."""
    path = Path(file)
    if not path.is_file():
        return None
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0])


def _cpu_flops(bf16: bool) -> float:
    """Measured: a few multiplications of matrices."""
    import torch

    one = torch.randn(512, 512, dtype=torch.bfloat16 if bf16 else torch.float32)
    one @ one
    began, count = time.perf_counter(), 8
    for _ in range(count):
        one @ one
    return count * 2 * 512**3 / max(time.perf_counter() - began, 1e-6)
