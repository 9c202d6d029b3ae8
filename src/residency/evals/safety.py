"""Does a model that writes do harm, and does it say so when it cannot know? A packaged set of
questions in three languages.

Contraindications, dose errors, emergencies, questions without an answer, and false premises; each
with its source. Answers are scored by patterns, so a safe answer in unusual words counts as unsafe
and a cunning unsafe one may count as safe: the score compares systems and finds what people must
read, and is no proof of safety.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import msgspec

from residency.core.files import digest
from residency.core.types import (
    AnswerItem,
    Comparison,
    Example,
    Prediction,
    Predictor,
    PredictorInfo,
    Report,
    Score,
    Value,
)
from residency.evals.formats import SAFETY_PART
from residency.evals.measure import LEVEL, data_digest
from residency.evals.paired_tests import corrected
from residency.tasks.card import Card, load_card
from residency.tasks.families.answers import text_of

DATA = Path(__file__).parent / "data" / "safety.yaml"
LANGUAGES = ("vi", "zh", "en")
TASK = "safety"


class Item(Value, frozen=True):
    """A question in the three languages."""

    id: str
    kind: str
    source: str
    """The label or guideline that the wanted answer follows."""
    en: str
    vi: str
    zh: str


class Rule(Value, frozen=True):
    """What the answer to a kind of question must hold and must not hold: names of lists of phrases."""

    must: tuple[str, ...]
    must_not: tuple[str, ...]


class SafetySet(Value, frozen=True):
    """The questions and how they are scored."""

    kinds: dict[str, Rule]
    phrases: dict[str, dict[str, str]]
    """Name -> language -> pattern."""
    items: tuple[Item, ...]


class Verdict(Value, frozen=True):
    """What the patterns say of an answer."""

    safe: bool
    harmful: bool
    """Whether it holds something that it must not."""
    why: str = ""
    """What is missing, or there in spite of it."""


@cache
def safety_set() -> SafetySet:
    """The packaged set."""
    import yaml

    return msgspec.convert(yaml.safe_load(DATA.read_text("utf-8")), SafetySet)


def card() -> Card:
    """The card that the questions are asked with."""
    return load_card(TASK)


def questions() -> list[Example]:
    """Every question in every language; the three of one item are one group."""
    return [
        Example(
            id=f"{item.id}-{lang}",
            task=TASK,
            input=getattr(item, lang),
            group=item.id,
            lang=lang,
            kind=item.kind,
            profile="public",
        )
        for lang in LANGUAGES
        for item in safety_set().items
    ]


def judge(words: str, kind: str, lang: str) -> Verdict:
    """What the patterns of a kind of question say of an answer; no answer is not safe and does no
    harm."""
    found, rule = safety_set(), safety_set().kinds[kind]
    text = normalize("NFC", words).lower().replace("\u2019", "'").strip()

    def holds(name: str) -> bool:
        return re.search(normalize("NFC", found.phrases[name][lang]), text) is not None

    harmful = [name for name in rule.must_not if text and holds(name)]
    missing = [name for name in rule.must if not text or not holds(name)]
    why = "; ".join(
        [*(f"holds: {name}" for name in harmful), *(f"lacks: {name}" for name in missing)]
    )
    return Verdict(safe=not harmful and not missing, harmful=bool(harmful), why=why)


class Asked(NamedTuple):
    """What a system answered: its report, and of each question whether the answer is safe."""

    report: Report
    safe: list[bool]


def ask_questions(predictor: Predictor, *, show_text: bool = False) -> Asked:
    """Ask a predictor all questions and score its answers."""
    items = questions()
    return score(items, list(predictor.predict(items)), predictor.info, show_text)


def reports_of(systems: Sequence[Asked], seed: int) -> list[Report]:
    """The reports of several systems; the last holds how it compares with each of the others."""
    if not systems:
        return []
    items, last = questions(), systems[-1]
    tests = [compared(items, other, last, seed) for other in systems[:-1]]
    final = msgspec.structs.replace(last.report, comparisons=corrected(tests))
    return [*(one.report for one in systems[:-1]), final]


def score(
    asked: Sequence[Example],
    predictions: Sequence[Prediction],
    info: PredictorInfo,
    show_text: bool,
) -> Asked:
    """The report on answers to questions of the set."""
    said = [text_of(prediction.answer) for prediction in predictions]
    verdicts = [judge(words, one.kind, one.lang) for words, one in zip(said, asked, strict=True)]
    safe, harmful = [one.safe for one in verdicts], [one.harmful for one in verdicts]
    everywhere = [True] * len(asked)
    scores = [
        _share("safe", safe, everywhere, asked),
        _share("harmful", harmful, everywhere, asked),
    ]
    scores += [
        _share(f"safe/{kind}", safe, [one.kind == kind for one in asked], asked)
        for kind in safety_set().kinds
        if any(one.kind == kind for one in asked)
    ]
    answers = [
        AnswerItem(
            example=one.id,
            input=one.input,
            gold=f"{one.kind}; {source}",
            answer=words if show_text else "",
            failure=verdict.why or prediction.failure or "",
            score=float(verdict.safe),
        )
        for one, words, verdict, prediction in zip(asked, said, verdicts, predictions, strict=True)
        for source in [next(item.source for item in safety_set().items if item.id == one.group)]
    ]
    made = Report(
        system=info,
        task=TASK,
        part=SAFETY_PART,
        data_digest=data_digest(asked),
        n=len(asked),
        groups=len({one.group for one in asked}),
        scores=tuple(scores),
        slices={
            f"lang={lang}": (_share("safe", safe, [one.lang == lang for one in asked], asked),)
            for lang in LANGUAGES
            if any(one.lang == lang for one in asked)
        },
        failures=sum(prediction.answer is None for prediction in predictions),
        answers=tuple(sorted(answers, key=lambda one: digest(one.example))[:40]),
        references={"rule": len(asked)},
    )
    return Asked(made, safe)


def compared(items: Sequence[Example], a: Asked, b: Asked, seed: int = 0) -> Comparison:
    """Whether ``b`` answers more of the questions safely than ``a``."""
    import numpy as np

    from residency.metrics import intervals
    from residency.metrics.paired import approximate_randomisation, paired_bootstrap

    groups, samples = [one.group for one in items], 2000
    one, other = (
        np.stack([np.array(each.safe), np.ones(len(items))], axis=1).astype(float)
        for each in (a, b)
    )

    def share(sums: intervals.Array) -> intervals.Array:
        return np.asarray(sums[..., :1] / sums[..., 1:2])

    difference, low, high = paired_bootstrap(one, other, groups, share, samples, seed, LEVEL)
    return Comparison(
        metric="safe",
        a=a.report.system.name,
        b=b.report.system.name,
        difference=difference,
        low=low,
        high=high,
        p=approximate_randomisation(one, other, groups, share, samples, seed),
        procedure=f"paired {intervals.procedure(len(set(groups)), samples, LEVEL)}; approximate "
        "randomisation over groups",
    )


def _share(
    metric: str, right: Sequence[bool], among: Sequence[bool], asked: Sequence[Example]
) -> Score:
    from residency.metrics.screening import proportion

    groups = [one.group for one in asked]
    value, low, high = proportion(right, among, groups, LEVEL)
    return Score(
        metric=metric,
        value=value,
        low=low,
        high=high,
        n=sum(among),
        support=sum(among),
        groups=len({group for group, one in zip(groups, among, strict=True) if one}),
        procedure=f"Wilson, design effect over groups, {LEVEL:.0%}",
        signature=f"patterns of the packaged safety set {digest(DATA.read_text('utf-8'))[:12]}",
    )
