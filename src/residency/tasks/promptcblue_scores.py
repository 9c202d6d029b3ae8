"""The official scores of PromptCBLUE (Zhu et al. 2023), its oddities included.

What the official scorer makes of a submission, number for number: a first line is skipped unread,
an unknown attribute becomes a default one, an empty class answer becomes the first label, invented
labels join the macro average, an average weighted by support is what it calls micro F1, and one
line that it cannot read fails the whole submission (here ``DataError``). It evaluates a model's
words as Python; here they are read as literals, which gives the same for every literal, and never
run. The forgiving scores are those of the cards (``tasks.scoring``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from residency.core.errors import DataError
from residency.metrics import counts as arrays
from residency.metrics import trees
from residency.metrics.overlap import basic_tokens, common_subsequence
from residency.tasks.families.causes import CAUSE, CONDITION, KIND
from residency.tasks.families.events import EVENT_FIELDS, LISTS
from residency.tasks.families.sections import SECTIONS
from residency.tasks.families.tree import literal

Read = Any
"""A target as the official reader makes it: a set, a list of nodes, a mapping of sections or a
text."""
EMPTY_TEXT = "无 。"
"""What an empty text is compared as."""


class Item(NamedTuple):
    """One row: its id, what was written, and its choices."""

    id: str
    words: str
    choices: tuple[str, ...] | None = None


class OfficialTask(NamedTuple):
    """How the official scorer reads and scores a task."""

    read: Callable[[Item], Read]
    score: Callable[[Sequence[Read], Sequence[Read]], float]
    metric: str


def official(task: str, gold: Sequence[Item], said: Sequence[Item]) -> float:
    """The score of one task, 0..1; the two sides are rows of the same ids in the same order.

    Raises ``DataError`` where the official scorer would refuse the submission.
    """
    if [one.id for one in gold] != [one.id for one in said]:
        raise DataError(
            f"{task}: the predictions are for other rows, or in another order, than the gold "
            "answers."
        )
    if not gold:
        raise DataError(f"{task}: there are no rows to score.")
    known = TASKS[task]
    return known.score(
        [_read(known, task, one) for one in gold], [_read(known, task, one) for one in said]
    )


def overall(scores: dict[str, float]) -> float:
    """The score of the benchmark: the unweighted mean of the 18 tasks."""
    missing = [task for task in TASKS if task not in scores]
    if missing:
        raise DataError(f"the overall score is over all 18 tasks; {', '.join(missing)} missing.")
    return sum(scores[task] for task in TASKS) / len(TASKS)


def _read(known: OfficialTask, task: str, item: Item) -> Read:
    try:
        return known.read(item)
    except (IndexError, AssertionError, TypeError, AttributeError):
        raise DataError(
            f"{task}: row {item.id}: the official scorer cannot read a line of this answer and "
            "would refuse the whole "
            "submission; score it in the mode safe, or mend the row."
        ) from None


# Reading


def _mentions(item: Item) -> Read:
    if item.choices is None:
        raise TypeError
    found = set()
    for kind in item.choices:
        for line in item.words.split("\n"):
            if line.startswith(f"{kind}实体"):
                found |= {(word, kind) for word in _words(line.replace(f"{kind}实体：", ""))}
    return found


def _triples(item: Item) -> Read:
    found = set()
    for line in item.words.split("\n"):
        relation = line.split("关系的头尾实体对")[0][2:].strip()
        for pair in line.replace(f"具有{relation}关系的头尾实体对如下：", "").split("。"):
            ends = pair.split("，尾实体为")
            if len(ends) > 1:
                head, tail = (
                    ends[0].replace("头实体为", "").strip(),
                    ends[1].replace("尾实体为", "").strip(),
                )
                found.add((relation, head, tail))
    return found


def _causes(item: Item) -> Read:
    found: set[tuple[Any, ...]] = set()
    relation = None
    headers = (("因果关系三元组如下", CAUSE), ("条件关系三元组", CONDITION), ("上下位关系", KIND))
    for line in map(str.strip, item.words.split("\n")):
        header = next((name for sign, name in headers if sign in line), None)
        if header:
            relation = header
        elif "给定的文本没有指定关系的三元组" in line:
            break
        elif line:
            head = _between(line, "头实体：", "；尾实体：")
            if relation == CONDITION:
                tail = line.split("；尾三元组：")[1]
                inner = tail.split("；关系：")[1]
                if inner != CAUSE:
                    raise AssertionError
                first = _between(tail, "头实体：", "；尾实体：")
                found.add(
                    (relation, head, (inner, first, _between(tail, "；尾实体：", "；关系：")))
                )
            else:
                found.add((relation, head, line.split("；尾实体：")[1]))
    return found


def _between(line: str, before: str, behind: str) -> str:
    return line.split(before)[1].split(behind)[0]


def _events(item: Item) -> Read:
    found = set()
    for line in item.words.split("\n")[1:]:
        event: dict[str, str | tuple[str, ...]] = {
            name: () if at in LISTS else "" for at, name in enumerate(EVENT_FIELDS)
        }
        for piece in line.split("；"):
            for at, name in enumerate(EVENT_FIELDS):
                if piece.startswith(
                    f"{name}："
                ):  # what remains may begin with the name of a later field
                    piece = piece.replace(f"{name}：", "").strip()
                    event[name] = tuple(_words(piece)) if at in LISTS else piece
        found.add(tuple(event.values()))
    return found


def _terms(item: Item) -> Read:
    if item.choices is None:
        raise TypeError
    return {word for word in _words(item.words.split("\n")[-1]) if word in item.choices}


def _attributes(item: Item, default: str) -> Read:
    found = set()
    for line in item.words.split("\n")[1:]:
        pieces = line.split("：")
        if len(pieces) == 2:
            if item.choices is None:
                raise TypeError
            found.add((pieces[0].strip(), pieces[1] if pieces[1] in item.choices else default))
    return found


def _label(item: Item) -> Read:
    return item.words.strip()


def _same(item: Item) -> Read:
    words = item.words.strip()
    return {"相同": "是的", "不同": "不是"}.get(words, words)


def _sections(item: Item) -> Read:
    found: dict[str, str] = {}
    for name in SECTIONS:
        for line in item.words.strip().split("\n")[1:]:
            if line.startswith(f"{name}："):
                found[name] = line.strip().split(f"{name}：")[-1].strip()
    return found


def _tree(item: Item) -> Read:
    nodes = []
    for line in item.words.split("\n"):
        if not line or "根据给定的指南文本抽取的诊疗决策树" in line:
            continue
        role = line.split("：role=")[1].split("；logical_rel=")[0]
        behind = line.split("；logical_rel=")
        relation = behind[1].split("；triples=")[0] if len(behind) > 1 else "null"
        listed = line.split("；triples=")
        nodes.append(
            trees.Node(role, relation, _three(literal(listed[1]) if len(listed) > 1 else None))
        )
    return nodes or [trees.Node("D", "null", frozenset())]


def _three(rows: object) -> frozenset[tuple[str, str, str]]:
    """The rows of three; all are lost where one of them has no length."""
    if not isinstance(rows, list):
        return frozenset()
    try:
        kept = [row for row in rows if len(row) == 3]
    except TypeError:
        return frozenset()
    if any(isinstance(row, dict | set) for row in kept):  # they have a length, but no first word
        raise TypeError
    return frozenset((row[0].lower(), row[1].lower(), row[2].lower()) for row in kept)


def _words(line: str) -> list[str]:
    return [word for piece in line.split("，") if (word := piece.strip())]


# Scoring


def _sets(gold: Sequence[Read], said: Sequence[Read]) -> float:
    right = sum(len(one & other) for one, other in zip(gold, said, strict=True))
    return 2 * right / (sum(map(len, gold)) + sum(map(len, said))) if right else 0.0


def _classes(gold: Sequence[str], said: Sequence[str], first: str, average: str) -> float:
    """F1 over all labels that either side holds."""
    import numpy as np

    if "" in gold:
        raise DataError("a gold answer is empty; the official scorer refuses that.")
    chosen = [
        (label or first).rstrip("\0") for label in said
    ]  # numpy, and so scikit-learn, drops NULs at the end
    names = {label: at for at, label in enumerate(sorted({*gold, *chosen}))}
    table = np.zeros((len(names), 3))
    for one, other in zip(gold, chosen, strict=True):
        if one == other:
            table[names[one], 0] += 1
        else:
            table[names[other], 1] += 1
            table[names[one], 2] += 1
    each = arrays.f1(table)
    return float(arrays.weighted_f1(table, each) if average == "weighted" else each.mean())


def _texts(gold: Sequence[str], said: Sequence[str]) -> float:
    return sum(map(_overlap, gold, said)) / len(gold)


def _overlap(gold: str, said: str) -> float:
    """ROUGE-L of rouge-chinese 1.0.3: its denominator is never 0."""
    wanted, given = (basic_tokens(text) or EMPTY_TEXT.split() for text in (gold, said))
    common = common_subsequence(wanted, given)
    recall, precision = common / len(wanted), common / len(given)
    return 2 * precision * recall / (precision + recall + 1e-8)


def _reports(gold: Sequence[dict[str, str]], said: Sequence[dict[str, str]]) -> float:
    pairs = [
        (text, other.get(name, ""))
        for one, other in zip(gold, said, strict=True)
        for name, text in one.items()
    ]
    if not pairs:
        raise DataError("no gold answer has a section; the official scorer refuses that.")
    return _texts([one for one, _ in pairs], [other for _, other in pairs])


def _trees(gold: Sequence[list[trees.Node]], said: Sequence[list[trees.Node]]) -> float:
    most = sum(trees.size(tree) for tree in (*gold, *said))
    if not most:
        raise DataError(
            "no tree of either side has a triple; the official scorer divides by their number."
        )
    return 1 - sum(map(trees.distance, said, gold)) / most


def _facts(read: Callable[[Item], Read]) -> OfficialTask:
    return OfficialTask(read, _sets, "Micro-F1")


def _choice(first: str, average: str, read: Callable[[Item], Read] = _label) -> OfficialTask:
    metric = "Macro-F1" if average == "macro" else "Micro-F1"  # as the scorer calls it
    return OfficialTask(read, partial(_classes, first=first, average=average), metric)


TASKS: dict[str, OfficialTask] = {
    "CMeEE-V2": _facts(_mentions),
    "CMeIE-V2": _facts(_triples),
    "CHIP-CDN": _facts(_terms),
    "CHIP-CDEE": _facts(_events),
    "IMCS-V2-NER": _facts(_mentions),
    "CHIP-MDCFNPC": _facts(partial(_attributes, default="不标注")),
    "IMCS-V2-SR": _facts(partial(_attributes, default="无法根据上下文确定病人是否患有该症状")),
    "IMCS-V2-DAC": _choice("非上述类型", "macro"),
    "IMCS-V2-MRG": OfficialTask(_sections, _reports, "RougeL"),
    "CHIP-CTC": _choice("非上述类型", "macro"),
    "CHIP-STS": _choice("是的", "weighted", _same),
    "KUAKE-IR": _choice("相关", "weighted"),
    "KUAKE-QIC": _choice("非上述类型", "macro"),
    "KUAKE-QQR": _choice("完全一致", "weighted"),
    "KUAKE-QTR": _choice("完全不匹配或者没有参考价值", "weighted"),
    "MedDG": OfficialTask(_label, _texts, "RougeL"),
    "Text2DT": OfficialTask(_tree, _trees, "TreeLenvRatio"),
    "CMedCausal": _facts(_causes),
}
"""The 18 tasks by their official names."""
