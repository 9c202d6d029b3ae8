"""``residency extract``: what is new at the source, into the identified zone, with a page that
accounts for every row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from residency.core.errors import UserError
from residency.core.files import write_json
from residency.core.page import Page, Section, write_page
from residency.core.progress import Silent, Tracker
from residency.core.zones import locked, open_zone
from residency.deid.options import Deid
from residency.deid.vault import key_from
from residency.ingest.store import AMENDED, REMOVED, Store
from residency.ingest.transfer import Extraction, take
from residency.recipe import Recipe


def extract(recipe: Recipe, tracker: Tracker | None = None) -> Extraction:
    """Take what is new at the recipe's source into its identified zone.

    Raises ``UserError`` for missing settings, key or source, ``GateRefused`` for a zone that is
    open, a wrong key or a login that can write.
    """
    with open_store(recipe) as store:
        return extract_into(recipe, store, tracker or Silent())


def extract_into(recipe: Recipe, store: Store, tracker: Tracker) -> Extraction:
    """The same, into a store that is open; writes the report."""
    if recipe.extract is None:
        raise UserError(
            "extract: the recipe has no such section; it says where identified notes are."
        )
    done = take(recipe.extract, recipe.root, store, tracker)
    out = report_folder(recipe)
    write_json(out / f"{recipe.name}.extraction.json", done)
    write_page(page(recipe, done), out, f"{recipe.name}.extraction")
    return done


def report_folder(recipe: Recipe) -> Path:
    """Where reports of extraction and de-identification go: beside the released notes."""
    return (recipe.root / (recipe.deid or Deid()).out).parent


@contextmanager
def open_store(recipe: Recipe) -> Iterator[Store]:
    """The store of a recipe's notes in its identified zone."""
    settings = recipe.deid or Deid()
    key = key_from(settings.key)
    zone = open_zone(recipe.root / settings.zone)
    with locked(zone, recipe.name):
        store = Store.open(zone.root, recipe.name, key)
        try:
            yield store
        finally:
            store.close()


def page(recipe: Recipe, done: Extraction) -> Page:
    """The extraction as a page without text or identifiers."""
    assert recipe.extract is not None
    not_taken = sum(done.skipped.values())
    rows = done.taken + done.amended + done.again + not_taken
    reasons = sorted(set(done.ever) - {"taken", AMENDED, REMOVED})
    ever = sum(done.ever[reason] for reason in reasons)
    amended = done.ever.get(AMENDED, 0)
    caveats = []
    if done.candidates:
        caveats.append(
            f"{done.candidates:,} pairs of patients share a name and a birth date; write yes or no "
            f"beside each in {recipe.name}.candidates.csv in the zone."
        )
    if done.labels_left:
        caveats.append(
            f"{done.labels_left:,} labels were left out: their offsets count RTF or HTML, which "
            "was taken apart, or an edit cut them."
        )
    caveats += [f"{why}: {count:,}." for why, count in sorted(done.remarks.items())]
    if done.expired:
        caveats.append(
            f"{done.expired:,} notes were removed from the zone: older than extract.keep "
            f"({recipe.extract.keep} days)."
        )
    return Page(
        title=f"Extraction: {recipe.name}",
        eyebrow=f"source {recipe.extract.kind}, {done.at:%Y-%m-%d %H:%M} UTC",
        lead=f"{rows:,} rows were read: {done.taken:,} new notes taken, {done.amended:,} amended, "
        f"{done.again:,} taken before, {not_taken:,} not taken. {done.removed:,} notes that were "
        "taken before are removed.",
        facts=(
            ("rows read", f"{rows:,}"),
            ("new notes", f"{done.taken:,}"),
            ("not taken", f"{not_taken:,}"),
            ("notes in the zone", f"{done.held:,}"),
        ),
        caveats=tuple(caveats),
        sections=(
            Section(
                title="What became of the rows",
                columns=("rows", "now", "ever"),
                rows=(
                    ("taken", f"{done.taken:,}", f"{done.ever.get('taken', 0):,}"),
                    ("taken, a later version", f"{done.amended:,}", f"{amended:,}"),
                    ("taken before, read again", f"{done.again:,}", "-"),
                    *(
                        (
                            f"not taken: {reason}",
                            f"{done.skipped.get(reason, 0):,}",
                            f"{done.ever[reason]:,}",
                        )
                        for reason in reasons
                    ),
                    ("in all", f"{rows:,}", f"{done.ever.get('taken', 0) + amended + ever:,}"),
                ),
                numeric=(1, 2),
            ),
        ),
    )
