"""De-identification of a text of which no patient is known: rules, dates, names and the tagger;
nothing is kept, not even the secret."""

from __future__ import annotations

from functools import cache

from residency.core.edits import Edits
from residency.core.types import Value
from residency.deid.dates import dates_of
from residency.deid.draws import new_secret
from residency.deid.engine import PLACEHOLDER, normal_form, replace_findings
from residency.deid.find import resolve
from residency.deid.options import Deid
from residency.deid.rules import rules_of
from residency.deid.surrogates import surrogates
from residency.deid.tagger import (
    PACKAGED,
    IdentifierTagger,
    ReviewedTagger,
    is_installed,
    read_card,
)
from residency.deid.view import View


class Replacement(Value, frozen=True):
    """What was replaced: offsets (code points) in the text that came and in the one that leaves."""

    start: int
    end: int
    kind: str
    new_start: int
    new_end: int


class ReplacedText(Value, frozen=True):
    """A text without what was found in it."""

    text: str
    replacements: tuple[Replacement, ...]


@cache
def unreviewed() -> ReviewedTagger | None:
    """The packaged tagger where nobody reviews: what would wait for a person is replaced too. None
    where its weights, or what reads them, are not on this machine.

    Raises ``UserError`` where a file of it was changed or is missing beside the others.
    """
    if not is_installed(PACKAGED):
        return None
    least = read_card(PACKAGED).review
    return ReviewedTagger(IdentifierTagger(), Deid(mask=least, review=least))


def finders() -> str:
    """What finds identifiers where no patient is known, as an answer says it."""
    return "rules and tagger" if unreviewed() else "rules alone"


def replace_identifiers(
    text: str, lang: str = "", tagger: ReviewedTagger | None = None
) -> ReplacedText:
    """A text with something invented in the place of what identifies, drawn anew for each call: two
    texts of one patient cannot be joined by it. What neither the rules nor the tagger (where one is
    given) know stays: a patient's own row finds more (``residency deid``).
    """
    before = normal_form(text)
    view = View(before.apply(text), lang)
    dates = dates_of(view)
    findings = resolve(rules_of(lang).search(view, dates))
    if tagger:
        findings, _ = tagger.add("", view.text, findings)
    drawn = surrogates(new_secret(), lang, frozenset())
    edits = replace_findings(view, dates, findings, drawn, Deid(unreadable_dates="replace"))
    assert edits is not None  # only a note may be refused
    kinds = {finding.start: finding.kind for finding in findings}
    moved, made = 0, []
    for piece in edits.pieces:  # a finding that is replaced by itself (90 years) has none
        start, end = _source(before, piece.start, piece.end)
        new = piece.start + moved
        made.append(Replacement(start, end, kinds[piece.start], new, new + len(piece.text)))
        moved += len(piece.text) - (piece.end - piece.start)
    return ReplacedText(text=edits.apply(view.text), replacements=tuple(made))


def warm() -> None:
    """Read the rules of every language and the tagger, so that no first text waits for them."""
    for lang in PLACEHOLDER:
        replace_identifiers("", lang, unreviewed())


def _source(before: Edits, start: int, end: int) -> tuple[int, int]:
    """Where a stretch of the normalised text came from; the signs around it too where it begins or
    ends within a composed one."""
    while (found := before.back(start, end)) is None:
        start, end = max(0, start - 1), min(before.target_length, end + 1)
    return found
