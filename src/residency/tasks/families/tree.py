"""Decision trees, compared by the edit distance of Text2DT (Zhu et al. 2022)."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from residency.core.types import Answer, Example, Node, Prediction, Tree
from residency.metrics import counts as arrays
from residency.metrics import trees
from residency.tasks import answer_repair
from residency.tasks.facts import MOST_LINES
from residency.tasks.families import Basis, Family, Tally
from residency.tasks.prompts import Parsed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from residency.tasks.card import Card

    Array = NDArray[np.float64]

ROLES, RELATIONS = ("C", "D"), ("and", "or", "null")
NODE = re.compile(
    r"：role=(?P<role>[^；]*)；logical_rel=(?P<relation>[^；]*)；triples=(?P<triples>.*)$"
)


class TreeFamily(Family):
    """A decision tree in preorder, a line for each node:
    ``节点1：role=C；logical_rel=null；triples=[["病人", "年龄", "大于60"]]``."""

    answer, metric = Tree, "tree_similarity"
    lead = "根据给定的指南文本抽取的诊疗决策树如下："

    def render(self, answer: Answer, text: str) -> str:
        assert isinstance(answer, Tree)
        lines = (
            f"节点{number}：role={node.role}；logical_rel={node.relation}；"
            f"triples={json.dumps(node.triples, ensure_ascii=False)}"
            for number, node in enumerate(answer.nodes, start=1)
        )
        return "\n".join([self.lead, *lines])

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        nodes: list[Node] = []
        faults: list[str] = []
        lines = words[: answer_repair.LONGEST].split("\n")[:MOST_LINES]
        for line in filter(str.strip, lines):
            if self.lead.rstrip("：") in line or "诊疗决策树如下" in line:
                continue
            found = NODE.search(line.strip())
            if found is None or found["role"] not in ROLES or found["relation"] not in RELATIONS:
                faults.append(answer_repair.UNREADABLE)
                continue
            listed = literal(found["triples"])
            rows = listed if isinstance(listed, list) else []
            kept = tuple((row[0], row[1], row[2]) for row in rows if is_triple(row))
            if not isinstance(listed, list) or len(kept) < len(rows):
                faults.append(answer_repair.UNREAD)
            nodes.append(Node(role=found["role"], relation=found["relation"], triples=kept))
        if not nodes:
            return Parsed()
        return Parsed(answer=Tree(nodes=tuple(nodes)), repairs=answer_repair.unique(faults))

    def tally(
        self,
        examples: Sequence[Example],
        predictions: Sequence[Prediction],
        card: Card,
        *,
        labels: Sequence[str] = (),
        metrics: Sequence[str] = (),
    ) -> Tally:
        """No answer counts as an empty tree."""
        rows = [
            _compared(example.gold, prediction.answer)
            for example, prediction in zip(examples, predictions, strict=True)
        ]
        return Tally(
            rows=np.array(rows, dtype=np.float64),
            metrics=("tree_similarity", "node_f1", "exact_match"),
            statistic=_measure,
            basis=_basis,
        )

    def columns(self, answer: Answer) -> dict[str, Any]:
        assert isinstance(answer, Tree)
        return {"tree": msgspec.to_builtins(answer.nodes)}

    def from_columns(self, row: Mapping[str, Any]) -> Answer | None:
        nodes = msgspec.convert(row.get("tree", ()), tuple[Node, ...])
        return Tree(nodes=nodes) if "tree" in row else None


FAMILY = TreeFamily()


def _measure(sums: Array) -> Array:
    exact = arrays.ratio(sums[..., 1], sums[..., 0])
    similar = 1 - arrays.ratio(sums[..., 2], sums[..., 3])
    return np.stack([similar, arrays.f1(sums[..., 4:7]), exact], axis=-1)


def _basis(rows: Array) -> list[Basis]:
    """Trees without a triple have no similarity, and no nodes no F1."""
    some = (rows[:, 3] > 0).sum(), rows[:, 4:7].any(axis=-1).sum(), len(rows)
    return [Basis(int(count)) for count in some]


def _compared(gold: Answer | None, said: Answer | None) -> list[float]:
    """1, whether all is right, edits, the most that there could be, and of the nodes tp, fp, fn."""
    wanted, given = (
        [_lower(node) for node in one.nodes] if isinstance(one, Tree) else []
        for one in (gold, said)
    )
    tp = sum(min(wanted.count(node), given.count(node)) for node in set(wanted))
    return [
        1,
        said is not None and wanted == given,
        trees.distance(given, wanted),
        trees.size(given) + trees.size(wanted),
        tp,
        len(given) - tp,
        len(wanted) - tp,
    ]


def _lower(node: Node) -> trees.Node:
    triples = ((one.lower(), two.lower(), three.lower()) for one, two, three in node.triples)
    return trees.Node(node.role, node.relation, frozenset(triples))


def literal(words: str) -> object:
    """What a Python or JSON literal says; ``None`` for anything else. It is read, never run."""
    if len(words) > answer_repair.LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash that escapes nothing
            return ast.literal_eval(words.lstrip(" \t"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def is_triple(row: object) -> bool:
    """Whether something is three texts."""
    return (
        isinstance(row, list | tuple)
        and len(row) == 3
        and all(isinstance(word, str) for word in row)
    )
