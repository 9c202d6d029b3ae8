"""The one rule by which every system of the scoreboard is counted, and its tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from residency.core.types import RawNote

Range = tuple[int, int]
COLUMNS = (
    *(
        "language",
        "text",
        "system",
        "notes",
        "mean characters",
        "recall, known",
        "recall, unknown",
        "precision",
    ),
    *("letters rightly replaced", "damaged clinical spans", "refused", "notes/s and core"),
)


@dataclass(frozen=True)
class Place:
    """``text[start:end]`` identifies somebody; ``known``: the row's columns hold it."""

    start: int
    end: int
    kind: str
    known: bool = False


@dataclass(frozen=True)
class Case:
    """A note to be de-identified and what is true of it; offsets in ``text``: NFC, LF."""

    note: RawNote
    text: str
    places: tuple[Place, ...]
    clinical: tuple[Range, ...] = ()
    neutral: tuple[Range, ...] = ()
    """Where the authors mark something that this scoreboard does not count, e.g. a country: a
    finding there is neither right nor wrong."""
    whole: bool = True
    """Every identifier of the text is marked; else nothing can be said of precision."""


@dataclass
class Tally:
    """Counts over notes."""

    system: str
    notes: int = 0
    refused: int = 0
    seconds: float = 0.0
    characters: int = 0
    found: Counter[tuple[str, bool]] = field(default_factory=Counter)
    all: Counter[tuple[str, bool]] = field(default_factory=Counter)
    findings: int = 0
    false: int = 0
    letters: int = 0
    right_letters: int = 0
    damaged: int = 0
    clinical: int = 0
    destroyed: int = 0
    """Labelled spans that did not survive though no identifier overlaps them (ours only: others
    keep no spans)."""

    def add(self, case: Case, findings: Iterable[Range]) -> None:
        """One note and what was replaced in it."""
        merged = joined(findings)
        covered = {i for start, end in merged for i in range(start, end)}
        letters = {i for i in covered if case.text[i].isalnum()}
        self.letters += len(letters) if case.whole else 0
        self.notes += 1
        self.characters += len(case.text)
        for place in case.places:
            key = (place.kind, place.known)
            self.all[key] += 1
            own = {i for i in range(place.start, place.end) if case.text[i].isalnum()}
            self.found[key] += own <= covered
            self.right_letters += len(own & covered) if case.whole else 0
        self.clinical += len(case.clinical)
        if not case.whole:
            return
        counted = [
            f for f in merged if not _touched(f, case.neutral) or _touched(f, _ranges(case.places))
        ]
        false = [f for f in counted if not _touched(f, _ranges(case.places))]
        self.findings += len(counted)
        self.false += len(false)
        self.damaged += sum(_touched(span, false) for span in case.clinical)

    def recall(self, known: bool) -> str:
        """Share found, and of how many."""
        total = sum(n for key, n in self.all.items() if key[1] == known)
        found = sum(n for key, n in self.found.items() if key[1] == known)
        return f"{found / total:.4f} ({total:,})" if total else "-"

    def row(self, lang: str, text: str) -> list[str]:
        """A line of the table."""
        asked = self.notes + self.refused
        return [
            *(
                lang,
                text,
                self.system,
                f"{asked:,}",
                f"{self.characters / max(self.notes, 1):,.0f}",
            ),
            *(self.recall(True), self.recall(False)),
            f"{1 - self.false / self.findings:.4f} ({self.findings:,})"
            if self.findings
            else "- (0)",
            f"{self.right_letters / self.letters:.4f}" if self.letters else "-",
            f"{self.damaged:,} of {self.clinical:,}" if self.clinical else "-",
            f"{self.refused / max(asked, 1):.2%}",
            f"{asked / self.seconds:,.0f}" if self.seconds else "-",
        ]

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Kind -> (found, all)."""
        kinds = sorted({kind for kind, _ in self.all})
        return {
            kind: tuple(
                sum(count[kind, known] for known in (True, False))
                for count in (self.found, self.all)
            )  # type: ignore[misc]
            for kind in kinds
        }


def joined(findings: Iterable[Range]) -> list[Range]:
    """Findings that overlap as one, so that no system is paid twice for the same words."""
    merged: list[Range] = []
    for start, end in sorted(findings):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


def kinds_table(scored: Sequence[tuple[str, str, Tally]]) -> tuple[list[str], list[list[str]]]:
    """Recall by kind: a row for language, text and kind, a column for every system."""
    systems = list(dict.fromkeys(tally.system for _, _, tally in scored))
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for lang, text, tally in scored:
        for kind, (found, total) in tally.by_kind().items():
            cells.setdefault((lang, text, kind), {})[tally.system] = (
                f"{found / total:.4f} ({total:,})"
            )
    rows = [[*key, *(line.get(system, "-") for system in systems)] for key, line in cells.items()]
    return ["language", "text", "kind", *systems], rows


def _ranges(places: Sequence[Place]) -> list[Range]:
    return [(place.start, place.end) for place in places]


def _touched(one: Range, others: Iterable[Range]) -> bool:
    return any(a < one[1] and one[0] < b for a, b in others)
