"""What every verb's module shares: the program itself, kinds of arguments, and how things are said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import Console

    from residency.core.progress import Tracker

VERBS = (
    "demo",
    "init",
    "extract",
    "deid",
    "label",
    "synth",
    "pubmed",
    "fhir",
    "split",
    "check",
    "plan",
    "run",
    "train",
    "eval",
    "predict",
    "chat",
    "compare",
    "curve",
    "bench",
    "review",
    "export",
    "serve",
    "model",
    "drift",
    "retune",
    "audit",
    "trace",
    "erase",
    "cblue",
    "import",
    "schema",
)
"""The order in which help lists verbs: that of the road; not all of them are there yet."""


class Road(TyperGroup):
    """Verbs in the order of the road, whichever module they live in."""

    def list_commands(self, ctx: object) -> list[str]:
        """Names of the verbs."""
        return sorted(
            self.commands, key=lambda name: VERBS.index(name) if name in VERBS else len(VERBS)
        )


app = typer.Typer(
    name="residency",
    cls=Road,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From rows in a hospital database to a specialist model that answers on the hospital's "
    "own machine.",
)

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML).", show_default=False)
]
RunPath = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run's folder, e.g. runs/demo-vi-3f9a1c20.", show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Changes to the recipe, e.g. stages[0].epochs=3.",
        show_default=False,
    ),
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder in which runs are kept.")]


def terminal() -> Console:
    """The terminal, or the pipe, that a verb writes to."""
    from rich.console import Console

    return Console()


def say(console: Console, text: str) -> None:
    """Print as it is: paths and commands are never wrapped, brackets never read as markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def tracking(console: Console) -> Iterator[Tracker]:
    """A progress bar on a terminal, plain lines elsewhere."""
    from residency.core.progress import tracker

    with tracker(console) as found:
        yield found
