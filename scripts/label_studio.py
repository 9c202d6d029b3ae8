"""Start and stop Label Studio on this machine: one server for each annotator and one for whoever
decides.

    python scripts/label_studio.py start --annotators 3
    python scripts/label_studio.py status
    python scripts/label_studio.py stop

Everything lies under .services/label-studio: an environment of its own, a folder of data for each
server, and accounts.env (mode
0600) with the address, login, password and token of each. Each server has its own database, secret
      key and only account, so nobody can see what another has marked. They listen on 127.0.0.1
      only; telemetry, error reports and the check for newer versions are off.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

VERSION = "1.23.2"
FOLDER = Path(__file__).resolve().parents[1] / ".services" / "label-studio"
FIRST_PORT = 8081
SECONDS = 300
"""Longest wait for a server."""


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("what", choices=("start", "stop", "status"))
    options.add_argument("--annotators", type=int, default=3)
    options.add_argument(
        "--port", type=int, default=FIRST_PORT, help=f"of the first server (default {FIRST_PORT})"
    )
    options.add_argument("--folder", type=Path, default=FOLDER, help="where data and accounts lie")
    given = options.parse_args()
    names = [*(f"a{number + 1}" for number in range(given.annotators)), "adjudicator"]
    if given.what == "start":
        start(given.folder, names, given.port)
    elif given.what == "stop":
        stop(given.folder)
    else:
        status(given.folder)


def start(folder: Path, names: list[str], port: int) -> None:
    """Start the servers that do not run yet, and wait until all answer."""
    program = installed()
    folder.mkdir(parents=True, exist_ok=True)
    accounts = {**read_accounts(folder)}
    for number, name in enumerate(names):
        accounts.setdefault(f"{upper(name)}_URL", f"http://127.0.0.1:{port + number}")
        accounts.setdefault(f"{upper(name)}_LOGIN", f"{name}@residency.invalid")
        accounts.setdefault(f"{upper(name)}_PASSWORD", secrets.token_urlsafe(12))
        accounts.setdefault(f"{upper(name)}_TOKEN", secrets.token_hex(20))
        accounts.setdefault(f"{upper(name)}_SECRET_KEY", secrets.token_hex(32))
    write_accounts(folder, accounts)
    for name in names:
        url = accounts[f"{upper(name)}_URL"]
        if answers(url):
            if running(folder, name) is None:
                sys.exit(
                    f"label_studio: something else answers at {url}; give another --port and an "
                    "empty --folder."
                )
            continue
        if running(folder, name) is None:
            check_free(url)
            launch(program, folder / name, name, accounts)
        wait(url, folder, name)  # one after the other: each start takes a core and half a gigabyte
        print(f"{name}: {url}, login {accounts[f'{upper(name)}_LOGIN']}", flush=True)
    print(
        f"Accounts: {folder / 'accounts.env'}; load the tokens with: set -a; . "
        f"{folder / 'accounts.env'}; set +a"
    )


def check_free(url: str) -> None:
    """End with one sentence where something else holds a server's port, whatever it speaks: Label
    Studio would take another one and not say so."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(url.rpartition(":")[2])))
        except OSError as error:
            sys.exit(
                f"label_studio: the port of {url} cannot be had ({os.strerror(error.errno or 0)}); "
                "give another --port and an empty --folder."
            )


def launch(program: Path, data: Path, name: str, accounts: dict[str, str]) -> None:
    """Start one server in a process group of its own."""
    data.mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(data),
        "LANG": "C.UTF-8",
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "SECRET_KEY": accounts[f"{upper(name)}_SECRET_KEY"],
        "LABEL_STUDIO_USERNAME": accounts[f"{upper(name)}_LOGIN"],
        "LABEL_STUDIO_PASSWORD": accounts[f"{upper(name)}_PASSWORD"],
        "LABEL_STUDIO_USER_TOKEN": accounts[f"{upper(name)}_TOKEN"],
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    url = accounts[f"{upper(name)}_URL"]
    port = url.rpartition(":")[2]
    command = [
        program,
        "start",
        "--no-browser",
        "--internal-host",
        "127.0.0.1",
        "--port",
        port,
        "--data-dir",
        data,
    ]
    with (data / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (data / "pid").write_text(str(process.pid), "utf-8")


def installed() -> Path:
    """The program, installed into an environment of its own where it is not there yet."""
    environment = FOLDER / "venv"
    program = environment / "bin" / "label-studio"
    if not program.is_file():
        print(f"Installing label-studio {VERSION} into {environment} (about 1 GB) ...", flush=True)
        venv.create(environment, with_pip=True, clear=environment.exists())
        done = subprocess.run(
            [environment / "bin" / "pip", "install", "-q", f"label-studio=={VERSION}"], check=False
        )
        if done.returncode:
            sys.exit(
                "label_studio: pip could not install it; see above, and check the network or pip's "
                "configuration."
            )
    return program


def stop(folder: Path) -> None:
    """Stop the servers that this script started."""
    for data in sorted(path.parent for path in folder.glob("*/pid")):
        pid = running(folder, data.name)
        if pid is not None:
            os.killpg(pid, signal.SIGTERM)
            for _ in range(100):
                if running(folder, data.name) is None:
                    break
                time.sleep(0.1)
            else:
                os.killpg(pid, signal.SIGKILL)
            print(f"{data.name}: stopped")
        (data / "pid").unlink()


def status(folder: Path) -> None:
    """Say of each server whether it answers."""
    accounts = read_accounts(folder)
    for key, url in accounts.items():
        if key.endswith("_URL"):
            print(
                f"{key[13:-4].lower()}: {url}, {'answers' if answers(url) else 'does not answer'}"
            )


def running(folder: Path, name: str) -> int | None:
    """Process of a server, if it is ours and lives."""
    file = folder / name / "pid"
    try:
        pid = int(file.read_text("utf-8"))
        command = (
            Path(f"/proc/{pid}/cmdline").read_bytes() if Path("/proc").is_dir() else b"label-studio"
        )
    except (OSError, ValueError):
        return None
    return pid if b"label-studio" in command and not zombie(pid) else None


def zombie(pid: int) -> bool:
    """Whether a process has ended and only its parent has not noticed."""
    file = Path(f"/proc/{pid}/stat")
    return file.is_file() and file.read_text("utf-8").rpartition(")")[2].split()[0] == "Z"


def wait(url: str, folder: Path, name: str) -> None:
    """Return when a server answers; end with the reason where it does not."""
    limit, dead = time.monotonic() + SECONDS, 0
    while (
        time.monotonic() < limit and dead < 10
    ):  # a process that has just begun has no command line yet
        if answers(url):
            return
        dead = dead + 1 if running(folder, name) is None else 0
        time.sleep(0.5)
    sys.exit(
        f"label_studio: {name} did not start; the reason is in {folder / name / 'server.log'}."
    )


def answers(url: str) -> bool:
    """Whether a server is there."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def upper(name: str) -> str:
    return f"LABEL_STUDIO_{name.upper()}"


def read_accounts(folder: Path) -> dict[str, str]:
    """What accounts.env holds."""
    file = folder / "accounts.env"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    return {key: value for key, equals, value in (line.partition("=") for line in lines) if equals}


def write_accounts(folder: Path, accounts: dict[str, str]) -> None:
    """Write accounts.env, readable by its owner alone."""
    partial = folder / "accounts.env.partial"
    partial.touch(mode=0o600)
    partial.chmod(0o600)
    partial.write_text("".join(f"{key}={value}\n" for key, value in accounts.items()), "utf-8")
    partial.replace(folder / "accounts.env")


if __name__ == "__main__":
    main()
