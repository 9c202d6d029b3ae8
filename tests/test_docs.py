"""The documentation says what the program does: links, commands, code blocks, the command line's
page."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
ACCOUNTS = sorted(ROOT.glob("benchmarks/results/*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ACCOUNTS])
needs_cli = pytest.mark.skipif(
    importlib.util.find_spec("residency.cli") is None, reason="needs residency.cli"
)


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """(where, code) of every fenced block in one of the languages."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for block in re.finditer(r"^```(\w+)\n(.*?)^```", text, flags=re.M | re.S):
            if block[1] in languages:
                yield (
                    f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 1}",
                    block[2],
                )


def commands() -> list[tuple[str, str]]:
    return [
        (where, line)
        for where, code in blocks("console", "sh")
        for line in code.splitlines()
        if line.strip()
    ]


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_page_of_the_guide_is_linked_from_its_index() -> None:
    index = (ROOT / "docs" / "guide" / "index.md").read_text("utf-8")
    pages = {page.name for page in (ROOT / "docs" / "guide").glob("*.md")} - {"index.md"}
    assert pages - set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == set()


def test_every_make_target_in_the_documentation_exists() -> None:
    targets = set(
        re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), flags=re.M)
    )
    targets |= {f"bench-{path.stem}" for path in (ROOT / "benchmarks").glob("[a-z]*.py")}
    named = {line.split()[1] for _, line in commands() if line.startswith("make ")}
    named |= {
        name
        for page in PAGES
        for name in re.findall(r"`make ([a-z-]+)[ `]", page.read_text("utf-8"))
    }
    assert named - targets <= {"bench-"}


def test_every_measurement_in_the_documentation_exists() -> None:
    measured = {
        (path.stem, name.strip("_").replace("_", "-"))
        for path in (ROOT / "benchmarks").glob("[a-z]*.py")
        for name in re.findall(r"^@measure(?:.|\n)*?\ndef (\w+)", path.read_text("utf-8"), re.M)
    }
    named = {
        found
        for page in PAGES
        for found in re.findall(
            r'(?:make |`)bench-([a-z]+) (?:ARGS="?)?([a-z][a-z-]*)', page.read_text("utf-8")
        )
    }
    assert len(named) > 20
    assert named - measured == set()


def test_the_page_of_benchmarks_is_short_and_every_account_is_linked_from_it() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    prose = re.sub(r"^```.*?^```|^\|.*?$", "", page, flags=re.M | re.S)
    assert len(prose.split()) <= 1500
    linked = set(re.findall(r"\.\./benchmarks/results/([\w-]+\.md)", page))
    assert {path.name for path in ACCOUNTS} - linked == set()


@needs_cli
def test_every_verb_in_the_documentation_exists() -> None:
    import typer.main

    from residency.cli import app

    command = typer.main.get_command(app)
    verbs = set(getattr(command, "commands", {}))
    used = {(where, line.split()[1]) for where, line in commands() if line.startswith("residency ")}
    assert used
    assert [f"{where}: {verb}" for where, verb in sorted(used) if verb not in verbs] == []


@pytest.mark.parametrize(("where", "code"), blocks("python"))
def test_python_blocks_are_python(where: str, code: str) -> None:
    compile(code, where, "exec")


@pytest.mark.parametrize(("where", "code"), blocks("yaml"))
def test_yaml_blocks_are_yaml(where: str, code: str) -> None:
    assert isinstance(yaml.safe_load(code), dict), where


@pytest.mark.parametrize(
    ("key", "module", "name"),
    [
        ("base", "residency.models.base", "BaseModelSettings"),
        ("data", "residency.corpus.load", "Data"),
        ("stages", "residency.train.stage", "Stage"),
    ],
)
def test_every_part_of_a_recipe_in_the_documentation_is_valid(
    key: str, module: str, name: str
) -> None:
    from residency.core.part import parse

    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")
    kind = getattr(importlib.import_module(module), name)
    shown = [
        (where, recipe[key])
        for where, code in blocks("yaml")
        if key in (recipe := yaml.safe_load(code))
    ]
    assert shown
    for where, value in shown:
        for part in value.values() if key == "data" else value if key == "stages" else [value]:
            parse(kind, {"id": part} if isinstance(part, str) else part, where)


def test_the_offsets_of_the_example_row_are_those_that_the_guide_defines() -> None:
    import json

    rows = [json.loads(line) for _, code in blocks("json") for line in code.splitlines()]
    assert rows
    for row in rows:
        for span in row["entities"]:
            assert row["text"][span["start"] : span["end"]] == span["text"]


@needs_cli
def test_the_page_of_the_command_line_is_what_the_program_prints() -> None:
    script = [sys.executable, "scripts/write_cli_reference.py", "--check"]
    checked = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_the_page_of_the_command_line_shows_every_verb_within_its_width(tmp_path: Path) -> None:
    (tmp_path / "residency").mkdir()
    (tmp_path / "residency" / "__init__.py").touch()
    (tmp_path / "residency" / "cli.py").write_text(
        "import typer\n"
        "app, label = typer.Typer(no_args_is_help=True), typer.Typer(help='Labels.')\n"
        "app.add_typer(label, name='label')\n"
        "@app.command()\ndef run(recipe: str) -> None:\n    '''Run "
        + "a long way "
        * 20
        + "home.'''\n"
        "@label.command()\ndef push() -> None:\n    '''Push.'''\n"
        "@app.command(hidden=True)\ndef secret() -> None:\n    '''Hidden.'''\n",
        "utf-8",
    )
    code = (
        "import sys; sys.path[:0] = ['scripts', sys.argv[1]]; import write_cli_reference as w; "
        "print(w.page(w.root_command()))"
    )
    written = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"FORCE_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
    ).stdout
    assert re.findall(r"^## (.*)$", written, flags=re.M) == [
        "residency",
        "residency run",
        "residency label",
        "residency label push",
    ]
    code_lines = [
        line
        for block in re.findall(r"```text\n(.*?)```", written, flags=re.S)
        for line in block.splitlines()
    ]
    assert max(map(len, code_lines)) <= 100
    assert "\x1b" not in written


def test_the_page_of_the_recipe_is_what_the_schema_says(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "write_recipe_reference.py"
    made = tmp_path / "recipe.md"
    subprocess.run([sys.executable, script, made], check=True, capture_output=True)
    page = (ROOT / "docs" / "reference" / "recipe.md").read_text("utf-8")
    assert page == made.read_text("utf-8"), "run make docs-help"


def test_the_reference_names_every_key_and_every_key_says_what_it_is() -> None:
    from residency.recipe import json_schema

    schema = json_schema()
    page = (ROOT / "docs" / "reference" / "recipe.md").read_text("utf-8")
    keys = {
        (part, key): value.get("description", "")
        for part, found in {"Recipe": schema, **schema["$defs"]}.items()
        for key, value in found.get("properties", {}).items()
    }
    assert len(keys) > 600
    assert [key for key, words in keys.items() if len(words) < 8] == []
    assert {key for _, key in keys if f"| `{key}` |" not in page} == set()
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= {
        re.sub(r"[^a-z0-9]+", "-", line.lower()).strip("-")
        for line in re.findall(r"^## (.+)$", page, flags=re.M)
    }
