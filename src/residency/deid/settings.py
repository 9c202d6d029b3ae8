"""Settings of de-identification."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from residency.core.part import External, Part, Share


class Release(Part):
    """When a de-identified corpus may leave the identified zone."""

    refused: Share = 0.05
    """Most notes that may be refused; more point to a fault in the settings."""
    canaries: int = Field(default=200, ge=0)
    """Notes to whose copies known identifiers are added before processing; none of them may come out."""
    similar: bool = True
    """Whether names and numbers one sign away from the patient's own are looked for."""
    rare: int = Field(default=5, ge=1)
    """Combinations of age band, kind of note and label that fewer patients share are counted in the report."""


class Deid(Part):
    """How notes are de-identified."""

    profile: Literal["safe-harbor", "pseudonymised", "anonymised"] = "pseudonymised"
    """``safe-harbor``: dates reduced to the year, ages from 90 on capped; ``pseudonymised``: dates shifted, the vault kept apart, the
    corpus stays personal data; ``anonymised``: dates shifted, the vault destroyed at the end, with a record."""
    zone: str = "identified"
    """Folder of the identified zone, where the vault lies, relative to the recipe."""
    out: str = Field(default="data/deidentified.jsonl", pattern=r"\.jsonl$")
    """Where the released notes are written, relative to the recipe: JSON lines that ``format: jsonl`` reads."""
    key: str = Field(default="RESIDENCY_KEY", pattern=r"^[A-Z][A-Z0-9_]*$")
    """Environment variable that holds the key of the zone (64 hexadecimal digits, e.g. from ``openssl rand -hex 32``)."""
    plugins: tuple[External, ...] = ()
    """Further recognisers, ``package:Class`` each, with ``name`` and ``find(text, lang)``."""
    unreadable_dates: Literal["replace", "refuse"] = "replace"
    """What becomes of a date that cannot be read: a placeholder, or the whole note is refused."""
    jobs: int = Field(default=0, ge=0)
    """Processes that work at the same time; 0: as many as there are cores."""
    release: Release = Release()
