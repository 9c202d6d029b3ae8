"""From an identified note to one that is not: find, resolve, replace, verify. The only way to make a ``Note`` of a ``RawNote``."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256

from residency.core.edits import Edits, newlines, normalise
from residency.core.types import Note, RawNote, Span, Value
from residency.deid.dates import DateMention, find_dates, write, year_only
from residency.deid.find import Finding, Recogniser, resolve
from residency.deid.rules import packs
from residency.deid.settings import Deid
from residency.deid.structured import Known, known
from residency.deid.surrogates import Surrogates
from residency.deid.vault import Vault

DATE_KINDS = frozenset({"date", "birth_date"})
REFUSED_RESIDUAL = "an identifier of the patient is left after replacement"
REFUSED_DATE = "a date cannot be read"
REFUSED_EMPTY = "the note names no patient"
REFUSED_LONG = "the note is longer than a million characters"
LONGEST = 1_000_000


class Done(Value, frozen=True):
    """A note that may be used, how it came about, and what of its labels was lost."""

    note: Note
    edits: Edits
    findings: tuple[Finding, ...]
    """What was replaced, by offsets in the text before (NFC, LF)."""
    destroyed: tuple[Span, ...] = ()
    """Labelled spans that a replacement cut; their quotes are empty."""


class Refused(Value, frozen=True):
    """A note that is left out; the reason holds nothing of it."""

    id: str
    reason: str


class Engine:
    """De-identifies notes one by one; the same note gives the same result in every process that has the vault."""

    def __init__(self, settings: Deid, vault: Vault, recognisers: Sequence[Recogniser] = ()) -> None:
        self.settings, self.vault, self.recognisers = settings, vault, tuple(recognisers)

    def process(self, raw: RawNote) -> Done | Refused:
        """The note without what identifies, or why not."""
        fault = REFUSED_EMPTY if not raw.patient else REFUSED_LONG if len(raw.text) > LONGEST else ""
        if fault:
            return Refused(raw.id, fault)
        before = normalised(raw.text)
        text = before.apply(raw.text)
        secret = self.vault.secret(raw.patient)
        own = known(raw.identifiers, raw.lang)
        surrogates = Surrogates(secret, raw.lang, own.keys)
        findings = resolve(self.findings(text, raw.lang, own))
        mentions = dated(text, raw.lang, findings)
        if self.settings.unreadable_dates == "refuse" and any(
            mention is None or mention.value is None for mention in mentions.values()
        ):
            return Refused(raw.id, REFUSED_DATE)
        replaced = [(f.start, f.end, self.replacement(text, f, mentions, surrogates, raw.lang)) for f in findings]
        edits = Edits.of(text, replaced)
        result = edits.apply(text)
        if any(True for _ in own.written(result)):
            return Refused(raw.id, REFUSED_RESIDUAL)
        whole = before.then(edits) if before.pieces else edits
        kept, destroyed = whole.project_spans(raw.text, raw.spans)
        note = Note(
            id=keyed(secret, f"note/{raw.id}"),
            text=result,
            profile=self.settings.profile,
            group=keyed(secret, "patient"),
            lang=raw.lang,
            kind=raw.kind,
            written_at=self._when(raw.written_at, surrogates),
            spans=kept,
        )
        return Done(
            note, whole, tuple(findings), tuple(Span(start=s.start, end=s.end, label=s.label) for s in destroyed)
        )

    def findings(self, text: str, lang: str, own: Known) -> Iterable[Finding]:
        """What the row's identifiers, the rules and the plug-ins find."""
        yield from own.find(text, lang)
        yield from packs(lang).find(text, lang)
        for recogniser in self.recognisers:
            yield from recogniser.find(text, lang)

    def replacement(
        self,
        text: str,
        finding: Finding,
        mentions: dict[int, DateMention | None],
        surrogates: Surrogates,
        lang: str,
    ) -> str:
        """What stands in the place of a finding."""
        value = text[finding.start : finding.end]
        if finding.kind in DATE_KINDS:
            mention = mentions[finding.start]
            if mention is None or mention.value is None:
                return PLACEHOLDER.get(lang, PLACEHOLDER["en"])
            if self.settings.profile == "safe-harbor":
                return year_only(mention, lang)
            return (
                value[: mention.start - finding.start]
                + write(mention, surrogates.shift(mention.value))
                + value[mention.end - finding.start :]
            )
        if finding.kind == "age":
            return "90"  # as safe harbor has it: everyone from 90 on is one group
        return surrogates.of(finding.kind, value)

    def _when(self, written: datetime | None, surrogates: Surrogates) -> datetime | None:
        if written is None:
            return None
        if self.settings.profile == "safe-harbor":
            return datetime(written.year, 1, 1)
        return datetime.combine(surrogates.shift(written.date()), written.timetz())


PLACEHOLDER = {"vi": "[ngày]", "zh": "[日期]", "en": "[date]"}


def normalised(text: str) -> Edits:
    """Composed characters (NFC) and plain line ends; what every rule is written for."""
    composed = normalise(text, "NFC")
    ends = newlines(composed.apply(text)) if "\r" in text else None
    return composed.then(ends) if ends else composed


def dated(text: str, lang: str, findings: Sequence[Finding]) -> dict[int, DateMention | None]:
    """Start of each finding that is a date -> the date, or None where none can be read in it."""
    wanted = [finding for finding in findings if finding.kind in DATE_KINDS]
    if not wanted:
        return {}
    mentions = find_dates(text, lang)
    return {
        finding.start: next((m for m in mentions if finding.start <= m.start and m.end <= finding.end), None)
        for finding in wanted
    }


def keyed(secret: bytes, what: str) -> str:
    """A code that only the patient's random secret tells."""
    return hmac.new(secret, what.encode(), sha256).hexdigest()[:16]
