"""Which engine serves an artefact: vLLM where it can and is to be had, else this process; and how
all are ended."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from residency.core.errors import UserError
from residency.serve.settings import Serve

if TYPE_CHECKING:
    from residency.serve.types import Engine

ASK = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
ASK_SECONDS = 60
Say = Callable[[str], None]


def load_all(models: Mapping[str, Path], settings: Serve, say: Say) -> dict[str, Engine]:
    """The engines of all models; where one cannot be loaded those before it are ended."""
    engines: dict[str, Engine] = {}
    try:
        for name, path in models.items():
            engines[name] = load(path, name, settings, say)
    except BaseException:
        end(engines.values())
        raise
    return engines


def load(folder: Path, name: str, settings: Serve, say: Say | None = None) -> Engine:
    """The engine of an artefact. ``say`` is told where it is not the one that the settings name.

    Raises ``UserError`` where it cannot be loaded.
    """
    from residency.serve.engines import in_process

    why = refused(folder, settings)
    if why is None:
        return vllm(folder, name, settings)
    if settings.engine == "vllm" and say is not None:
        say(f"{name}: served in process: {why}")
    return in_process.load(folder, name, settings)


def refused(folder: Path, settings: Serve) -> str | None:
    """Why an artefact is not served by vLLM; none where it is. Raises ``UserError`` where vLLM is
    demanded and is not installed."""
    from residency.models import artefact, onnx_encoder
    from residency.serve.engines.vllm import VllmEngine

    if settings.engine not in ("auto", "vllm"):
        return f"engine: {settings.engine}"
    if (folder / onnx_encoder.FILE).is_file():
        return "it is an export, which has a runtime of its own"
    if settings.engine == "auto" and not gpu():
        return "there is no GPU"
    if why := VllmEngine.can_serve(artefact.read(folder)):
        return why
    if installed(settings.vllm_python):
        return None
    if settings.engine == "vllm":
        raise UserError(
            "vllm_python: vLLM is not installed there; name the interpreter of the environment "
            "that holds it, or set engine: process."
        )
    return "vLLM is not installed"


def gpu() -> bool:
    """Whether there is a GPU."""
    import torch

    return bool(torch.cuda.is_available())


def installed(python: str) -> bool:
    """Whether vLLM is installed where an interpreter looks; without one, where this one does."""
    if not python:
        return importlib.util.find_spec("vllm") is not None
    try:
        return (
            subprocess.run(
                [python, "-c", ASK], capture_output=True, check=False, timeout=ASK_SECONDS
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def vllm(folder: Path, name: str, settings: Serve) -> Engine:
    """A vLLM process of its own, for an event loop that is yet to begin."""
    from residency.serve.engines.vllm import VllmEngine

    async def started() -> VllmEngine:
        engine = await VllmEngine.launch(folder, name, settings.vllm_python or sys.executable)
        await engine.process.let_go()
        return engine

    return asyncio.run(started())


def end(engines: Iterable[Engine]) -> None:
    """Close engines, outside of any event loop; one that is closed stays so."""

    async def every() -> None:
        for one in engines:
            await one.close()

    asyncio.run(every())


@contextmanager
def ended(engines: Iterable[Engine]) -> Iterator[None]:
    """Engines that are closed whatever ends the block."""
    try:
        yield
    finally:
        end(engines)
