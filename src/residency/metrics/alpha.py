"""Agreement between annotators: Krippendorff's alpha, for labels on the characters of a text
(nominal data) and for marks (interval data).

Of a text the unit is the character that is not white space, its value the set of labels that an
annotator put on it (nothing is a value too). So blanks at the edges of a span, the order of spans
and whether a label was said twice make no difference. What is counted is the coincidence matrix
(Krippendorff 2019, chapter 12); matrices of notes add up, which is what intervals over notes need.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from residency.core.types import Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Labels = tuple[str, ...]
"""The labels of a character in alphabetical order; empty for none."""

V = TypeVar("V", Labels, float)

Coincidences = Mapping[tuple[Labels, Labels], float]
"""How often two annotators' values meet: each character adds as much as it has annotators
(Krippendorff's o_ck)."""


def coincidences(
    text: str, versions: Sequence[Sequence[Span]]
) -> dict[tuple[Labels, Labels], float]:
    """The coincidence matrix of the characters of one text; empty for fewer than two versions.

    Each ordered pair of the m versions adds 1 / (m - 1) per character.
    """
    found: defaultdict[tuple[Labels, Labels], float] = defaultdict(float)
    edges = sorted(
        {0, len(text), *(edge for spans in versions for s in spans for edge in (s.start, s.end))}
    )
    places = [_painted(edges, spans) for spans in versions]
    for number, (start, end) in enumerate(pairwise(edges)):
        weight = sum(not character.isspace() for character in text[start:end])
        if not weight:
            continue
        for pair, times in met([painted[number] for painted in places]).items():
            found[pair] += weight * times
    return dict(found)


def met(values: Sequence[V]) -> dict[tuple[V, V], float]:
    """The coincidence matrix of one unit from its values, one of each annotator: each ordered pair
    of the m adds 1 / (m - 1); empty for fewer than two."""
    found: defaultdict[tuple[V, V], float] = defaultdict(float)
    for i, one in enumerate(values):
        for j, other in enumerate(values):
            if i != j:
                found[one, other] += 1 / (len(values) - 1)
    return dict(found)


def _painted(edges: Sequence[int], spans: Sequence[Span]) -> list[Labels]:
    """The labels of each stretch between two edges."""
    position = {edge: number for number, edge in enumerate(edges)}
    values: list[set[str]] = [set() for _ in edges[1:]]
    for span in spans:
        for number in range(position[span.start], position[span.end]):
            values[number].add(span.label)
    return [tuple(sorted(value)) for value in values]


def of_label(matrix: Coincidences, label: str) -> dict[tuple[Labels, Labels], float]:
    """The same characters asked only whether they carry a label."""
    found: defaultdict[tuple[Labels, Labels], float] = defaultdict(float)
    for (one, other), weight in matrix.items():
        found[(label,) if label in one else (), (label,) if label in other else ()] += weight
    return dict(found)


def table(matrices: Sequence[Mapping[tuple[V, V], float]]) -> tuple[Array, list[V]]:
    """Matrices as rows [matrices, values * values] over the values that occur in any, and those
    values."""
    import numpy as np

    values = sorted({value for matrix in matrices for pair in matrix for value in pair})
    place = {value: number for number, value in enumerate(values)}
    rows = np.zeros((len(matrices), len(values) ** 2))
    for number, matrix in enumerate(matrices):
        for (one, other), weight in matrix.items():
            rows[number, place[one] * len(values) + place[other]] += weight
    return rows, values


def alpha(
    counts: Array, values: Sequence[Labels] | Sequence[float], ordinal: bool = False
) -> Array:
    """Krippendorff's alpha of summed coincidences of ``values``: [..., values * values] -> [...].

    1 - (n - 1) * sum of o_cc' d_cc' / sum of n_c n_c' d_cc'; the distance d is 1 between labels
    that differ, and the squared difference of marks; of ``ordinal`` marks that of the values in
    between, each end by half (Krippendorff 2019, 12.3.5). It is 1.0 where all units have one and
    the same value (nothing could be disagreed about: Krippendorff leaves it undefined), nan where
    there is none.
    """
    import numpy as np

    size = len(values)
    matrix = np.asarray(counts, dtype=np.float64).reshape(*np.shape(counts)[:-1], size, size)
    apart = 1.0 - np.eye(size)
    if all(isinstance(value, float) for value in values):
        apart = np.subtract.outer(np.array(values), np.array(values)) ** 2
    marginal = matrix.sum(axis=-1)
    if ordinal:
        middle = marginal.cumsum(axis=-1) - marginal / 2
        apart = (middle[..., :, None] - middle[..., None, :]) ** 2
    total = marginal.sum(axis=-1)
    observed = (matrix * apart).sum(axis=(-1, -2))
    expected = (marginal[..., :, None] * marginal[..., None, :] * apart).sum(axis=(-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 1 - (total - 1) * observed / expected
    one_value = (expected <= 1e-9 * np.maximum(total, 1) ** 2) & (total > 0)
    return np.where(total > 0, np.where(one_value, 1.0, found), np.nan)
