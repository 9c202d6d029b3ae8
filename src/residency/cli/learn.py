"""Verbs of learning: from labelled records to a measured model, and what is asked of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from residency.cli.shared import Overrides, RecipePath, RunPath, Runs, app, say, terminal, tracking
from residency.core.errors import GateRefused, UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from residency.core.run_folder import Run
    from residency.core.types import DataSummary, RunFacts
    from residency.recipe import Recipe


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="lang=vi (default), zh or en; changes to the recipe.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--folder", help="Where records, recipe and runs go.")
    ] = Path("demo"),
) -> None:
    """From an invented hospital's database to two measured models.

    Extraction, de-identification, split, LoRA, evaluation and report, for a model that marks
    entities; then one that answers questions. With the bundled models: no network, no GPU, a few
    minutes.
    """
    import os

    from residency.cli.hospital import deid
    from residency.evals.report import answers_table
    from residency.recipe import Recipe
    from residency.workflows.finished import finished_facts
    from residency.workflows.init import demo_key, write_demo, write_demo_questions

    console = terminal()
    changes = list(overrides or [])
    langs = [text for text in changes if text.startswith("lang=")]
    lang = langs[-1].removeprefix("lang=") if langs else "vi"
    others = [text for text in changes if text not in langs]
    hospital = write_demo(folder, lang)
    say(
        console,
        f"An invented hospital ({lang}), its database full of names, and a recipe are in "
        f"{hospital.parent}/.",
    )
    os.environ.setdefault("RESIDENCY_KEY", demo_key(folder))
    deid(hospital)
    recipe = Recipe.load(hospital, others)
    if recipe.label is not None:
        _rehearse_labelling(recipe, console)
    finished = _run(recipe, folder / "runs", console)
    asked = Recipe.load(
        write_demo_questions(folder, lang),
        [text for text in others if not text.startswith("data.")],
    )
    say(console, "\nNow a model that answers: invented questions, the bundled causal model.")
    answering = _run(asked, folder / "runs", console)
    if (answers := answers_table(finished_facts(answering))) is not None:
        say(console, "\nTwo questions that it had not seen, before and after:\n")
        console.print(answers)
    say(
        console,
        "\nNext, on your own data:\n"
        "  residency init my-project                write a commented recipe, and folders to fill\n"
        "  residency check my-project/recipe.yaml   read all data, report every problem\n"
        f"  residency predict {finished.folder} --input notes.jsonl --output answers.jsonl\n"
        f"  residency chat {answering.folder}",
    )


def _rehearse_labelling(recipe: Recipe, console: Console) -> None:
    from residency.workflows.label import rehearse

    agreement, page, outcome = rehearse(recipe)
    alpha, strict = agreement.alpha[0], agreement.pooled[0]
    by_majority = sum(one.how == "majority" for one in outcome.decisions)
    say(
        console,
        f"Three invented annotators labelled {agreement.notes} of them: alpha {alpha.value:.3f}, "
        f"strict F1 {strict.value:.3f}; "
        f"{by_majority} differences settled by majority, {len(outcome.open)} left to "
        f"decide.\nreport  {page}\n",
    )


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder.", show_default=False)
    ],
    hospital: Annotated[
        str | None,
        typer.Option(
            "--hospital",
            help="vi, zh or en: with an invented hospital's database to start from.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Begin a project: a commented recipe, and folders to fill. Overwrites nothing."""
    from residency.core.errors import allowed
    from residency.workflows.init import write_hospital_project, write_project

    if hospital not in (None, "vi", "zh", "en"):
        raise UserError(
            f"--hospital: {hospital!r} is not known; {allowed(('vi', 'zh', 'en'), hospital)}."
        )
    written = write_hospital_project(folder, hospital) if hospital else write_project(folder)
    console = terminal()
    for path in written:
        say(console, f"wrote {path}")
    if hospital:
        say(
            console,
            "Next: export RESIDENCY_KEY=$(openssl rand -hex 32), then: residency deid "
            f"{folder / 'recipe.yaml'}",
        )
        return
    say(
        console,
        f"Put your notes into {folder / 'data'} (its README.md says how), then: residency check "
        f"{folder / 'recipe.yaml'}",
    )


@app.command()
def check(recipe: RecipePath, overrides: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Read all data, report every problem.

    Trains nothing and writes nothing. Exits with 1 where something stands in the way of a run, with
    2 where what stands in two parts is to be refused.
    """
    from residency.recipe import Recipe
    from residency.workflows import check

    console = terminal()
    findings, summaries = check.check(Recipe.load(recipe, overrides or []), runs)
    for one in summaries:
        console.print(_data_table(one))
    errors = [finding for finding in findings if finding.level == "error"]
    for finding in findings:
        say(console, f"{finding.level}: {finding.message}")
    if errors:
        raise UserError(
            f"{recipe}: {len(errors)} problem{'s' if len(errors) > 1 else ''} to mend before a run."
        )
    if any(finding.level == "refused" for finding in findings):
        raise GateRefused(
            f"{recipe}: the split leaks; give each of these to one part, or accept it with "
            "data.NAME.leak=warn."
        )
    say(console, f"{recipe}: nothing stands in the way of residency run.")


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    explain: Annotated[
        bool, typer.Option("--explain", help="Only say which steps would run, and what changed.")
    ] = False,
    from_manifest: Annotated[
        bool,
        typer.Option(
            "--from-manifest",
            help="RECIPE is a finished run's folder: make it again, and say if it is the same.",
        ),
    ] = False,
) -> None:
    """Read, split, train, evaluate, report.

    What is done already is not done again; the same command goes on after an interruption.
    """
    from residency.recipe import Recipe
    from residency.workflows.run import compare_weights, recorded_recipe
    from residency.workflows.run import explain as explained

    console = terminal()
    if from_manifest:
        if runs.resolve() == recipe.resolve().parent:
            raise UserError(
                f"--runs: {runs} holds the run itself; name another folder for its repetition."
            )
        again = _run(recorded_recipe(recipe, overrides or []), runs, console)
        for words in compare_weights(recipe, again.folder):
            say(console, words)
        return
    loaded = Recipe.load(recipe, overrides or [])
    if explain:
        for step, words in explained(loaded, runs):
            say(console, f"{step:<20} {words}")
        return
    _run(loaded, runs, console)


@app.command()
def predict(
    run: RunPath,
    input: Annotated[
        Path,
        typer.Option(
            "--input", "-i", help="Notes: JSON lines, one note a line.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Answers: JSON lines, one per note.", show_default=False
        ),
    ],
    text_field: Annotated[str, typer.Option("--text", help="Field that holds the text.")] = "text",
    id_field: Annotated[
        str, typer.Option("--id", help="Field that holds the id; line numbers where it is missing.")
    ] = "id",
) -> None:
    """Answer a file of notes with a run's model.

    In constant memory; the output appears when it is whole, and an interrupted command goes on
    where it was cut off.
    """
    from residency.workflows.predict import predict_file

    console = terminal()
    _warn_of_erased(run)
    with tracking(console) as tracker:
        count = predict_file(run, input, output, text_field, id_field, tracker)
    say(console, f"{count} note{'' if count == 1 else 's'} answered in {output}")


@app.command(name="eval")
def evaluate(
    run: RunPath,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Changes to the run's recipe, e.g. evaluate.bootstrap=2000, or "
            "data.NAME.test=FILE "
            "(relative to the recipe's folder).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure a run's model again.

    With other settings or on other data; nothing is trained. The report goes into a folder of its
    own in the run.
    """
    from residency.workflows.evaluate import evaluate

    console = terminal()
    with tracking(console) as tracker:
        facts, folder = evaluate(run, overrides or [], tracker)
    _print_result(facts, folder, console)


@app.command()
def chat(
    run: RunPath,
    only: Annotated[
        str | None, typer.Option("--only", help="Talk to tuned or base alone.", show_default=False)
    ] = None,
    system: Annotated[
        str | None,
        typer.Option("--system", help="What the model is told first; the card's where not given."),
    ] = None,
) -> None:
    """Talk to a run's model, its base beside it.

    A question a line, from the terminal or a pipe; answers appear as they are written. Nothing is
    kept on disk.
    """
    from residency.core.errors import allowed
    from residency.workflows import chat as talks

    if only not in (None, "tuned", "base"):
        raise UserError(f"--only: {only!r} is not known; {allowed(('tuned', 'base'), only)}.")
    chosen = cast(Literal["tuned", "base"] | None, only)
    _warn_of_erased(run)
    talking = talks.sides(run, chosen, system)

    def say(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    if sys.stdin.isatty():
        say(talks.NOTICE + "\n")
    talks.converse(talking, _questions(), say)


def _warn_of_erased(run: Path) -> None:
    """One line where notes that the model learned from were erased."""
    from residency.models.erased import warning
    from residency.workflows.finished import artefact_of

    if words := warning(artefact_of(run)):
        print(f"residency: warning: {words}", file=sys.stderr)


def _questions() -> Iterator[str]:
    """Lines from the terminal, with a prompt, or from a pipe; until they end or nobody answers any
    more."""
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            sys.stdout.write("> ")
            sys.stdout.flush()
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            raise UserError("the questions are not UTF-8; convert them first.") from None
        if not line:
            return
        yield line


@app.command(name="import")
def import_(
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="llamafactory", show_default=False)],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Its training configuration (YAML).", show_default=False
        ),
    ],
    info: Annotated[
        Path | None,
        typer.Option(
            "--dataset-info", help="dataset_info.json, where it does not lie beside its data."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Another base, e.g. bundled:tiny-lm.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="A key that may be left out.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The recipe; beside FILE if not given.")
    ] = None,
) -> None:
    """Turn another tool's configuration into a recipe.

    Says of every key where it went, or that it has no counterpart. Overwrites nothing.
    """
    from residency.core.errors import allowed
    from residency.core.files import write_text
    from residency.workflows import llamafactory

    if tool != "llamafactory":
        raise UserError(f"import: {tool!r} is not known; {allowed(('llamafactory',), tool)}.")
    target = output or file.with_name(f"{file.stem}.residency.yaml")
    if target.exists():
        raise UserError(f"{target}: is there already; name another file with --output.")
    if target.parent.resolve() != file.parent.resolve():
        raise UserError(
            f"{target}: must lie beside {file.name}: the recipe's paths are relative to its folder."
        )
    recipe, fates = llamafactory.imported(file, info, base, tuple(ignore or ()))
    write_text(target, llamafactory.written(recipe))
    console = terminal()
    for fate in fates:
        say(console, f"{fate.key:<32} {fate.became}")
    say(console, f"\nwrote {target}; next: residency check {target}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from residency.recipe import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _run(recipe: Recipe, runs: Path, console: Console) -> Run:
    from residency.workflows.finished import finished_facts
    from residency.workflows.run import run

    with tracking(console) as tracker:
        finished = run(recipe, runs, tracker)
    if all(how == "cached" for how in finished.done.values()):
        say(console, "Nothing has changed since this run; its results stand.")
    _print_result(finished_facts(finished), finished.folder, console)
    return finished


def _print_result(facts: RunFacts, folder: Path, console: Console) -> None:
    from residency.evals.report import summary_table

    console.print()
    console.print(summary_table(facts))
    for caveat in facts.caveats:
        console.print(caveat, style="dim", highlight=False, markup=False)
    say(console, f"\nreport  {folder / 'report.html'}\nrun     {folder}")


def _data_table(summary: DataSummary) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        box=None,
        pad_edge=False,
        header_style="dim",
        title=f"data.{escape(summary.name)} ({summary.format}, {summary.profile})",
        title_justify="left",
    )
    for column in ("part", "notes", "groups", "characters", "labels"):
        table.add_column(column, justify="left" if column in ("part", "labels") else "right")
    for name, part in summary.parts.items():
        labels = ", ".join(f"{label} {count}" for label, count in part.labels.items())
        table.add_row(
            name, f"{part.notes:,}", f"{part.groups:,}", f"{part.characters:,}", escape(labels)
        )
    table.caption = "rows: " + ", ".join(
        f"{status} {sum(reasons.values())}" for status, reasons in summary.ledger.items()
    )
    return table
