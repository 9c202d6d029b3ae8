"""Settings of de-identification."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from residency.core.part import ON_OFF, External, Part, Share

Most = Annotated[float, Field(ge=0, le=1)]
"""Largest share that is allowed; 1: no limit."""


class Release(Part):
    """When a de-identified corpus may leave the identified zone."""

    refused: Share = 0.05
    """Most notes that may be refused; more point to a fault in the settings."""
    canaries: int = Field(default=200, ge=0)
    """Patients to a copy of whose note all known identifiers are added before processing; none of
    them may come out."""
    bound: Most = 1.0
    """Largest 95 % upper bound (Clopper-Pearson) of the share of patients whose added identifiers
    come out. 200 patients without one give 0.015; 0.02 needs 149 patients. 1: no limit beyond that
    none came out."""
    similar: Most = 0.002
    """Most notes in which a number or a name one sign away from the patient's own may be left. 1:
    not looked for."""
    unreviewed: Most = 0.0
    """Most notes with a place between ``deid.review`` and ``deid.mask`` on which nobody has
    decided; it stays as it is. 1: no limit."""
    rare: int = Field(default=5, ge=1)
    """A combination of language, kind of note and label that fewer patients share is rare."""
    rare_patients: Most = 1.0
    """Most patients that may have a rare combination. 1: only counted in the report."""


class Deid(Part):
    """How notes are de-identified."""

    profile: Literal["safe-harbor", "pseudonymised", "anonymised"] = "pseudonymised"
    """``safe-harbor``: dates reduced to the year, ages from 90 on capped; ``pseudonymised``: dates
    shifted, the vault kept apart, the corpus stays personal data; ``anonymised``: dates shifted,
    the vault destroyed at the end, with a record."""
    zone: str = "identified"
    """Folder of the identified zone, where the vault lies, relative to the recipe."""
    out: str = Field(default="data/deidentified.jsonl", pattern=r"\.jsonl$")
    """Where the released notes are written, relative to the recipe: JSON lines that ``format:
    jsonl`` reads."""
    key: str = Field(default="RESIDENCY_KEY", pattern=r"^[A-Z][A-Z0-9_]*$")
    """Environment variable that holds the key of the zone (64 hexadecimal digits, e.g. from
    ``openssl rand -hex 32``)."""
    tagger: Annotated[str, ON_OFF] = "on"
    """``on``: the packaged encoder marks what columns and rules do not find; a folder: another one
    (``residency tagger``); ``off``: columns and rules alone, which are faster and find less."""
    mask: Most | None = None
    """Places to which the tagger gives this probability or a higher one are masked; as its card
    says where not given."""
    review: Most | None = None
    """Places from here on up to ``mask`` wait for a person, in ``NAME.review.csv`` in the zone; as
    the tagger's card says where not given."""
    plugins: tuple[External, ...] = ()
    """Further recognisers, ``package:Class`` each, with ``name`` and ``find(text, lang)``."""
    unreadable_dates: Literal["replace", "refuse"] = "replace"
    """What becomes of a date that cannot be read: a placeholder, or the whole note is refused."""
    jobs: int = Field(default=0, ge=0)
    """Processes that work at the same time; 0: as many as there are cores."""
    release: Release = Release()
