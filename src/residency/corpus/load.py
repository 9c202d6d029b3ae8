"""Data sets: from files in any of the formats to notes with a split and a ledger."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from residency.core.errors import DataError, GateRefused, UserError, allowed
from residency.core.types import PARTS, Note, PartName, Split, Value
from residency.corpus import history
from residency.corpus.copied import copied_forward
from residency.corpus.formats import sources
from residency.corpus.groups import Clusters
from residency.corpus.known_forms import check_form, other_form
from residency.corpus.leaks import Grouping, Leak, find_leaks, grouping
from residency.corpus.ledger import Ledger, LedgerEntry
from residency.corpus.near import near_duplicates
from residency.corpus.parts import (
    keep_given,
    make_split,
    split_by_group,
    split_by_hash,
    split_by_site,
    split_by_time,
    stop_share,
)
from residency.corpus.reader import Source, proved, showable

if TYPE_CHECKING:
    Data = Source
else:
    Data = Annotated[Union[sources()], Field(discriminator="format")]  # noqa: UP007
"""A data set of a recipe, by ``format``."""

Progress = Callable[[int], None]
"""Told now and then how many rows have been read."""
MOST_WORDS = 30
"""Labels with blanks in them that may differ from note to note."""
TOLD_EVERY = 100
"""Rows between two reports of progress."""


class Corpus(Value, frozen=True):
    """A data set that was read: its usable notes, their split, and what became of every row."""

    name: str
    notes: tuple[Note, ...]
    split: Split
    ledger: tuple[LedgerEntry, ...]
    grouping: Grouping
    """How the notes are tied together."""
    leaks: tuple[Leak, ...] = ()
    """What stands in two parts."""
    past: dict[str, PartName] = {}
    """Patients of earlier splits without notes now -> the part that they had."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know before trusting a score on this split."""
        crowded = self.grouping.warning
        return (*(leak.words for leak in self.leaks), *([crowded] if crowded else []))

    def part(self, name: PartName) -> list[Note]:
        """The notes of a part, in the order of reading."""
        return [note for note in self.notes if self.split.parts.get(note.id) == name]


def files(data: Data, root: Path, name: str = "NAME") -> list[Path]:
    """Every file that a data set is read from, sorted; ``UserError`` where one of its paths matches
    nothing."""
    inputs = [path for paths in _inputs(data, root, name).values() for path in paths]
    companions = data.reader().companions
    return sorted({*inputs, *(other for path in inputs for other in companions(path))})


def load(data: Data, name: str, root: Path, seed: int, progress: Progress | None = None) -> Corpus:
    """Read, repair, account for every row, split. The limit counts everything that is learned from:
    dev is drawn from it. ``progress`` is told now and then how many rows have been read.

    Raises ``DataError`` where more rows are rejected than ``data.max_rejected`` allows, an id
    stands twice, or a file cannot be read, and ``UserError`` where a path matches nothing or a
    label is renamed that the data does not have, ``GateRefused`` where something stands in two
    parts and ``data.leak`` refuses that.
    """
    read, ledger = read_parts(data, name, root, progress)
    every = [note for notes in read.values() for note in notes]
    near, past = clusters(data, every), dict[str, PartName]()
    before, moved = None, dict[str, str]()
    if data.history:
        if data.limit is not None:
            raise UserError(
                f"data.{name}.limit: is not for parts that are kept (history); leave one out."
            )
        before = history.read(root / data.history)
        moved = history.moved_notes(files(data, root, name))
        every.sort(key=lambda note: note.id)  # whenever a note came
    if data.path is not None and before is not None:
        split, past = history.continued(every, before, moved, data.shares, seed, near)
        notes = every
    elif data.path is not None:
        split, notes = _draw_parts(data, every, near, seed), every
    else:
        parts = {part: read[part] for part in PARTS if part in read}
        split, notes = _keep_parts(data, parts, near, seed)
    notes = [note for note in notes if note.id in split.parts]
    leaks = find_leaks(notes, split.parts, near)
    if leaks and data.leak == "refuse":
        raise GateRefused(
            f"data.{name}: {'; '.join(leak.words for leak in leaks)}; give each to one part, or "
            f"accept it with data.{name}.leak=warn."
        )
    return Corpus(
        name=name,
        notes=tuple(notes),
        split=split,
        ledger=ledger.entries,
        grouping=grouping(notes, near),
        leaks=leaks,
        past=past,
    )


def read_parts(
    data: Data, name: str, root: Path, progress: Progress | None = None
) -> tuple[dict[str, list[Note]], Ledger]:
    """The notes of ``path`` or of each part as they stand in the files, every row accounted for;
    raises as ``load``."""
    reader = data.reader()
    inputs = _inputs(data, root, name)
    ledger = Ledger(root, _stems([path for paths in inputs.values() for path in paths], root))
    read: dict[str, list[Note]] = {part: [] for part in inputs}
    for part, path in [(part, path) for part, paths in inputs.items() for path in paths]:
        before = len(ledger)
        check_form(path, data.format)
        try:
            for row in reader.rows(path):
                if note := ledger.add_row(row, path, reader):
                    read[part].append(note)
                if progress and not len(ledger) % TOLD_EVERY:
                    progress(len(ledger))
        except DataError as error:
            if told := other_form(path, data.format, data.suffixes()):
                raise DataError(f"{str(error).rstrip('.')}; {told}.") from None
            raise
        nothing = all(one.status == "rejected" for one in ledger.entries[before:])
        if nothing and (told := other_form(path, data.format, data.suffixes())):
            raise DataError(f"{path}: no row can be read as {data.format}; {told}.")
        if len(ledger) == before:
            raise DataError(
                f"{path}: holds no records; check that the file is complete, or leave it out."
            )
    if progress:
        progress(len(ledger))
    ledger.check(data.max_rejected, f"data.{name}")
    _check_ids(ledger.entries)
    _check_labels(data, name, ledger.labels)
    _check_words([note for notes in read.values() for note in notes], name)
    return read, ledger


def _draw_parts(data: Data, notes: Sequence[Note], near: Clusters, seed: int) -> Split:
    """The split of a data set whose parts are drawn."""
    if data.draw == "hash":
        split = split_by_hash(notes, data.shares, seed)
    else:
        draw = {"time": split_by_time, "site": split_by_site}.get(data.draw, split_by_group)
        split = draw(notes, data.shares, seed, near)
    train = [note for note in notes if split.parts[note.id] == "train"]
    how = split.how
    if data.limit is not None and len(train) > data.limit:
        how += f"; train cut to {data.limit} of {len(train)} notes"
        kept = {note.id for note in _sample(train, data.limit, seed)}
        parts = {id: part for id, part in split.parts.items() if part != "train" or id in kept}
        split = make_split(notes, parts, seed, how)
    share = stop_share(data.stop, sum(part == "train" for part in split.parts.values()))
    if share and not data.shares.get("dev"):
        placed = {part: [n for n in notes if split.parts.get(n.id) == part] for part in PARTS}
        with_dev = keep_given(placed, data.stop, seed, near)
        how += f"; dev: {share:.0%} of train by group"
        split = make_split(notes, with_dev.parts, seed, how)
    return split


def _keep_parts(
    data: Data, parts: dict[PartName, list[Note]], near: Clusters, seed: int
) -> tuple[Split, list[Note]]:
    """The split of a data set whose parts are given, and its notes in the order of the parts."""
    how, train = "", parts.get("train", [])
    if data.limit is not None and len(train) > data.limit:
        how = f"; train cut to {data.limit} of {len(train)} notes"
        parts["train"] = _sample(train, data.limit, seed)
    split = keep_given(parts, data.stop, seed, near)
    notes = [note for part in PARTS for note in parts.get(part, [])]
    return make_split(notes, split.parts, seed, split.how + how), notes


def clusters(data: Source, notes: Sequence[Note]) -> Clusters:
    """Near-duplicates and copies among the notes, as the data set's settings have it."""
    near = [] if data.near == "off" else near_duplicates(notes, data.near, data.boilerplate)
    return [*near, *copied_forward(notes, data.boilerplate)] if data.copied else near


def _inputs(data: Source, root: Path, name: str) -> dict[str, list[Path]]:
    """The files of ``path`` or of each part."""
    suffixes = data.reader().suffixes()
    found: dict[str, list[Path]] = {}
    for part in ("path", *PARTS):
        if patterns := data.paths(part):
            key = f"data.{name}.{part}"
            matches = [_match(pattern, root, suffixes, key) for pattern in patterns]
            found[part] = sorted({path for paths in matches for path in paths})
    where: dict[Path, str] = {}
    for part, paths in found.items():
        for path in paths:
            if where.setdefault(path, part) != part:
                raise UserError(
                    f"data.{name}.{part}: {path} is in {where[path]} too; a file belongs to one "
                    "part."
                )
    return found


def _match(pattern: str, root: Path, suffixes: Sequence[str], key: str) -> list[Path]:
    path = root / pattern
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = [
            p
            for p in path.rglob("*")
            if p.is_file() and p.suffix.lower() in suffixes and p.name[0] != "."
        ]
        if inside:
            return inside
        raise UserError(
            f"{key}: no file in {path} ends in {' or '.join(suffixes)}; name the files, e.g. "
            f"{pattern}/*."
        )
    base = Path(path.anchor) if Path(pattern).is_absolute() else root
    relative = path.relative_to(base).as_posix() if Path(pattern).is_absolute() else pattern
    is_pattern = any(c in pattern for c in "*?[")
    matches = [p for p in base.glob(relative) if p.is_file()] if is_pattern else []
    if not matches:
        raise UserError(
            f"{key}: {pattern} matches no file in {root}; give a file, a folder or a pattern such "
            "as data/*.txt."
        )
    return matches


def _stems(paths: Sequence[Path], root: Path) -> dict[Path, str]:
    """What generated ids begin with: the file's stem, or its path where several files have that
    stem."""
    times = Counter(path.stem for path in paths)
    return {
        path: path.stem if times[path.stem] == 1 else relative_name(path, root) for path in paths
    }


def relative_name(path: Path, root: Path) -> str:
    """How a file is named: relative to the recipe's folder where it lies in it."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _check_ids(entries: Sequence[LedgerEntry]) -> None:
    first: dict[str, LedgerEntry] = {}
    for entry in entries:
        if entry.status in ("rejected", "left out", "not taken"):
            continue
        other = first.setdefault(entry.id, entry)
        if other is not entry:
            raise DataError(
                f"{entry.file}:{entry.line}: has the id of {other.file}:{other.line}; ids must be "
                "unique: correct one of them, or name a field that is."
            )


def _check_labels(data: Source, name: str, found: set[str]) -> None:
    if unknown := [label for label in data.labels if label not in found]:
        raise UserError(
            f"data.{name}.labels: {unknown[0]!r} is no label of the data; "
            f"{allowed(showable(found), unknown[0])}."
        )


def _check_words(notes: Sequence[Note], name: str) -> None:
    """Raise ``DataError`` where what is given as the labels of notes are texts: long ones, or
    nearly as many different ones as notes. None of them is shown."""
    given = [label for note in notes for label in note.labels if not proved(label)]
    long = sum(len(label) > 200 or "\n" in label for label in given)
    different = len(set(given))
    if long or (different > MOST_WORDS and different * 2 > len(given)):
        raise DataError(
            f"data.{name}: what is given as labels of notes are no labels ({different} different "
            f"ones in {len(given)}, {long} of them texts); name the column or field that holds "
            "them."
        )


def _sample(notes: Sequence[Note], limit: int, seed: int) -> list[Note]:
    """A prefix of one shuffle: a smaller limit gives a subset of a larger one's."""
    shuffled = list(notes)
    random.Random(seed).shuffle(shuffled)
    return shuffled[:limit]
