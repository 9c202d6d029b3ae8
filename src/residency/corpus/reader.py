"""What all formats share: the common settings, reading lines, and the one place where a row is
accounted for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from msgspec.structs import replace
from pydantic import BeforeValidator, Field, model_validator

from residency.core.errors import DataError
from residency.core.files import reason
from residency.core.part import Part, Share
from residency.core.types import (
    PARTS,
    PROFILES,
    Note,
    PartName,
    Profile,
    Relation,
    Span,
    Turn,
    Value,
)
from residency.corpus.ledger import Ledger
from residency.corpus.span_repair import MERGED, Raw, Remark, settle

Paths = str | list[str]
Near = Annotated[
    Share | Literal["off"], BeforeValidator(lambda value: "off" if value is False else value)
]
"""A similarity, or ``off``, which YAML reads as false."""


class Row(Value, frozen=True):
    """One note or sentence as its file gives it: nothing about its spans is proved yet."""

    line: int
    """Where it begins, from 1; 0 where the row is the whole file."""
    text: str = ""
    spans: tuple[Raw, ...] = ()
    relations: tuple[tuple[str, str, str], ...] = ()
    """(key of the head span, key of the tail span, label)"""
    id: str = ""
    group: str = ""
    lang: str = ""
    kind: str = ""
    labels: tuple[str, ...] = ()
    written_at: datetime | None = None
    origin: str = ""
    profile: Profile = "public"
    turns: tuple[Turn, ...] = ()
    fields: dict[str, str] = {}
    parents: tuple[str, ...] = ()
    source: str = ""
    choices: tuple[str, ...] = ()
    department: str = ""
    join_lines: bool = False
    """Whether span fragments parted only by blanks are one span."""
    repairs: tuple[str, ...] = ()
    """Repairs that the reader made, one per span."""
    fault: str = ""
    """Why nothing can be made of the row."""


class Source(Part):
    """Where a data set comes from and how it became fit for use.

    Either ``path`` (all records, parts drawn by group) or any of ``train``, ``dev`` and ``test``
    (parts given): files, folders or glob patterns relative to the recipe's folder.
    """

    train: Paths | None = None
    dev: Paths | None = None
    test: Paths | None = None
    path: Paths | None = None
    """All records; parts are drawn by group according to ``shares``."""
    shares: dict[PartName, Share] = {"train": 0.8, "dev": 0.1, "test": 0.1}
    """Size of the parts drawn from ``path``; they add up to 1."""
    draw: Literal["random", "hash"] = "random"
    """How they are drawn: with the recipe's seed and labels spread alike, or by the SHA-256 of the
    text, so that a record stays in its part when the data grows."""
    near: Near = 0.8
    """Notes whose character 5-grams overlap by so much (Jaccard) are near-duplicates and stay
    together in parts that are drawn; ``off``: only equal texts do."""
    boilerplate: Share = 0.01
    """A line that notes of more than this share of patients hold (and of ten at least) makes no
    near-duplicates."""
    leak: Literal["warn", "refuse"] = "warn"
    """What becomes of a split in which patients, texts, near-duplicates, parents or source
    documents stand in two parts: a warning, or exit code 2. Parts that are drawn leak nothing;
    given ones may."""
    stop: Share | Literal["auto"] = "auto"
    """Share of train, by group, set aside as dev for early stopping where there is no dev part.
    ``auto``: a tenth from 1,000 training records on; below, every record is worth more in training
    than in deciding when to stop."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many training records, the first after a shuffle with the recipe's seed; dev and test
    stay whole."""
    lang: str = ""
    """BCP-47 tag of rows that name no language of their own."""
    profile: Profile = "pseudonymised"
    """How the data became fit for use; a row that names a stricter profile keeps it."""
    origin: str = "real"
    """Where rows come from that do not say: ``real``, ``synthetic:GENERATOR``, or ``model:NAME``
    where a model wrote the answers; every table says so."""
    loss: Share = 0.01
    """Most rows that may be rejected before reading stops with an error."""
    on_bad_span: Literal["reject_row", "drop_span"] = "reject_row"
    """What becomes of a span that cannot be repaired. Dropping it teaches the model that there is
    nothing."""
    labels: dict[str, str] = {}
    """Old label -> new label; one that is mapped to the empty string is left out."""
    license: str = ""
    source_url: str = ""
    citation: str = ""

    @model_validator(mode="after")
    def _one_way_to_name_files(self) -> Self:
        given = [part for part in PARTS if getattr(self, part) is not None]
        if self.path is not None and given:
            raise ValueError(
                f"path and {given[0]} exclude each other; give path, or train, dev and test"
            )
        if self.path is None and not given:
            raise ValueError("no files are named; give path, or train, dev and test")
        if abs(sum(self.shares.values()) - 1) > 1e-6 or not self.shares.get("train"):
            raise ValueError(
                "shares must add up to 1 and give train some, e.g. {train: 80%, dev: 10%, test: "
                "10%}"
            )
        return self

    def paths(self, part: str) -> list[str]:
        """What the recipe names for ``path`` or a part."""
        value: Paths | None = getattr(self, part)
        return [] if value is None else ([value] if isinstance(value, str) else value)

    def suffixes(self) -> tuple[str, ...]:
        """Which files of a folder are read."""
        return (".txt",)

    def companions(self, path: Path) -> list[Path]:
        """Files that are read together with one of the inputs."""
        return []

    def marked(self, path: Path) -> Path:
        """The file whose lines the spans of an input are numbered by."""
        return path

    @abstractmethod
    def rows(self, path: Path) -> Iterator[Row]:
        """Every row of a file, also those that cannot be used (``Row.fault``)."""

    def read(self, path: Path, ledger: Ledger) -> Iterator[Note]:
        """The notes of a file, streaming; every row gets exactly one entry in the ledger, before
        its note is yielded.

        Raises ``DataError`` for a file that is not UTF-8, lacks a field or holds no record.
        """
        before = len(ledger)
        for row in self.rows(path):
            note = self.note(row, path, ledger)
            if note is not None:
                yield note
        if len(ledger) == before:
            raise DataError(
                f"{path}: holds no records; check that the file is complete, or leave it out."
            )

    def note(self, row: Row, path: Path, ledger: Ledger) -> Note | None:
        """Settle one row: a note, or None where the ledger says why it is rejected."""
        id = row.id or (f"{ledger.stem(path)}-{row.line}" if row.line else ledger.stem(path))
        ledger.labels.update(raw.label for raw in row.spans if raw.label)
        ledger.labels.update(row.labels)
        fault = row.fault or ("" if row.text.strip() else "text is empty")
        if fault:
            ledger.rejected(path, max(row.line, 1), id, fault)
            return None
        wanted = [raw for raw in row.spans if self.labels.get(raw.label) != ""]
        settled = settle(row.text, wanted, row.join_lines)
        if settled.faults and self.on_bad_span == "reject_row":
            _record(ledger.rejected, path, self.marked(path), row, id, settled.faults)
            return None
        dropped = [
            Remark(reason=f"span dropped: {fault.reason}", line=fault.line)
            for fault in settled.faults
        ]
        remarks = [*(Remark(reason=repair) for repair in row.repairs), *settled.repairs, *dropped]
        spans, positions = _rename(settled.spans, self.labels)
        if len(spans) < len(settled.spans):
            remarks.append(Remark(reason=MERGED))
        if remarks:
            _record(ledger.repaired, path, self.marked(path), row, id, remarks)
        else:
            ledger.kept(path, max(row.line, 1), id)
        keys = {key: positions[position] for key, position in settled.keys.items()}
        return Note(
            id=id,
            text=row.text,
            profile=max(row.profile, self.profile, key=PROFILES.index),
            group=row.group or id,
            lang=row.lang or self.lang,
            kind=row.kind,
            written_at=row.written_at,
            spans=spans,
            relations=tuple(
                Relation(head=keys[head], tail=keys[tail], label=label)
                for head, tail, label in row.relations
                if head in keys and tail in keys
            ),
            labels=tuple(name for old in row.labels if (name := self.labels.get(old, old))),
            turns=row.turns,
            fields=row.fields,
            origin=row.origin or self.origin,
            parents=row.parents,
            source=row.source,
            choices=row.choices,
            department=row.department,
        )


def _record(
    write: Callable[..., None],
    path: Path,
    marked: Path,
    row: Row,
    id: str,
    remarks: Sequence[Remark],
) -> None:
    """One entry for a row, whatever the number of its remarks; it points at the first of them that
    has a line."""
    reasons = "; ".join(sorted({remark.reason for remark in remarks}))
    line = min((remark.line for remark in remarks if remark.line), default=0)
    file, line = (marked, line) if line else (path, max(row.line, 1))
    write(file, line, id, reasons, len(remarks))


def _rename(spans: Sequence[Span], labels: Mapping[str, str]) -> tuple[tuple[Span, ...], list[int]]:
    """Spans with new labels, those that became equal merged, and where each of the old ones went."""
    if not labels:
        return tuple(spans), list(range(len(spans)))
    renamed: dict[Span, int] = {}
    positions = [
        renamed.setdefault(replace(span, label=labels.get(span.label, span.label)), len(renamed))
        for span in spans
    ]
    return tuple(renamed), positions


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Every line of a UTF-8 file with its number from 1 and its line end, without a byte order
    mark.

    Raises ``DataError`` that names the line and byte where a file is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{path}:{number}: {reason(error)}") from None
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from None


def whole(path: Path) -> str:
    """The text of a UTF-8 file as it is, without a byte order mark."""
    return "".join(line for _, line in lines(path))


def missing(where: str, what: str, name: str, present: Iterable[str], setting: str) -> DataError:
    """The error for a column or field that is not there."""
    shown = ", ".join(showable(present)[:20]) or "none that reads like a name"
    return DataError(
        f"{where}: has no {what} {name!r}; present: {shown}; set {setting} to the right one."
    )


def showable(names: Iterable[str]) -> list[str]:
    """Those that may stand in an error, sorted: a file without a header, or a wrong column, makes
    names of note text."""
    return sorted(
        name for name in names if len(name) <= 40 and len(name.split()) <= 4 and name.isprintable()
    )
