"""De-identification: what it finds and harms, its speed, and the whole road killed on the way."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, groupby, islice
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

import _common as common
import _deid_cases as material
from _common import LANGUAGES, Subject, Table, report, say
from _deid_cases import COLUMNS, WORLDS, Case, Tally
from residency.core.errors import UserError
from residency.core.files import write_text
from residency.core.types import RawNote, Span
from residency.deid.engine import DeidentifiedNote, keyed, normal_form
from residency.deid.find import resolve
from residency.deid.options import Deid
from residency.deid.rules import rules, rules_of
from residency.deid.tagger import tagger_of
from residency.deid.vault import Vault
from residency.synth.clinical_notes import records
from residency.synth.hospital_notes import Planted, notes

SUBJECT = Subject(__doc__)
measure = SUBJECT.measure
PEERS = {
    "presidio": ("presidio, same patterns", "presidio-analyzer==2.2.366", "spacy>=3.8"),
    "openmed": ("openmed, rules only", "openmed==3.1.0"),
}
Scored = list[tuple[str, str, Tally]]


@measure(
    "--notes 2000 --presidio 300 --openmed 60 --langs vi zh en --worlds development validation "
    "test --no-public --seed 1",
    quick="--notes 60 --presidio 0 --openmed 0",
    worlds=WORLDS,
    langs=LANGUAGES,
)
def scoreboard(given: Namespace) -> None:
    """Ours with and without the row's identifiers, Presidio with the same patterns, and openmed.

    Notes of invented hospitals and public texts, all of them seen while the rules were written.
    --presidio, --openmed: so many notes for the slow ones. notes/s and core: processor time from a
    RawNote in memory to a verified Note; for the others, of finding alone.
    """
    parts: dict[str, dict[tuple[str, str], list[Case]]] = {"": {}}
    for lang, name in [(lang, name) for lang in given.langs for name in given.worlds]:
        parts[""][lang, name] = list(material.of_world(name, lang, given.notes, given.seed))
    if not given.no_public:
        parts["-public"] = material.public()
    for suffix, texts in parts.items():
        scored = [line for key, cases in texts.items() for line in scores(*key, cases, given)]
        tell(given, scored, "deid-kinds" + suffix, given.name + suffix)


def tell(given: Namespace, scored: Scored, kinds_name: str, name: str) -> None:
    """Report what was scored, by kind of identifier and as a whole."""
    table, kinds = Table(" | ".join(COLUMNS)), Table("")
    table.lines += [tally.row(lang, text) for lang, text, tally in scored]
    kinds.lines = material.kinds_table(scored)
    report(given, kinds, name=kinds_name)
    report(given, table, name=name)


ABOUT = "What was written, and how it is counted: `tests/deid/written/README.md`.\n"


@measure(
    "--set choose --again --settings tagger=off tagger=on profile=safe-harbor,tagger=on "
    "profile=anonymised,tagger=on --presidio 0 --openmed 0 --langs vi zh en",
    quick="--langs en",
    set=("choose", "final", "later"),
    langs=LANGUAGES,
)
def written(given: Namespace) -> None:
    """Notes written without sight of the rules: one set to choose on, two scored once.

    --settings: settings of deid (KEY=VALUE, or several with commas), each a system, without and
    with the row's columns; e.g. profile=safe-harbor,tagger=on.
    --set final, later: refused where its page stands, unless --again: its first figures stand.
    --presidio, --openmed: so many notes of a language for them. Intervals are over notes.
    """
    name = f"deid-written-{given.set}"
    page = common.RESULTS / f"{name}.md"
    once = given.set != "choose"
    if once and (given.quick or (page.exists() and not given.again)):
        raise UserError(f"this set is scored once and whole, see {page.name}; or add --again.")
    text = f"# De-identification: written notes, set {given.set}\n\n{ABOUT}"
    if once:
        write_text(page, text)  # before anything of it is seen
    cases = {lang: material.written_notes(given.set, lang) for lang in given.langs}
    scored = [one for lang in cases for one in scores(lang, given.set, cases[lang], given)]
    tell(given, scored, f"{name}-kinds", name)
    blocks = (f"\n<!-- results: {one} -->\n<!-- end -->\n" for one in (name, f"{name}-kinds"))
    if not given.quick:
        write_text(page, common.filled(text + "".join(blocks)))


def scores(lang: str, name: str, cases: Sequence[Case], given: Namespace) -> Scored:
    """Every system on the same cases; the slow ones on the first of them."""
    bare = [replace(one, note=msgspec.structs.replace(one.note, identifiers=())) for one in cases]
    known, tallies = any(case.note.identifiers for case in cases), list[Tally]()
    for setting in vars(given).get("settings", ["tagger=off"]):
        with material.engine(**dict(p.partition("=")[::2] for p in setting.split(","))) as ready:
            for how, asked in (("nothing known", bare), ("with columns", cases))[: 1 + known]:
                tallies.append(Tally(f"residency, {setting}, {how}"))
                for case in asked:
                    tallies[-1].ask(ready, case)
    for tool in PEERS:
        if few := vars(given)[tool]:
            found, seconds = peer(tool, lang, [case.text for case in cases[:few]])
            tallies.append(Tally(PEERS[tool][0], seconds=seconds))
            for case, ranges in zip(cases, found, strict=False):
                tallies[-1].add(case, [(start, end) for start, end in ranges])
    say(f"{lang}, {name}: {len(cases):,} notes, {len(tallies)} systems")
    return [(lang, name, tally) for tally in tallies]


def peer(tool: str, lang: str, texts: Sequence[str]) -> tuple[list[Any], float]:
    """Findings and seconds of a tool in an environment of its own; it knows no identifiers."""
    task: dict[str, Any] = {"lang": lang, "texts": texts}
    every = [rule for pack in ("common", lang) for rule in rules(pack)]
    task["patterns"] = [(rule.kind, plainly(rule.pattern)) for rule in every]
    python = common.foreign_python(tool, *PEERS[tool][1:])
    with common.folder() as work:
        (work / "notes.json").write_text(json.dumps(task), "utf-8")
        command = [python, common.HERE / "_deid_peers.py", tool, work / "notes.json"]
        result = json.loads(common.ended(command, 1).splitlines()[-1])
    return result["found"], result["seconds"]


def plainly(pattern: str) -> str:
    """A pattern whose group v is what is found, as Presidio takes the whole match: what stands
    before v becomes a look-behind that the regex module allows."""
    head, mark, tail = pattern.partition("(?P<v>")
    if not mark or "(?P<v>" in tail or "|" in tail.rpartition(")")[2]:
        return pattern
    return f"{head}\\K(?:{tail}"


@measure("--most 100000 --tagger off", quick="--most 50", tagger=("off", "on"))
def corpora(given: Namespace) -> None:
    """How much rules, and the tagger, find in texts of medical corpora with hardly any identifier.

    An upper limit of what is taken without need: the real dates and names in them count as well. A
    mention is touched where a letter of a marked disease, drug or other entity is found; marked
    places, organisations and dates are none. The tagger reads those with marked mentions.
    """
    tagger = tagger_of(Deid(tagger=given.tagger))
    table = Table("text | language | letters | findings per 1,000 | mentions touched | by kind")
    found_in = islice(medical(common.shared_data(), given.most), 3 if tagger else None)
    for name, lang, texts in found_in:
        kinds, tally = Counter[str](), Tally(name)
        for text, spans in islice(texts, given.most):
            case = material.case_of(Planted(RawNote("", "", text, lang, spans=spans), ()))
            found = resolve(rules_of(lang).find(case.text, lang))
            found = tagger.add("", case.text, found)[0] if tagger else found
            kinds.update(one.kind for one in found)
            tally.add(case, [(one.start, one.end) for one in found])
        n, each = tally.sums, ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        rate, touched = 1000 * n["findings"] / n["size"], f"{n['cut']:,} of {n['clinical']:,}"
        table.add(f"{name} | {lang} | {n['size']:,} | {rate:.3f} | {touched} | {each}")
    report(given, table, name=given.name + ("-tagger" if tagger else ""))


def medical(data: Path, most: int) -> Iterator[tuple[str, str, Iterable[Any]]]:
    """Name, language, and texts with their marked mentions, of each corpus."""
    for name in ("vietbioner", "cmedqaner", "ncbi"):
        sentences = common.corpus(name)[0]
        lang = common.CORPORA[name]["lang"]
        none = {"Location", "Organisation", "DateTime"}
        made = ((n.text, [one for one in n.spans if one.label not in none]) for n in sentences)
        yield f"{name}, train", lang, made
    plain = dict[tuple[str, str], Iterable[str]]()
    names = next(path for path in (data / "vi/icd10").rglob("*") if path.is_file())
    plain["ICD-10 names", "vi"] = [names.read_text("utf-8")]
    train = json.loads((data / "vi/acrdraid/train.json").read_text("utf-8"))
    plain["acrDrAid, train", "vi"] = [str(one["text"]) for one in train]
    rows = common.huatuo("general")[: min(most, 3000)]
    plain["Huatuo, general", "zh"] = [f"{r['instruction']}\n{r.get('output', '')}" for r in rows]
    liver = (data / "zh/huatuo/liver_cancer.json").read_text("utf-8")
    plain["Huatuo, liver cancer", "zh"] = liver.splitlines()
    with (data / "en/mts_dialog/MTS-Dialog-TrainingSet.csv").open(encoding="utf-8") as file:
        sections = list(csv.DictReader(file))
    for column in ("section_text", "dialogue"):
        plain[f"MTS-Dialog, {column}", "en"] = [row[column] for row in sections]
    for (name, lang), texts in plain.items():
        yield name, lang, ((text, ()) for text in texts)


@measure(
    "--notes 34000 --langs vi zh en --worlds development validation test --seed 29",
    quick="--notes 60",
    worlds=WORLDS,
)
def properties(given: Namespace) -> None:
    """What must hold for every note: known identifiers gone, entities whole, dates at distances.

    --notes invented hospital notes a language and world with every identifier's place recorded, as
    the row's columns know them. An entity is destroyed without need where a letter of it is replaced
    that belongs to no recorded identifier. A date is moved right where the patient's dates all
    moved by the same whole weeks.
    """
    table = Table(
        "language | text | notes | refused | known identifiers found | entities destroyed without "
        "need | full dates moved with the patient's | weekdays changed"
    )
    for lang, name in [(lang, name) for lang in given.langs for name in given.worlds]:
        tally, moved = Tally(name), defaultdict[str, Counter[int]](Counter)
        with material.engine() as ready:
            for case in material.of_world(name, lang, given.notes, given.seed):
                if done := tally.ask(ready, case):
                    moved[case.note.patient].update(shifts(case, done, lang))
        alike = sum(days.most_common(1)[0][1] for days in moved.values() if days)
        weekdays = sum(n for days in moved.values() for shift, n in days.items() if shift % 7)
        n = tally.sums
        table.add(
            f"{lang} | {name} | {given.notes:,} | {tally.refused / given.notes:.2%} | "
            f"{n['own found']:,} of {n['own']:,} | {n['cut']:,} of {n['clinical']:,} | "
            f"{alike:,} of {sum(days.total() for days in moved.values()):,} | {weekdays:,}"
        )
    report(given, table, peak_memory_mb=round(common.peak_memory_mb()))


def shifts(case: Case, done: DeidentifiedNote, lang: str) -> Iterator[int]:
    """By how many days each full date of a note was moved."""
    from residency.deid.dates import find_dates

    after = {mention.start: mention for mention in find_dates(done.note.text, lang)}
    before = normal_form(case.note.text)
    for mention in find_dates(case.text, lang):
        place = (mention.start, mention.end)
        back = before.back(*place) if before.pieces else place
        landed = done.edits.project(*back) if back else None
        new = after.get(landed[0]) if landed else None
        if new and mention.precision == new.precision == "day" and mention.value and new.value:
            yield (mention.value - new.value).days


SIZE = 1500


@measure("--notes 1000 --rounds 5 --presidio 300", quick="--notes 20 --rounds 1 --presidio 0")
def speed(given: Namespace) -> None:
    """Notes of about 1,500 characters a second on one core, beside Presidio with the same patterns.

    Processor time from a RawNote in memory to a verified Note, a process for each round. Every
    patient has one note, so nothing of a patient is ever remembered. Presidio finds only.
    """
    columns = "slowest and fastest round | Presidio, notes/s"
    table = Table(f"language | notes | mean characters | notes/s | {columns}")
    for lang in LANGUAGES:
        call = (timed, lang, given.notes)
        rates = [common.apart(*call, threads=1)["rate"] for _ in range(given.rounds)]
        made, other = [note.text for note in long_notes(lang, given.notes)], "-"
        if given.presidio:
            texts = [normal_form(text).apply(text) for text in made[: given.presidio]]
            other = f"{len(texts) / peer('presidio', lang, texts)[1]:,.0f}"
        table.add(
            f"{lang} | {len(made):,} | {sum(map(len, made)) / len(made):,.0f} | "
            f"{median(rates):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} | {other}"
        )
    report(given, table)


def long_notes(lang: str, count: int) -> Iterator[RawNote]:
    """Notes of about 1,500 characters: a patient's notes joined, filled up with lines of invented
    records and cut at a line end; known identifiers and labelled spans are kept."""
    patients = groupby(notes(lang, count * 4, seed=5), key=lambda one: one.note.patient)
    for number, (_, planted) in enumerate(islice(patients, count)):
        own, text, spans = [one.note for one in planted], "", list[Span]()
        for one in own:
            at, moved = len(text), msgspec.structs.replace
            spans += [moved(s, start=s.start + at, end=s.end + at) for s in one.spans]
            text += one.text.rstrip("\n") + "\n"
        for filler in records(lang, 8, seed=number) if len(text) < SIZE else ():
            text += filler.text.rstrip("\n") + "\n"
        end = max(text.rfind("\n", SIZE - 100, SIZE + 100), SIZE - 100)
        kept = tuple(span for span in spans if span.end <= end)
        yield msgspec.structs.replace(own[0], text=text[:end], spans=kept)


def timed(lang: str, count: int) -> dict[str, float]:
    """Notes a second; warmed up with other notes."""
    made = list(long_notes(lang, count + 50))
    with material.engine() as ready:
        for note in made[count:]:
            ready.process(note)
        begun = time.process_time()
        for note in made[:count]:
            ready.process(note)
        return {"rate": count / (time.process_time() - begun)}


KEY = "c3" * 32
KEYS = ("name", "relative", "phone", "national_id", "insurance", "address", "record", "birth_date")


@measure(
    "--notes 1000000 --lang vi --different 4000 --folder ''", quick="--notes 3000 --different 300"
)
def million(given: Namespace) -> None:
    """From a database to released notes at constant memory, killed on the way: none lost or doubled.

    Invented notes (--different of the generator, told over and over for other patients) in SQLite.
    ``residency deid`` is killed with kill -9 in the middle of extraction and in the middle of
    de-identification, and then left to end. The set of released ids is compared with the set that
    the database and the vault give. Memory is the most that all processes held at one time.
    """
    with tempfile.TemporaryDirectory(dir=given.folder or None) as work:
        road = Road(Path(work), given)
        found = road.travel() | road.compare()
    columns = "released | refused | lost | doubled | not of the database | peak MB, all processes"
    table = Table(f"notes | language | {columns} | seconds | notes/s")
    faults = [found[name] for name in ("lost", "doubled", "foreign")]
    table.add(
        f"{given.notes:,} | {given.lang} | {found['released']:,} | {found['refused']:,} | "
        f"{' | '.join(f'{fault:,}' for fault in faults)} | {found['peak_mb']:,.0f} | "
        f"{found['seconds']:,.0f} | {given.notes / found['seconds']:,.0f}"
    )
    report(given, table, measured=found)
    if any(faults):
        raise UserError("notes were lost or doubled.")


class Road:
    """A database, a recipe and the command that is killed, in a folder."""

    def __init__(self, folder: Path, given: Namespace) -> None:
        self.folder, self.count, self.counted = folder, given.notes, (0, 0)
        made = [one.note for one in notes(given.lang, min(given.different, given.notes), seed=11)]
        with sqlite3.connect(folder / "hospital.db") as database:
            columns = "".join(f", {name} TEXT" for name in KEYS)
            database.execute(
                "CREATE TABLE notes (id INTEGER PRIMARY KEY, patient TEXT, written_at TEXT, "
                f"text TEXT{columns})"
            )
            marks = ", ".join("?" * (4 + len(KEYS)))
            rows = zip(range(1, given.notes + 1), cycle(made), strict=False)
            database.executemany(
                f"INSERT INTO notes VALUES ({marks})",
                (row(number, len(made), note) for number, note in rows),
            )
        recipe = f"""
            {{schema: 1, name: million, extract: {{url: 'sqlite:///hospital.db', notes: SELECT * FROM notes,
              columns: {{written_at: written_at}}, lang: {given.lang},
              identifiers: {{{", ".join(f"{name}: {name}" for name in KEYS)}}}}},
            deid: {{profile: pseudonymised, tagger: off, jobs: {given.threads}}},
            data: {{notes: {{format: jsonl, path: data/deidentified.jsonl, lang: {given.lang}}}}},
            tasks: [{{card: clinical, data: notes}}]}}"""
        (folder / "recipe.yaml").write_text(recipe, "utf-8")

    def travel(self) -> dict[str, Any]:
        """Two commands that are killed, and one that ends; seconds and memory of all."""
        peak, begun, states = 0.0, time.perf_counter(), []
        for what in ("extraction", "de-identification", ""):
            status, most = self.command(what)
            peak = max(peak, most)
            states.append(f"killed in {what}: {status}" if what else f"ended: {status}")
            say(f"{states[-1]}; {self.stored():,} notes in the zone, {self.lines():,} made")
        return {"peak_mb": peak, "seconds": time.perf_counter() - begun, "commands": states}

    def command(self, kill_in: str) -> tuple[int, float]:
        """(exit status, peak MB of all its processes together) of one command, killed half way
        through one of its steps."""
        command = [sys.executable, "-m", "residency.cli", "deid", "recipe.yaml"]
        how: Any = {"env": {**os.environ, "RESIDENCY_KEY": KEY, "OMP_NUM_THREADS": "1"}}
        how |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=self.folder, **how)
        done, peak = self.stored if kill_in == "extraction" else self.lines, 0.0
        while process.poll() is None:
            peak = max(peak, held(process.pid))
            if kill_in and done() >= self.count // 2:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.5)
        if not kill_in and process.returncode:
            said = (process.stderr or sys.stdin).read()[-300:]
            raise UserError(f"the command ended with {process.returncode}: {said!r}")
        return process.returncode, peak

    def stored(self) -> int:
        """Notes in the zone's store."""
        path = f"file:{self.folder}/identified/million.notes.sqlite?mode=ro"
        try:
            with sqlite3.connect(path, uri=True, timeout=10) as database:
                found = database.execute("SELECT coalesce(sum(notes), 0) FROM segments")
                return int(found.fetchone()[0])
        except sqlite3.Error:
            return 0

    def lines(self) -> int:
        """Lines of what is being made or was released, counted on from where it was counted."""
        names = ("identified/million.partial.jsonl", "data/deidentified.jsonl")
        path = next((self.folder / name for name in names if (self.folder / name).exists()), None)
        if path is None:
            return 0
        size, count = self.counted if path.stat().st_size >= self.counted[0] else (0, 0)
        with path.open("rb") as file:
            file.seek(size)
            while block := file.read(1 << 22):
                size, count = size + len(block), count + block.count(b"\n")
        self.counted = size, count
        return count

    def compare(self) -> dict[str, Any]:
        """Released ids beside those that the database and the vault give."""
        with (self.folder / "data/deidentified.jsonl").open("rb") as file:
            released = [json.loads(line)["id"] for line in file]
        vault = Vault.open(self.folder / "identified", bytes.fromhex(KEY))
        with sqlite3.connect(self.folder / "hospital.db") as database:
            rows = database.execute("SELECT id, patient FROM notes")
            wanted = {keyed(vault.secret(patient), f"note/{id}") for id, patient in rows}
        vault.close()
        told = json.loads((self.folder / "data/deidentified.report.json").read_text("utf-8"))
        refused, found = sum(told.get("refused", {}).values()), set(released)
        faults = {"lost": len(wanted - found) - refused, "doubled": len(released) - len(found)}
        faults |= {"foreign": len(found - wanted), "ledger": told["ledger"]}
        return {"released": len(released), "refused": refused, **faults}


def row(number: int, different: int, note: RawNote) -> tuple[Any, ...]:
    """A line of the database: a note of the generator, told for another patient."""
    values = dict(reversed(note.identifiers))
    patient = f"{number // different}-{note.patient}"
    return number, patient, str(note.written_at), note.text, *(values[name] for name in KEYS)


def held(pid: int) -> float:
    """Memory that a process and its children hold now, in MB."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found = [re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())]
    except OSError:
        return 0.0
    return sum(int(one[1]) / 1024 for one in found if one) + sum(held(int(c)) for c in children)


if __name__ == "__main__":
    SUBJECT.main()
