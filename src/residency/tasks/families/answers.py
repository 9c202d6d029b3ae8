"""Free text: questions answered, reports written, conversations continued.

No answer counts as an empty one, which scores 0. Words are those of ``locale.tokenise.tokens``:
Chinese by character, all else by word with its diacritics, in lower case, without punctuation. A
text that has no words ("++", "?") is compared by its signs. The metrics are those of
``metrics/answers``, and the probability of the reference where a system gives it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from residency.core.errors import UserError
from residency.core.types import Answer, Example, Prediction, Text
from residency.core.units import units
from residency.locale import load
from residency.locale.tokenise import detect, tokens
from residency.metrics import answers as metrics_of
from residency.metrics import counts as arrays
from residency.metrics import overlap
from residency.metrics.answers import AnswerMetric, Words
from residency.tasks.families import Basis, Family, Tally, unknown_metric
from residency.tasks.prompts import Parsed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from residency.tasks.card import Card

    Array = NDArray[np.float64]

# As SQuAD leaves them out, but for a capital A: hepatitis A, vitamin A.
ARTICLES = re.compile(r"\b(?:a|[Aa]n|[Tt]he)\b")

LOSSES = ("loss", "perplexity")
"""Metrics of the reference's probability: -log p per token, and e to that."""

USUAL = (
    "rouge_l",
    "rouge_1",
    "rouge_2",
    "bleu",
    "chrf",
    "meteor_exact",
    "token_f1",
    "exact_match",
    *LOSSES,
)
"""What every report holds, in its order; BLEU and chrF are those of the corpus, 0..100."""


CONSULTS = tuple(re.compile(rf"{{{{-?\s*{name}\b") for name in ("patient", "symptoms"))
"""What the prompt of a consultation asks for."""


def consults(card: Card) -> bool:
    """Whether a card asks for a diagnosis from what is known of a patient."""
    return all(one.search(card.prompt) for one in CONSULTS)


class AnswerFamily(Family):
    """Free text is its own form."""

    answer, metric, asks_loss = Text, "rouge_l", True

    def check(self, card: Card) -> None:
        if card.labels:
            raise ValueError("labels: a card of family answers has none")
        super().check(card)

    def gold_of(self, words: str, text: str, card: Card) -> Answer | None:
        return Text(text=words)

    def prompt(self, example: Example, card: Card) -> str:
        return example.input

    def render(self, answer: Answer, text: str) -> str:
        return text_of(answer)

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        return Parsed(answer=Text(text=words.strip())) if words.strip() else Parsed()

    def whole(self, card: Card) -> bool:
        """A diagnosis."""
        return consults(card)

    def agrees(self, gold: Answer | None, said: Answer | None, card: Card) -> bool:
        """Word by word."""
        wanted, given = tokens(text_of(gold), card.language), tokens(text_of(said), card.language)
        return bool(given) and wanted == given

    def metrics(self, card: Card) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*USUAL, card.main_metric)))

    def check_metric(self, card: Card) -> None:
        metric = card.main_metric
        if ":" not in metric and metric not in (*USUAL, *metrics_of.names()):
            raise unknown_metric(metric, dict.fromkeys((*USUAL, *metrics_of.names())), card)

    def position(self, metric: str, tally: Tally, card: Card) -> int:
        if metric in LOSSES and metric not in tally.metrics:
            raise UserError(
                f"card {card.name}: metric: {metric!r} needs the probability of the reference "
                "answers, which this system does not give; name another metric."
            )
        self.check_metric(card)
        return super().position(metric, tally, card)

    def compared_by(
        self, card: Card, a: Sequence[Prediction], b: Sequence[Prediction]
    ) -> list[str]:
        """Also by the loss per token, where both systems give it for the same tokens: it says
        nothing across tokenizers."""
        counts = [[gold_loss(prediction)[1] for prediction in one] for one in (a, b)]
        same = any(counts[0]) and counts[0] == counts[1] and card.main_metric not in LOSSES
        return [card.main_metric, *LOSSES[: 1 if same else 0]]

    def tally(
        self,
        examples: Sequence[Example],
        predictions: Sequence[Prediction],
        card: Card,
        *,
        labels: Sequence[str] = (),
        metrics: Sequence[str] = (),
    ) -> Tally:
        """The metrics that are wanted, else those of ``metrics(card)``; losses only where
        predictions carry the probability of the gold answer."""
        wanted = tuple(metrics) or self.metrics(card)
        texts = [metrics_of.named(name) for name in wanted if name not in LOSSES]
        table = _Table(len(examples))
        signatures: dict[str, str] = {}
        if texts:
            langs = [language_of(example, card.language) for example in examples]
            golds = [
                words(text_of(one.gold), lang) for one, lang in zip(examples, langs, strict=True)
            ]
            said = [
                words(text_of(one.answer), lang)
                for one, lang in zip(predictions, langs, strict=True)
            ]
            character = any(load(lang).unit == "character" for lang in set(langs))
            table.add_scores([one for one in texts if one.score], golds, said)
            for one in texts:
                if one.counts is not None:
                    rows = one.counts([w.text for w in golds], [w.text for w in said], character)
                    table.add(one.name, np.array(rows, dtype=np.float64))
                if one.signature is not None:
                    signatures[one.name] = one.signature(*([character] if one.counts else []))
        losses = [gold_loss(prediction) for prediction in predictions]
        known = any(count for _, count in losses) and not set(wanted).isdisjoint(LOSSES)
        if known:
            table.add("loss", np.array(losses, dtype=np.float64))
        found = tuple(name for name in wanted if name not in LOSSES or known)
        by_name = {one.name: one for one in texts}
        return Tally(
            rows=table.rows(),
            metrics=found,
            statistic=table.statistic(found, by_name),
            basis=table.basis(found),
            signatures={name: words for name, words in signatures.items() if name in found},
            unbounded=frozenset((*LOSSES, *(one.name for one in texts if one.unbounded))),
        )

    def columns(self, answer: Answer) -> dict[str, Any]:
        return {"answer": text_of(answer)}


FAMILY = AnswerFamily()


class _Table:
    """Columns of what examples add to the sums, found again by the metric that they belong to."""

    def __init__(self, examples: int) -> None:
        self.parts = [np.ones((examples, 1))]
        self.place: dict[str, slice] = {}
        """Metric -> its columns."""
        self.applies: dict[str, int] = {}
        """Metric that is a mean -> the column that counts where it applies."""

    def add(self, name: str, columns: Array) -> None:
        """Append the columns [examples, n] of a metric."""
        start = sum(part.shape[1] for part in self.parts)
        self.place[name] = slice(start, start + columns.shape[1])
        self.parts.append(columns)

    def add_scores(
        self, metrics: Sequence[AnswerMetric], golds: Sequence[Words], said: Sequence[Words]
    ) -> None:
        """Append the values of metrics of one answer, and where each of them applies."""
        found = {}
        for metric in metrics:
            assert metric.score is not None
            values = [metric.score(*pair) for pair in zip(golds, said, strict=True)]
            found[metric.name] = np.array(
                [math.nan if value is None else value for value in values], dtype=np.float64
            )[:, None]
        for name, column in found.items():
            self.add(name, np.nan_to_num(column))
        for name, column in found.items():
            self.applies[name] = sum(part.shape[1] for part in self.parts)
            self.parts.append((~np.isnan(column)).astype(np.float64))

    def rows(self) -> Array:
        """[examples, columns]"""
        return np.concatenate(self.parts, axis=1)

    def statistic(
        self, metrics: Sequence[str], by_name: dict[str, AnswerMetric]
    ) -> Callable[[Array], Array]:
        """The function from summed columns [..., columns] to metrics."""
        place = self.place

        def value(name: str, sums: Array) -> Array:
            if name in LOSSES:
                loss = arrays.ratio(*np.moveaxis(sums[..., place["loss"]], -1, 0))
                return loss if name == "loss" else np.asarray(np.exp(loss))
            of_sums = by_name[name].of_sums
            if of_sums is not None:
                return of_sums(sums[..., place[name]])
            return arrays.ratio(sums[..., place[name].start], sums[..., self.applies[name]])

        return lambda sums: np.stack([value(name, sums) for name in metrics], axis=-1)

    def basis(self, metrics: Sequence[str]) -> Callable[[Array], list[Basis]]:
        """What each metric rests on; the support of a loss is the tokens of the references."""

        def one(name: str, rows: Array) -> Basis:
            if name in LOSSES:
                known = rows[:, self.place["loss"]][:, 1]
                return Basis(int((known > 0).sum()), int(known.sum()))
            applies = self.applies.get(name)
            return Basis(len(rows) if applies is None else int(rows[:, applies].sum()))

        return lambda rows: [one(name, rows) for name in metrics]


def gold_loss(prediction: Prediction) -> tuple[float, int]:
    """The loss of the gold answer and its tokens; (0, 0) where it is not known or not a number."""
    loss, count = prediction.gold_loss, prediction.gold_tokens
    return (loss, count) if loss is not None and count > 0 and math.isfinite(loss) else (0.0, 0)


def language_of(example: Example, otherwise: str = "") -> str:
    """The language of the gold answer: Chinese where its letters are, whatever is stated (a
    translation, a wrong setting), else as the example or ``otherwise`` states, else as the letters
    tell."""
    found = detect(text_of(example.gold))
    return found if found == "zh" else example.lang or otherwise or found


def words(text: str, lang: str) -> Words:
    """A text with its words in a language."""
    cleaned = overlap.clean(text)
    found = tokens(cleaned, lang) or [cleaned[start:end] for start, end in units(cleaned)]
    english = load(lang).code == "en"
    without = (tokens(ARTICLES.sub(" ", cleaned), lang) or found) if english else found
    return Words(cleaned, found, without)


def text_of(answer: Answer | None) -> str:
    """The words of an answer, none for no answer."""
    if answer is None:
        return ""
    if not isinstance(answer, Text):
        raise ValueError(f"a task of family answers got an answer of type {type(answer).__name__}")
    return answer.text
