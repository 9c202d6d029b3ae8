"""The official scores of PromptCBLUE, written from a table of facts alone.

Its author had the table of answer forms and metrics, the faults known of the official scorer and
the labels of the task cards, and saw neither a published scorer nor another implementation. `None`
stands for a submission that the official scorer refuses: one with a malformed line, or an empty
hypothesis where ROUGE is computed.

Where the facts are silent, these are the readings chosen:

1.  An answer is stripped of white space at both ends, then cut at each line feed; a value is compared as it stands.
2.  Where the facts do not say that the first line is skipped, a first line without the mark of the form ("实体：",
    "头实体：", "：role=", "关系的头尾实体对如下：") is an introduction and says nothing. Every later line must have the form.
3.  Where the first line is skipped, every later line must have the form as well. A blank line has not.
4.  Empty items between "，" are dropped. A type, a relation, an attribute or a term of a fact may be any text.
5.  The descriptions of an event are a set: their order says nothing.
6.  A condition is one triple, whose tail is a whole triple. A pair below no header is malformed.
7.  F1 over no fact at all is 0. Facts said twice count once.
8.  A label is the whole stripped answer. "The first label" is the first of the task's card. Only CHIP-STS has other
    names for its labels.
9.  A weighted or macro average is over the labels seen in the gold answers or in the submission.
10. ROUGE-L is the harmonic mean of precision and recall (beta 1), averaged over rows. Tokens are
    lower-cased and lose their accents, as BERT's basic tokens do by default. An empty reference
    scores 0.
11. Pooled over sections: every section of every row counts as one text. Of a section written twice
    the last stands; a section that is absent is an empty hypothesis; a line with another name is
    malformed.
12. Of a tree's nodes C has the next two trees as its children and D has none; children that are
    absent are left out, nodes that remain after the root is complete are not part of the tree. The
    distance is that of ordered trees (Zhang and Shasha, 1989) at unit costs, where nodes are equal
    when role, relation and the set of triples are. The largest distance takes every node away and
    inserts every other. The score is the mean over rows.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cache
from statistics import fmean

from sklearn.metrics import f1_score
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from residency.corpus.promptcblue_rows import cards

Choices = Sequence[str] | None
CARDS = cards()


class Refused(Exception):
    """The official scorer fails on this submission."""


def score(task: str, gold: list[str], said: list[str], choices: Sequence[Choices]) -> float | None:
    """The official score of a submission to a task between 0 and 1, or None where the scorer fails."""
    try:
        if task in PARSERS:
            read = PARSERS[task]
            return micro_f1(
                [(read(g, c), read(s, c)) for g, s, c in zip(gold, said, choices, strict=True)]
            )
        if task in AVERAGES:
            return class_f1(task, gold, said)
        if task == "MedDG":
            return fmean(rouge_l(g, s) for g, s in zip(gold, said, strict=True))
        if task == "IMCS-V2-MRG":
            return fmean(r for g, s in zip(gold, said, strict=True) for r in report_scores(g, s))
        assert task == "Text2DT", task
        return fmean(tree_score(g, s) for g, s in zip(gold, said, strict=True))
    except Refused:
        return None


# ---- Facts in lines


def lines_of(answer: str) -> list[str]:
    stripped = answer.strip()
    return stripped.split("\n") if stripped else []


def lines_of_the_form(answer: str, mark: str) -> list[str]:
    """The lines of an answer; a first line without the mark introduces them, a later one is
    malformed."""
    lines = lines_of(answer)
    if lines and mark not in lines[0]:
        lines = lines[1:]
    if any(mark not in line for line in lines):
        raise Refused
    return lines


def fields(pattern: str, line: str) -> tuple[str, ...]:
    """The groups of a line that has the form; no group may hold the form's own marks."""
    found = re.fullmatch(pattern, line, re.DOTALL)
    if not found:
        raise Refused
    return found.groups()


def listed(words: str) -> list[str]:
    return [one for one in words.split("，") if one]


def mentions(answer: str, choices: Choices) -> Iterator[Hashable]:
    for line in lines_of_the_form(answer, "实体："):
        if line.count("实体：") > 1:
            raise Refused
        kind, names = line.split("实体：")
        yield from ((name, kind) for name in listed(names))


def triples(answer: str, choices: Choices) -> Iterator[Hashable]:
    for line in lines_of_the_form(answer, "关系的头尾实体对如下："):
        relation, pairs = fields(r"具有(.*?)关系的头尾实体对如下：(.*)", line)
        for pair in filter(None, pairs.split("。")):
            head, tail = fields(
                r"头实体为((?:(?!，尾实体为).)*)，尾实体为((?:(?!，尾实体为).)*)", pair
            )
            yield head, relation, tail


def causes(answer: str, choices: Choices) -> Iterator[Hashable]:
    relation = None
    for at, line in enumerate(lines_of(answer)):
        if line.endswith("三元组如下："):
            relation = line.removesuffix("三元组如下：")
        elif at == 0 and "头实体：" not in line:
            continue
        elif relation is None:
            raise Refused
        elif relation == "条件关系":
            head, first, last, inner = fields(
                r"头实体：([^；]*)；尾三元组：头实体：([^；]*)；尾实体：([^；]*)；关系：([^；]*)",
                line,
            )
            yield head, relation, (first, inner, last)
        else:
            head, tail = fields(r"头实体：([^；]*)；尾实体：([^；]*)", line)
            yield head, relation, tail


def events(answer: str, choices: Choices) -> Iterator[Hashable]:
    for line in lines_of(answer)[1:]:
        subject, state, words, place = fields(
            r"主体词：([^；]*)；发生状态：([^；]*)；描述词：([^；]*)；解剖部位：([^；]*)", line
        )
        yield subject, state, frozenset(listed(words)), place


def attributes(answer: str, choices: Choices) -> Iterator[Hashable]:
    return (fields(r"([^：]*)：([^：]*)", line) for line in lines_of(answer)[1:])


def terms(answer: str, choices: Choices) -> Iterator[Hashable]:
    return (term for term in listed((lines_of(answer) or [""])[-1]) if term in (choices or ()))


PARSERS: dict[str, Callable[[str, Choices], Iterable[Hashable]]] = {
    "CMeEE-V2": mentions,
    "IMCS-V2-NER": mentions,
    "CMeIE-V2": triples,
    "CMedCausal": causes,
    "CHIP-CDEE": events,
    "CHIP-CDN": terms,
    "CHIP-MDCFNPC": attributes,
    "IMCS-V2-SR": attributes,
}


def micro_f1(rows: Iterable[tuple[Iterable[Hashable], Iterable[Hashable]]]) -> float:
    both = expected = found = 0
    for gold, said in rows:
        right, written = set(gold), set(said)
        both, expected, found = (
            both + len(right & written),
            expected + len(right),
            found + len(written),
        )
    return 2 * both / (expected + found) if expected + found else 0.0


# ---- Classes

AVERAGES = {
    "CHIP-STS": "weighted",
    "KUAKE-IR": "weighted",
    "KUAKE-QQR": "weighted",
    "KUAKE-QTR": "weighted",
    "CHIP-CTC": "macro",
    "KUAKE-QIC": "macro",
    "IMCS-V2-DAC": "macro",
}
OTHER_NAMES = {"CHIP-STS": {"相同": "是的", "不同": "不是"}}


def class_f1(task: str, gold: list[str], said: list[str]) -> float:
    """The average F1 over classes; a class that the model invents counts as one."""

    def label(answer: str) -> str:
        name = answer.strip() or CARDS[task].names[0]
        return OTHER_NAMES.get(task, {}).get(name, name)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(
            f1_score(
                [label(one) for one in gold],
                [label(one) for one in said],
                average=AVERAGES[task],
                zero_division=0,
            )
        )


# ---- ROUGE-L


def tokens(text: str) -> list[str]:
    return [
        token
        for token, _ in BertPreTokenizer().pre_tokenize_str(BertNormalizer().normalize_str(text))
    ]


def longest_common(left: list[str], right: list[str]) -> int:
    """The length of the longest common subsequence."""
    above = [0] * (len(right) + 1)
    for one in left:
        row = [0]
        for at, other in enumerate(right):
            row.append(above[at] + 1 if one == other else max(above[at + 1], row[at]))
        above = row
    return above[-1]


@cache
def rouge_l(reference: str, hypothesis: str) -> float:
    right, written = tokens(reference), tokens(hypothesis)
    if not written:
        raise Refused
    return 2 * longest_common(right, written) / (len(right) + len(written)) if right else 0.0


def report_scores(gold: str, said: str) -> list[float]:
    expected, found = sections(gold), sections(said)
    return [
        rouge_l(expected.get(name, ""), found.get(name, "")) for name in CARDS["IMCS-V2-MRG"].names
    ]


def sections(answer: str) -> dict[str, str]:
    named = {}
    for line in lines_of(answer)[1:]:
        name, mark, text = line.partition("：")
        if not mark or name not in CARDS["IMCS-V2-MRG"].names:
            raise Refused
        named[name] = text
    return named


# ---- Trees

Tree = tuple[Hashable, tuple["Tree", ...]]
Forest = tuple[Tree, ...]


@cache
def tree_score(gold: str, said: str) -> float:
    right, written = tree(nodes(gold)), tree(nodes(said))
    largest = size(right) + size(written)
    return 1 - distance(right, written) / largest if largest else 0.0


def nodes(answer: str) -> list[tuple[str, str, Hashable]]:
    found = []
    for line in lines_of_the_form(answer, "：role="):
        role, relation, rows = fields(
            r".*?：role=([CD])；logical_rel=(and|or|null)；triples=(.*)", line
        )
        found.append((role, relation, frozenset(literal_triples(rows))))
    return found


def literal_triples(written: str) -> list[tuple[str, ...]]:
    """Triples of Python's notation, read and never run."""
    try:
        rows = ast.literal_eval(written)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise Refused from None
    if not isinstance(rows, list) or not all(
        isinstance(row, list | tuple) and len(row) == 3 for row in rows
    ):
        raise Refused
    return [tuple(map(str, row)) for row in rows]


def tree(preorder: list[tuple[str, str, Hashable]]) -> Forest:
    """The tree as a forest of one; no tree of no node."""
    rest = iter(preorder)

    def grown() -> Forest:
        node = next(rest, None)
        if node is None:
            return ()
        return ((node, grown() + grown() if node[0] == "C" else ()),)

    return grown()


def size(forest: Forest) -> int:
    return sum(1 + size(children) for _, children in forest)


@cache
def distance(left: Forest, right: Forest) -> int:
    """The least number of nodes to take away, insert or change between ordered forests."""
    if not left or not right:
        return size(left) + size(right)
    (one, below), (other, beneath) = left[-1], right[-1]
    return min(
        distance(left[:-1] + below, right) + 1,
        distance(left, right[:-1] + beneath) + 1,
        distance(left[:-1], right[:-1]) + distance(below, beneath) + (one != other),
    )
