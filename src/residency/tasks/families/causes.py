"""Causes, conditions and kinds of medical matters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from residency.tasks.facts import Fact, FactFamily, Found, Reader

if TYPE_CHECKING:
    from residency.tasks.card import Card

CAUSE, CONDITION, KIND = "因果关系", "条件关系", "上下位关系"


class CauseFamily(FactFamily):
    """A header for each relation, then a line a triple; the tail of a condition is a cause itself.
    A fact is (relation, head, tail), or (条件关系, head, 因果关系, head of the cause, tail of the
    cause)."""

    label_at = 0
    nothing = "给定的文本没有指定关系的三元组"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for relation in (CAUSE, CONDITION, KIND):
            own = [fact for fact in facts if fact[0] == relation]
            if own:
                yield f"{relation}三元组如下："
            for fact in own:
                if relation == CONDITION:
                    _, head, inner, first, last = fact
                    yield f"头实体：{head}；尾三元组：头实体：{first}；尾实体：{last}；关系：{inner}"  # noqa: E501
                else:
                    yield f"头实体：{fact[1]}；尾实体：{fact[2]}"

    def reader(self, card: Card) -> Reader:
        relation = ""

        def read(line: str) -> Found | None:
            nonlocal relation
            header = next(
                (one for one in (CAUSE, CONDITION, KIND) if line.startswith(f"{one}三元组如下")),
                None,
            )
            if header:
                relation = header
                return [], []
            if relation == CONDITION:
                found = re.fullmatch(
                    r"头实体：(.+?)；尾三元组：头实体：(.+?)；尾实体：(.+?)；关系：因果关系", line
                )
                return (
                    None
                    if found is None
                    else ([(CONDITION, found[1], CAUSE, found[2], found[3])], [])
                )
            found = re.fullmatch(r"头实体：(.+?)；尾实体：(.+)", line)
            return None if found is None or not relation else ([(relation, found[1], found[2])], [])

        return read


FAMILY = CauseFamily()
