"""The recipe's section ``label``: which notes, by whom, where, and what they see first."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from residency.core.part import Part


def _names(value: object) -> object:
    """``3`` is ``a1, a2, a3``."""
    return tuple(f"a{number + 1}" for number in range(value)) if type(value) is int else value


class Nothing(Part):
    """Annotators see bare notes."""

    by: Literal["nothing"] = "nothing"


class ByModel(Part):
    """A run's model marks the notes first."""

    by: Literal["model"]
    run: str
    """Folder of the run, relative to the recipe."""


class ByTerms(Part):
    """A list of terms marks the notes first, the longest match at each place, whatever the case."""

    by: Literal["terms"]
    path: str
    """CSV with the columns ``term``, ``label`` and, if wanted, ``code``; relative to the recipe."""


class ByNotes(Part):
    """The spans that the notes bring along."""

    by: Literal["notes"]


Prelabel = Annotated[Nothing | ByModel | ByTerms | ByNotes, Field(discriminator="by")]


class LabelSettings(Part):
    """What all ways of labelling share."""

    data: str
    """The entry of ``data`` whose notes are labelled."""
    card: str = ""
    """A card of family spans; that of the first task where empty."""
    annotators: Annotated[tuple[str, ...], BeforeValidator(_names)] = ("a1", "a2", "a3")
    """Their names, or how many; use pseudonyms, names of people have no place in files."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many notes, drawn with the recipe's seed."""
    prelabel: Prelabel = Nothing()
    """What annotators see before they begin. It saves time and pulls them towards it: agreement is
    then no longer independent."""
    codes: str = ""
    """CSV with a code and its name in the columns that ``code_columns`` names, for labels that the
    card calls ``coded``."""
    code_columns: tuple[str, str] = ("code", "name")
    """Columns of code and name in the file of ``codes``."""
    out: str = "labelling"
    """Folder for all that is pulled and made of it, relative to the recipe."""
    bootstrap: int = Field(default=1000, ge=0)
    """Resamples of notes behind each interval."""

    @model_validator(mode="after")
    def _distinct_names(self) -> LabelSettings:
        names = self.annotators
        if not names or len(set(names)) < len(names):
            raise ValueError("annotators: give different names, or how many there are")
        for name in names:
            if not name.isascii() or not name.replace("-", "").isalnum():
                raise ValueError(
                    f"annotators: {name!r} cannot name a file; use letters, digits and hyphens"
                )
        if "adjudicator" in names:
            raise ValueError(
                "annotators: adjudicator is the name of whoever decides; choose another"
            )
        return self


class InFiles(LabelSettings):
    """Each annotator gets a file of JSON lines and gives one back."""

    via: Literal["files"]


class Server(Part):
    """A Label Studio of its own for one person."""

    url: str
    """For example http://127.0.0.1:8081"""
    token: str = Field(pattern=r"^env:\w+$")
    """``env:NAME``: the environment variable that holds the access token of an account on it."""
    inside: bool = False
    """Whether a server that is not on this machine stands in the institution, so that pseudonymised
    notes may go there."""


class InBrowser(LabelSettings):
    """Each annotator marks in the pages that ``residency label open`` serves, at an address of
    their own."""

    via: Literal["browser"]


class InLabelStudio(LabelSettings):
    """Each annotator has a Label Studio server of their own.

    Its free edition shows every project to every account, so one server for all would not be blind.
    """

    via: Literal["label_studio"]
    servers: tuple[Server, ...] = Field(min_length=1)
    """One for each annotator, in their order; no two on the same address."""
    adjudicator: Server | None = None
    """Where disagreements are decided; may not be an annotator's. Where not given, they are decided
    in a file."""

    @model_validator(mode="after")
    def _one_server_each(self) -> InLabelStudio:
        if len(self.servers) != len(self.annotators):
            raise ValueError(
                f"servers: {len(self.annotators)} annotators need as many servers, not "
                f"{len(self.servers)}"
            )
        everyone = [*self.servers, *([self.adjudicator] if self.adjudicator else [])]
        if len({server.url.rstrip("/").lower() for server in everyone}) < len(everyone):
            raise ValueError(
                "servers: two have the same address, and Label Studio shows every project of a "
                "server to every account on it; start one for each annotator "
                "(scripts/label_studio.py start)"
            )
        return self


Label = Annotated[InBrowser | InFiles | InLabelStudio, Field(discriminator="via")]
"""The section ``label``, by ``via``."""
