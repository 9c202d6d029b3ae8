"""Where one patient's notes have gone: rows of files, parts of splits, predictions, reports,
models, secrets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from residency.core.errors import ResidencyError, UserError
from residency.core.files import NO_JSON, enumerate_lines, file_digest
from residency.core.types import PARTS, Split, Value
from residency.corpus import load
from residency.corpus.formats.jsonl import Jsonl
from residency.corpus.json_records import identifier
from residency.corpus.leaks import Grouping
from residency.corpus.load import Data
from residency.corpus.splitfile import SUFFIX, SplitFile
from residency.ingest.file_source import find_files
from residency.ingest.sources import AnyFiles
from residency.knowledge.passages import KnowledgeBase
from residency.recipe import Recipe
from residency.workflows.finished import open_run
from residency.workflows.patients import segments
from residency.workflows.patients.erasure_log import LOG
from residency.workflows.patients.holdings import PAGES, Exact, Marks, holdings, quietly
from residency.workflows.patients.search import Patient, Places

CODE = re.compile(r"[0-9a-f]{16}")
"""An id that de-identification made: it means the same note in whatever file it stands."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".crfsuite")
LINKS = ("id", "note", "example")
"""Fields by which rows of a run name the note that they are about."""

What = Literal[
    "data",
    "split",
    "ledger",
    "prediction",
    "report",
    "knowledge base",
    "other file",
    "model",
    "derived model",
    "zone",
    "vault",
]
"""What may hold something of a patient, in the order of the road."""


class Found(Value, frozen=True):
    """One place that a patient reached. Holds ids of notes and numbers, never text."""

    what: What
    path: str
    rows: int = 0
    lines: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()
    """Ids of notes, where the file has lines: of each line."""
    detail: str = ""
    digest: str = ""
    """SHA-256 of the file, of a model's ``artefact.json``."""
    by_hand: bool = False
    """Whether erase cannot take the rows out, by the file's format."""


class DataSet(Value, frozen=True):
    """A data set of a recipe or a run, as far as it matters whose its notes are."""

    data: Data
    files: tuple[Path, ...]
    groups: dict[str, str]
    """Note id -> group."""
    parents: dict[str, tuple[str, ...]]
    """Note id -> notes that it was made from."""
    lines: dict[Path, dict[int, str]]
    """File -> line -> note id."""


class Reached(Value, frozen=True):
    """What a run holds of a patient."""

    found: tuple[Found, ...] = ()
    ids: frozenset[str] = frozenset()
    learned: dict[str, int] = {}
    """Part that models learn from or are chosen with -> notes."""


def trace(patient: Patient, places: Places) -> list[Found]:
    """Everything that the patient reached, in the order of the road.

    Raises ``DataError`` where a data file of a recipe cannot be read: then it is not known what it
    holds.
    """
    found: list[Found] = []
    sets = data_sets(places)
    known = ids_in(sets, patient.groups)
    covered = {path for one in sets for path in one.files}
    for one in sets:
        found += trace_data(one, patient.groups, known)
    for path in places.splits:
        split = read_split(path)
        if split is not None and (ids := ids_of(split, patient.groups, known)):
            found.append(_in_split(path, split, ids))
            known |= ids
    learned: dict[Path, str] = {}
    for run in places.runs:
        reached = trace_run(run, patient.groups, known)
        found += reached.found
        known |= reached.ids
        if words := ", ".join(f"{number} {part}" for part, number in reached.learned.items()):
            learned |= {path.parent: words for path in sorted(run.glob("train/*/artefact.json"))}
    found += _models(learned, places)
    for path in places.files:
        if path not in covered and (
            lines := matching_rows(path, patient.groups, stable_codes(known))
        ):
            found.append(_rows("data", path, lines))
    for path in places.bases:
        with KnowledgeBase(path) as base:
            if records := base.records(patient.groups):
                detail = "records that answers may quote"
                found.append(
                    Found(what="knowledge base", path=str(path), rows=len(records), detail=detail)
                )
    found += other_files(patient, places, found)
    encrypted = "encrypted notes of the hospital"
    for path, count in segments.count_notes(patient, places).items():
        found.append(Found(what="zone", path=str(path), rows=count, detail=encrypted))
    for zone, entries in patient.entries.items():
        secret = "the patient's secret"
        found.append(Found(what="vault", path=str(zone), rows=len(entries), detail=secret))
    order = get_args(What)
    return sorted(found, key=lambda one: order.index(one.what))


def other_files(patient: Patient, places: Places, found: Sequence[Found]) -> list[Found]:
    """Files that hold something of the patient and that no step is known to have written so: of
    labelling, of other commands, copies."""
    marks, exact = marks_of(patient, found), exact_ids(places, found)
    known = {Path(one.path): set(one.lines) for one in found if one.lines}
    whole = {Path(one.path) for one in found if not one.lines}
    more = []
    for one in holdings(places.given, sources(places), marks, exact):
        lines = tuple(number for number in one.lines if number not in known.get(one.path, ()))
        if (one.lines and not lines) or one.path in whole or _of_run(one.path, places):
            continue
        detail = "" if lines else "holds something of the notes"
        rows, hash = len(lines) or 1, file_digest(one.path)
        more.append(
            Found(
                what="other file",
                path=str(one.path),
                rows=rows,
                lines=lines,
                detail=detail,
                digest=hash,
                by_hand=one.by_hand,
            )
        )
    return more


def _of_run(path: Path, places: Places) -> bool:
    """Whether a file is a page of a run, which is made anew with its report."""
    return path.suffix in PAGES and any(run in path.parents for run in places.runs)


def marks_of(patient: Patient, found: Sequence[Found]) -> Marks:
    """By what the patient is known in any file: ids, codes, and what only the patient's notes
    say."""
    own: list[str] = []
    others: list[str] = []
    quotes: list[str] = []
    elsewhere: list[str] = []
    for one in found:
        if one.what != "data" or one.by_hand:
            continue
        lines = set(one.lines)
        for number, line in enumerate_lines(Path(one.path)):
            row = decode_object(line)
            if isinstance(text := row.get("text"), str):
                (own if number in lines else others).append(text)
            if isinstance(spans := row.get("entities"), list):
                said = [str(span.get("text", "")) for span in spans if isinstance(span, dict)]
                (quotes if number in lines else elsewhere).extend(said)
    codes = stable_codes({*(id for one in found for id in one.ids), *patient.groups})
    marks = Marks({*codes, *patient.names}, own, others)
    marks.add_quotes(quotes, others)
    marks.labelled = frozenset(quotes) - frozenset(elsewhere)
    return marks


def exact_ids(places: Places, found: Sequence[Found]) -> Exact:
    """The ids of the patient's notes, where files of labelling name them."""
    loaded = [Recipe.load(recipe) for recipe in places.recipes]
    folders = {(one.root / one.label.out).resolve() for one in loaded if one.label}
    return Exact(folders, {id for one in found for id in one.ids})


def sources(places: Places) -> set[Path]:
    """The hospital's own files, which are not changed, and what is written here."""
    found = {path for zone in places.zones for path in zone.glob(LOG)}
    found |= {folder / LOG for folder in places.given} | {*places.recipes}
    for recipe in map(Recipe.load, places.recipes):
        settings, root = recipe.extract, recipe.root
        if settings is not None:
            found.add((root / settings.merged).resolve())
        if isinstance(settings, AnyFiles):
            found |= {path.resolve() for path in quietly(partial(find_files, settings, root))}
    return found


def stable_codes(ids: Iterable[str]) -> set[str]:
    """Those that mean the same note in whatever file they stand."""
    return {id for id in ids if CODE.fullmatch(id)}


def data_sets(places: Places) -> list[DataSet]:
    """Every data set that a recipe or a run names, once, with whose its notes are."""
    named: list[tuple[str, Data, Path, bool]] = []
    for recipe in places.recipes:
        loaded = Recipe.load(recipe)
        named += [(name, data, loaded.root, True) for name, data in loaded.data.items()]
    for run in places.runs:
        # of a run of another version its own files are looked at all the same
        with suppress(ResidencyError):
            _, of = open_run(run)
            named += [(name, data, of.root, False) for name, data in of.data.items()]
    found: dict[tuple[str, ...], DataSet] = {}
    for name, data, root, ours in named:
        files = _existing_files(data, root, name)
        if outside := next((path for path in files if not places.inside(path)), None):
            if not ours:  # a copy of a project, whose runs name files of the other one
                continue
            raise UserError(
                f"{outside}: is read by a recipe and lies outside of what was given; give its "
                "folder too."
            )
        key = (data.format, *map(str, files))
        if files and key not in found:
            try:
                found[key] = _read(data, root, name, files)
            except ResidencyError:
                # what a run read may have been changed since; it keeps its own list of notes
                if ours:
                    raise
    return list(found.values())


def _existing_files(data: Data, root: Path, name: str) -> tuple[Path, ...]:
    """Files of a data set that are there and not empty."""
    try:
        files = load.files(data, root, name)
    except ResidencyError:
        return ()
    return tuple(path.resolve() for path in files if any(True for _ in enumerate_lines(path)))


def _read(data: Data, root: Path, name: str, files: tuple[Path, ...]) -> DataSet:
    """Rows that cannot be used are passed over here; ``of_data`` looks at the lines themselves."""
    lenient = data.model_copy(
        update={"max_rejected": 0.999999, "labels": {}, "on_bad_span": "drop_span"}
    )
    read, ledger = load.read_parts(lenient, name, root)
    notes = [note for part in read.values() for note in part]
    lines: dict[Path, dict[int, str]] = {path: {} for path in files}
    for entry in ledger.entries:
        if entry.status in ("kept", "repaired"):
            lines.setdefault((root / entry.file).resolve(), {})[entry.line] = entry.id
    return DataSet(
        data=data,
        files=files,
        groups={note.id: note.group for note in notes},
        parents={note.id: note.parents for note in notes if note.parents},
        lines=lines,
    )


def ids_in(sets: Sequence[DataSet], groups: Collection[str]) -> set[str]:
    """Ids of the patient's notes in all data sets, and of what was made from them. From one data
    set to another only ids lead that de-identification made: others may mean another note there."""
    known: set[str] = set()
    size = -1
    while size != len(known):
        size = len(known)
        for one in sets:
            known |= _ids_in_set(one, groups, known)
    return known


def _ids_in_set(one: DataSet, groups: Collection[str], known: Collection[str]) -> set[str]:
    elsewhere = stable_codes(known)
    begun = {id for id, group in one.groups.items() if group in groups}
    return with_descendants(
        begun | {id for id, made_from in one.parents.items() if elsewhere & set(made_from)},
        one.parents,
    )


def trace_data(one: DataSet, groups: Collection[str], known: Collection[str]) -> list[Found]:
    """Rows of a data set's files that are the patient's."""
    ids, found = _ids_in_set(one, groups, known), []
    for path, every in one.lines.items():
        lines = {number: id for number, id in every.items() if id in ids}
        plain = type(one.data) is Jsonl and not _is_list(path)
        # rows that could not be used are the patient's too
        if type(one.data) is Jsonl and plain:
            lines |= matching_rows(path, groups, ids, one.data.fields.group, one.data.fields.id)
        if lines:
            found.append(msgspec.structs.replace(_rows("data", path, lines), by_hand=not plain))
    return found


def with_descendants(ids: Iterable[str], parents: Mapping[str, Sequence[str]]) -> set[str]:
    """Ids with those of everything that was made from them, directly or through others."""
    found, size = set(ids), -1
    while size != len(found):
        size = len(found)
        found |= {id for id, made_from in parents.items() if found & set(made_from)}
    return found


def matching_rows(
    path: Path,
    groups: Collection[str],
    ids: Collection[str],
    group_field: str = "group",
    id_field: str = "id",
) -> dict[int, str]:
    """Line -> id of the rows of a file of JSON lines that are of a group, have one of the ids, or
    were made from one."""
    found = {}
    for number, line in enumerate_lines(path):
        row = decode_object(line)
        id = identifier(row.get(id_field))
        parents = row.get("parents")
        made_from = set(map(identifier, parents)) if isinstance(parents, list) else set()
        if identifier(row.get(group_field)) in groups or id in ids or made_from & set(ids):
            found[number] = id
    return found


def decode_object(line: bytes) -> dict[str, Any]:
    """A JSON object of a line; empty where there is none."""
    try:
        row = msgspec.json.decode(line)
    except NO_JSON:
        return {}
    return row if isinstance(row, dict) else {}


def trace_run(run: Path, groups: Collection[str], known: Collection[str] = ()) -> Reached:
    """What a run holds of a patient, its evaluations' results left out: they are runs.

    ``known``: ids found elsewhere, for runs of a version whose split files name no groups.
    """
    found: list[Found] = []
    ids: set[str] = set()
    parts: Counter[str] = Counter()
    for path in sorted(run.glob(f"data/*{SUFFIX}")):
        split = read_split(path)
        if split is not None and (here := ids_of(split, groups, known)):
            found.append(_in_split(path, split, here))
            parts.update(split.split.parts[id] for id in here)
            ids |= here
    if not ids:
        return Reached()
    for path in rows_of_run(run):
        if lines := dict(_linked_rows(path, ids, groups)):
            what: What = "prediction" if path.name.endswith("predictions.jsonl") else "ledger"
            found.append(_rows(what, path, lines))
    for path in documents_of_run(run):
        shown = sum(1 for _ in examples_of(msgspec.json.decode(path.read_bytes()), ids))
        if shown:
            detail, hash = "errors and answers of the notes", file_digest(path)
            found.append(
                Found(what="report", path=str(path), rows=shown, digest=hash, detail=detail)
            )
    learned = {part: parts[part] for part in ("train", "dev") if parts[part]}
    return Reached(found=tuple(found), ids=frozenset(ids), learned=learned)


def rows_of_run(run: Path) -> list[Path]:
    """Files of a run with rows about notes."""
    return [path for path in _files(run, "*.jsonl") if path != run / "log.jsonl"]


def documents_of_run(run: Path) -> list[Path]:
    """Files of a run with examples in them."""
    aside = (run / "train", run / "steps")
    return [
        path
        for path in _files(run, "*.json")
        if not path.name.endswith(SUFFIX)
        and path.name != "manifest.json"
        and not set(path.parents) & set(aside)
    ]


def _files(run: Path, pattern: str) -> list[Path]:
    """Files of a run, those of its evaluations (which are runs) and of unfinished work left out."""
    inside = [path.relative_to(run) for path in run.rglob(pattern)]
    return sorted(
        run / path
        for path in inside
        if path.parts[0] != "evaluations" and not any(part[0] == "." for part in path.parts)
    )


def _linked_rows(
    path: Path, ids: Collection[str], groups: Collection[str]
) -> Iterator[tuple[int, str]]:
    for number, line in enumerate_lines(path):
        row = decode_object(line)
        names = [row[field] for field in LINKS if isinstance(row.get(field), str)]
        if match := next((name for name in names if name in ids), "") or (
            names[0] if names and row.get("group") in groups else ""
        ):
            yield number, match


def examples_of(value: object, ids: Collection[str]) -> Iterator[str]:
    """Examples of the notes that stand in lists anywhere in a document."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from examples_of(inner, ids)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict) and inner.get("example") in ids:
                yield str(inner["example"])
            else:
                yield from examples_of(inner, ids)


def read_split(path: Path) -> SplitFile | None:
    """A split file as it is, its seal not looked at; one of an earlier version has ids and parts
    alone."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=SplitFile)
    except (*NO_JSON, OSError):
        pass
    with suppress(*NO_JSON, OSError):
        old = msgspec.json.decode(path.read_bytes(), type=Split)
        none: dict[str, Any] = {"groups": {}, "carried": {}, "data": {}, "files": {}}
        count = len(old.parts)
        tied = Grouping(notes=count, groups=0, largest=0, ties={}, clustered=0, largest_cluster=0)
        return SplitFile(schema=0, name="", root="", split=old, grouping=tied, **none)
    return None


def ids_of(split: SplitFile, groups: Collection[str], known: Collection[str] = ()) -> set[str]:
    """Ids of the patient's notes in a split, and of what was made from them."""
    own = {id for id in split.split.parts if split.groups.get(id, id) in groups}
    if split.schema == 0:
        own |= split.split.parts.keys() & set(known)
    return with_descendants(own, split.parents) & split.split.parts.keys()


def _in_split(path: Path, split: SplitFile, ids: Collection[str]) -> Found:
    counts = Counter(split.split.parts[id] for id in ids)
    return Found(
        what="split",
        path=str(path),
        rows=len(ids),
        ids=tuple(sorted(ids)),
        detail=", ".join(f"{counts[part]} {part}" for part in PARTS if counts[part]),
        digest=file_digest(path),
    )


def _rows(what: What, path: Path, lines: Mapping[int, str]) -> Found:
    ordered = sorted(lines)
    return Found(
        what=what,
        path=str(path),
        rows=len(lines),
        lines=tuple(ordered),
        ids=tuple(lines[number] for number in ordered),
        digest=file_digest(path),
    )


def _is_list(path: Path) -> bool:
    first = next((line.lstrip()[:1] for _, line in enumerate_lines(path)), b"")
    return first == b"["


def _models(learned: Mapping[Path, str], places: Places) -> list[Found]:
    """Models that learned from the patient, and those that were made from these, copies in a model
    ledger among them: they hold their weights, or stand on them."""
    found = [_model("model", folder, f"learned from {words}") for folder, words in learned.items()]
    own = [path for run in places.runs for path in run.glob("train/*/artefact.json")]
    others = [path for folder in places.given for path in folder.rglob("artefact.json")]
    described = {path.parent: decode_object(path.read_bytes()) for path in sorted({*own, *others})}
    reached = {folder: described[folder] for folder in learned if folder in described}
    while True:
        hashes = {value for one in reached.values() for value in _weights(one)}
        new = {
            folder: one
            for folder, one in described.items()
            if folder not in reached and (hashes & _weights(one) or _stands_on(one, reached))
        }
        if not new:
            return found
        found += [
            _model("derived model", folder, "made from a model that learned from the patient")
            for folder in new
        ]
        reached |= new


def model_folders(places: Places) -> set[Path]:
    """Every model below what was given, in whatever folder it lies."""
    return {path.parent for folder in places.given for path in folder.rglob("artefact.json")}


def _model(what: What, folder: Path, detail: str) -> Found:
    return Found(
        what=what,
        path=str(folder),
        rows=1,
        detail=detail,
        digest=file_digest(folder / "artefact.json"),
    )


def _weights(artefact: Mapping[str, Any]) -> set[str]:
    files = artefact.get("files", {})
    return {value for name, value in files.items() if str(name).endswith(WEIGHTS)}


def _stands_on(artefact: Mapping[str, Any], reached: Collection[Path]) -> bool:
    base = str(artefact.get("base", {}).get("path", ""))
    return bool(base) and any(
        Path(base).resolve().is_relative_to(folder.resolve()) for folder in reached
    )
