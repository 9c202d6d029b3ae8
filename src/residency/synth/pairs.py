"""From abstracts to questions with answers: what is asked of a generator, what is taken of its
words, and what needs no generator."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from unicodedata import normalize

from residency.core.types import Value
from residency.corpus.abstracts import Abstract
from residency.corpus.near import near_pairs
from residency.synth.polarity import opposite

CONCLUSIONS = ("CONCLUSION", "INTERPRETATION", "结论", "KẾT LUẬN")
ALIKE = 0.8
"""Jaccard similarity of two questions of which one is left out."""
GROUNDED = 0.6
"""Least share of an answer's longer words that its abstract holds."""
DEPENDENT = re.compile(
    r"\b(this|the|our|present|above) "
    r"(study|trial|abstract|paper|article|text|review|report|authors?)\b|\bthe "
    r"authors?\b|本研究|本文|上述文本|nghiên cứu này|bài báo này",
    re.I,
)
"""Words of a question that only who has seen the text understands."""
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
WORD = re.compile(r"[^\W\d_]{4,}|[\u4e00-\u9fff]{2}")


class Pair(Value, frozen=True):
    """A question, its answer, and the abstract that it stands on."""

    question: str
    answer: str
    pmid: str
    lang: str
    origin: str
    """``real``: the authors' own words; ``model:NAME``."""


def own_words(abstract: Abstract) -> Pair | None:
    """The question that a title asks, with the authors' conclusion as its answer; no model is
    needed."""
    conclusion = abstract.section(*CONCLUSIONS)
    if not abstract.title.rstrip().endswith(("?", "？")) or not conclusion:
        return None
    return Pair(abstract.title.strip(), conclusion, abstract.pmid, abstract.lang, "real")


def read_pairs(words: str, abstract: Abstract, model: str) -> list[Pair]:
    """The pairs in what a generator wrote: a JSON list, repaired where that is plain; nothing where
    it is not one."""
    import json_repair

    start, end = words.find("["), words.rfind("]")
    found = json_repair.loads(words[start : end + 1] if 0 <= start < end else words)
    rows = found if isinstance(found, list) else [found]
    said = [(row.get("question"), row.get("answer")) for row in rows if isinstance(row, dict)]
    return [
        Pair(question.strip(), answer.strip(), abstract.pmid, abstract.lang, f"model:{model}")
        for question, answer in said
        if isinstance(question, str) and isinstance(answer, str)
    ]


def fault(pair: Pair, text: str) -> str:
    """Why a pair that a model wrote is not taken; empty where nothing speaks against it."""
    question, answer = pair.question, pair.answer
    if not 8 <= len(question) <= 400 or not question.endswith(("?", "？")):
        return "the question is none, or too short or long"
    if not 10 <= len(answer) <= 2000:
        return "the answer is too short or too long"
    if DEPENDENT.search(question):
        return "the question is not understood without the text"
    plain, said = _plain(text), _plain(answer)
    if set(NUMBER.findall(said)) - set(NUMBER.findall(plain)):
        return "a figure in the answer is not in the abstract"
    words = set(WORD.findall(said))
    if words and sum(word in plain for word in words) / len(words) < GROUNDED:
        return "the answer says what the abstract does not"
    if opposite(answer, text):
        return "the answer may say the opposite of the abstract"
    return ""


def sieve(pairs: Iterable[tuple[Pair, str]]) -> tuple[list[Pair], Counter[str]]:
    """Of (pair, text of its abstract) those that are taken, and how many were left out by which
    reason.

    The authors' own words are only compared with each other; of questions that are nearly the same
    the first is kept.
    """
    kept, left = list[Pair](), Counter[str]()
    for pair, text in pairs:
        if pair.origin != "real" and (why := fault(pair, text)):
            left[why] += 1
        else:
            kept.append(pair)
    again = _again([pair.question for pair in kept])
    if again:
        left["nearly the same question was asked before"] += len(again)
    return [pair for number, pair in enumerate(kept) if number not in again], left


def _again(questions: Sequence[str]) -> set[int]:
    """Positions of questions that nearly repeat an earlier one."""
    plains = list(map(_plain, questions))
    first = {text: number for number, text in reversed(list(enumerate(plains)))}
    repeated = {number for number, text in enumerate(plains) if first[text] != number}
    distinct = sorted(first, key=first.__getitem__)
    near = near_pairs(distinct, ALIKE)
    return repeated | {max(first[distinct[a]], first[distinct[b]]) for a, b in near}


def _plain(text: str) -> str:
    return normalize("NFKC", text).casefold()
