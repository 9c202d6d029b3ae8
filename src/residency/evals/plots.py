"""The report's charts, as SVG text: the same input gives the same bytes, whatever fonts the machine
has.

Text stays text, laid out with the font that matplotlib brings and shown with the reader's fonts, so
that Chinese and Vietnamese look right. Colours are mid tones that can be read on white and on
black; ``inline`` swaps them for the page's own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from math import isfinite
from typing import Any
from unicodedata import category, east_asian_width

from residency.core.types import Bin, Score, StageResult
from residency.evals.formats import metric_in_sentence
from residency.evals.words import ENGLISH, Words

INK, GRID, NAMES = "#6b7580", "#a9b1ba", "#6b7681"
"""Axes, grid and row names; names have a tone of their own so that a page can set them apart."""
SERIES = ("#0f857c", "#7a8491", "#b3702b", "#7d63b5")
"""The tuned system's colour, then those of the baselines."""
MARKERS = ("o", "s", "^", "D")
FONTS = (
    'system-ui, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", '
    '"Microsoft '
    'YaHei", sans-serif'
)
WIDTH = 4.9
"""Inches; narrow, so that its text stays readable on a phone."""
MOST_ROWS = 30

Series = tuple[str, Sequence[Score | None]]
"""A system's name and its score in each row."""


def score_plot(rows: Sequence[str], series: Sequence[Series], metric: str) -> str | None:
    """Dots with 95 % whiskers, one row per label, one colour per system; the tuned system comes
    last in ``series``.

    The first ``MOST_ROWS`` rows are drawn. ``None`` where there is nothing to draw.
    """
    rows = [_short(row) for row in rows[:MOST_ROWS]]
    points = [
        (
            system,
            [
                (row, score)
                for row, score in enumerate(scores[: len(rows)])
                if score and score.value is not None and isfinite(score.value)
            ],
        )
        for system, scores in series
    ]
    if not any(drawn for _, drawn in points):
        return None
    step = 0.17 + 0.11 * len(series)
    height = 0.85 + step * len(rows)
    with _canvas(height) as (figure, saved):
        left = (12 + 5.8 * max(map(_columns, rows))) / (72 * WIDTH)
        axes = figure.add_axes((left, 0.5 / height, 0.97 - left, 1 - 0.85 / height))
        for number, (system, drawn) in enumerate(points):
            _draw_system(axes, system, drawn, number, len(points))
        values = [bound for _, drawn in points for _, score in drawn for bound in _bounds(score)]
        if min(values) >= 0 and max(values) <= 1:
            axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(axis="y", length=0, labelcolor=NAMES)
        axes.set_xlabel(_printable(metric))
        axes.grid(axis="x", color=GRID, linewidth=0.5, alpha=0.6)
        axes.set_axisbelow(True)
        _bare(axes, keep=("bottom",))
        handles, names = axes.get_legend_handles_labels()
        figure.legend(
            handles[::-1],
            names[::-1],
            loc="upper right",
            ncols=4,
            frameon=False,
            borderaxespad=0,
            bbox_to_anchor=(0.98, 1),
        )
    return saved[0]


def _draw_system(
    axes: Any, system: str, drawn: Sequence[tuple[int, Score]], number: int, systems: int
) -> None:
    """The dots and whiskers of one system, a little below those of the one before."""
    style = (systems - 1 - number) % len(SERIES)
    offset = ((systems - 1) / 2 - number) * 0.62 / systems
    line = {"color": SERIES[style], "linewidth": 1.6, "solid_capstyle": "round"}
    for row, score in drawn:
        axes.plot(_bounds(score), [row + offset] * 2, **line)
    values = [score.value for _, score in drawn]
    rows = [row + offset for row, _ in drawn]
    dots = {"color": SERIES[style], "markersize": 5.5, "label": _printable(system)}
    axes.plot(values, rows, MARKERS[style], **dots)


def reliability_plot(
    bins: Sequence[Bin], words: Words = ENGLISH, before: Sequence[Bin] = ()
) -> str | None:
    """Stated chance against the share that was right, with whiskers, beside the line where both are
    equal; dots grow with the number of items, and the curve ``before`` calibration is thin.
    ``None`` where there is nothing to draw."""
    if not bins:
        return None
    most = max(one.n for one in bins)
    height = 3.4
    with _canvas(height) as (figure, saved):
        axes = figure.add_axes((0.13, 0.5 / height, 0.84, 1 - 0.6 / height))
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1, linestyle="--")
        if before:
            stated, right = [one.chance for one in before], [one.right for one in before]
            said = words("before calibration")
            axes.plot(stated, right, "o-", color=SERIES[1], linewidth=1, markersize=3, label=said)
        for one in bins:
            axes.plot(
                [one.chance] * 2, [one.low, one.high], color=SERIES[0], linewidth=1.4, alpha=0.6
            )
            axes.plot(
                one.chance,
                one.right,
                "o",
                color=SERIES[0],
                markersize=3.5 + 5 * (one.n / most) ** 0.5,
            )
        axes.plot(
            [one.chance for one in bins],
            [one.right for one in bins],
            color=SERIES[0],
            linewidth=1.2,
            label=words("calibrated"),
        )
        if before:
            axes.legend(loc="upper left", frameon=False)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel(words("stated chance"))
        axes.set_ylabel(words("share that was right"))
        axes.grid(color=GRID, linewidth=0.5, alpha=0.6)
        axes.set_axisbelow(True)
        _bare(axes, keep=("bottom", "left"))
    return saved[0]


def training_plot(stage: StageResult, words: Words = ENGLISH) -> str | None:
    """Training loss, and below it the dev metric with the best value marked. ``None`` without a
    history."""
    clock = "epoch" if all("epoch" in row for row in stage.history) else "step"
    panels = [
        (name, points)
        for name, key in (
            (words("training loss"), "loss"),
            (
                words("{metric} on the dev part", metric=metric_in_sentence(stage.metric, words)),
                stage.metric,
            ),
        )
        if (points := _curve(stage, clock, key))
    ]
    if not panels:
        return None
    height = 0.55 + 1.55 * len(panels)
    with _canvas(height) as (figure, saved):
        left, top = 0.13, 0.28
        for number, (name, points) in enumerate(panels):
            bottom = height - (number + 1) * 1.55
            axes = figure.add_axes(
                (left, bottom / height, 0.97 - left, (1.55 - top - 0.1) / height)
            )
            dev = name != words("training loss")
            axes.plot(
                *zip(*points, strict=True),
                color=SERIES[0],
                linewidth=1.5,
                marker="o" if dev else "",
                markersize=4,
            )
            if dev and isfinite(stage.best):
                best = min(points, key=lambda point: abs(point[1] - stage.best))
                axes.plot(*best, "o", color=SERIES[0], markersize=9, fillstyle="none")
                axes.annotate(
                    words("best {value}", value=f"{best[1]:.3f}"),
                    best,
                    xytext=(0, -15),
                    textcoords="offset points",
                    ha="center",
                    color=INK,
                )
            last = max(x for _, curve in panels for x, _ in curve)
            axes.set_xlim(0, last * 1.04 or 1)
            axes.margins(y=0.18)
            axes.set_title(_printable(name), loc="left", fontsize=9.5, color=INK, pad=5)
            axes.grid(color=GRID, linewidth=0.5, alpha=0.6)
            axes.locator_params(axis="y", nbins=5)
            _bare(axes, keep=("bottom",))
            if number < len(panels) - 1:
                axes.tick_params(axis="x", labelbottom=False)
            else:
                axes.set_xlabel(words(clock))
    return saved[0]


def line_plot(series: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> str:
    """A line for each name through its (x, y) points, zero at the bottom."""
    height = 2.9
    with _canvas(height) as (figure, saved):
        axes = figure.add_axes((0.15, 0.5 / height, 0.82, (height - 0.95) / height))
        for number, (name, points) in enumerate(series.items()):
            axes.plot(
                *zip(*points, strict=True),
                color=SERIES[number % len(SERIES)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                linewidth=1.5,
                label=_short(name),
            )
        axes.set_ylim(bottom=0)
        axes.margins(y=0.12)
        axes.set_xticks(sorted({x for points in series.values() for x, _ in points}))
        axes.set_xlabel(across)
        axes.set_title(_printable(up), loc="left", fontsize=9.5, color=INK, pad=5)
        axes.grid(color=GRID, linewidth=0.5, alpha=0.6)
        _bare(axes, keep=("bottom",))
        figure.legend(loc="upper right", ncols=len(series), frameon=False)
    return saved[0]


def inline(svg: str, prefix: str, label: str) -> str:
    """A chart for the inside of an HTML page: own ids, the page's colours and fonts, and a label
    for screen readers."""
    from markupsafe import escape

    body = svg[svg.index("<svg") :].strip()
    body = re.sub(r' (?:xmlns(?::xlink)?|width|height)="[^"]*"', "", body, count=4)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-")
    body = re.sub(r" ?font-family: [^;\"]*;", "", body)
    for number, colour in enumerate(SERIES):
        body = body.replace(colour, f"var(--series-{number})")
    body = (
        body.replace(NAMES, "var(--ink)").replace(INK, "var(--muted)").replace(GRID, "var(--line)")
    )
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


@contextmanager
def _canvas(height: float) -> Iterator[tuple[Any, list[str]]]:
    """A figure to draw on; its SVG is in the list afterwards."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "residency",
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "legend.labelcolor": INK,
        "legend.handletextpad": 0.2,
        "legend.columnspacing": 1.2,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    saved: list[str] = []
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"Glyph \d+ .* missing from", category=UserWarning
        )
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(figure)
        yield figure, saved
        buffer = StringIO()
        unset = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=unset)
        saved.append(_standalone(buffer.getvalue()))


def _standalone(svg: str) -> str:
    """The reader's fonts, lines joined by inherited properties (a style sheet would leak into the
    page), no doctype."""
    svg = re.sub(r"<!DOCTYPE[^>]*>\s*", "", svg)
    svg = re.sub(r"\s*<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>", "", svg)
    svg = svg.replace("<svg ", '<svg style="stroke-linejoin: round; stroke-linecap: butt" ', 1)
    return svg.replace("font-family: 'DejaVu Sans'", f"font-family: {FONTS}".replace('"', "'"))


def _curve(stage: StageResult, clock: str, key: str) -> list[tuple[float, float]]:
    """(time, value) of the rows that hold a finite value; ``metric`` is another name for the
    stage's metric."""
    rows = [
        (row.get(clock), row.get(key, row.get("metric") if key == stage.metric else None))
        for row in stage.history
    ]
    return [
        (x, y) for x, y in rows if x is not None and y is not None and isfinite(x) and isfinite(y)
    ]


def _bounds(score: Score) -> tuple[float, float]:
    """The interval of a score that has a value; the value itself where there is none."""
    value = score.value or 0.0
    low, high = (
        end if end is not None and isfinite(end) else value for end in (score.low, score.high)
    )
    return low, high


def _bare(axes: Any, keep: Sequence[str]) -> None:
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(side in keep)


def _printable(text: str) -> str:
    """Without control characters, which XML does not allow, and not starting with ``_``, which a
    legend leaves out."""
    return (
        "".join(
            " " if category(letter) in ("Cc", "Cs", "Cn") else letter for letter in text
        ).lstrip("_")
        or " "
    )


def _columns(text: str) -> int:
    """Width in terminal columns: a Chinese character is as wide as two Latin letters."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _short(text: str, most: int = 26) -> str:
    """At most ``most`` columns, cut with an ellipsis."""
    text = _printable(text)
    while _columns(text) > most:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def learning_plot(
    points: Sequence[tuple[int, float]], line: Sequence[tuple[float, float]], metric: str
) -> str | None:
    """A dot for each run by its number of records, and the law through them; ``None`` without
    points."""
    if not points:
        return None
    with _canvas(2.9) as (figure, saved):
        axes = figure.add_axes((0.13, 0.19, 0.84, 0.76))
        if line:
            axes.plot([x for x, _ in line], [y for _, y in line], color=SERIES[1], linewidth=1.4)
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            MARKERS[0],
            color=SERIES[0],
            markersize=5,
            alpha=0.8,
        )
        axes.set_xlabel("records")
        axes.set_ylabel(_printable(metric))
        axes.grid(color=GRID, linewidth=0.5, alpha=0.6)
        axes.set_axisbelow(True)
        _bare(axes, keep=("bottom", "left"))
    return saved[0]
