"""The real packages: a wheel and an sdist as an index takes them, in an empty environment; and a
bundle in a namespace without a network, where the whole demo runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        os.environ.get("RESIDENCY_SERVICES") != "all", reason="make test-services-all runs this"
    ),
]
ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("build==1.6.1", "twine==7.0.0")


def run(
    *command: str | Path, cwd: Path, code: int = 0, **more: str
) -> subprocess.CompletedProcess[str]:
    """A program without this test's own environment of Python."""
    left = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=cwd, env=left | more, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, (done.stdout + done.stderr)[-3000:]
    return done


def environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    return folder / "bin"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel and the sdist."""
    root = tmp_path_factory.mktemp("packages")
    tools = environment(root / "tools")
    run(tools / "pip", "install", "--quiet", *TOOLS, cwd=root)
    run(tools / "python", "-m", "build", "--outdir", root / "dist", ROOT, cwd=root)
    made = sorted((root / "dist").iterdir())
    run(tools / "twine", "check", "--strict", *made, cwd=root)
    return made


def test_an_index_takes_the_packages_and_they_hold_what_is_needed(packages: list[Path]) -> None:
    assert [path.name.rpartition("0.1.0")[2] for path in packages] == [
        "-py3-none-any.whl",
        ".tar.gz",
    ]
    assert all(path.stat().st_size < 100 * 2**20 for path in packages), "the most that PyPI takes"


@pytest.mark.parametrize("kind", [".whl", ".gz"])
def test_the_package_alone_says_which_extra_a_verb_lacks(
    packages: list[Path], tmp_path: Path, kind: str
) -> None:
    programs = environment(tmp_path / "empty")
    (package,) = (path for path in packages if path.suffix == kind)
    run(programs / "pip", "install", "--quiet", package, cwd=tmp_path)
    residency = programs / "residency"
    run(residency, "init", "ho", "--hospital", "vi", cwd=tmp_path)
    (tmp_path / "a.xml").write_text("<PubmedArticleSet/>")
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported/onnx.json").write_text("{}")
    for verb, extras in (
        ("demo", "train,deid,ingest"),
        ("deid ho/recipe.yaml", "deid,ingest"),
        ("serve exported", "train,deid,serve"),
        ("pubmed --file a.xml", "ingest"),
    ):
        done = run(residency, *verb.split(), cwd=tmp_path, code=1, RESIDENCY_KEY="5" * 64)
        assert done.stderr.count("\n") == 1, done.stderr
        assert f"'residency[{extras}]'" in done.stderr


def test_a_bundle_installs_and_runs_the_demo_without_a_network(tmp_path: Path) -> None:
    if not shutil.which("unshare") or os.getuid():
        pytest.skip("needs root and unshare")
    made = tmp_path / "bundle"
    run(sys.executable, ROOT / "scripts/bundle.py", made, "--no-images", cwd=tmp_path)
    alone = ("unshare", "--net", "--")
    refused = run(*alone, sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))",
                  cwd=made, code=1)  # fmt: skip
    assert "unreachable" in refused.stderr, "not even the machine itself is reached"
    run(*alone, "make", "install", f"PYTHON={sys.executable}", cwd=made, PIP_CONFIG_FILE=os.devnull)
    told = run(*alone, ".venv/bin/residency", "bundle", "verify", ".", cwd=made)
    assert "are those that were bundled" in told.stdout
    run(*alone, "make", "demo", f"PYTHON={sys.executable}", cwd=made, PIP_CONFIG_FILE=os.devnull)
    assert list(made.glob("demo/runs/*/report.html"))
