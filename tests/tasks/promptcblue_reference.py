"""A second implementation of PromptCBLUE's official scorer, from the description of its formats,
metrics and faults.

It shares no code with the first and imports nothing of the package: plain dictionaries,
scikit-learn's report, its own tokeniser, its own trees. ``None`` stands for a submission that the
official scorer refuses.
"""

from __future__ import annotations

import ast
import json
import unicodedata
import warnings
from typing import Any

DELIMITER = chr(0xFF0C)
FIRST_LABELS = {
    "CHIP-STS": "是的",
    "CHIP-CTC": "非上述类型",
    "IMCS-V2-DAC": "非上述类型",
    "KUAKE-IR": "相关",
    "KUAKE-QIC": "非上述类型",
    "KUAKE-QTR": "完全不匹配或者没有参考价值",
    "KUAKE-QQR": "完全一致",
}
MACRO = ("CHIP-CTC", "KUAKE-QIC", "IMCS-V2-DAC")
DEFAULTS = {"CHIP-MDCFNPC": "不标注", "IMCS-V2-SR": "无法根据上下文确定病人是否患有该症状"}


class Refused(Exception):
    """The scorer fails."""


def score(task: str, gold: list[str], said: list[str], choices: list[Any]) -> float | None:
    """The task's score of what was written, row by row; None where the scorer fails."""
    try:
        reader = READERS[task]
        right = [reader(task, words, given) for words, given in zip(gold, choices, strict=True)]
        answers = [reader(task, words, given) for words, given in zip(said, choices, strict=True)]
        return SCORERS[task](task, right, answers)
    except Refused:
        return None


# reading


def mentions(task: str, words: str, choices: Any) -> list[dict[str, Any]]:
    if not isinstance(choices, list):
        raise Refused
    rows = []
    for line in words.split("\n"):
        for kind in choices:
            opening = kind + "实体"
            if line[: len(opening)] != opening:
                continue
            rest = "".join(line.split(opening + "："))
            rows += [
                {"type": kind, "entity": w.strip()}
                for w in rest.split(DELIMITER)
                if w.strip() != ""
            ]
    return rows


def triples(task: str, words: str, choices: Any) -> list[dict[str, Any]]:
    rows = []
    for line in words.split("\n"):
        relation = line.partition("关系的头尾实体对")[0][2:].strip()
        body = "".join(line.split("具有" + relation + "关系的头尾实体对如下："))
        for sentence in body.split("。"):
            pieces = sentence.split("，尾实体为")
            if len(pieces) >= 2:
                head, tail = (
                    "".join(p.split(mark)).strip()
                    for p, mark in zip(pieces, ("头实体为", "尾实体为"), strict=False)
                )
                rows.append({"p": relation, "s": head, "o": tail})
    return rows


def second(text: str, mark: str) -> str:
    pieces = text.split(mark)
    if len(pieces) < 2:
        raise Refused
    return pieces[1]


def causes(task: str, words: str, choices: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    now: str | None = None
    for raw in words.split("\n"):
        line = raw.strip()
        if line.find("因果关系三元组如下") >= 0:
            now = "因果关系"
        elif line.find("条件关系三元组") >= 0:
            now = "条件关系"
        elif line.find("上下位关系") >= 0:
            now = "上下位关系"
        elif line.find("给定的文本没有指定关系的三元组") >= 0:
            return rows
        elif line == "":
            pass
        else:
            head = second(line, "头实体：").partition("；尾实体：")[0]
            if now == "条件关系":
                end = second(line, "；尾三元组：")
                inner_head = second(end, "头实体：").partition("；尾实体：")[0]
                inner_tail = second(end, "；尾实体：").partition("；关系：")[0]
                if second(end, "；关系：") != "因果关系":
                    raise Refused
                rows.append(
                    {"p": now, "s": head, "o": {"p": "因果关系", "s": inner_head, "o": inner_tail}}
                )
            else:
                rows.append({"p": now, "s": head, "o": second(line, "；尾实体：")})
    return rows


def events(task: str, words: str, choices: Any) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(words.split("\n")):
        if number == 0:
            continue
        event: dict[str, Any] = {"主体词": "", "发生状态": "", "描述词": [], "解剖部位": []}
        for piece in line.split("；"):
            current = piece
            for name in ("主体词", "发生状态", "描述词", "解剖部位"):
                sign = name + "："
                if current[: len(sign)] == sign:
                    current = "".join(current.split(sign)).strip()
                    if name in ("描述词", "解剖部位"):
                        event[name] = [w.strip() for w in current.split(DELIMITER) if w.strip()]
                    else:
                        event[name] = current
        rows.append(event)
    return rows


def terms(task: str, words: str, choices: Any) -> list[dict[str, Any]]:
    if choices is None:
        raise Refused
    last = words.rsplit("\n", 1)[-1]
    listed = [w.strip() for w in last.split(DELIMITER)]
    return [{"entity": w} for w in listed if w and w in choices]


def attributes(task: str, words: str, choices: Any) -> list[dict[str, Any]]:
    rows = []
    for line in words.split("\n")[1:]:
        if line.count("：") != 1:
            continue
        finding, _, attribute = line.partition("：")
        if choices is None:
            raise Refused
        rows.append(
            {
                "entity": finding.strip(),
                "attr": attribute if attribute in choices else DEFAULTS[task],
            }
        )
    return rows


def label(task: str, words: str, choices: Any) -> str:
    bare = words.strip()
    if task == "CHIP-STS" and bare in ("相同", "不同"):
        return "是的" if bare == "相同" else "不是"
    return bare


def sections(task: str, words: str, choices: Any) -> dict[str, str]:
    report = {}
    for line in words.strip().split("\n")[1:]:
        for name in ("主诉", "现病史", "辅助检查", "既往史", "诊断", "建议"):
            if line.startswith(name + "："):
                report[name] = line.strip().rsplit(name + "：", 1)[-1].strip()
    return report


def tree(task: str, words: str, choices: Any) -> list[dict[str, Any]]:
    nodes = []
    for line in words.split("\n"):
        if line == "" or line.find("根据给定的指南文本抽取的诊疗决策树") >= 0:
            continue
        role = second(line, "：role=").partition("；logical_rel=")[0]
        pieces = line.split("；logical_rel=")
        relation = pieces[1].partition("；triples=")[0] if len(pieces) > 1 else "null"
        kept: list[tuple[str, ...]] = []
        pieces = line.split("；triples=")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                listed = ast.literal_eval(pieces[1])
            rows = listed if isinstance(listed, list) else []
            chosen = [row for row in rows if len(row) == 3]
        except (IndexError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            chosen = []
        for row in chosen:
            if not isinstance(row, str | list | tuple) or not all(
                isinstance(word, str) for word in row
            ):
                raise Refused
            kept.append(tuple(word.lower() for word in row))
        nodes.append({"role": role, "relation": relation, "triples": set(kept)})
    return nodes if nodes else [{"role": "D", "relation": "null", "triples": set()}]


# scoring


def facts(task: str, gold: list[Any], said: list[Any]) -> float:
    tp = fp = fn = 0
    for one, other in zip(gold, said, strict=True):
        wanted = {json.dumps(row, sort_keys=True) for row in one}
        given = {json.dumps(row, sort_keys=True) for row in other}
        tp += len(wanted & given)
        fp += len(given - wanted)
        fn += len(wanted - given)
    if tp == 0:
        return 0.0
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return 2 * precision * recall / (precision + recall)


def classes(task: str, gold: list[Any], said: list[Any]) -> float:
    from sklearn.metrics import classification_report

    if "" in gold:
        raise Refused
    filled = [one if one != "" else FIRST_LABELS[task] for one in said]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = classification_report(gold, filled, output_dict=True, zero_division=0)
    return float(report["macro avg" if task in MACRO else "weighted avg"]["f1-score"])


def tokens(text: str) -> list[str]:
    """BERT's basic tokeniser."""
    spaced = ""
    for sign in text:
        category, code = unicodedata.category(sign), ord(sign)
        if sign in "\t\n\r" or category == "Zs":
            spaced += " "
        elif code in (0, 0xFFFD) or category.startswith("C"):
            continue
        elif (
            0x4E00 <= code <= 0x9FFF
            or 0x3400 <= code <= 0x4DBF
            or 0xF900 <= code <= 0xFAFF
            or 0x20000 <= code <= 0x2CEAF
        ):
            spaced += f" {sign} "
        else:
            spaced += sign
    found = []
    for word in spaced.split():
        plain = "".join(
            s for s in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(s) != "Mn"
        )
        current = ""
        for sign in plain:
            code = ord(sign)
            ascii_sign = (
                33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
            )
            if ascii_sign or unicodedata.category(sign).startswith("P"):
                found += [current, sign]
                current = ""
            else:
                current += sign
        found.append(current)
    return [word for word in found if word]


def rouge_l(gold: str, said: str) -> float:
    one = tokens(gold) or ["无", "。"]
    other = tokens(said) or ["无", "。"]
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i in range(len(one)):
        for j in range(len(other)):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if one[i] == other[j] else max(table[i][j + 1], table[i + 1][j])
            )
    length = table[-1][-1]
    recall, precision = length / len(one), length / len(other)
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8))


def texts(task: str, gold: list[Any], said: list[Any]) -> float:
    return sum(rouge_l(one, other) for one, other in zip(gold, said, strict=True)) / len(gold)


def reports(task: str, gold: list[Any], said: list[Any]) -> float:
    scores = [
        rouge_l(text, other.get(name, ""))
        for one, other in zip(gold, said, strict=True)
        for name, text in one.items()
    ]
    if not scores:
        raise Refused
    return sum(scores) / len(scores)


class Branch:
    """A node with its children."""

    def __init__(self, node: dict[str, Any]) -> None:
        self.node = node
        self.children: list[Branch] = []
        self.done = node["role"] == "D"


def grown(nodes: list[dict[str, Any]]) -> Branch:
    """The tree of a preorder: a condition before two finished branches takes them, the leftmost
    first, at most 101 times."""
    branches = [Branch(node) for node in nodes]
    row = [branch for branch in branches if branch.node["role"] in "CD" and branch.node["role"]]
    for _ in range(101):
        if branches[0].done:
            break
        for at in range(len(row) - 2):
            top, left, right = row[at], row[at + 1], row[at + 2]
            if not top.done and left.done and right.done:
                top.children, top.done = [left, right], True
                row = row[: at + 1] + row[at + 3 :]
                break
    return branches[0]


def apart(one: dict[str, Any], other: dict[str, Any] | None) -> int:
    if other is None:
        other = {"role": "", "relation": "null", "triples": set()}
    differing = one["triples"].symmetric_difference(other["triples"])
    return (
        int(one["role"] != other["role"])
        + int(one["relation"] != other["relation"])
        + len(differing)
    )


def alone(branch: Branch) -> int:
    return sum(apart(child.node, None) + alone(child) for child in branch.children)


def edits(said: Branch, gold: Branch) -> int:
    here = apart(said.node, gold.node)
    if said.children and gold.children:
        return here + sum(edits(a, b) for a, b in zip(said.children, gold.children, strict=True))
    return here + alone(said) + alone(gold)


def trees(task: str, gold: list[Any], said: list[Any]) -> float:
    distance = most = 0
    for one, other in zip(gold, said, strict=True):
        distance += edits(grown(other), grown(one))
        for nodes in (one, other):
            most += len(set().union(*(node["triples"] for node in nodes)))
            most += 2 * len([node for node in nodes if node["triples"]])
    if most == 0:
        raise Refused
    return 1 - distance / most


READERS = {
    "CMeEE-V2": mentions,
    "IMCS-V2-NER": mentions,
    "CMeIE-V2": triples,
    "CMedCausal": causes,
    "CHIP-CDEE": events,
    "CHIP-CDN": terms,
    "CHIP-MDCFNPC": attributes,
    "IMCS-V2-SR": attributes,
    **dict.fromkeys(FIRST_LABELS, label),
    "MedDG": label,
    "IMCS-V2-MRG": sections,
    "Text2DT": tree,
}
SCORERS = {
    **dict.fromkeys(READERS, facts),
    **dict.fromkeys(FIRST_LABELS, classes),
    "MedDG": texts,
    "IMCS-V2-MRG": reports,
    "Text2DT": trees,
}
