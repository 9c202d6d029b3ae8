"""The command line: one function a verb, one file a section of the help. Everything heavy is
imported inside the functions."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer

from residency import __version__
from residency.cli import (
    evaluation,
    knowledge,
    labelling,
    missing,
    models,
    operations,
    projects,
    records,
    serving,
    training,
)
from residency.cli.shared import app
from residency.core.errors import ResidencyError

__all__ = [
    "app",
    "evaluation",
    "knowledge",
    "labelling",
    "main",
    "models",
    "operations",
    "projects",
    "records",
    "serving",
    "training",
]

OF_FILES = frozenset(
    getattr(errno, name)
    for name in [
        "EACCES",
        "EPERM",
        "EROFS",
        "ENOSPC",
        "EDQUOT",
        "ENOTDIR",
        "EISDIR",
        "ENAMETOOLONG",
        "ELOOP",
        "EIO",
    ]
)
"""What the system says of files and folders that the user can mend."""

USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""What typer raises for wrong arguments; its other name is in a private module, or in click, by
typer's version."""


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """The console script: one sentence and an exit code for what the user can mend, a traceback
    only for our faults.

    0: done. 1: the user's input is at fault. 2: a gate refused. 130: interrupted.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not sys.warnoptions:
        warnings.simplefilter(
            "ignore"
        )  # what libraries tell their programmers; python -W default shows it
    try:
        code = app(prog_name="residency", standalone_mode=False)
        sys.stdout.flush()
    except ResidencyError as error:
        _stop(str(error), error.exit_code)
    except USAGE_ERROR as error:
        _stop(_usage(error))
    except ModuleNotFoundError as error:
        if not (sentence := missing.sentence(error.name, " ".join(sys.argv[1:2]))):
            raise
        _stop(sentence)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a folder that may not be read or written, wherever it is met
        if error.errno not in OF_FILES or not error.filename:
            raise
        _stop(f"{error.filename}: cannot be read or written ({error.strerror}).")
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted; the same command goes on from here.", 130)
    if code == 130:  # typer has caught the interruption itself
        _stop("interrupted; the same command goes on from here.", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _stop(sentence: str, code: int = 1) -> NoReturn:
    print(f"residency: {sentence}", file=sys.stderr)
    sys.exit(code)


def _usage(error: Exception) -> str:
    """What is wrong with the arguments, and where they are explained."""
    message: str = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    return f"{message.rstrip('.')}; see {context.command_path if context else 'residency'} --help."
