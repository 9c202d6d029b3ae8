"""Findings with an attribute each, such as present or absent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from residency.tasks import answer_repair
from residency.tasks.facts import Fact, FactFamily, Found, Reader, known

if TYPE_CHECKING:
    from residency.tasks.card import Card


class AttributeFamily(FactFamily):
    """A line for each finding: ``咳嗽：患有该症状``. A fact is (finding, attribute)."""

    label_at = 1
    lead, nothing = "上述对话中的临床发现及其阴阳性如下：", "上述对话中没有临床发现"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for finding, attribute in facts:
            yield f"{finding}：{attribute}"

    def reader(self, card: Card) -> Reader:
        def read(line: str) -> Found | None:
            finding, sign, attribute = (piece.strip() for piece in line.rpartition("："))
            if not sign or not finding or not attribute:
                return None
            return (
                ([(finding, attribute)], [])
                if known(attribute, card)
                else ([], [answer_repair.UNKNOWN])
            )

        return read


FAMILY = AttributeFamily()
