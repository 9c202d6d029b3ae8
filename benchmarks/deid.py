"""Scoreboard of de-identification: ours with and without the row's identifiers, Presidio with the
same patterns, and openmed.

Texts: notes of the invented hospitals (development: the rules were written on it; validation:
written without sight of the rules, may be looked at; test: the same, scored only with --final) and
public texts. One rule of scoring for every system:

- found: every letter and digit of a marked identifier is replaced. Recall is the share found, of
  identifiers that the row's columns hold (known) and of the others (unknown); without columns the
  known ones are scored too, as if they were not known.
- precision: findings that overlap are joined; one that touches no identifier is false. Where the
  authors of a public text mark something that is not counted here (a title, a country), a finding
  there is neither.
- letters rightly replaced: of the letters and digits replaced, those that belong to identifiers;
  tells of findings that are too wide.
- damaged: a labelled clinical span that a false finding touches.
- refused: notes given back with no text; they count in no other column.
- notes/s and core: processor time from a RawNote in memory to a verified Note (normalise, find,
  resolve, replace, scan again, carry spans); for the others, of finding alone. Each system runs in
  a process of its own, except ours.

pyDeid (of GEMINI) is in no package registry under its name (``pydeid`` there is another project),
so it is not run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from _common import ROOT, parser, peak_memory_mb, report, run, say, shared_data
from _deid_score import COLUMNS, Case, Tally, kinds_table
from _deid_text import WORLDS, of_world, public
from residency.core.errors import UserError

LANGUAGES = ("vi", "zh", "en")
RULES, SOURCE = "residency, rules only", "residency, with columns"
OTHERS = {
    "presidio": (
        "presidio, same patterns",
        ("presidio-analyzer==2.2.366", "spacy>=3.8"),
        "_deid_presidio.py",
    ),
    "openmed": ("openmed, rules only", ("openmed==3.1.0",), "_deid_openmed.py"),
}
Scored = list[tuple[str, str, Tally]]


def main() -> None:
    given = options().parse_args()
    if given.quick:
        given.notes, given.presidio, given.openmed, given.known = 60, 0, 0, min(given.known, 90)
    worlds = given.worlds or (["test"] if given.final else ["development", "validation"])
    if "test" in worlds and not given.final:
        raise UserError(
            "the test world is scored once, for the figure that is published; add --final."
        )
    if given.known:
        return known(given, worlds)
    scored: Scored = []
    for lang in given.langs:
        for name in worlds:
            cases = list(of_world(name, lang, given.notes, given.seed))
            score(scored, lang, name, cases, given)
    suffix = "_test" if given.final else ""
    report(f"deid{suffix}", given, COLUMNS, [tally.row(lang, text) for lang, text, tally in scored])
    report(f"deid_kinds{suffix}", given, *kinds_table(scored))
    if given.public and not given.final:
        shared_data()
        scored = []
        for (lang, name), cases in public().items():
            score(scored, lang, name, cases, given)
        report(
            "deid_public", given, COLUMNS, [tally.row(lang, text) for lang, text, tally in scored]
        )
    return None


def options() -> argparse.ArgumentParser:
    """What can be asked."""
    made = parser(__doc__)
    made.add_argument(
        "--notes", type=int, default=2000, help="per language and world (default 2,000)"
    )
    made.add_argument(
        "--presidio", type=int, default=300, help="notes that Presidio is given (0: none)"
    )
    made.add_argument(
        "--openmed", type=int, default=60, help="notes that openmed is given (0: none)"
    )
    made.add_argument("--langs", nargs="+", choices=LANGUAGES, default=LANGUAGES)
    made.add_argument(
        "--worlds", nargs="+", choices=sorted(WORLDS), help="default: development validation"
    )
    made.add_argument("--final", action="store_true", help="score the test world, and nothing else")
    made.add_argument(
        "--no-public", dest="public", action="store_false", help="leave the public texts out"
    )
    made.add_argument(
        "--known",
        type=int,
        default=0,
        help="only this: identifiers of the columns over so many notes, e.g. 20000",
    )
    made.add_argument("--seed", type=int, default=1)
    return made


def score(
    scored: Scored, lang: str, name: str, cases: Sequence[Case], given: argparse.Namespace
) -> None:
    """Every system on the same cases; the slow ones on the first of them."""
    tallies = [ours(RULES, [without(case) for case in cases])]
    if any(case.note.identifiers for case in cases):
        tallies.append(ours(SOURCE, cases))
    for tool in OTHERS:
        if few := getattr(given, tool):
            tallies += other(tool, lang, cases[:few])
    for tally in tallies:
        scored.append((lang, name, tally))
        say(" | ".join(tally.row(lang, name)))


def ours(system: str, cases: Iterable[Case]) -> Tally:
    """The engine, whole."""
    from residency.deid.engine import DeidentifiedNote, Deidentifier, normalised
    from residency.deid.options import Deid
    from residency.deid.vault import Vault

    tally = Tally(system)
    with tempfile.TemporaryDirectory() as folder:
        vault = Vault.open(Path(folder), os.urandom(32))
        vault.begin()
        engine = Deidentifier(Deid(), vault)
        for case in cases:
            begun = time.process_time()
            done = engine.process(case.note)
            tally.seconds += time.process_time() - begun
            if not isinstance(done, DeidentifiedNote):
                tally.refused += 1
                continue
            tally.add(case, [(f.start, f.end) for f in done.findings])
            if done.destroyed:
                edits = normalised(case.note.text)
                lost = [edits.project(span.start, span.end) for span in done.destroyed]
                tally.destroyed += sum(
                    not any(
                        span and place.start < span[1] and span[0] < place.end
                        for place in case.places
                    )
                    for span in lost
                )
        vault.close()
    return tally


def without(case: Case) -> Case:
    """The case with nothing known about its patient."""
    return dataclasses.replace(case, note=msgspec.structs.replace(case.note, identifiers=()))


def other(tool: str, lang: str, cases: Sequence[Case]) -> list[Tally]:
    """A tool in an environment of its own; it knows no identifiers of the row. Empty where it could
    not run."""
    system, packages, script = OTHERS[tool]
    task: dict[str, Any] = {"lang": lang, "texts": [case.text for case in cases]}
    if tool == "presidio":
        from residency.deid.rules import rules

        task["patterns"] = [
            (rule.kind, plainly(rule.pattern)) for pack in ("common", lang) for rule in rules(pack)
        ]
    python = environment(tool, packages)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.json"
        path.write_text(json.dumps(task), "utf-8")
        command = [python, ROOT / "benchmarks" / script, path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"{system}, {lang}: {(done.stderr.strip().splitlines() or ['nothing was said'])[-1]}")
        return []
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    tally = Tally(system, seconds=result["seconds"])
    for case, found in zip(cases, result["found"], strict=True):
        tally.add(case, [(start, end) for start, end in found])
    return [tally]


def known(given: argparse.Namespace, worlds: Sequence[str]) -> None:
    """Identifiers of the row's columns, at every place where the generator wrote one, over
    ``--known`` notes."""
    scored: Scored = []
    each = given.known // (len(given.langs) * len(worlds))
    for lang in given.langs:
        for name in worlds:
            tally = ours(SOURCE, of_world(name, lang, each, given.seed + 1000))
            scored.append((lang, name, tally))
            say(" | ".join(tally.row(lang, name)))
    columns = (
        "language",
        "text",
        "notes",
        "known identifiers",
        "found",
        "recall",
        "refused",
        "entities lost beside identifiers",
    )
    rows = []
    for lang, name, tally in scored:
        total = sum(n for key, n in tally.all.items() if key[1])
        found = sum(n for key, n in tally.found.items() if key[1])
        asked = tally.notes + tally.refused
        share = f"{found / total:.6f}"
        rows.append(
            [
                lang,
                name,
                f"{asked:,}",
                f"{total:,}",
                f"{found:,}",
                share,
                f"{tally.refused / asked:.3%}",
                f"{tally.destroyed:,} of {tally.clinical:,}",
            ]
        )
    report("deid_known", given, columns, rows, peak_memory_mb=round(peak_memory_mb()))


def plainly(pattern: str) -> str:
    """A pattern whose group v is what is found, as Presidio takes the whole match: what stands
    before v becomes a look-behind that the regex module allows."""
    head, mark, tail = pattern.partition("(?P<v>")
    return (
        pattern
        if not mark or "(?P<v>" in tail or "|" in tail.rpartition(")")[2]
        else f"{head}\\K(?:{tail}"
    )


def environment(name: str, packages: Sequence[str]) -> Path:
    """Python of an environment that holds a tool to compare with; made once, under .bench/."""
    folder = ROOT / ".bench" / name
    python = folder / "bin/python"
    if not (folder / "ready").is_file():
        say(f"installing {', '.join(packages)} into {folder.relative_to(ROOT)} ...")
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *packages], check=True, stdout=sys.stderr
        )
        (folder / "ready").touch()
    return python


if __name__ == "__main__":
    run(main)
