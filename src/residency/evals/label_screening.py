"""Labels as screening tests: sensitivity and its kin, the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

from residency.core.types import Example, Prediction, Score, Screening
from residency.tasks.card import Card
from residency.tasks.families import of
from residency.tasks.families.labels import chances_of, labels_of


def screen(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    card: Card,
    groups: Sequence[str],
    level: float,
    prevalence: Mapping[str, float] | None = None,
) -> tuple[Screening, ...]:
    """Each label that gold holds, and is not held by every item, as a test of its own. An item
    without an answer is negative. ``prevalence``: of labels where the test is to be used, for their
    predictive values there."""
    if not of(card).screened:
        return ()
    golds = [set(labels_of(example.gold, card)) for example in examples]
    said = [set(labels_of(prediction.answer, card)) for prediction in predictions]
    chances = [chances_of(prediction.answer, card) for prediction in predictions]
    known = all(chances)
    labels = [
        label
        for label in of(card).occurring(card, examples)
        if 0 < sum(label in one for one in golds) < len(golds)
    ]
    return tuple(
        _test(
            label,
            golds,
            said,
            [one.get(label, 0.0) for one in chances] if known else None,
            groups,
            level,
            (prevalence or {}).get(label),
        )
        for label in labels
    )


def _test(
    label: str,
    golds: Sequence[set[str]],
    said: Sequence[set[str]],
    chances: Sequence[float] | None,
    groups: Sequence[str],
    level: float,
    prevalence: float | None,
) -> Screening:
    from residency.metrics import screening

    ill, found = [label in one for one in golds], [label in one for one in said]
    well, missed = [not one for one in ill], [not one for one in found]
    clustered = len(set(groups)) < len(groups)
    how = f"Wilson{', design effect over groups' if clustered else ''}, {level:.0%}"
    scores = [
        _score(name, screening.proportion(right, among, groups, level), sum(among), groups, how)
        for name, right, among in (
            ("sensitivity", found, ill),
            ("specificity", missed, well),
            ("ppv", ill, found),
            ("npv", well, missed),
        )
    ]
    if prevalence is not None:
        ends = [screening.proportion(found, ill, groups, level)]
        ends.append(screening.proportion(missed, well, groups, level))
        there = f"MOVER of {how}, prevalence {prevalence:.4g}"
        for name, pair, share in (
            ("ppv_at_prevalence", ends, prevalence),
            ("npv_at_prevalence", ends[::-1], 1 - prevalence),
        ):
            value = screening.predictive_value(pair[0], pair[1], share)
            scores.append(_score(name, value, len(ill), groups, there))
    if chances is not None:
        area = screening.auroc(chances, ill, groups, level)
        scores.append(
            _score(
                "auroc",
                area,
                len(ill),
                groups,
                f"DeLong{' over groups' if clustered else ''}, {level:.0%}",
            )
        )
    tally = [
        sum(a and b for a, b in zip(one, other, strict=True))
        for one, other in ((ill, found), (well, found), (ill, missed), (well, missed))
    ]
    tp, fp, fn, tn = tally
    return Screening(
        label=label,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        scores=tuple(one for one in scores if one.value is not None),
    )


def _score(
    metric: str, interval: tuple[float, float, float], n: int, groups: Sequence[str], how: str
) -> Score:
    value, low, high = interval
    known = not isnan(low)
    return Score(
        metric=metric,
        value=None if isnan(value) else value,
        low=low if known else None,
        high=high if known else None,
        n=n,
        groups=len(set(groups)),
        procedure=how if known else "no interval",
    )
