"""How sure a model says it is, made as large as how often it is right on rows that it has not
learned from; and the confidence below which it abstains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from residency.core.types import Calibration, Score
from residency.metrics import calibration
from residency.metrics.calibration import Claim
from residency.metrics.screening import reliability
from residency.train.job import TrainingJob

FEWEST = 50
"""Claims below which chances are left as they are: a temperature of fewer is mostly luck."""
FEWEST_EACH = 10
"""Written answers that must be right, and wrong, at least."""
SAMPLES = 1000
"""Resamples behind the intervals."""


def calibrate(
    job: TrainingJob, found: Iterable[Claim], rows: int, held_out: bool, written: bool = False
) -> Calibration | None:
    """The calibration of a stage's model, from what it says of ``rows`` rows that it has not
    learned from; ``None`` where that is too little, or chances are left as they are. ``written``:
    they are whole answers in words, of which at least ``FEWEST_EACH`` must be right and wrong word
    by word: of long ones that are right in other words nothing can be said."""
    claims = list(found)
    if not job.calibrates or len(claims) < FEWEST:
        return None
    most, shift, raw = job.stage.abstain_error, 0.0, claims
    right = [one.right for one in claims]
    if written and min(sum(right), len(right) - sum(right)) < FEWEST_EACH:
        return None
    if written:
        temperature, shift = calibration.platt(claims)
        claims = calibration.shifted(claims, shift)
    else:
        temperature = calibration.temperature(claims)
    given = [one for one in claims if one.given]
    after = calibration.chances(given, temperature).tolist()
    right = [one.right for one in given]
    return Calibration(
        temperature=temperature,
        rows=rows,
        held_out=held_out,
        shift=shift,
        before=_error(job, raw, 1.0),
        after=_error(job, claims, temperature),
        most_error=most,
        threshold=None if most is None else calibration.threshold(after, right, most),
    )


def _error(job: TrainingJob, claims: Sequence[Claim], temperature: float) -> Score | None:
    sure = calibration.chances(claims, temperature).tolist()
    pairs = [(p, one.right, one.group) for p, one in zip(sure, claims, strict=True)]
    return reliability(pairs, SAMPLES, job.seed)[1]


def in_words(found: Calibration) -> str:
    """For the report."""
    where = "held out" if found.held_out else "of the stop part"
    moved = f", shift {found.shift:g}" if found.shift else ""
    said = f"temperature {found.temperature:g}{moved} on {found.rows} rows {where}"
    return said + (f" in a training before ({found.seconds:.0f} s)" if found.seconds else "")
