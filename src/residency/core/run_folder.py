"""The run directory: steps that are skipped when nothing that they depend on has changed, and
committed whole.

A step's key is the hash of its slice of the recipe, its inputs and its version. Output is written
to ``.partial`` and moved into place; the record of the step is written last. A process that is
killed leaves nothing half-made that looks whole, and what it had finished is found again.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import DataError, UserError
from residency.core.files import (
    canonical,
    digest,
    disk_errors,
    file_digest,
    read_json,
    sha256,
    write_json,
    write_text,
)
from residency.core.types import Profile, Value

SCHEMA = 1
PACKAGES = ("residency", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")


class Step(Value, frozen=True):
    """One step and everything that its result depends on."""

    name: str
    settings: dict[str, Any]
    """Its slice of the recipe, JSON-able."""
    inputs: dict[str, str]
    """Name -> hash of what it reads."""
    version: int = 1
    """Raised when the code of the step begins to give other results."""
    into: str = ""
    """Folder in the run that its output replaces; empty: files of the run's own folder."""

    @property
    def key(self) -> str:
        """Equal key, equal result."""
        return digest(
            {
                "name": self.name,
                "settings": self.settings,
                "inputs": self.inputs,
                "version": self.version,
            }
        )


class Record(Value, frozen=True):
    """What the run keeps of a finished step."""

    step: Step
    key: str
    files: dict[str, int]
    """File, relative to the run -> size in bytes."""
    seconds: float
    finished: str


class Manifest(Value, frozen=True):
    """What a run is: enough to repeat it and to know it again."""

    schema: int
    name: str
    recipe_digest: str
    root: str
    """Folder that the recipe's paths are relative to, from the run's own: a project may be moved or
    copied."""
    created: str
    code: str
    """Version of this package."""
    packages: dict[str, str]
    hardware: str
    inputs: dict[str, str]
    """Input file -> SHA-256."""
    profile: Profile
    """The least protected profile among the data."""
    status: str
    """``running``, ``done`` or ``failed``"""
    steps: dict[str, str] = {}
    """Step -> key."""
    launch: str = ""
    """How it was trained where not by one process: ``2 processes``."""


class _Version(Value, frozen=True):
    schema: int


class Run:
    """A run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, str] = {}
        """Step -> ``cached``, ``borrowed`` or ``run``, of this process."""

    @property
    def manifest(self) -> Manifest:
        """The run's manifest; raises ``UserError`` where the folder is not a run."""
        path = self.folder / "manifest.json"
        if not path.is_file():
            raise UserError(
                f"{self.folder}: is not a run (manifest.json is missing); give a folder under "
                "runs/."
            )
        schema = read_json(path, _Version).schema
        if schema != SCHEMA:
            raise UserError(
                f"{path}: schema {schema} is not read by this version, which reads {SCHEMA}; "
                "use the version that wrote it, or move the folder away and run again."
            )
        return read_json(path, Manifest)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest; unchanged ones are left alone."""
        write_json(self.folder / "manifest.json", manifest)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process works on a run."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.folder}: another process is working on this run; wait for it to end."
                ) from None
            yield

    def record(self, name: str) -> Record | None:
        """The record of a finished step, where its files are still there; one of another version
        counts as none."""
        path = self.folder / "steps" / f"{name.replace('/', '-')}.json"
        if not path.is_file():
            return None
        try:
            record = read_json(path, Record)
        except DataError:
            return None
        whole = all(
            (self.folder / file).is_file() and (self.folder / file).stat().st_size == size
            for file, size in record.files.items()
        )
        return record if whole else None

    def is_done(self, step: Step) -> bool:
        """Whether the step's result is in the run."""
        record = self.record(step.name)
        return record is not None and record.key == step.key

    def do(self, step: Step, work: Callable[[Path], None]) -> str:
        """Have a step's result in the run: find it, borrow it from a run of the same name, or work
        for it.

        ``work`` gets an empty folder to write to. Returns ``cached``, ``borrowed`` or ``run``.
        """
        if self.is_done(step):
            self.done[step.name] = "cached"
            return "cached"
        partial = self.folder / f".{step.name.replace('/', '-')}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        started = time.monotonic()
        with disk_errors(self.folder):
            partial.mkdir(parents=True)
        lender = next((run for run in self.lenders(step) if run.is_done(step)), None)
        try:
            if lender is not None:
                with disk_errors(self.folder):
                    _link(lender, step, partial)
            else:
                self.log("started", step=step.name)
                with disk_errors(self.folder), _full_disk(self.folder):
                    work(partial)
            self._commit(step, partial, time.monotonic() - started)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            with suppress(
                UserError
            ):  # a full disk may refuse this line too; the first error is the one to tell
                self.log("failed", step=step.name)
            raise
        how = "borrowed" if lender is not None else "run"
        self.done[step.name] = how
        self.log("finished", step=step.name, how=how, seconds=round(time.monotonic() - started, 2))
        shutil.rmtree(self.scratch(step), ignore_errors=True)
        return how

    def scratch(self, step: Step) -> Path:
        """A folder that outlives a killed process, for this very step: checkpoints go here."""
        return self.folder / ".work" / step.key[:16]

    def clear_scratch(self) -> None:
        """Remove what killed processes left behind of steps that are finished now."""
        shutil.rmtree(self.folder / ".work", ignore_errors=True)

    def lenders(self, step: Step) -> list[Run]:
        """Runs whose result of the step may be used; what lies in a run's own folder, such as the
        report, names it."""
        return self.siblings() if step.into else []

    def siblings(self) -> list[Run]:
        """Other runs of the same name, newest first."""
        name = self.folder.name.rpartition("-")[0]
        found = [
            path
            for path in self.folder.parent.glob(f"{name}-*")
            if path != self.folder and (path / "steps").is_dir()
        ]
        return [Run(path) for path in sorted(found, key=lambda path: -path.stat().st_mtime)]

    def explain(self, step: Step) -> str:
        """In one line, whether a step will run and what about it changed."""
        if self.is_done(step):
            return "cached"
        records = [record for run in [self, *self.siblings()] if (record := run.record(step.name))]
        if any(run.is_done(step) for run in self.lenders(step)):
            return "found in an earlier run"
        if not records:
            return "runs: no result yet"
        before = records[0].step
        changes = [
            *differences(before.settings, step.settings),
            *differences(before.inputs, step.inputs),
        ]
        if before.version != step.version:
            changes.append("the code of the step")
        return (
            "runs: "
            + "; ".join(changes[:5])
            + (f"; {len(changes) - 5} more" if len(changes) > 5 else "")
        )

    def log(self, event: str, **fields: str | float) -> None:
        """Append to ``log.jsonl``: names and numbers only."""
        line = canonical({"time": now(), "event": event, **fields}) + b"\n"
        with disk_errors(self.folder), (self.folder / "log.jsonl").open("ab") as file:
            file.write(line)

    def _commit(self, step: Step, partial: Path, seconds: float) -> None:
        names = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
        into = Path(step.into)
        files = {str(into / name): (partial / name).stat().st_size for name in names}
        with disk_errors(self.folder):
            if step.into:
                _replace(partial, self.folder / into)
            else:
                for path in sorted(partial.iterdir()):
                    _replace(path, self.folder / path.name)
                partial.rmdir()
        record = Record(
            step=step, key=step.key, files=files, seconds=round(seconds, 2), finished=now()
        )
        write_json(self.folder / "steps" / f"{step.name.replace('/', '-')}.json", record)


FULL = re.compile(
    r"no space left|file too large|quota exceeded|os error "
    r"(28|27|122)\b|PytorchStreamWriter|iostream error|"
    r"unexpected pos \d|file write failed",
    re.IGNORECASE,
)
"""How libraries that write through C++ or Rust say that the disk is full; they raise no
``OSError``."""


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UserError):
        raise
    except Exception as error:
        if FULL.search(str(error)):
            raise UserError(
                f"{folder}: cannot be written (No space left on device); free space or choose "
                "another folder, then run again."
            ) from None
        raise


def _replace(new: Path, old: Path) -> None:
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.is_dir():
        shutil.rmtree(old)
    new.replace(old)


def _link(lender: Run, step: Step, partial: Path) -> None:
    record = lender.record(step.name)
    for file in record.files if record else ():
        target = partial / Path(file).relative_to(step.into)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(lender.folder / file, target)
        except OSError:
            shutil.copy2(lender.folder / file, target)


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """``stages[0].epochs 6 -> 8`` for every leaf that differs; hashes are named, not shown."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = dict.fromkeys([*before, *after])
        return [
            line
            for name in names
            for line in differences(
                before.get(name), after.get(name), f"{key}.{name}" if key else str(name)
            )
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line
            for i, pair in enumerate(zip(before, after, strict=True))
            for line in differences(*pair, f"{key}[{i}]")
        ]
    if before == after:
        return []
    if (isinstance(after, str) and len(after) == 64) or (
        isinstance(before, str) and len(before) == 64
    ):
        return [f"{key} changed"]
    return [f"{key} {_short(before)} -> {_short(after)}"]


def _short(value: object) -> str:
    text = "nothing" if value is None else msgspec.json.encode(value).decode()
    return text if len(text) <= 40 else text[:37] + "..."


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def packages() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """Processor, cores, memory and GPUs in a few words; loads nothing heavy."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpus = [
        line.partition(":")[2].strip()
        for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        for line in path.read_text().splitlines()
        if line.startswith("Model")
    ]
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB" + (
        f", {len(gpus)} x {gpus[0]}" if gpus else ", no GPU"
    )


def memoised_digests(paths: Sequence[Path], memo: Path | None) -> dict[Path, str]:
    """Hash of each file, remembered in ``memo`` by name, size and time of change, so that a cached
    run does not read gigabytes again."""
    known: dict[str, str] = {}
    if memo is not None and memo.is_file():
        with suppress(msgspec.DecodeError):
            known = msgspec.json.decode(memo.read_bytes(), type=dict[str, str])
    found: dict[Path, str] = {}
    before = len(known)
    folders: dict[Path, Path] = {}
    for path in paths:
        stat = path.stat()
        folder = folders.get(path.parent) or folders.setdefault(path.parent, path.parent.resolve())
        about = f"{folder / path.name}|{stat.st_size}|{stat.st_mtime_ns}"
        name = sha256(about.encode())
        if name not in known:
            known[name] = file_digest(path)
        found[path] = known[name]
    if memo is not None and len(known) > before and memo.parent.is_dir():
        with suppress(UserError):  # only a help for next time
            write_text(memo, msgspec.json.encode(known).decode())
    return found
