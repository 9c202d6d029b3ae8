"""A card says what a task is, as data: its family, labels with definitions, prompt and metric."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import model_validator

from residency.core.errors import UserError, allowed
from residency.core.part import Part, parse

CARDS = Path(__file__).parent / "cards"

Family = Literal["spans", "labels", "answers"]


class Label(Part):
    """One label and what it means."""

    name: str
    definition: str = ""
    title: str = ""
    """How people read it, in the card's language; the name where empty."""
    coded: bool = False
    """Whether annotators also give a code of a terminology, e.g. ICD-10."""


class Card(Part):
    """A task."""

    name: str
    family: Family
    language: str = ""
    description: str = ""
    labels: tuple[Label, ...] = ()
    """Empty: taken from the training data."""
    attributes: tuple[str, ...] = ()
    """``spans`` family: what an annotator may say of a span beside its label, e.g. ``negated``."""
    multiple: bool = False
    """``labels`` family: whether an item may have several labels."""
    metric: str = ""
    """What early stopping and comparison look at; the family's own where empty."""
    system: str = ""
    """What a model that writes is told before the conversation."""
    prompt: str = ""
    """What a model that writes is asked, as a Jinja template. ``spans`` and ``labels``: it knows ``text`` and ``labels``; the
    family's own words where empty. ``answers``: it knows the columns of the row; empty where the data holds turns."""
    answer: str = ""
    """``answers``: the wanted answer, as a Jinja template over the columns of the row."""

    @model_validator(mode="after")
    def _fits_its_family(self) -> Card:
        if self.family == "answers" and self.labels:
            raise ValueError("labels: a card of family answers has none")
        if self.family == "answers" and bool(self.prompt) != bool(self.answer):
            raise ValueError("give both prompt and answer (the row has columns), or neither (the row has turns)")
        if self.family != "answers" and self.answer:
            raise ValueError("answer: only for family answers; the others write their labels")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The label names in their order."""
        return tuple(label.name for label in self.labels)

    @property
    def main_metric(self) -> str:
        """The metric that early stopping and comparisons look at."""
        if self.metric:
            return self.metric
        if self.family == "answers":
            return "rouge_l"
        return "span_f1" if self.family == "spans" else ("micro_f1" if self.multiple else "macro_f1")

    def with_labels(self, found: tuple[str, ...]) -> Card:
        """The card with its labels fixed: its own, or those found in the training data."""
        return (
            self
            if self.labels or self.family == "answers"
            else self.model_copy(update={"labels": tuple(Label(name=name) for name in found)})
        )


def load_card(name: str, root: Path | None = None) -> Card:
    """A packaged card by name (``ner``), or a YAML file of the user's (a path ending in .yaml, relative to ``root``).

    Raises ``UserError`` for an unknown name or a file that is not a card.
    """
    if name.endswith((".yaml", ".yml")):
        path = (root or Path()) / name
        if not path.is_file():
            raise UserError(
                f"card: {path} does not exist; give a YAML file or one of the packaged cards ({', '.join(packaged())})."
            )
    else:
        path = CARDS / f"{name}.yaml"
        if not path.is_file():
            raise UserError(f"card: {name!r} is not known; {allowed(packaged(), name)}, or a path ending in .yaml.")
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path}: is not valid YAML in UTF-8.") from None
    return parse(Card, value, str(path))


def packaged() -> list[str]:
    """Names of the cards in the package."""
    return sorted(path.stem for path in CARDS.glob("*.yaml"))
