"""Distance of decision trees, as Text2DT measures it (Zhu et al. 2022): nodes at the same place are
compared, whole branches that the other tree lacks are added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MOST_PASSES = 101
"""Nodes with children that are looked for; the reference implementation looks for no more."""


class Node(NamedTuple):
    """A node: ``C`` asks, ``D`` decides; relation and triples in a form that can be compared."""

    role: str
    relation: str
    triples: frozenset[tuple[str, str, str]]


Children = dict[int, tuple[int, int]]


def children(roles: Sequence[str]) -> Children:
    """Position of a node -> positions of its two children, of a preorder of roles.

    The first ``C`` that is followed by two decisions takes them as its children and counts as
    decided itself; again and again, until the first node is decided. What is no tree is read as far
    as that goes.
    """
    found: Children = {}
    alive = [position for position, role in enumerate(roles) if role in ("C", "D")]
    decided = {position for position in alive if roles[position] == "D"}
    for _ in range(MOST_PASSES):
        if not roles or 0 in decided:
            break
        at = next((i for i in range(len(alive) - 2) if _ready(alive[i : i + 3], decided)), None)
        if at is None:
            break
        parent, left, right = alive[at : at + 3]
        found[parent] = (left, right)
        decided.add(parent)
        del alive[at + 1 : at + 3]
    return found


def _ready(three: Sequence[int], decided: set[int]) -> bool:
    return three[0] not in decided and three[1] in decided and three[2] in decided


def difference(one: Node, other: Node | None) -> int:
    """Role, relation and triples in which two nodes differ; without another, what the node itself
    says."""
    if other is None:
        other = Node("", "null", frozenset())
    return (
        (one.role != other.role)
        + (one.relation != other.relation)
        + len(one.triples ^ other.triples)
    )


def distance(said: Sequence[Node], gold: Sequence[Node]) -> int:
    """Edits between two trees in preorder; of no tree, all that the other says."""
    if not said or not gold:
        return sum(difference(node, None) for node in (*said, *gold))
    below, above = children([node.role for node in said]), children([node.role for node in gold])
    total, pairs = 0, [(0, 0)]
    while pairs:
        one, other = pairs.pop()
        total += difference(said[one], gold[other])
        if one in below and other in above:
            pairs += zip(below[one], above[other], strict=True)
        else:
            total += _branch(said, below, one) + _branch(gold, above, other)
    return total


def _branch(nodes: Sequence[Node], below: Children, top: int) -> int:
    """What the nodes under one say."""
    waiting, total = list(below.get(top, ())), 0
    while waiting:
        position = waiting.pop()
        total += difference(nodes[position], None)
        waiting += below.get(position, ())
    return total


def size(nodes: Sequence[Node]) -> int:
    """The largest number of edits that a tree is charged with: its different triples, and two for
    each node that has any."""
    triples = frozenset[tuple[str, str, str]]().union(*(node.triples for node in nodes))
    return len(triples) + 2 * sum(bool(node.triples) for node in nodes)
