"""Standard terms, chosen from a list of candidates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from residency.tasks import answer_repair
from residency.tasks.facts import Fact, FactFamily, Found, Reader, known, parts

if TYPE_CHECKING:
    from residency.tasks.card import Card


class TermFamily(FactFamily):
    """Standard terms of a list of candidates, in one line, parted by ``，``. A fact is (term,)."""

    nothing, silence = "没有对应的标准化实体", ("Không có mã phù hợp", "No matching term")

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        words = [term for (term,) in facts]
        yield from ["，".join(words)] if words else []

    def reader(self, card: Card) -> Reader:
        def read(line: str) -> Found | None:
            words = [line] if line in card.names else parts(line)
            right = [word for word in words if known(word, card)]
            if not right:
                return None
            return [(word,) for word in right], [answer_repair.UNKNOWN] * (len(right) < len(words))

        return read


FAMILY = TermFamily()
