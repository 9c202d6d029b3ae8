"""Relations: a head, a relation and a tail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from residency.tasks import answer_repair
from residency.tasks.facts import Fact, FactFamily, Found, Reader, known, parts

if TYPE_CHECKING:
    from residency.tasks.card import Card


class TripleFamily(FactFamily):
    """A line for each relation:
    ``具有药物治疗关系的头尾实体对如下：头实体为肺炎，尾实体为青霉素。`` A fact is (relation, head,
    tail)."""

    label_at = 0
    nothing = "上述句子中没有指定关系的头尾实体对"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for relation in dict.fromkeys(relation for relation, _, _ in facts):
            pairs = (
                f"头实体为{head}，尾实体为{tail}。" for one, head, tail in facts if one == relation
            )
            yield f"具有{relation}关系的头尾实体对如下：" + "".join(pairs)

    def reader(self, card: Card) -> Reader:
        def read(line: str) -> Found | None:
            found = re.match(r"具有(.{1,40}?)关系的头尾实体对如下[：:](.*)$", line)
            if found is None:
                return None
            if not known(found[1].strip(), card):
                return [], [answer_repair.UNKNOWN]
            facts: list[Fact] = []
            faults: list[str] = []
            for pair in parts(found[2], "。"):
                ends = re.fullmatch(r"头实体为(.+?)，尾实体为(.+)", pair)
                if ends is None:
                    faults.append(answer_repair.UNREADABLE)
                else:
                    facts.append((found[1].strip(), ends[1].strip(), ends[2].strip()))
            return facts, faults

        return read


FAMILY = TripleFamily()
