"""Energy is what the counters of packages and memory say, through their jumps back to zero."""

from __future__ import annotations

from pathlib import Path

import pytest

from residency.core.energy import EnergyMeter


def zone(root: Path, number: str, name: str, microjoules: int) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text("1000000\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_packages_and_memory_are_added_and_a_counter_may_begin_again(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", 900_000)
    memory = zone(tmp_path, "0:1", "dram", 0)
    zone(tmp_path, "0:0", "core", 100_000)  # within the package
    platform = zone(tmp_path, "1", "psys", 0)  # all of the above once more
    with EnergyMeter(tmp_path) as meter:
        platform.write_text("999999\n")
        memory.write_text("250000\n")
        package.write_text("100000\n")
        assert meter.joules == pytest.approx(0.2 + 0.25)


def test_a_machine_that_cannot_be_asked_has_no_figure(tmp_path: Path) -> None:
    with EnergyMeter(tmp_path / "nothing") as meter:
        assert meter.joules is None
