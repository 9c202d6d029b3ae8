"""Verbs of records: which part they are in, and where a patient's have gone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residency.cli.shared import Overrides, app, say, terminal, tracking

if TYPE_CHECKING:
    from rich.table import Table

    from residency.corpus.splitfile import SplitFile
    from residency.workflows.patients.trace import Found

PatientId = Annotated[
    str,
    typer.Argument(
        metavar="PATIENT",
        help="The hospital's id, where the zone's vault and key are at hand, or the group of the "
        "notes; - reads it from standard "
        "input, so that it stands in no list of commands.",
        show_default=False,
    ),
]
Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATH]...",
        help="Recipes, runs, files of notes, or folders that hold them; . if not given.",
        show_default=False,
    ),
]


@app.command()
def split(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe (YAML); with --verify a split file.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to write to; split/ beside the recipe if not given.",
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Prove that the split of a file (NAME.split.json) still holds."
        ),
    ] = False,
) -> None:
    """Deal the notes out to train, dev and test, and prove it.

    Patients, equal texts, near-duplicates, derived notes and source documents stay together, and
    labels are equally common in all parts. Writes NAME.split.json and a one-page report; a run with
    the same recipe has the same split. With --verify nothing is written: exit 2 where a file has
    changed, or something stands in two parts.
    """
    from residency.core.errors import UserError
    from residency.corpus import splitfile
    from residency.recipe import Recipe
    from residency.workflows.split import split

    console = terminal()
    if verify:
        if overrides or output:
            raise UserError(
                "--verify: takes one split file and nothing else, e.g. residency split --verify "
                "split/notes.split.json."
            )
        held = splitfile.verify(recipe)
        say(
            console,
            f"{recipe}: holds ({len(held.split.parts):,} notes, digest {held.split.digest[:16]})",
        )
        return
    loaded = Recipe.load(recipe, overrides or [])
    folder = output or recipe.parent / "split"
    with tracking(console) as tracker:
        files = split(loaded, folder, tracker)
    for file in files:
        console.print(_split_table(file))
        for words in file.warnings:
            say(console, f"note: data.{file.name}: {words}.")
        say(console, f"{folder / (file.name + splitfile.SUFFIX)}  digest {file.split.digest[:16]}")
    say(console, f"{folder / 'report.html'}")


@app.command()
def fhir(
    tables: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Synthea's CSV tables, patients.csv among them.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the bundles, one file for each patient."),
    ] = Path("fhir"),
) -> None:
    """Write Synthea's tables as FHIR R4 bundles.

    Data of format fhir asks questions about such bundles; card fhir answers them with references.
    """
    from residency.ingest.synthea import write_bundles

    say(terminal(), f"{write_bundles(tables, output):,} patients in {output}")


def _split_table(file: SplitFile) -> Table:
    """Notes and labels of the parts."""
    from rich.markup import escape
    from rich.table import Table

    from residency.core.types import PARTS

    table = Table(
        box=None,
        pad_edge=False,
        header_style="dim",
        title=f"data.{escape(file.name)}: {file.split.how}",
        title_justify="left",
    )
    sizes = Counter(file.split.parts.values())
    parts = [part for part in PARTS if sizes[part]]
    table.add_column("")
    for part in parts:
        table.add_column(part, justify="right")
    table.add_row("notes", *(f"{sizes[part]:,}" for part in parts))
    for label, counts in file.split.balance.items():
        table.add_row(escape(label), *(f"{counts.get(part, 0):,}" for part in parts))
    return table


@app.command()
def trace(
    patient: PatientId,
    paths: Folders = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print everything found as JSON, line numbers and ids too."),
    ] = False,
) -> None:
    """List everything that a patient reached.

    Rows of data files, parts of splits, predictions, reports, models and what was made from them,
    the secret in the vault. Changes nothing; the patient's id is neither printed nor kept.
    """
    import msgspec

    from residency.workflows.patients.search import find, identify
    from residency.workflows.patients.trace import trace as traced

    console = terminal()
    places = find(paths or [Path()])
    found = traced(identify(_asked(patient), places), places)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    if found:
        console.print(_trace_table(found))
    say(console, _counted(found) if found else "Nothing of this patient was found.")
    _without_key(places.zones, places.key)


@app.command()
def erase(
    patient: PatientId,
    paths: Folders = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without, only what would be done is shown.")
    ] = False,
) -> None:
    """Remove a patient from data and runs, and mark the models.

    Takes out the rows of data files, predictions and reports, the ids in splits and the secret in
    the vault; models that learned from the patient get a mark that is shown wherever they are used.
    The erasure log (erasures.jsonl, in the zone if there is one) keeps a keyed hash instead of the
    id, so the zone's key must be in the environment. An interrupted erase goes on.
    """
    from residency.deid.vault import key_from
    from residency.workflows.patients import erase as erasing
    from residency.workflows.patients.erasure_log import ErasureLog
    from residency.workflows.patients.search import find, identify
    from residency.workflows.patients.trace import trace as traced

    console = terminal()
    given = paths or [Path()]
    places = find(given)
    log = ErasureLog(erasing.log_of(places, given), key_from(places.key))
    whom = identify(_asked(patient), places)
    if not yes:
        found = traced(whom, places)
        if found:
            console.print(_trace_table(found))
            say(console, f"{_counted(found)} Nothing was changed: erase with --yes.")
        else:
            say(console, "Nothing of this patient is left.")
        return
    done = erasing.erase(whom, places, log)
    if done is None:
        before = log.finished_at(erasing.hashes_of(whom, log))
        say(
            console,
            "Nothing of this patient is left" + (f": erased {before}." if before else " here."),
        )
        return
    say(
        console,
        f"{done.rows:,} rows removed, {done.models} model{'' if done.models == 1 else 's'} marked, "
        f"{done.secrets} secret{'' if done.secrets == 1 else 's'} removed from the vault; recorded "
        f"in {done.log}",
    )


def _asked(patient: str) -> str:
    import sys

    return sys.stdin.readline().strip() if patient == "-" else patient


def _counted(found: list[Found]) -> str:
    models = sum(one.what in ("model", "derived model") for one in found)
    rows = sum(one.rows for one in found if one.lines)
    return (
        f"{rows:,} rows in {sum(bool(one.lines) for one in found)} files, {models} "
        f"model{'' if models == 1 else 's'}."
    )


def _without_key(zones: tuple[Path, ...], key: str) -> None:
    import os

    if zones and not os.environ.get(key):
        say(
            terminal(),
            f"The vault was not asked: {key} is not set, so PATIENT was taken for the group of the "
            "notes.",
        )


def _trace_table(found: list[Found]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("what", "where", "rows", "lines or notes"):
        table.add_column(column, justify="right" if column == "rows" else "left", overflow="fold")
    for one in found:
        some = [str(line) for line in one.lines[:6]]
        where = ", ".join(some) + (", ..." if len(one.lines) > 6 else "")
        detail = where or one.detail
        table.add_row(
            one.what,
            one.path,
            f"{one.rows:,}",
            detail + (" (remove by hand)" if one.by_hand else ""),
        )
    return table
