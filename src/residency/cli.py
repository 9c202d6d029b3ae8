"""The command line: one verb a function; everything heavy is imported inside."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from residency import __version__
from residency.core.errors import ResidencyError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from residency.core.run import Run
    from residency.core.types import RunFacts

app = typer.Typer(
    name="residency",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From rows in a hospital database to a specialist model that answers on the hospital's own machine.",
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe (YAML).", show_default=False)]
RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, e.g. runs/demo-vi-3f9a1c20.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Changes to the recipe, e.g. stages[0].epochs=3.", show_default=False
    ),
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder in which runs are kept.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="lang=vi (default), zh or en; changes to the recipe.", show_default=False
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where records, recipe and runs go.")] = Path("demo"),
) -> None:
    """Learn from invented records: data, split, LoRA, evaluation, report. No network, no GPU, a few minutes."""
    from residency.recipe import Recipe
    from residency.starters import write_demo

    console = _console()
    changes = dict(text.partition("=")[::2] for text in overrides or [])
    lang = changes.pop("lang", "vi")
    recipe_path = write_demo(folder, lang)
    console.print(f"Invented records ({lang}) and a recipe are in {folder}/.", highlight=False, markup=False)
    recipe = Recipe.load(recipe_path, [f"{key}={value}" for key, value in changes.items()])
    finished = _run(recipe, folder / "runs", console)
    console.print(
        "\nNext, on your own data:\n"
        "  residency init my-project                      a commented recipe, and folders to fill\n"
        "  residency check my-project/recipe.yaml         reads all data, reports every problem\n"
        f"  residency predict {finished.folder} --input notes.jsonl --output out.jsonl",
        highlight=False,
        markup=False,
    )


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.", show_default=False)]) -> None:
    """Write a commented recipe, and data folders to fill."""
    from residency.starters import write_project

    written = write_project(folder)
    console = _console()
    for path in written:
        console.print(f"wrote {path}", highlight=False, markup=False)
    console.print(
        f"Put your notes into {folder / 'data'}, then: residency check {folder / 'recipe.yaml'}",
        highlight=False,
        markup=False,
    )


@app.command()
def check(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Read all data of a recipe and report every problem; trains nothing, writes nothing."""
    from residency import pipeline
    from residency.recipe import Recipe

    console = _console()
    findings, summaries = pipeline.check(Recipe.load(recipe, overrides or []))
    for one in summaries:
        console.print(_data_table(one))
    errors = [finding for finding in findings if finding.level == "error"]
    for finding in findings:
        console.print(f"{finding.level}: {finding.message}", highlight=False, markup=False, soft_wrap=True)
    if errors:
        raise UserError(f"{recipe}: {len(errors)} problem{'s' if len(errors) > 1 else ''} to mend before a run.")
    console.print(f"{recipe}: nothing stands in the way of residency run.", highlight=False, markup=False)


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    explain: Annotated[
        bool, typer.Option("--explain", help="Only say which steps would run, and what changed.")
    ] = False,
) -> None:
    """Run a recipe: read, split, train, evaluate, report. What is done already is not done again."""
    from residency import pipeline
    from residency.recipe import Recipe

    console = _console()
    loaded = Recipe.load(recipe, overrides or [])
    if explain:
        for step, words in pipeline.explain(loaded, runs):
            console.print(f"{step:<20} {words}", highlight=False, markup=False, soft_wrap=True)
        return
    _run(loaded, runs, console)


@app.command()
def predict(
    run: RunPath,
    input: Annotated[
        Path, typer.Option("--input", "-i", help="Notes: JSON lines with text (and id).", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Answers: JSON lines, one per note.", show_default=False)
    ],
    text_field: Annotated[str, typer.Option("--text", help="Field that holds the text.")] = "text",
    id_field: Annotated[
        str, typer.Option("--id", help="Field that holds the id; line numbers where it is missing.")
    ] = "id",
) -> None:
    """Answer a file of notes with a run's model, in constant memory; taken up again where it was cut off."""
    from residency.batch import predict_file

    console = _console()
    count = predict_file(run, input, output, text_field, id_field, _tracker(console))
    console.print(f"{count} notes answered in {output}", highlight=False, markup=False)


@app.command(name="eval")
def evaluate(run: RunPath, overrides: Overrides = None) -> None:
    """Measure a run's model again, with other settings or on other data: data.NAME.test=FILE."""
    from residency import pipeline

    console = _console()
    facts, folder = pipeline.evaluate(run, overrides or [], _tracker(console))
    _print_result(facts, folder, console)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from residency.recipe import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _run(recipe: Any, runs: Path, console: Console) -> Run:
    from residency import pipeline

    finished = pipeline.run(recipe, runs, _tracker(console))
    if all(how == "cached" for how in finished.done.values()):
        console.print("Nothing has changed since this run; its results stand.", highlight=False)
    _print_result(pipeline.finished_facts(finished), finished.folder, console)
    return finished


def _print_result(facts: RunFacts, folder: Path, console: Console) -> None:
    from residency.evals.report import summary_table

    console.print()
    console.print(summary_table(facts))
    for caveat in facts.caveats:
        console.print(caveat, style="dim", highlight=False, markup=False)
    console.print(
        f"\nreport  {folder / 'report.html'}\nrun     {folder}", highlight=False, markup=False, soft_wrap=True
    )


def _data_table(summary: Any) -> Any:
    from rich.table import Table

    table = Table(title=f"data.{summary.name} ({summary.format}, {summary.profile})", title_justify="left")
    for column in ("part", "notes", "groups", "characters", "labels"):
        table.add_column(column, justify="left" if column in ("part", "labels") else "right")
    for name, part in summary.parts.items():
        labels = ", ".join(f"{label} {count}" for label, count in part.labels.items())
        table.add_row(name, f"{part.notes:,}", f"{part.groups:,}", f"{part.characters:,}", labels)
    table.caption = "rows: " + ", ".join(
        f"{status} {sum(reasons.values())}" for status, reasons in summary.ledger.items()
    )
    return table


def _console() -> Console:
    from rich.console import Console

    return Console(soft_wrap=False)


def _tracker(console: Console) -> Any:
    from residency.core.progress import tracker

    return tracker(console)


def main() -> None:
    """The console script: one sentence and an exit code for what the user can mend, a traceback only for our faults."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        app()
    except ResidencyError as error:
        print(f"residency: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("residency: interrupted; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
