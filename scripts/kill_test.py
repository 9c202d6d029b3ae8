"""Kill a run at random moments, start it again each time, and compare its numbers with those of a
run left in peace.

    python scripts/kill_test.py demo/recipe-vi.yaml                   ten kills
    python scripts/kill_test.py my/recipe.yaml --kills 3 --seed 1 --checkpoint 2 --folder /tmp/kills

The recipe is run once undisturbed, which also says how long a run takes. Then the same command is
started in another folder and killed (SIGKILL) again and again, and at last left to finish; the
kills fall at random moments of the work, whatever the start-up of each process costs. Scores,
losses and dev scores must be identical, artefacts must match their hashes, nothing half-written may
be left. Exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from residency.models.artefact import read

PROGRAM = (
    "import sys, residency.train.judge as judge; judge.CHECKPOINT_SECONDS = "
    "float(sys.argv.pop(1)); "
    "from residency.cli import main; main()"
)


def start(recipe: Path, runs: Path, checkpoint: float) -> subprocess.Popen[bytes]:
    """``residency run RECIPE`` in a process group of its own, with checkpoints so many seconds
    apart."""
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        str(checkpoint),
        "run",
        str(recipe),
        "--runs",
        str(runs),
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def seconds_to_load() -> float:
    """How long a process takes before it begins to work."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import peft, residency.train.trainer"], check=True)
    return time.monotonic() - began


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end; a run that fails by itself ends the test."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(
            f"residency run ended with {process.returncode}: "
            f"{errors.decode(errors='replace').strip()[-400:]}"
        )


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process was still at work after so many seconds, and was killed."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    finish(process)
    return False


def only_run(runs: Path) -> Path:
    """The one run in a folder of runs."""
    (manifest,) = runs.glob("*/manifest.json")
    return manifest.parent


def numbers(run: Path) -> dict[str, Any]:
    """Everything that must be the same: scores, comparisons, losses, dev scores, which model was
    kept."""
    facts = json.loads((run / "facts.json").read_text("utf-8"))
    (metrics,) = run.glob("train/*/metrics.jsonl")
    stage = facts["stages"][0]
    return {
        "scores": [
            [report["system"]["name"], report["scores"], report.get("slices")]
            for report in facts["reports"]
        ],
        "comparisons": [report.get("comparisons") for report in facts["reports"]],
        "losses": [json.loads(line) for line in metrics.read_text("utf-8").splitlines()],
        "best": [stage["best"], stage["best_epoch"], stage["stopped"]],
        "predictions": [
            path.read_text("utf-8").count("\n") for path in sorted(run.glob("eval/*/*.jsonl"))
        ],
    }


def stage_of(runs: Path) -> str:
    """Where a killed run was: its last step, and its newest checkpoint."""
    logs = list(runs.glob("*/log.jsonl"))
    if not logs:
        return "starting"
    events = [
        json.loads(line)
        for line in logs[0].read_bytes().splitlines(keepends=False)
        if line.endswith(b"}")
    ]
    steps = [
        int(path.parent.name.split("-")[1])
        for path in runs.glob("*/.work/*/checkpoint-*/complete.json")
    ]
    last = events[-1] if events else {"step": "", "event": "starting"}
    return f"{last['step']} {last['event']}" + (
        f", checkpoint at step {max(steps)}" if steps else ""
    )


def faults(run: Path, peaceful: Path) -> list[str]:
    """What is wrong with the run that was killed."""
    mine, theirs = numbers(run), numbers(peaceful)
    found = [f"{name} differ" for name in mine if mine[name] != theirs[name]]
    found += [
        f"{path} is half-written"
        for path in run.rglob("*")
        if ".partial" in path.name or path.name == ".work"
    ]
    if json.loads((run / "manifest.json").read_text("utf-8"))["status"] != "done":
        found.append("the manifest does not say done")
    for artefact in run.glob("train/*/artefact.json"):
        read(artefact.parent)  # raises where a file is not the one that was written
    return found


def measure(recipe: Path, folder: Path, kills: int, seed: int, checkpoint: float) -> list[str]:
    """Run in peace, run with kills, print the table; returns the faults."""
    peaceful, killed = folder / "peaceful", folder / "killed"
    began = time.monotonic()
    finish(start(recipe, peaceful, checkpoint))
    whole = time.monotonic() - began
    loading = seconds_to_load()
    print(
        f"undisturbed: {whole:.1f} s, of which {loading:.1f} s to load\n\n{'kill':>4}  "
        f"{'after':>8}  at"
    )
    rng = random.Random(seed)
    moments = sorted(rng.uniform(0, max(0.0, whole - loading)) for _ in range(kills))
    gaps = [moment - before for before, moment in zip([0.0, *moments], moments, strict=False)]
    for number, gap in enumerate(gaps, start=1):
        moment = loading + gap
        ended = not kill_after(start(recipe, killed, checkpoint), moment)
        print(
            f"{number:>4}  {moment:>6.1f} s  {'had finished' if ended else stage_of(killed)}",
            flush=True,
        )
    began = time.monotonic()
    finish(start(recipe, killed, checkpoint))
    print(f"\nlast start, left to finish: {time.monotonic() - began:.1f} s")
    found = faults(only_run(killed), only_run(peaceful))
    for score in numbers(only_run(killed))["scores"][-1][1][:3]:
        print(f"{score['metric']} {score['value']:.6f}")
    print("identical to the undisturbed run" if not found else "\n".join(found))
    return found


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--checkpoint", type=float, default=5.0, metavar="SECONDS", help="between checkpoints"
    )
    parser.add_argument(
        "--folder", type=Path, help="where the two runs go; a temporary folder where not given"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if folder.exists() and any(folder.glob("*/*/manifest.json")):
            sys.exit(f"{folder}: holds runs already; give an empty folder.")
        sys.exit(
            1 if measure(given.recipe, folder, given.kills, given.seed, given.checkpoint) else 0
        )


if __name__ == "__main__":
    main()
