"""How good a recipe is with fewer records, and what more would bring: is 500 enough here?

Each point is an ordinary run with ``data.NAME.limit`` and a seed of its own; what is done already
is not done again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from residency.core.errors import UserError
from residency.core.files import write_json
from residency.core.page import Page, Section, write_page
from residency.core.progress import Silent, Tracker
from residency.core.run_folder import now
from residency.core.types import Value
from residency.recipe import Recipe

SIZES = (100, 200, 350, 500)
MORE = 100
"""Records that the outlook adds."""
DRAWS = 2000


class Point(Value, frozen=True):
    """One run."""

    records: int
    seed: int
    value: float
    seconds: float
    """Of training."""
    run: str


class Law(Value, frozen=True):
    """A power law through the points: what is missing to the best value falls as ``scale * records
    ** -rate``."""

    scale: float
    rate: float
    now: float
    """The metric at the largest size, by the law."""
    later: float
    """With ``MORE`` records more."""
    gain: float
    low: float
    high: float
    """95 % of the gain, by drawing the runs anew: where the law does not go through the points,
    that widens it too."""


class Curve(Value, frozen=True):
    """All points of a recipe and what they say."""

    name: str
    metric: str
    lower: bool
    """Whether the lower value is the better one."""
    points: tuple[Point, ...]
    law: Law | None
    full: Point | None
    """Every weight trained on the largest size; None where the recipe does that, or cannot."""
    device: str


def curve(
    recipe: Recipe,
    runs: Path,
    sizes: Sequence[int] = SIZES,
    seeds: int = 3,
    full: bool = True,
    tracker: Tracker | None = None,
) -> Curve:
    """Run every size with every seed; sizes beyond the records that are there are left out.

    Raises ``UserError`` where fewer than two sizes are left.
    """
    from residency.tasks.scoring import falls

    task = recipe.tasks[0]
    there = _records(recipe)
    kept = sorted({size for size in sizes if size <= there})
    if len(kept) < 2:
        raise UserError(
            f"data.{task.data}: has {there} records to learn from, of the sizes "
            f"{', '.join(map(str, sizes))} fewer than two; give smaller ones with --sizes."
        )
    points, metric, device = [], "", ""
    for size in kept:
        for seed in range(recipe.seed, recipe.seed + seeds):
            point, metric, device = _point(recipe, runs, size, seed, (), tracker)
            points.append(point)
    beside = None
    whole = full and recipe.stages[0].needs_base and recipe.base.quantise == "none"
    if whole and getattr(recipe.stages[0].method, "kind", "") != "full":
        beside, _, _ = _point(
            recipe, runs, kept[-1], recipe.seed, ("stages[0].method={kind: full}",), tracker
        )
    lower = falls(metric)
    law = fit_law([(one.records, one.value) for one in points], lower)
    return Curve(recipe.name, metric, lower, tuple(points), law, beside, device)


def _records(recipe: Recipe) -> int:
    """Records to learn from: the parts train and dev, as the recipe's own limit counts them."""
    from residency.corpus import load

    data = recipe.tasks[0].data
    corpus = load.load(recipe.data[data], data, recipe.root, recipe.seed)
    return len(corpus.part("train")) + len(corpus.part("dev"))


def _point(
    recipe: Recipe,
    runs: Path,
    size: int,
    seed: int,
    changes: Sequence[str],
    tracker: Tracker | None,
) -> tuple[Point, str, str]:
    from residency.workflows.finished import finished_facts
    from residency.workflows.run import run

    name = recipe.tasks[0].data
    overrides = [f"data.{name}.limit={size}", f"seed={seed}", "evaluate.baselines=[]", *changes]
    changed = Recipe.from_mapping(recipe.mapping(), recipe.root, overrides)
    done = run(changed, runs, tracker or Silent())
    facts = finished_facts(done)
    report = facts.reports[-1]
    metric = changed.card(changed.tasks[0]).main_metric
    score = next((one for one in report.scores if one.metric == metric), None)
    if score is None or score.value is None or not math.isfinite(score.value):
        raise UserError(
            f"{done.folder}: has no {metric}; a curve needs a metric that every run has."
        )
    seconds = sum(stage.seconds for stage in facts.stages)
    point = Point(size, seed, score.value, seconds, done.folder.as_posix())
    return point, metric, facts.hardware


def fit_law(
    points: Sequence[tuple[int, float]], lower: bool = False, draws: int = DRAWS
) -> Law | None:
    """The power law, by least squares on logarithms, its uncertainty by drawing the runs anew
    (bootstrap).

    What is missing is 1 - value for scores, and the value itself for losses. None where all points
    are perfect or one size is left.
    """
    sizes = np.array([size for size, _ in points], dtype=float)
    values = np.array([value for _, value in points])
    missing = np.clip(values if lower else 1 - values, 1e-4, None)
    if len(set(sizes)) < 2 or float(missing.max()) <= 1e-4:
        return None
    largest = float(sizes.max())

    def gain(chosen: np.ndarray) -> tuple[float, float, float, float]:
        rate, level = np.polyfit(np.log(sizes[chosen]), np.log(missing[chosen]), 1)
        at, then = (math.exp(level) * size**rate for size in (largest, largest + MORE))
        return math.exp(level), -float(rate), float(at), float(then)

    scale, rate, at, then = gain(np.arange(len(sizes)))
    rng = np.random.default_rng(0)
    drawn: list[float] = []
    while len(drawn) < draws:
        chosen = rng.integers(len(sizes), size=len(sizes))
        if len(set(sizes[chosen])) > 1:
            _, _, one, other = gain(chosen)
            drawn.append(one - other)
    low, high = np.quantile(drawn, [0.025, 0.975])
    best = 0.0 if lower else 1.0
    now, later = abs(best - at), abs(best - then)
    return Law(scale, rate, now, later, at - then, float(low), float(high))


def write(found: Curve, folder: Path) -> Path:
    """The page, and the numbers behind it."""
    write_json(folder / "curve.json", found)
    return write_page(page(found), folder, "curve")


def page(found: Curve) -> Page:
    """What the curve says, on one page."""
    from residency.evals.plots import inline, learning_plot

    sizes = sorted({point.records for point in found.points})
    points = [(point.records, point.value) for point in found.points]
    svg = learning_plot(points, _line(found, sizes), found.metric)
    few = "Fewer than three seeds: the intervals say little; give --seeds 3 or more."
    return Page(
        title=f"{found.name}: how many records are enough",
        eyebrow=f"Learning curve, {now()[:10]}",
        lead=answer(found),
        facts=(
            ("metric", found.metric),
            ("largest size", f"{sizes[-1]:,}"),
            ("machine", found.device),
        ),
        caveats=(
            "Each seed draws its records anew, and the test part too where the recipe draws it; "
            "intervals are over seeds alone. Beyond the "
            "largest size the law is a guess that the same kind of records follows.",
            *([few] if len(found.points) // len(sizes) < 3 else []),
        ),
        sections=(
            Section(
                title="The curve",
                svg=inline(svg, "curve", f"{found.metric} by number of records") if svg else "",
                caption="A dot is a run; the line is the power law.",
            ),
            Section(
                title="Points",
                columns=("records", found.metric, "95 % over seeds", "runs", "training"),
                rows=tuple(_rows(found, sizes)),
                numeric=(1, 2, 3, 4),
            ),
        ),
    )


def _rows(found: Curve, sizes: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """The points of each size, and beside them the model whose every weight was trained."""
    for size in sizes:
        here = [point for point in found.points if point.records == size]
        values = [point.value for point in here]
        hours = _hours(float(np.mean([point.seconds for point in here])))
        yield f"{size:,}", f"{np.mean(values):.3f}", _interval(values), str(len(here)), hours
    if found.full:
        what = f"{found.full.records:,}, every weight trained"
        yield what, f"{found.full.value:.3f}", "-", "1", _hours(found.full.seconds)


def answer(found: Curve) -> str:
    """Whether what is there is enough, in a sentence or two."""
    largest = max(point.records for point in found.points)
    law = found.law
    if law is None:
        return f"Nothing is missing at {largest:,} records; a harder test part would say more."
    does = "lower" if found.lower else "raise"
    said = (
        f"{MORE} more records than {largest:,} would {does} {found.metric} by {law.gain:.3f} "
        f"({law.low:.3f} to {law.high:.3f})"
    )
    if law.high < 0.01:
        return f"{said}: {largest:,} are enough here."
    if law.low > 0.01:
        return f"{said}: more records are worth their price."
    return f"{said}: it is not certain that they would pay."


def _line(found: Curve, sizes: Sequence[int]) -> list[tuple[float, float]]:
    if found.law is None:
        return []
    xs = np.linspace(sizes[0], sizes[-1] + MORE, 40)
    missing = found.law.scale * xs**-found.law.rate
    return [
        (float(x), float(m if found.lower else 1 - m)) for x, m in zip(xs, missing, strict=True)
    ]


def _interval(values: Sequence[float]) -> str:
    """Student's t over the seeds."""
    if len(values) < 2:
        return "-"
    freedom = len(values) - 1
    point = STUDENT[freedom - 1] if freedom <= len(STUDENT) else 1.96
    half = point * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{np.mean(values) - half:.3f} to {np.mean(values) + half:.3f}"


STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % points of Student's distribution by degrees of freedom, from 1."""


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} device hours" if seconds >= 360 else f"{seconds:.0f} s"
