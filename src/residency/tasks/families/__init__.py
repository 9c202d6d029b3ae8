"""Families of tasks, one object in one file each: what a family's answers are, how they are put
into words and read, which classifier can give them, and how they are scored and shown.

A card names its family: ``spans`` is the object ``FAMILY`` of ``tasks/families/spans.py``, and
``package.module:Object`` one of another package. A new file in this folder is a new family; there
is no list to extend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from residency.core.errors import UserError, allowed
from residency.core.part import imported
from residency.core.types import (
    Answer,
    ErrorItem,
    Example,
    Facts,
    Labels,
    Note,
    Prediction,
    RawNote,
)
from residency.tasks.heads import SEQUENCE, TOKENS, WORDS, Classifier, Head
from residency.tasks.prompts import Parsed, ask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from residency.tasks.card import Card

    Array = NDArray[np.float64]
    Statistic = Callable[[Array], Array]


A = TypeVar("A", bound=Answer)


class Basis(NamedTuple):
    """What a metric rests on."""

    n: int
    """Examples that it applies to; 0: it applies to none, and has no value."""
    support: int = 0
    """Gold items (spans, labels, facts, tokens) behind it."""


class Tally(NamedTuple):
    """What each example adds to the sums behind the metrics, and what is made of the sums.

    Intervals, slices and paired tests resample or regroup the rows, so a metric is defined once.
    """

    rows: Array
    """[examples, columns]"""
    metrics: tuple[str, ...]
    """What ``statistic`` gives, in its order; a label's own metrics end in ``/<label>``."""
    statistic: Statistic
    """Summed rows [..., columns] -> [..., metrics]."""
    basis: Callable[[Array], list[Basis]]
    """Rows [examples, columns] -> what each metric rests on."""
    labels: tuple[str, ...] = ()
    """The labels that were counted, in their order."""
    signatures: Mapping[str, str] = {}
    """Metric -> how it was computed, for those where that is not one thing."""
    unbounded: frozenset[str] = frozenset()
    """Metrics that do not end at 0 and 1."""


class Family:
    """A family of tasks. The methods are those of a family whose answers only a generative model
    gives; what a new one must bring is ``answer``, ``render``, ``parse`` and ``tally``."""

    answer: ClassVar[type[Any]] = Facts
    """The type of its gold answers and of a model's."""
    classifier: ClassVar[Classifier | None] = None
    """What answers it beside a generative model; ``None``: nothing. Where there is one, gold is
    marked on the note, and a card's labels are taken from the training notes where it names
    none."""
    metric: ClassVar[str] = "micro_f1"
    """What early stopping and comparisons look at, where the card does not say."""
    marks: ClassVar[str] = "labels"
    """What is marked on a note, in words."""
    several: ClassVar[bool] = False
    """Whether a card may allow several labels for one item."""
    marks_shown: ClassVar[bool] = False
    """Whether a report shows errors and a confusion table, not answers side by side."""
    screened: ClassVar[bool] = False
    """Whether a report also shows each label as a screening test."""
    baselines: ClassVar[tuple[str, ...]] = ("base",)
    """What a trained model is compared with by default (``models/baselines.py``)."""
    asks_loss: ClassVar[bool] = False
    """Whether a system that can is also asked how probable the gold answers are."""

    def check(self, card: Card) -> None:
        """Raise ``ValueError`` where a card holds what does not go with its family."""
        if bool(card.prompt) != bool(card.answer):
            raise ValueError(
                "give both prompt and answer (the row has columns), or neither (the row has turns)"
            )

    def main_metric(self, card: Card) -> str:
        """The metric that early stopping and comparisons look at, where the card names none."""
        return self.metric

    # From notes to answers.

    def in_words(self, note: Note | RawNote, card: Card) -> bool:
        """Whether the question and its gold answer stand in words, and are not marked on the
        note."""
        return True

    def marked(self, note: Note) -> Answer:
        """The gold answer that is marked on a note."""
        raise TypeError(f"the gold of family {type(self).__name__} is not marked on notes")

    def gold_of(self, words: str, text: str, card: Card) -> Answer | None:
        """The gold answer that a row states in words; ``None`` where they are not in the form."""
        return self.parse(words, text, card).answer

    def labels(self, answer: Answer | None, card: Card) -> Iterable[str]:
        """The labels of an answer by the card's names, repeated as they occur."""
        return ()

    def chooses_one(self, card: Card) -> bool:
        """Whether an answer is exactly one of a few labels."""
        return self.classifier is SEQUENCE and not card.multiple

    def chances(self, answer: Answer | None) -> Mapping[str, float]:
        """How likely a model takes each label to be, where it says so."""
        return answer.chances if isinstance(answer, Labels) else {}

    def sure(
        self, example: Example, answer: Answer | None, card: Card
    ) -> list[tuple[float, bool, bool]]:
        """Of each piece of an answer that the model says its chance of: the chance, whether it is
        right, and whether it is given (a label that is likelier not to hold is not)."""
        return []

    def whole(self, card: Card) -> bool:
        """Whether an answer in words is right or wrong as a whole, so that there is a chance of
        it."""
        return False

    def agrees(self, gold: Answer | None, said: Answer | None, card: Card) -> bool:
        """Whether an answer is right as a whole."""
        return said is not None and said == gold

    def occurring(
        self, card: Card, examples: Sequence[Example], *answered: Sequence[Prediction]
    ) -> tuple[str, ...]:
        """The labels that are counted, of families that are counted by label."""
        return ()

    # Words.

    def prompt(self, example: Example, card: Card) -> str:
        """What a generative model is asked about a note."""
        return ask("facts", example, card)

    def render(self, answer: Answer, text: str) -> str:
        """An answer about ``text``, in words. ``parse`` reads them back to an equal answer."""
        raise NotImplementedError

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        """What a model's words say about ``text``."""
        raise NotImplementedError

    # Scores.

    def metrics(self, card: Card) -> tuple[str, ...]:
        """The metrics of a report that are chosen by name; empty where the family has its own."""
        return ()

    def tally(
        self,
        examples: Sequence[Example],
        predictions: Sequence[Prediction],
        card: Card,
        *,
        labels: Sequence[str] = (),
        metrics: Sequence[str] = (),
    ) -> Tally:
        """Score predictions, one for each example. An answer that is ``None`` counts as wrong.

        ``labels`` must hold all that occur, where it is given; else they are the card's and others
        that occur. ``metrics`` names those that are wanted, of families whose metrics are chosen by
        name.
        """
        raise NotImplementedError

    def check_metric(self, card: Card) -> None:
        """Raise ``UserError`` for a metric that no system could be scored by."""

    def position(self, metric: str, tally: Tally, card: Card) -> int:
        """Where a metric is among those of a tally; raises ``UserError`` where it is not there."""
        if metric in tally.metrics:
            return tally.metrics.index(metric)
        raise unknown_metric(metric, tally.metrics, card)

    def compared_by(
        self, card: Card, a: Sequence[Prediction], b: Sequence[Prediction]
    ) -> list[str]:
        """The metrics in which two systems are compared."""
        return [card.main_metric]

    def confused(
        self, gold: Answer | None, said: Answer | None, card: Card
    ) -> Counter[tuple[str, str]]:
        """(gold label, predicted label) -> how often; ``-`` stands for nothing. Empty for families
        whose answers are shown side by side instead."""
        return Counter()

    def errors(self, example: Example, prediction: Prediction, card: Card) -> Iterator[ErrorItem]:
        """What is wrong in an answer, without the text around it; offsets 0 where an error is about
        the whole input."""
        yield from ()

    # What is kept and handed out.

    def columns(self, answer: Answer) -> dict[str, Any]:
        """An answer as ``predict`` writes it into a row."""
        assert isinstance(answer, Facts)
        return {"facts": [list(fact) for fact in answer.facts]}

    def from_columns(self, row: Mapping[str, Any]) -> Answer | None:
        """The answer of a row that ``predict`` wrote; ``None`` where it holds none."""
        return Facts(facts=tuple(map(tuple, row["facts"]))) if "facts" in row else None

    def without_text(self, answer: Answer) -> Answer:
        """An answer without words of the note or of the model."""
        return type(answer)()


def of(card: Card) -> Family:
    """The family of a card."""
    return named(card.family)


def head_of(card: Card, output: str) -> Head:
    """What answers a card: ``text``, in words; ``head``, the classifier of its family."""
    # The word that recipes and artefacts hold becomes the object that all else asks.
    return WORDS if output == "text" else classifier_of(card)


def classifier_of(card: Card) -> Classifier:
    """The classifier that answers a card; raises ``UserError`` where its answers are written."""
    found = of(card).classifier
    if found is None:
        raise UserError(
            f"card {card.name}: its answers are written, and no classifier gives them; set output: "
            "text."
        )
    return found


def check_marks_spans(head: Head | None, otherwise: str) -> None:
    """Raise ``UserError``, which says ``otherwise``, where a head is not the one that says of each
    token how likely each label is."""
    if head is not TOKENS:
        raise UserError(otherwise)


def checked(answer: Answer | None, wanted: type[A], about: str) -> A | None:
    """An answer, sure to be of the type that a task has; raises ``ValueError`` for another one."""
    if answer is None or isinstance(answer, wanted):
        return answer
    raise ValueError(f"a task of {about} got an answer of type {type(answer).__name__}")


@cache
def named(name: str) -> Family:
    """A family by the name of its file, or as ``package.module:Object``.

    Raises ``UserError`` where there is none.
    """
    if ":" not in name and name not in names():
        raise UserError(f"family: {name!r} is not known; {allowed(names(), name)}.")
    found = imported(name if ":" in name else f"{__name__}.{name}:FAMILY")
    found = found() if isinstance(found, type) else found
    if not isinstance(found, Family):
        raise UserError(f"family: {name} is not a Family; families of other packages subclass it.")
    return found


def names() -> list[str]:
    """Names of the packaged families."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def unknown_metric(metric: str, known: Iterable[str], card: Card) -> UserError:
    """What is said of a metric that a task does not have."""
    return UserError(
        f"card {card.name}: metric: {metric!r} is not known; {allowed(list(known), metric)}."
    )
