"""Verbs of handing a model on: to another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residency.cli.shared import RunPath, app, say, terminal, tracking

exports = typer.Typer(help="Write a run's model for another runtime.", rich_markup_mode=None)
app.add_typer(exports, name="export")


@exports.command()
def onnx(
    run: RunPath,
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder to write; must not hold anything.", show_default=False),
    ],
) -> None:
    """Write a run's encoder for OpenVINO and ONNX Runtime.

    The model in 32 bits, checked to equal torch's within 1e-4, and in bfloat16 and 8 bits where the
    score on the run's stop part (its test part where it has none) falls by at most 0.2 points.
    onnx.json in the folder holds the decisions and the hash of every file.
    """
    from residency.core.errors import ResidencyError
    from residency.export.onnx import export, exportable
    from residency.models.base import silent
    from residency.workflows.evaluate import examples_of_run
    from residency.workflows.finished import artefact_of

    console = terminal()
    artefact = artefact_of(run)
    exportable(artefact)
    try:
        # what is reported decides only where there is nothing else
        held_out = examples_of_run(run, "dev") or examples_of_run(run, "test")
    # an artefact alone, or a run whose data has moved: fewer bits cannot be measured, and are not
    # kept
    except ResidencyError:
        held_out = []
    with tracking(console) as tracker:
        tracker.start("exporting")
        with silent():
            made = export(artefact, out, held_out)
        tracker.end(f"logits within {made.equal_within:.1e} of torch's")
    for name, fewer in (("bfloat16", made.bf16), ("8 bits", made.int8)):
        say(console, f"{name}: {'kept' if fewer.kept else 'not kept'}; {fewer.reason}")
    say(console, f"\nexport  {out}")
