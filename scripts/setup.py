"""Make ``.venv`` ready: check the machine, say what will be downloaded, install, skip when nothing
has changed.

Standard library only, and Python 3.8 syntax, so that an old Python is told politely what is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Iterator, NamedTuple  # noqa: UP035  (Python 3.8)

ROOT = Path(__file__).resolve().parents[1]
NEEDED_PYTHON = (3, 11)
GB = 10**9
DISK = {"cpu": 3 * GB, "cuda": 14 * GB}
"""Free space that an installation needs at its widest: downloads, cache and unpacked files."""
DOWNLOAD = {"cpu": 300, "cuda": 3500}
"""Rough size of everything that is downloaded, in MB."""
ALWAYS = ("train", "quantise", "chatglm", "deid", "ingest", "tables", "serve", "export", "dev")


class Torch(NamedTuple):
    """The build of torch that pip would install."""

    version: str
    cuda: bool
    megabytes: float | None


# What the machine must have


def python_problem(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> str:
    """Why this Python cannot be used, or an empty string."""
    if version[:2] >= NEEDED_PYTHON:
        return ""
    shown = ".".join(map(str, version))
    newer = newer_python()
    remedy = (
        f"{newer} is on this machine, run `make setup PYTHON={newer}`"
        if newer
        else "install it (Debian 12 or Ubuntu 24.04: `apt-get install python3 python3-venv`) "
        "and run `make setup PYTHON=python3.11`"
    )
    return f"Residency needs Python 3.11 or newer and this is {shown}: {remedy}."


def newer_python() -> str:
    """The name of a Python on PATH that is new enough and starts, or an empty string."""
    for name in ("python3.13", "python3.12", "python3.11"):
        if (
            shutil.which(name)
            and subprocess.run([name, "-c", ""], capture_output=True, check=False).returncode == 0
        ):
            return name
    return ""


def venv_problem() -> str:
    """Why no virtual environment can be made, or an empty string."""
    missing = [name for name in ("venv", "ensurepip") if not has_module(name)]
    if not missing:
        return ""
    return (
        f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing from "
        f"{sys.executable}: "
        "on Debian or Ubuntu run `apt-get install python3-venv`, elsewhere install a complete "
        "Python."
    )


def has_module(name: str) -> bool:
    """Whether this Python could import a module."""
    return importlib.util.find_spec(name) is not None


def disk_problem(kind: str = "cpu", root: Path = ROOT) -> str:
    """Why the disk is too small, or an empty string."""
    free = free_bytes(root)
    if free >= DISK[kind]:
        return ""
    return (
        f"{free / GB:.1f} GB are free under {root} and about {DISK[kind] / GB:.0f} GB are needed: "
        "free some space, or move the folder to a larger disk."
    )


def free_bytes(root: Path) -> int:
    """Free space for this user."""
    return shutil.disk_usage(root).free


def folder_problem(root: Path = ROOT) -> str:
    """Why nothing can be written beside the sources, or an empty string."""
    if os.access(root, os.W_OK):
        return ""
    return f"{root} cannot be written by this user: copy the project to a folder of your own."


def system_problem(system: str = os.name) -> str:
    """Why this operating system cannot be used, or an empty string."""
    return (
        ""
        if system == "posix"
        else "Windows is not supported directly: use WSL (Ubuntu), where all commands work."
    )


def problems() -> list[str]:
    """Everything that stands in the way, each with its remedy: all at once, so that one pass
    repairs it."""
    found = (python_problem(), venv_problem(), disk_problem(), folder_problem(), system_problem())
    return [problem for problem in found if problem]


def has_gpu() -> bool:
    """Whether an NVIDIA GPU and its driver are here."""
    gpus = Path("/proc/driver/nvidia/gpus")
    if gpus.is_dir() and any(gpus.iterdir()):
        return True
    if not shutil.which("nvidia-smi"):
        return False
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


# What pip would download


def torch_pin(root: Path = ROOT) -> str:
    """The requirement of torch in the constraints file."""
    lines = (root / "constraints.txt").read_text("utf-8").splitlines()
    return next(line.strip() for line in lines if line.startswith("torch=="))


def probe_torch(python: str) -> Torch | None:
    """Ask pip which build of torch it would take, without installing; ``None`` where that cannot be
    known.

    pip reads a package's metadata apart from the package since 23.2; an older one would download it
    all.
    """
    if pip_version(python) < (23, 2):
        return None
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "--quiet",
    ]
    try:
        asked = subprocess.run(
            [*command, "--report", "-", torch_pin()],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        return torch_of(json.loads(asked.stdout)["install"][0])
    except (OSError, subprocess.TimeoutExpired, ValueError, LookupError):
        return None


def pip_version(python: str) -> tuple[int, ...]:
    """The version of an interpreter's pip; (0,) where it has none."""
    try:
        said = subprocess.run(
            [python, "-m", "pip", "--version"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return (0,)
    found = re.match(r"pip (\d+)\.(\d+)", said)
    return tuple(int(part) for part in found.groups()) if found else (0,)


def torch_of(item: dict) -> Torch:  # type: ignore[type-arg]
    """Read pip's report on torch: a local version names the build, otherwise the packages it pulls
    in do."""
    version = item["metadata"]["version"]
    local = version.partition("+")[2]
    cuda = local.startswith("cu") or (
        not local and any(map(pulls_cuda, item["metadata"].get("requires_dist", [])))
    )
    return Torch(version, cuda, megabytes(item["download_info"]["url"]))


def pulls_cuda(
    requirement: str, system: str = platform.system(), machine: str = platform.machine()
) -> bool:
    """Whether a requirement of torch brings CUDA libraries to this machine."""
    name, _, marker = requirement.partition(";")
    if not name.startswith(("nvidia-", "cuda-")) or "extra ==" in marker:
        return False
    return ("platform_system" not in marker or system in marker) and (
        "platform_machine" not in marker or machine in marker
    )


def megabytes(url: str) -> float | None:
    """Size of a download from its header, or ``None``."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, method="HEAD"), timeout=20
        ) as answer:
            return int(answer.headers["Content-Length"]) / 1e6
    except (OSError, ValueError, TypeError):
        return None


def torch_lines(torch: Torch | None, gpu: bool) -> list[str]:
    """What will be downloaded, how much, how long, and what to do where build and machine do not
    fit."""
    if torch is None:
        kind = "cuda" if gpu else "cpu"
        return [
            "which build of torch pip will take is not known beforehand; expected: "
            f"{kind.upper()}, {cost(kind)}."
        ]
    kind = "cuda" if torch.cuda else "cpu"
    size = f", {torch.megabytes:.0f} MB" if torch.megabytes else ""
    lines = [f"torch {torch.version}: {kind.upper()} build{size}; {cost(kind)}."]
    if torch.cuda and not gpu:
        lines.append(
            "No NVIDIA GPU was found: the CUDA build works, but is large for nothing. To take the "
            "small CPU build, stop "
            "here (Ctrl-C), name PyTorch's own index of CPU wheels (its install page shows the "
            "address under 'CPU') in "
            "PIP_EXTRA_INDEX_URL or in pip's configuration, and run `make setup` again."
        )
    if gpu and not torch.cuda:
        lines.append(
            "An NVIDIA GPU was found, but this build cannot use it: name a source of CUDA builds "
            "in pip's configuration "
            "(PIP_EXTRA_INDEX_URL), or go on without the GPU."
        )
    return lines


def cost(kind: str) -> str:
    """Download and time in words; at 5 to 25 MB/s, and unpacking."""
    total = DOWNLOAD[kind]
    low, high = total / 25 / 60 + total / 700, total / 5 / 60 + total / 350
    size = f"{total / 1000:.1f} GB" if total >= 1000 else f"{total} MB"
    return (
        f"about {size} to download in all, roughly {max(1, round(low))} to {round(high) + 1} "
        "minutes"
    )


# The environment


def key(root: Path = ROOT) -> str:
    """What an installation depends on: package metadata, pins, Python, and where the folder stands."""
    parts = [(root / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    parts += [str(root).encode(), ".".join(map(str, sys.version_info[:3])).encode()]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def installed(root: Path = ROOT) -> tuple[str, list[str]]:
    """Key and extras of the last complete installation, empty where there is none."""
    try:
        stamp = json.loads((root / ".venv" / "setup.json").read_text("utf-8"))
        return str(stamp["key"]), list(stamp["extras"])
    except (OSError, ValueError, LookupError, TypeError):
        return "", []


def venv_python(root: Path = ROOT) -> str:
    """The interpreter inside ``.venv``."""
    return str(root / ".venv" / "bin" / "python")


def venv_fits() -> bool:
    """Whether ``.venv`` starts and has the version of this Python."""
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        said = subprocess.run(
            [venv_python(), "-c", code], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return False
    return said.strip() == ".".join(map(str, sys.version_info[:3]))


def create_venv() -> None:
    """Make ``.venv``; one that is broken or of another Python is made anew."""
    if venv_fits():
        return
    folder = ROOT / ".venv"
    if folder.exists() and not (folder / "pyvenv.cfg").is_file():
        stop("making .venv", "something else stands there; move it away and try again")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        stop(
            "making .venv",
            "delete the folder .venv, check that this user may write here, and try again",
            made.stdout,
        )
    python = venv_python()
    if pip_version(python) < (
        23,
        2,
    ):  # else the build of torch could not be named before its download
        newer = [python, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=23.2"]
        subprocess.run(newer, capture_output=True, check=False)


def install(extras: list[str]) -> None:
    """Run pip, showing a plain line for each long step; the whole output goes to
    ``.venv/setup.log``."""
    log = ROOT / ".venv" / "setup.log"
    command = [venv_python(), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "-c", "constraints.txt", "-e", f".[{','.join(extras)}]"]
    output = []
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with log.open("w", encoding="utf-8") as file:
        for line in process.stdout or ():
            output.append(line)
            file.write(line)
            shown = progress(line)
            if shown:
                say(f"      {shown}")
    if process.wait():
        stop("installing with pip", remedy("".join(output)), "".join(output))


def progress(line: str) -> str:
    """The line of pip's output as the user should see it, or an empty string."""
    found = re.search(r"Downloading (?:\S*/)?(\w+-[^-\s]+)\S* \(([\d.]+) (MB|GB)\)", line)
    if found and (found[3] == "GB" or float(found[2]) >= 5):
        return f"downloading {found[1]} ({found[2]} {found[3]})"
    if line.startswith("Installing collected packages:"):
        return f"unpacking {line.count(',') + 1} packages: the longest step, it prints nothing"
    return ""


def remedy(output: str) -> str:
    """What to do about a failure of pip."""
    if re.search(r"No space left on device|Errno 28", output):
        return (
            "the disk is full: free about 3 GB here and in the folder for temporary files "
            "(TMPDIR), and try again"
        )
    if re.search(r"SSLError|CERTIFICATE_VERIFY_FAILED", output):
        return (
            "the certificate was refused: behind a hospital proxy name its certificate in "
            "PIP_CERT, and try again"
        )
    if re.search(
        r"name resolution|ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|Connection to",
        output,
    ):
        return (
            "no package index was reached: check the network and HTTPS_PROXY, or set pip to "
            "your mirror, and try again"
        )
    if re.search(r"No matching distribution|Could not find a version|ResolutionImpossible", output):
        return (
            "the index that pip uses lacks a pinned version for this Python and processor: "
            "use 64-bit Linux or macOS with Python 3.11, or another index"
        )
    return (
        "read the lines above and .venv/setup.log, and try again; `rm -rf .venv` makes it "
        "start "
        "afresh"
    )


def verify() -> str:
    """Start what was installed; returns its description."""
    code = (
        "import residency, torch; print(torch.__version__, 'with' if torch.cuda.is_available() "
        "else 'without', 'GPU')"
    )
    tried = subprocess.run(
        [venv_python(), "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tried.returncode:
        stop(
            "starting torch",
            "the pinned torch does not start on this machine; the last line says why",
            tried.stderr,
        )
    return f"torch {tried.stdout.strip()}"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold back a second setup of this folder until the first has ended."""
    import fcntl  # POSIX only: `problems` has already said so

    with (ROOT / "pyproject.toml").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another setup is at work in this folder: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Talking


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def stop(step: str, advice: str, output: str = "") -> None:
    """End with the step that failed and what to do."""
    tail = "\n".join(output.strip().splitlines()[-12:])
    sys.exit(f"{tail}\n\nsetup failed while {step}: {advice}.".lstrip())


def report() -> None:
    """Say what the machine has; leave with everything that is missing."""
    found = problems()
    if found:
        many = "one thing is" if len(found) == 1 else f"{len(found)} things are"
        sys.exit(
            f"setup cannot start, {many} in the way:\n"
            + "\n".join(f"- {problem}" for problem in found)
        )
    git = (
        "git found"
        if shutil.which("git")
        else "no git (optional: manifests will not name the code's revision)"
    )
    say(
        f"Python {platform.python_version()}, {free_bytes(ROOT) / GB:.0f} GB free, {git}, "
        f"{'NVIDIA GPU found' if has_gpu() else 'no NVIDIA GPU: everything runs on the CPU'}."
    )


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Check this machine and install Residency into .venv."
    )
    parser.add_argument(
        "--check", action="store_true", help="only check and say what would be downloaded"
    )
    parser.add_argument(
        "--extras", default="", help="more optional parts, with commas: bench,vi,track"
    )
    return parser.parse_args(arguments)


def check(gpu: bool) -> None:
    """Say what an installation would download, without changing anything."""
    python = venv_python() if venv_fits() else sys.executable
    for line in torch_lines(probe_torch(python), gpu):
        say(line)


def main(arguments: list[str] | None = None) -> None:
    """Check, then install what is not yet installed."""
    chosen = options(arguments)
    if chosen.check:
        report()
        check(has_gpu())
        return
    wanted = [extra.strip() for extra in chosen.extras.split(",") if extra.strip()]
    if missing_extras(wanted):
        report()
        refuse_unknown(wanted)
        with alone():
            extras = missing_extras(wanted)  # another setup may just have installed them
            if extras:
                make_ready(extras)


def missing_extras(wanted: list[str]) -> list[str]:
    """All extras to install, or none where the last installation still holds and has them."""
    had_key, had = installed()
    extras = list(dict.fromkeys([*ALWAYS, *had, *wanted]))
    return [] if had_key == key() and set(extras) == set(had) else extras


def refuse_unknown(wanted: list[str]) -> None:
    """Leave with the allowed names where an extra does not exist: pip would only warn."""
    import tomllib  # Python 3.11, which `report` has made sure of

    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    unknown = [extra for extra in wanted if extra not in known]
    if unknown:
        sys.exit(f"EXTRAS: {', '.join(unknown)} is not known; allowed: {', '.join(known)}.")


def make_ready(extras: list[str]) -> None:
    """Make the environment, say what will be downloaded, install it, and leave the stamp of
    success."""
    begun = time.monotonic()
    say("[1/3] making .venv")
    create_venv()
    say("[2/3] asking pip what it would download")
    torch = probe_torch(venv_python())
    for line in torch_lines(torch, has_gpu()):
        say(f"      {line}")
    short = disk_problem("cuda") if torch and torch.cuda else ""
    if short:
        sys.exit(f"setup cannot go on, one thing is in the way:\n- {short}")
    say(f"[3/3] installing residency with {', '.join(extras)} (whole output: .venv/setup.log)")
    stamp = ROOT / ".venv" / "setup.json"
    if stamp.exists():
        stamp.unlink()  # a half-made environment must not look whole
    install(extras)
    described = verify()
    stamp.write_text(json.dumps({"key": key(), "extras": extras}), encoding="utf-8")
    say(f"ready in {time.monotonic() - begun:.0f} s: {described}. Next: make demo")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nsetup was stopped; `make setup` takes it up again.")
