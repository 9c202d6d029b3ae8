"""Settings of extraction: where identified notes are, in a database or in files."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from residency.core.part import Part, Share

Kind = Literal[
    "name",
    "relative",
    "clinician",
    "record",
    "admission",
    "national_id",
    "insurance",
    "phone",
    "email",
    "address",
    "birth_date",
    "account",
    "other",
]
Encoding = Literal[
    "auto",
    "utf-8",
    "utf-16",
    "gb18030",
    "big5",
    "cp1258",
    "tcvn3",
    "vni",
    "latin-1",
    "iso8859-15",
    "cp1252",
]
Format = Literal["auto", "plain", "rtf", "html"]


def _days(value: object) -> object:
    found = re.fullmatch(r"\s*(\d+)\s*(days?)?\s*", value) if isinstance(value, str) else None
    return int(found[1]) if found else value


Days = Annotated[int, BeforeValidator(_days), Field(ge=0)]
"""``30`` or ``30 days``."""


class NoteColumns(Part):
    """Which column of a row is what; the empty string where there is none."""

    id: str = "id"
    """The note's own number at its source."""
    patient: str = "patient"
    """The patient, by whatever number the source knows them."""
    text: str = "text"
    """What was written."""
    lang: str = ""
    """Language of the note."""
    kind: str = ""
    """Kind of note."""
    written_at: str = ""
    """When it was written."""
    department: str = ""
    """Ward or site; it stays with the note, so that parts can be drawn by site."""
    version: str = ""
    """Number or time of a note's version: of several rows with one id the highest counts. Where
    empty, a row that has changed since it was taken is the later version."""
    deleted: str = ""
    """Where it holds anything but nothing, 0, false or no, the note was deleted at the source: it
    leaves the zone, and what was released, with the next release."""
    line: str = ""
    """Number of a line, where a note stands in several rows of one id; they are joined in its
    order."""
    format: Format = "auto"
    """What the text column holds; ``auto``: RTF and HTML are told by how they begin and by their
    tags."""


class NoteSource(Part):
    """What every source of identified notes has."""

    lang: Literal["vi", "zh", "en", ""] = ""
    """Language of notes whose row or document does not say."""
    encoding: Encoding = "auto"
    """How bytes are read; ``auto``: a byte order mark, then UTF-8, and for Chinese notes GB18030.
    ``tcvn3`` (ABC) and ``vni`` (VNI-Windows) are also read where a database gives them as Latin
    letters. Notes that cannot be read are counted and left out."""
    keep: Days = 30
    """Days after which extracted notes are removed from the zone, at the next command."""
    segment: int = Field(default=500, ge=1)
    """Notes that are stored, and later de-identified, together: what a killed command does again at
    most."""
    absent: Share | Literal["keep"] = "keep"
    """What becomes of notes that are at the source no longer. A share (``5%``): the source is read
    as a whole, and those that are not there are removed, unless they are more than that."""
    merged: str = ""
    """CSV file with the columns ``patient`` and ``into``, relative to the recipe: patients whose
    records the hospital has merged. With a column ``confirmed`` only rows with ``yes`` count."""


class TableSource(NoteSource):
    """What sources of rows with columns have."""

    columns: NoteColumns = NoteColumns()
    identifiers: dict[Kind, tuple[str, ...] | str] = {}
    """Kind -> column or columns that hold identifiers of the row: they are looked for in every form
    in the note."""

    @cached_property
    def columns_of(self) -> tuple[tuple[str, str], ...]:
        """(kind, column) of every identifier."""
        return tuple(
            (kind, column)
            for kind, names in self.identifiers.items()
            for column in ((names,) if isinstance(names, str) else names)
        )

    def wanted(self) -> dict[str, str]:
        """Dotted key -> column that must be there."""
        named = {
            f"extract.columns.{name}": column
            for name, column in self.columns
            if column and name != "format"
        }
        return named | {f"extract.identifiers.{kind}": column for kind, column in self.columns_of}


class Sql(TableSource):
    """Notes of a database, read with a login that cannot write."""

    kind: Literal["sql"] = "sql"
    url: str = Field(pattern=r"^(env:[A-Z][A-Z0-9_]*|[a-z][a-z0-9+]*://.*)$")
    """``env:NAME``: the environment variable that holds the SQLAlchemy URL; or a URL without a
    password, e.g. ``sqlite:///hospital.db`` (relative to the recipe)."""
    notes: str = Field(min_length=8)
    """One SELECT that gives a row per note."""
    labels: str = ""
    """One SELECT that gives note, start, stop and label of entities, where the database holds
    any."""
    mark: str = ""
    """Column that only grows (a number or a time): the next extraction takes what is beyond; the id
    where empty."""
    again: float = Field(default=0, ge=0)
    """How far behind the last mark reading begins again, in days where marks are times: for rows
    that come late, or whose mark went back."""
    merges: str = ""
    """One SELECT that gives patient and into, of patients whose records were merged."""
    fetch: int = Field(default=1000, ge=1)
    """Rows that are in memory at once."""
    writing_login: bool = False
    """Whether a login that could write is accepted all the same (the transaction is read-only then
    too)."""

    @model_validator(mode="after")
    def _no_password(self) -> Sql:
        if (
            "://" in self.url
            and "@" in self.url
            and ":" in self.url.split("://", 1)[1].rsplit("@", 1)[0]
        ):
            raise ValueError(
                "url: a password does not belong into a recipe; put the whole URL into an "
                "environment variable and write env:NAME"
            )
        if self.labels and self.columns.format in ("rtf", "html"):
            raise ValueError(
                f"labels: their offsets count the {self.columns.format.upper()} text, which is "
                "taken apart; give notes in plain text, or no labels"
            )
        return self


class Files(NoteSource):
    """What sources of files have. A file is told by name and content: one that was taken is not
    taken again."""

    path: str = Field(min_length=1)
    """A file, a folder, or a pattern such as ``inbox/*.csv`` (``**`` for folders below), relative
    to the recipe."""
    changed: Literal["refuse", "new"] = "refuse"
    """What a file that was taken before and has changed means: the command refuses; or what is new
    in it is taken: notes with new ids, and later versions of others."""


class CsvFiles(Files, TableSource):
    """Rows of CSV files with a line of column names."""

    kind: Literal["csv"]
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """The sign that parts the columns."""


class JsonlFiles(Files, TableSource):
    """Rows of JSON lines files; ``spans`` of a row, where there are any, hold start, end and
    label."""

    kind: Literal["jsonl"]


class XlsxFiles(Files, TableSource):
    """Rows of a sheet of Excel workbooks, below a line of column names."""

    kind: Literal["xlsx"]
    sheet: str = ""
    """Name of the sheet; where empty, the only one that is not empty."""


class ArrowFiles(Files, TableSource):
    """Rows of Parquet, Arrow and Feather files."""

    kind: Literal["arrow"]


class Hl7(Files):
    """HL7 version 2 messages (MDM, ORU, ADT): what is written, and whom the message names."""

    kind: Literal["hl7"]


class Ccda(Files):
    """C-CDA documents: the narrative of their sections, and whom their header names. Documents of
    one set are versions of a note; one that another replaces (RPLC) leaves; an addendum (APND) is a
    note beside it."""

    kind: Literal["ccda"]


class Fhir(Files):
    """FHIR R4 bundles and resources (JSON, NDJSON, XML): attachments of DocumentReference,
    DiagnosticReport, sections of Composition and notes of Observation, and whom the record knows
    of."""

    kind: Literal["fhir"]


class Claims(Files):
    """Claim XML of Vietnamese health insurance (decisions 4210 and 3176/QĐ-BYT): of each visit an
    administrative note, one of orders and one of its course."""

    kind: Literal["claims"]


def _sql_by_default(value: object) -> object:
    return {"kind": "sql", **value} if isinstance(value, dict) and "kind" not in value else value


AnyFiles = CsvFiles | JsonlFiles | XlsxFiles | ArrowFiles | Hl7 | Ccda | Fhir | Claims
AnySource = Sql | AnyFiles
Extract = Annotated[AnySource, Field(discriminator="kind"), BeforeValidator(_sql_by_default)]
"""A recipe's section ``extract``, by ``kind``; ``sql`` where it says none."""
