"""Verbs of the hospital's records: from its database to notes that may be learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residency.cli.shared import Overrides, RecipePath, app, say, terminal, tracking

if TYPE_CHECKING:
    from rich.table import Table

    from residency.outcome import Outcome


@app.command()
def extract(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Take what is new at the hospital's source, encrypted.

    Needs the recipe's section extract and the zone's key in the environment. Notes lie in the identified zone and are removed after
    extract.keep days; residency deid does this first by itself.
    """
    from residency.extraction import extract
    from residency.recipe import Recipe

    console = terminal()
    loaded = Recipe.load(recipe, overrides or [])
    with tracking(console) as tracker:
        done = extract(loaded, tracker)
    not_taken = sum(done.skipped.values())
    say(
        console,
        f"{done.taken} new notes, {done.again} taken before, {not_taken} rows not taken; {done.held} notes in the zone",
    )


@app.command()
def deid(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Take what is new in the hospital's database and de-identify it.

    Needs the recipe's sections extract and deid, and the zone's key in the environment. Nothing is written outside the zone unless
    the release gate passes (else exit 2); an interrupted command goes on where it was cut off.
    """
    from residency.deidentify import deidentify
    from residency.recipe import Recipe

    console = terminal()
    loaded = Recipe.load(recipe, overrides or [])
    with tracking(console) as tracker:
        outcome = deidentify(loaded, tracker)
    console.print(_deid_table(outcome))
    if outcome.final and outcome.extracted is None:
        say(console, "the vault was destroyed, so nothing can be added; new notes need another name, zone and deid.out")
    say(console, f"{outcome.notes} notes ({outcome.new} new) in {outcome.out}, profile {outcome.profile}")


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
        "planted identifiers that came out", f"{gate.leaked} of {gate.canaries} (95 %: at most {gate.upper_bound:.1%})"
    )
    return table
