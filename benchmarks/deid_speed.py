"""De-identification: notes of about 1,500 characters a second on one core, stage by stage, beside
Presidio with the same patterns.

Invented hospital notes (residency.synth.hospital_notes) of one patient each, joined, filled up with lines
of invented records and cut at a line end; known identifiers and labelled spans are kept. What is
timed is processor time from a RawNote in memory to a verified Note: fold (normalise, other forms),
the row's identifiers, rules with dates and names, resolve, replace, scan again, carry spans. Every
patient has one note, so nothing of a patient is ever remembered. Presidio finds only: it replaces
nothing and verifies nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from _common import ROOT, parser, report, run, say
from residency.core.types import RawNote, Span
from residency.deid.dates import dates_of
from residency.deid.engine import Deidentifier, normalised, replace_findings
from residency.deid.find import resolve
from residency.deid.known import known_finder
from residency.deid.options import Deid
from residency.deid.rules import rules, rules_of
from residency.deid.surrogates import surrogates
from residency.deid.vault import Vault
from residency.deid.view import View
from residency.synth.clinical_notes import records
from residency.synth.hospital_notes import notes

SIZE = 1500
PRESIDIO = ("presidio-analyzer==2.2.366", "spacy>=3.8")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--notes", type=int, default=1000, help="per language (default 1,000)")
    options.add_argument("--rounds", type=int, default=5, help="the median counts (default 5)")
    options.add_argument(
        "--presidio", type=int, default=300, help="notes that Presidio is given (0: none)"
    )
    given = options.parse_args()
    if given.quick:
        given.notes, given.rounds, given.presidio = 20, 1, 0
    rows = []
    for lang in ("vi", "zh", "en"):
        made = list(long_notes(lang, given.notes))
        rate, spread, shares = timed(lang, made, given.rounds)
        other = f"{presidio(lang, made[: given.presidio]):,.0f}" if given.presidio else "-"
        length = sum(len(one.text) for one in made) / len(made)
        rows.append(
            [lang, f"{len(made):,}", f"{length:,.0f}", f"{rate:,.0f}", spread, other, shares]
        )
        say(" | ".join(rows[-1]))
    columns = (
        "language",
        "notes",
        "mean characters",
        "notes/s",
        "slowest and fastest round",
        "Presidio, notes/s",
        "share of stages",
    )
    report("deid_speed", given, columns, rows)


def long_notes(lang: str, count: int) -> Iterator[RawNote]:
    """Notes of about 1,500 characters."""
    patients = groupby(notes(lang, count * 4, seed=5), key=lambda one: one.note.patient)
    for made, (_, planted) in enumerate(islice(patients, count)):
        own = [one.note for one in planted]
        text, spans = "", list[Span]()
        for one in own:
            spans += [
                msgspec.structs.replace(s, start=s.start + len(text), end=s.end + len(text))
                for s in one.spans
            ]
            text += one.text.rstrip("\n") + "\n"
        for filler in records(lang, 8, seed=made) if len(text) < SIZE else ():
            text += filler.text.rstrip("\n") + "\n"
        end = max(text.rfind("\n", SIZE - 100, SIZE + 100), SIZE - 100)
        kept = tuple(span for span in spans if span.end <= end)
        yield msgspec.structs.replace(own[0], text=text[:end], spans=kept)


def timed(lang: str, made: list[RawNote], rounds: int) -> tuple[float, str, str]:
    """Notes a second, the spread over rounds, and the shares of the stages."""
    with tempfile.TemporaryDirectory() as folder:
        vault = Vault.open(Path(folder), os.urandom(32))
        vault.begin()
        engine = Deidentifier(Deid(), vault)
        for one in made[:100]:
            engine.process(one)
        rates = []
        for _ in range(rounds):
            forget(vault)
            begun = time.process_time()
            for one in made:
                engine.process(one)
            rates.append(len(made) / (time.process_time() - begun))
        forget(vault)
        shares = stages(engine, lang, made)
        vault.close()
    return median(rates), f"{min(rates):,.0f} to {max(rates):,.0f}", shares


def forget(vault: Vault) -> None:
    """Nothing of a patient is remembered from the round before."""
    known_finder.cache_clear()
    surrogates.cache_clear()
    vault._known.clear()


def stages(engine: Deidentifier, lang: str, made: list[RawNote]) -> str:
    """The share of each stage, each over all notes by itself."""
    spent: dict[str, float] = {}

    def each(name: str, do: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        begun = time.process_time()
        found = [do(*row) for row in zip(*columns, strict=True)]
        spent[name] = time.process_time() - begun
        return found

    edits = [normalised(one.text) for one in made]
    views = each("fold", lambda one: folded(one, lang), made)
    own = each(
        "the row's identifiers",
        lambda one, view: (k := known_finder(one.identifiers, lang), list(k.written(view))),
        made,
        views,
    )
    dates = each("dates", dates_of, views)
    found = each("rules, names", rules_of(lang).search, views, dates)
    found = each("resolve", lambda a, b: resolve([*a, *b[1]]), found, own)
    drawn = each(
        "secret",
        lambda one, k: surrogates(engine.vault.secret(one.patient), lang, k[0].keys),
        made,
        own,
    )
    new = each(
        "replace", replace_findings, views, dates, found, drawn, [engine.settings] * len(views)
    )
    results = each("apply", lambda view, edit: edit.apply(view.text), views, new)
    each("scan again", lambda text, k: engine.left(text, lang, k[0]), results, own)
    each(
        "carry spans",
        lambda one, a, b: (a.then(b) if a.pieces else b).project_spans(one.text, one.spans),
        made,
        edits,
        new,
    )
    whole = sum(spent.values())
    return ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in spent.items())


def folded(one: RawNote, lang: str) -> View:
    """The note's text and its other forms."""
    view = View(normalised(one.text).apply(one.text), lang)
    _ = view.shown, view.low, view.folded, view.low_words, view.folded_words, view.numbers
    return view


def presidio(lang: str, made: list[RawNote]) -> float:
    """Notes a second of Presidio with the patterns of our rules and no language model, in an
    environment of its own."""
    python = environment()
    texts = [normalised(one.text).apply(one.text) for one in made]
    patterns = [(rule.kind, rule.pattern) for name in ("common", lang) for rule in rules(name)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.json"
        path.write_text(json.dumps({"lang": lang, "texts": texts, "patterns": patterns}), "utf-8")
        done = subprocess.run(
            [python, ROOT / "benchmarks/_deid_presidio.py", path],
            capture_output=True,
            text=True,
            check=True,
        )
    return len(texts) / float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def environment() -> Path:
    """Python of the environment that holds Presidio; made once, under .bench/."""
    folder = ROOT / ".bench/presidio"
    python = folder / "bin/python"
    if not (folder / "ready").is_file():
        say(f"installing {', '.join(PRESIDIO)} into {folder.relative_to(ROOT)} ...")
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *PRESIDIO], check=True, stdout=sys.stderr
        )
        (folder / "ready").touch()
    return python


if __name__ == "__main__":
    run(main)
