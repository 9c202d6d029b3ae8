"""The verbs of training: what a run needs and takes, and the run."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from residency.cli.shared import (
    Overrides,
    RecipePath,
    Runs,
    app,
    argument,
    load,
    option,
    say,
    table,
    terminal,
    tracking,
)
from residency.core.errors import GateRefused, UserError, allowed

if TYPE_CHECKING:
    from rich.table import Table

    from residency.core.run_folder import Run
    from residency.core.types import DataSummary, RunFacts
    from residency.recipe import Recipe
    from residency.workflows.plan import Forecast, Suggestion

Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        help="A card by memory or name, e.g. 24GB or rtx4090; what is at hand if not given.",
    ),
]


@app.command()
def check(recipe: RecipePath, overrides: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Read all data, report every problem.

    Trains nothing and writes nothing. Exits with 1 where something stands in the way of a run, with
    2 where what stands in two parts is to be refused.
    """
    from residency.workflows import check

    findings, summaries = check.check(load(recipe, overrides), runs)
    for one in summaries:
        terminal().print(_data_table(one))
    errors = [finding for finding in findings if finding.level == "error"]
    for finding in findings:
        say(f"{finding.level}: {finding.message}")
    if errors:
        raise UserError(
            f"{recipe}: {len(errors)} problem{'s' if len(errors) > 1 else ''} to mend before a run."
        )
    if any(finding.level == "refused" for finding in findings):
        raise GateRefused(
            f"{recipe}: the split leaks; give each of these to one part, or accept it with "
            "data.NAME.leak=warn."
        )
    also = "".join(f" {quote(text)}" for text in overrides or ())
    say(
        f"{recipe}: nothing stands in the way of residency run.\n\n"
        f"Next: residency run {quote(str(recipe))}{also}"
    )


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
    from residency.workflows.run import compare_weights, recorded_recipe
    from residency.workflows.run import explain as explained

    if from_manifest:
        if runs.resolve() == recipe.resolve().parent:
            raise UserError(
                f"--runs: {runs} holds the run itself; name another folder for its repetition."
            )
        again = execute(recorded_recipe(recipe, overrides or []), runs)
        for words in compare_weights(recipe, again.folder):
            say(words)
        return
    loaded = load(recipe, overrides)
    if explain:
        for step, words in explained(loaded, runs):
            say(f"{step:<20} {words}")
        return
    execute(loaded, runs)


def execute(recipe: Recipe, runs: Path) -> Run:
    from residency.workflows.finished import finished_facts
    from residency.workflows.run import run
    from residency.workflows.steps import folder_of

    with tracking(folder_of(recipe, runs)) as tracker:
        finished = run(recipe, runs, tracker)
    if all(how == "cached" for how in finished.done.values()):
        say("Nothing has changed since this run; its results stand.")
    print_result(finished_facts(finished), finished.folder)
    return finished


def print_result(facts: RunFacts, folder: Path) -> None:
    from residency.evals.report import summary_table
    from residency.evals.verdicts import judgements

    terminal().print()
    terminal().print(summary_table(facts))
    for report in facts.reports:
        if report.failures and report.part != "safety":
            terminal().print(
                f"{report.task}, {report.system.name}: {report.failures:,} of {report.n:,} answers "
                "cannot be read and count as wrong.",
                highlight=False,
                markup=False,
            )
    for one in judgements(facts.reports):
        if one.words not in facts.caveats:
            terminal().print(one.words, highlight=False, markup=False)
    for caveat in facts.caveats:
        terminal().print(caveat, style="dim", highlight=False, markup=False)
    say(f"\nreport  {folder / 'report.html'}\nrun     {folder}")


def _data_table(summary: DataSummary) -> Table:
    from rich.markup import escape

    found = table(
        *("part", "notes", "groups", "characters", "labels"),
        right=("notes", "groups", "characters"),
        title=f"data.{escape(summary.name)} ({summary.format}, {summary.profile})",
    )
    for name, part in summary.parts.items():
        labels = ", ".join(f"{label} {count}" for label, count in part.labels.items())
        sizes = (f"{part.notes:,}", f"{part.groups:,}", f"{part.characters:,}")
        found.add_row(name, *sizes, escape(labels))
    counted = []
    for status, reasons in summary.ledger.items():
        told = ", ".join(f"{why} {count}" for why, count in reasons.items() if why)
        counted.append(f"{status} {sum(reasons.values())}" + (f" ({told})" if told else ""))
    found.caption = escape("rows: " + ", ".join(counted))
    return found


@app.command()
def plan(
    recipe: Annotated[Path | None, argument("[RECIPE]", help="A recipe (YAML).")] = None,
    overrides: Overrides = None,
    gpu: Gpu = None,
    task: Annotated[str | None, option("--task", help="Without a recipe: ner or qa.")] = None,
) -> None:
    """Estimate memory, time and disk before a run.

    From the data and the base's configuration alone: its weights need not be here. Exits with 1
    where a stage does not fit. What was measured is remembered: the same rows, settings and
    versions need no second look. Without a recipe it says what kind of base and which method fit a
    card and a task.
    """
    from residency.workflows import plan

    if recipe is None or task is not None:
        if task not in ("ner", "qa"):
            raise UserError(
                f"--task: {task!r} is not known; {allowed(('ner', 'qa'), task)}; or give a recipe."
            )
        found = plan.suggestions(cast(Literal["ner", "qa"], task), gpu)
        terminal().print(_suggestion_table(found))
        say(plan.advice(found, gpu or "this machine"))
        return
    with tracking() as tracker:
        forecasts = plan.forecasts(load(recipe, overrides), gpu, tracker, plan.remembered_in())
    for one in forecasts:
        terminal().print(_forecast_table(one))
        say(one.verdict)
        if one.advice:
            say(one.advice)
    if not all(one.fits for one in forecasts):
        raise UserError(
            f"{recipe}: does not fit; change it as said above, or plan for another card with --gpu."
        )


def _suggestion_table(found: list[Suggestion]) -> Table:
    listed = table("base", "method", "peak memory", "fits")
    for one in found:
        fits = "yes" if one.fits else "no"
        listed.add_row(one.base, one.method, f"{one.peak / 1e9:.1f} GB", fits)
    return listed


def _forecast_table(found: Forecast) -> Table:
    listed = table(title=f"{found.stage} on {found.device}")
    listed.show_header = False
    for row in found.facts:
        listed.add_row(*row)
    return listed


@app.command()
def tagger(
    out: Annotated[Path, option("--out", help="A new folder for the tagger.")],
    base: Annotated[
        str, typer.Option("--base", help="e5-small, or a folder like it.")
    ] = "e5-small",
    work: Annotated[
        Path | None,
        option("--work", help="Where training goes on if cut off; OUT.work if not given."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Of 16 pieces of notes.")] = 2400,
    seed: Annotated[int, typer.Option("--seed")] = 1,
    negatives: Annotated[
        Path | None,
        option(
            "--negatives",
            help="A folder with vi*.txt, zh*.txt, en*.txt: real text without identifiers, a line "
            "each.",
        ),
    ] = None,
    world: Annotated[
        Path | None,
        option("--world", help="A folder with notes to measure it on: marked ones, or a world."),
    ] = None,
    choose: Annotated[
        Path | None,
        option("--choose", help="Such a folder, to choose the thresholds on; none of --world."),
    ] = None,
) -> None:
    """Train the tagger of residency deid on invented notes.

    The base loses its upper layers and the words of other languages, learns where identifiers
    stand, and is written in 8 bits. Name the folder as deid.tagger. Downloads nothing.
    """
    from residency.workflows import train_tagger

    if out.exists():
        raise UserError(f"--out: {out} is there already; name a new folder.")
    for name, folder in (("negatives", negatives), ("world", world), ("choose", choose)):
        if folder and not folder.is_dir():  # said now, and not when hours have been trained
            raise UserError(f"--{name}: {folder} is no folder; name one with texts in it.")
    with tracking() as tracker:
        artefact = train_tagger.train(
            base,
            work or out.with_name(f"{out.name}.work"),
            steps=steps,
            seed=seed,
            negatives=negatives,
            tracker=tracker,
        )
        card = train_tagger.package(artefact, out, steps=steps, seed=seed)
    if choose:
        card = train_tagger.measure(out, choose, thresholds=True)
        say(f"masked from {card.mask}, reviewed from {card.review}")
    for one in train_tagger.measure(out, world).measured if world else card.measured:
        say(
            f"{one.lang}: recall {one.recall:.3f} at precision {one.precision:.3f}, rules alone "
            f"{one.rules:.3f} ({one.notes} notes)"
        )
    say(f"{out}  (deid.tagger: {out})")
