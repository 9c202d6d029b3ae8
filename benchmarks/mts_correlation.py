"""Summaries of conversations: how our overlap metrics agree with 400 manually scored summaries of
MTS-Dialog.

Pearson's and Spearman's correlation of each metric with the manual scores of the correlation study
(factual F1, precision and recall, hallucination and omission rate, edit distance of the
correction), over summaries; 95 % intervals by bootstrap over conversations, as each conversation
has four summaries. Agreement with people is what a metric is for: where it is weak, so is the
metric.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence

import numpy as np

from _common import parser, report, run, say, shared_data
from residency.core.types import Example, Prediction, Text
from residency.metrics.intervals import Array, bootstrap
from residency.tasks.card import Card
from residency.tasks.families import of

MANUAL = (
    "FactualF1",
    "FactualPrecision",
    "FactualRecall",
    "HallucinationRate",
    "OmissionRate",
    "Edit Distance (Correction)",
)
MEANS = ("rouge_l", "rouge_1", "rouge_2", "meteor_exact", "token_f1", "exact_match")


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--samples", type=int, default=2000, help="bootstrap samples (default 2,000)"
    )
    given = options.parse_args()
    if given.quick:
        given.samples = 20
    folder = shared_data() / "en/mts_dialog"
    summaries = rows(folder / "MTS-Dialog-Automatic-Summaries-ValidationSet.csv")
    marks = rows(folder / "MTS-Dialog-Manual-Scores4CorrelationStudy.csv")
    assert len(summaries) == len(marks) == 400
    groups = [row["Dialogue"] for row in summaries]
    ours = metrics(
        [row["Reference Summary"] for row in summaries],
        [row["Automatic Summary"] for row in summaries],
    )
    columns = ("metric", *MANUAL)
    table, details = [], {}
    for name, values in ours.items():
        line = [name]
        for manual in MANUAL:
            wanted = np.array([float(row[manual]) for row in marks])
            pearson, spearman = (
                correlation(values, wanted, groups, given.samples, how) for how in (plain, ranked)
            )
            details[f"{name} / {manual}"] = {"pearson": pearson, "spearman": spearman}
            line.append(f"{shown(pearson)}; {shown(spearman)}")
        table.append(line)
        say(" / ".join(line))
    report(
        "mts-correlation",
        given,
        columns,
        table,
        conversations=len(set(groups)),
        correlations=details,
    )


def rows(path: object) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with open(str(path), encoding="utf-8-sig", newline="") as file:  # noqa: PTH123
        return list(csv.DictReader(file))


def metrics(references: Sequence[str], answers: Sequence[str]) -> dict[str, Array]:
    """Each metric of each summary; BLEU and chrF of a summary as if it were the corpus."""
    examples = [
        Example(id=str(i), task="x", input="", gold=Text(text=one), lang="en")
        for i, one in enumerate(references)
    ]
    predictions = [
        Prediction(id=str(i), answer=Text(text=one), text=one) for i, one in enumerate(answers)
    ]
    card = Card(name="x", family="answers", language="en")
    tally = of(card).tally(examples, predictions, card)
    return dict(zip(tally.metrics, tally.statistic(tally.rows).T, strict=True))


def plain(values: Array) -> Array:
    return values


def ranked(values: Array) -> Array:
    """Ranks, ties averaged."""
    _, where, times = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(times)
    return np.asarray((last - (times - 1) / 2)[where], dtype=float)


def correlation(
    one: Array, other: Array, groups: Sequence[str], samples: int, how: Callable[[Array], Array]
) -> tuple[float, float, float]:
    """Correlation with its interval over groups; ranks are those of the whole."""
    x, y = how(np.asarray(one, dtype=float)), how(other)
    stats = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)

    def measure(sums: Array) -> Array:
        n, sx, sy, sxx, syy, sxy = np.moveaxis(sums, -1, 0)
        bottom = np.sqrt(np.maximum((n * sxx - sx**2) * (n * syy - sy**2), 1e-12))
        return np.asarray(((n * sxy - sx * sy) / bottom)[..., None])

    value, low, high = bootstrap(stats, groups, measure, samples)
    return float(value[0]), float(low[0]), float(high[0])


def shown(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


if __name__ == "__main__":
    run(main)
