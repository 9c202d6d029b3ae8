"""The box at the top of a report, for readers who evaluate no models: what was asked, how good the
answers are, what they are not for, and what the words mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from residency.core.types import Report, RunFacts, Value
from residency.evals.formats import (
    SAFETY_PART,
    interval,
    metric_in_sentence,
    metric_value,
)
from residency.evals.verdicts import find, main_metric, size_of
from residency.evals.words import Words

MOST_LABELS = 8

TERMS = {
    "strict": "A stretch of text is right only where its type, its beginning and its end are those "
    "of the reference.",
    "relaxed": "A stretch is right where its type is right and it overlaps the reference at all.",
    "precision": "Of what the model said, the share that is right.",
    "recall": "Of what it should have found, the share that it found.",
    "F1": "One number for both (their harmonic mean): 1 is perfect, 0 is nothing right.",
    "macro": "The mean over labels, each counted alike, however rare it is.",
    "accuracy": "Of all items, the share with the right answer.",
    "95 % interval": "Where the true value lies, as far as a test of this size can tell; the "
    "smaller the test, the wider.",
    "p": "How often chance alone would make a difference as large as this one.",
}
NOT_FOR = (
    "Decisions about a patient without a qualified person who checks them.",
    "Other languages, kinds of notes, hospitals or labels than those it was measured on here; "
    "measure it there first.",
)
BUNDLED = "Any use in care: the bundled base is made for learning the tool and for tests."


class Plain(Value, frozen=True):
    """A task's results in plain words."""

    asked: str
    good: tuple[str, ...]


def plain(reports: Sequence[Report], groups: str, words: Words) -> Plain:
    """What was asked of the systems of a task, and how good the last one is."""
    tuned = reports[-1]
    metric = main_metric(reports)
    size = size_of(tuned, groups, words)
    names = list(dict.fromkeys(s.metric.partition("/")[2] for s in tuned.scores if "/" in s.metric))
    labels = ", ".join(names[:MOST_LABELS]) + (", …" if len(names) > MOST_LABELS else "")
    if metric.startswith("span_"):
        asked = words("To mark in {size}: {labels}.", size=size, labels=labels)
    elif tuned.part == SAFETY_PART:
        asked = words("To answer {size} without doing harm.", size=size)
    elif tuned.screening or tuned.confusion:
        asked = words("To choose the right label for {size}: {labels}.", size=size, labels=labels)
    else:
        asked = words("To answer in words: {size}, compared with references.", size=size)
    if tuned.part == "test":
        asked += words(" The model had not seen them in training.")
    return Plain(asked=asked, good=tuple(_good(tuned, metric, words)))


def _good(tuned: Report, metric: str, words: Words) -> Iterator[str]:
    """How good the answers are, in numbers out of a hundred where they are shares."""

    def of_hundred(name: str) -> str:
        score = find(tuned, name)
        return "" if score is None or score.value is None else f"{100 * score.value:.0f}"

    precision, recall = of_hundred("span_precision"), of_hundred("span_recall")
    if precision and recall:
        yield words(
            "Of 100 stretches that it marks, about {right} are right in type, beginning and end; "
            "of 100 that it should mark, it finds about {found} so.",
            right=precision,
            found=recall,
        )
    elif share := of_hundred("safe") or of_hundred("accuracy"):
        if tuned.part == SAFETY_PART:
            yield words("Of 100 questions, about {n} are answered safely.", n=share)
        else:
            yield words("Of 100 answers, about {n} are right.", n=share)
    elif score := find(tuned, metric):
        yield words(
            "Its {metric} is {value}.",
            metric=metric_in_sentence(metric, words),
            value=f"{metric_value(score.value, 2, words)} {interval(score.low, score.high, 2)}",
        )


def terms(facts: RunFacts, words: Words) -> tuple[tuple[str, str], ...]:
    """The words of evaluation that stand in a report, and what they mean."""
    metrics = {score.metric.partition("/")[0] for one in facts.reports for score in one.scores}
    spans = any(name.startswith("span_") for name in metrics)
    counted = spans or any(name.endswith("_f1") for name in metrics)
    found = {
        "strict": spans,
        "relaxed": "span_f1_relaxed" in metrics,
        "precision": counted,
        "recall": counted,
        "F1": counted,
        "macro": any("macro" in name for name in metrics),
        "accuracy": "accuracy" in metrics,
        "95 % interval": bool(metrics),
        "p": any(one.comparisons for one in facts.reports),
    }
    return tuple((words(name), words(TERMS[name])) for name, shown in found.items() if shown)


def not_for(facts: RunFacts, words: Words) -> tuple[str, ...]:
    """What the model of a run is not for."""
    bundled = (BUNDLED,) if facts.base.startswith("bundled:") else ()
    return tuple(map(words, (*NOT_FOR, *bundled)))
