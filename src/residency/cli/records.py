"""The verbs of records: from a hospital's database to notes that may be learned from, their
parts, and where a patient's have gone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residency.cli.shared import (
    Overrides,
    RecipePath,
    app,
    argument,
    load,
    option,
    say,
    table,
    terminal,
    tracking,
)
from residency.core.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from residency.corpus.splitfile import SplitFile
    from residency.workflows.deidentify import Outcome
    from residency.workflows.patients.trace import Found


@app.command()
def extract(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Take what is new at the hospital's source, encrypted.

    Needs the recipe's section extract and the zone's key in the environment. Notes lie in the
    identified zone and are removed after extract.keep days; residency deid does this first by
    itself.
    """
    from residency.workflows.extract import extract

    loaded = load(recipe, overrides)
    with tracking() as tracker:
        done = extract(loaded, tracker)
    not_taken = sum(done.skipped.values())
    changed = f"{done.amended} amended, {done.removed} removed, "
    say(
        f"{done.taken} new notes, {changed if done.amended or done.removed else ''}"
        f"{done.again} taken before, {not_taken} rows not taken; {done.held} notes in the zone",
    )
    if done.candidates:
        say(
            f"{done.candidates} pairs of patients share a name and a birth date; write yes or no "
            f"beside each in {loaded.name}.candidates.csv in the zone"
        )


@app.command()
def deid(
    recipe: Annotated[Path | None, argument("[RECIPE]", help="A recipe (YAML).")] = None,
    overrides: Overrides = None,
    text: Annotated[
        Path | None,
        option("--text", help="A text file, or a folder with .txt files, instead of a recipe."),
    ] = None,
    lang: Annotated[str, option("--lang", help="Of the texts: vi, zh or en.")] = "",
    out: Annotated[Path | None, option("--out", help="A new folder for the texts.")] = None,
    profile: Annotated[
        str, option("--profile", help="safe-harbor, pseudonymised or anonymised.")
    ] = "pseudonymised",
    tagger: Annotated[
        str, option("--tagger", help="on, off (rules alone: faster, finds less) or a folder.")
    ] = "on",
) -> None:
    """De-identify what is new in the hospital's database, or plain text.

    Of a recipe it needs the sections extract and deid, and the zone's key in the environment.
    Nothing is written outside the zone unless the release check passes and nobody has to decide on
    a place of doubt (else exit 2); an interrupted command goes on where it was cut off. With --text
    no database, recipe or key is needed: columns are not known, every file is a patient of its own,
    and nothing is kept.
    """
    from residency.workflows.deidentify import deidentify

    if text is not None:
        _deid_texts(text, lang, out, {"profile": profile, "tagger": tagger})
        return
    if recipe is None:
        raise UserError("deid: name a recipe, or texts with --text.")
    loaded = load(recipe, overrides)
    with tracking() as tracker:
        outcome = deidentify(loaded, tracker)
    terminal().print(_deid_table(outcome))
    if outcome.final and outcome.extracted is None:
        say(
            "the vault was destroyed, so nothing can be added; new notes need another name, zone "
            "and deid.out",
        )
    say(
        f"{outcome.finder}\n{outcome.notes} notes ({outcome.new} new) in {outcome.out}, profile "
        f"{outcome.profile}",
    )


def _deid_texts(text: Path, lang: str, out: Path | None, given: dict[str, str]) -> None:
    """De-identify plain text."""
    from residency.core.part import parse
    from residency.deid.options import Deid
    from residency.workflows.deidentify_texts import deidentify_texts

    if out is None or lang not in ("vi", "zh", "en"):
        raise UserError("deid --text: say the language with --lang vi, zh or en, and --out FOLDER.")
    with tracking() as tracker:
        outcome = deidentify_texts(text, lang, out, parse(Deid, given, "--text"), tracker)
    terminal().print(_deid_table(outcome))
    say(outcome.finder)
    say(f"{outcome.notes} texts in {outcome.out}, profile {outcome.profile}")


def _deid_table(outcome: Outcome) -> Table:
    """What was replaced, and what was not released."""
    found = table("what", "how many", right=["how many"], title="De-identification")
    for kind, count in outcome.replaced.items():
        found.add_row(f"{kind.replace('_', ' ')} replaced", f"{count:,}")
    for reason, count in outcome.refused.items():
        found.add_row(f"refused: {reason}", f"{count:,}")
    found.add_row("labelled spans cut by an identifier", f"{sum(outcome.destroyed.values()):,}")
    gate = outcome.gate
    found.add_row(
        "planted identifiers that came out",
        f"{gate.leaked} of {gate.canaries} (95 %: at most {gate.upper_bound:.1%})",
    )
    return found


@app.command()
def pubmed(
    query: Annotated[
        str,
        argument("QUERY", help='As at PubMed, e.g. "hepatocellular carcinoma[mesh]".'),
    ] = "",
    out: Annotated[Path, typer.Option("--out", help="JSON lines of public notes.")] = Path(
        "data/abstracts.jsonl"
    ),
    most: Annotated[int, typer.Option("--most", help="The most relevant so many.")] = 1000,
    email: Annotated[str, option("--email", help="Yours, which NCBI wants to know.")] = "",
    file: Annotated[
        Path | None,
        option("--file", help="An XML file of PubMed's instead of a search: no network."),
    ] = None,
) -> None:
    """Fetch abstracts of articles, or read them from PubMed's XML.

    Only the query, the address and, where the environment holds one, NCBI_API_KEY leave the
    machine. An interrupted command goes on where it was cut off. residency synth makes questions
    and answers of them.
    """
    from residency.workflows.literature import convert, fetch

    if bool(query) == (file is not None):
        raise UserError("pubmed: give either a query, or an exported file with --file.")
    if file is not None:
        left: Counter[str] = Counter()
        count = convert(file, out, left)
        for why, number in left.items():
            say(f"left out: {why}: {number:,}")
    else:
        with tracking() as tracker:
            count = fetch(query, out, email, most, tracker)
    say(f"{count:,} abstracts in {out}")


@app.command()
def synth(
    source: Annotated[
        Path,
        argument("ABSTRACTS", help="What residency pubmed wrote."),
    ],
    out: Annotated[Path, typer.Option("--out", help="JSON lines in the Alpaca format.")] = Path(
        "data/pairs.jsonl"
    ),
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="conclusions: questions that titles ask, answered by the authors' conclusions, no "
            "model; or a base, a run, or the "
            "address of a server with OpenAI's chat completions.",
        ),
    ] = "conclusions",
    model: Annotated[str, option("--model", help="With a server: its model.")] = "",
    key: Annotated[
        str,
        option("--key", help="With a server: the environment variable that holds its key."),
    ] = "",
    pairs: Annotated[
        int, typer.Option("--pairs", min=1, max=20, help="Asked of a model for each abstract.")
    ] = 3,
) -> None:
    """Make questions and answers of abstracts, for instruction tuning.

    What a model writes is kept only where it stands on its abstract: figures and words are looked
    for there, questions that need the text and repeated questions are left out, each reason is
    counted. Every pair says who wrote it.
    """
    from residency.workflows.literature import OWN, make_pairs

    with tracking() as tracker:
        made = make_pairs(source, out, by, model, key, pairs, tracker)
    for why, count in made.left.items():
        say(f"left out: {why}: {count:,}")
    what = "titles that ask a question" if by == OWN else "abstracts"
    say(
        f"{made.pairs:,} questions with answers from {made.asked:,} {what} ({made.abstracts:,} "
        f"abstracts) in {out}",
    )


PatientId = Annotated[
    str,
    argument(
        "PATIENT",
        help="The hospital's id, where the zone's vault and key are at hand, or the group of the "
        "notes; - reads it from standard "
        "input, so that it stands in no list of commands.",
    ),
]

Folders = Annotated[
    list[Path] | None,
    argument(
        "[PATH]...",
        help="Recipes, runs, files of notes, or folders that hold them; . if not given.",
    ),
]


@app.command()
def split(
    recipe: Annotated[
        Path,
        argument("RECIPE", help="A recipe (YAML); with --verify a split file."),
    ],
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        option("--output", "-o", help="Folder to write to; split/ beside the recipe if not given."),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Prove that the split of a file (NAME.split.json) still holds."
        ),
    ] = False,
) -> None:
    """Deal the notes out to train, dev and test, and prove it.

    Patients, equal texts, near-duplicates, derived notes and source documents stay together, and
    labels are equally common in all parts. Writes NAME.split.json and a one-page report; a run with
    the same recipe has the same split. With --verify nothing is written: exit 2 where a file has
    changed, or something stands in two parts.
    """
    from residency.core.errors import UserError
    from residency.corpus import splitfile
    from residency.workflows.split import split

    if verify:
        if overrides or output:
            raise UserError(
                "--verify: takes one split file and nothing else, e.g. residency split --verify "
                "split/notes.split.json."
            )
        held = splitfile.verify(recipe)
        say(
            f"{recipe}: holds ({len(held.split.parts):,} notes, digest {held.split.digest[:16]})",
        )
        return
    loaded = load(recipe, overrides)
    folder = output or recipe.parent / "split"
    with tracking() as tracker:
        files = split(loaded, folder, tracker)
    for file in files:
        terminal().print(_split_table(file))
        for words in file.warnings:
            say(f"note: data.{file.name}: {words}.")
        say(f"{folder / (file.name + splitfile.SUFFIX)}  digest {file.split.digest[:16]}")
    say(f"{folder / 'report.html'}")


@app.command()
def fhir(
    tables: Annotated[
        Path,
        argument("FOLDER", help="Synthea's CSV tables, patients.csv among them."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the bundles, one file for each patient."),
    ] = Path("fhir"),
) -> None:
    """Write Synthea's tables as FHIR R4 bundles.

    Data of format fhir asks questions about such bundles; card fhir answers them with references.
    """
    from residency.ingest.synthea import write_bundles

    say(f"{write_bundles(tables, output):,} patients in {output}")


def _split_table(file: SplitFile) -> Table:
    """Notes and labels of the parts."""
    from rich.markup import escape

    from residency.core.types import PARTS

    sizes = Counter(file.split.parts.values())
    parts = [part for part in PARTS if sizes[part]]
    title = f"data.{escape(file.name)}: {file.split.how}"
    found = table("", *parts, right=parts, title=title)
    found.add_row("notes", *(f"{sizes[part]:,}" for part in parts))
    for label, counts in file.split.balance.items():
        found.add_row(escape(label), *(f"{counts.get(part, 0):,}" for part in parts))
    return found


@app.command()
def trace(
    patient: PatientId,
    paths: Folders = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print everything found as JSON, line numbers and ids too."),
    ] = False,
) -> None:
    """List everything that a patient reached.

    Rows of data files, parts of splits, predictions, reports, models and what was made from them,
    the secret in the vault. Changes nothing; the patient's id is neither printed nor kept.
    """
    import msgspec

    from residency.workflows.patients.search import find, identify
    from residency.workflows.patients.trace import trace as traced

    places = find(paths or [Path()])
    found = traced(identify(_ask(patient), places), places)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    if found:
        terminal().print(_trace_table(found))
    say(_counted(found) if found else "Nothing of this patient was found.")
    _without_key(places.zones, places.key)
    _name_backups(places.given)


@app.command()
def erase(
    patient: PatientId,
    paths: Folders = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without, only what would be done is shown.")
    ] = False,
) -> None:
    """Remove a patient from data and runs, and mark the models.

    Takes out the rows of data files, predictions and reports, the ids in splits and the secret in
    the vault; models that learned from the patient get a mark that is shown wherever they are used.
    The erasure log (erasures.jsonl, in the zone if there is one) keeps a keyed hash instead of the
    id, so the zone's key must be in the environment. An interrupted erase goes on.
    """
    from residency.deid.vault import key_from
    from residency.workflows.patients import erase as erasing
    from residency.workflows.patients.erasure_log import ErasureLog
    from residency.workflows.patients.search import find, identify
    from residency.workflows.patients.trace import trace as traced

    given = paths or [Path()]
    places = find(given)
    log = ErasureLog(erasing.log_of(places, given), key_from(places.key))
    whom = identify(_ask(patient), places)
    if not yes:
        found = traced(whom, places)
        if found:
            terminal().print(_trace_table(found))
            say(f"{_counted(found)} Nothing was changed: erase with --yes.")
        else:
            say("Nothing of this patient is left.")
        return
    done = erasing.erase(whom, places, log)
    if done is None:
        before = log.finished_at(erasing.hashes_of(whom, log))
        say(
            "Nothing of this patient is left" + (f": erased {before}." if before else " here."),
        )
        return
    say(
        f"{done.rows:,} rows removed, {done.models} model{'' if done.models == 1 else 's'} marked, "
        f"{done.secrets} secret{'' if done.secrets == 1 else 's'} removed from the vault; recorded "
        f"in {done.log}",
    )
    _name_backups(places.given)


def _ask(patient: str) -> str:
    import sys

    return sys.stdin.readline().strip() if patient == "-" else patient


def _counted(found: list[Found]) -> str:
    models = sum(one.what in ("model", "derived model") for one in found)
    rows = sum(one.rows for one in found if one.lines)
    return (
        f"{rows:,} rows in {sum(bool(one.lines) for one in found)} files, {models} "
        f"model{'' if models == 1 else 's'}."
    )


def _without_key(zones: tuple[Path, ...], key: str) -> None:
    import os

    if zones and not os.environ.get(key):
        say(
            f"The vault was not asked: {key} is not set, so PATIENT was taken for the group of the "
            "notes.",
        )


def _name_backups(folders: tuple[Path, ...]) -> None:
    from residency.workflows.patients.holdings import sealed

    if backups := ", ".join(map(str, sealed(folders))):
        say(
            f"Not looked into, and as they were: {backups}. Make a new backup after an erasure and "
            "delete the older ones."
        )


def _trace_table(found: list[Found]) -> Table:
    listed = table("what", "where", "rows", "lines or notes", right=["rows"])
    for one in found:
        some = [str(line) for line in one.lines[:6]]
        where = ", ".join(some) + (", ..." if len(one.lines) > 6 else "")
        detail = (where or one.detail) + (" (remove by hand)" if one.by_hand else "")
        listed.add_row(one.what, one.path, f"{one.rows:,}", detail)
    return listed
