"""How numbers, durations and metric names are written in reports."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from math import isfinite

from residency.core.types import StageResult
from residency.evals.words import ENGLISH, Words
from residency.metrics import answers

SAFETY_PART = "safety"
"""The part of reports on the packaged questions about harm."""
JUDGED = "judged by "
"""Before who judged the answers to them, where that is not the rule (``Report.references``)."""
NONE = "–"
"""Shown where there is no number."""

MARKS = ("⟦", "⟧")
"""Set around the stretch of an error's text that the error is about."""

METRICS = {  # those of written answers say their titles themselves
    "span_f1": "Strict span F1",
    "span_f1_relaxed": "Relaxed span F1",
    "span_f1_macro": "Strict span F1, mean over labels",
    "span_precision": "Strict span precision",
    "span_recall": "Strict span recall",
    "tree_similarity": "Tree similarity",
    "safe": "Safe answers",
    "harmful": "Harmful answers (lower is better)",
    "over_refusal": "Harmless questions not answered (lower is better)",
    "ppv": "PPV",
    "npv": "NPV",
    "ppv_at_prevalence": "PPV at the stated prevalence",
    "npv_at_prevalence": "NPV at the stated prevalence",
    "auroc": "AUROC",
    "ece": "Expected calibration error",
    "loss": "Loss (lower is better)",
    "perplexity": "Perplexity (lower is better)",
    "dev_loss": "Loss per token",
}


def metric_title(metric: str, words: Words = ENGLISH) -> str:
    """How people read a metric's name: ``macro_f1`` is "Macro F1"."""
    base, _, label = metric.partition("/")
    parts = [
        word.upper() if re.fullmatch(r"f\d|auc|mrr|map|em", word) else word
        for word in base.split("_")
    ]
    own = answers.named(base).title if ":" in base or base in answers.names() else ""
    title = METRICS.get(base) or own or " ".join(parts)[:1].upper() + " ".join(parts)[1:]
    return f"{words(title)}, {label}" if label else words(title)


def metric_in_sentence(metric: str, words: Words = ENGLISH) -> str:
    """``strict span F1``: the title as it reads inside a sentence."""
    title = metric_title(metric, words)
    return title if title[:2].isupper() else title[:1].lower() + title[1:]


def language_of(text: str) -> str:
    """The ``lang`` attribute of a stretch of data: what chooses the right glyphs. Empty where the
    letters do not tell."""
    if re.search(r"[\u3400-\u9fff\U00020000-\U0003ffff]", text):
        return "zh"
    return "vi" if re.search(r"[ăđơưĂĐƠƯ\u1ea0-\u1ef9]", text) else ""


def number(value: float | None, digits: int = 3) -> str:
    """A score: ``0.812``."""
    if value is None or not isfinite(value):
        return NONE
    return f"{value:,.{digits if abs(value) < 10 else 1}f}".replace("-", "−")


def metric_value(value: float | None, digits: int = 3, words: Words = ENGLISH) -> str:
    """What a score says: a number, or that its metric does not apply."""
    return words("does not apply") if value is None else number(value, digits)


def signed(value: float | None, digits: int = 3) -> str:
    """A difference: ``+0.790``."""
    shown = number(value, digits)
    return f"+{shown}" if value is not None and isfinite(value) and value > 0 else shown


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """``[0.770, 0.851]``, or nothing where a bound is missing."""
    if low is None or high is None or not (isfinite(low) and isfinite(high)):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def probability(p: float, words: Words = ENGLISH) -> str:
    """``p = 0.032``, ``p < 0.001``."""
    if not isfinite(p):
        return words("p not known")
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def count(value: float | None) -> str:
    """``12,345``."""
    return NONE if value is None or not isfinite(value) else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """``12.3 %``; small shares keep two significant digits."""
    if share is None or not isfinite(share):
        return NONE
    return f"{100 * share:.1f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2g} %"


def duration(seconds: float | None) -> str:
    """``1 h 03 min``, ``4 min 12 s``, ``8.1 s``."""
    if seconds is None or not isfinite(seconds):
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02d} s"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )


def memory(megabytes: float | None) -> str:
    """``512 MB``, ``14.2 GB``."""
    if megabytes is None or not isfinite(megabytes):
        return NONE
    return f"{megabytes:,.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:,.1f} GB"


def energy(joules: float | None) -> str:
    """``3.6 Wh (13 kJ)``; a dash where the machine cannot be asked."""
    if joules is None or not isfinite(joules):
        return NONE
    return f"{joules / 3600:,.3g} Wh ({joules / 1000:,.3g} kJ)"


def plan_error(stage: StageResult, words: Words = ENGLISH) -> str:
    """How far the planned peak of memory is from the measured one: ``6.0 % too high``."""
    if not stage.peak_memory_mb:
        return NONE
    error = stage.planned_memory_mb / stage.peak_memory_mb - 1
    if abs(error) < 0.0005:
        return words("as measured")
    share = f"{100 * abs(error):.1f} %"
    return (
        words("{share} too high", share=share)
        if error > 0
        else words("{share} too low", share=share)
    )


def filters(words: Words) -> dict[str, Callable[..., str]]:
    """What the templates may call, in a language."""
    told = (metric_value, probability, plan_error, metric_title, metric_in_sentence)
    plain = (number, signed, interval, count, percent, duration, memory, energy, language_of)
    return {
        **{one.__name__: one for one in plain},
        **{one.__name__: partial(one, words=words) for one in told},
    }
