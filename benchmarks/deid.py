"""De-identification: recall, precision, clinical terms damaged, refused notes and speed, beside Presidio with the same patterns.

Invented hospital notes (residency.synth.hospital) with every identifier's place known. One rule for all: an identifier is found where
every letter and digit of it is replaced; a finding that touches no identifier is false; a labelled clinical span that a false finding
touches is damaged. The templates are those that the rules were developed on: the figures say how the engine does its job, not how it does on
another hospital's notes. Speed is processor time from a RawNote in memory to a verified Note: normalise, find, resolve, replace, scan
again, carry spans.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from _common import ROOT, parser, report, run, say

Range = tuple[int, int]
PRESIDIO = ("presidio-analyzer==2.2.366", "spacy>=3.8")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--notes", type=int, default=7000, help="per language (default 7,000)")
    options.add_argument("--presidio", type=int, default=500, help="notes that Presidio is given (0: none)")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    if given.quick:
        given.notes, given.presidio = 60, 0
    rows: list[list[str]] = []
    for lang in ("vi", "zh", "en"):
        rows.append(ours(lang, given.notes, given.seed))
        say(" | ".join(rows[-1]))
        if given.presidio:
            rows.append(presidio(lang, given.presidio, given.seed))
            say(" | ".join(rows[-1]))
    columns = (
        "language",
        "system",
        "notes",
        "mean characters",
        "recall, known",
        "recall, unknown",
        "precision",
        "damaged clinical spans",
        "refused",
        "notes/s and core",
    )
    report("deid", given, columns, rows)


def ours(lang: str, count: int, seed: int) -> list[str]:
    """The engine, whole."""
    from residency.deid.engine import Done, Engine, normalised
    from residency.deid.settings import Deid
    from residency.deid.vault import Vault
    from residency.synth.hospital import notes

    with tempfile.TemporaryDirectory() as folder:
        vault = Vault.open(Path(folder), os.urandom(32))
        vault.begin()
        engine = Engine(Deid(), vault)
        tally, seconds, length = Tally(), 0.0, 0
        for planted in notes(lang, count, seed):
            begun = time.process_time()
            done = engine.process(planted.note)
            seconds += time.process_time() - begun
            length += len(planted.note.text)
            if not isinstance(done, Done):
                tally.refused += 1
                continue
            before = normalised(planted.note.text)
            text = before.apply(planted.note.text)
            marks = [(before.project(m.start, m.end), m.known) for m in planted.marks]
            spans = [before.project(s.start, s.end) for s in planted.note.spans]
            tally.add(text, marks, spans, [(f.start, f.end) for f in done.findings])
        vault.close()
    return tally.row(lang, "residency", count, length / count, count / seconds)


def presidio(lang: str, count: int, seed: int) -> list[str]:
    """Presidio with the patterns of our rules, in an environment of its own; it knows no identifiers of the row."""
    from residency.deid.engine import normalised
    from residency.deid.rules import rules
    from residency.synth.hospital import notes

    python = environment("presidio", PRESIDIO)
    planted = list(notes(lang, count, seed))
    edits = [normalised(one.note.text) for one in planted]
    texts = [edit.apply(one.note.text) for edit, one in zip(edits, planted, strict=True)]
    patterns = [(rule.kind, plainly(rule.pattern)) for pack in ("common", lang) for rule in rules(pack)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.json"
        path.write_text(json.dumps({"lang": lang, "texts": texts, "patterns": patterns}), "utf-8")
        done = subprocess.run(
            [python, ROOT / "benchmarks/_deid_presidio.py", path], capture_output=True, text=True, check=False
        )
    if done.returncode:
        say((done.stderr.strip().splitlines() or ["nothing was said"])[-1])
        return [lang, "presidio", "could not run", *["-"] * 7]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    tally = Tally()
    for one, edit, text, found in zip(planted, edits, texts, result["found"], strict=True):
        marks = [(edit.project(m.start, m.end), m.known) for m in one.marks]
        tally.add(text, marks, [edit.project(s.start, s.end) for s in one.note.spans], [(a, b) for a, b in found])
    return tally.row(lang, "presidio, same patterns", count, sum(map(len, texts)) / count, count / result["seconds"])


def plainly(pattern: str) -> str:
    """A pattern whose group v is what is found, as Presidio takes the whole match: what stands before v becomes a look-behind that
    the regex module allows."""
    head, mark, tail = pattern.partition("(?P<v>")
    return pattern if not mark or "(?P<v>" in tail or "|" in tail.rpartition(")")[2] else f"{head}\\K(?:{tail}"


class Tally:
    """Counts over notes."""

    def __init__(self) -> None:
        self.found: Counter[bool] = Counter()
        self.all: Counter[bool] = Counter()
        self.findings = self.false = self.damaged = self.spans = self.refused = 0

    def add(
        self,
        text: str,
        marks: Sequence[tuple[Range | None, bool]],
        spans: Iterable[Range | None],
        findings: Sequence[Range],
    ) -> None:
        """One note."""
        covered = {i for start, end in findings for i in range(start, end)}
        places = [place for place, _ in marks if place]
        for place, known in marks:
            if place:
                self.all[known] += 1
                self.found[known] += all(i in covered for i in range(*place) if text[i].isalnum())
        false = [f for f in findings if not any(a < f[1] and f[0] < b for a, b in places)]
        wrong = {i for start, end in false for i in range(start, end)}
        self.findings += len(findings)
        self.false += len(false)
        for span in spans:
            self.spans += 1
            self.damaged += span is not None and any(i in wrong for i in range(*span))

    def row(self, lang: str, system: str, notes: int, length: float, rate: float) -> list[str]:
        """A line of the table."""
        return [
            lang,
            system,
            f"{notes:,}",
            f"{length:,.0f}",
            f"{self.found[True] / max(self.all[True], 1):.4f} ({self.all[True]:,})",
            f"{self.found[False] / max(self.all[False], 1):.4f} ({self.all[False]:,})",
            f"{1 - self.false / max(self.findings, 1):.4f}",
            f"{self.damaged:,} of {self.spans:,}",
            f"{self.refused / notes:.2%}",
            f"{rate:,.0f}",
        ]


def environment(name: str, packages: Sequence[str]) -> Path:
    """Python of an environment that holds a tool to compare with; made once, under .bench/."""
    folder = ROOT / ".bench" / name
    python = folder / "bin/python"
    if not (folder / "ready").is_file():
        say(f"installing {', '.join(packages)} into {folder.relative_to(ROOT)} ...")
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, stdout=sys.stderr)
        (folder / "ready").touch()
    return python


if __name__ == "__main__":
    run(main)
