"""The release check: what must hold before a de-identified corpus leaves the identified zone."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from residency.core.types import RawNote, Value
from residency.deid.canaries import came_out, plant
from residency.deid.engine import DeidentifiedNote, Deidentifier, blanked, keyed
from residency.deid.names.lists import name_data
from residency.deid.options import Release
from residency.deid.variants import CODES, NAMES
from residency.deid.view import narrow, small
from residency.metrics.intervals import upper_bound

SHORTEST_NUMBER, SHORTEST_NAME = 8, 5
"""Digits of a number and letters of a name from which on one sign more or less is no chance."""


class ReleaseVerdict(Value, frozen=True):
    """What the release check found; holds no text."""

    passed: bool
    reasons: tuple[str, ...] = ()
    notes: int = 0
    refused: int = 0
    canaries: int = 0
    """Patients, drawn at random, with identifiers added to a copy of a note."""
    stopped: int = 0
    """Those of them whose copy was refused."""
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
    undecided: int = 0
    """Words that may be a name or place of the row or ordinary ones, and were left."""


class Tried(Value, frozen=True):
    """A patient of whom canaries were planted."""

    draw: str
    """By which the sample is drawn: those with the smallest ones."""
    stopped: bool
    out: tuple[str, ...]
    """Kinds and forms of what came out."""


class ReleaseCheck:
    """Watches a corpus as it is made; ``verdict`` at its end."""

    def __init__(self, settings: Release, engine: Deidentifier) -> None:
        self.settings, self.engine = settings, engine
        self.notes = self.refused = self.similar = self.undecided = self.unreviewed = 0
        self.canaries: dict[str, Tried] = {}
        """Patient -> canaries; no more than the settings want."""
        self.highest = "g"
        """From which draw on a patient is not of the sample any more."""
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
        self.undecided += result.undecided
        self._try(raw, group)

    def _try(self, raw: RawNote, group: str) -> None:
        """Plant canaries where the patient is of the sample: those with the smallest of numbers
        that only the vault's secrets tell are as good as drawn at random from all, however many are
        still to come."""
        secret, most = self.engine.vault.secret(raw.patient), self.settings.canaries
        draw = keyed(secret, "canary")
        if not most or group in self.canaries or draw >= self.highest:
            return
        text, canaries = plant(raw, random.Random(keyed(secret, "canaries")))
        if not canaries:
            return
        done = self.engine.process(msgspec.structs.replace(raw, text=text, spans=()))
        out = came_out(text, canaries, done) if isinstance(done, DeidentifiedNote) else ()
        self.canaries[group] = Tried(
            draw, not isinstance(done, DeidentifiedNote), tuple(sorted(out))
        )
        self._of_sample()

    def _of_sample(self) -> None:
        """Keep the patients with the smallest draws."""
        most = self.settings.canaries
        while len(self.canaries) > most:
            del self.canaries[max(self.canaries, key=lambda one: self.canaries[one].draw)]
        if len(self.canaries) == most:
            self.highest = max((one.draw for one in self.canaries.values()), default="")

    def add_earlier(self, known: Mapping[str, Any]) -> None:
        """Take account of what a check of earlier notes knew (its attributes)."""
        for name in ("notes", "refused", "similar", "undecided"):
            setattr(self, name, getattr(self, name) + known.get(name, 0))
        self.canaries |= known.get("canaries", {})
        self._of_sample()
        self.everyone |= known["everyone"]
        for key, holders in known["patients"].items():
            self.patients.setdefault(key, set()).update(holders)

    def verdict(self, alone: bool = False) -> ReleaseVerdict:
        """Whether the corpus may be released, and why not. ``alone``: of an addition to one; then
        it is not asked for so many patients as the whole must have."""
        tried = self.canaries.values()
        leaked = sum(bool(one.out) for one in tried)
        rare = [holders for holders in self.patients.values() if len(holders) < self.settings.rare]
        verdict = ReleaseVerdict(
            passed=True,
            notes=self.notes,
            refused=self.refused,
            canaries=len(self.canaries),
            stopped=sum(one.stopped for one in tried),
            leaked=leaked,
            upper_bound=upper_bound(leaked, len(tried)),
            similar=self.similar,
            unreviewed=self.unreviewed,
            rare=len(rare),
            rare_patients=len(set().union(*rare)),
            undecided=self.undecided,
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
            forms = Counter(what for one in self.canaries.values() for what in one.out)
            yield (
                f"planted identifiers came out for {found.leaked} of {found.canaries} patients: "
                + ", ".join(f"{what} ({count})" for what, count in forms.most_common())
            )
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
    kept = narrow(blanked(done.note.text, done.edits))
    return _near_number(kept, numbers) or _near_name(kept, names, raw.lang)


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
