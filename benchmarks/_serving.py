"""What the measurements of the server share: servers and the load in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import _common as common
import _load
from _common import TINY, say
from _load import Answer
from residency.core.errors import UserError


def tuned(work: Path, steps: int, threads: int) -> Path:
    """A finished run: the bundled encoder, all weights tuned so many steps on invented records."""
    data = common.write_parts(work, "vi", notes=common.invented(200, 1, ["vi"]))
    data = {"format": "jsonl", "path": data["notes"], "lang": "vi", "profile": "synthetic"}
    stage = {"method": {"kind": "full"}, "steps": steps, "batch": 16}
    recipe = common.recipe("served", TINY, data, "ner", stage, bootstrap=100)
    return common.finish(recipe, work, threads)[0]


def exported(run: Path, folder: Path) -> Path:
    """The run's export, by the command of the program."""
    command = [sys.executable, "-m", "residency.cli", "export", "onnx", run, "--out", folder]
    say(common.ended(command, os.cpu_count() or 1).strip().splitlines()[-1])
    return folder


def texts(run: Path, length: int, most: int) -> list[str]:
    """Different invented notes of about so many tokens, 10 more or less."""
    from residency.models.base import load_tokenizer

    tokenizer, found = load_tokenizer(common.artefact(run)), list[str]()
    for seed in count(100):
        for note in common.invented(100, seed, ["vi"]):
            if abs(len(tokenizer(note.text)["input_ids"]) - length) <= 10:
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
    how = {"stderr": subprocess.STDOUT, "env": {**common.environment(threads), **more}}
    with out.open("wb") as file:
        started = subprocess.Popen([sys.executable, *command], stdout=file, **how)
        try:
            until = time.monotonic() + 600
            while not _ready(port):
                if time.monotonic() > until or started.poll() is not None:
                    raise UserError(f"the server did not begin: {out.read_text('utf-8')[-300:]}")
                time.sleep(0.2)
            yield started.pid
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()


def _ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def plain(port: int, model: Path, threads: int, out: Path) -> Any:
    """The plain server; a context."""
    command = ["-m", "uvicorn", "--factory", "_plain:app", "--port", str(port)]
    command += ["--log-level", "warning", "--no-access-log", "--app-dir", str(common.HERE)]
    return process(command, port, threads, out, PLAIN_MODEL=str(model))


def ours(port: int, run: Path, given: Namespace, folder: Path, *settings: str) -> Any:
    """Our server; a context."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["-m", "residency.cli", "serve", f"notes={run}", f"port={port}"]
    command += [f"logs.folder={folder / 'serve'}", *settings]
    return process(command, port, given.threads, folder / "out.txt")


def load(**plan: Any) -> list[Answer]:
    """What a load process saw."""
    return [tuple(one) for one in common.apart(_load.play, plan, threads=1)]


def centile(values: Sequence[float], part: float) -> float:
    """The value that ``part`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def per_second(answers: Sequence[Answer]) -> float:
    """Answers 200 a second, from the first sending to the last answer."""
    good = sum(status == 200 for *_, status in answers)
    return good / (max(answer[2] for answer in answers) - min(answer[1] for answer in answers))


def milliseconds(answers: Sequence[Answer]) -> list[float]:
    """How long answers 200 took, as the client saw it."""
    return [1000 * (answered - sent) for _, sent, answered, status in answers if status == 200]
