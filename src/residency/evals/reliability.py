"""How sure a system says it is beside how often it is right, and what abstaining leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from residency.core.types import Bin, Calibration, Example, Prediction, Score
from residency.tasks.card import Card
from residency.tasks.families import of


class Sure(NamedTuple):
    """A piece of an answer."""

    chance: float
    """What the system says."""
    right: bool
    given: bool
    group: str


def said(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    card: Card,
    groups: Sequence[str],
    calibrated: bool = True,
) -> list[Sure]:
    """Every piece of the answers that a system says its chance of, calibrated or as it was
    before."""
    family, found = of(card), []
    for example, one, group in zip(examples, predictions, groups, strict=True):
        if one.likelihood is not None and one.sure is not None and one.answer is not None:
            right = family.agrees(example.gold, one.answer, card)
            found.append(Sure(one.sure if calibrated else one.likelihood, right, True, group))
            continue
        answer = one.answer if calibrated else one.uncalibrated
        found += [Sure(*each, group) for each in family.sure(example, answer, card)]
    return found


def curve(
    found: Sequence[Sure], samples: int, seed: int, level: float
) -> tuple[tuple[Bin, ...], Score | None]:
    """The reliability curve and the calibration error of pieces; nothing of nothing."""
    from residency.metrics.screening import reliability

    pairs = [(one.chance, one.right, one.group) for one in found]
    return reliability(pairs, samples, seed, level)


def abstention(
    found: Sequence[Sure], calibration: Calibration | None, level: float
) -> tuple[Score, ...]:
    """What a system that abstains below its threshold still gives (``coverage``, of what it would
    give), and what of that is wrong (``error``); nothing of one that does not abstain."""
    from residency.metrics.screening import proportion

    below = calibration.abstains_below if calibration else None
    given = [one for one in found if one.given]
    if below is None or not given:
        return ()
    groups, kept = [one.group for one in given], [one.chance >= below for one in given]
    wrong, every = [not one.right for one in given], [True] * len(given)
    return (
        _share("coverage", proportion(kept, every, groups, level), len(given), groups),
        _share("error", proportion(wrong, kept, groups, level), sum(kept), groups),
    )


def _share(
    metric: str, interval: tuple[float, float, float], n: int, groups: Sequence[str]
) -> Score:
    value, low, high = (bound if bound == bound else None for bound in interval)
    return Score(metric=metric, value=value, low=low, high=high, n=n, groups=len(set(groups)))
