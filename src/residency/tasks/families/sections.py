"""Reports in sections, compared section by section."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from residency.core.types import Answer, Example, Facts, Prediction
from residency.metrics import counts as arrays
from residency.metrics.overlap import basic_tokens, rouge
from residency.tasks.facts import Fact, Found, LineFamily, Reader
from residency.tasks.families import Basis, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from residency.tasks.card import Card

    Array = NDArray[np.float64]

SECTIONS = ("主诉", "现病史", "辅助检查", "既往史", "诊断", "建议")


class SectionFamily(LineFamily):
    """A report, a line for each section: ``主诉：咳嗽三天。`` A fact is (section, text)."""

    metric = "rouge_l"
    lead, nothing = "上述问诊对话的诊疗报告如下：", "没有诊疗报告"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for section, text in facts:
            yield f"{section}：{text}"

    def reader(self, card: Card) -> Reader:
        names = card.names or SECTIONS

        def read(line: str) -> Found | None:
            section, sign, text = (piece.strip() for piece in line.partition("："))
            return ([(section, text)], []) if sign and section in names else None

        return read

    def tally(
        self,
        examples: Sequence[Example],
        predictions: Sequence[Prediction],
        card: Card,
        *,
        labels: Sequence[str] = (),
        metrics: Sequence[str] = (),
    ) -> Tally:
        """ROUGE-L over the tokens of BERT's basic tokeniser (characters for Chinese), pooled over
        the sections of the references. No answer counts as an empty one."""
        rows = [
            _compared(example.gold, prediction.answer)
            for example, prediction in zip(examples, predictions, strict=True)
        ]
        return Tally(
            rows=np.array(rows, dtype=np.float64),
            metrics=("rouge_l", "exact_match"),
            statistic=_measure,
            basis=lambda some: [Basis(int((some[:, 2] > 0).sum())), Basis(len(some))],
        )


FAMILY = SectionFamily()


def _measure(sums: Array) -> Array:
    exact = arrays.ratio(sums[..., 1], sums[..., 0])
    return np.stack([arrays.ratio(sums[..., 3], sums[..., 2]), exact], axis=-1)


def _compared(gold: Answer | None, said: Answer | None) -> list[float]:
    """1, whether all is right, sections of the reference, their summed ROUGE-L."""
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
