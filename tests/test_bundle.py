"""A bundle for a machine without a network: what was bundled, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from residency.core.errors import GateRefused, UserError
from residency.workflows.bundle import verify
from test_repository import load


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a list of parts that needs no program."""
    module = load("bundle")
    monkeypatch.setattr(module, "parts", lambda bundle: (bundle / "sbom.cdx.json").touch())
    return module


@pytest.fixture
def bundle(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of a wheel that is no more than a name, and a base."""

    def wheels(folder: Path, extras: str) -> None:
        folder.mkdir(parents=True)
        for name in ("residency-0.1.0-py3-none-any.whl", "other_one-2.0-py3-none-any.whl"):
            with zipfile.ZipFile(folder / name, "w") as file:
                file.writestr("a", extras)

    (tmp_path / "home/bases/e5-small").mkdir(parents=True)
    (tmp_path / "home/bases/e5-small/config.json").write_text("{}")
    monkeypatch.setenv("RESIDENCY_HOME", str(tmp_path / "home"))

    def run(*words: str) -> None:
        """Of the script of images no more than the files."""
        if words[2] == "build":
            assert words[3:] == ("--mount", "/a", "--mount", "/b", "--pip", "/p.conf")
        if words[2] == "save":
            Path(words[3]).mkdir()
            (Path(words[3]) / "server.tar").write_bytes(b"image")

    monkeypatch.setattr(script, "wheels", wheels)
    monkeypatch.setattr(script, "run", run)
    more = ["--extras", "deid", "--mount", "/a", "--mount", "/b", "--pip", "/p.conf"]
    monkeypatch.setattr(sys, "argv", ["bundle.py", str(tmp_path / "made"), *more])
    script.main()
    return tmp_path / "made"


def test_a_bundle_is_what_was_bundled_for_us_and_for_sha256sum(bundle: Path) -> None:
    count, digest = verify(bundle)
    done = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"],
        cwd=bundle,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == count
    assert count == sum(path.is_file() for path in bundle.rglob("*")) - 1
    told = subprocess.run(
        ["sha256sum", bundle / "SHA256SUMS"], capture_output=True, text=True, check=True
    )
    assert told.stdout.split()[0] == digest
    assert (bundle / "bases/e5-small/config.json").is_file()
    (bundle / ".venv").mkdir()
    (bundle / ".venv/made").touch()  # what is installed there is no fault
    assert verify(bundle) == (count, digest)


def test_every_wheel_is_required_by_its_hash(bundle: Path) -> None:
    lines = (bundle / "requirements.txt").read_text("utf-8").splitlines()
    sums = dict(
        reversed(line.split("  "))
        for line in (bundle / "SHA256SUMS").read_text("utf-8").splitlines()
    )
    assert lines == [
        f"other_one==2.0 --hash=sha256:{sums['wheels/other_one-2.0-py3-none-any.whl']}",
        f"residency[deid]==0.1.0 --hash=sha256:{sums['wheels/residency-0.1.0-py3-none-any.whl']}",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda root: (root / "deploy/compose.yaml").write_text("x"),
            "deploy/compose.yaml was changed",
        ),
        (lambda root: (root / "requirements.txt").unlink(), "requirements.txt is missing"),
        (
            lambda root: (root / "images/server.tar").write_bytes(b"x"),
            "images/server.tar was changed",
        ),
        (lambda root: (root / "wheels/more.whl").touch(), "wheels/more.whl was added"),
        (lambda root: (root / "bases/e5-small/model.bin").touch(), "model.bin was added"),
    ],
)
def test_what_was_changed_removed_or_added_is_refused(
    bundle: Path, change: object, said: str
) -> None:
    change(bundle)  # type: ignore[operator]
    with pytest.raises(GateRefused, match=said):
        verify(bundle)


def test_a_folder_that_is_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no bundle"):
        verify(tmp_path)
    (tmp_path / "SHA256SUMS").write_text("not a sum\n")
    with pytest.raises(UserError, match="SHA256SUMS:1"):
        verify(tmp_path)


def test_a_bundle_that_cannot_be_made_leaves_nothing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bundle.py", str(tmp_path / "made"), "--extras", "none"])
    monkeypatch.setattr(script, "run", lambda *_: sys.exit("bundle: pip ended with 1."))
    with pytest.raises(SystemExit):
        script.main()
    assert list(tmp_path.iterdir()) == []
