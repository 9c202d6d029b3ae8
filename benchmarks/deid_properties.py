"""What must hold for every note, counted over many: known identifiers gone, entities whole, dates
at their distances.

Invented hospital notes (residency.synth.hospital_notes) with every identifier's place recorded, through
the whole engine. A known identifier is found where every letter and digit at its recorded place was
replaced. An entity is destroyed without need where a replacement cuts it although no recorded
identifier touches it. A date is moved right where the patient's dates all moved by the same whole
weeks.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter, defaultdict
from datetime import date
from pathlib import Path

from _common import parser, report, run, say
from residency.deid.dates import find_dates
from residency.deid.engine import DeidentifiedNote, Deidentifier, normalised
from residency.deid.options import Deid
from residency.deid.vault import Vault
from residency.synth.hospital_notes import Planted, notes


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--notes", type=int, default=34000, help="per language (default 34,000: 102,000 in all)"
    )
    options.add_argument("--seed", type=int, default=29)
    given = options.parse_args()
    if given.quick:
        given.notes = 60
    rows = []
    for lang in ("vi", "zh", "en"):
        rows.append(counted(lang, given.notes, given.seed))
        say(" | ".join(rows[-1]))
    columns = (
        "language",
        "notes",
        "refused",
        "known identifiers found",
        "entities destroyed without need",
        "surviving entities with other text",
        "full dates moved with the patient's",
        "weekdays changed",
    )
    report("deid_properties", given, columns, rows)


def counted(lang: str, count: int, seed: int) -> list[str]:
    """The row of a language."""
    tally: Counter[str] = Counter()
    moved: dict[str, Counter[int]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        vault = Vault.open(Path(folder), os.urandom(32))
        vault.begin()
        engine = Deidentifier(Deid(), vault)
        for planted in notes(lang, count, seed):
            done = engine.process(planted.note)
            if isinstance(done, DeidentifiedNote):
                entities(planted, done, tally)
                for before, after in dates(planted, done, lang):
                    moved[planted.note.patient][(before - after).days] += 1
            else:
                tally["refused"] += 1
        vault.close()
    together = sum(shifts.most_common(1)[0][1] for shifts in moved.values())
    every = sum(sum(shifts.values()) for shifts in moved.values())
    weekdays = sum(n for shifts in moved.values() for days, n in shifts.items() if days % 7)
    return [
        lang,
        f"{count:,}",
        f"{tally['refused'] / count:.2%}",
        f"{tally['found']:,} of {tally['known']:,}",
        f"{tally['needless']:,} of {tally['spans']:,}",
        f"{tally['other']:,} of {tally['kept']:,}",
        f"{together:,} of {every:,}",
        f"{weekdays:,}",
    ]


def entities(planted: Planted, done: DeidentifiedNote, tally: Counter[str]) -> None:
    """Count what became of identifiers and labelled spans."""
    before = normalised(planted.note.text)
    text = before.apply(planted.note.text)
    covered = {i for one in done.findings for i in range(one.start, one.end)}
    marks = []
    for mark in planted.marks:
        place = before.project(mark.start, mark.end)
        if place:
            marks.append(place)
            if mark.known:
                tally["known"] += 1
                tally["found"] += all(i in covered for i in range(*place) if text[i].isalnum())
    for span in planted.note.spans:
        place = before.project(span.start, span.end)
        if place is None:
            continue
        tally["spans"] += 1
        free = not any(a < place[1] and place[0] < b for a, b in marks)
        landed = done.edits.project(span.start, span.end)
        if landed is None:
            tally["needless"] += free
            continue
        tally["kept"] += 1
        inside = [one for one in done.findings if place[0] <= one.start and one.end <= place[1]]
        tally["other"] += not inside and done.note.text[slice(*landed)] != text[slice(*place)]


def dates(planted: Planted, done: DeidentifiedNote, lang: str) -> list[tuple[date, date]]:
    """Full dates of a note and what stands in their place."""
    after = {mention.start: mention for mention in find_dates(done.note.text, lang)}
    before = normalised(planted.note.text)
    pairs = []
    for mention in find_dates(before.apply(planted.note.text), lang):
        back = (
            before.back(mention.start, mention.end)
            if before.pieces
            else (mention.start, mention.end)
        )
        landed = done.edits.project(*back) if back else None
        new = after.get(landed[0]) if landed else None
        if (
            mention.value
            and mention.precision == "day"
            and new
            and new.value
            and new.precision == "day"
        ):
            pairs.append((mention.value, new.value))
    return pairs


if __name__ == "__main__":
    run(main)
