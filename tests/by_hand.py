"""Statistics written another way than the package does, which tests hold it against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_interval(marks: NDArray[np.float64], low: int, high: int) -> tuple[float, float]:
    """95 % interval of the mean of marks (items x raters), over items and raters: mean squares,
    then Wilson's interval with Student's t."""
    from scipy.stats import t

    share = (marks - low) / (high - low)
    items, raters = share.shape
    of_items = raters * share.mean(1).var(ddof=1)
    of_raters = items * share.mean(0).var(ddof=1)
    rest = ((share - share.mean(1)[:, None] - share.mean(0) + share.mean()) ** 2).sum()
    rest /= (items - 1) * (raters - 1)
    added = max(0.0, of_raters - rest)
    variance = (of_items + added) / (items * raters)
    spread = of_items**2 / (items - 1)
    if added:
        spread += of_raters**2 / (raters - 1) + rest**2 / ((items - 1) * (raters - 1))
    z = t.ppf(0.975, max(2, int((of_items + added) ** 2 / spread)))
    n = share.mean() * (1 - share.mean()) / variance
    ends = np.sort(np.roots([1 + z * z / n, -2 * share.mean() - z * z / n, share.mean() ** 2]))
    return low + (high - low) * float(ends[0]), low + (high - low) * float(ends[1])
