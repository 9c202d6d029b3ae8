"""Verbs of the hospital's records: from its database to notes that may be learned from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residency.cli.shared import Overrides, RecipePath, app, say, terminal, tracking
from residency.core.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from residency.workflows.deidentify import Outcome


@app.command()
def extract(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Take what is new at the hospital's source, encrypted.

    Needs the recipe's section extract and the zone's key in the environment. Notes lie in the
    identified zone and are removed after extract.keep days; residency deid does this first by
    itself.
    """
    from residency.recipe import Recipe
    from residency.workflows.extract import extract

    console = terminal()
    loaded = Recipe.load(recipe, overrides or [])
    with tracking(console) as tracker:
        done = extract(loaded, tracker)
    not_taken = sum(done.skipped.values())
    say(
        console,
        f"{done.taken} new notes, {done.again} taken before, {not_taken} rows not taken; "
        f"{done.held} notes in the zone",
    )


@app.command()
def deid(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Take what is new in the hospital's database and de-identify it.

    Needs the recipe's sections extract and deid, and the zone's key in the environment. Nothing is
    written outside the zone unless the release gate passes (else exit 2); an interrupted command
    goes on where it was cut off.
    """
    from residency.recipe import Recipe
    from residency.workflows.deidentify import deidentify

    console = terminal()
    loaded = Recipe.load(recipe, overrides or [])
    with tracking(console) as tracker:
        outcome = deidentify(loaded, tracker)
    console.print(_deid_table(outcome))
    if outcome.final and outcome.extracted is None:
        say(
            console,
            "the vault was destroyed, so nothing can be added; new notes need another name, zone "
            "and deid.out",
        )
    say(
        console,
        f"{outcome.notes} notes ({outcome.new} new) in {outcome.out}, profile {outcome.profile}",
    )


def _deid_table(outcome: Outcome) -> Table:
    """What was replaced, and what was not released."""
    from rich.table import Table

    table = Table("what", "how many", title="De-identification", title_justify="left")
    for kind, count in outcome.replaced.items():
        table.add_row(f"{kind.replace('_', ' ')} replaced", f"{count:,}")
    for reason, count in outcome.refused.items():
        table.add_row(f"refused: {reason}", f"{count:,}")
    table.add_row("labelled spans cut by an identifier", f"{sum(outcome.destroyed.values()):,}")
    gate = outcome.gate
    table.add_row(
        "planted identifiers that came out",
        f"{gate.leaked} of {gate.canaries} (95 %: at most {gate.upper_bound:.1%})",
    )
    return table


@app.command()
def pubmed(
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY",
            help='As at PubMed, e.g. "hepatocellular carcinoma[mesh]".',
            show_default=False,
        ),
    ] = "",
    out: Annotated[Path, typer.Option("--out", help="JSON lines of public notes.")] = Path(
        "data/abstracts.jsonl"
    ),
    most: Annotated[int, typer.Option("--most", help="The most relevant so many.")] = 1000,
    email: Annotated[
        str, typer.Option("--email", help="Yours, which NCBI wants to know.", show_default=False)
    ] = "",
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="An XML file of PubMed's instead of a search: no network.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Fetch abstracts of articles, or read them from PubMed's XML.

    Only the query, the address and, where the environment holds one, NCBI_API_KEY leave the
    machine. An interrupted command goes on where it was cut off. residency synth makes questions
    and answers of them.
    """
    from residency.workflows.literature import convert, fetch

    if bool(query) == (file is not None):
        raise UserError("pubmed: give either a query, or an exported file with --file.")
    console = terminal()
    if file is not None:
        count = convert(file, out)
    else:
        with tracking(console) as tracker:
            count = fetch(query, out, email, most, tracker)
    say(console, f"{count:,} abstracts in {out}")


@app.command()
def synth(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="ABSTRACTS", help="What residency pubmed wrote.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="JSON lines in the Alpaca format.")] = Path(
        "data/pairs.jsonl"
    ),
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="conclusions: questions that titles ask, answered by the authors' conclusions, no "
            "model; or a base, a run, or the "
            "address of a server with OpenAI's chat completions.",
        ),
    ] = "conclusions",
    model: Annotated[
        str, typer.Option("--model", help="With a server: its model.", show_default=False)
    ] = "",
    key: Annotated[
        str,
        typer.Option(
            "--key",
            help="With a server: the environment variable that holds its key.",
            show_default=False,
        ),
    ] = "",
    pairs: Annotated[
        int, typer.Option("--pairs", min=1, max=20, help="Asked of a model for each abstract.")
    ] = 3,
) -> None:
    """Make questions and answers of abstracts, for instruction tuning.

    What a model writes is kept only where it stands on its abstract: figures and words are looked
    for there, questions that need the text and repeated questions are left out, each reason is
    counted. Every pair says who wrote it.
    """
    from residency.workflows.literature import OWN, make_pairs

    console = terminal()
    with tracking(console) as tracker:
        made = make_pairs(source, out, by, model, key, pairs, tracker)
    for why, count in made.left.items():
        say(console, f"left out: {why}: {count:,}")
    what = "titles that ask a question" if by == OWN else "abstracts"
    say(
        console,
        f"{made.pairs:,} questions with answers from {made.asked:,} {what} ({made.abstracts:,} "
        f"abstracts) in {out}",
    )
