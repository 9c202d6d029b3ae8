"""What de-identification did, as figures and as a page: no text and no identifier."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from residency.core.page import Page, Section
from residency.core.types import Value
from residency.deid.release import Verdict
from residency.ingest.transfer import Extraction


class Outcome(Value, frozen=True):
    """What de-identification did; holds no text and no identifier."""

    profile: str
    out: str
    notes: int
    """Notes in the output, earlier ones included."""
    new: int
    refused: dict[str, int]
    """Reason -> notes, of this release."""
    replaced: dict[str, int]
    """Kind -> identifiers."""
    destroyed: dict[str, int]
    """Label -> spans that an identifier cut."""
    gate: Verdict
    made_at: datetime
    extracted: Extraction | None = None
    ledger: dict[str, int] = {}
    """What became of every row that was ever read: released, refused and not taken with the reason,
    waiting."""
    final: bool = False


def page(name: str, done: Outcome) -> Page:
    """A de-identification as a page without text or identifiers."""
    gate = done.gate
    lead = (
        f"{done.new:,} new notes were released; {done.out} holds {done.notes:,}."
        if gate.passed
        else f"The release gate said no: {'; '.join(gate.reasons)}. Nothing was released."
    )
    caveats = (
        ["With vault and key these notes can be linked to their patients: they stay personal data."]
        if done.profile != "anonymised"
        else []
    )
    if done.final:
        caveats.append(
            "The vault and all identified notes of the zone were destroyed: nothing can be added "
            "to this corpus."
        )

    def counted(found: dict[str, int]) -> tuple[tuple[str, str], ...]:
        return tuple((name.replace("_", " "), f"{count:,}") for name, count in found.items())

    sections = [
        Section(
            title="What became of every row",
            columns=("rows", "how many"),
            rows=counted(done.ledger),
            numeric=(1,),
        ),
        Section(
            title="What was replaced",
            columns=("kind of identifier", "how many"),
            rows=counted(done.replaced),
            numeric=(1,),
        ),
        Section(
            title="Notes that were refused",
            columns=("reason", "how many"),
            rows=counted(done.refused),
            numeric=(1,),
        ),
        Section(
            title="Labelled spans that an identifier cut",
            columns=("label", "how many"),
            rows=counted(done.destroyed),
            numeric=(1,),
        ),
        Section(
            title="The release gate",
            columns=("what", "found"),
            rows=tuple(gate_rows(gate)),
            numeric=(1,),
        ),
    ]
    return Page(
        title=f"De-identification: {name}",
        eyebrow=f"profile {done.profile}, {done.made_at:%Y-%m-%d %H:%M} UTC",
        lead=lead,
        facts=(
            ("released in all", f"{done.notes:,}"),
            ("new", f"{done.new:,}"),
            ("refused", f"{sum(done.refused.values()):,}"),
            ("gate", "passed" if gate.passed else "refused"),
        ),
        caveats=tuple(caveats),
        sections=tuple(section for section in sections if section.rows),
    )


def gate_rows(gate: Verdict) -> Iterator[tuple[str, str]]:
    """The gate's figures, by name."""
    for name in gate.__struct_fields__:
        value = getattr(gate, name)
        if isinstance(value, bool | int | float):
            shown = (
                f"{value:.2%}"
                if isinstance(value, float)
                else ("yes" if value else "no")
                if isinstance(value, bool)
                else f"{value:,}"
            )
            yield name.replace("_", " "), shown
