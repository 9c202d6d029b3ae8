"""A card says what a task is, as data: its family, labels with definitions, prompt and metric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import field_validator, model_validator

from residency.core.errors import UserError, allowed
from residency.core.part import Part, Share, parse
from residency.tasks import families

if TYPE_CHECKING:
    from residency.core.types import Example

CARDS = Path(__file__).parent / "cards"


class Label(Part):
    """One label and what it means."""

    name: str
    definition: str = ""
    title: str = ""
    """How people read it, in the card's language; the name where empty."""
    coded: bool = False
    """Whether annotators also give a code of a terminology, e.g. ICD-10."""
    also: tuple[str, ...] = ()
    """Other names that rows use for it; they count as this label."""


class Card(Part):
    """A task."""

    name: str
    family: str
    """What its answers are like: a file of ``tasks/families``, or ``package.module:Object``."""
    language: str = ""
    description: str = ""
    labels: tuple[Label, ...] = ()
    """Empty: taken from the training data."""
    attributes: tuple[str, ...] = ()
    """``spans`` family: what an annotator may say of a span beside its label, e.g. ``negated``."""
    multiple: bool = False
    """``labels`` family: whether an item may have several labels."""
    otherwise: str = ""
    """A label that may always be chosen, also where a row names its own choices: none of them."""
    metric: str = ""
    """What early stopping and comparison look at; the family's own where empty."""
    system: str = ""
    """What a model that writes is told before the conversation."""
    prompt: str = ""
    """What a model that writes is asked, as a Jinja template. ``spans`` and ``labels``: it knows
    ``text``, ``labels`` and the columns of the row; the family's own words where empty. The others:
    it knows the columns of the row and ``labels``. Data that holds turns is asked as it stands."""
    answer: str = ""
    """Where the row has columns: the wanted answer, as a Jinja template over them, in the form of
    the family."""
    most_trained: Share = 0
    """The rule of a benchmark: the largest share of the base's parameters that may be trained; 0:
    none. The report says whether a run keeps it."""

    @field_validator("family")
    @classmethod
    def _known(cls, family: str) -> str:
        try:
            families.named(family)
        except UserError as error:
            raise ValueError(str(error).removeprefix("family: ")) from None
        return family

    @model_validator(mode="after")
    def _fits_its_family(self) -> Card:
        families.of(self).check(self)
        if self.multiple and not families.of(self).several:
            raise ValueError("multiple: only for family labels")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The label names in their order."""
        return tuple(label.name for label in self.labels)

    @property
    def main_metric(self) -> str:
        """The metric that early stopping and comparisons look at."""
        return self.metric or families.of(self).main_metric(self)

    def with_labels(self, found: tuple[str, ...]) -> Card:
        """The card with its labels fixed: its own, or those found in the training data."""
        if self.labels or families.of(self).classifier is None:
            return self
        return self.model_copy(update={"labels": tuple(Label(name=name) for name in found)})

    def canonical(self, name: str) -> str:
        """The label that a name stands for: itself, unless a label lists it among its other
        names."""
        return next((label.name for label in self.labels if name in label.also), name)

    def for_example(self, example: Example) -> Card:
        """The card as it is for one example: with the choices of its row, and with what may always
        be chosen."""
        names = dict.fromkeys(
            [*(example.choices or self.names), *([self.otherwise] if self.otherwise else [])]
        )
        if tuple(names) == self.names:
            return self
        known = {label.name: label for label in self.labels}
        return self.model_copy(
            update={"labels": tuple(known.get(name) or Label(name=name) for name in names)}
        )


def load_card(name: str, root: Path | None = None) -> Card:
    """A packaged card by name (``ner``, ``promptcblue/cmeee``), or a YAML file of the user's (a
    path ending in .yaml, relative to ``root``).

    Raises ``UserError`` for an unknown name or a file that is not a card.
    """
    if name.endswith((".yaml", ".yml")):
        path = (root or Path()) / name
        if not path.is_file():
            raise UserError(
                f"card: {path} does not exist; give a YAML file or one of the packaged cards "
                f"({', '.join(packaged())})."
            )
    else:
        path = CARDS / f"{name}.yaml"
        if name not in packaged():
            raise UserError(
                f"card: {name!r} is not known; {allowed(packaged(), name)}, or a path ending in "
                ".yaml."
            )
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path}: is not valid YAML in UTF-8.") from None
    return parse(Card, value, str(path))


def packaged() -> list[str]:
    """Names of the cards in the package."""
    return sorted(
        path.relative_to(CARDS).with_suffix("").as_posix() for path in CARDS.rglob("*.yaml")
    )


def rule_of(card: Card, trained: int, parameters: int) -> list[str]:
    """Whether training kept a benchmark's rule on the share of trained parameters, as a sentence;
    none where there is none."""
    if not card.most_trained or not parameters:
        return []
    share = trained / parameters
    kept = "kept" if share <= card.most_trained else "broken: this run is outside that track"
    return [
        f"{card.name}: {trained:,} of {parameters:,} parameters of the base were trained "
        f"({share:.2%}); the rule of the benchmark's "
        f"efficient-tuning track, at most {card.most_trained:.0%}, is {kept}."
    ]
