"""What results say in words: how good the last system of a task is, and how it stands to its
baselines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from residency.core.types import Comparison, Report, Score, StageResult, Value
from residency.evals.formats import (
    count,
    interval,
    metric_in_sentence,
    metric_value,
    probability,
    signed,
)
from residency.evals.words import ENGLISH, Words
from residency.tasks.scoring import falls

CLEAR = 0.05
"""p below which a difference is called clear."""
BESIDE = {"base": "base", "crf": "CRF"}
"""Baselines that a model is judged beside."""
INSTEAD = {"dictionary": "dictionary of the training part", "majority": "commonest labels"}
"""Those of a model that starts from no base and is a CRF itself."""
PARTS = {
    "safety": "questions about harm and abstention",
    "test": "held-out notes",
    "dev": "dev notes (also used to stop training)",
    "train": "training notes",
}
WHO = {
    "tuned": "the tuned model",
    "base": "the untuned base model",
    "crf": "a CRF over words, shapes and affixes",
    "dictionary": "the dictionary of the training part",
    "majority": "the commonest labels",
    "chance": "chance",
}


class Judgement(Value, frozen=True):
    """What a result says of a model, in one of five kinds, for terminal, report, card and
    ledger."""

    task: str
    kind: Literal["learned nothing", "not better", "cannot tell", "clearly better", "worse"]
    words: str


def by_task(reports: Iterable[Report]) -> dict[str, list[Report]]:
    """Reports by task, in their order."""
    tasks: dict[str, list[Report]] = {}
    for report in reports:
        tasks.setdefault(report.task, []).append(report)
    return tasks


def main_scores(report: Report) -> tuple[Score, ...]:
    """The scores over all labels."""
    return tuple(score for score in report.scores if "/" not in score.metric)


def main_metric(reports: Sequence[Report]) -> str:
    """The metric that the verdict names: the first one that systems are compared by, else the first
    of all."""
    known = [score.metric for report in reports for score in main_scores(report)]
    compared = [one.metric for one in comparisons(reports) if one.metric in known]
    return next(iter(compared + known), "")


def comparisons(reports: Iterable[Report]) -> tuple[Comparison, ...]:
    """All paired tests of some reports."""
    return tuple(comparison for report in reports for comparison in report.comparisons)


def find(report: Report, metric: str) -> Score | None:
    """The score of a metric."""
    return next((score for score in report.scores if score.metric == metric), None)


def verdict(reports: Sequence[Report], groups: str = "patients", words: Words = ENGLISH) -> str:
    """One sentence in plain words: what the last system reaches, on how much, and against which
    baselines."""
    tuned, metric = reports[-1], main_metric(reports)
    score = find(tuned, metric)
    if score is None:
        who = _capital(_who(tuned, words))
        return words("{who} was not scored on {task}.", who=who, task=tuned.task)
    found = [
        words(
            "{who} reaches {metric} {score} on {size}",
            who=_capital(_who(tuned, words)),
            metric=metric_in_sentence(metric, words),
            score=_rounded(score, words),
            size=size_of(tuned, groups, words),
        )
    ]
    for report in reports[:-1]:
        if (baseline := find(report, metric)) is None:
            continue
        said = f"{_who(report, words)} {_rounded(baseline, words)}"
        pair = (metric, report.system.name, tuned.system.name)
        test = next((c for c in comparisons(reports) if (c.metric, c.a, c.b) == pair), None)
        if test is not None:
            said += words(
                " (difference {difference}, {p}, {reading})",
                difference=f"{signed(test.difference, 2)} {interval(test.low, test.high, 2)}",
                p=probability(test.p, words),
                reading=words(_reading(test)),
            )
        found.append(said)
    return words("; ").join(found) + words(".")


def size_of(report: Report, groups: str, words: Words) -> str:
    """On how much a system was scored: ``50 held-out notes of 31 patients``."""
    part, n = words(PARTS.get(report.part, report.part)), count(report.n)
    if not 0 < report.groups < report.n:
        return words("{n} {part}", n=n, part=part)
    held = {"n": n, "part": part, "groups": count(report.groups), "unit": words(groups)}
    return words("{n} {part} of {groups} {unit}", **held)


def judgements(reports: Iterable[Report], words: Words = ENGLISH) -> list[Judgement]:
    """What the results of the last system of each task say: that it learned nothing, or by the
    paired tests how it stands to the base and to a CRF that learned from the same training part; a
    CRF that starts from no base, to what needs no training."""
    found = []
    for task, each in by_task(reports).items():
        metric, tuned = main_metric(each), each[-1]
        score = find(tuned, metric)
        if tuned.part == "safety" or score is None or score.value is None:
            continue
        if score.value <= 0 and not falls(metric):
            said = words(
                "{task}: {who} learned nothing: {metric} is 0 on {size}. Do not use it; train "
                "longer, or on more records.",
                task=task,
                who=_who(tuned, words),
                metric=metric_in_sentence(metric, words),
                size=words(
                    "{n} {part}",
                    n=count(tuned.n),
                    part=words(PARTS.get(tuned.part, tuned.part)),
                ),
            )
            found.append(Judgement(task=task, kind="learned nothing", words=said))
            continue
        tests = {
            c.a: c for c in comparisons(each) if (c.metric, c.b) == (metric, tuned.system.name)
        }
        beside = [name for name in BESIDE if name in tests] or list(INSTEAD)
        found += [_judged(task, tuned, tests[name], words) for name in beside if name in tests]
    return found


def _judged(task: str, tuned: Report, test: Comparison, words: Words) -> Judgement:
    """How a paired test sets a system beside a baseline."""
    way = -1 if falls(test.metric) else 1
    low, high = sorted((way * test.low, way * test.high))
    p = test.p if test.p_corrected is None else test.p_corrected
    figures = words(
        "({metric} differs by {difference})",
        metric=metric_in_sentence(test.metric, words),
        difference=f"{signed(test.difference, 2)} {interval(test.low, test.high, 2)}",
    )
    held = {"who": f"{task}: {_who(tuned, words)}", "figures": figures}
    other = words((BESIDE | INSTEAD)[test.a])
    if low > 0 and p < CLEAR:
        said = words("{who} is clearly better than the {other} {figures}.", other=other, **held)
        return Judgement(task=task, kind="clearly better", words=said)
    if test.a == "crf" and low <= 0:
        said = words(
            "{who} is not better than the CRF on this test part {figures}: words, shapes and "
            "affixes do as well.",
            **held,
        )
        return Judgement(task=task, kind="not better", words=said)
    if high < 0:
        said = words("{who} is worse than the {other} {figures}.", other=other, **held)
        return Judgement(task=task, kind="worse", words=said)
    if way * test.difference <= 0:
        said = words("{who} is not better than the {other} {figures}.", other=other, **held)
        return Judgement(task=task, kind="not better", words=said)
    said = words(
        "{who}: whether it is better than the {other} cannot be told with {n} independent groups "
        "{figures}.",
        other=other,
        n=count(tuned.groups),
        **held,
    )
    return Judgement(task=task, kind="cannot tell", words=said)


def below_floor(reports: Iterable[Report]) -> list[str]:
    """The sentences of ``judgements`` that speak against a model."""
    return [one.words for one in judgements(reports) if one.kind != "clearly better"]


def too_few_steps(stage: StageResult, words: Words = ENGLISH) -> str:
    """A sentence on a stage that took less than half of the updates that ``auto`` takes and was not
    stopped by its stop part; empty for others."""
    try:
        steps, usual = (int(stage.settings[key]) for key in ("steps", "steps of epochs: auto"))
    except (KeyError, ValueError):
        return ""
    if 2 * steps >= usual:
        return ""
    return words(
        "Stage {stage}: too few steps ({steps}; epochs: auto takes {usual}).",
        stage=stage.name,
        steps=f"{steps:,}",
        usual=f"{usual:,}",
    )


def _who(report: Report, words: Words) -> str:
    name = report.system.name
    return words(WHO[name]) if name in WHO else words("the system {name}", name=name)


def _reading(test: Comparison) -> str:
    """What a test says; where its report holds several, its corrected p must say so too."""
    p = test.p if test.p_corrected is None else test.p_corrected
    if test.low <= 0 <= test.high or p >= CLEAR:
        return "no clear difference"
    worse = test.low > 0 if falls(test.metric) else test.high < 0
    return "clearly worse" if worse else "clearly better"


def _rounded(score: Score, words: Words) -> str:
    shown = metric_value(score.value, 2, words)
    return f"{shown} {interval(score.low, score.high, 2)}".rstrip()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
