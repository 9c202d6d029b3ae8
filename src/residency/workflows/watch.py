"""Watch a run's model in the field: labelled records of each week against the run's test part.

Everything lies in ``RUN/watch``: watch.json, watch.html, watch.md and watch.prom, none of which
holds text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from residency.core.errors import DataError, UserError
from residency.core.files import read_jsonl, write_json
from residency.core.page import write_page
from residency.core.part import parse
from residency.core.progress import Silent, Tracker
from residency.core.types import Example, Note, Prediction, Value
from residency.corpus import load
from residency.evals.measure import groups_of
from residency.evals.watching import Watch, Watched, Week, hints, page, proxies, write_figures
from residency.metrics import drift, intervals
from residency.metrics.counts import f1
from residency.metrics.drift import Array, Baseline
from residency.models.base import silent
from residency.recipe import Recipe
from residency.tasks.card import Card
from residency.tasks.examples import examples, unknown_labels
from residency.tasks.families import check_marks_spans, of
from residency.workflows.evaluate import (
    PREDICTIONS,
    read_evaluation,
    task_of_evaluation,
)
from residency.workflows.finished import open_run
from residency.workflows.material import (
    Material,
    TaskOnData,
    material_of,
    measured_examples,
    read_data,
)
from residency.workflows.run import trained_systems
from residency.workflows.steps import evaluation_step, evaluation_tasks, read_inputs

FOLDER = "watch"
YEARS = 200
"""Drawn to tell what the literal rule would do."""


class Field(Value, frozen=True):
    """A run's model, its baseline and what is labelled since."""

    run: Path
    recipe: Recipe
    artefact: Path
    card: Card
    material: Material
    one: TaskOnData
    asked: tuple[Example, ...]
    """The test part."""
    answered: tuple[Prediction, ...]
    notes: tuple[Note, ...]
    """Labelled, in order of time, none of which the model learned from."""

    @property
    def settings(self) -> Watch:
        """How it is watched."""
        return self.recipe.watch


def watch(
    run: Path | str, overrides: Sequence[str] = (), tracker: Tracker | None = None
) -> tuple[Watched, Path]:
    """Compare a run's model in the field with its test part; writes RUN/watch, and returns what was
    found and the page.

    Raises ``UserError`` for a run whose model does not mark spans, or without labelled records;
    ``DataError`` for records without a date, or with labels of another task.
    """
    found = open_field(run, overrides)
    watched = judge(found, tracker or Silent())
    folder = found.run / FOLDER
    write_json(folder / "watch.json", watched)
    if find_spec("prometheus_client"):  # of the extra serve
        write_figures(watched, folder / "watch.prom")
    return watched, write_page(page(watched), folder, "watch")


def open_field(run: Path | str, overrides: Sequence[str] = ()) -> Field:
    """A run with the records that were labelled since; raises as ``watch``."""
    from residency.models.artefact import read

    wanted = read_evaluation(run, overrides)
    folder, recipe = Path(run), wanted.inputs.recipe
    unfit = f"{folder}: its model does not mark spans; watch one that does."
    check_marks_spans(read(wanted.artefact).head, unfit)
    if not recipe.watch.gold:
        raise UserError(
            "watch.gold: names no labelled records; label a sample of the field (residency label) "
            "and give its gold.jsonl with watch.gold=..."
        )
    material = material_of(wanted.inputs, read_data(recipe, Silent()), Silent())
    one = task_of_evaluation(wanted, material)
    asked = measured_examples(one, recipe)
    learned = {note.id for part in ("train", "dev") for note in one.corpus.part(part)}
    notes = read_field(recipe, recipe.watch.gold, "watch.gold", one.card)
    known = sorted((note for note in notes if note.id not in learned), key=when)
    since = recipe.watch.since
    found = [note for note in known if since is None or when(note).date() >= since]
    if not found:
        raise UserError(
            f"watch.gold: {recipe.watch.gold} holds no record that the model has not learned from"
            + (f", of {since} or later" if since else "")
            + "; label more of the field."
        )
    return Field(
        run=folder,
        recipe=recipe,
        artefact=wanted.artefact,
        card=one.card,
        material=material,
        one=one,
        asked=tuple(asked),
        answered=tuple(_kept(folder, asked)),
        notes=tuple(found),
    )


def read_field(recipe: Recipe, path: str, key: str, card: Card, dated: bool = True) -> list[Note]:
    """Records of the field; raises ``DataError`` for those without a date, and for labels that the
    card does not have."""
    data: Any = parse(load.Data, {"format": "jsonl", "path": path, "stop": 0}, key)
    read, _ = load.read_parts(data, key, recipe.root)
    notes = read["path"]
    if dated and (without := sum(note.written_at is None for note in notes)):
        raise DataError(
            f"{key}: {without} of {len(notes)} records have no written_at; give each its date."
        )
    if unknown := unknown_labels(notes, card):
        raise DataError(
            f"{key}: {len(unknown)} labels are not those of the run's card {card.name} (allowed: "
            f"{', '.join(card.names)}); give records that were labelled for its task."
        )
    return notes


def when(note: Note) -> Any:
    """The time of a record that has one."""
    return note.written_at


def _kept(folder: Path, asked: Sequence[Example]) -> list[Prediction]:
    """What the run's model answered to its test part, as the run keeps it."""
    done, recipe = open_run(folder)
    inputs = read_inputs(recipe, folder.parent, folder)
    first, *others = evaluation_tasks(recipe)
    into = evaluation_step(inputs.recipe, first, [""], bool(others)).into
    path = done.folder / into / f"{list(trained_systems(inputs))[-1]}{PREDICTIONS}"
    if not path.is_file():
        raise UserError(
            f"{folder}: keeps no answers to its test part; finish it with residency run."
        )
    by_id = {one.id: one for one in read_jsonl(path, Prediction)}
    if missing := sum(one.id not in by_id for one in asked):
        raise UserError(
            f"{folder}: {missing} of {len(asked)} test records are not those that it was measured "
            "on, so it is no baseline of this data; run it again."
        )
    return [by_id[one.id] for one in asked]


def answers(
    artefact: Path, asked: Sequence[Example], tracker: Tracker, what: str
) -> list[Prediction]:
    """What a model answers."""
    from residency.models import predictors

    tracker.start(what, len(asked))
    found = []
    with silent():
        for one in predictors.trained(artefact).predict(asked):
            found.append(one)
            tracker.update(len(found))
    tracker.end()
    return found


def counts_of(asked: Sequence[Example], said: Sequence[Prediction], card: Card) -> Array:
    """tp, fp and fn [examples, labels, 3] in the card's order of labels."""
    tally = of(card).tally(asked, said, card, labels=card.names)
    size = 3 * len(card.names)
    return np.asarray(tally.rows[:, :size]).reshape(len(asked), -1, 3)


def by_patient(counts: Array, groups: Sequence[str]) -> Array:
    """Counts of each patient, whose notes are alike."""
    summed = intervals.group_sums(counts.reshape(len(counts), -1), groups)
    return summed.reshape(len(summed), *counts.shape[1:])


def judge(field: Field, tracker: Tracker) -> Watched:
    """The weeks of a field against the baseline."""
    card, settings = field.card, field.settings
    asked = examples(field.notes, card)
    said = answers(field.artefact, asked, tracker, "asking the model")
    before, now = counts_of(field.asked, field.answered, card), counts_of(asked, said, card)
    own = by_patient(before, groups_of(field.asked))
    baseline = drift.baseline_of(own)
    begins, sums, units = weekly(field.notes, asked, now)
    margin = settings.fall
    if settings.how == "relative":
        margin *= float(baseline.f1[0])
    readings = drift.judge(baseline, sums, units, margin, settings.weeks)
    below = drift.literal(baseline, sums, settings.fall, settings.how == "relative")
    evidence = drift.combined(baseline, drift.evidence(baseline, sums, units))
    verdict = readings[0].verdict
    if settings.rule == "literal":
        verdict = "drift" if below[-1] else "no drift"
    sizes = [sum(begin <= when(n).date() < begin + _WEEK for n in field.notes) for begin in begins]
    recent = sum(when(note).date() >= begins[-settings.weeks :][0] for note in field.notes)
    return Watched(
        run=field.run.name,
        verdict=verdict,
        why=_why(verdict, readings[0], settings, bool(below[-1])),
        baseline=float(baseline.f1[0]),
        baseline_notes=len(field.asked),
        labels=dict(zip(("", *card.names), readings, strict=True)),
        weeks=tuple(
            Week(
                begins=begin,
                notes=size,
                f1=float(f1(week[0, :3])) if drift.items_of(week)[0] else None,
                evidence=float(one),
                below=bool(low),
            )
            for begin, size, week, one, low in zip(
                begins, sizes, sums, evidence, below, strict=True
            )
        ),
        literal_years=_literal_years(own, baseline, units, settings),
        proxy=_powered(field, baseline, before, now[-recent:], said[-recent:], tracker),
        hints=hints(
            list(zip(field.asked, field.answered, strict=True)),
            list(zip(asked[-recent:], said[-recent:], strict=True)),
        ),
    )


_WEEK = timedelta(days=7)


def weekly(
    notes: Sequence[Note], asked: Sequence[Example], counts: Array
) -> tuple[list[date], Array, Array]:
    """The Mondays of weeks that hold records, the moments of each [weeks, labels, 6], and of how
    many patients they are."""
    mondays = [when(note).date() - timedelta(days=when(note).weekday()) for note in notes]
    begins, groups = sorted(set(mondays)), groups_of(asked)
    sums, units = [], []
    for begin in begins:
        inside = [n for n, monday in enumerate(mondays) if monday == begin]
        each = by_patient(counts[inside], [groups[n] for n in inside])
        sums.append(drift.moments(each).sum(axis=0))
        units.append(float(len(each)))
    return begins, np.array(sums), np.array(units)


def _why(verdict: str, whole: drift.Reading, settings: Watch, below: bool) -> str:
    """The verdict in a sentence."""
    allowed = (
        f"{settings.fall:.1%}" if settings.how == "relative" else f"{100 * settings.fall:g} points"
    )
    fall = f"F1 is {100 * whole.fall:.1f} points below the baseline"
    if settings.rule == "literal":
        more = "" if below else "not "
        return f"By the literal rule: the last week's F1 is {more}more than {allowed} lower."
    if verdict == "drift":
        return (
            f"Drift: {fall} ({100 * whole.low:.1f} to {100 * whole.high:.1f}); evidence "
            f"{whole.evidence:,.0f}, drift from {drift.THRESHOLD:g} on."
        )
    if verdict == "no drift":
        return f"No drift: a fall of {allowed} is excluded (at most {100 * whole.high:.1f} points)."
    more = (
        f"about {whole.needed:,} more labelled records decide it"
        if whole.needed
        else "no number of records decides it, since the baseline itself is of too few"
    )
    return f"Undecided: {more}."


def _literal_years(own: Array, baseline: Baseline, units: Array, settings: Watch) -> float:
    """Share of years without a change in which the literal rule alarms."""
    labelled = max(1, int(np.median(units)))
    drawn = drift.years(own, labelled, YEARS)
    relative = settings.how == "relative"
    called = [drift.literal(one, year, settings.fall, relative).any() for one, year in drawn]
    return float(np.mean(called))


def _powered(
    field: Field,
    baseline: Baseline,
    before: Array,
    now: Array,
    said: Sequence[Prediction],
    tracker: Tracker,
) -> str:
    """F1 of now with what the model says of its own answers to unlabelled records, in a sentence;
    nothing where there are none."""
    if not field.settings.pool:
        return ""
    own = float(baseline.f1[0])
    x = drift.linear(drift.moments(before)[:, 0], np.array(own))
    known = drift.proxy_of(x, proxies(field.answered, own))
    told = f"Of confidence and F1 the correlation is {known.correlation:.2f} in the baseline"
    if not known.slope or len(now) < drift.ITEMS:
        return f"{told}, too little to estimate by it."
    pool = read_field(field.recipe, field.settings.pool, "watch.pool", field.card, dated=False)
    every = answers(field.artefact, examples(pool, field.card), tracker, "asking on the pool")
    sums = drift.moments(now)[:, 0]
    mean, variance = drift.powered(
        drift.linear(sums, np.array(own)), proxies(said, own), proxies([*every, *said], own), known
    )
    items = float(drift.items_of(sums).mean())
    value, reach = own + mean / items, 1.645 * variance**0.5 / items
    return (
        f"{told}; with {len(every):,} unlabelled records F1 is {value:.3f} "
        f"({value - reach:.3f} to {value + reach:.3f}, the baseline's own error not in it)."
    )
