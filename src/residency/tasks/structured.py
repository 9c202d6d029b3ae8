"""How reports in sections and decision trees are scored: what each example adds to the sums, and
what is made of them.

No answer counts as an empty one. Sections are compared by ROUGE-L over the tokens of BERT's basic
tokeniser (characters for Chinese), pooled over the sections of the references. Trees are compared
by the edit distance of Text2DT (Zhu et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from residency.core.types import Answer, Example, Facts, Node, Prediction, Tree
from residency.metrics import counts as arrays
from residency.metrics import trees
from residency.metrics.overlap import basic_tokens, rouge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Statistic = Callable[[Array], Array]

COLUMNS = {
    "sections": ("examples", "correct", "sections", "rouge_l"),
    "tree": ("examples", "correct", "distance", "most", "node/tp", "node/fp", "node/fn"),
}
METRICS = {
    "sections": ("rouge_l", "exact_match"),
    "tree": ("tree_similarity", "node_f1", "exact_match"),
}


def statistics(
    family: str, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> tuple[Array, tuple[str, ...]]:
    """What each example adds to the sums: ([examples, columns], names of the columns)."""
    import numpy as np

    count = _sections if family == "sections" else _trees
    rows = [
        count(example.gold, prediction.answer)
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    return np.array(rows, dtype=np.float64), COLUMNS[family]


def statistic(family: str) -> Statistic:
    """The function from summed columns [..., columns] to metrics [..., metrics of the family]."""
    import numpy as np

    def measure(sums: Array) -> Array:
        exact = arrays.ratio(sums[..., 1], sums[..., 0])
        if family == "sections":
            return np.stack([arrays.ratio(sums[..., 3], sums[..., 2]), exact], axis=-1)
        similar = 1 - arrays.ratio(sums[..., 2], sums[..., 3])
        return np.stack([similar, arrays.f1(sums[..., 4:7]), exact], axis=-1)

    return measure


def _sections(gold: Answer | None, said: Answer | None) -> list[float]:
    wanted, given = _by_section(gold), _by_section(said)
    scores = [
        rouge("rougeL", basic_tokens(text), basic_tokens(given.get(section, "")))
        if text
        else float(not given.get(section))
        for section, text in wanted.items()
    ]
    return [1, said is not None and wanted == given, len(scores), sum(scores)]


def _by_section(answer: Answer | None) -> dict[str, str]:
    return {fact[0]: fact[1] for fact in answer.facts} if isinstance(answer, Facts) else {}


def _trees(gold: Answer | None, said: Answer | None) -> list[float]:
    wanted, given = (
        [_lower(node) for node in one.nodes] if isinstance(one, Tree) else []
        for one in (gold, said)
    )
    distance = trees.distance(given, wanted)
    most = trees.size(given) + trees.size(wanted)
    tp = sum(min(wanted.count(node), given.count(node)) for node in set(wanted))
    return [
        1,
        said is not None and wanted == given,
        distance,
        most,
        tp,
        len(given) - tp,
        len(wanted) - tp,
    ]


def _lower(node: Node) -> trees.Node:
    triples = frozenset(
        (one.lower(), two.lower(), three.lower()) for one, two, three in node.triples
    )
    return trees.Node(node.role, node.relation, triples)
