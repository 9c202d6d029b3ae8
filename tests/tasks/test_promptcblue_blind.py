"""The official scores against an implementation whose author saw a table of facts alone
(``promptcblue_blind``).

Where the facts settle what an answer counts for, both agree on every submission of such answers.
``DIFFERENCES`` names the points on which the facts are silent, or say less than the official scorer
does, and pins what each side makes of them.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

import promptcblue_blind as blind
import pytest
from promptcblue_cases import Case, cases

from residency.core.errors import DataError
from residency.tasks.promptcblue_scores import TASKS, Item, official

NAMES = tuple(TASKS)
ROUGE = ("MedDG", "IMCS-V2-MRG")
HEADERS = {"因果关系三元组如下：", "条件关系三元组如下：", "上下位关系三元组如下："}
EVERY_VALID = frozenset(NAMES) - {"CMeEE-V2", "IMCS-V2-NER", "IMCS-V2-MRG", "Text2DT"}
EVERY_DAMAGED = frozenset({"CHIP-STS", "KUAKE-IR", "KUAKE-QQR", "KUAKE-QTR"})


class Tally(NamedTuple):
    """Submissions whose settled answers were compared, and how many scored the same with all their
    answers."""

    settled: int
    equal: int


def by_package(task: str, rows: list[Case]) -> float | None:
    """The package's official score; None where it refuses."""

    def items(words: list[str]) -> list[Item]:
        given = [None if row.choices is None else tuple(row.choices) for row in rows]
        return [Item(str(at), one, c) for at, (one, c) in enumerate(zip(words, given, strict=True))]

    try:
        return official(task, items([row.gold for row in rows]), items([row.said for row in rows]))
    except DataError:
        return None


def by_blind(task: str, rows: list[Case]) -> float | None:
    return blind.score(
        task, [row.gold for row in rows], [row.said for row in rows], [row.choices for row in rows]
    )


def same(task: str, one: float | None, other: float | None) -> bool:
    # The official ROUGE adds 1e-8 to a denominator. The facts do not say so; it takes at most 5e-9
    # from a score.
    near = 6e-9 if task in ROUGE else 1e-9
    return one is other is None or (
        one is not None and other is not None and abs(one - other) < near
    )


def settled(task: str, row: Case) -> bool:
    """Whether the facts say what this answer counts for."""
    if (
        task in blind.AVERAGES
    ):  # which label is the first is not said: it matters where support is no weight
        return bool(row.said.strip()) or blind.AVERAGES[task] == "weighted"
    if by_blind(task, [row]) is None:  # nor which tasks a malformed line fails
        return False
    if task in ROUGE:  # nor what an empty reference is
        return by_blind(task, [row._replace(said=row.gold)]) is not None
    if task == "Text2DT":  # nor what an edit costs
        return row.said == row.gold and '[["' in row.gold
    if re.search(r"[^\S\n]|\n\n|^\n|\n$", row.said):  # nor what white space does
        return False
    first, *later = row.said.split("\n")
    if task in ("CMeEE-V2", "IMCS-V2-NER"):
        kinds = {line.split("实体：")[0] for line in (first, *later) if "实体：" in line}
        return kinds <= set(row.choices or ()) and not any(
            first.startswith(f"{one}实体") for one in row.choices or ()
        )
    if task == "CMeIE-V2":
        return "，尾实体为" not in first or "关系的头尾实体对如下：" in first
    if task == "CMedCausal":
        headers = {first, *(line for line in later if line.endswith("三元组如下："))}
        inner = set(re.findall("；关系：(.*)", row.said))
        return row.said == row.gold or (headers <= HEADERS and inner <= {"因果关系"})
    if task in ("CHIP-MDCFNPC", "IMCS-V2-SR"):
        return all(line.split("：")[-1] in (row.choices or ()) for line in later)
    return True


def compare(task: str, submissions: int, seed: int, damaged: bool) -> Tally:
    """Holds the settled answers of every submission to the blind score, and counts the whole ones
    that agree."""
    rng, decided, equal = random.Random(f"{task}/{seed}/{damaged}"), 0, 0
    for _ in range(submissions):
        rows = cases(task, rng, rng.choice((1, 5, 12)), damaged=damaged)
        agree = same(task, by_package(task, rows), by_blind(task, rows))
        equal += agree
        kept = [row for row in rows if settled(task, row)]
        if kept:
            decided += 1
            if kept != rows:  # else both sides have said so already
                agree = same(task, by_package(task, kept), by_blind(task, kept))
            assert agree, (task, kept)
    return Tally(decided, equal)


def hold(task: str, submissions: int, seed: int) -> None:
    valid, damaged = (compare(task, submissions, seed, damaged=one) for one in (False, True))
    print(f"{task}: of {submissions} valid {valid}, of {submissions} damaged {damaged}")
    assert min(valid.settled, damaged.settled) >= submissions // 3
    assert task not in EVERY_VALID or valid.equal == submissions
    assert task not in EVERY_DAMAGED or damaged.equal == submissions


@pytest.mark.parametrize("task", NAMES)
def test_official_scores_are_those_written_from_the_facts_alone(task: str) -> None:
    hold(task, 30, seed=1)


@pytest.mark.sample
@pytest.mark.parametrize("task", NAMES)
def test_official_scores_are_those_written_from_the_facts_alone_over_two_thousand_submissions(
    task: str,
) -> None:
    hold(task, 1000, seed=2)


class Difference(NamedTuple):
    """A point that the facts leave open, an answer that shows it, and its score by the package and
    by the blind reading."""

    point: str
    task: str
    gold: str
    said: str
    choices: list[str] | None
    official: float | None
    blind: float | None


ENTITIES = "如下：\n疾病实体：肺炎，咳嗽"
PAIRS = "因果关系三元组如下：\n头实体：甲；尾实体：乙"
EVENT = "如下：\n主体词：痛；发生状态：；描述词：甲，乙；解剖部位：腹"
REPORT = "如下：\n主诉：痛\n现病史：痛\n辅助检查：痛\n既往史：痛\n诊断：痛\n建议：痛"
NODE = '根据给定的指南文本抽取的诊疗决策树如下：\n节点1：role=D；logical_rel=null；triples=[["a", "b", "c"]]'
ATTRIBUTES = ["患有该症状", "无法根据上下文确定病人是否患有该症状"]
FINDING, UNSURE = "如下：\n咳：患有该症状", "如下：\n咳：无法根据上下文确定病人是否患有该症状"
CONDITION = "条件关系三元组如下：\n头实体：甲；尾三元组：头实体：乙；尾实体：丙；关系：因果关系"
TRIPLE = "具有同义词关系的头尾实体对如下：头实体为甲，尾实体为乙。"

DIFFERENCES = (
    Difference(
        "a type that was not asked for is left out",
        "CMeEE-V2",
        ENTITIES,
        f"{ENTITIES}\n药物实体：糖",
        ["疾病"],
        1,
        4 / 5,
    ),
    Difference(
        "white space around a value is dropped",
        "CMeEE-V2",
        ENTITIES,
        "如下：\n疾病实体：肺炎 ，咳嗽",
        ["疾病"],
        1,
        1 / 2,
    ),
    Difference(
        "a line of entities without the form is passed over",
        "CMeEE-V2",
        ENTITIES,
        f"{ENTITIES}\n胡说",
        ["疾病"],
        1,
        None,
    ),
    Difference(
        "a line of triples without the form is passed over",
        "CMeIE-V2",
        TRIPLE,
        f"{TRIPLE}\n胡说",
        ["同义词"],
        1,
        None,
    ),
    Difference(
        "a pair without its relation is read on the first line",
        "CMeIE-V2",
        TRIPLE,
        f"头实体为甲，尾实体为丙。\n{TRIPLE}",
        ["同义词"],
        2 / 3,
        1,
    ),
    Difference("the last line may be empty", "CHIP-CDN", "甲", "甲\n", ["甲", "乙"], 0, 1),
    Difference(
        "a line of events without the form is an empty event",
        "CHIP-CDEE",
        EVENT,
        f"{EVENT}\n胡说",
        None,
        2 / 3,
        None,
    ),
    Difference(
        "descriptions have an order",
        "CHIP-CDEE",
        EVENT,
        EVENT.replace("甲，乙", "乙，甲"),
        None,
        0,
        1,
    ),
    Difference(
        "a line of attributes without the form is passed over",
        "IMCS-V2-SR",
        FINDING,
        f"{FINDING}\n胡说",
        ATTRIBUTES,
        1,
        None,
    ),
    Difference(
        "an unknown attribute is the default one",
        "IMCS-V2-SR",
        UNSURE,
        "如下：\n咳：也许",
        ATTRIBUTES,
        1,
        0,
    ),
    Difference(
        "the first label is the one of no class", "KUAKE-QIC", "非上述类型", "", ["病情诊断"], 1, 0
    ),
    Difference(
        "an empty text is 无 。 and no reason to refuse", "MedDG", "咳嗽", "", None, 0, None
    ),
    Difference(
        "so is an empty section",
        "IMCS-V2-MRG",
        REPORT,
        REPORT.replace("建议：痛", "建议："),
        None,
        5 / 6,
        None,
    ),
    Difference(
        "a line that is no section is passed over",
        "IMCS-V2-MRG",
        REPORT,
        f"{REPORT}\n胡说",
        None,
        1,
        None,
    ),
    # two triples differ of 1 triple and 2 for the node on each side; one of the two nodes of both
    # sides is changed
    Difference(
        "an edit is a triple, a role or a relation",
        "Text2DT",
        NODE,
        NODE.replace('"c"', '"d"'),
        None,
        1 - 2 / 6,
        1 - 1 / 2,
    ),
    Difference(
        "triples in capitals are the same",
        "Text2DT",
        NODE,
        NODE.replace('"c"', '"C"'),
        None,
        1,
        1 / 2,
    ),
    Difference(
        "trees of no triples have no score",
        "Text2DT",
        *[re.sub(r"\[\[.*", "[]", NODE)] * 2,
        None,
        None,
        1,
    ),
    Difference(
        "only the usual first line is passed over",
        "Text2DT",
        NODE,
        NODE.replace("抽取", "写"),
        None,
        None,
        1,
    ),
    Difference("a header is known by a part of it", "CMedCausal", PAIRS, f"，{PAIRS}", None, 1, 0),
    Difference(
        "the first line of causes is read too", "CMedCausal", PAIRS, f"如下\n{PAIRS}", None, None, 1
    ),
    Difference(
        "a condition's tail is a cause",
        "CMedCausal",
        CONDITION,
        CONDITION.replace("关系：因果", "关系：条件"),
        None,
        None,
        0,
    ),
)


@pytest.mark.parametrize("case", DIFFERENCES, ids=lambda case: f"{case.task}: {case.point}")
def test_where_the_facts_are_silent_each_reading_is_known(case: Difference) -> None:
    row = [Case(case.gold, case.said, case.choices)]
    for found, expected in (
        (by_package(case.task, row), case.official),
        (by_blind(case.task, row), case.blind),
    ):
        assert found == (None if expected is None else pytest.approx(expected, abs=6e-9))
