"""What the files of verbs share: the program, kinds of arguments, and how things are printed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from residency.core.progress import Tracker
    from residency.recipe import Recipe

SECTIONS = {
    "projects": "demo init import ui schema",
    "records": "extract deid synth pubmed fhir split trace erase",
    "knowledge": "graph kb risk",
    "labelling": "label",
    "training": "check plan run tagger",
    "evaluation": "eval report predict chat compare ratings study curve bench cblue",
    "serving": "export serve",
    "models": "model audit",
    "operations": "watch retune backup restore bundle",
}
"""The sections of the help, in the order of the road, and their verbs. The functions of a section's
verbs stand in the file of its name."""


class Road(TyperGroup):
    """Verbs in the order of the road, by section."""

    def list_commands(self, ctx: object) -> list[str]:
        """Names of the verbs."""
        return " ".join(SECTIONS.values()).split()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a list of verbs for each section."""
        for title, verbs in SECTIONS.items():
            found = [(name, self.commands[name].get_short_help_str(90)) for name in verbs.split()]
            with formatter.section(title.capitalize()):
                formatter.write_dl(found)


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


def group(words: str) -> typer.Typer:
    """Verbs under one name, with the help that ``app`` has."""
    return typer.Typer(
        help=words,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
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


def say(text: str) -> None:
    """Print as it is: paths and commands are never wrapped, brackets never read as markup."""
    terminal().print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def tracking(folder: Path | None = None) -> Iterator[Tracker]:
    """A progress bar on a terminal, plain lines elsewhere; ``folder``: the run's, in which others
    can follow it."""
    from residency.core.progress import tracker

    with tracker(terminal(), folder) as found:
        yield found


def load(recipe: Path, overrides: list[str] | None) -> Recipe:
    """The recipe of a file, with the changes of the command line."""
    from residency.recipe import Recipe

    return Recipe.load(recipe, overrides or [])


def option(*names: str, help: str, **more: Any) -> Any:
    """An option whose default says nothing that its help does not."""
    return typer.Option(*names, help=help, show_default=False, **more)


def argument(metavar: str, help: str) -> Any:
    """A positional argument."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


def table(*columns: str, right: Collection[str] = (), title: str | None = None) -> Table:
    """An empty table without a frame; the columns named in ``right`` hold figures."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="dim", title=title, title_justify="left")
    for name in columns:
        figures = name in right
        found.add_column(
            name, justify="right" if figures else "left", no_wrap=figures, overflow="fold"
        )
    return found
