"""The release check: what must hold before a de-identified corpus leaves the identified zone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from residency.core.types import RawNote, Value
from residency.deid.engine import DeidentifiedNote, Deidentifier, normal_form
from residency.deid.known import CODES, NAMES, SEPARATORS
from residency.deid.names.lists import name_data
from residency.deid.options import Release
from residency.deid.view import narrow, plain, small

SHORTEST_NUMBER, SHORTEST_NAME = 8, 5
"""Digits of a number and letters of a name from which on one sign more or less is no chance."""


class ReleaseVerdict(Value, frozen=True):
    """What the release check found; holds no text."""

    passed: bool
    reasons: tuple[str, ...] = ()
    notes: int = 0
    refused: int = 0
    canaries: int = 0
    """Patients with identifiers added to a copy of a note."""
    leaked: int = 0
    """Those of them whose identifiers came out."""
    upper_bound: float = 1.0
    """95 % upper bound of the share of patients whose identifiers come out (Clopper-Pearson,
    one-sided)."""
    similar: int = 0
    """Notes in which a number or a name one sign away from the patient's own is left."""
    unreviewed: int = 0
    """Notes with a place of doubt on which nobody has decided."""
    rare: int = 0
    """Combinations of kind, label and language that fewer than ``release.rare`` patients share."""
    rare_patients: int = 0
    """Patients who have one of them."""


class ReleaseCheck:
    """Watches a corpus as it is made; ``verdict`` at its end."""

    def __init__(self, settings: Release, engine: Deidentifier) -> None:
        self.settings, self.engine = settings, engine
        self.notes = self.refused = self.leaked = self.similar = self.unreviewed = 0
        self.tried: set[str] = set()
        """Patients with identifiers added to a copy of a note."""
        self.everyone: set[str] = set()
        self.patients: dict[tuple[str, ...], set[str]] = {}

    def add(self, raw: RawNote, result: object) -> None:
        """Take account of a note and what became of it."""
        self.notes += 1
        if not isinstance(result, DeidentifiedNote):
            self.refused += 1
            return
        self.unreviewed += bool(result.doubts)
        group, most = result.note.group, self.settings.rare
        self.similar += self.settings.similar < 1 and is_similar(raw, result)
        self.everyone.add(group)
        spans = result.note.spans
        for key in {(raw.lang, raw.kind, span.label, span.code or "") for span in spans}:
            holders = self.patients.setdefault(key, set())
            if len(holders) < most:
                holders.add(group)
        if len(self.tried) < self.settings.canaries and group not in self.tried:
            self._plant(raw, group)

    def _plant(self, raw: RawNote, group: str) -> None:
        """Add the row's identifiers to a copy of the note, without any word around them, and see
        whether they come out."""
        values = [value for kind, value in raw.identifiers if kind in NAMES | CODES]
        if not values:
            return
        planted = msgspec.structs.replace(raw, text=f"{raw.text}\n{' ; '.join(values)}", spans=())
        done = self.engine.process(planted)
        self.tried.add(group)
        if isinstance(done, DeidentifiedNote):
            out = squeeze(done.note.text)
            self.leaked += any(
                len(key) > 3 and key in out for key in (squeeze(value) for value in values)
            )

    def add_earlier(self, known: Mapping[str, Any]) -> None:
        """Take account of what a check of earlier notes knew (its attributes)."""
        for name in ("notes", "refused", "leaked", "similar"):
            setattr(self, name, getattr(self, name) + known[name])
        self.tried |= known["tried"]
        self.everyone |= known["everyone"]
        for key, holders in known["patients"].items():
            self.patients.setdefault(key, set()).update(holders)

    def verdict(self, alone: bool = False) -> ReleaseVerdict:
        """Whether the corpus may be released, and why not. ``alone``: of an addition to one; then
        it is not asked for so many patients as the whole must have."""
        rare = [holders for holders in self.patients.values() if len(holders) < self.settings.rare]
        verdict = ReleaseVerdict(
            passed=True,
            notes=self.notes,
            refused=self.refused,
            canaries=len(self.tried),
            leaked=self.leaked,
            upper_bound=upper_bound(self.leaked, len(self.tried)),
            similar=self.similar,
            unreviewed=self.unreviewed,
            rare=len(rare),
            rare_patients=len(set().union(*rare)),
        )
        reasons = tuple(self._reasons(verdict, alone))
        return msgspec.structs.replace(verdict, passed=not reasons, reasons=reasons)

    def _reasons(self, found: ReleaseVerdict, alone: bool) -> Iterator[str]:
        limits, everyone = self.settings, len(self.everyone)
        if not found.notes:
            yield "there are no notes"
            return
        if found.refused > limits.refused * found.notes:
            yield (
                f"{found.refused} of {found.notes} notes were refused, more than "
                f"deid.release.refused = {limits.refused:.1%}"
            )
        if found.leaked:
            yield f"planted identifiers came out for {found.leaked} of {found.canaries} patients"
        if found.upper_bound > limits.bound and not alone:
            yield (
                f"the upper bound of leakage per patient is {found.upper_bound:.2%} "
                f"({found.canaries} patients tried), more than deid.release.bound = "
                f"{limits.bound:.2%}; try more patients (deid.release.canaries)"
            )
        if found.similar > limits.similar * found.notes:
            yield (
                "numbers or names one sign away from the patient's own are left in "
                f"{found.similar} of {found.notes} notes, more than deid.release.similar = "
                f"{limits.similar:.1%}; check them for typing errors"
            )
        if found.unreviewed > limits.unreviewed * found.notes:
            yield (
                f"{found.unreviewed} of {found.notes} notes have places that may identify somebody "
                "and wait for a decision, more than deid.release.unreviewed = "
                f"{limits.unreviewed:.1%}"
            )
        if found.rare_patients > limits.rare_patients * everyone and not alone:
            yield (
                f"{found.rare_patients} of {everyone} patients have a combination that fewer than "
                f"{limits.rare} share, more than deid.release.rare_patients = "
                f"{limits.rare_patients:.1%}"
            )


def squeeze(text: str) -> str:
    """A text without case, width, marks and separators."""
    return SEPARATORS.sub("", plain(narrow(normal_form(text).apply(text))))


NUMBER = re.compile(r"(?<!\d)\d(?:[ .\-]?\d){7,18}(?!\d)", re.ASCII)
WORD = re.compile(r"[^\W\d_]+")


def is_similar(raw: RawNote, done: DeidentifiedNote) -> bool:
    """Whether what was kept of a note holds a number with one digit wrong or two neighbours
    swapped, or a capitalised word one letter away from the patient's own. What was put in is not
    looked at."""
    numbers = {
        digits
        for kind, value in raw.identifiers
        if kind in CODES and len(digits := re.sub(r"\D", "", narrow(value))) >= SHORTEST_NUMBER
    }
    names = {narrow(value) for kind, value in raw.identifiers if kind in NAMES}
    if not numbers and not names:
        return False
    kept = _kept(done)
    return _near_number(kept, numbers) or _near_name(kept, names, raw.lang)


def _kept(done: DeidentifiedNote) -> str:
    """The text of a note with what was put in blanked."""
    parts: list[str] = []
    position, shift, text = 0, 0, done.note.text
    for piece in done.edits.pieces:
        start = piece.start + shift
        parts += (text[position:start], " " * len(piece.text))
        position = start + len(piece.text)
        shift += len(piece.text) - (piece.end - piece.start)
    return narrow("".join((*parts, text[position:])))


def _near_number(text: str, own: Iterable[str]) -> bool:
    from rapidfuzz.distance import OSA

    numbers = (re.sub(r"\D", "", match[0]) for match in NUMBER.finditer(text))
    return any(
        len(code) == len(digits) and OSA.distance(code, digits, score_cutoff=1) <= 1
        for digits in numbers
        for code in own
    )


def _near_name(text: str, own: Iterable[str], lang: str) -> bool:
    """Whether as many words as a name has are one letter away from it. A word of an English name
    counts alone as well: a Vietnamese syllable is one letter away from a dozen others."""
    from rapidfuzz.distance import OSA

    def near(one: str, other: str) -> bool:
        return bool(OSA.distance(one, other, score_cutoff=1) == 1)

    words = [(match[0][0].isupper(), small(match[0])) for match in WORD.finditer(text)]
    stops = name_data("en")["stops"]
    capitals = [word for upper, word in words if upper and len(word) >= SHORTEST_NAME]
    capitals = [word for word in capitals if word not in stops] if lang == "en" else []
    for name in own:
        parts = WORD.findall(small(name))
        size = len(parts)
        starts = (i for i, (upper, _) in enumerate(words) if upper and size > 1)
        runs = {"".join(word for _, word in words[i : i + size]) for i in starts}
        whole, long = "".join(parts), (part for part in parts if len(part) >= SHORTEST_NAME)
        if any(near(whole, run) for run in runs):
            return True
        if any(near(part, word) for part in long for word in capitals):
            return True
    return False


def upper_bound(events: int, trials: int, level: float = 0.95) -> float:
    """One-sided upper limit of a proportion (Clopper and Pearson 1934); 1 where none was tried."""
    from math import comb

    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(60):  # the tail falls as the proportion grows
        middle = (low + high) / 2
        tail = sum(
            comb(trials, k) * middle**k * (1 - middle) ** (trials - k) for k in range(events + 1)
        )
        low, high = (middle, high) if tail > 1 - level else (low, middle)
    return high
