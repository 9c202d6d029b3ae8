"""Data sets: from files in any of the formats to notes with a split and a ledger."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from residency.core.errors import DataError, GateRefused, UserError, allowed
from residency.core.part import External
from residency.core.types import PARTS, Note, PartName, Split, Value
from residency.corpus.acronyms import Acronyms
from residency.corpus.brat import Brat
from residency.corpus.conll import Conll
from residency.corpus.conversations import Alpaca, Instructions, Messages, PromptCblue, ShareGpt
from residency.corpus.csvfile import Csv
from residency.corpus.exam import Exam
from residency.corpus.fhir import Fhir
from residency.corpus.groups import Clusters
from residency.corpus.jsonl import Jsonl
from residency.corpus.labelstudio import LabelStudio
from residency.corpus.leaks import Grouping, Leak, audit, grouping
from residency.corpus.ledger import Entry, Ledger
from residency.corpus.near import near_duplicates
from residency.corpus.parts import given, make, split_by_group, split_by_hash, stop_share
from residency.corpus.pubmedqa import PubMedQa
from residency.corpus.pubtator import PubTator
from residency.corpus.reader import Row, Source, showable

Progress = Callable[[int], None]
"""Called with the notes that were read so far."""
TOLD_EVERY = 100
"""Notes between two calls."""


class ExternalSource(Source):
    """A source that lives in another package: ``target`` names a subclass of ``Source``, built from
    the settings here and from ``options``."""

    format: Literal["external"]
    target: str = Field(pattern=r"^[\w.]+:\w+$")
    """``package.module:Class``"""
    options: dict[str, Any] = {}

    def built(self) -> Source:
        """The source itself; raises ``UserError`` where it cannot be imported or refuses its
        options."""
        shared = {
            name: value
            for name, value in self
            if name in self.model_fields_set & set(Source.model_fields)
        }
        try:
            return External(target=self.target, options={**shared, **self.options}).load(Source)  # type: ignore[type-abstract]
        except (ValidationError, TypeError) as error:
            fault = (
                error.errors()[0]["msg"]
                if isinstance(error, ValidationError)
                else type(error).__name__
            )
            raise UserError(f"options: {self.target} does not accept them ({fault}).") from None

    def suffixes(self) -> tuple[str, ...]:
        return self.built().suffixes()

    def companions(self, path: Path) -> list[Path]:
        return self.built().companions(path)

    def rows(self, path: Path) -> Iterator[Row]:
        return self.built().rows(path)

    def read(self, path: Path, ledger: Ledger) -> Iterator[Note]:
        return self.built().read(path, ledger)


Data = Annotated[
    Conll
    | Brat
    | PubTator
    | Jsonl
    | LabelStudio
    | Csv
    | Alpaca
    | ShareGpt
    | Messages
    | PromptCblue
    | Instructions
    | Exam
    | Fhir
    | Acronyms
    | PubMedQa
    | ExternalSource,
    Field(discriminator="format"),
]
"""A data set of a recipe, by ``format``."""


class Corpus(Value, frozen=True):
    """A data set that was read: its usable notes, their split, and what became of every row."""

    name: str
    notes: tuple[Note, ...]
    split: Split
    ledger: tuple[Entry, ...]
    grouping: Grouping
    """How the notes are tied together."""
    leaks: tuple[Leak, ...] = ()
    """What stands in two parts."""

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
    return sorted({*inputs, *(other for path in inputs for other in data.companions(path))})


def load(data: Data, name: str, root: Path, seed: int, progress: Progress | None = None) -> Corpus:
    """Read, repair, account for every row, split. The limit counts everything that is learned from:
    dev is drawn from it. ``progress`` is told how many notes were read so far.

    Raises ``DataError`` where more rows are lost than ``data.loss`` allows, an id stands twice, or
    a file cannot be read, and ``UserError`` where a path matches nothing or a label is renamed that
    the data does not have, ``GateRefused`` where something stands in two parts and ``data.leak``
    refuses that.
    """
    read, ledger = read_parts(data, name, root, progress)
    near = clusters(data, [note for notes in read.values() for note in notes])
    if data.path is not None:
        notes = read["path"]
        drawn = (
            split_by_hash(notes, data.shares, seed)
            if data.draw == "hash"
            else split_by_group(notes, data.shares, seed, near)
        )
        split = _limited(notes, drawn, data.limit)
        notes = [note for note in notes if note.id in split.parts]
        share = stop_share(data.stop, sum(part == "train" for part in split.parts.values()))
        if not data.shares.get("dev") and share:
            placed = {part: [n for n in notes if split.parts[n.id] == part] for part in PARTS}
            stopped = given(placed, data.stop, seed, near)
            split = make(
                notes, stopped.parts, seed, f"{split.how}; dev: {share:.0%} of train by group"
            )
    else:
        parts = {part: read[part] for part in PARTS if part in read}
        how = ""
        if data.limit is not None and len(parts.get("train", ())) > data.limit:
            how = f"; train cut to {data.limit} of {len(parts['train'])} notes"
            parts["train"] = _sample(parts["train"], data.limit, seed)
        notes = [note for part in PARTS for note in parts.get(part, [])]
        split = given(parts, data.stop, seed, near)
        split = make(notes, split.parts, seed, split.how + how)
    kept = [note for note in notes if note.id in split.parts]
    leaks = audit(kept, split.parts, near)
    if leaks and data.leak == "refuse":
        raise GateRefused(
            f"data.{name}: {'; '.join(leak.words for leak in leaks)}; give each to one part, or "
            "accept it with "
            f"data.{name}.leak=warn."
        )
    return Corpus(
        name=name,
        notes=tuple(kept),
        split=split,
        ledger=ledger.entries,
        grouping=grouping(kept, near),
        leaks=leaks,
    )


def read_parts(
    data: Data, name: str, root: Path, progress: Progress | None = None
) -> tuple[dict[str, list[Note]], Ledger]:
    """The notes of ``path`` or of each part as they stand in the files, every row accounted for;
    raises as ``load``."""
    inputs = _inputs(data, root, name)
    ledger = Ledger(root, _stems([path for paths in inputs.values() for path in paths], root))
    read: dict[str, list[Note]] = {part: [] for part in inputs}
    count = 0
    for part, paths in inputs.items():
        for path in paths:
            for note in data.read(path, ledger):
                read[part].append(note)
                count += 1
                if progress is not None and count % TOLD_EVERY == 0:
                    progress(count)
    ledger.check(data.loss, f"data.{name}")
    _check_ids(ledger.entries)
    _check_labels(data, name, ledger.labels)
    return read, ledger


def clusters(data: Source, notes: Sequence[Note]) -> Clusters:
    """Near-duplicates among the notes, as the data set's settings have it."""
    return [] if data.near == "off" else near_duplicates(notes, data.near, data.boilerplate)


def _inputs(data: Source, root: Path, name: str) -> dict[str, list[Path]]:
    """The files of ``path`` or of each part."""
    found: dict[str, list[Path]] = {}
    for part in ("path", *PARTS):
        patterns = data.paths(part)
        if patterns:
            matches = [
                _match(pattern, root, data.suffixes(), f"data.{name}.{part}")
                for pattern in patterns
            ]
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
    matches = (
        [p for p in base.glob(relative) if p.is_file()] if any(c in pattern for c in "*?[") else []
    )
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
        path: path.stem
        if times[path.stem] == 1
        else (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
        for path in paths
    }


def _check_ids(entries: Sequence[Entry]) -> None:
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.status in ("kept", "repaired"):
            other = first.setdefault(entry.id, entry)
            if other is not entry:
                raise DataError(
                    f"{entry.file}:{entry.line}: has the id of {other.file}:{other.line}; ids must "
                    "be unique: "
                    "correct one of them, or name a field that is."
                )


def _check_labels(data: Source, name: str, found: set[str]) -> None:
    for label in data.labels:
        if label not in found:
            raise UserError(
                f"data.{name}.labels: {label!r} is no label of the data; "
                f"{allowed(showable(found), label)}."
            )


def _limited(notes: Sequence[Note], split: Split, limit: int | None) -> Split:
    """The split with train cut to the limit."""
    train = [note for note in notes if split.parts[note.id] == "train"]
    if limit is None or len(train) <= limit:
        return split
    kept = {note.id for note in _sample(train, limit, split.seed)}
    parts = {id: part for id, part in split.parts.items() if part != "train" or id in kept}
    return make(
        [n for n in notes if n.id in parts],
        parts,
        split.seed,
        f"{split.how}; train cut to {limit} of {len(train)} notes",
    )


def _sample(notes: Sequence[Note], limit: int, seed: int) -> list[Note]:
    """A prefix of one shuffle: a smaller limit gives a subset of a larger one's."""
    shuffled = list(notes)
    random.Random(seed).shuffle(shuffled)
    return shuffled[:limit]
