"""The repository around the code: pins, setup, targets."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PINS = [
    line
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("needs a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"scripts_{name}", ROOT / "scripts" / f"{name}.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The setup script, working on an empty copy of the project with everything in order."""
    module = load("setup")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    for function in (module.key, module.installed, module.venv_python, module.torch_pin):
        monkeypatch.setattr(function, "__defaults__", (tmp_path,))
    monkeypatch.setattr(module, "has_gpu", lambda: False)
    monkeypatch.setattr(module, "free_bytes", lambda root: 50 * module.GB)
    monkeypatch.setattr(module, "newer_python", lambda: "")
    return module


def ended(call: object, *arguments: object) -> str:
    with pytest.raises(SystemExit) as left:
        call(*arguments)  # type: ignore[operator]
    assert isinstance(left.value.code, str), "a message, which Python prints before it exits with 1"
    return left.value.code


# Pins


def test_every_line_of_the_constraints_is_one_exact_version() -> None:
    assert [
        line for line in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)
    ] == []
    names = [canonicalize_name(line.partition("==")[0]) for line in PINS]
    assert len(names) == len(set(names))


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    pins = {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in PINS)
    }
    for text in [
        *project["dependencies"],
        *extras["train"],
        *extras["deid"],
        *extras["ingest"],
        *extras["serve"],
        *extras["export"],
        *extras["mssql"],
        *extras["docs"],
        *extras["dev"],
    ]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_no_file_names_a_package_index_or_a_folder_of_one_machine() -> None:
    index = re.compile(
        r"https?://[^\s\"')]*(?:"
        + "|".join(("pypi", "pythonhosted", "download[.]pytorch", "/simple"))
        + r")"
        r"|--(?:extra-)?index-" + "url|--find-" + "links"
    )
    folder = re.compile(
        r"(?<![\w.$}])/(?:" + "|".join(("work", "root", "opt", "home", "Users", "mnt")) + r")/\w"
    )
    found = []
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # weights, images
        found += [
            f"{path.relative_to(ROOT)}: {match[0]}"
            for rule in (index, folder)
            for match in rule.finditer(text)
        ]
    assert found == []


# Setup


def test_setup_can_be_read_by_an_old_python_that_it_must_refuse() -> None:
    ast.parse((ROOT / "scripts" / "setup.py").read_text("utf-8"), feature_version=(3, 8))


def test_an_old_python_is_told_what_is_needed_and_how_to_get_it(setup: ModuleType) -> None:
    problem = setup.python_problem((3, 8, 18))
    assert "needs Python 3.11 or newer and this is 3.8.18" in problem
    assert "apt-get install" in problem and "make setup PYTHON=" in problem
    assert setup.python_problem((3, 11, 0)) == setup.python_problem((3, 13, 1)) == ""


def test_a_newer_python_on_the_machine_is_named(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "newer_python", lambda: "python3.12")
    assert "run `make setup PYTHON=python3.12`" in setup.python_problem((3, 9, 2))


def test_a_missing_venv_has_its_remedy(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "has_module", lambda name: name != "ensurepip")
    problem = setup.venv_problem()
    assert (
        problem.startswith("ensurepip is missing") and "`apt-get install python3-venv`" in problem
    )


def test_a_small_disk_is_named_in_gigabytes(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "free_bytes", lambda root: 1_200_000_000)
    assert (
        "1.2 GB are free" in setup.disk_problem()
        and "about 3 GB are needed" in setup.disk_problem()
    )


def test_everything_that_is_missing_is_said_at_once_and_nothing_is_made(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup, "has_module", lambda name: False)
    monkeypatch.setattr(setup, "free_bytes", lambda root: 0)
    monkeypatch.setattr(setup.python_problem, "__defaults__", ((3, 10, 1),))
    for arguments in ([], ["--check"]):
        said = ended(setup.main, arguments)
        assert said.startswith("setup cannot start, 3 things are in the way:")
        assert [
            word in said for word in ("3.10.1", "venv and ensurepip are missing", "0.0 GB are free")
        ] == [True] * 3
    assert not (tmp_path / ".venv").exists()


def test_check_says_what_would_be_downloaded_and_changes_nothing(
    setup: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        setup, "probe_torch", lambda python: setup.Torch("2.13.0+cpu", False, 191.8)
    )
    setup.main(["--check"])
    said = capsys.readouterr().out
    assert "torch 2.13.0+cpu: CPU build, 192 MB" in said and "minutes" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["constraints.txt", "pyproject.toml"]


def item(version: str, *requires: str) -> dict[str, object]:
    """What pip reports on torch, reduced to what is read."""
    return {
        "metadata": {"version": version, "requires_dist": list(requires)},
        "download_info": {"url": "nowhere:"},
    }


def test_the_build_of_torch_is_known_from_its_name_or_from_what_it_pulls_in(
    setup: ModuleType,
) -> None:
    assert not setup.torch_of(item("2.13.0+cpu", "filelock")).cuda
    assert setup.torch_of(item("2.13.0+cu130", "filelock")).cuda
    assert not setup.torch_of(item("2.13.0", "filelock", 'opt-einsum; extra == "opt-einsum"')).cuda
    assert setup.torch_of(item("2.13.0", "filelock", "nvidia-cudnn-cu13==9.1")).cuda


def test_a_requirement_for_another_machine_brings_no_cuda(setup: ModuleType) -> None:
    linux = 'nvidia-nccl-cu13==2.2; platform_system == "Linux" and platform_machine == "x86_64"'
    assert setup.pulls_cuda(linux, "Linux", "x86_64")
    assert not setup.pulls_cuda(linux, "Darwin", "arm64")
    assert not setup.pulls_cuda(linux, "Linux", "aarch64")


def test_a_cuda_build_for_a_machine_without_gpu_is_announced_with_the_way_out(
    setup: ModuleType,
) -> None:
    said = "\n".join(setup.torch_lines(setup.Torch("2.13.0", True, 900.0), gpu=False))
    assert (
        "CUDA build, 900 MB" in said
        and "No NVIDIA GPU was found" in said
        and "PIP_EXTRA_INDEX_URL" in said
    )
    assert "GPU was found" not in "\n".join(
        setup.torch_lines(setup.Torch("2.13.0", True, 900.0), gpu=True)
    )


def test_a_cpu_build_for_a_machine_with_gpu_is_announced(setup: ModuleType) -> None:
    assert "cannot use it" in "\n".join(
        setup.torch_lines(setup.Torch("2.13.0+cpu", False, 190.0), gpu=True)
    )


def test_an_installation_holds_until_pins_or_extras_change(
    setup: ModuleType, tmp_path: Path
) -> None:
    assert setup.missing_extras([]) == [
        "train",
        "quantise",
        "chatglm",
        "deid",
        "ingest",
        "tables",
        "serve",
        "export",
        "dev",
    ]
    (tmp_path / ".venv").mkdir()
    stamp = (
        f'{{"key": "{setup.key()}", "extras": ["train", "quantise", "chatglm", "deid", '
        '"ingest", "tables", "serve", "export", "dev", "vi"]}'
    )
    (tmp_path / ".venv" / "setup.json").write_text(stamp, "utf-8")
    assert setup.missing_extras([]) == setup.missing_extras(["vi"]) == []
    assert setup.missing_extras(["bench"]) == [
        "train",
        "quantise",
        "chatglm",
        "deid",
        "ingest",
        "tables",
        "serve",
        "export",
        "dev",
        "vi",
        "bench",
    ]
    with (tmp_path / "constraints.txt").open("a", encoding="utf-8") as file:
        file.write("another==1.0\n")
    assert setup.missing_extras([]) == [
        "train",
        "quantise",
        "chatglm",
        "deid",
        "ingest",
        "tables",
        "serve",
        "export",
        "dev",
        "vi",
    ], "a change of pins installs again, and loses no extra"


def test_an_unknown_extra_is_refused_with_the_known_ones(setup: ModuleType) -> None:
    assert ended(setup.refuse_unknown, ["bnch"]).startswith(
        "EXTRAS: bnch is not known; allowed: train, "
    )


def test_a_folder_that_is_no_environment_is_not_cleared(setup: ModuleType, tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "thesis.txt").touch()
    assert "something else stands there" in ended(setup.create_venv)
    assert (tmp_path / ".venv" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("NewConnectionError: Temporary failure in name resolution", "check the network"),
        ("SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'))", "PIP_CERT"),
        ("ERROR: No matching distribution found for torch==2.13.0", "lacks a pinned version"),
        ("something new", ".venv/setup.log"),
    ],
)
def test_a_failure_of_pip_has_its_remedy(setup: ModuleType, output: str, advice: str) -> None:
    assert advice in setup.remedy(output)


def test_a_failed_step_is_named_with_the_last_lines_and_the_remedy(setup: ModuleType) -> None:
    said = ended(setup.stop, "installing with pip", "do this", "\n".join(map(str, range(100))))
    assert said.splitlines()[0] == "88" and said.endswith(
        "setup failed while installing with pip: do this."
    )


def test_only_long_steps_of_pip_are_shown(setup: ModuleType) -> None:
    shown = setup.progress
    assert (
        shown("  Downloading torch-2.13.0-cp311-cp311-linux.whl (888.1 MB)\n")
        == "downloading torch-2.13.0 (888.1 MB)"
    )
    assert shown("Installing collected packages: a, b, c\n").startswith("unpacking 3 packages")
    assert (
        shown("  Downloading idna-3.20-py3-none-any.whl (71 kB)\n")
        == shown("Collecting numpy\n")
        == ""
    )


# Targets


def test_the_makefile_describes_every_target() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    described = re.findall(r"^([a-z-]+):.*## \S", text, flags=re.M)
    assert described == [
        "help",
        "setup",
        "demo",
        "test",
        "test-fast",
        "test-services",
        "test-services-all",
        "check",
        "bench",
        "bundle",
        "docs",
        "docs-help",
    ]
    assert set(re.findall(r"^([a-z-]+):(?!=)", text, flags=re.M)) == set(described)


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_alone_lists_the_targets_and_does_nothing() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    listed = subprocess.run(
        ["make"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[1] for line in listed.splitlines()][:3] == ["help", "setup", "demo"]


def test_ci_runs_what_the_readme_tells_people_to_run() -> None:
    ci = ROOT / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    steps = re.search(r"for step in ([a-z -]+);", ci.read_text("utf-8"))
    assert steps and steps[1].split() == ["setup", "check", "test", "test-services", "demo"]
    subprocess.run(["bash", "-n", str(ci)], check=True)
