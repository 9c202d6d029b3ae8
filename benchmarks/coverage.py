"""Intervals over patients: how often the 95 % interval holds the truth, on simulated clustered
data, few patients included.

Patients differ: each has a rate of its own (beta 2.8, 1.2). A share of patients with 8 notes each,
the same with 1 to 15 notes, and F1 with invented items as well. "plain" is the percentile interval
of the cluster bootstrap as it was used before.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from _common import parser, report, run, say
from residency.metrics.intervals import Array, bootstrap, group_sums

TRUTHS = {"share, even": 0.7, "share, uneven": 0.7, "F1, uneven": 1.4 / 2.0}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--simulations", type=int, default=2000, help="per row (default 2,000)")
    options.add_argument("--samples", type=int, default=500, help="bootstrap samples (default 500)")
    given = options.parse_args()
    if given.quick:
        given.simulations = 50
    rows = []
    for kind, truth in TRUTHS.items():
        for groups in (3, 5, 8, 12, 20, 29, 30, 40, 80):
            generator = np.random.default_rng(groups)
            ours = plain = 0
            begun = time.process_time()
            for simulation in range(given.simulations):
                stats, measure = draw(kind, groups, generator)
                names = [str(group) for group in range(groups)]
                _, low, high = bootstrap(
                    stats, names, measure, given.samples, simulation, shares=True
                )
                ours += bool(low[0] <= truth <= high[0])
                drawn = resampled(stats, names, measure, given.samples, simulation)
                plain += bool(np.quantile(drawn, 0.025) <= truth <= np.quantile(drawn, 0.975))
            seconds = time.process_time() - begun
            rows.append(
                [
                    kind,
                    str(groups),
                    *(f"{one / given.simulations:.1%}" for one in (ours, plain)),
                    f"{seconds:.1f}",
                ]
            )
            say(" | ".join(rows[-1]))
    report("coverage", given, ("metric", "patients", "ours", "plain", "seconds"), rows)


def draw(
    kind: str, groups: int, generator: np.random.Generator
) -> tuple[Array, Callable[[Array], Array]]:
    """Counts of simulated patients, and the metric of their sum."""
    sizes = np.full(groups, 8) if kind.endswith(", even") else generator.integers(1, 16, groups)
    found = generator.binomial(sizes, generator.beta(2.8, 1.2, groups))
    if kind.startswith("share"):
        return np.stack([found, sizes], axis=1).astype(
            float
        ), lambda sums: sums[..., :1] / sums[..., 1:2]
    invented = generator.poisson(sizes * generator.gamma(1.5, 0.2, groups))
    stats = np.stack([found, sizes + invented], axis=1).astype(float)
    return stats, lambda sums: 2 * sums[..., :1] / (sums[..., :1] + sums[..., 1:2])


def resampled(
    stats: Array, names: list[str], measure: Callable[[Array], Array], samples: int, seed: int
) -> np.ndarray:
    """The metric of resampled patients."""
    sums = group_sums(stats, names)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(samples, len(sums)))
    return np.asarray(measure(sums[drawn].sum(axis=1))[:, 0])


if __name__ == "__main__":
    run(main)
