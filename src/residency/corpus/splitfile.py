"""The file of a split: which note is in which part, of which files and settings, and how to prove
that it still holds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import GateRefused, UserError
from residency.core.files import digest, file_digest, read_json, write_json
from residency.core.page import Page, Section, write_page
from residency.core.part import Part, parse
from residency.core.types import PARTS, Note, PartName, Split, Value
from residency.corpus import load
from residency.corpus.leaks import Grouping, Leak, find_leaks
from residency.corpus.load import Corpus, Data
from residency.corpus.parts import count_parts, make_split
from residency.corpus.reader import Source
from residency.corpus.stratify import NOTES, worst

SCHEMA = 1
SUFFIX = ".split.json"


class SplitFile(Value, frozen=True):
    """A split with everything that it takes to check it. Holds ids and codes, never text."""

    schema: int
    name: str
    """Name of the data set in the recipe."""
    root: str
    """Folder that the paths of the data set are relative to, from the file's own folder."""
    data: dict[str, Any]
    """The data set as the recipe has it."""
    files: dict[str, str]
    """File -> SHA-256."""
    split: Split
    groups: dict[str, str]
    """Note id -> group, where it is not the id itself."""
    carried: dict[PartName, dict[str, int]]
    """Part -> label -> notes that carry it; under the empty string all notes."""
    grouping: Grouping
    parents: dict[str, tuple[str, ...]] = {}
    """Note id -> notes that it was made from."""
    leaks: tuple[Leak, ...] = ()
    """What was found to stand in two parts, and was accepted."""
    warnings: tuple[str, ...] = ()
    """What a reader should know before trusting a score on this split."""
    past: dict[str, PartName] = {}
    """Patients of earlier splits without notes now -> the part that they had."""
    seal: str = ""
    """Hash of all the above."""


def describe(
    corpus: Corpus, data: Data, root: Path, folder: Path, files: Mapping[str, str]
) -> SplitFile:
    """The split of a data set that was read, for a file that will lie in ``folder``; ``files``:
    file -> SHA-256."""
    return seal(
        SplitFile(
            schema=SCHEMA,
            name=corpus.name,
            root=os.path.relpath(root.resolve(), folder.resolve()),
            data={
                **data.model_dump(mode="json", exclude_unset=True),
                "near": data.near,
                "boilerplate": data.boilerplate,
            },
            files=dict(sorted(files.items())),
            split=corpus.split,
            groups=groups_of(corpus.notes),
            parents={note.id: note.parents for note in corpus.notes if note.parents},
            carried=_count_labels(corpus.notes, corpus.split),
            grouping=corpus.grouping,
            leaks=corpus.leaks,
            warnings=corpus.warnings,
            past=corpus.past,
        )
    )


def _count_labels(notes: Sequence[Note], split: Split) -> dict[PartName, dict[str, int]]:
    counts = count_parts(notes, split.parts)
    return {part: dict(found) for part, found in counts.items()}


def groups_of(notes: Sequence[Note]) -> dict[str, str]:
    """Note id -> group, where it is not the id itself."""
    return {note.id: note.group for note in notes if note.group not in ("", note.id)}


def seal(file: SplitFile) -> SplitFile:
    """The same with the hash of what it says."""
    return msgspec.structs.replace(file, seal=_seal_of(file))


def read(path: Path) -> SplitFile:
    """A split file; raises ``UserError`` for one of another version, ``GateRefused`` for one that
    was changed by hand."""
    found = read_json(path, SplitFile)
    if found.schema != SCHEMA:
        raise UserError(
            f"{path}: schema {found.schema} is not read by this version, which reads {SCHEMA}."
        )
    if found.seal != _seal_of(found):
        raise GateRefused(
            f"{path}: was changed after it was written; restore it, or write it anew with "
            "residency split."
        )
    return found


def verify(path: Path) -> SplitFile:
    """Read everything again and prove that the split still holds.

    Raises ``GateRefused`` where the file, a data file or a note has changed, come or gone, or where
    more stands in two parts than was accepted when it was written.
    """
    before = read(path)
    root = (path.parent / before.root).resolve()
    data = data_of(before, path)
    faults = _compare_files(before, data, root)
    if not faults:
        parts, _ = load.read_parts(data, before.name, root)
        faults = _compare_parts(before, data, [note for notes in parts.values() for note in notes])
    if faults:
        raise GateRefused(
            f"{path}: no longer holds: {'; '.join(faults)}; restore the files, or write it anew "
            "with residency split."
        )
    return before


def data_of(file: SplitFile, path: Path) -> Data:
    """The data set that a split file is of."""
    settings: Data = parse(_DataSet, {"data": file.data}, f"{path}: data").data
    return settings


class _DataSet(Part):
    data: Data


def _seal_of(file: SplitFile) -> str:
    return digest(msgspec.structs.replace(file, seal=""))


def _compare_files(before: SplitFile, data: Data, root: Path) -> list[str]:
    paths = load.files(data, root, before.name)
    now = {load.relative_name(path, root): path for path in paths}
    faults = [f"{name} is gone" for name in before.files if name not in now]
    faults += [f"{name} is new" for name in now if name not in before.files]
    faults += [
        f"{name} was changed"
        for name, path in now.items()
        if before.files.get(name, "") not in ("", file_digest(path))
    ]
    return faults[:5]


def _compare_parts(before: SplitFile, data: Source, read_again: Sequence[Note]) -> list[str]:
    """What is not as the file says, though the data files are: the notes are judged by the file's
    parts, not drawn anew."""
    notes = {note.id: note for note in read_again}
    faults = []
    if missing := [id for id in before.split.parts if id not in notes]:
        faults.append(f"{len(missing):,} notes of the split are not in the data, e.g. {missing[0]}")
    placed = [note for id, note in notes.items() if id in before.split.parts]
    again = make_split(placed, before.split.parts, before.split.seed, before.split.how)
    if not faults and again != before.split:
        faults.append("the parts are not those that were written")
    if groups_of(placed) != before.groups:
        faults.append("the groups are not those that were written")
    if _count_labels(placed, before.split) != before.carried:
        faults.append("the labels are not those that were counted")
    known = {(leak.tie, leak.parts): leak.sets for leak in before.leaks}
    faults += [
        leak.words
        for leak in find_leaks(placed, before.split.parts, load.clusters(data, read_again))
        if leak.sets > known.get((leak.tie, leak.parts), 0)
    ]
    return faults


def page(files: Sequence[SplitFile], created: str) -> Page:
    """A page on one or more splits: sizes, balance, groups, leaks."""
    error, label, part = max((worst(file.carried) for file in files), key=lambda found: found[0])
    far = f" (label {label}, {part} part)" if label else ""
    leaking = any(file.leaks for file in files)
    return Page(
        title="Split: " + ", ".join(file.name for file in files),
        eyebrow=created,
        lead=f"Labels differ by {100 * error:.2f} percentage points at most between a part and the "
        f"whole{far}. "
        + ("Something stands" if leaking else "Nothing stands")
        + (" in two parts; see below." if leaking else " in two parts."),
        facts=tuple(
            (words if len(files) == 1 else f"{file.name}: {words}", f"{value:,}")
            for file in files
            for words, value in (("notes", file.grouping.notes), ("groups", file.grouping.groups))
        ),
        caveats=tuple(f"{file.name}: {words}" for file in files for words in file.warnings),
        sections=tuple(section for file in files for section in _sections(file)),
    )


def _sections(file: SplitFile) -> list[Section]:
    counts = {part: Counter(found) for part, found in file.carried.items()}
    parts = [part for part in PARTS if part in counts]
    placed = sum(counts.values(), Counter[str]())
    labels = sorted(set(placed) - {NOTES}, key=lambda label: -placed[label])
    balance = Section(
        title=f"{file.name}: labels",
        text="Share of the notes that carry a label, and how far a part is from the whole at the "
        "most (percentage points).",
        columns=("label", "all", *parts, "worst"),
        rows=tuple(_row(label, counts, parts, placed) for label in labels),
        numeric=tuple(range(1, len(parts) + 3)),
    )
    grouped = file.grouping
    ties = (
        *grouped.ties.items(),
        ("notes that are near-duplicates", grouped.clustered),
        ("notes in the largest cluster of near-duplicates", grouped.largest_cluster),
        ("notes in the largest set in all", grouped.largest),
    )
    tied = Section(
        title=f"{file.name}: what stays together",
        columns=("tie", "sets of two or more notes"),
        rows=tuple((name, f"{number:,}") for name, number in ties),
        numeric=(1,),
    )
    return [_sizes(file), *([balance] if labels else []), tied, _leaks(file)]


def _sizes(file: SplitFile) -> Section:
    """How many notes and patients each part has."""
    notes = {part: found.get(NOTES, 0) for part, found in file.carried.items()}
    whole = max(sum(notes.values()), 1)
    patients: dict[str, set[str]] = {part: set() for part in PARTS}
    for id, part in file.split.parts.items():
        patients[part].add(file.groups.get(id, id))
    return Section(
        title=f"{file.name}: parts",
        text=file.split.how,
        columns=("part", "notes", "share", "patients"),
        rows=tuple(
            (part, f"{notes[part]:,}", f"{notes[part] / whole:.1%}", f"{len(patients[part]):,}")
            for part in PARTS
            if part in notes
        ),
        numeric=(1, 2, 3),
    )


def _leaks(file: SplitFile) -> Section:
    """What stands in two parts."""
    nothing = "Nothing: no patient, text, near-duplicate, parent or source document."
    return Section(
        title=f"{file.name}: what stands in two parts",
        text="" if file.leaks else nothing,
        columns=("tie", "parts", "sets", "notes", "ids"),
        rows=tuple(
            (
                one.tie,
                " and ".join(one.parts),
                f"{one.sets:,}",
                f"{one.notes:,}",
                ", ".join(one.ids),
            )
            for one in file.leaks
        ),
        numeric=(2, 3),
    )


def _row(
    label: str,
    counts: Mapping[PartName, Counter[str]],
    parts: Sequence[PartName],
    placed: Mapping[str, int],
) -> tuple[str, ...]:
    of_all = placed[label] / placed[NOTES]
    shares = [counts[part][label] / counts[part][NOTES] for part in parts]
    far = max(abs(share - of_all) for share in shares)
    return (label, f"{of_all:.2%}", *(f"{share:.2%}" for share in shares), f"{100 * far:.2f}")


def write(
    corpora: Mapping[str, Corpus],
    data: Mapping[str, Data],
    root: Path,
    folder: Path,
    digests: Mapping[str, str],
    created: str,
) -> list[SplitFile]:
    """Write NAME.split.json of each data set, and a page on all of them, into a folder.
    ``digests``: file -> SHA-256."""
    files = []
    for name, corpus in corpora.items():
        read_from = {load.relative_name(path, root) for path in load.files(data[name], root, name)}
        file = describe(corpus, data[name], root, folder, {one: digests[one] for one in read_from})
        write_json(folder / f"{name}{SUFFIX}", file)
        files.append(file)
    write_page(page(files, created), folder)
    return files
