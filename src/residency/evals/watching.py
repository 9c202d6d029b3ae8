"""What labelled records from the field say of a model: settings, result, page, figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from residency.core.page import Page, Section
from residency.core.part import Part, Share
from residency.core.types import Example, Prediction, Span, Value
from residency.evals import plots
from residency.locale.tokenise import tokens
from residency.metrics.drift import Reading

SURE = 4.0
"""Standard errors from which a difference of inputs is told as a hint."""
UNKNOWN = "words that half of the baseline's notes do not hold (share)"
SEEN = 20
"""Notes on either side below which nothing is compared."""


class Watch(Part):
    """How a model is watched in the field, and tuned again."""

    gold: str = ""
    """Labelled records from the field: JSON lines with ``written_at``, such as the ``gold.jsonl``
    of a labelling; relative to the recipe's folder."""
    pool: str = ""
    """Records from the field without labels, from which those to label next are chosen."""
    labelled: str = ""
    """The records that ``residency retune`` asked for, labelled."""
    since: date | None = None
    """Records of earlier days are not read."""
    fall: Share = 0.05
    """The fall of F1 that matters."""
    how: Literal["points", "relative"] = "points"
    """Whether that is in points of F1 or a share of the baseline."""
    rule: Literal["tested", "literal"] = "tested"
    """``tested``: drift is what the evidence of all weeks shows. ``literal``: the last week's F1 is
    lower by more than ``fall``, which without any change happens in most years: the page says in
    how many."""
    weeks: int = Field(default=8, ge=1)
    """The last so many are read for the F1 of now."""
    records: int = Field(default=100, ge=1)
    """How many records are asked for on drift."""
    days: int = Field(default=183, ge=1)
    """After so many a model is tuned again in any case (``residency retune --due``)."""


class Week(Value, frozen=True):
    """A week of the field."""

    begins: date
    notes: int
    f1: float | None
    evidence: float
    below: bool
    """Whether the literal rule alarms."""


class Watched(Value, frozen=True):
    """What watching a run found."""

    run: str
    verdict: Literal["drift", "no drift", "undecided"]
    why: str
    baseline: float
    baseline_notes: int
    labels: dict[str, Reading]
    """Of each label; of all together under the empty string."""
    weeks: tuple[Week, ...]
    literal_years: float
    """Share of years without a change in which the literal rule alarms, on these notes."""
    proxy: str = ""
    """What the model's own confidence adds, where it correlates with its F1."""
    hints: tuple[str, ...] = ()


def hints(
    before: Sequence[tuple[Example, Prediction]], now: Sequence[tuple[Example, Prediction]]
) -> tuple[str, ...]:
    """How records differ from those of the baseline, as far as is seen without labels."""
    if min(len(before), len(now)) < SEEN:
        return ()
    known = {word for note, _ in before[::2] for word in tokens(note.input, note.lang)}
    looks: dict[str, Callable[[Example, Prediction], float | None]] = {
        "length (characters)": lambda note, _: len(note.input),
        UNKNOWN: lambda note, _: _unknown(note, known),
        "how sure the model is": lambda _, said: _sure(said),
        "entities found a note": lambda _, said: len(_spans(said)),
    }
    found = []
    for what, look in looks.items():
        old = _figures(before[1::2] if what is UNKNOWN else before, look)
        new = _figures(now, look)
        if min(len(old), len(new)) < 2:
            continue
        error = np.sqrt(old.var(ddof=1) / len(old) + new.var(ddof=1) / len(new))
        if error and abs(new.mean() - old.mean()) > SURE * error:
            found.append(f"{what}: {old.mean():.3g} in the baseline, {new.mean():.3g} now")
    new_kinds = {note.lang for note, _ in now} - {note.lang for note, _ in before} - {""}
    found += [f"languages that the baseline does not hold: {', '.join(sorted(new_kinds))}"] * bool(
        new_kinds
    )
    return tuple(found)


def proxies(predictions: Sequence[Prediction], f1: float) -> NDArray[np.float64]:
    """What x of each note would be by the model's own account."""
    sums = []
    for one in predictions:
        scores = [span.score or 0.0 for span in _spans(one)]
        sums.append(2 * sum(scores) - f1 * sum(1 + score for score in scores))
    return np.array(sums)


def page(found: Watched) -> Page:
    """The history on one page."""
    whole = found.labels[""]
    weeks = [
        (
            week.begins.isoformat(),
            f"{week.notes}",
            "" if week.f1 is None else f"{week.f1:.3f}",
            f"{week.evidence:,.3g}",
            "alarm" if week.below else "",
        )
        for week in found.weeks
    ]
    shown = [(n, w.f1) for n, w in enumerate(found.weeks, 1) if w.f1 is not None]
    lines = {"field": shown, "baseline": [(n, found.baseline) for n, _ in shown]}
    literal = (
        f"The literal rule (last column) reads each week by itself: on these notes it alarms in "
        f"{found.literal_years:.0%} of years in which nothing changes."
    )
    return Page(
        title=f"In the field: {found.verdict}",
        eyebrow=found.run,
        lead=found.why,
        facts=(
            ("baseline F1", f"{found.baseline:.3f} ({found.baseline_notes} notes)"),
            ("F1 now", "" if whole.f1 is None else f"{whole.f1:.3f}"),
            ("labelled records", f"{sum(week.notes for week in found.weeks)}"),
        ),
        sections=(
            Section(
                title="Labels",
                text=f"Falls are in points of F1 below the baseline. {found.proxy}",
                columns=("label", "verdict", "F1", "fall", "90 % interval", "evidence", "more"),
                rows=tuple(_row(name, one) for name, one in found.labels.items()),
                numeric=(2, 3, 4, 5),
            ),
            Section(
                title="Weeks",
                text=literal,
                columns=("week", "records", "F1", "evidence", "literal rule"),
                rows=tuple(weeks),
                numeric=(1, 2, 3),
                svg=plots.inline(plots.line_plot(lines, "week", "F1"), "weeks", "F1 by week")
                if len(shown) > 1
                else "",
            ),
            Section(
                title="Hints, without labels",
                text="Hints are no proof: inputs may change and the model stay right, and a model "
                "may become wrong on inputs that look as ever. Only labels tell."
                + ("" if found.hints else " Nothing of what is looked at has changed clearly."),
                columns=("what differs",) if found.hints else (),
                rows=tuple((one,) for one in found.hints),
            ),
        ),
    )


def write_figures(found: Watched, path: Path) -> None:
    """Figures for the textfile collector of Prometheus' node exporter."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def gauge(name: str, what: str, *more: str) -> Gauge:
        return Gauge(f"residency_field_{name}", what, ("run", *more), registry=registry)

    each = gauge("f1", "F1 in the field of a label, of all under the empty name", "label")
    for name, one in found.labels.items():
        if one.f1 is not None:
            each.labels(found.run, name).set(one.f1)
    for name, what, value in (
        ("baseline_f1", "F1 of the test part", found.baseline),
        ("evidence", "Evidence of drift over all labels", found.labels[""].evidence),
        ("drift", "Whether the verdict is drift", found.verdict == "drift"),
        ("records", "Labelled records", sum(week.notes for week in found.weeks)),
    ):
        gauge(name, what).labels(found.run).set(value)
    write_to_textfile(str(path), registry)


def _row(name: str, one: Reading) -> tuple[str, ...]:
    """What the weeks say of a label, as the page's table has it."""
    figures = ("", "", "")
    if one.f1 is not None:
        bounds = f"{100 * one.low:+.1f} to {100 * one.high:+.1f}"
        figures = (f"{one.f1:.3f}", f"{100 * one.fall:+.1f}", bounds)
    return name or "all labels", one.verdict, *figures, f"{one.evidence:,.3g}", _needed(one)


def _needed(one: Reading) -> str:
    if one.verdict != "undecided":
        return ""
    if not one.evidence:  # a share of nothing: see metrics.drift.judge
        return "not watched alone: too few hits or errors in the baseline"
    return f"about {one.needed:,}" if one.needed else "no number decides: baseline too small"


def _figures(
    of: Sequence[tuple[Example, Prediction]], how: Callable[[Example, Prediction], float | None]
) -> NDArray[np.float64]:
    return np.array([value for one in of if (value := how(*one)) is not None], dtype=float)


def _unknown(note: Example, known: set[str]) -> float | None:
    words = tokens(note.input, note.lang)
    return sum(word not in known for word in words) / len(words) if words else None


def _spans(one: Prediction) -> tuple[Span, ...]:
    return getattr(one.answer, "spans", ())


def _sure(one: Prediction) -> float | None:
    scores = [span.score for span in _spans(one) if span.score is not None]
    return float(np.mean(scores)) if scores else None
