"""Seconds from the command to its answer: residency --help, and a run that is done already, with
the modules they load.

``residency --help`` 20 times (median) and, after one run of the demo's recipe with few steps, the
same ``residency run`` again 5 times: everything is found to be unchanged, and nothing heavy may be
imported for that.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from _common import TINY, child, environment, parser, report, run, say
from residency.core.errors import UserError
from residency.workflows.init import write_demo

HEAVY = ("torch", "transformers", "peft", "numpy", "pydantic", "matplotlib")
COUNT = f"""
import json, sys
sys.argv = ["residency", *sys.argv[1:]]
from residency.cli import main
sys.stdout, kept = sys.stderr, sys.stdout
try:
    main()
except SystemExit:
    pass
print(json.dumps({{"modules": len(sys.modules), "heavy": [n for n in {HEAVY!r} if n in sys.modules]}}), file=kept)
"""


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--base", default=TINY, help="base of the demo's recipe (default bundled:tiny-encoder)"
    )
    options.add_argument(
        "--help-times", type=int, default=20, help="how often residency --help (default 20)"
    )
    options.add_argument(
        "--run-times", type=int, default=5, help="how often the cached run (default 5)"
    )
    given = options.parse_args()
    if given.quick:
        given.help_times, given.run_times = 3, 2
    with tempfile.TemporaryDirectory() as work:
        measure(given, Path(work))


def measure(given: argparse.Namespace, work: Path) -> None:
    """Both commands, timed and then once more with their modules counted."""
    recipe = write_demo(work, "vi", *([40] if given.quick else []))
    base = given.base if given.base.startswith("bundled:") else str(Path(given.base).resolve())
    cached = ["run", str(recipe), f"base={base}", "stages[0].steps=2", "--runs", str(work / "runs")]
    say(f"first run: {seconds(cached, given.threads):.1f} s")
    times = {
        "residency --help": [seconds(["--help"], given.threads) for _ in range(given.help_times)],
        "residency run, unchanged": [
            seconds(cached, given.threads) for _ in range(given.run_times)
        ],
    }
    loaded = {
        name: child(["-c", COUNT, *what], given.threads)[0]
        for name, what in zip(times, (["--help"], cached), strict=True)
    }
    rows = [
        [
            name,
            str(len(taken)),
            f"{median(taken):.3f}",
            f"{min(taken):.3f} to {max(taken):.3f}",
            str(loaded[name]["modules"]),
            ", ".join(loaded[name]["heavy"]) or "none",
        ]
        for name, taken in times.items()
    ]
    columns = ("command", "times", "seconds (median)", "range", "modules", "of " + ", ".join(HEAVY))
    report("startup", given, columns, rows, seconds=times, loaded=loaded)


def seconds(arguments: Sequence[str], threads: int) -> float:
    """Wall-clock time of the command line, interpreter included; raises ``UserError`` where it
    fails."""
    installed = Path(sys.executable).parent / "residency"
    command = [str(installed)] if installed.exists() else [sys.executable, "-m", "residency.cli"]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, *arguments],
        env=environment(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - started
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["residency said nothing"])[-1])
    return taken


if __name__ == "__main__":
    run(main)
