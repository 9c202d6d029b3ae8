"""Verbs of the benchmark PromptCBLUE: a submission, and its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residency.cli.shared import app, say, terminal

benchmark = typer.Typer(name="cblue", help="Make and score a submission to PromptCBLUE.")
app.add_typer(benchmark)

Asked = Annotated[
    Path,
    typer.Argument(
        metavar="ROWS", help="Rows of the benchmark: input, target, type, ...", show_default=False
    ),
]


@benchmark.command()
def submit(
    rows: Asked,
    answers: Annotated[
        Path,
        typer.Argument(
            metavar="ANSWERS", help="What residency predict answered to them.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The submission.", show_default=False)
    ],
) -> None:
    """Put a model's answers into the layout of the benchmark.

    Predict the rows before with: residency predict RUN --text input --id sample_id.
    """
    from residency.corpus.promptcblue_rows import submission

    count = submission(rows, answers, output)
    say(terminal(), f"{count} row{'' if count == 1 else 's'} in {output}")


@benchmark.command()
def score(
    gold: Annotated[
        Path,
        typer.Argument(metavar="GOLD", help="Rows with the right targets.", show_default=False),
    ],
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS", help="The same rows with a model's targets.", show_default=False
        ),
    ],
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            help="official: its numbers and its oddities; safe: what cannot be read counts as "
            "wrong.",
        ),
    ] = "official",
) -> None:
    """Score predictions in the benchmark's layout, task by task, and over all 18 where all are
    there."""
    from rich.table import Table

    from residency.core.errors import UserError, allowed
    from residency.corpus import promptcblue_rows
    from residency.tasks.promptcblue_scores import TASKS, overall

    if mode not in ("official", "safe"):
        raise UserError(f"--mode: {mode!r} is not known; {allowed(('official', 'safe'), mode)}.")
    scored = promptcblue_rows.score(gold, predictions, "official" if mode == "official" else "safe")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("task", "metric", "score", "rows", "unreadable", "repaired"):
        table.add_column(name, justify="left" if name in ("task", "metric") else "right")
    for one in scored:
        table.add_row(
            one.task,
            one.metric,
            f"{one.score:.4f}",
            *map(str, (one.rows, one.unread, one.repaired)),
        )
    console = terminal()
    console.print(table)
    if len(scored) == len(TASKS):
        say(
            console,
            f"overall, mean of 18 tasks ({mode}): "
            f"{overall({one.task: one.score for one in scored}):.4f}",
        )
    else:
        say(console, f"{len(scored)} of 18 tasks; an overall score is over all of them.")
