"""Serve a model repository that `residency export triton` wrote with a real Triton, and say whether
it answers.

    python scripts/triton_server.py REPOSITORY

Runs until Ctrl-C or SIGTERM. The server is the one of nvidia-pytriton (Python backend, no other),
installed under .services/triton the first time; run this with the interpreter that has residency.
Triton says that it is ready while a model's process is dead, so each model is asked a question every
half second and must answer with the digest that was exported: GET /readyz on a port of its own is 200
while all do, else 503. A model whose process has died is unloaded and loaded again, a server that has
ended is started again. Nothing asks who is asking: it listens on this machine alone, unless --host
names another address, which must then be one of a network that only residency serve sees.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".services" / "triton"
SERVER = "nvidia-pytriton==0.7.0"
NUMPY = "numpy==1.26.4"
"""The server's Python backend reads texts wrongly with NumPy 2, and ends."""
PYTHONS = ("3.10", "3.11", "3.12")
EVERY = 0.5
"""Seconds between two questions."""
PATIENCE = 4.0
"""Seconds that an answer may take: a busy machine is late, and a dead model refuses at once."""
STALE = 5.0
"""Seconds after which an answer says nothing of now."""
AGAIN = 5.0
"""Seconds between two attempts to load."""
LOADING = 600.0
"""Longest wait for a model to load."""
LOOPBACK = "127.0.0.1"


@dataclass
class Model:
    """A model of the repository, and what is known of it."""

    name: str
    text: str
    max_tokens: int
    digest: str
    answered: float = float("-inf")
    """When it last answered rightly."""
    why: str = "not loaded yet"

    @property
    def ready(self) -> bool:
        return not self.why and time.monotonic() - self.answered < STALE


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("repository", type=Path, nargs="?")
    options.add_argument("--install", action="store_true", help="install the server, and end")
    options.add_argument("--host", default=LOOPBACK, help=f"address (default {LOOPBACK})")
    options.add_argument("--http", type=int, default=8000, help="port (default 8000)")
    options.add_argument("--grpc", type=int, default=8001, help="port (default 8001)")
    options.add_argument("--ready", type=int, default=8003, help="port of /readyz (default 8003)")
    given = options.parse_args()
    home = install()
    if given.install:
        return
    if given.repository is None:
        options.error("name the model repository")
    models = [
        Model(said["model"], said["text"], said["max_tokens"], said["digest"])
        for said in (
            json.loads(path.read_text("utf-8")) for path in given.repository.glob("*/proof.json")
        )
    ]
    if not models:
        sys.exit(f"triton: {given.repository} holds no model that residency export triton wrote.")
    command = server(given, home)
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: ended.set())
    url = f"http://{LOOPBACK if given.host == '0.0.0.0' else given.host}:{given.http}"
    for model in models:
        threading.Thread(target=watch, args=(model, url, ended), daemon=True).start()
    probes = ThreadingHTTPServer((given.host, given.ready), probe_of(models))
    threading.Thread(target=probes.serve_forever, daemon=True).start()
    print(
        f"http {url}, grpc {given.host}:{given.grpc}, http://{given.host}:{given.ready}/readyz",
        flush=True,
    )
    run(command, ended)


def run(command: list[str], ended: threading.Event) -> None:
    """The server, started again when it ends, until we are told to end. A model's process may
    outlive a server that was killed, with all of its memory: it is ended too."""
    while not ended.is_set():
        process = subprocess.Popen(command, env=environment(), start_new_session=True)
        while process.poll() is None and not ended.wait(EVERY):
            pass
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if not ended.wait(AGAIN):
            print("triton: the server ended; starting it again", flush=True)


def watch(model: Model, url: str, ended: threading.Event) -> None:
    """Ask a model again and again; load it anew when its process is dead."""
    loaded = float("-inf")
    while not ended.wait(EVERY):
        try:
            digest = ask(model, url)
        except urllib.error.HTTPError as error:  # the server is there, and the model is not
            model.why = f"refused ({error.code})"
            error.close()
            if time.monotonic() - loaded > AGAIN:
                load(model, url)
                loaded = time.monotonic()
            continue
        except (OSError, ValueError, KeyError) as error:
            model.why = f"no answer ({type(error).__name__})"
            continue
        if digest != model.digest:
            model.why = "another model answers"
            continue
        model.answered, model.why = time.monotonic(), ""


def ask(model: Model, url: str) -> str:
    """The digest of what answers the model's question; raises as ``urlopen``."""
    inputs = [("TEXT", "BYTES", model.text), ("MAX_TOKENS", "INT32", model.max_tokens)]
    body = {
        "inputs": [
            {"name": name, "datatype": kind, "shape": [1, 1], "data": [value]}
            for name, kind, value in inputs
        ]
    }
    said = post(f"{url}/v2/models/{model.name}/infer", body, PATIENCE)
    return str(json.loads(json.loads(said)["outputs"][0]["data"][0])["digest"])


def load(model: Model, url: str) -> None:
    """Unload a model and load it again."""
    for what in ("unload", "load"):
        try:
            post(f"{url}/v2/repository/models/{model.name}/{what}", {}, LOADING)
        except urllib.error.HTTPError as error:
            error.close()
            model.why = f"{what}: refused ({error.code})"
        except OSError as error:
            model.why = f"{what}: {type(error).__name__}"


def post(url: str, body: object, seconds: float) -> bytes:
    """What a server answers to a JSON body."""
    asked = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=seconds) as answer:
        return bytes(answer.read())


def probe_of(models: list[Model]) -> type[BaseHTTPRequestHandler]:
    """What answers GET /readyz."""

    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ready = {model.name: model.ready for model in models}
            known = self.path == "/readyz"
            body = {"ready": all(ready.values()), "models": ready} if known else {}
            self.send_response((200 if body["ready"] else 503) if known else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Probes are not told."""

    return Probe


def install() -> Path:
    """The server's folder, installed where it is not there yet."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version not in PYTHONS:
        sys.exit(f"triton: runs with Python {', '.join(PYTHONS)}, and this is {version}.")
    for folder, package in (("server", SERVER), ("numpy", NUMPY)):
        if not (FOLDER / folder / package).is_file():
            shutil.rmtree(FOLDER / folder, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
            if subprocess.run([*pip, FOLDER / folder, package], check=False).returncode:
                sys.exit("triton: pip could not install it; see above.")
            (FOLDER / folder / package).touch()
    home = FOLDER / "server" / "pytriton" / "tritonserver"
    backend, stub = home / "backends" / "python", "triton_python_backend_stub"
    ours = home / "python_backend_stubs" / version / stub
    if not (backend / stub).is_file() or not filecmp.cmp(ours, backend / stub, shallow=False):
        shutil.copy2(ours, backend / "stub.partial")
        (backend / "stub.partial").replace(backend / stub)  # which another server may be running
    return home


def server(given: argparse.Namespace, home: Path) -> list[str]:
    """The command of the server."""
    ports = {"http": given.http, "grpc": given.grpc}
    return [
        str(home / "bin" / "tritonserver"),
        f"--model-repository={given.repository.resolve()}",
        f"--backend-directory={home / 'backends'}",
        *(f"--{kind}-port={port}" for kind, port in ports.items()),
        *(f"--{kind}-address={given.host}" for kind in ports),
        "--allow-metrics=false",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--exit-on-error=false",
        "--disable-auto-complete-config",
        "--log-info=false",
    ]


def environment() -> dict[str, str]:
    """The server's: its NumPy before ours, and the library of this interpreter."""
    paths = [FOLDER / "numpy", ROOT / "src", sysconfig.get_path("purelib")]
    libraries = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
    }


if __name__ == "__main__":
    main()
