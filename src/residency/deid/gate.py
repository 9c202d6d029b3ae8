"""The release gate: what must hold before a de-identified corpus leaves the identified zone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from residency.core.types import Note, RawNote, Value
from residency.deid.engine import Done, Engine, normalised
from residency.deid.find import Finding, narrow, plain
from residency.deid.settings import Release
from residency.deid.structured import CODES, NAMES, SEPARATORS


class Verdict(Value, frozen=True):
    """What the gate found; holds no text."""

    passed: bool
    reasons: tuple[str, ...] = ()
    notes: int = 0
    refused: int = 0
    canaries: int = 0
    leaked: int = 0
    upper_bound: float = 1.0
    """95 % upper bound of the share of planted identifiers that come out (Clopper-Pearson, one-sided)."""
    similar: int = 0
    """Notes in which a number one digit away from the patient's own is left."""
    rare: int = 0
    """Combinations of kind, label and language that fewer than ``release.rare`` patients share."""


class Gate:
    """Watches a corpus as it is made; ``verdict`` at its end."""

    def __init__(self, settings: Release, engine: Engine) -> None:
        self.settings, self.engine = settings, engine
        self.notes = self.refused = self.canaries = self.leaked = self.similar = 0
        self.patients: dict[tuple[str, ...], set[str]] = {}

    def saw(self, raw: RawNote, result: object) -> None:
        """Take account of a note and what became of it."""
        self.notes += 1
        if not isinstance(result, Done):
            self.refused += 1
            return
        if self.settings.similar and near_codes(raw, result.note):
            self.similar += 1
        for key in {(raw.lang, raw.kind, span.label, span.code or "") for span in result.note.spans}:
            holders = self.patients.setdefault(key, set())
            if len(holders) < self.settings.rare:
                holders.add(result.note.group)
        if self.canaries < self.settings.canaries and raw.identifiers:
            self._canary(raw)

    def _canary(self, raw: RawNote) -> None:
        """Add the row's identifiers to a copy of the note, without any word around them, and see whether they come out."""
        import msgspec

        values = [value for kind, value in raw.identifiers if kind in NAMES | CODES]
        if not values:
            return
        planted = msgspec.structs.replace(raw, text=f"{raw.text}\n{' ; '.join(values)}", spans=())
        done = self.engine.process(planted)
        self.canaries += 1
        if isinstance(done, Done):
            out = squeezed(done.note.text)
            self.leaked += any(squeezed(value) in out for value in values if len(squeezed(value)) > 3)

    def verdict(self) -> Verdict:
        """Whether the corpus may be released, and why not."""
        reasons = []
        share = self.refused / self.notes if self.notes else 0.0
        if not self.notes:
            reasons.append("there are no notes")
        if share > self.settings.refused:
            reasons.append(
                f"{self.refused} of {self.notes} notes were refused, more than deid.release.refused = {self.settings.refused:.1%}"
            )
        if self.leaked:
            reasons.append(f"planted identifiers came out of {self.leaked} of {self.canaries} notes")
        if self.similar:
            reasons.append(
                f"numbers one digit away from the patient's own are left in {self.similar} notes; check them for typing errors"
            )
        return Verdict(
            passed=not reasons,
            reasons=tuple(reasons),
            notes=self.notes,
            refused=self.refused,
            canaries=self.canaries,
            leaked=self.leaked,
            upper_bound=upper_bound(self.leaked, self.canaries),
            similar=self.similar,
            rare=sum(len(holders) < self.settings.rare for holders in self.patients.values()),
        )


def squeezed(text: str) -> str:
    """A text without case, width, marks and separators."""
    return SEPARATORS.sub("", plain(narrow(normalised(text).apply(text))))


def near_codes(raw: RawNote, note: Note) -> bool:
    """Whether a number of eight digits or more in a note differs from one of the patient's own in one digit only."""
    import re

    own = [
        digits
        for kind, value in raw.identifiers
        if kind in CODES and len(digits := re.sub(r"\D", "", narrow(value))) >= 8
    ]
    if not own:
        return False
    for match in re.finditer(r"(?<!\d)\d(?:[ .\-]?\d){7,18}(?!\d)", narrow(note.text)):
        digits = re.sub(r"\D", "", match[0])
        for code in own:
            if len(code) == len(digits) and sum(a != b for a, b in zip(code, digits, strict=True)) <= 1:
                return True
    return False


def upper_bound(events: int, trials: int, level: float = 0.95) -> float:
    """One-sided upper limit of a proportion (Clopper and Pearson 1934); 1 where nothing was tried."""
    from math import comb

    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(60):  # the tail falls as the proportion grows
        middle = (low + high) / 2
        tail = sum(comb(trials, k) * middle**k * (1 - middle) ** (trials - k) for k in range(events + 1))
        low, high = (middle, high) if tail > 1 - level else (low, middle)
    return high


def kinds(findings: Iterable[Finding]) -> Counter[str]:
    """Kind -> how many."""
    return Counter(finding.kind for finding in findings)
