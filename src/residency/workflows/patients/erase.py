"""Removing one patient: rows of files, what runs keep of them, the secret in the vault; and a mark
on models that learned from them.

Every file is replaced whole, and what leads to the rest goes last: notes' ids stand in split files,
so those follow the data; the hospital's id leads to the group through the vault, so its entry is
the last of all. An erasure that was cut off is taken up by the same command.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import GateRefused, ResidencyError, UserError
from residency.core.files import (
    digest,
    enumerate_lines,
    file_digest,
    read_json,
    sha256,
    write_bytes,
    write_json,
)
from residency.core.page import write_page
from residency.core.run_folder import Run, now
from residency.core.types import RunFacts, Split, Value
from residency.corpus import load, splitfile
from residency.corpus.leaks import grouping
from residency.corpus.parts import count_parts, make_split
from residency.corpus.splitfile import SUFFIX, SplitFile
from residency.deid.vault import Vault, key_from
from residency.knowledge.passages import KnowledgeBase
from residency.models import artefact as artefacts
from residency.models import erased, predictors
from residency.models.erased import Erasure
from residency.workflows.patients import segments
from residency.workflows.patients.erasure_log import LOG, ErasureLog
from residency.workflows.patients.holdings import PAGES, Exact, Holding, Marks, cleaned, holdings
from residency.workflows.patients.search import Patient, Places
from residency.workflows.patients.trace import (
    Found,
    decode_object,
    documents_of_run,
    exact_ids,
    ids_of,
    marks_of,
    model_folders,
    read_split,
    sources,
    trace,
    trace_run,
)


class Erased(Value, frozen=True):
    """What an erasure did."""

    rows: int
    """Rows that were removed from files."""
    models: int
    """Models that were marked."""
    secrets: int
    """Vault entries that were removed."""
    log: str


def log_of(places: Places, given: Sequence[Path]) -> Path:
    """Where erasures are recorded: in the first zone, else in the first folder that was given."""
    folder = (
        places.zones[0]
        if places.zones
        else next((path for path in given if path.is_dir()), given[0].parent)
    )
    return folder / LOG


def hashes_of(patient: Patient, log: ErasureLog) -> tuple[str, ...]:
    """The patient as the log names it."""
    return tuple(sorted({log.hash_id(name) for name in patient.names | patient.groups}))


class Erasing(Value, frozen=True):
    """An erasure under way: of whom, and where it is recorded."""

    patient: Patient
    known: frozenset[str]
    """Ids of the patient's notes."""
    log: ErasureLog
    hashes: tuple[str, ...]
    """The patient as the log names it."""
    marks: Marks

    def record(self, event: str, path: Path, rows: int, before: str = "", after: str = "") -> None:
        """Add a line to the log."""
        self.log.add(event, self.hashes, str(path), rows, before, after)


def erase(patient: Patient, places: Places, log: ErasureLog) -> Erased | None:
    """Remove everything that ``trace`` finds and mark the models; None where nothing is left to
    remove.

    Raises ``UserError`` while a de-identification in one of the zones is unfinished, and
    ``GateRefused`` where rows are left that stand in a format which is not rewritten: then the
    patient's secret is still there, and the same command goes on.
    """
    _no_unfinished(places)
    hashes = hashes_of(patient, log)
    found = trace(patient, places)
    models = [one for one in found if one.what in ("model", "derived model")]
    begun = log.state(hashes) == "begun"
    if len(models) == len(found) and not begun:
        return None
    if not begun:
        log.add("begun", hashes)
    known = frozenset(id for one in found for id in one.ids)
    marks, exact = marks_of(patient, found), exact_ids(places, found)
    own = Erasing(patient, known, log, hashes, marks)
    rows = sum(_from_base(path, own) for path in places.bases)
    # first of all: by what the patient's notes say these files are found
    rows += sum(_from_other(one, own, marks, exact) for one in _others(places, found, marks, exact))
    rows += sum(_from_run(run, own) for run in places.runs)
    derived = {Path(one.path) for one in models if one.what == "derived model"}
    copies = {one for one in model_folders(places) if not {*places.runs} & {*one.parents}}
    for folder in sorted(derived | set(filter(predictors.keeps_words, copies))):
        with artefacts.sealed_again(folder):
            if folder in derived:
                _mark(folder, 0, own)
            _forget(folder, own)
    files = [one for one in found if one.what == "data" and not one.by_hand]
    for one in sorted(files, key=_children_first(patient)):
        rows += _rewrite(Path(one.path), set(one.lines), own, numbered=True)
    of_runs = [path for run in places.runs for path in sorted(run.glob(f"data/*{SUFFIX}"))]
    rows += sum(_from_split(path, own) for path in [*places.splits, *of_runs])
    by_hand = [one for one in found if one.by_hand and one.what == "data"]
    for left in holdings(places.given, sources(places), marks, exact):
        rows += 0 if left.by_hand else _from_other(left, own, marks, exact)
    by_hand += [
        Found(what="other file", path=str(one.path), lines=one.lines, by_hand=True)
        for one in holdings(places.given, sources(places), marks, exact)
        if str(one.path) not in {other.path for other in by_hand}
    ]
    if by_hand:
        where = "; ".join(
            f"{one.path}:{','.join(map(str, one.lines[:5]))}".rstrip(":") for one in by_hand
        )
        raise GateRefused(
            f"{where}: these rows stand in a format that erase does not rewrite; remove them "
            "there, then run it again."
        )
    secrets = erase_zone(own, places)
    log.add("finished", hashes, rows=rows)
    return Erased(rows=rows, models=len(models), secrets=secrets, log=str(log.path))


def _others(places: Places, found: Sequence[Found], marks: Marks, exact: Exact) -> list[Holding]:
    """Files with something of the patient that are not rewritten as what they are: neither data
    sets, nor splits, nor pages of runs."""
    known = {Path(one.path) for one in found if one.what in ("data", "split", "knowledge base")}
    return [
        one
        for one in holdings(places.given, sources(places), marks, exact)
        if not one.by_hand
        and one.path not in known
        and not one.path.name.endswith(SUFFIX)
        and not (
            one.path.suffix in (*PAGES, ".json") and any(r in one.path.parents for r in places.runs)
        )
    ]


def _from_base(path: Path, own: Erasing) -> int:
    """Take the patient's records out of a knowledge base; passages that went."""
    before = file_digest(path)
    with KnowledgeBase(path) as base:
        rows = base.forget(own.patient.groups)
    if rows:
        own.record("rewritten", path, rows, before)
    return rows


def _from_other(one: Holding, own: Erasing, marks: Marks, exact: Exact) -> int:
    """Take the patient out of any file, or remove a page that shows something; rows that went."""
    before, data = file_digest(one.path), cleaned(one, marks, exact)
    if data is None:
        own.record("removed", one.path, 1, before)
        one.path.unlink()
    else:
        _replace(one.path, data, len(one.lines), before, own)
    return len(one.lines)


def erase_zone(own: Erasing, places: Places) -> int:
    """Remove the patient's notes from the zones' stores and the entries from their vaults; how many
    entries there were."""
    for path, count in segments.remove(own.patient, places, own.known).items():
        own.record("removed", path, count)
    for zone in places.zones:
        for waiting in zone.glob("*.review.csv"):  # residency deid writes it anew
            waiting.unlink()
    for zone, entries in own.patient.entries.items():
        vault = Vault.open(zone, key_from(places.key))
        try:
            for entry in entries:
                vault.erase(entry)
        finally:
            vault.close()
        own.record("removed", zone, len(entries))
    return sum(map(len, own.patient.entries.values()))


def _no_unfinished(places: Places) -> None:
    for zone in places.zones:
        if unfinished := next(iter(sorted(zone.glob("*.partial.jsonl"))), None):
            raise UserError(
                f"{unfinished}: a de-identification is unfinished, and its notes are not looked "
                "through; end it with residency deid, then erase."
            )


def _children_first(patient: Patient) -> Callable[[Found], tuple[bool, str]]:
    """Files that hold only what was made from the patient's notes before those that hold the notes:
    their ids lead there."""

    def key(one: Found) -> tuple[bool, str]:
        rows = enumerate_lines(Path(one.path))
        groups = {decode_object(line).get("group") for n, line in rows if n in one.lines}
        return bool(groups & patient.groups), one.path

    return key


def _rewrite(path: Path, lines: Collection[int], own: Erasing, numbered: bool = False) -> int:
    """Write a file of JSON lines without some of them; how many. ``numbered``: where rows have no
    id, their line numbers are their ids; then lines are emptied instead, so that the others keep
    theirs."""
    before = file_digest(path)
    with path.open("rb") as file:
        every = file.readlines()
    emptied = numbered and not all("id" in decode_object(line) for line in every if line.strip())
    kept = [
        b"\n" if number in lines else line
        for number, line in enumerate(every, start=1)
        if emptied or number not in lines
    ]
    _replace(path, b"".join(kept), len(lines), before, own)
    return len(lines)


def _replace(path: Path, data: bytes, rows: int, before: str, own: Erasing) -> None:
    """Write a file anew; the log knows of it first."""
    own.record("rewrote", path, rows, before, sha256(data))
    write_bytes(path, data)


def _from_run(run: Path, own: Erasing) -> int:
    """Take the patient out of what a run keeps, all but its split files, and mark its models."""
    reached, rows = trace_run(run, own.patient.groups, own.known), 0
    if not reached.ids:
        return 0
    models = sorted(path.parent for path in run.glob("train/*/artefact.json"))
    with Run(run).locked(), ExitStack() as sealed:
        for folder in models:
            sealed.enter_context(artefacts.sealed_again(folder))
        # unfinished work has the patient's notes too
        shutil.rmtree(run / ".work", ignore_errors=True)
        for copy in run.glob("report-*/"):  # residency report writes them again
            shutil.rmtree(copy, ignore_errors=True)
        for folder in models:
            if reached.learned:
                _mark(folder, sum(reached.learned.values()), own)
            _forget(folder, own)  # a term may be of somebody erased before
        for one in reached.found:
            if one.what in ("prediction", "ledger"):
                rows += _rewrite(Path(one.path), set(one.lines), own)
        _documents(run, reached.ids, bool(reached.learned))
    return rows


def _forget(folder: Path, own: Erasing) -> None:
    marks = own.marks
    predictors.forget(folder, marks.labelled, marks.own, marks.others)


def _mark(folder: Path, rows: int, own: Erasing) -> None:
    erased.mark(folder, Erasure(at=now(), rows=rows, patient=own.hashes[0]))
    own.record("marked", folder, rows)


def _documents(run: Path, ids: Collection[str], learned: bool) -> None:
    """Reports without the examples of the patient's notes, and without the row that shows what is
    trained: it may be theirs."""
    for path in documents_of_run(run):
        if path == run / "facts.json":
            continue  # the last, together with the pages that are made from it
        value = msgspec.json.decode(path.read_bytes())
        if (new := drop_examples(value, ids)) != value:
            write_json(path, new)
    if learned:
        for path in sorted(run.glob("train/*/stage.json")):
            write_json(path, _without_sample(msgspec.json.decode(path.read_bytes())))
    facts_file = run / "facts.json"
    if not facts_file.is_file():
        return
    value = drop_examples(msgspec.json.decode(facts_file.read_bytes()), ids)
    if learned:
        value["stages"] = [_without_sample(stage) for stage in value.get("stages", [])]
    facts = msgspec.convert(value, RunFacts)
    if learned:
        models = sorted(run.glob("train/*/artefact.json"))
        warnings = [words for path in models if (words := erased.warning(path.parent))]
        others = [words for words in facts.caveats if "erased (last on" not in words]
        caveats = tuple(dict.fromkeys([*warnings, *others]))
        facts = msgspec.structs.replace(facts, caveats=caveats)
    from residency.evals.report import render

    render(facts, run)
    write_json(facts_file, facts)


def drop_examples(value: Any, ids: Collection[str]) -> Any:
    """A document without the items of its lists that are about notes with these ids."""
    if isinstance(value, dict):
        return {name: drop_examples(inner, ids) for name, inner in value.items()}
    if isinstance(value, list):
        return [
            drop_examples(inner, ids)
            for inner in value
            if not (isinstance(inner, dict) and inner.get("example") in ids)
        ]
    return value


def _without_sample(stage: dict[str, Any]) -> dict[str, Any]:
    mask = {name: value for name, value in stage.get("mask", {}).items() if name != "sample"}
    return {**stage, "mask": mask} if "mask" in stage else stage


def _from_split(path: Path, own: Erasing) -> int:
    """A split file without the patient, with the hashes that its data files have now, and the page
    that was made from it."""
    split = read_split(path)
    ids = ids_of(split, own.patient.groups, own.known) if split is not None else set()
    if split is None or not (ids or split.past.keys() & own.patient.groups):
        return 0
    new: SplitFile | Split = _without_ids(split.split, ids)
    if split.schema:
        past = {
            group: part for group, part in split.past.items() if group not in own.patient.groups
        }
        new = _shrink_split(msgspec.structs.replace(split, past=past), ids, path, own.log)
    data = msgspec.json.format(msgspec.json.encode(new), indent=2) + b"\n"
    _replace(path, data, len(ids), file_digest(path), own)
    if split.schema and (path.parent / "report.html").is_file():
        pages = [read_json(one, SplitFile) for one in sorted(path.parent.glob(f"*{SUFFIX}"))]
        write_page(splitfile.page(pages, f"{now()}, after an erasure"), path.parent)
    return len(ids)


def _shrink_split(split: SplitFile, ids: Collection[str], path: Path, log: ErasureLog) -> SplitFile:
    """Counted anew from the data where it can be read."""
    smaller = msgspec.structs.replace(
        split,
        split=_without_ids(split.split, ids),
        groups={id: group for id, group in split.groups.items() if id not in ids},
        parents={id: parents for id, parents in split.parents.items() if id not in ids},
        files={name: log.current_digest(before) for name, before in split.files.items()},
        leaks=tuple(
            msgspec.structs.replace(leak, ids=tuple(id for id in leak.ids if id not in ids))
            for leak in split.leaks
        ),
    )
    with suppress(ResidencyError):
        data, root = splitfile.data_of(split, path), (path.parent / split.root).resolve()
        read, _ = load.read_parts(data, split.name, root)
        every = [note for notes in read.values() for note in notes]
        notes = [note for note in every if note.id in smaller.split.parts]
        counts = count_parts(notes, smaller.split.parts)
        smaller = msgspec.structs.replace(
            smaller,
            split=make_split(notes, smaller.split.parts, split.split.seed, split.split.how),
            carried={part: dict(found) for part, found in counts.items()},
            grouping=grouping(notes, load.clusters(data, every)),
        )
    return splitfile.seal(smaller)


def _without_ids(split: Split, ids: Collection[str]) -> Split:
    parts = {id: part for id, part in split.parts.items() if id not in ids}
    return msgspec.structs.replace(
        make_split([], {}, split.seed, split.how),
        parts=parts,
        balance=split.balance,
        digest=digest(sorted(parts.items())),
    )
