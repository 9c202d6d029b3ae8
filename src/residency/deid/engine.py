"""From an identified note to one that is not: find, resolve, replace, verify. The only way to make
a ``Note`` of a ``RawNote``."""

from __future__ import annotations

import hmac
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Protocol
from unicodedata import normalize

from residency.core.edits import Edits, newlines, normalise
from residency.core.types import Note, RawNote, Span, Value
from residency.deid.ages import BIRTH_YEAR, years_of_birth
from residency.deid.dates import DateMention, dates_of, write, year_only
from residency.deid.find import UNDECIDED, Finding, Recogniser, resolve
from residency.deid.known import KnownFinder, known_finder
from residency.deid.options import Deid
from residency.deid.residual import BLANK, residue
from residency.deid.rules import rules_of
from residency.deid.surrogates import Surrogates, row_of, surrogates
from residency.deid.tagger import ReviewedTagger, Tagged
from residency.deid.view import View

DATE_KINDS = frozenset({"date", "birth_date"})
REFUSED_RESIDUAL = "an identifier of the patient is left after replacement"
REFUSED_BY_SECOND_CHECK = "the second residual check found"
"""And what: a kind and a form."""
REFUSED_DATE = "a date cannot be read"
REFUSED_EMPTY = "the note names no patient"
REFUSED_LONG = "the note is longer than a million characters"
LONGEST = 1_000_000


class DeidentifiedNote(Value, frozen=True):
    """A note that may be used, how it came about, and what of its labels was lost."""

    note: Note
    edits: Edits
    findings: tuple[Finding, ...]
    """What was replaced, by offsets in the text before (NFC, LF)."""
    destroyed: tuple[Span, ...] = ()
    """Labelled spans of which a replacement changed a letter; their quotes are empty."""
    doubts: tuple[Tagged, ...] = ()
    """Places that may identify somebody and were left, by offsets as ``findings``."""
    undecided: int = 0
    """Words left that may be a name or place of the row, or ordinary ones."""


class Refused(Value, frozen=True):
    """A note that is left out; the reason holds nothing of it."""

    id: str
    reason: str


class Secrets(Protocol):
    """What has a random secret for each patient, as the vault."""

    def secret(self, patient: str) -> bytes:
        """The same for the same patient."""


class Deidentifier:
    """De-identifies notes one by one; the same note gives the same result in every process that has
    the vault."""

    def __init__(
        self,
        settings: Deid,
        vault: Secrets,
        recognisers: Sequence[Recogniser] = (),
        tagger: ReviewedTagger | None = None,
    ) -> None:
        self.settings, self.vault, self.recognisers = settings, vault, tuple(recognisers)
        self.tagger = tagger

    def process(self, raw: RawNote) -> DeidentifiedNote | Refused:
        """The note without what identifies, or why not."""
        if not raw.patient:
            return Refused(raw.id, REFUSED_EMPTY)
        if len(raw.text) > LONGEST:
            return Refused(raw.id, REFUSED_LONG)
        before = normal_form(raw.text)
        view = View(before.apply(raw.text), raw.lang)
        dates = dates_of(view)
        secret = self.vault.secret(raw.patient)
        own = known_finder(raw.identifiers, raw.lang)
        drawn = surrogates(secret, raw.lang, own.keys, row_of(raw.identifiers, raw.fields))
        found = self.findings(view, dates, own)
        findings = resolve(one for one in found if one.by != UNDECIDED)
        doubts: tuple[Tagged, ...] = ()
        if self.tagger is not None:
            findings, doubts = self.tagger.add(raw.id, view.text, findings)
        edits = replace_findings(view, dates, findings, drawn, self.settings)
        if edits is None:
            return Refused(raw.id, REFUSED_DATE)
        result = edits.apply(view.text)
        if self.left(result, raw.lang, own):
            return Refused(raw.id, REFUSED_RESIDUAL)
        undecided = _undecided(found, findings, edits)
        if left := self.residue(blanked(result, edits, undecided), raw):
            return Refused(raw.id, f"{REFUSED_BY_SECOND_CHECK} {left}")
        whole = before.then(edits) if before.pieces else edits
        kept, destroyed = labels(whole, raw)
        note = Note(
            id=keyed(secret, f"note/{raw.id}"),
            text=result,
            profile=self.settings.profile,
            group=keyed(secret, "patient"),
            lang=raw.lang,
            kind=raw.kind,
            department=raw.department,
            written_at=self._when(raw.written_at, drawn),
            spans=kept,
        )
        made, unsure = tuple(findings), len(undecided)
        return DeidentifiedNote(note, whole, made, destroyed, doubts, unsure)

    def findings(self, view: View, dates: Sequence[DateMention], own: KnownFinder) -> list[Finding]:
        """What the row's identifiers, the rules and the plug-ins find."""
        found = [*own.search(view, dates), *rules_of(view.lang).search(view, dates)]
        for recogniser in self.recognisers:
            found += recogniser.find(view.text, view.lang)
        if self.settings.profile == "safe-harbor":
            found += years_of_birth(view, found)
        return found

    def left(self, result: str, lang: str, own: KnownFinder) -> bool:
        """Whether an identifier of the row is left in a text: the residual scan."""
        return any(True for _ in own.written(View(result, lang)))

    def residue(self, kept: str, raw: RawNote) -> str:
        """The kind and form of an identifier of the row that is left in what was kept of a note, by
        other means; nothing where none is."""
        return residue(kept, raw.identifiers, raw.lang)

    def _when(self, written: datetime | None, surrogates: Surrogates) -> datetime | None:
        if written is None:
            return None
        if self.settings.profile == "safe-harbor":
            return datetime(written.year, 1, 1)
        return datetime.combine(surrogates.shift(written.date()), written.timetz())


def labels(edits: Edits, raw: RawNote) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """(labelled spans whose letters and digits are what they were, by offsets in the text after;
    the rest, without a quote)."""
    held, cut = edits.project_spans(raw.text, raw.spans)
    lost, left = set(cut), iter(held)
    kept, destroyed = list[Span](), list[Span]()
    for span in raw.spans:
        moved = None if span in lost else next(left)
        before = raw.text[span.start : span.end]
        if moved and (before == moved.quote or _letters(before) == _letters(moved.quote)):
            kept.append(moved)
        else:
            destroyed.append(Span(start=span.start, end=span.end, label=span.label))
    return tuple(kept), tuple(destroyed)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, normalize("NFC", text)))


AGE = "90"
LONGEST_LIFE = 90
"""Years before the last date of a note from which on a year tells of an age over 89, and may not
stay under safe harbor (45 CFR 164.514(b)(2)(i)(C))."""
PLACEHOLDER = {"vi": "[ngày]", "zh": "[日期]", "en": "[date]"}


def replace_findings(
    view: View,
    dates: Sequence[DateMention],
    findings: Sequence[Finding],
    drawn: Surrogates,
    settings: Deid,
) -> Edits | None:
    """The edits that put something else in the place of each finding; None where a date cannot be
    read and the settings want such a note refused."""
    pieces, reading = [], drawn.read(view, dates, findings)
    oldest = max((one.value.year for one in dates if one.value), default=0) - LONGEST_LIFE
    for finding in findings:
        new: str | None
        if finding.by == BIRTH_YEAR:
            new = _placeholder(view.lang)
        elif finding.kind in DATE_KINDS:
            new = _new_date(view.lang, _date_in(finding, dates), drawn, settings, oldest)
        elif finding.kind == "age":
            new = AGE  # as safe harbor has it: everyone from 90 on is one group
        else:
            new = drawn.at(view, finding, reading)
        if new is None:
            return None
        pieces.append((finding.start, finding.end, new))
    return Edits.of(view.text, pieces)


def _date_in(finding: Finding, dates: Sequence[DateMention]) -> DateMention | None:
    """The date that a finding is, or the first within it where it was merged with something
    else."""
    first = bisect_left(dates, finding.start, key=attrgetter("start"))
    inside = dates[first] if first < len(dates) else None
    return inside if inside is not None and inside.end <= finding.end else None


def _placeholder(lang: str) -> str:
    return PLACEHOLDER.get(lang, PLACEHOLDER["en"])


def _new_date(
    lang: str, mention: DateMention | None, drawn: Surrogates, settings: Deid, oldest: int
) -> str | None:
    """What stands in the place of a date: nothing of a finding is kept but what was read as one
    date and moved. ``oldest``: the last year that tells of an age over 89."""
    if mention is None or mention.value is None:
        refuse = settings.unreadable_dates == "refuse"
        return None if refuse else _placeholder(lang)
    if settings.profile == "safe-harbor":
        old = mention.value.year <= oldest
        return _placeholder(lang) if old else year_only(mention, lang)
    return write(mention, drawn.shift(mention.value))


def normal_form(text: str) -> Edits:
    """Composed characters (NFC) and plain line ends; what every rule is written for."""
    composed = normalise(text, "NFC")
    ends = newlines(composed.apply(text)) if "\r" in text else None
    return composed.then(ends) if ends else composed


def _undecided(
    found: Iterable[Finding], findings: Sequence[Finding], edits: Edits
) -> set[tuple[int, int]]:
    """Where in the result what is undecided stands, and was not replaced by anything else."""
    unsure = (one for one in found if one.by == UNDECIDED)
    free = (
        one
        for one in unsure
        if not any(one.start < other.end and other.start < one.end for other in findings)
    )
    return {place for one in free if (place := edits.project(one.start, one.end))}


def blanked(text: str, edits: Edits, places: Iterable[tuple[int, int]] = ()) -> str:
    """An edited text with ``BLANK`` for what was put in, and for further places of it."""
    moved, gone = 0, [*places]
    for piece in edits.pieces:
        start = piece.start + moved
        gone.append((start, start + len(piece.text)))
        moved += len(piece.text) - (piece.end - piece.start)
    parts: list[str] = []
    at = 0
    for start, end in sorted(gone):
        parts += (text[at:start], BLANK)
        at = max(at, end)
    return "".join((*parts, text[at:]))


def keyed(secret: bytes, what: str) -> str:
    """A code that only the patient's random secret tells."""
    return hmac.digest(secret, what.encode(), "sha256").hex()[:16]
