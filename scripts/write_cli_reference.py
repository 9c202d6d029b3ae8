"""Write ``docs/reference/cli.md`` from the program's own ``--help``, 100 columns wide and without
colours.

``--check`` writes nothing and ends with 1 where the page is out of date.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "cli.md"
WIDTH = 100
PLAIN = {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
COLOURING = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "CLICOLOR_FORCE", "TTY_COMPATIBLE")
INTRODUCTION = """# Command line

Every verb with its help, as the program prints it. This page is written by `make docs-help`: change the help in the
code, not here.
"""


def root_command() -> Any:
    """The program as a click command; the terminal is described before typer is imported, which
    reads it once."""
    os.environ.update(PLAIN)
    for name in COLOURING:
        os.environ.pop(name, None)
    typer = importlib.import_module("typer.main")
    return typer.get_command(importlib.import_module("residency.cli").app)


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The command and, below it, every visible verb in the order in which the help lists them."""
    yield path
    for name, verb in getattr(command, "commands", {}).items():
        if not verb.hidden:
            yield from paths(verb, (*path, name))


def help_text(command: Any, path: tuple[str, ...]) -> str:
    """What ``residency VERB --help`` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        command.main(
            [*path, "--help"],
            prog_name="residency",
            standalone_mode=False,
            terminal_width=WIDTH,
            max_content_width=WIDTH,
        )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())
    return "\n".join(line.rstrip() for line in plain.strip("\n").splitlines())


def page(command: Any) -> str:
    """The whole reference."""
    parts = [INTRODUCTION]
    for path in paths(command):
        name = " ".join(("residency", *path))
        parts.append(f"## {name}\n\n```text\n$ {name} --help\n{help_text(command, path)}\n```\n")
    return "\n".join(parts)


def main() -> None:
    """Write or check the page."""
    written = page(root_command())
    if "--check" in sys.argv[1:]:
        if not PAGE.is_file() or PAGE.read_text("utf-8") != written:
            sys.exit(f"{PAGE.relative_to(ROOT)} is out of date: run `make docs-help`.")
        return
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(written, "utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {written.count(chr(10))} lines")


if __name__ == "__main__":
    main()
