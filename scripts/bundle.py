"""Everything that a machine without a network needs, in one folder: wheels, bases, documentation,
what deploys it, container images, checksums and a list of its parts.

    python scripts/bundle.py OUT [--extras NAMES] [--no-images | --mount FOLDER ... --pip FILE]

Standard library only; pip and its index are needed here, nothing at the hospital. Wheels are those of
constraints.txt for this machine's Python and processor: make a bundle on the kind of machine that it
is for (x86_64, aarch64). Images are archives that scripts/image.py makes of Debian's packages, without
a daemon; that takes root on Debian, and is left out with --no-images.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".services" / "bundle"
SBOM = "cyclonedx-bom==7.5.0"
EXTRAS = "train,deid,ingest,serve,export,tables"
TAKEN = ("README.md", "LICENSE", "CHANGELOG.md", "docs", "deploy", "recipes", "constraints.txt")
SUMS = "SHA256SUMS"
MAKEFILE = """# Without a network: make demo
PYTHON ?= python3
.PHONY: verify install demo
verify: ## every file is the one that was bundled
	sha256sum --check --quiet {sums}
install: verify ## into .venv, of the wheels in this folder alone
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --no-index -f wheels --require-hashes --requirement requirements.txt
demo: install ## invented records to a tuned model and its report
	RESIDENCY_HOME=$(CURDIR) .venv/bin/residency demo $(ARGS)
"""


def main() -> None:
    """Make the bundle."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("out", type=Path, help="a new folder")
    options.add_argument("--extras", default=EXTRAS, help=f"of the package; {EXTRAS}")
    options.add_argument("--no-images", action="store_true", help="without container images")
    options.add_argument("--mount", action="append", default=[], metavar="FOLDER",
                         help="with packages that pip reads while images are built")  # fmt: skip
    options.add_argument("--pip", metavar="FILE", help="pip's settings then: a pip.conf")
    given = options.parse_args()
    if os.geteuid() and not given.no_images:  # said now, and not when all else has been made
        sys.exit(
            "bundle: container images take root on Debian; run it so, or leave them out: "
            "make bundle ARGS=--no-images."
        )
    out: Path = given.out.resolve()
    if out.exists():
        sys.exit(f"bundle: {out} is there already; name a new folder.")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        wheels(partial / "wheels", given.extras)
        requirements(partial, given.extras)
        documents(partial)
        bases(partial / "bases")
        if not given.no_images:
            images(partial / "images", given.mount, given.pip)
        parts(partial)
        sums(partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:,.0f} MB; {SUMS} {digest(out / SUMS)}")
    print("Send the digest of SHA256SUMS by another way; there: residency bundle verify FOLDER.")


def wheels(folder: Path, extras: str) -> None:
    """The package's own, and those of all that it needs."""
    wanted = [f"{ROOT}[{extras}]"]
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(folder),
        "--constraint", str(ROOT / "constraints.txt"), *wanted)  # fmt: skip


def requirements(bundle: Path, extras: str) -> None:
    """Every wheel by its hash: pip takes nothing else."""
    lines = []
    for wheel in sorted((bundle / "wheels").glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        with_extras = f"{name}[{extras}]" if name == "residency" else name
        lines.append(f"{with_extras}=={version} --hash=sha256:{digest(wheel)}\n")
    (bundle / "requirements.txt").write_text("".join(lines), "utf-8")


def documents(bundle: Path) -> None:
    """What is read, and what deploys it."""
    for name in TAKEN:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, bundle / name)
        else:
            shutil.copyfile(ROOT / name, bundle / name)
    (bundle / "Makefile").write_text(MAKEFILE.format(sums=SUMS), "utf-8")


def bases(folder: Path) -> None:
    """Bases that were imported on this machine; the bundled ones are in the wheel."""
    home = Path(os.environ.get("RESIDENCY_HOME") or "~/.local/share/residency").expanduser()
    if (home / "bases").is_dir():
        shutil.copytree(home / "bases", folder)


def images(folder: Path, mounts: list[str], pip: str | None) -> None:
    """Archives of the images that deploy/compose.yaml names, and their digests."""
    given = [word for mount in mounts for word in ("--mount", mount)]
    given += ["--pip", pip] if pip else []
    for words in (["build", *given], ["save", str(folder)]):
        run(sys.executable, str(ROOT / "scripts" / "image.py"), *words)


def parts(bundle: Path) -> None:
    """The list of parts (SBOM) in CycloneDX's format."""
    program = TOOLS / "bin" / "cyclonedx-py"
    if not program.exists():
        venv.create(TOOLS, with_pip=True)
        run(str(TOOLS / "bin/pip"), "install", "--quiet", SBOM)
    run(str(program), "requirements", str(bundle / "requirements.txt"), "--output-reproducible",
        "--output-file", str(bundle / "sbom.cdx.json"))  # fmt: skip


def sums(bundle: Path) -> None:
    """The SHA-256 of every file, as sha256sum reads it."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    text = "".join(f"{digest(path)}  {path.relative_to(bundle)}\n" for path in files)
    (bundle / SUMS).write_text(text, "utf-8")


def digest(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(*command: str) -> None:
    """Run a program; its fault ends this one."""
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(f"bundle: {Path(command[0]).name} ended with {code}; its last lines say why.")


if __name__ == "__main__":
    main()
