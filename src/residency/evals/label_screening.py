"""Labels as screening tests: sensitivity and its kin, the area under the ROC curve, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

from residency.core.types import Bin, Example, Prediction, Score, Screening
from residency.tasks.card import Card
from residency.tasks.families import of
from residency.tasks.families.labels import labels_of


class Screened(NamedTuple):
    """What is said of labels as tests."""

    labels: tuple[Screening, ...] = ()
    bins: tuple[Bin, ...] = ()
    error: Score | None = None


def screen(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    card: Card,
    groups: Sequence[str],
    samples: int,
    seed: int,
    level: float,
) -> Screened:
    """Each label that gold holds, and is not held by every item, as a test of its own; calibration
    where chances are known.

    Several labels: every label of every item counts. One label: the chosen one. An item without an
    answer is negative, and stands for no chance.
    """
    golds = [set(labels_of(example.gold, card)) for example in examples]
    said = [set(labels_of(prediction.answer, card)) for prediction in predictions]
    chances = [_chances(prediction, card) for prediction in predictions]
    known = all(chances)
    labels = [
        label
        for label in of(card).occurring(card, examples)
        if 0 < sum(label in one for one in golds) < len(golds)
    ]
    tests = tuple(
        _test(
            label,
            golds,
            said,
            [one.get(label, 0.0) for one in chances] if known else None,
            groups,
            level,
        )
        for label in labels
    )
    if not any(chances):
        return Screened(labels=tests)
    pairs = [
        (one[label], label in gold, group)
        for one, gold, answered, group in zip(chances, golds, said, groups, strict=True)
        for label in (one if card.multiple else one.keys() & answered)
    ]
    return Screened(tests, *_calibrated(pairs, samples, seed, level))


def _chances(prediction: Prediction, card: Card) -> dict[str, float]:
    """Label -> chance; names that stand for one label are added up."""
    found: dict[str, float] = {}
    for name, chance in of(card).chances(prediction.answer).items():
        label = card.canonical(name)
        found[label] = min(1.0, found.get(label, 0.0) + chance)
    return found


def _test(
    label: str,
    golds: Sequence[set[str]],
    said: Sequence[set[str]],
    chances: Sequence[float] | None,
    groups: Sequence[str],
    level: float,
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


def _calibrated(
    pairs: Sequence[tuple[float, bool, str]], samples: int, seed: int, level: float
) -> tuple[tuple[Bin, ...], Score | None]:
    from residency.metrics import intervals, screening

    if not pairs:
        return (), None
    chances, right, groups = (
        [pair[0] for pair in pairs],
        [pair[1] for pair in pairs],
        [pair[2] for pair in pairs],
    )
    rows = screening.binned(chances, right)
    value, low, high = intervals.bootstrap(
        rows, groups, screening.calibration_error(), samples, seed, level, True
    )
    units = len(set(groups))
    known = units > 1 and samples > 0
    error = Score(
        metric="ece",
        value=float(value[0]),
        low=float(low[0]) if known else None,
        high=float(high[0]) if known else None,
        n=len(pairs),
        groups=units,
        procedure=intervals.procedure(units, samples, level),
    )
    return screening.bins(chances, right, groups, level), error
