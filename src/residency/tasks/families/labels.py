"""Labels of a whole text: one, or several of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from residency.core.types import Answer, ErrorItem, Example, Labels, Note, Prediction, RawNote
from residency.metrics import choices
from residency.metrics.counts import Counts
from residency.metrics.spans import NOTHING
from residency.tasks import answer_repair
from residency.tasks.by_label import ByLabel
from residency.tasks.families import checked
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
        """The label, or the list of labels; where it is put otherwise, what the words name: of one
        label exactly one."""
        bare = words.strip()
        if bare in card.names:
            return Parsed(answer=Labels(labels=(bare,)))
        names = answer_repair.Names(card.names, [label.title for label in card.labels])
        found = answer_repair.first_list(words)
        if card.multiple and found is not None and all(isinstance(row, str) for row in found[0]):
            return _named(found[0], names, [answer_repair.AROUND] if found[1] else [])
        if (one := names.of(bare)) is not None:
            return Parsed(answer=Labels(labels=(one,)), repairs=(answer_repair.LABEL,))
        if card.multiple:
            if answer_repair.says_nothing(words):
                return Parsed(answer=Labels(), repairs=(answer_repair.NONE,))
            pieces = re.split(
                r"[,，;；、|\n]", words[: answer_repair.LONGEST].strip(answer_repair.TRIMMED + "[]")
            )
            if any(names.of(piece) for piece in pieces):
                return _named(
                    [piece for piece in pieces if piece.strip()], names, [answer_repair.LINES]
                )
        within = names.within(words)
        if within and (card.multiple or len(within) == 1):
            kept = tuple(name for name in card.names if name in within)
            return Parsed(answer=Labels(labels=kept), repairs=(answer_repair.AROUND,))
        return Parsed()

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


def _named(rows: Sequence[object], names: answer_repair.Names, repairs: list[str]) -> Parsed:
    """The labels of a list, each once; unknown ones left out."""
    found: dict[str, None] = {}
    for row in rows:
        name = names.of(row)
        if name is None:
            repairs.append(answer_repair.UNKNOWN)
            continue
        if name != row and answer_repair.LINES not in repairs:
            repairs.append(answer_repair.LABEL)
        if name in found:
            repairs.append(answer_repair.TWICE)
        found[name] = None
    return (
        Parsed()
        if rows and not found
        else Parsed(answer=Labels(labels=tuple(found)), repairs=answer_repair.unique(repairs))
    )
