"""Verbs of measuring: systems beside each other, and how fast they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residency.cli.shared import RunPath, Runs, app, say, terminal, tracking

if TYPE_CHECKING:
    from rich.table import Table

    from residency.core.types import RunFacts


@app.command()
def compare(
    systems: Annotated[
        list[str],
        typer.Argument(
            metavar="SYSTEM... [KEY=VALUE]...",
            help="Folders of runs, base, api:NAME (an entry of evaluate.apis); then changes to the "
            "first run's recipe.",
            show_default=False,
        ),
    ],
    runs: Runs = Path("runs"),
) -> None:
    """Compare systems on the same items.

    The test items of the first run are put to every system; every pair is tested, p corrected for
    their number. The report shows scores with intervals, answers side by side, and what each system
    takes.
    """
    from residency.workflows.compare import compare as compared

    console = terminal()
    named = [text for text in systems if "=" not in text]
    with tracking(console) as tracker:
        facts, folder = compared(named, [text for text in systems if "=" in text], runs, tracker)
    console.print()
    console.print(_systems(facts))
    console.print(_pairs(facts))
    say(console, f"\nreport  {folder / 'report.html'}")


@app.command()
def bench(
    run: RunPath,
    tokens: Annotated[
        int,
        typer.Option("--tokens", help="Length of an input, or of question and answer together."),
    ] = 1024,
    batches: Annotated[str, typer.Option("--batches", help="Batch sizes, with commas.")] = "1,4,16",
    times: Annotated[int, typer.Option("--times", help="Measurements at each batch size.")] = 10,
) -> None:
    """Measure how fast a run's model is.

    Latency, throughput and memory, beside the same weights in plain transformers, in turn. Writes
    bench/report.html and bench/bench.json below the run.
    """
    from rich.table import Table

    from residency.core.errors import UserError
    from residency.workflows.bench import bench as measured

    try:
        sizes = [int(size) for size in batches.split(",")]
    except ValueError:
        raise UserError(
            f"--batches: {batches!r} is no list of numbers; write for example 1,4,16."
        ) from None
    console = terminal()
    with tracking(console) as tracker:
        speed, path = measured(run, tokens, sizes, times, tracker)
    table = Table(
        "batch",
        "system",
        "p50, ms",
        "p95, ms",
        "first token, ms",
        "ms per 100 tokens",
        "tokens/s",
        box=None,
    )
    for one in speed.timings:
        first = f"{one.first_ms:.1f}" if one.first_ms else ""
        table.add_row(
            str(one.batch),
            one.system,
            f"{one.p50_ms:.1f}",
            f"{one.p95_ms:.1f}",
            first,
            f"{one.ms_per_100:.1f}",
            f"{one.tokens_per_second:,.0f}",
        )
    console.print(table)
    say(console, f"memory of a process that answers: {speed.memory_mb:,.0f} MB")
    say(console, f"\nreport  {path}")


def _systems(facts: RunFacts) -> Table:
    """What each system reaches and takes."""
    from rich.table import Table

    from residency.evals import formats, report_view

    metric = report_view.main_metric(facts.reports)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("system", overflow="fold")
    for name in (
        f"{formats.metric_title(metric)}\n[95 % interval]",
        "n",
        "trained",
        "training",
        "ms per\n100 tokens",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for report, cost in zip(facts.reports, facts.costs, strict=True):
        score = next((one for one in report.scores if one.metric == metric), None)
        table.add_row(
            cost.system,
            f"{formats.number(score.value)} {formats.interval(score.low, score.high)}"
            if score
            else formats.NONE,
            formats.count(report.n),
            formats.count(cost.trainable) if cost.trainable else formats.NONE,
            formats.duration(cost.train_seconds) if cost.train_seconds else formats.NONE,
            f"{cost.ms_per_100_tokens:.1f}" if cost.ms_per_100_tokens is not None else formats.NONE,
        )
    return table


def _pairs(facts: RunFacts) -> Table:
    """Which differences are real."""
    from rich.table import Table

    from residency.evals import formats

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("\npair", overflow="fold")
    table.add_column("\ndifference [95 % interval]", justify="right", no_wrap=True)
    table.add_column("\np, corrected", justify="right", no_wrap=True)
    for test in (test for report in facts.reports for test in report.comparisons):
        shown = f"{formats.signed(test.difference)} {formats.interval(test.low, test.high)}"
        table.add_row(
            f"{test.b} minus {test.a} ({test.metric})",
            shown,
            formats.probability(test.p if test.p_corrected is None else test.p_corrected),
        )
    return table
