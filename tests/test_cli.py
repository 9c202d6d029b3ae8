"""What a user meets at the command line: help that costs nothing, one sentence for each mistake,
exit codes that mean something."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from residency import __version__, cli
from residency.cli import missing
from residency.core.errors import GateRefused, UserError

ROOT = Path(__file__).resolve().parents[1]
VERBS = ("demo", "init", "check", "run", "predict", "eval", "schema")


def main(
    *arguments: str, code: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """``residency ARGUMENTS`` in a process of its own, which says at its end what it had to load."""
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('LOADED', *sorted({name.split('.')[0] for name in "
        "sys.modules})))\n"
        f"{code}\nfrom residency.cli import main\nmain()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> object:
    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["residency", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return left.value.code or 0, out, err  # type: ignore[return-value]

    return called


def test_help_loads_nothing_heavy_and_names_every_verb() -> None:
    done = main("--help")
    assert done.returncode == 0 and done.stderr == ""
    said, _, loaded = done.stdout.partition("LOADED")
    heavy = {
        "torch",
        "transformers",
        "peft",
        "numpy",
        "matplotlib",
        "jinja2",
        "pydantic",
        "yaml",
        "rich",
        "msgspec",
    }
    assert heavy & set(loaded.split()) == set()
    assert all(f"\n  {verb} " in said for verb in VERBS)
    assert "..." not in said.partition("Options:")[2], "a verb's line says all it has to say"


def test_the_help_lists_each_verb_under_the_file_that_holds_it() -> None:
    from typer.main import get_command

    from residency.cli.shared import SECTIONS

    listed = {verb: title for title, verbs in SECTIONS.items() for verb in verbs.split()}
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    assert sorted(listed) == sorted(commands)
    for verb, title in listed.items():
        inner = list(getattr(commands[verb], "commands", {"": commands[verb]}).values())
        assert {one.callback.__module__ for one in inner} == {f"residency.cli.{title}"}, verb


def test_no_arguments_mean_help_and_the_version_is_one_line(call) -> None:  # type: ignore[no-untyped-def]
    code, out, err = call()
    assert (code, err) == (0, "") and out.startswith("Usage: residency ")
    assert call("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(call, verb: str) -> None:  # type: ignore[no-untyped-def]
    code, out, err = call(verb, "--help")
    assert (code, err) == (0, "") and out.startswith(f"Usage: residency {verb}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["run", "--bogus"],
            "No such option: --bogus (Possible options: --runs); see residency run --help.",
        ),
        (["run"], "Missing argument 'RECIPE'; see residency run --help."),
        (["rnu", "x"], "No such command 'rnu'"),
        (["predict", "run"], "Missing option '--input'"),
        (["schema", "extra"], " (extra); see residency schema --help."),
    ],
)
def test_wrong_arguments_are_one_sentence_and_exit_code_1_for_2_means_refused(
    call, arguments, sentence
) -> None:  # type: ignore[no-untyped-def]
    code, out, err = call(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("residency: ") and sentence in err and err.count("\n") == 1
    assert "--help." in err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("x: is wrong."), 1, "residency: x: is wrong.\n"),
        (GateRefused("x: is refused."), 2, "residency: x: is refused.\n"),
        (KeyboardInterrupt(), 130, "residency: interrupted; the same command goes on from here.\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            1,
            "residency: torch is not installed; residency schema needs it: pip install "
            "'residency[train]'.\n",
        ),
    ],
)
def test_exit_codes(call, monkeypatch, raised: BaseException, code: int, said: str) -> None:  # type: ignore[no-untyped-def]
    from residency import recipe

    def fail() -> None:
        raise raised

    monkeypatch.setattr(recipe, "json_schema", fail)
    assert call("schema") == (code, "", said)


BLOCK = """
from residency.cli.missing import MODULES
absent = {name for extra in %r.split() for name in MODULES[extra].split()}
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *more):
        return None if name.split(".")[0] in absent else self.finder.find_spec(name, *more)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
EVERY = " ".join(missing.MODULES)


@pytest.mark.parametrize(
    ("verb", "lacking", "extras"),
    [
        ("demo", EVERY, "train,deid,ingest"),
        ("deid ho/recipe.yaml", EVERY, "deid,ingest"),
        ("extract ho/recipe.yaml", EVERY, "ingest"),
        ("pubmed --file a.xml", EVERY, "ingest"),
        ("pubmed some[mesh] --email a@b.example", EVERY, "ingest"),
        ("serve exported", EVERY, "train,deid,serve"),
        ("backup ho --out ho.backup", EVERY, "deid"),
        ("plan trained.yaml", EVERY, "train"),
        ("run trained.yaml", "train", "train"),
    ],
)
def test_a_verb_whose_extra_is_missing_says_which_in_one_sentence(
    call,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    lacking: str,
    extras: str,
) -> None:
    monkeypatch.setenv("RESIDENCY_KEY", "5" * 64)
    monkeypatch.chdir(tmp_path)
    assert call("init", "ho", "--hospital", "vi")[0] == 0
    (tmp_path / "a.xml").write_text("<PubmedArticleSet/>")
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported/onnx.json").write_text("{}")
    span = {"start": 0, "end": 3, "label": "symptom"}
    rows = [{"id": str(n), "text": f"ho khan {n}", "entities": [span]} for n in range(40)]
    (tmp_path / "n.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "trained.yaml").write_text(
        "schema: 1\nname: t\nbase: bundled:tiny-encoder\ntasks: [{card: ner, data: n}]\n"
        "data: {n: {format: jsonl, path: n.jsonl, lang: vi, profile: synthetic}}\n"
    )
    done = main(*verb.split(), code=BLOCK % lacking, cwd=tmp_path)
    assert "Traceback" not in done.stderr, done.stderr[-800:]
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "not installed" in done.stderr
    assert f"'residency[{extras}]'" in done.stderr.replace(chr(34), "'"), done.stderr


def imported() -> set[str]:
    """Modules of others that the package imports, anywhere."""
    found = set()
    for path in (ROOT / "src/residency").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {one.name.split(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - {"residency"}


def test_the_extra_of_every_module_that_is_imported_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = {name.split(".")[0] for names in missing.MODULES.values() for name in names.split()}
    bringing = packages_distributions()

    def brought(module: str, requirements: list[str]) -> bool:
        names = {canonicalize_name(Requirement(one).name) for one in requirements}
        return bool(names & {canonicalize_name(one) for one in bringing.get(module, ())})

    others = imported()
    ours = {one for one in others if brought(one, project["dependencies"])}
    # come with what is always there, or with Triton alone
    by_others = {"markupsafe", "pydantic_core", "one", "many", "triton_python_backend_utils"}
    asked_for = {"presidio_analyzer", "spacy", "tldextract", "lm_eval"}  # say so themselves
    assert others - ours - named - by_others - asked_for == set()
    come_along = {"cryptography", "huggingface_hub", "starlette"}  # of PyJWT, transformers, fastapi
    for extra, names in missing.MODULES.items():
        for name in names.split():
            if name in bringing and (extra == "deid" or name not in come_along):
                assert brought(name, extras[extra]), f"{name} is not in {extra}"


def test_our_own_faults_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from residency import recipe

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(recipe, "json_schema", fail)
    monkeypatch.setattr(sys, "argv", ["residency", "schema"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_schema_prints_json(call) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = call("schema")
    assert code == 0 and json.loads(out)["title"] == "Residency recipe"


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    program = f"{sys.executable} -c 'from residency.cli import main; main()' schema | head -c 1"
    done = subprocess.run(
        program,
        shell=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{", "")


def test_init_says_what_it_wrote_and_never_overwrites(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = (
        tmp_path
        / "my-project-with-a-name-that-is-far-longer-than-a-terminal-is-wide-and-must-not-be-broken"
    )
    code, out, err = call("init", str(folder))
    assert (code, err) == (0, "")
    assert f"wrote {folder / 'recipe.yaml'}\n" in out
    assert f"residency check {folder / 'recipe.yaml'}\n" in out
    code, out, err = call("init", str(folder))
    assert (code, out) == (1, "") and "is there already" in err


@pytest.mark.parametrize("override", ["lang", "epochs"])
def test_the_demo_takes_only_key_and_value(call, tmp_path: Path, override: str) -> None:  # type: ignore[no-untyped-def]
    code, _, err = call("demo", override, "--folder", str(tmp_path))
    assert code == 1 and f"{override}: is not an override; write key=value" in err


def test_the_demo_names_its_languages(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = call("demo", "lang=fr", "--folder", str(tmp_path))
    assert code == 1 and "vi" in err and "zh" in err and err.count("\n") == 1
