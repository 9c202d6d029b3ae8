"""How sure a model says it is beside how often it is right: one temperature for all of its log-odds
(Guo et al. 2017, arXiv:1706.04599), and the confidence below which it had better not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from residency.core.types import LEAST
from residency.metrics.intervals import Array

COLDEST, HOTTEST = 0.1, 10.0
"""Temperatures that are looked at: beyond them a model is as good as certain, or knows nothing."""
FARTHEST = 12.0
"""Largest shift of log-odds."""


class Claim(NamedTuple):
    """A thing that a model says: a span, or that a label holds."""

    scores: NDArray[np.float32]
    """Log-odds that it rests on, [places, outputs]."""
    chosen: Sequence[int]
    """Its output at each place."""
    right: bool
    given: bool = True
    """Whether it is part of the answer; a label that is less likely than not is none."""
    group: str = ""


def chances(claims: Sequence[Claim], temperature: float = 1.0) -> Array:
    """How sure a model is of each claim: the geometric mean over its places of the chance of what
    it chose, its log-odds divided by ``temperature``."""
    if not claims:
        return np.zeros(0)
    rows = np.concatenate([one.scores for one in claims]).astype(float) / temperature
    chosen = np.concatenate([np.asarray(one.chosen, dtype=np.intp) for one in claims])
    said = rows[np.arange(len(rows)), chosen] - np.logaddexp.reduce(rows, axis=1)
    sizes = np.array([len(one.scores) for one in claims])
    sums = np.add.reduceat(said, np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    return np.asarray(np.exp(sums / sizes))


def temperature(claims: Sequence[Claim]) -> float:
    """The one at which what is right was likeliest (least log loss of the claims' chances); 1 where
    all claims are right, or all wrong: then any number would be better the more extreme it is."""
    from scipy.optimize import minimize_scalar

    right = np.array([one.right for one in claims], dtype=bool)
    if right.all() or not right.any():
        return 1.0

    def loss(log: float) -> float:
        sure = np.clip(chances(claims, float(np.exp(log))), LEAST, 1 - LEAST)
        return float(-np.log(np.where(right, sure, 1 - sure)).mean())

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(found.x)), 4) if found.fun < loss(0.0) else 1.0


def platt(claims: Sequence[Claim]) -> tuple[float, float]:
    """The temperature and shift of the log-odds of written answers (Platt 1999, with his targets,
    so that few answers lead nowhere far): two numbers, since the tokens of a wrong answer may all
    be likely. (1, 0) where that is no better, or all are right, or all wrong."""
    from scipy.optimize import minimize

    odds = np.array([float(one.scores[0, 1] - one.scores[0, 0]) for one in claims])
    right = np.array([one.right for one in claims], dtype=bool)
    if right.all() or not right.any():
        return 1.0, 0.0
    wanted = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))

    def loss(given: NDArray[np.float64]) -> float:
        said = (odds + given[1]) / np.exp(given[0])
        return float((np.logaddexp(0, said) - wanted * said).mean())

    bounds = [(np.log(COLDEST), np.log(HOTTEST)), (-FARTHEST, FARTHEST)]
    found = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds)
    if found.fun >= loss(np.zeros(2)):
        return 1.0, 0.0
    return round(float(np.exp(found.x[0])), 4), round(float(found.x[1]), 4)


def shifted(claims: Sequence[Claim], shift: float) -> list[Claim]:
    """Claims of written answers with log-odds that are larger by ``shift``."""
    more = np.array([0, shift], dtype=np.float32)
    return [one._replace(scores=one.scores + more) for one in claims]


def threshold(sure: Sequence[float], right: Sequence[bool], most_error: float) -> float | None:
    """The least confidence from which on at most ``most_error`` of what is said is wrong, one error
    more than was seen counted, since it is chosen where it is measured; ``None`` where there is no
    such confidence."""
    values, wrong = np.asarray(sure, dtype=float), ~np.asarray(right, dtype=bool)
    order = np.argsort(-values, kind="stable")
    values, errors = values[order], np.cumsum(wrong[order])
    ends = np.append(values[1:] < values[:-1], True) if len(values) else np.zeros(0, dtype=bool)
    kept = ends & ((errors + 1) / (np.arange(len(values)) + 2) <= most_error)
    # six digits, rounded down, as confidences are told
    return float(np.floor(values[np.flatnonzero(kept)[-1]] * 1e6) / 1e6) if kept.any() else None
