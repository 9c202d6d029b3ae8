"""Clinical findings as events with four fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from residency.tasks import answer_repair
from residency.tasks.facts import Fact, FactFamily, Found, Reader, parts

if TYPE_CHECKING:
    from residency.tasks.card import Card

EVENT_FIELDS = ("主体词", "发生状态", "描述词", "解剖部位")
LISTS = (2, 3)
"""Fields of an event that may hold several words."""


class EventFamily(FactFamily):
    """A line for each event: ``主体词：疼痛；发生状态：；描述词：持续性，阵发性；解剖部位：腹``. A
    fact holds the four fields, several words of one joined by ``，``."""

    lead, nothing = "上述句子中的临床发现事件如下：", "上述句子没有临床发现事件"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for fact in facts:
            yield "；".join(
                f"{name}：{value}" for name, value in zip(EVENT_FIELDS, fact, strict=True)
            )

    def reader(self, card: Card) -> Reader:
        def read(line: str) -> Found | None:
            values: dict[str, str] = {}
            faults: list[str] = []
            for piece in line.split("；"):
                name, sign, value = piece.strip().partition("：")
                if not sign or name not in EVENT_FIELDS:
                    faults += [answer_repair.UNREADABLE] if piece.strip() else []
                    continue
                several = EVENT_FIELDS.index(name) in LISTS
                values[name] = "，".join(parts(value)) if several else value.strip()
            if not any(values.values()):
                return None
            return [tuple(values.get(name, "") for name in EVENT_FIELDS)], faults

        return read


FAMILY = EventFamily()
