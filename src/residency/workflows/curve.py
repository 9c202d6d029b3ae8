"""How good a recipe is with fewer records, and what more would bring: is 500 enough here?

Each point is an ordinary run with ``data.NAME.limit`` and a seed of its own; what is done already
is not done again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from residency.core.errors import UserError
from residency.core.files import write_json
from residency.core.page import Page, Section, write_page
from residency.core.progress import Silent, Tracker
from residency.core.run_folder import now
from residency.core.types import Value
from residency.metrics.quantiles import student
from residency.recipe import Recipe

SIZES = (100, 200, 350, 500)
MORE = 100
"""Records that the outlook adds."""
NUISANCE = 1.65
"""2 F(0.95; 2, 10) / t(0.95; 10)^2: what the square of a bound for one number is multiplied with
where another is fitted beside it (Scheffé)."""
MISSED = 5.0
"""Times the variance of the seeds by which the best law may miss the mean of a size: between the
95 % points of F for 4 and for 5 sizes of three seeds."""
Array = NDArray[np.float64]


class Point(Value, frozen=True):
    """One run."""

    records: int
    seed: int
    value: float
    seconds: float
    """Of training."""
    run: str


class Law(Value, frozen=True):
    """A power law through the points: what is missing to ``best``, which the points say and nobody
    sets, falls as ``scale * records ** -rate``."""

    scale: float
    rate: float
    best: float
    """What the metric nears with ever more records."""
    now: float
    """The metric at the largest size, by the law."""
    later: float
    """With ``MORE`` records more."""
    gain: float
    low: float
    high: float
    """95 % of the gain: of laws of several shapes that go through the points about as well
    (profile likelihood; the seeds say how far points scatter)."""


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
    law = fit_law([(one.records, one.value) for one in points], lower, scale_of(metric))
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


def scale_of(metric: str) -> float:
    """Where a metric ends: 1, or 100 for BLEU and chrF; infinite for losses."""
    from residency.tasks.scoring import falls

    return math.inf if falls(metric) else 100.0 if metric in ("bleu", "chrf") else 1.0


def fit_law(
    points: Sequence[tuple[int, float]], lower: bool = False, scale: float = 1.0
) -> Law | None:
    """The power law by least squares, its rate and its end both free, and how far the gain is
    known: of power laws, also of shifted sizes, Weibull's and logistic laws (Viering and Loog 2023,
    arXiv:2103.10948), whatever passes the points about as well as the best of them.

    None where the points cannot carry one: fewer than three sizes, no two runs of a size, nothing
    learned, no rise (a fall, for losses) that is larger than the scatter of the seeds, or points
    that none of these laws passes.
    """
    if why_no_law(points, lower, scale):
        return None
    seen = _seen(points, lower, scale)
    ends = seen.best + (seen.beyond - seen.best) * np.linspace(0, 1, 60) ** 2
    ends = np.minimum(ends, seen.top)
    rates = np.exp(np.linspace(math.log(0.05), math.log(3), 80))
    wrong, levels = _passed(ends, seen, seen.sizes[None, :] ** -rates[:, None])
    of_end, of_rate = np.unravel_index(np.where(levels >= 0, wrong, np.inf).argmin(), wrong.shape)
    end, rate = float(ends[of_end]), float(rates[of_rate])
    level = float(levels[of_end, of_rate])
    at, then = (end - level * size**-rate for size in (seen.largest, seen.largest + MORE))
    wrong, gains = _every_law(seen)
    spread = max(seen.spread, float(wrong.min()) / (len(seen.values) - 3))
    near = gains[wrong <= wrong.min() + NUISANCE * student(0.95, seen.freedom) ** 2 * spread]
    low, high = min(float(near.min()), then - at), max(float(near.max()), then - at)
    sign = -1 if lower else 1
    return Law(level, rate, sign * end, sign * at, sign * then, then - at, low, high)


class _Seen(NamedTuple):
    """Points as they are fitted: values that rise, with the scatter of the seeds."""

    sizes: Array
    values: Array
    within: float
    freedom: int
    spread: float
    """Variance of runs of one size."""
    best: float
    latest: float
    """Mean at the largest size, two standard errors down: where a law may end at the earliest."""
    top: float
    beyond: float
    """A law that ends at the end of the scale is seen a little beyond it as often as before it."""

    @property
    def largest(self) -> float:
        return float(self.sizes.max())


def _seen(points: Sequence[tuple[int, float]], lower: bool, scale: float) -> _Seen:
    sizes = np.array([size for size, _ in points], dtype=float)
    values = np.array([value for _, value in points]) * (-1 if lower else 1)
    groups = [values[sizes == size] for size in np.unique(sizes)]
    within = sum(float(((one - one.mean()) ** 2).sum()) for one in groups)
    freedom = len(values) - len(groups)
    best, top = float(max(values)), 0.0 if lower else scale
    spread = max(within / freedom, 1e-8 * min(1.0, best * best or 1.0))
    latest = float(groups[-1].mean()) - 2 * math.sqrt(spread / len(groups[-1]))
    beyond = top + (0.0 if lower else 2 * math.sqrt(spread))
    return _Seen(sizes, values, within, freedom, spread, best, latest, top, beyond)


def _passed(ends: Array, seen: _Seen, shapes: Array) -> tuple[Array, Array]:
    """Squared errors and levels by least squares of value = end - level * shape, [ends, shapes]."""
    away = ends[:, None] - seen.values[None, :]
    along, size = away @ shapes.T, (shapes**2).sum(1)
    return (away**2).sum(1)[:, None] - along**2 / size, along / size


def _every_law(seen: _Seen) -> tuple[Array, Array]:
    """Squared errors and gains of laws of all shapes that rise."""
    n = np.append(seen.sizes, [seen.largest, seen.largest + MORE])[None, :] / seen.largest

    def of(first: Sequence[float], second: tuple[float, float, int]) -> tuple[Array, Array]:
        one, other = np.meshgrid(first, np.geomspace(*second))
        return one.reshape(-1, 1), other.reshape(-1, 1)

    shift, rate = of((0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6), (0.05, 12, 60))
    power, time = of((0.4, 0.6, 0.8, 1, 1.25, 1.5), (0.02, 4, 60))
    steep, half = of(tuple(np.geomspace(0.5, 3, 14)), (0.02, 1.5, 16))
    missing = np.concatenate(
        [(n + shift) ** -rate, np.exp(-((n / time) ** power)), 1 / (1 + (n / half) ** steep)]
    )
    missing = missing[missing[:, -2] > 0]
    missing /= missing[:, -2:-1]
    ends = seen.latest + (seen.beyond - seen.latest) * np.linspace(0, 1, 80) ** 2
    wrong, levels = _passed(ends, seen, missing[:, :-2])
    gains = levels * (1 - missing[None, :, -1])
    return wrong[levels >= 0], gains[levels >= 0]


def why_no_law(points: Sequence[tuple[int, float]], lower: bool, scale: float) -> str:
    """Why points carry no law; empty where they do."""
    sizes = sorted({size for size, _ in points})
    groups = [np.array([value for one, value in points if one == size]) for size in sizes]
    if not lower and max(float(one.max()) for one in groups) < 0.02 * scale:
        return "nothing was learned at any size"
    if not lower and min(float(one.min()) for one in groups) >= scale:
        return "nothing is missing at any size; a harder test part would say more"
    if len(sizes) < 3:
        return "two sizes show no law; give three or more with --sizes"
    freedom = sum(len(one) - 1 for one in groups)
    if freedom < 1:
        return "with one run of each size nobody knows how far they scatter; give --seeds 3"
    within = sum(float(((one - one.mean()) ** 2).sum()) for one in groups)
    error = math.sqrt(within / freedom * (1 / len(groups[0]) + 1 / len(groups[-1])))
    rise = (float(groups[-1].mean()) - float(groups[0].mean())) * (-1 if lower else 1)
    if rise <= student(0.95, freedom) * error or rise <= 0:
        return "more records brought no gain that is larger than the scatter of the seeds"
    seen = _seen(points, lower, scale)
    lack = float(_every_law(seen)[0].min()) - seen.within
    near = max(seen.spread, (0.02 * rise) ** 2)  # a miss of a fiftieth of the rise is none
    if lack > MISSED * near * (len(groups) - 3) > 0:
        return "no law passes through the points as closely as the seeds lie together"
    return ""


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
                caption="A dot is a run; the line is the power law; the interval of the gain is "
                "that of laws of several shapes.",
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
    law, scale = found.law, scale_of(found.metric)
    if law is None:
        points = [(point.records, point.value) for point in found.points]
        why = why_no_law(points, found.lower, scale)
        return f"No advice from {len(points)} runs of up to {largest:,} records: {why}."
    does = "lower" if found.lower else "raise"
    said = (
        f"{MORE} more records than {largest:,} would {does} {found.metric} by {law.gain:.3f} "
        f"({law.low:.3f} to {law.high:.3f})"
    )
    worth = 0.01 * (scale if math.isfinite(scale) else abs(law.now))
    if law.high < worth:
        return f"{said}: {largest:,} are enough here."
    if law.low > worth:
        return f"{said}: more records are worth their price."
    return f"{said}: it is not certain that they would pay."


def _line(found: Curve, sizes: Sequence[int]) -> list[tuple[float, float]]:
    if found.law is None:
        return []
    xs = np.linspace(sizes[0], sizes[-1] + MORE, 40)
    missing = found.law.scale * xs**-found.law.rate * (-1 if found.lower else 1)
    return [(float(x), float(found.law.best - m)) for x, m in zip(xs, missing, strict=True)]


def _interval(values: Sequence[float]) -> str:
    """Student's t over the seeds."""
    if len(values) < 2:
        return "-"
    half = student(0.95, len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{np.mean(values) - half:.3f} to {np.mean(values) + half:.3f}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} device hours" if seconds >= 360 else f"{seconds:.0f} s"
