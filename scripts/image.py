"""Build the images of deploy/compose.yaml where there is no Docker daemon and no registry of images,
keep them as archives, and show how the server's runs. Root on Debian only.

    python scripts/image.py build [NAME ...] [--mount FOLDER ...] [--pip FILE]   by buildah, on a base that debootstrap makes
    python scripts/image.py save FOLDER [NAME ...]   an archive of each for docker load, and images.env with their digests
    python scripts/image.py check     the server's as deploy/ runs it: its user, no capabilities, a read-only root, no network

NAME: server, triton (on the server's), redis, proxy, prometheus; all where none is named.
Standard library only. It needs Debian's buildah, debootstrap, util-linux; everything is written
under .services/image/. The base is Debian 12 with its own Python 3.11, not
python:3.11-slim-bookworm: what is shown is that the Dockerfile builds and how its image behaves.
Images are for this machine's processor: for aarch64 run this on such a machine.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".services" / "image"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("python3", "python3-venv", "python-is-python3", "libpython3.11", "ca-certificates")
BASE, IMAGE = "localhost/debian-python", "localhost/residency"
IMAGES = {"server": IMAGE} | {
    name: f"{IMAGE}-{name}" for name in ("triton", "redis", "proxy", "prometheus")
}
"""Name -> tag; all but the server's are targets of deploy/Dockerfile."""
START_SECONDS = 120
MODEL = """
from pathlib import Path
from residency.models import artefact
from residency.models.adapters import Lora, method_of
from residency.models.base import BaseModelSettings, resolve
from residency.tasks.card import Card, Label
card = Card(name="ner", family="spans", labels=(Label(name="drug"), Label(name="disease")))
base = resolve(BaseModelSettings(id="bundled:tiny-encoder"))
model = method_of(Lora(r=2)).attach(artefact.fresh(base, card)).eval()
artefact.save(Path("/data/ner"), model, base, card, Lora(r=2), "synthetic")
"""
ASK = """
import json, urllib.request
key = open("/data/serve/key").read().strip()
headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
body = json.dumps({"text": "Bệnh nhân ho khan, được điều trị bằng metformin 500mg."}).encode()
with urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8080/extract", body, headers), timeout=60) as found:
    print(found.status, sorted(json.load(found)))
"""


def main() -> None:
    """Build, or check."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = ("build", "save", "check", "inside")
    options.add_argument("verb", choices=verbs, metavar="build|save|check")
    options.add_argument("names", nargs="*", help="of images; of save the folder first")
    options.add_argument(
        "--mount",
        action="append",
        default=[],
        help="a folder with packages that pip reads during the build",
    )
    options.add_argument("--pip", type=Path, help="pip's settings during the build: a pip.conf")
    options.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    for program in ("buildah", "debootstrap", "unshare", "setpriv"):
        if not shutil.which(program):
            sys.exit(
                f"image: {program} is not installed; on Debian: apt-get install buildah "
                "debootstrap util-linux."
            )
    if os.getuid():
        sys.exit("image: only root can do this.")
    folder = given.names.pop(0) if given.verb == "save" and given.names else ""
    names = given.names or list(IMAGES)
    if unknown := sorted(set(names) - set(IMAGES)):
        sys.exit(f"image: {unknown[0]}: is no image; there is: {', '.join(IMAGES)}.")
    if given.verb == "build":
        build(names, given.mount, given.pip)
    elif given.verb == "save":
        save(Path(folder or sys.exit("image: save: name a folder.")), names)
    elif given.verb == "check":
        check()
    else:
        inside(given.root)


def buildah(*arguments: str) -> str:
    """Its standard output; ends the program where it fails."""
    store = [
        "--storage-driver",
        "vfs",
        "--root",
        str(FOLDER / "store"),
        "--runroot",
        str(FOLDER / "run"),
    ]
    done = subprocess.run(
        ["buildah", *store, *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(
            f"image: buildah {arguments[0]} failed ({done.returncode}); its own words are above."
        )
    return done.stdout.strip()


def based() -> None:
    """The base, where there is none yet."""
    system = FOLDER / "debian"
    if (FOLDER / "based").exists():
        return
    shutil.rmtree(system, ignore_errors=True)
    system.mkdir(parents=True)
    debootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    if subprocess.run(
        [*debootstrap, "bookworm", str(system), MIRROR], stdout=subprocess.DEVNULL, check=False
    ).returncode:
        sys.exit(f"image: debootstrap failed; {system}/debootstrap/debootstrap.log says why.")
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(system), "/")
    buildah("config", "--env", f"PATH={os.defpath}:/usr/local/bin:/usr/sbin:/sbin", container)
    buildah("commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(system)
    (FOLDER / "based").touch()


def build(names: Sequence[str], mounts: Sequence[str], pip: Path | None) -> None:
    """Images, in the order in which they rest on each other."""
    based()
    shared = [f"{folder}:{folder}:ro" for folder in mounts]
    shared += [f"{pip.resolve()}:/etc/pip.conf:ro"] if pip else []
    how = ["--quiet", "--format", "docker", "--isolation", "chroot", "--network", "host"]
    how += [part for volume in shared for part in ("--volume", volume)]
    for name in sorted(names, key=list(IMAGES).index):
        begun = time.monotonic()
        bases = {"PYTHON": BASE} if name == "server" else {"DEBIAN": BASE, "SERVER": IMAGE}
        more = [f"--build-arg={key}={value}" for key, value in bases.items()]
        more += [] if name == "server" else ["--file", str(ROOT / "deploy/Dockerfile")]
        more += [] if name == "server" else ["--target", name]
        print(buildah("bud", *how, *more, "--tag", IMAGES[name], str(ROOT)))
        print(f"image: {IMAGES[name]} was built in {time.monotonic() - begun:.0f} s", flush=True)


def save(folder: Path, names: Sequence[str]) -> None:
    """Archives that docker load and podman load read, and what compose is told: each image by the
    digest that names its content once it is loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in names:
        said = json.loads(buildah("inspect", "--type", "image", IMAGES[name]))
        archive = folder / f"{name}.tar"
        archive.unlink(missing_ok=True)
        buildah("push", "--quiet", IMAGES[name], f"docker-archive:{archive}:{IMAGES[name]}:latest")
        lines.append(f"{name.upper()}_IMAGE=sha256:{said['FromImageID']}\n")
    (folder / "images.env").write_text("".join(lines), "utf-8")


def check() -> None:
    """Run the image in namespaces of its own; exit status 1 where it is not as it should be."""
    said = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    container = buildah("from", IMAGE)
    try:
        (FOLDER / "config.json").write_text(json.dumps(said))
        root = buildah("mount", container)
        spaces = [
            "unshare",
            "--mount",
            "--pid",
            "--net",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        again = [sys.executable, str(Path(__file__).resolve()), "inside", "--root", root]
        status = subprocess.run([*spaces, *again], check=False).returncode
    finally:
        buildah("umount", container)
        buildah("rm", container)
    sys.exit(status)


class Inside:
    """The image with a read-only root, as its own user without any right, and without a network but
    loopback."""

    def __init__(self, root: Path) -> None:
        self.config: dict[str, Any] = json.loads((FOLDER / "config.json").read_text())
        self.root, self.data = root, FOLDER / "data"
        self.user, self.group = self.config["User"].split(":")
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        os.chown(self.data, int(self.user), int(self.group))
        for words in (
            ["--bind", root, root],
            ["-o", "remount,ro,bind", root],
            ["-t", "tmpfs", "-o", "nosuid,nodev,noexec,mode=1777", "tmpfs", root / "tmp"],
            ["--bind", self.data, root / "data"],
            ["-t", "proc", "proc", root / "proc"],
            ["--rbind", "/dev", root / "dev"],
        ):
            subprocess.run(["mount", *map(str, words)], check=True)
        with socket.socket() as any_one:  # loopback up
            fcntl.ioctl(any_one, 0x8914, struct.pack("16sh", b"lo", 1))

    def command(self, *words: str) -> list[str]:
        """A command in the image."""
        rights = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        who = ["setpriv", f"--reuid={self.user}", f"--regid={self.group}", *rights]
        return [
            "chroot",
            str(self.root),
            *who,
            "env",
            "-i",
            "-C",
            self.config["WorkingDir"],
            *self.config["Env"],
            *words,
        ]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Its exit status and words."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=300
        )


def inside(root: Path) -> None:
    """Each thing that the image promises, in turn."""
    image = Inside(root)
    who = image.run("cat", "/proc/self/status").stdout.splitlines()
    found = dict(line.split(":\t", 1) for line in who if ":\t" in line)
    rights = [found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
    expect(
        found["Uid"].split() == [image.user] * 4 and image.user != "0",
        f"it runs as user {image.user}, not as root",
    )
    expect(
        {int(one, 16) for one in rights} == {0} and found["NoNewPrivs"] == "1",
        "it has no capability, and gets none",
    )
    for folder in ("/", "/usr/local/lib/residency", "/etc"):
        expect(
            "Read-only" in image.run("touch", f"{folder}/x").stderr,
            f"{folder} cannot be written: read-only",
        )
    expect(not image.run("touch", "/data/x", "/tmp/x").returncode, "/data and /tmp can be written")
    health = image.config["Healthcheck"]["Test"][1:]
    expect(image.run(*health).returncode != 0, "the health check fails while no server runs")
    made = image.run("python", "-c", MODEL)
    print(made.stderr[-500:] if made.returncode else "", end="", flush=True)
    expect(not made.returncode, "a model is made with what the image holds")
    serve(image, health)


def serve(image: Inside, health: Sequence[str]) -> None:
    """The server, from its start to its end in order."""
    begun = time.monotonic()
    server = subprocess.Popen(
        image.command(*image.config["Entrypoint"], "serve", "ner"), stdout=subprocess.DEVNULL
    )
    try:
        while (
            image.run(*health).returncode
            and time.monotonic() - begun < START_SECONDS
            and server.poll() is None
        ):
            time.sleep(0.5)
        expect(
            not image.run(*health).returncode,
            f"the health check passes {time.monotonic() - begun:.0f} s after the start",
        )
        answer = image.run("python", "-c", ASK)
        expect(
            answer.stdout.startswith("200 "),
            f"/extract answers: {answer.stdout.strip() or answer.stderr[-300:]}",
        )
        server.send_signal(getattr(signal, image.config.get("StopSignal", "SIGTERM")))
        expect(server.wait(60) == 0, "it ends in order")
        expect(image.run(*health).returncode != 0, "the health check fails again")
    finally:
        if server.poll() is None:
            server.kill()


def expect(good: bool, what: str) -> None:
    """Say it; end where it does not hold."""
    print(f"image: {'ok' if good else 'NOT SO'}: {what}", flush=True)
    if not good:
        fail()


def fail() -> NoReturn:
    """The end."""
    sys.exit(1)


if __name__ == "__main__":
    main()
