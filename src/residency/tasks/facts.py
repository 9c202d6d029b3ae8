"""Answers as lines of Chinese text, in the layout of PromptCBLUE (Zhu et al. 2023), and how sets of
facts are scored: each fact is right or wrong as a whole.

``parse`` is the inverse of ``render`` for every answer whose words hold none of the signs that part
them (``，；：。`` and the line break). A line that cannot be read costs that line only and is named
among the repairs. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from residency.core.types import Answer, Example, Facts, Prediction
from residency.metrics.counts import Counts
from residency.tasks import answer_repair
from residency.tasks.by_label import ByLabel
from residency.tasks.families import Family, checked
from residency.tasks.prompts import Parsed

if TYPE_CHECKING:
    from residency.tasks.card import Card

Fact = tuple[str, ...]
Found = tuple[list[Fact], list[str]]
"""Facts of a line, and what was left out of it."""
Reader = Callable[[str], Found | None]
"""What a line says; ``None`` where it cannot be read. Called with the lines of one answer, from the
first on."""

MOST_LINES = 2000
FACT = "facts"
"""The label of facts that have none."""


class LineFamily(Family):
    """A family whose answers are lines of facts: a first line that leads in, and words for
    nothing."""

    lead: ClassVar[str] = ""
    nothing: ClassVar[str] = ""
    """What is written where there is no fact."""
    silence: ClassVar[tuple[str, ...]] = ()
    """Other words for it."""

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        """The facts, in words."""
        raise NotImplementedError

    def reader(self, card: Card) -> Reader:
        """What reads the lines of one answer."""
        raise NotImplementedError

    def render(self, answer: Answer, text: str) -> str:
        assert isinstance(answer, Facts)
        lines = list(self.lines(answer.facts))
        return "\n".join([self.lead] * bool(self.lead) + lines) if lines else self.nothing

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        facts: dict[Fact, None] = {}
        faults: list[str] = []
        read = self.reader(card)
        lines = [line.strip() for line in words[: answer_repair.LONGEST].split("\n")][:MOST_LINES]
        understood = False
        for number, line in enumerate(lines):
            if not line:
                continue
            if any(said in line for said in (self.nothing, *self.silence) if said):
                understood = True
                continue
            found = read(line)
            if found is None:
                opens = number == 0 and line[-1] in "：:"
                understood |= opens
                faults += (
                    [] if opens or (number == 0 and len(lines) > 1) else [answer_repair.UNREADABLE]
                )
                continue
            understood = True
            faults += found[1]
            for fact in found[0]:
                faults += [answer_repair.TWICE] if fact in facts else []
                facts[fact] = None
        if not facts and not understood:
            return Parsed()
        return Parsed(answer=Facts(facts=tuple(facts)), repairs=answer_repair.unique(faults))


class FactFamily(LineFamily, ByLabel):
    """A family whose answer is a set of facts, each right or wrong as a whole."""

    label_at: ClassVar[int | None] = None
    """Which field of a fact is its label; ``None``: all facts count as one label."""

    def labels(self, answer: Answer | None, card: Card) -> Iterable[str]:
        return map(self._label, facts_of(answer))

    def occurring(
        self, card: Card, examples: Sequence[Example], *answered: Sequence[Prediction]
    ) -> tuple[str, ...]:
        return (FACT,) if self.label_at is None else super().occurring(card, examples, *answered)

    def count(
        self, gold: Answer | None, said: Answer | None, card: Card
    ) -> tuple[dict[str, Counts], tuple[float, ...]]:
        wanted, given = facts_of(gold), facts_of(said)
        counts: dict[str, Counts] = {}
        for fact in wanted | given:
            label, right = self._label(fact), fact in wanted and fact in given
            one = Counts(tp=right, fp=fact not in wanted, fn=fact not in given)
            counts[label] = counts.get(label, Counts()) + one
        return counts, (said is not None and wanted == given, 1)

    def _label(self, fact: Fact) -> str:
        return FACT if self.label_at is None else fact[self.label_at]


def facts_of(answer: Answer | None) -> set[Fact]:
    """The facts of an answer, none for no answer."""
    found = checked(answer, Facts, "facts")
    return set(found.facts) if found else set()


def known(name: str, card: Card) -> bool:
    """Whether a card knows a label; one without labels takes all."""
    return not card.labels or name in card.names


def parts(text: str, sign: str = "，") -> list[str]:
    """The words between signs, without blanks around them."""
    return [word for piece in text.split(sign) if (word := piece.strip())]
