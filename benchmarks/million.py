"""From a database to released notes at constant memory, with kill -9 on the way: nothing lost,
nothing doubled.

Invented notes (a few thousand of the generator, told over and over for other patients with other
ids) stand in SQLite. ``residency deid`` is killed twice, in the middle of extraction and in the
middle of de-identification, and then left to end. Afterwards the set of released ids is compared
with the set that the database and the vault give, note by note. Memory is the most that all
processes of the command held at one time, looked at twice a second. The whole: python
benchmarks/million.py --notes 1000000
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from _common import parser, report, run, say
from residency.core.errors import UserError

KEY = "c3" * 32
COLUMNS = (
    "name",
    "relative",
    "phone",
    "national_id",
    "insurance",
    "address",
    "record",
    "birth_date",
)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--notes", type=int, default=1_000_000)
    options.add_argument("--lang", choices=("vi", "zh", "en"), default="vi")
    options.add_argument("--base", type=int, default=4000, help="different notes of the generator")
    options.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    given = options.parse_args()
    if given.quick:
        given.notes, given.base = 3000, 300
    folder = Path(tempfile.mkdtemp(prefix="million-", dir=given.folder))
    try:
        size = fill(folder / "hospital.db", given.notes, given.lang, given.base)
        recipe(folder, given.lang, given.threads)
        say(f"{given.notes:,} notes in a database of {size / 1e6:,.0f} MB")
        found = road(folder, given.notes)
        found |= compared(folder)
    finally:
        shutil.rmtree(folder)
    row = [
        f"{given.notes:,}",
        given.lang,
        f"{found['released']:,}",
        f"{found['refused']:,}",
        f"{found['lost']:,}",
        f"{found['doubled']:,}",
        f"{found['foreign']:,}",
        f"{found['peak_mb']:,.0f}",
        f"{found['seconds']:,.0f}",
        f"{given.notes / found['seconds']:,.0f}",
    ]
    columns = (
        "notes",
        "language",
        "released",
        "refused",
        "lost",
        "doubled",
        "not of the database",
        "peak MB, all processes",
        "seconds",
        "notes/s",
    )
    report("million", given, columns, [row], measured=found)
    if found["lost"] or found["doubled"] or found["foreign"]:
        raise UserError("notes were lost or doubled.")


def fill(path: Path, count: int, lang: str, base: int) -> int:
    """Write the database as a stream; its size in bytes."""
    from residency.synth.hospital_notes import notes

    made = [planted.note for planted in notes(lang, min(base, count), seed=11)]
    with sqlite3.connect(path) as database:
        names = ", ".join(f"{name} TEXT" for name in COLUMNS)
        database.execute(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, patient TEXT, written_at TEXT, text "
            f"TEXT, {names})"
        )
        marks = ", ".join("?" * (4 + len(COLUMNS)))
        rows = (
            (
                number,
                f"{number // len(made)}-{note.patient}",
                str(note.written_at),
                note.text,
                *(values[name] for name in COLUMNS),
            )
            for number, note in zip(range(1, count + 1), itertools.cycle(made), strict=False)
            for values in (dict(reversed(note.identifiers)),)
        )
        database.executemany(f"INSERT INTO notes VALUES ({marks})", rows)
    return path.stat().st_size


def recipe(folder: Path, lang: str, jobs: int) -> None:
    plan = {
        "schema": 1,
        "name": "million",
        "extract": {
            "url": "sqlite:///hospital.db",
            "notes": "SELECT * FROM notes",
            "columns": {"written_at": "written_at"},
            "identifiers": {name: name for name in COLUMNS},
            "lang": lang,
        },
        "deid": {"profile": "pseudonymised", "jobs": jobs},
        "data": {"notes": {"format": "jsonl", "path": "data/deidentified.jsonl", "lang": lang}},
        "tasks": [{"card": "clinical", "data": "notes"}],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(plan), "utf-8")


def road(folder: Path, count: int) -> dict[str, Any]:
    """Two commands that are killed, and one that ends; seconds and memory of all."""
    peak, seconds, states = 0.0, 0.0, []
    for what in ("extraction", "de-identification", ""):
        begun = time.perf_counter()
        died, most = command(folder, what, count)
        seconds += time.perf_counter() - begun
        peak = max(peak, most)
        states.append(f"killed in {what}: {died}" if what else f"ended: {died}")
        say(
            f"{states[-1]}; {stored(folder):,} notes in the zone, {lines(folder):,} made; "
            f"{most:,.0f} MB, {seconds:,.0f} s so far"
        )
    return {"peak_mb": peak, "seconds": seconds, "commands": states}


def command(folder: Path, kill_in: str, count: int) -> tuple[int, float]:
    """(exit status, peak MB of all its processes together) of one command, killed half way through
    one of its steps."""
    environment = {**os.environ, "RESIDENCY_KEY": KEY, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "residency.cli", "deid", "recipe.yaml"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(held(pid) for pid in family(process.pid)))
        half = (
            stored(folder) >= count // 2 if kill_in == "extraction" else lines(folder) >= count // 2
        )
        if kill_in and half:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.5)
    if not kill_in and process.returncode:
        raise UserError(
            f"the command ended with {process.returncode}: "
            f"{(process.stderr or sys.stdin).read()[-300:]!r}"
        )
    return process.returncode, peak


def family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return [pid]


def held(pid: int) -> float:
    """Memory that a process holds now, in MB."""
    try:
        found = [
            line
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        ]
        return int(found[0].split()[1]) / 1024 if found else 0.0
    except OSError:
        return 0.0


def stored(folder: Path) -> int:
    """Notes in the zone's store."""
    try:
        with sqlite3.connect(
            f"file:{folder}/identified/million.notes.sqlite?mode=ro", uri=True, timeout=10
        ) as database:
            return int(
                database.execute("SELECT coalesce(sum(notes), 0) FROM segments").fetchone()[0]
            )
    except sqlite3.Error:
        return 0


_counted: dict[Path, tuple[int, int]] = {}


def lines(folder: Path) -> int:
    """Lines of what is being made or was released; a file that grows is counted from where it was
    counted before."""
    path = next(
        (
            p
            for p in (
                folder / "identified/million.partial.jsonl",
                folder / "data/deidentified.jsonl",
            )
            if p.exists()
        ),
        None,
    )
    if path is None:
        return 0
    size, count = _counted.get(path, (0, 0))
    with path.open("rb") as file:
        if path.stat().st_size < size:
            size = count = 0
        file.seek(size)
        while block := file.read(1 << 22):
            size, count = size + len(block), count + block.count(b"\n")
    _counted[path] = size, count
    return count


def compared(folder: Path) -> dict[str, Any]:
    """Released ids beside those that the database and the vault give."""
    from residency.deid.engine import keyed
    from residency.deid.vault import Vault

    found: set[str] = set()
    count = 0
    with (folder / "data/deidentified.jsonl").open("rb") as file:
        for line in file:
            found.add(json.loads(line)["id"])
            count += 1
    vault = Vault.open(folder / "identified", bytes.fromhex(KEY))
    with sqlite3.connect(folder / "hospital.db") as database:
        wanted = {
            keyed(vault.secret(patient), f"note/{id}")
            for id, patient in database.execute("SELECT id, patient FROM notes")
        }
    vault.close()
    told = json.loads((folder / "data/deidentified.report.json").read_text("utf-8"))
    refused = sum(told.get("refused", {}).values())
    return {
        "released": count,
        "refused": refused,
        "lost": len(wanted) - len(wanted & found) - refused,
        "doubled": count - len(found),
        "foreign": len(found - wanted),
        "ledger": told["ledger"],
    }


if __name__ == "__main__":
    run(main)
