"""Settings of extraction from a hospital's database."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from residency.core.part import Part

Kind = Literal[
    "name", "relative", "clinician", "record", "admission", "national_id", "insurance", "phone", "email", "address", "birth_date", "account", "other",
]  # fmt: skip


class Columns(Part):
    """Which column of the statement's result is what; the empty string where there is none."""

    id: str = "id"
    patient: str = "patient"
    text: str = "text"
    lang: str = ""
    kind: str = ""
    written_at: str = ""


class Extract(Part):
    """Notes of a database, read with a login that cannot write."""

    url: str = Field(pattern=r"^(env:[A-Z][A-Z0-9_]*|[a-z][a-z0-9+]*://.*)$")
    """``env:NAME``: the environment variable that holds the SQLAlchemy URL; or a URL without a password, e.g.
    ``sqlite:///hospital.db`` (relative to the recipe)."""
    notes: str = Field(min_length=8)
    """One SELECT that gives a row per note."""
    labels: str = ""
    """One SELECT that gives note, start, stop and label of entities, where the database holds any."""
    columns: Columns = Columns()
    identifiers: dict[Kind, tuple[str, ...] | str] = {}
    """Kind -> column or columns that hold identifiers of the row: they are looked for in every form in the note."""
    mark: str = ""
    """Column that only grows (a number or a time): the next extraction takes what is beyond; the id where empty."""
    lang: Literal["vi", "zh", "en", ""] = ""
    """Language of notes whose row does not say."""
    fetch: int = Field(default=1000, ge=1)
    """Rows that are in memory at once."""
    writing_login: bool = False
    """Whether a login that could write is accepted all the same (the transaction is read-only then too)."""

    @model_validator(mode="after")
    def _no_password(self) -> Extract:
        if "://" in self.url and "@" in self.url and ":" in self.url.split("://", 1)[1].rsplit("@", 1)[0]:
            raise ValueError(
                "url: a password does not belong into a recipe; put the whole URL into an environment variable and write env:NAME"
            )
        return self

    def columns_of(self) -> tuple[tuple[str, str], ...]:
        """(kind, column) of every identifier."""
        return tuple(
            (kind, column)
            for kind, names in self.identifiers.items()
            for column in ((names,) if isinstance(names, str) else names)
        )
