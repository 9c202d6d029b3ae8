"""Verbs of measuring: systems beside each other, and how fast they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residency.cli.shared import Runs, app, say, terminal, tracking

if TYPE_CHECKING:
    from rich.table import Table

    from residency.core.types import RunFacts


@app.command()
def compare(
    systems: Annotated[
        list[str],
        typer.Argument(
            metavar="SYSTEM... [KEY=VALUE]...",
            help="Folders of runs, base, api:NAME (an entry of evaluate.apis); then changes to the first run's recipe.",
            show_default=False,
        ),
    ],
    runs: Runs = Path("runs"),
) -> None:
    """Compare systems on the same items.

    The test items of the first run are put to every system; every pair is tested, p adjusted for their number. The report
    shows scores with intervals, answers side by side, and what each system takes.
    """
    from residency.comparison import compare as compared

    console = terminal()
    named = [text for text in systems if "=" not in text]
    with tracking(console) as tracker:
        facts, folder = compared(named, [text for text in systems if "=" in text], runs, tracker)
    console.print()
    console.print(_systems(facts))
    console.print(_pairs(facts))
    say(console, f"\nreport  {folder / 'report.html'}")


def _systems(facts: RunFacts) -> Table:
    """What each system reaches and takes."""
    from rich.table import Table

    from residency.evals import formats, view

    metric = view.main_metric(facts.reports)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("system", overflow="fold")
    for name in (f"{formats.metric_title(metric)}\n[95 % interval]", "n", "trained", "training", "ms per\n100 tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for report, cost in zip(facts.reports, facts.costs, strict=True):
        score = next((one for one in report.scores if one.metric == metric), None)
        table.add_row(
            cost.system,
            f"{formats.number(score.value)} {formats.interval(score.low, score.high)}" if score else formats.NONE,
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
    table.add_column("\np, adjusted", justify="right", no_wrap=True)
    for test in (test for report in facts.reports for test in report.comparisons):
        shown = f"{formats.signed(test.difference)} {formats.interval(test.low, test.high)}"
        table.add_row(f"{test.b} minus {test.a} ({test.metric})", shown, formats.probability(test.p))
    return table
