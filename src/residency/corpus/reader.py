"""What every format shares: the settings of a data set, and a row as its file gives it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from residency.core.errors import DataError
from residency.core.part import ON_OFF, Part, Share, renamed
from residency.core.types import PARTS, PartName, Profile, Turn, Value
from residency.corpus.span_repair import Offsets, Raw

Paths = str | list[str]
Near = Annotated[Share | Literal["off"], ON_OFF]
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
    offsets: Offsets = "auto"
    """How offsets count, where the format says it."""
    repairs: tuple[str, ...] = ()
    """Repairs that the reader made, one per span."""
    not_taken: dict[str, int] = {}
    """Reason -> annotations of the file beside the spans that the format does not take."""
    fault: str = ""
    """Why nothing can be made of the row."""
    left_out: str = ""
    """Why the file itself says that the row is not to be learned from."""


class Source(Part):
    """Where a data set comes from and how it became fit for use.

    Either ``path`` (all records, parts drawn by group) or any of ``train``, ``dev`` and ``test``
    (parts given): files, folders or glob patterns relative to the recipe's folder.
    """

    format: str = ""
    train: Paths | None = None
    """Files that are learned from."""
    dev: Paths | None = None
    """Files that decide when to stop."""
    test: Paths | None = None
    """Files that are reported on, and decide nothing."""
    path: Paths | None = None
    """All records; parts are drawn by group according to ``shares``."""
    shares: dict[PartName, Share] = {"train": 0.8, "dev": 0.1, "test": 0.1}
    """Size of the parts drawn from ``path``; they add up to 1."""
    draw: Literal["random", "hash", "time", "site"] = "random"
    """How they are drawn: with the recipe's seed and labels spread alike; by the SHA-256 of the
    text, so that a record stays in its part when the data grows; by time, the newest to test; or by
    site, none in two parts."""
    history: str = Field(default="", exclude_if=lambda path: not path)
    """A split file (``split/NAME.split.json``), relative to the recipe: patients keep the parts
    that they have there, and what is new is dealt out beside them. Where there is none yet, all is
    drawn."""
    near: Near = 0.8
    """Notes whose character 5-grams overlap by so much (Jaccard) are near-duplicates and stay
    together in parts that are drawn; ``off``: only equal texts do."""
    copied: bool = Field(default=False, exclude_if=lambda on: not on)
    """Whether notes that were copied forward and rewritten, up to four words of ten, stay together
    too: those that share rare sequences of words and half the weight of their words."""
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
    max_rejected: Share = Field(default=0.01, serialization_alias="loss")
    """Share of the rows that may be rejected before reading stops with an error."""
    on_bad_span: Literal["reject_row", "drop_span"] = "reject_row"
    """What becomes of a span that cannot be repaired. Dropping it teaches the model that there is
    nothing."""
    offsets: Offsets = Field(default="auto", exclude_if=lambda how: how == "auto")
    """How offsets of spans without a quote count: ``characters``, ``utf-16`` (JavaScript, Java),
    ``utf-8`` (bytes) or ``crlf`` (CRLF as one character). ``auto``: characters; a span that then
    begins or ends inside a word, or that another way of counting fits as well, is a bad one."""
    ends: Literal["exclusive", "inclusive"] = Field(
        default="exclusive", exclude_if=lambda how: how == "exclusive"
    )
    """Whether the end of a span is the place behind its last character, or that character."""
    labels: dict[str, str] = {}
    """Old label -> new label; one that is mapped to the empty string is left out."""
    license: str = ""
    """Under which the data may be used; stands in report and model card."""
    source_url: str = ""
    """Where the data comes from; stands in report and model card."""
    citation: str = ""
    """Who is to be named for the data; stands in report and model card."""

    _old_keys = renamed(loss="max_rejected")

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

    def reader(self) -> Source:
        """The settings whose ``rows`` reads the files; raises ``UserError`` where they cannot be
        had."""
        return self

    def paths(self, part: str) -> list[str]:
        """What the recipe names for ``path`` or a part."""
        value: Paths | None = getattr(self, part)
        return [] if value is None else ([value] if isinstance(value, str) else value)

    def suffixes(self) -> tuple[str, ...]:
        """Endings of the files of a folder that are read."""
        return (".txt",)

    def companions(self, path: Path) -> list[Path]:
        """Files that are read together with one of the inputs."""
        return []

    def span_file(self, path: Path) -> Path:
        """The file by whose lines the spans of an input are numbered."""
        return path

    @abstractmethod
    def rows(self, path: Path) -> Iterator[Row]:
        """Every row of a file, also those that cannot be used (``Row.fault``)."""


def require(
    where: str, what: str, present: Iterable[str], wanted: Iterable[tuple[str, str]]
) -> None:
    """Raise ``DataError`` for the first column or field (``what``) that is not there. ``wanted``:
    each name with the setting that gives it."""
    present = list(present)
    for name, setting in wanted:
        if name not in present:
            names = ", ".join(showable(present)[:20]) or "none that reads like a name"
            raise DataError(
                f"{where}: has no {what} {name!r}; present: {names}; set {setting} to the right "
                "one."
            )


def proved(label: str) -> bool:
    """Whether a label has a shape that a stretch of a note does not have: one word of letters,
    digits and a few signs, that is no long number."""
    return bool(_LABEL.fullmatch(label)) and not re.search(r"\d{6}", label)


def told(label: str) -> str:
    """A label as an error may name it: what has not the shape of one is not shown."""
    return f"label {label!r}" if proved(label) else "a label that is no plain word (not shown)"


_LABEL = re.compile(r"[^\W_][\w.:/+&-]{0,39}")


def showable(names: Iterable[str]) -> list[str]:
    """Those that may stand in an error, sorted: a file without a header, or a wrong column, makes
    names of note text."""
    return sorted(name for name in names if proved(name.lstrip("_")))
