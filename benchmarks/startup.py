"""Seconds from a command to its answer: help, an unchanged run, and a finished run of many notes."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from contextlib import redirect_stdout, suppress
from pathlib import Path
from statistics import median

import _common as common
from _common import TINY, Subject, Table, report, say

SUBJECT = Subject(__doc__)
measure = SUBJECT.measure
HEAVY = ("torch", "transformers", "peft", "numpy", "pydantic", "matplotlib")


def command(*arguments: str | Path) -> list[str | Path]:
    """The command line as it is installed, else as a module."""
    installed = Path(sys.executable).parent / "residency"
    found = [installed] if installed.exists() else [sys.executable, "-m", "residency.cli"]
    return [*found, *arguments]


def seconds(given: Namespace, times: int, *arguments: str | Path) -> list[float]:
    """Wall-clock time of a command, interpreter included, each time."""
    line, found = command(*arguments), list[float]()
    for _ in range(times):
        begun = time.perf_counter()
        common.ended(line, given.threads)
        found.append(time.perf_counter() - begun)
    return found


def modules(*arguments: str) -> dict[str, object]:
    """How many modules a command loads, and which of the heavy ones."""
    from residency.cli import main

    sys.argv = ["residency", *arguments]
    with redirect_stdout(sys.stderr), suppress(SystemExit):
        main()
    heavy = [name for name in HEAVY if name in sys.modules]
    return {"modules": len(sys.modules), "heavy": heavy}


def project(work: Path, notes: int, base: str) -> list[str]:
    """The command that runs a recipe on so many invented notes, one step, few of them measured."""
    data = common.write_parts(work, None, notes=common.invented(notes))
    data = {"format": "jsonl", "path": data["notes"], "profile": "synthetic"}
    stage = {"method": {"kind": "full"}, "steps": 1, "stop": None, "lexical": "off"}
    recipe = common.recipe("finished", base, data, "clinical", stage, bootstrap=0, limit=10)
    (work / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    return ["run", str(work / "recipe.yaml"), "--runs", str(work / "runs")]


@measure(f"--base {TINY} --help-times 20 --run-times 5", quick="--help-times 3 --run-times 2")
def commands(given: Namespace) -> None:
    """residency --help, and a run that is done already, with the modules they load."""
    columns = f"seconds (median) | range | modules | of {', '.join(HEAVY)}"
    table, found = Table(f"command | times | {columns}"), {}
    with common.folder() as work:
        run = project(work, 200, given.base)
        say(f"first run: {seconds(given, 1, *run)[0]:.1f} s")
        for name, times, line in (
            ("residency --help", given.help_times, ["--help"]),
            ("residency run, unchanged", given.run_times, run),
        ):
            took, loaded = seconds(given, times, *line), common.apart(modules, *line, threads=1)
            found[name] = {"seconds": took, **loaded}
            table.add(
                f"{name} | {times} | {median(took):.3f} | {min(took):.3f} to {max(took):.3f} | "
                f"{loaded['modules']} | {', '.join(loaded['heavy']) or 'none'}"
            )
    report(given, table, each=found)


@measure("--notes 20000 --times 5", quick="--notes 200 --times 2")
def finished(given: Namespace) -> None:
    """residency run --explain, and a finished run of many notes again: no row need be read.

    The aim is below 1 s each. Seconds of the clock, the interpreter included.
    """
    table, found = Table("command | notes | times | seconds (median) | range"), {}
    with common.folder() as work:
        run = project(work, given.notes, TINY)
        for name, times, line in (
            ("--explain, nothing done", given.times, [*run, "--explain"]),
            ("first run", 1, run),
            ("--explain, all done", given.times, [*run, "--explain"]),
            ("finished run, again", given.times, run),
        ):
            found[name] = took = seconds(given, times, *line)
            spread = f"{min(took):.2f} to {max(took):.2f}"
            table.add(f"{name} | {given.notes:,} | {times} | {median(took):.2f} | {spread}")
    report(given, table, seconds=found)


if __name__ == "__main__":
    SUBJECT.main()
