"""What the measurements of the server share: a tuned encoder, invented notes of one length, servers
and the load in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from _common import TINY, environment, say
from residency.core.errors import UserError
from residency.core.types import Example
from residency.synth.clinical_notes import records

HERE = Path(__file__).parent
WITHIN = 10
"""Tokens that a note may be longer or shorter."""
Answer = tuple[int, float, float, int]
"""User, time of sending, time of the whole answer, status."""


def tuned(folder: Path, steps: int, threads: int) -> Path:
    """A finished run: the bundled encoder, all weights tuned so many steps on invented records."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "notes.jsonl").open("w", encoding="utf-8") as file:
        for number, note in enumerate(records("vi", 200, seed=1)):
            marks = [
                {"start": span.start, "end": span.end, "label": span.label} for span in note.spans
            ]
            row = {"id": str(number), "text": note.text, "group": note.group, "entities": marks}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    recipe = {
        "schema": 1,
        "name": "served",
        "base": TINY,
        "seed": 7,
        "data": {
            "notes": {
                "format": "jsonl",
                "path": "notes.jsonl",
                "lang": "vi",
                "profile": "synthetic",
            }
        },
        "tasks": [{"card": "ner", "data": "notes"}],
        "stages": [{"method": {"kind": "full"}, "steps": steps, "batch": 16}],
        "evaluate": {"baselines": [], "bootstrap": 100},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe), "utf-8")
    said = subprocess.run(
        [sys.executable, "-m", "residency.cli", "run", "recipe.yaml"],
        cwd=folder,
        env=environment(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode:
        raise UserError(f"the run failed: {said.stderr.strip().splitlines()[-1]}")
    return next((folder / "runs").glob("served-*"))


def exported(artefact: Path, held_out: Sequence[Example], folder: Path) -> Path:
    """The artefact's export; what of it is computed is said."""
    from residency.export import onnx

    made = onnx.export(artefact, folder, held_out)
    say(f"export: {made.best}; bfloat16: {made.bf16.reason}; 8 bits: {made.int8.reason}")
    return folder


def texts(artefact: Path, length: int, most: int) -> list[str]:
    """Different invented notes of about so many tokens."""
    from residency.models import artefact as artefacts

    tokeniser, found = artefacts.tokeniser(artefacts.read(artefact).base, artefact), []
    for seed in count(100):
        for note in records("vi", 100, seed=seed):
            if abs(len(tokeniser([note.text])[0].ids) - length) <= WITHIN:
                found.append(note.text)
            if len(found) == most:
                return found
    return found


def free() -> int:
    """A port that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def process(
    command: Sequence[str], port: int, threads: int, out: Path, **more: str
) -> Iterator[int]:
    """A server in a process of its own, ready; ended at the end. Its process id."""
    with out.open("wb") as file:
        started = subprocess.Popen(
            [sys.executable, *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**environment(threads), **more},
        )
        try:
            _ready(started, port, out)
            yield started.pid
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()


def _ready(started: subprocess.Popen[bytes], port: int, out: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and started.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise UserError(f"the server did not begin: {out.read_text('utf-8')[-300:]}")


def plain(port: int, model: Path, threads: int, out: Path) -> Any:
    """The plain server; a context."""
    command = [
        "-m",
        "uvicorn",
        "_plain_serve:app",
        "--port",
        str(port),
        "--log-level",
        "warning",
        "--no-access-log",
    ]
    return process([*command, "--app-dir", str(HERE)], port, threads, out, PLAIN_MODEL=str(model))


def ours(port: int, run: Path, threads: int, folder: Path, *settings: str) -> Any:
    """Our server; a context."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        "-m",
        "residency.cli",
        "serve",
        f"notes={run}",
        f"port={port}",
        f"logs.folder={folder / 'serve'}",
    ]
    return process([*command, *settings], port, threads, folder / "out.txt")


def load(**plan: Any) -> list[Answer]:
    """What a load process saw."""
    done = subprocess.run(
        [sys.executable, str(HERE / "_load.py")],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise UserError(
            f"the load process ended with {done.returncode}: {done.stderr.strip().splitlines()[-1]}"
        )
    return [
        (user, sent, answered, status) for user, sent, answered, status in json.loads(done.stdout)
    ]


def centile(values: Sequence[float], part: float) -> float:
    """The value that ``part`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def per_second(answers: Sequence[Answer]) -> float:
    """Answers 200 a second, from the first sending to the last answer."""
    return sum(status == 200 for *_, status in answers) / (
        max(answer[2] for answer in answers) - min(answer[1] for answer in answers)
    )


def milliseconds(answers: Sequence[Answer]) -> list[float]:
    """How long answers 200 took, as the client saw it."""
    return [1000 * (answered - sent) for _, sent, answered, status in answers if status == 200]
