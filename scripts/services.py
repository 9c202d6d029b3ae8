"""Real servers for tests: PostgreSQL, MariaDB, Redis and Chromium, as Debian packages, on loopback,
under .services/.

    python scripts/services.py start postgresql redis   prints a line NAME=VALUE of each for the environment
    python scripts/services.py stop postgresql redis
    python scripts/services.py run postgresql redis -- COMMAND ...   starts, runs the command with these variables, stops

Standard library only. A server has a data folder and a random free port of its own, writes its
process id to a file, and is ended by it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".services"
PACKAGES = {
    "postgresql": ("postgresql",),
    "mariadb": ("mariadb-server",),
    "redis": ("redis-server",),
    "chromium": ("chromium", "fonts-dejavu-core", "fonts-noto-cjk"),
}
PROGRAMS = {
    "postgresql": "initdb",
    "mariadb": "mariadbd",
    "redis": "redis-server",
    "chromium": "chromium",
}
SECONDS = 60
"""In which a server must answer."""


def main() -> None:
    """Start, stop, or run a command between the two."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("verb", choices=("start", "stop", "run"))
    options.add_argument("services", nargs="+", choices=sorted(PACKAGES), metavar="SERVICE")
    arguments, command = _parted(sys.argv[1:])
    given = options.parse_args(arguments)
    if given.verb == "run":
        sys.exit(run(given.services, command))
    for name in given.services:
        if given.verb == "start":
            print("\n".join(f"{key}={value}" for key, value in start(name).items()), flush=True)
        else:
            stop(name)


def _parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:at]), list(arguments[at + 1 :])


def run(names: Sequence[str], command: Sequence[str]) -> int:
    """A command between start and stop of services; its exit status."""
    if not command:
        sys.exit("services: run needs -- and a command.")
    variables: dict[str, str] = {"RESIDENCY_SERVICES": "1"}
    try:
        for name in names:
            begun = time.monotonic()
            variables |= start(name)
            print(
                f"services: {name} is up after {time.monotonic() - begun:.1f} s",
                file=sys.stderr,
                flush=True,
            )
        return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode
    finally:
        for name in reversed(names):
            stop(name)


def start(name: str) -> dict[str, str]:
    """Install where missing, start where not running, wait for an answer; variables for the
    environment."""
    install(name)
    if name == "chromium":
        return {"RESIDENCY_TEST_CHROMIUM": str(program("chromium"))}
    folder = FOLDER / name
    if not running(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "port").write_text(str(free_port()))
        process = STARTERS[name](folder, int((folder / "port").read_text()))
        (folder / "pid").write_text(str(process.pid))
        wait(name, folder, process)
    port = (folder / "port").read_text()
    return {
        "postgresql": {
            "RESIDENCY_TEST_POSTGRESQL": f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        },
        "mariadb": {"RESIDENCY_TEST_MARIADB": f"mysql+pymysql://root:root@127.0.0.1:{port}/mysql"},
        "redis": {"RESIDENCY_TEST_REDIS": f"redis://127.0.0.1:{port}/0"},
    }[name]


def install(name: str) -> None:
    """Debian packages of a service, where its program is missing."""
    if program(PROGRAMS[name]):
        return
    if not shutil.which("apt-get"):
        sys.exit(
            f"services: {name} is not installed, and this is no Debian: install "
            f"{' '.join(PACKAGES[name])}."
        )
    as_root = [] if os.getuid() == 0 else ["sudo", "-n"]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (
        ["apt-get", "-o", "DPkg::Lock::Timeout=300", "update", "-qq"],
        [
            "apt-get",
            "-o",
            "DPkg::Lock::Timeout=300",
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            *PACKAGES[name],
        ],
    ):
        if subprocess.run(
            [*as_root, *command], env=quiet, stdout=sys.stderr, check=False
        ).returncode:
            sys.exit(
                f"services: {' '.join(PACKAGES[name])} could not be installed; install them, then "
                "try again."
            )
    if not program(PROGRAMS[name]):
        sys.exit(f"services: {PROGRAMS[name]} was installed but is nowhere to be found.")


def program(name: str) -> str | None:
    """Path of a program, also where Debian hides PostgreSQL's."""
    places = [
        *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
        "/usr/sbin",
        "/usr/bin",
    ]
    return shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")]))


def as_user(user: str, home: Path) -> tuple[list[str], Path]:
    """(what goes before a command that must not run as root, a data folder of that user).

    The folder is under .services/, or a temporary one where that user cannot reach the project.
    """
    data = home / "data"
    data.mkdir(parents=True)
    before: list[str] = []
    if os.getuid() == 0:
        before = ["runuser", "-u", user, "--"]
        reached = subprocess.run(
            [*before, "test", "-x", str(data)], check=False, stderr=subprocess.DEVNULL
        )
        if reached.returncode:
            data = Path(tempfile.mkdtemp(prefix=f"residency-{home.name}-"))
        account = pwd.getpwnam(user)
        os.chown(data, account.pw_uid, account.pw_gid)
    (home / "where").write_text(str(data))
    return before, data


def launch(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """A process of its own group, which outlives this program."""
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def postgresql(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A cluster without durability, open on loopback."""
    before, home = as_user("postgres", folder)
    data = home / "cluster"
    initdb = str(program("initdb"))
    made = [
        *before,
        initdb,
        "-D",
        str(data),
        "-A",
        "trust",
        "-U",
        "postgres",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "-N",
    ]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    settings = [
        f"port={port}",
        "listen_addresses=127.0.0.1",
        f"unix_socket_directories={home}",
        "fsync=off",
        "max_wal_size=2GB",
    ]
    server = [str(Path(initdb).with_name("postgres")), "-D", str(data)]
    return launch(
        [*before, *server, *(part for one in settings for part in ("-c", one))],
        ROOT / ".services/postgresql.log",
    )


def mariadb(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server without durability, open on loopback."""
    before, home = as_user("mysql", folder)
    data = home / "cluster"
    common = ["--no-defaults", f"--datadir={data}"]
    installer = [
        str(program("mariadb-install-db")),
        *common,
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
    ]
    subprocess.run([*before, *installer], check=True, stdout=subprocess.DEVNULL)
    init = home / "init.sql"
    init.write_text("ALTER USER root@localhost IDENTIFIED BY 'root';\n")
    init.chmod(0o644)
    options = [
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--socket={home}/socket",
        f"--init-file={init}",
        "--character-set-server=utf8mb4",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-buffer-pool-size=256M",
        "--max-allowed-packet=64M",
    ]
    return launch(
        [*before, str(program("mariadbd")), *common, *options], ROOT / ".services/mariadb.log"
    )


def redis(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server that keeps nothing on disk."""
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    return launch([str(program("redis-server")), *options], ROOT / ".services/redis.log")


STARTERS: dict[str, Callable[[Path, int], subprocess.Popen[bytes]]] = {
    "postgresql": postgresql,
    "mariadb": mariadb,
    "redis": redis,
}


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait(name: str, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the server answers; else its last words."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if process.poll() is None and answers(name, int((folder / "port").read_text())):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    said = (ROOT / f".services/{name}.log").read_text("utf-8", "replace").strip().splitlines()[-3:]
    stop(name)
    sys.exit(f"services: {name} did not start: {' / '.join(said)}")


def answers(name: str, port: int) -> bool:
    """Whether a server speaks, and not only listens."""
    if name == "postgresql":
        ready = [str(program("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(ready, check=False).returncode == 0
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=2) as found,
    ):
        if name == "redis":
            found.sendall(b"PING\r\n")
        return bool(found.recv(16))
    return False


def running(folder: Path) -> int:
    """The process id of a server that runs, or 0."""
    try:
        pid = int((folder / "pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return 0
    return pid


def stop(name: str) -> None:
    """End a server by its id, gently, then not; its data goes too."""
    folder = FOLDER / name
    if pid := running(folder):
        for how, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(
                    pid, how if name != "postgresql" or how == signal.SIGKILL else signal.SIGINT
                )
            until = time.monotonic() + seconds
            while time.monotonic() < until and alive(pid):
                time.sleep(0.1)
            if not alive(pid):
                break
    with contextlib.suppress(OSError):
        shutil.rmtree((folder / "where").read_text(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie; a child of ours that ended is taken leave of."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
