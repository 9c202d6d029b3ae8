"""Answers as lines of Chinese text, in the layout of PromptCBLUE (Zhu et al. 2023): mentions,
triples, causes, events, attributes, terms, sections and decision trees; and answers with the FHIR
resources that they rest on.

``parse`` is the inverse of ``render`` for every answer whose words hold none of the signs that part
them (``，；：。`` and the line break). A line that cannot be read costs that line only and is named
among the repairs. Nothing is run.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING
from unicodedata import normalize

from residency.core.types import Answer, Example, Facts, Node, Tree
from residency.tasks import answer_repair
from residency.tasks.card import Card

if TYPE_CHECKING:
    from residency.tasks.codec import Parsed

Fact = tuple[str, ...]
Found = tuple[list[Fact], list[str]]
"""Facts of a line, and what was left out of it."""

CAUSE, CONDITION, KIND = "因果关系", "条件关系", "上下位关系"
EVENT_FIELDS = ("主体词", "发生状态", "描述词", "解剖部位")
LISTS = (2, 3)
"""Fields of an event that may hold several words."""
SECTIONS = ("主诉", "现病史", "辅助检查", "既往史", "诊断", "建议")
ROLES, RELATIONS = ("C", "D"), ("and", "or", "null")
ANSWER, REFERENCE = "answer", "reference"
RESOURCE = re.compile(r"\b[A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64}\b")
"""A reference to a FHIR resource."""
MOST_LINES = 2000
NODE = re.compile(
    r"：role=(?P<role>[^；]*)；logical_rel=(?P<relation>[^；]*)；triples=(?P<triples>.*)$"
)


class LineForm:
    """What the forms share: a first line that leads in, words for nothing, and lines of facts."""

    lead = ""
    nothing = ""
    """What is written where there is no fact."""
    silence: tuple[str, ...] = ()
    """Other words for it."""

    def prompt(self, example: Example, card: Card) -> str:
        from residency.tasks.codec import asked

        return asked("facts", example, card)

    def render(self, answer: Answer, text: str) -> str:
        if not isinstance(answer, Facts):
            raise TypeError("a form of facts renders facts")
        lines = list(self.lines(answer.facts))
        return (
            "\n".join([self.lead, *lines] if self.lead and lines else lines)
            if lines
            else self.nothing
        )

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        from residency.tasks.codec import Parsed

        facts: dict[Fact, None] = {}
        faults: list[str] = []
        read = self.reader(card)
        lines = [line.strip() for line in words[: answer_repair.LONGEST].split("\n")][:MOST_LINES]
        understood = False
        for number, line in enumerate(lines):
            if not line:
                continue
            if any(said in line for said in (self.nothing, *self.silence) if said):
                understood = True
                continue
            found = read(line)
            if found is None:
                opens = number == 0 and line[-1] in "：:"
                understood |= opens
                faults += (
                    [] if opens or (number == 0 and len(lines) > 1) else [answer_repair.UNREADABLE]
                )
                continue
            understood = True
            faults += found[1]
            for fact in found[0]:
                faults += [answer_repair.TWICE] if fact in facts else []
                facts[fact] = None
        if not facts and not understood:
            return Parsed()
        return Parsed(answer=Facts(facts=tuple(facts)), repairs=answer_repair.unique(faults))

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        """The facts, in words."""
        raise NotImplementedError

    def reader(self, card: Card) -> Callable[[str], Found | None]:
        """What a line says; ``None`` where it cannot be read. Called with the lines of one answer,
        from the first on."""
        raise NotImplementedError


def known(name: str, card: Card) -> bool:
    """Whether a card knows a label; one without labels takes all."""
    return not card.labels or name in card.names


def parts(text: str, sign: str = "，") -> list[str]:
    """The words between signs, without blanks around them."""
    return [word for piece in text.split(sign) if (word := piece.strip())]


class Mentions(LineForm):
    """A line for each type: ``疾病实体：肺炎，哮喘``. A fact is (type, mention)."""

    lead, nothing = "上述句子中的实体包含：", "上述句子没有指定类型实体"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for kind in dict.fromkeys(kind for kind, _ in facts):
            yield f"{kind}实体：" + "，".join(word for one, word in facts if one == kind)

    def reader(self, card: Card) -> Callable[[str], Found | None]:
        def read(line: str) -> Found | None:
            found = re.match(r"(.{1,40}?)实体[：:](.*)$", line)
            if found is None or found[0] == self.lead:
                return None
            if not known(found[1], card):
                return [], [answer_repair.UNKNOWN]
            return [(found[1], word) for word in parts(found[2])], []

        return read


class Triples(LineForm):
    """A line for each relation: ``具有药物治疗关系的头尾实体对如下：头实体为肺炎，尾实体为青霉素。`` A fact is (relation, head,
    tail)."""

    nothing = "上述句子中没有指定关系的头尾实体对"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for relation in dict.fromkeys(relation for relation, _, _ in facts):
            pairs = (
                f"头实体为{head}，尾实体为{tail}。" for one, head, tail in facts if one == relation
            )
            yield f"具有{relation}关系的头尾实体对如下：" + "".join(pairs)

    def reader(self, card: Card) -> Callable[[str], Found | None]:
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


class Causes(LineForm):
    """A header for each relation, then a line a triple; the tail of a condition is a cause itself.
    A fact is (relation, head, tail), or (条件关系, head, 因果关系, head of the cause, tail of the
    cause)."""

    nothing = "给定的文本没有指定关系的三元组"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for relation in (CAUSE, CONDITION, KIND):
            own = [fact for fact in facts if fact[0] == relation]
            if own:
                yield f"{relation}三元组如下："
            for fact in own:
                if relation == CONDITION:
                    _, head, inner, first, last = fact
                    yield f"头实体：{head}；尾三元组：头实体：{first}；尾实体：{last}；关系：{inner}"
                else:
                    yield f"头实体：{fact[1]}；尾实体：{fact[2]}"

    def reader(self, card: Card) -> Callable[[str], Found | None]:
        relation = ""

        def read(line: str) -> Found | None:
            nonlocal relation
            header = next(
                (one for one in (CAUSE, CONDITION, KIND) if line.startswith(f"{one}三元组如下")),
                None,
            )
            if header:
                relation = header
                return [], []
            if relation == CONDITION:
                found = re.fullmatch(
                    r"头实体：(.+?)；尾三元组：头实体：(.+?)；尾实体：(.+?)；关系：因果关系", line
                )
                return (
                    None
                    if found is None
                    else ([(CONDITION, found[1], CAUSE, found[2], found[3])], [])
                )
            found = re.fullmatch(r"头实体：(.+?)；尾实体：(.+)", line)
            return None if found is None or not relation else ([(relation, found[1], found[2])], [])

        return read


class Events(LineForm):
    """A line for each event: ``主体词：疼痛；发生状态：；描述词：持续性，阵发性；解剖部位：腹``. A fact holds the four fields,
    several words of one joined by ``，``."""

    lead, nothing = "上述句子中的临床发现事件如下：", "上述句子没有临床发现事件"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for fact in facts:
            yield "；".join(
                f"{name}：{value}" for name, value in zip(EVENT_FIELDS, fact, strict=True)
            )

    def reader(self, card: Card) -> Callable[[str], Found | None]:
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


class Attributes(LineForm):
    """A line for each finding: ``咳嗽：患有该症状``. A fact is (finding, attribute)."""

    lead, nothing = "上述对话中的临床发现及其阴阳性如下：", "上述对话中没有临床发现"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for finding, attribute in facts:
            yield f"{finding}：{attribute}"

    def reader(self, card: Card) -> Callable[[str], Found | None]:
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


class Terms(LineForm):
    """Standard terms of a list of candidates, in one line, parted by ``，``. A fact is (term,)."""

    nothing, silence = "没有对应的标准化实体", ("Không có mã phù hợp", "No matching term")

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        words = [term for (term,) in facts]
        yield from ["，".join(words)] if words else []

    def reader(self, card: Card) -> Callable[[str], Found | None]:
        def read(line: str) -> Found | None:
            words = [line] if line in card.names else parts(line)
            right = [word for word in words if known(word, card)]
            if not right:
                return None
            return [(word,) for word in right], [answer_repair.UNKNOWN] * (len(right) < len(words))

        return read


class Sections(LineForm):
    """A report, a line for each section: ``主诉：咳嗽三天。`` A fact is (section, text)."""

    lead, nothing = "上述问诊对话的诊疗报告如下：", "没有诊疗报告"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        for section, text in facts:
            yield f"{section}：{text}"

    def reader(self, card: Card) -> Callable[[str], Found | None]:
        names = card.names or SECTIONS

        def read(line: str) -> Found | None:
            section, sign, text = (piece.strip() for piece in line.partition("："))
            return ([(section, text)], []) if sign and section in names else None

        return read


class Cited(LineForm):
    """An answer and what it rests on: ``answer: 2011-08-09``, then ``references: Condition/3,
    Condition/7``. A fact is (answer, words), in lower case, or (reference, type and id of a
    resource)."""

    nothing = "answer:\nreferences:"

    def lines(self, facts: Sequence[Fact]) -> Iterable[str]:
        yield from (f"{ANSWER}: {words}" for kind, words in facts if kind == ANSWER)
        yield f"{REFERENCE}s: " + ", ".join(words for kind, words in facts if kind == REFERENCE)

    def reader(self, card: Card) -> Callable[[str], Found | None]:
        def read(line: str) -> Found | None:
            found = re.match(r"(answer|references?)\s*[:：]\s*(.*)$", line, re.I)
            if found is None:
                return None
            if found[1].lower() == ANSWER:
                words = normalize("NFC", found[2]).strip().rstrip(".。").strip().lower()
                return ([(ANSWER, words)], []) if words else ([], [])
            return [(REFERENCE, one) for one in dict.fromkeys(RESOURCE.findall(found[2]))], []

        return read


class TreeForm:
    """A decision tree in preorder, a line for each node:
    ``节点1：role=C；logical_rel=null；triples=[["病人", "年龄", "大于60"]]``."""

    lead = "根据给定的指南文本抽取的诊疗决策树如下："

    def prompt(self, example: Example, card: Card) -> str:
        from residency.tasks.codec import asked

        return asked("facts", example, card)

    def render(self, answer: Answer, text: str) -> str:
        if not isinstance(answer, Tree):
            raise TypeError("a tree form renders trees")
        lines = (
            f"节点{number}：role={node.role}；logical_rel={node.relation}；"
            f"triples={json.dumps(node.triples, ensure_ascii=False)}"
            for number, node in enumerate(answer.nodes, start=1)
        )
        return "\n".join([self.lead, *lines])

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        from residency.tasks.codec import Parsed

        nodes: list[Node] = []
        faults: list[str] = []
        lines = words[: answer_repair.LONGEST].split("\n")[:MOST_LINES]
        for line in filter(str.strip, lines):
            if self.lead.rstrip("：") in line or "诊疗决策树如下" in line:
                continue
            found = NODE.search(line.strip())
            if found is None or found["role"] not in ROLES or found["relation"] not in RELATIONS:
                faults.append(answer_repair.UNREADABLE)
                continue
            listed = literal(found["triples"])
            rows = listed if isinstance(listed, list) else []
            kept = tuple((row[0], row[1], row[2]) for row in rows if is_triple(row))
            if not isinstance(listed, list) or len(kept) < len(rows):
                faults.append(answer_repair.UNREAD)
            nodes.append(Node(role=found["role"], relation=found["relation"], triples=kept))
        if not nodes:
            return Parsed()
        return Parsed(answer=Tree(nodes=tuple(nodes)), repairs=answer_repair.unique(faults))


def literal(words: str) -> object:
    """What a Python or JSON literal says; ``None`` for anything else. It is read, never run."""
    if len(words) > answer_repair.LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash that escapes nothing
            return ast.literal_eval(words.lstrip(" \t"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def is_triple(row: object) -> bool:
    """Whether something is three texts."""
    return (
        isinstance(row, list | tuple)
        and len(row) == 3
        and all(isinstance(word, str) for word in row)
    )


FORMS: dict[str, LineForm | TreeForm] = {
    "mentions": Mentions(),
    "triples": Triples(),
    "causes": Causes(),
    "events": Events(),
    "attributes": Attributes(),
    "terms": Terms(),
    "sections": Sections(),
    "cited": Cited(),
    "tree": TreeForm(),
}
"""Family -> form."""
