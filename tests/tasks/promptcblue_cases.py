"""Invented answers to the 18 tasks of PromptCBLUE, and the ways in which a model spoils them."""

from __future__ import annotations

import random
from typing import NamedTuple

from residency.core.types import Answer, Facts, Labels, Node, Text, Tree
from residency.corpus.promptcblue_rows import cards
from residency.tasks.families import of

WORDS = [
    "肺炎",
    "咳嗽",
    "发热",
    "头痛",
    "阿司匹林",
    "胃",
    "腹",
    "慢性胃炎",
    "2型糖尿病",
    "ALT升高",
    "β受体",
    "3*2.5cm",
    "naïve",
    "Ｔ３",
    "38.5℃",
    "hpv(16)",
    "café",
    "、",
    "持续性",
    "心电图",
    "ÀÉ",
    "糖",
]
KINDS = ("疾病", "药物", "身体部位", "临床表现", "检查")
RELATIONS = ("药物治疗", "相关（症状）", "同义词", "临床表现")
SIGNS = "，；：。\n 实体头尾为关系具有=[]()\"'{}、,;:.role主诉：　\u200b\x00-*0"
GARBAGE = (
    "",
    "  ",
    "\n",
    "\n\n",
    "无",
    "对不起，我不能回答。",
    "[" * 300,
    "__import__('os').system('echo')",
    "头实体：",
    "；尾实体：",
    "：role=",
    "节点：role=C；logical_rel=and；triples=[(1, 2, 3)]",
    "节点：role=D；logical_rel=or；triples=[['a', 'b'], 'xyz', 5]",
    "节点：role=X；triples=[('a','b','c')]",
    "节点：role=C；logical_rel=null；triples=[{1, 2, 3}]",
    "主体词：发生状态：否定；描述词：，，",
    "因果关系三元组如下",
    "条件关系三元组如下：\n头实体：甲；尾三元组：头实体：乙；尾实体：丙；关系：因果关系",
    "条件关系三元组如下：\n头实体：甲；尾三元组：头实体：乙；尾实体：丙；关系：条件关系",
    "具有关系的头尾实体对如下：头实体为甲，尾实体为乙，尾实体为丙。",
    "疾病实体",
    "疾病实体 肺炎",
    "疾病实体：疾病实体：肺炎",
    "咳嗽：患有该症状：没有",
    "建议：主诉：建议：多喝水",
    "x" * 500,
)


class Case(NamedTuple):
    """One row: the gold answer in words, what was written, and the row's choices."""

    gold: str
    said: str
    choices: list[str] | None


def word(rng: random.Random) -> str:
    return "".join(rng.choices(WORDS, k=rng.choice((1, 1, 2))))


def answer(task: str, rng: random.Random) -> tuple[Answer, list[str] | None]:
    """A gold answer that a task allows, and the choices of its row."""
    card = cards()[task]
    family = card.family
    size = rng.choice((0, 1, 1, 2, 3, 5))
    if family == "labels":
        offered = rng.sample(card.names, rng.randint(2, min(6, len(card.names))))
        return Labels(
            labels=(rng.choice([*offered, *([card.otherwise] if card.otherwise else [])]),)
        ), offered
    if family == "answers":
        return Text(text="，".join(word(rng) for _ in range(size + 1))), None
    if family == "tree":
        return Tree(nodes=tuple(preorder(rng, 3))), None
    if family == "sections":
        return Facts(
            facts=tuple(
                (name, "，".join(word(rng) for _ in range(rng.randint(0, 4))))
                for name in card.names
            )
        ), None
    if family == "terms":
        offered = list(dict.fromkeys(word(rng) for _ in range(6)))
        return Facts(
            facts=tuple((term,) for term in rng.sample(offered, min(size, len(offered) - 1)))
        ), offered
    if family == "mentions":
        offered = rng.sample(KINDS, 3)
        found = [(rng.choice(offered), word(rng)) for _ in range(size)]
        order = {kind: at for at, kind in enumerate(dict.fromkeys(kind for kind, _ in found))}
        return Facts(
            facts=tuple(sorted(dict.fromkeys(found), key=lambda fact: order[fact[0]]))
        ), offered
    if family == "triples":
        offered = rng.sample(RELATIONS, 2)
        found = [(rng.choice(offered), word(rng), word(rng)) for _ in range(size)]
        order = {kind: at for at, kind in enumerate(dict.fromkeys(fact[0] for fact in found))}
        return Facts(
            facts=tuple(sorted(dict.fromkeys(found), key=lambda fact: order[fact[0]]))
        ), offered
    if family == "causes":
        made = [("因果关系", word(rng), word(rng)) for _ in range(size)]
        made += [
            ("条件关系", word(rng), "因果关系", word(rng), word(rng))
            for _ in range(rng.choice((0, 0, 1)))
        ]
        made += [("上下位关系", word(rng), word(rng)) for _ in range(rng.choice((0, 1)))]
        return Facts(facts=tuple(dict.fromkeys(made))), None
    if family == "events":
        found = [
            (
                word(rng),
                rng.choice(("", "否定", "不确定")),
                "，".join({word(rng): 0 for _ in range(rng.choice((0, 1, 2)))}),
                word(rng),
            )
            for _ in range(size)
        ]
        return Facts(facts=tuple(dict.fromkeys(found))), None
    assert family == "attributes"
    offered = list(card.names)
    return Facts(
        facts=tuple(dict.fromkeys((word(rng), rng.choice(offered)) for _ in range(size)))
    ), offered


def preorder(rng: random.Random, depth: int) -> list[Node]:
    rows = tuple(
        (word(rng), rng.choice(RELATIONS), word(rng).upper())
        for _ in range(rng.choice((0, 1, 1, 2)))
    )
    relation = rng.choice(("and", "or")) if len(rows) > 1 else "null"
    if depth and rng.random() < 0.5:
        return [
            Node(role="C", relation=relation, triples=rows),
            *preorder(rng, depth - 1),
            *preorder(rng, depth - 1),
        ]
    return [Node(role="D", relation=relation, triples=rows)]


def spoiled(words: str, rng: random.Random) -> str:
    """Words that a model might write instead."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines = words.split("\n")
        kind = rng.randrange(11)
        at = rng.randrange(len(words) + 1)
        if kind == 0:
            words = words[:at]
        elif kind == 1:
            words = words[:at] + rng.choice(SIGNS) + words[at:]
        elif kind == 2:
            words = words[:at] + words[at + rng.randint(1, 4) :]
        elif kind == 3:
            rng.shuffle(lines)
            words = "\n".join(lines)
        elif kind == 4:
            words = "\n".join([*lines, rng.choice(lines)])
        elif kind == 5:
            words = "\n".join(lines[1:])
        elif kind == 6:
            words = rng.choice(GARBAGE)
        elif kind == 7:
            words = words + rng.choice(("\n", "\n\n", "\r\n", " ", "\u3000", "。"))
        elif kind == 8:
            words = words.replace("，", ",").replace("：", ":")
        elif kind == 9:
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(GARBAGE))
            words = "\n".join(lines)
        else:
            words = "".join(rng.choices(SIGNS, k=rng.randint(0, 30)))
    return words


def cases(task: str, rng: random.Random, rows: int, damaged: bool) -> list[Case]:
    """A submission to a task: some rows right, some another answer of the form, some spoiled."""
    made = []
    codec = of(cards()[task])
    for _ in range(rows):
        gold, choices = answer(task, rng)
        right = codec.render(gold, "")
        turn = rng.random()
        if turn < 0.4:
            said = right
        elif turn < 0.8 or not damaged:
            other = (
                answer(task, rng)[0]
                if damaged or not isinstance(gold, Labels)
                else chosen(choices, rng)
            )
            said = codec.render(alike(gold, other, rng), "")
        else:
            said = spoiled(right, rng)
        made.append(Case(right, said, choices))
    return made


def chosen(choices: list[str] | None, rng: random.Random) -> Labels:
    """A label that the row allows."""
    return Labels(labels=(rng.choice(choices or [""]),))


def alike(gold: Answer, other: Answer, rng: random.Random) -> Answer:
    """Some of what is right, and some of what is not."""
    if isinstance(gold, Facts) and isinstance(other, Facts):
        kept = [fact for fact in gold.facts if rng.random() < 0.6]
        return Facts(facts=tuple(dict.fromkeys([*kept, *other.facts])))
    if isinstance(gold, Tree) and isinstance(other, Tree) and rng.random() < 0.5:
        nodes = list(gold.nodes)
        nodes[rng.randrange(len(nodes))] = other.nodes[0]
        return Tree(nodes=tuple(nodes))
    return other
