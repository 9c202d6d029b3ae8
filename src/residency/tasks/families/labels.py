"""Labels of a whole text: one, or several of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from residency.core.types import Answer, ErrorItem, Example, Labels, Note, Prediction, RawNote
from residency.metrics import choices
from residency.metrics.counts import Counts
from residency.metrics.spans import NOTHING
from residency.tasks import statements
from residency.tasks.by_label import ByLabel
from residency.tasks.families import checked, of
from residency.tasks.heads import SEQUENCE
from residency.tasks.prompts import Parsed, ask

if TYPE_CHECKING:
    from residency.tasks.card import Card


class LabelFamily(ByLabel):
    """A single label bare, several as a JSON list."""

    answer, classifier, several, screened = Labels, SEQUENCE, True, True
    baselines = ("base", "crf", "majority", "chance")
    marks_shown = True

    def check(self, card: Card) -> None:
        """Prompt, answer and ``multiple`` as the card likes."""

    def main_metric(self, card: Card) -> str:
        return "micro_f1" if card.multiple else "macro_f1"

    def in_words(self, note: Note | RawNote, card: Card) -> bool:
        return bool(note.turns or (note.fields and card.answer))

    def marked(self, note: Note) -> Answer:
        return Labels(labels=note.labels)

    def labels(self, answer: Answer | None, card: Card) -> tuple[str, ...]:
        return labels_of(answer, card)

    def prompt(self, example: Example, card: Card) -> str:
        return ask("labels" if card.multiple else "label", example, card)

    def render(self, answer: Answer, text: str) -> str:
        assert isinstance(answer, Labels)
        one = len(answer.labels) == 1
        return answer.labels[0] if one else json.dumps(list(answer.labels), ensure_ascii=False)

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        """The label, the list of labels, or what the words state (``tasks/statements.py``)."""
        titles = [label.title for label in card.labels]
        said = statements.read_labels(
            words, card.names, multiple=card.multiple, language=card.language, titles=titles
        )
        if said.labels is None:
            return Parsed()
        return Parsed(answer=Labels(labels=said.labels), repairs=said.repairs)

    def overall(self, card: Card) -> tuple[str, ...]:
        names = super().overall(card)
        return names if card.multiple else ("accuracy", *names[1:])

    def count(
        self, gold: Answer | None, said: Answer | None, card: Card
    ) -> tuple[dict[str, Counts], tuple[float, ...]]:
        wanted, given = labels_of(gold, card), labels_of(said, card)
        right = said is not None and set(wanted) == set(given)
        return choices.count([wanted], [given]), (right, 1)

    def confused(
        self, gold: Answer | None, said: Answer | None, card: Card
    ) -> Counter[tuple[str, str]]:
        return Counter(choices.pairs(labels_of(gold, card), labels_of(said, card)))

    def errors(self, example: Example, prediction: Prediction, card: Card) -> Iterator[ErrorItem]:
        for gold, said in self.confused(example.gold, prediction.answer, card).elements():
            if gold != said:
                missed, invented = said == NOTHING, gold == NOTHING
                yield ErrorItem(
                    example=example.id,
                    kind="missed" if missed else "invented" if invented else "type",
                    gold="" if invented else gold,
                    predicted="" if missed else said,
                )

    def sure(
        self, example: Example, answer: Answer | None, card: Card
    ) -> list[tuple[float, bool, bool]]:
        """The chosen label, or every label of a card that allows several."""
        gold, said = set(labels_of(example.gold, card)), set(labels_of(answer, card))
        return [
            (chance, label in gold, label in said)
            for label, chance in chances_of(answer, card).items()
            if card.multiple or label in said
        ]

    def whole(self, card: Card) -> bool:
        return True

    def agrees(self, gold: Answer | None, said: Answer | None, card: Card) -> bool:
        return said is not None and {*labels_of(gold, card)} == {*labels_of(said, card)}

    def columns(self, answer: Answer) -> dict[str, Any]:
        assert isinstance(answer, Labels)
        return {"labels": list(answer.labels), "scores": list(answer.scores)}

    def from_columns(self, row: Mapping[str, Any]) -> Answer | None:
        return Labels(labels=tuple(row["labels"])) if row.get("labels") else None

    def without_text(self, answer: Answer) -> Answer:
        return answer


FAMILY = LabelFamily()


def labels_of(answer: Answer | None, card: Card) -> tuple[str, ...]:
    """The chosen labels of an answer by the card's names, none for no answer."""
    found = checked(answer, Labels, "family labels")
    return tuple(map(card.canonical, found.labels)) if found else ()


def chances_of(answer: Answer | None, card: Card) -> dict[str, float]:
    """Label -> chance; names that stand for one label are added up."""
    found: dict[str, float] = {}
    for name, chance in of(card).chances(answer).items():
        label = card.canonical(name)
        found[label] = min(1.0, found.get(label, 0.0) + chance)
    return found
