"""Mentions of things by type, without offsets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from residency.tasks import answer_repair
from residency.tasks.facts import Fact, FactFamily, Found, Reader, known, parts

if TYPE_CHECKING:
    from residency.tasks.card import Card


class MentionFamily(FactFamily):
    """A line for each type: ``疾病实体：肺炎，哮喘``. A fact is (type, mention)."""

    label_at = 0
    lead, nothing = "上述句子中的实体包含：", "上述句子没有指定类型实体"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for kind in dict.fromkeys(kind for kind, _ in facts):
            yield f"{kind}实体：" + "，".join(word for one, word in facts if one == kind)

    def reader(self, card: Card) -> Reader:
        def read(line: str) -> Found | None:
            found = re.match(r"(.{1,40}?)实体[：:](.*)$", line)
            if found is None or found[0] == self.lead:
                return None
            if not known(found[1], card):
                return [], [answer_repair.UNKNOWN]
            return [(found[1], word) for word in parts(found[2])], []

        return read


FAMILY = MentionFamily()
