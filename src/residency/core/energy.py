"""What a piece of work costs in energy, where the machine can be asked: the processor's own
counters (RAPL, of Linux's powercap) and those of NVIDIA's GPUs (NVML).

Both count a whole package or card, whoever uses it: on a machine that does other work at the same
time the figure is too high, and what stands outside them (mainboard, disks, fans) is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

POWERCAP = Path("/sys/class/powercap")
EVERY = 60.0
"""Seconds between two readings: a counter of a package begins again after some minutes at least."""

Counter = Callable[[], float]
"""Joules since a moment of its own, never falling."""


class EnergyMeter:
    """Joules between entering and leaving, or up to now: ``with EnergyMeter() as meter: ...``."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self._counters = [*_packages(root), *_cards()]
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._begun = 0.0
        self._watch = threading.Thread(target=self._keep_up, daemon=True)

    def __enter__(self) -> EnergyMeter:
        self._begun = self._total()
        if self._counters:
            self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()

    @property
    def joules(self) -> float | None:
        """Used so far; None where nothing here can be read."""
        return self._total() - self._begun if self._counters else None

    def _total(self) -> float:
        with self._lock:
            return sum(counter() for counter in self._counters)

    def _keep_up(self) -> None:
        while not self._ended.wait(EVERY):
            self._total()


def _packages(root: Path) -> list[Counter]:
    """The packages of the processor and, where they stand beside it, its memory; zones of the
    ``psys`` kind hold them already."""
    zones = (zone for zone in root.glob("intel-rapl:*") if (zone / "energy_uj").is_file())
    found = []
    for zone in zones:
        try:
            name = (zone / "name").read_text("utf-8").strip()
            if name.startswith("package") or name == "dram":
                found.append(_counting(zone))
        except (OSError, ValueError):  # to be read by root alone, on most machines
            continue
    return found


def _counting(zone: Path) -> Counter:
    """A zone's counter without its jumps back to zero."""
    span = int((zone / "max_energy_range_uj").read_text("utf-8"))
    last, turns = int((zone / "energy_uj").read_text("utf-8")), 0

    def read() -> float:
        nonlocal last, turns
        found = int((zone / "energy_uj").read_text("utf-8"))
        turns += found < last
        last = found
        return (turns * span + found) / 1e6

    return read


def _cards() -> list[Counter]:
    """NVIDIA's GPUs, where the extra ``energy`` and a driver are here."""
    try:
        import pynvml

        pynvml.nvmlInit()
        counters: list[Counter] = [
            partial(_card, pynvml, pynvml.nvmlDeviceGetHandleByIndex(number))
            for number in range(pynvml.nvmlDeviceGetCount())
        ]
        for counter in counters:
            counter()
    except Exception:  # no package, no driver, or a card that does not count
        return []
    return counters


def _card(nvml: Any, card: Any) -> float:
    return float(nvml.nvmlDeviceGetTotalEnergyConsumption(card)) / 1000
