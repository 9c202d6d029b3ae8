"""How written answers are scored: what each example adds to the sums, and the metrics that are made
of them.

No answer counts as an empty one, which scores 0. Words are those of ``locale.text.tokens``: Chinese
by character, all else by word with its diacritics, in lower case, without punctuation. A text that
has no words ("++", "?") is compared by its signs. BLEU and chrF keep case and punctuation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from residency.core.types import Answer, Example, Prediction, Text
from residency.locale import load
from residency.locale.tokenise import detect, tokens, units
from residency.metrics import counts as arrays
from residency.metrics import overlap

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Statistic = Callable[[Array], Array]

# As SQuAD leaves them out, but for a capital A: hepatitis A, vitamin A.
ARTICLES = re.compile(r"\b(?:a|[Aa]n|[Tt]he)\b")


class Words(NamedTuple):
    """A text as the metrics see it."""

    text: str
    words: list[str]
    content: list[str]
    """Without the articles of English."""


MEANS: dict[str, Callable[[Words, Words], float]] = {
    "rouge_l": lambda gold, said: overlap.rouge("rougeL", gold.words, said.words),
    "rouge_1": lambda gold, said: overlap.rouge("rouge1", gold.words, said.words),
    "rouge_2": lambda gold, said: overlap.rouge("rouge2", gold.words, said.words),
    "meteor_exact": lambda gold, said: overlap.meteor_exact(gold.words, said.words),
    "token_f1": lambda gold, said: overlap.token_f1(gold.content, said.content),
    "exact_match": lambda gold, said: overlap.exact_match(gold.text, said.text),
}
"""Metrics of one answer, 0..1, whose mean over the examples is reported."""

LOSSES = ("loss", "perplexity")
"""Metrics of the reference's probability: -log p per token, and e to that."""

UNBOUNDED = ("bleu", "chrf", *LOSSES)
"""Metrics that do not end at 0 and 1."""

METRICS = (
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
"""In the order of a report. BLEU and chrF are those of the corpus, 0..100."""


def statistics(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    language: str = "",
    wanted: Sequence[str] = (),
) -> tuple[Array, tuple[str, ...]]:
    """What each example adds to the sums behind the metrics: ([examples, columns], names of the
    columns).

    Columns: 1; the example's own value of each mean; sacrebleu's counts (``bleu:zh/0`` names the
    tokeniser too); -log p of the gold answer and its tokens, only where predictions carry it.
    Without ``wanted`` those of all metrics. ``language`` is that of texts which do not state their
    own.
    """
    import numpy as np

    asked = set(wanted or METRICS)
    table: dict[str, Sequence[float]] = {"examples": [1.0] * len(examples)}
    if asked.difference(LOSSES):
        langs = [language_of(example, language) for example in examples]
        golds, answers = (
            [text_of(one.gold) for one in examples],
            [text_of(one.answer) for one in predictions],
        )
        pairs = [
            (words(gold, lang), words(said, lang))
            for gold, said, lang in zip(golds, answers, langs, strict=True)
        ]
        table |= {
            name: [mean(*pair) for pair in pairs] for name, mean in MEANS.items() if name in asked
        }
        if "bleu" in asked:
            cut = tokeniser(langs)
            counts = overlap.bleu_counts(
                [gold.text for gold, _ in pairs], [said.text for _, said in pairs], cut
            )
            table |= _columns(f"bleu:{cut}", counts)
        if "chrf" in asked:
            counts = overlap.chrf_counts(
                [gold.text for gold, _ in pairs], [said.text for _, said in pairs]
            )
            table |= _columns("chrf", counts)
    if asked.intersection(LOSSES) and any(gold_loss(prediction)[1] for prediction in predictions):
        table["gold_loss"], table["gold_tokens"] = zip(*map(gold_loss, predictions), strict=True)
    return np.array(list(table.values()), dtype=np.float64).T, tuple(table)


def _columns(name: str, counts: Sequence[Sequence[int]]) -> dict[str, Sequence[float]]:
    return {
        f"{name}/{position}": column for position, column in enumerate(zip(*counts, strict=True))
    }


def metric_names(columns: Sequence[str]) -> tuple[str, ...]:
    """The metrics that columns allow, in the order of ``METRICS``."""
    stems = {re.split("[:/]", column)[0] for column in columns}
    return tuple(
        name for name in METRICS if name in stems or (name in LOSSES and "gold_loss" in stems)
    )


def statistic(columns: Sequence[str]) -> Statistic:
    """The function from summed columns [..., columns] to metrics [..., len(metric_names)]."""
    import numpy as np

    place = {column: position for position, column in enumerate(columns)}
    bleu, chrf = (
        [position for column, position in place.items() if column.startswith(name)]
        for name in ("bleu:", "chrf/")
    )

    def measure(sums: Array) -> Array:
        def loss() -> Array:
            return arrays.ratio(sums[..., place["gold_loss"]], sums[..., place["gold_tokens"]])

        own: dict[str, Callable[[], Array]] = {
            "bleu": lambda: overlap.bleu(sums[..., bleu]),
            "chrf": lambda: overlap.chrf(sums[..., chrf]),
            "loss": loss,
            "perplexity": lambda: np.exp(loss()),
        }
        found = [
            own[name]()
            if name in own
            else arrays.ratio(sums[..., place[name]], sums[..., place["examples"]])
            for name in metric_names(columns)
        ]
        return np.stack(found, axis=-1)

    return measure


def signatures(columns: Sequence[str]) -> dict[str, str]:
    """Metric -> how it was computed, for those where that is not one thing."""
    found = {
        name: overlap.word_signature("nltk" if name == "meteor_exact" else "rouge_score")
        for name in ("rouge_l", "rouge_1", "rouge_2", "meteor_exact", "token_f1")
    }
    if "bleu:13a/0" in columns or "bleu:zh/0" in columns:
        found["bleu"] = overlap.bleu_signature("zh" if "bleu:zh/0" in columns else "13a")
    if "chrf/0" in columns:
        found["chrf"] = overlap.chrf_signature()
    return {name: signature for name, signature in found.items() if name in metric_names(columns)}


def covered(metric: str, columns: Sequence[str], rows: Array) -> tuple[int, int]:
    """Over how many examples a metric is, and how many tokens of references (of a loss; else 0) are
    behind it."""
    if metric not in LOSSES:
        return len(rows), 0
    known = rows[:, columns.index("gold_tokens")]
    return int((known > 0).sum()), int(known.sum())


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


def tokeniser(langs: Sequence[str]) -> overlap.Tokeniser:
    """One for the whole corpus, so that sacrebleu itself gives the same number: ``zh`` as soon as
    one text is Chinese; it cuts what is not Chinese as ``13a`` does (HTML entities and full-width
    signs apart)."""
    return "zh" if any(load(lang).unit == "character" for lang in set(langs)) else "13a"


def words(words_of: str, lang: str) -> Words:
    """A text with its words in a language."""
    cleaned = overlap.clean(words_of)
    found = tokens(cleaned, lang) or [cleaned[start:end] for start, end in units(cleaned)]
    english = load(lang).code == "en"
    return Words(
        cleaned, found, (tokens(ARTICLES.sub(" ", cleaned), lang) or found) if english else found
    )


def text_of(answer: Answer | None) -> str:
    """The words of an answer, none for no answer."""
    if answer is None:
        return ""
    if not isinstance(answer, Text):
        raise ValueError(f"a task of family answers got an answer of type {type(answer).__name__}")
    return answer.text
