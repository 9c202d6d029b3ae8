"""Verbs of tuning: what a run will take, and models in another layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from residency.cli.shared import Overrides, RecipePath, Runs, app, say, terminal, tracking
from residency.core.errors import UserError, allowed

if TYPE_CHECKING:
    from rich.table import Table

    from residency.workflows.plan import Forecast, Suggestion

Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        help="A card by memory or name, e.g. 24GB or rtx4090; what is at hand if not given.",
    ),
]


@app.command()
def plan(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="A recipe (YAML).", show_default=False)
    ] = None,
    overrides: Overrides = None,
    gpu: Gpu = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Without a recipe: ner or qa.", show_default=False)
    ] = None,
) -> None:
    """Estimate memory, time and disk before a run.

    From the data and the base's configuration alone: its weights need not be here. Exits with 1
    where a stage does not fit. Without a recipe it says what kind of base and which method fit a
    card and a task.
    """
    from residency.recipe import Recipe
    from residency.workflows import plan

    console = terminal()
    if recipe is None or task is not None:
        if task not in ("ner", "qa"):
            raise UserError(
                f"--task: {task!r} is not known; {allowed(('ner', 'qa'), task)}; or give a recipe."
            )
        found = plan.suggestions(cast(Literal["ner", "qa"], task), gpu)
        console.print(_suggestion_table(found))
        say(console, plan.advice(found, gpu or "this machine"))
        return
    forecasts = plan.forecasts(Recipe.load(recipe, overrides or []), gpu)
    for one in forecasts:
        console.print(_forecast_table(one))
        say(console, one.verdict)
        if one.advice:
            say(console, one.advice)
    if not all(one.fits for one in forecasts):
        raise UserError(
            f"{recipe}: does not fit; change it as said above, or plan for another card with --gpu."
        )


@app.command()
def curve(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    sizes: Annotated[str, typer.Option("--sizes", help="Numbers of records.")] = "100,200,350,500",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each size.")] = 3,
    full: Annotated[
        bool, typer.Option(help="Also every weight trained, on the largest size.")
    ] = True,
) -> None:
    """Measure with fewer records: are these enough?

    Each point is an ordinary run, kept and found again. Says what 100 more records would bring,
    with its uncertainty.
    """
    from residency.recipe import Recipe
    from residency.workflows import curve as curves

    wanted = [int(text) for text in sizes.split(",") if text.strip().isdigit()]
    if not wanted or len(wanted) != len(sizes.split(",")) or min(wanted) < 1:
        raise UserError(
            f"--sizes: {sizes!r} is no list of numbers; write for example 100,200,350,500."
        )
    console = terminal()
    loaded = Recipe.load(recipe, overrides or [])
    with tracking(console) as tracker:
        found = curves.curve(loaded, runs, wanted, seeds, full, tracker)
    written = curves.write(found, runs / f"{loaded.name}-curve")
    say(console, f"\n{curves.answer(found)}\npage  {written}")


def _forecast_table(found: Forecast) -> Table:
    from rich.table import Table

    table = Table(
        box=None,
        pad_edge=False,
        show_header=False,
        title=f"{found.stage} on {found.device}",
        title_justify="left",
    )
    for row in found.facts:
        table.add_row(*row)
    return table


def _suggestion_table(found: list[Suggestion]) -> Table:
    from rich.table import Table

    table = Table(
        "base", "method", "peak memory", "fits", box=None, pad_edge=False, header_style="dim"
    )
    for one in found:
        table.add_row(one.base, one.method, f"{one.peak / 1e9:.1f} GB", "yes" if one.fits else "no")
    return table


models = typer.Typer(help="Models: what names point to, and other layouts.", rich_markup_mode=None)
app.add_typer(models, name="model")


@models.command(name="import")
def import_model(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="chatglm", show_default=False)],
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="The checkpoint as published.", show_default=False),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.", show_default=False)],
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle", help="Also read *.bin, which can run code when it is opened."
        ),
    ] = False,
    rope: Annotated[
        str | None,
        typer.Option("--rope", help="Long versions: base or positions.", show_default=False),
    ] = None,
) -> None:
    """Turn a ChatGLM2 or ChatGLM3 checkpoint into one that runs without its own code.

    The same weights under the names of transformers' Glm, shard by shard, with a fast tokenizer and
    a chat template.
    """
    from residency.models.chatglm import Rope, convert

    if kind != "chatglm":
        raise UserError(f"model import: {kind!r} is not known; {allowed(('chatglm',), kind)}.")
    if rope not in (None, "base", "positions"):
        raise UserError(f"--rope: {rope!r} is not known; {allowed(('base', 'positions'), rope)}.")
    written = convert(folder, out, allow_pickle, cast("Rope | None", rope))
    say(terminal(), f"wrote {written}; as a base: base={written}")
