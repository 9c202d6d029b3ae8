"""The verbs of operation: a model watched in the field and tuned again; an archive of what there is
and back, and a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residency.cli.shared import Overrides, RunPath, Runs, app, argument, option, say, tracking

if TYPE_CHECKING:
    from residency.workflows.backup import Backup

KeyName = Annotated[
    str, typer.Option("--key", help="Environment variable with the key of the zone.")
]


@app.command()
def watch(run: RunPath, overrides: Overrides = None) -> None:
    """Compare a model in the field with its baseline, on labelled records.

    watch.gold=FILE names them. Says drift, no drift, or undecided and how many more records decide
    it; writes a page, JSON and Prometheus figures into RUN/watch. Exits with 2 on drift, else with
    0.
    """
    from residency.workflows.watch import watch as look

    with tracking() as tracker:
        found, page = look(run, overrides or (), tracker)
    say(found.why)
    for hint in found.hints:
        say(f"hint, no proof: {hint}")
    say(f"report  {page}")
    if found.verdict == "drift":
        raise typer.Exit(2)


@app.command()
def retune(
    run: RunPath,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    ledger: Annotated[Path, typer.Option("--models", help="Folder of the model ledger.")] = Path(
        "models"
    ),
    alias: Annotated[
        str, option("--alias", help="The name that is promoted; without it nothing is.")
    ] = "",
    due: Annotated[
        bool, typer.Option("--due", help="Also without drift, where watch.days have gone by.")
    ] = False,
) -> None:
    """Ask for more records on drift, tune again, promote what is better.

    The same command goes on from where it is: what was asked for, tuned or decided is not done
    again. Exits with 2 where labels or the new model are refused: the old one stays.
    """
    from residency.workflows.retune import retune as step

    with tracking() as tracker:
        say(step(run, overrides or (), runs, ledger, alias, due, tracker))


@app.command()
def backup(
    sources: Annotated[
        list[Path],
        argument(
            "PATH...",
            help="Folders and files: the project's, the zone, the model ledger, the server's.",
        ),
    ],
    out: Annotated[
        Path,
        option("--out", help="The archive to write; outside of what is backed up."),
    ],
    key: KeyName = "RESIDENCY_KEY",
) -> None:
    """Write folders into one encrypted archive, also while a server runs.

    Sealed under the zone's key, with a SHA-256 of every file; without the key nobody reads it. Runs
    that are being worked on are left out and named.
    """
    from residency.deid.vault import key_from
    from residency.workflows.backup import backup as make

    made = make(sources, out, key_from(key))
    _said(made)
    say(f"archive  {out}")


@app.command()
def restore(
    archive: Annotated[Path, argument("ARCHIVE", help="What residency backup wrote.")],
    into: Annotated[Path, option("--into", help="A new or an empty folder.")],
    key: KeyName = "RESIDENCY_KEY",
) -> None:
    """Put an archive of residency backup back into a new folder.

    Every byte is checked first to be what was backed up: exits with 2, and leaves nothing, where
    one is not. Check the audit log then with residency audit verify.
    """
    from residency.deid.vault import key_from
    from residency.workflows.backup import restore as put_back

    _said(put_back(archive, into, key_from(key)))
    say(f"restored  {into}")


def _said(made: Backup) -> None:
    for sentence in made.left_out:
        say(f"left out: {sentence}")
    say(f"{len(made.files):,} files, {made.size / 1e6:,.1f} MB, of {made.made:%Y-%m-%d %H:%M} UTC")


bundles = typer.Typer(help="A bundle for a machine without a network.", rich_markup_mode=None)


app.add_typer(bundles, name="bundle")


@bundles.command()
def verify(folder: Annotated[Path, argument("FOLDER", help="What make bundle made.")]) -> None:
    """Check every file of a bundle by its SHA-256.

    Exits with 2 where one is missing, was changed or was added. Compare the digest that is printed
    with the one that came by another way: it stands for all files.
    """
    from residency.workflows.bundle import SUMS
    from residency.workflows.bundle import verify as check

    count, digest = check(folder)
    say(f"{count:,} files are those that were bundled; {SUMS} {digest}")
