"""Clients of other makers, each in an environment of its own, ask the served model unchanged."""

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
FOLDER = ROOT / ".services" / "clients"
PYTHON = {
    "several": ("langchain-openai==1.7.4", "litellm==1.106.12", "instructor==1.17.0"),
    "llm": ("llm==0.36",),
}
NODE = "openai@6.49.0"


def test_clients_of_other_makers_are_answered() -> None:
    if not (npm := shutil.which("npm")):
        pytest.skip("needs npm, on Debian: apt-get install nodejs npm")
    if not (FOLDER / "made").exists():
        shutil.rmtree(FOLDER, ignore_errors=True)
        for name, packages in PYTHON.items():
            venv.create(FOLDER / name, with_pip=True)
            subprocess.run([FOLDER / name / "bin/pip", "install", "--quiet", *packages], check=True)
        (FOLDER / "node").mkdir()
        subprocess.run([npm, "install", "--silent", NODE], cwd=FOLDER / "node", check=True)
        (FOLDER / "made").touch()
    named = {
        "RESIDENCY_CLIENTS_PYTHON": os.pathsep.join(
            f"{FOLDER / name}/bin/python" for name in PYTHON
        ),
        "RESIDENCY_CLIENTS_NODE": str(FOLDER / "node"),
    }
    tests = [ROOT / "tests/serve/test_openai_fields.py", "-k", "unchanged"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests],
        env=os.environ | named,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-5000:]
