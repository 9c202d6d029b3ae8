"""Whether an answer stands on what it cites: every name, number, unit, direction and negation is
looked for in the cited text.

Each sentence of the answer is set beside the few sentences of the text that cover its words; it has
to say what they say. That is strict: a word of content that the text does not hold counts as a name
that was made up, so free rewording is left out too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from unicodedata import normalize

from residency.core.types import Value
from residency.corpus.near import near_pairs

ALIKE = 0.8
"""Jaccard similarity from which on two questions count as one."""
LEAST_GAIN = 0.3
"""Share of an answer's words that a further sentence of the text must cover."""
COVERED = 0.5
"""Share of a sentence's words below which it stands on nothing."""
REACH = 4
"""Words (characters of Chinese) after a negation that it is taken to deny."""
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-ZÀ-ỸĐ])|(?<=[。！？；])|\n+")
TOKEN = re.compile(r"\d+(?:\.\d+)?|[\u4e00-\u9fff]|[^\W\d_\u4e00-\u9fff]+|[,，、:：()（）]")
NOT = re.compile(
    r"no|not|nor|neither|never|none|without|cannot|lack|lacks|lacked|absent|n't|"
    r"không|chưa|chẳng|[不无未没非]"
)
UP = re.compile(
    r"\b(?:rais\w+|rose|rises?|rising|increas\w+|higher|highest|great(?:er|est)|elevat\w+|"
    r"improv\w+|gain\w*|more|longer|above|over|better|faster|larger|positive(?:ly)?)\b|"
    r"\b(?:tăng|cao hơn|nhiều hơn|trên)\b|升高|上升|增加|增高|提高|高于|增多|增强|促进|"
    r"上调|加重|延长|扩张|大于|超过|阳性",
    re.I,
)
DOWN = re.compile(
    r"\b(?:lower\w*|lowest|fell|falls?|decreas\w+|reduc\w+|declin\w+|drop\w*|diminish\w+|"
    r"wors\w+|fewer|less|shorter|below|under|slower|smaller|negative(?:ly)?)\b|"
    r"\b(?:giảm|thấp hơn|ít hơn|dưới)\b|降低|下降|减少|减低|低于|减弱|抑制|下调|"
    r"减轻|缩短|收缩|小于|不足|阴性",
    re.I,
)
_UNITS = """
mg: 毫克
g: 克
µg: 微克 mcg
ml: 毫升
l: 升
h: 小时 hours hour giờ
min: 分钟 minutes minute phút
d: 天 日 days day ngày
wk: 周 weeks week tuần
mo: 个月 月 months month tháng
y: 年 岁 years year năm tuổi
x: 次 times lần
cm: 厘米
mm: 毫米
%: percent
"""
UNITS = {
    word: one
    for one, _, words in (line.partition(": ") for line in _UNITS.split("\n"))
    for word in words.split()
}
"""What units are called in words -> one name for each."""
UNIT = re.compile(
    r"\s*-?\s*(%|°c|mmhg|mmol/l|µmol/l|mg/dl|mg/kg|mg/l|g/dl|g/l|ng/ml|iu/l|u/l|iu|mg|µg|kg|ml|"
    r"cm|mm|mcg|mo|min|g/d|g|l|" + "|".join(sorted(UNITS, key=len, reverse=True)) + r")(?![a-z])"
)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
COMMON = re.compile(
    r"\b(?:the|this|that|these|those|there|their|they|with|within|from|have|been|were|which|when|"
    r"than|then|also|into|such|some|between|among|however|therefore|thus|moreover|further|both|"
    r"although|because|while|whereas|results?|stud(?:y|ies)|patients?|suggest\w*|show\w*|found|"
    r"findings?|conclu\w+|appear\w*|significant\w*|markedly|respectively|about|after|before|"
    r"during|used?|using|does|did|should|could|would|might|must|will|being|other|each|only)\b|"
    r"此外|因此|所以|但是|然而|同时|以及|或者|并且|可以|可能|应该|需要|进行|患者|病人|一般|通常|例如|如果|由于|根据|包括|"
    r"\b(?:các|những|của|và|là|có|được|trong|cho|khi|với|này|đó|thì|một|cũng|như)\b",
    re.I,
)
"""Words that say nothing by themselves."""


class Ungrounded(Value, frozen=True):
    """What an answer says and its text does not."""

    kind: str
    """``entity``, ``number``, ``unit``, ``direction``, ``negation``, ``unsupported``, and where a
    graph is asked ``contradiction``."""
    quote: str


class Sentence(Value, frozen=True):
    """What a sentence says, for comparison."""

    text: str
    words: frozenset[str]
    """Beginnings of longer words, pairs of Chinese characters."""
    denied: frozenset[str]
    """Of these, those that a negation reaches."""
    stated: frozenset[str]
    """Of these, those that stand somewhere where none does."""
    numbers: tuple[tuple[str, str], ...]
    """(number, unit)"""
    up: int
    down: int


def plain(text: str) -> str:
    """Small letters, half width, numbers in one form, whole words for contractions."""
    text = normalize("NFKC", text).casefold().replace("μ", "µ").replace("n't", " not")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return re.sub(r"(?<=\d),(?=\d)", ".", text)


@lru_cache(4096)
def sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of a text."""
    return tuple(_sentence(plain(one)) for one in map(str.strip, SENTENCE.split(text)) if one)


def _sentence(text: str) -> Sentence:
    denied, stated, reach, last = set[str](), set[str](), 0, ""
    for token in TOKEN.findall(text):
        if NOT.fullmatch(token):
            reach, last = REACH, ""
            continue
        if token in ",，、:：()（）":
            reach, last = (0 if token not in "、" else reach), ""
            continue
        chinese = "\u4e00" <= token <= "\u9fff"
        word = (last + token if last else "") if chinese else token[:6] if len(token) > 3 else ""
        if word and not word[0].isdigit() and not COMMON.fullmatch(token):
            (denied if reach else stated).add(word)
        last = token if chinese else ""
        reach -= reach > 0 and (chinese or bool(word))
    numbers = tuple((one[0], _unit(text, one.end())) for one in NUMBER.finditer(text))
    up, down = len(UP.findall(text)), len(DOWN.findall(text))
    words = frozenset(denied | stated)
    return Sentence(text, words, frozenset(denied), frozenset(stated), numbers, up, down)


def _unit(text: str, place: int) -> str:
    found = UNIT.match(text, place)
    return UNITS.get(found[1], found[1]) if found else ""


def text_faults(answer: str, source: str, question: str = "") -> tuple[Ungrounded, ...]:
    """What an answer says that its text does not; ``question``: whose words may be repeated."""
    known = sentences(source)
    asked = sentences(question)
    found = dict.fromkeys(
        fault for sentence in sentences(answer) for fault in _faults(sentence, known, asked)
    )
    return tuple(found)


def _faults(
    sentence: Sentence, known: Sequence[Sentence], asked: Sequence[Sentence]
) -> Iterable[Ungrounded]:
    beside = _beside(sentence, known)
    words = frozenset[str]().union(*(one.words for one in (*beside, *asked)))
    if sentence.words and len(sentence.words & words) < COVERED * len(sentence.words):
        yield Ungrounded("unsupported", sentence.text)
        return
    yield from _numbers(sentence, (*beside, *asked))
    for name in new_names(sentence.text, "\n".join(one.text for one in (*beside, *asked))):
        yield Ungrounded("entity", name)
    denied = frozenset[str]().union(*(one.denied for one in beside))
    stated = frozenset[str]().union(*(one.stated for one in beside))
    turned = {
        word
        for word in sentence.words & (denied | stated)
        if (word not in sentence.denied and word not in stated)
        or (word not in sentence.stated and word not in denied)
    }
    if turned:
        yield Ungrounded("negation", " ".join(sorted(turned)))
    up, down = sum(one.up for one in beside), sum(one.down for one in beside)
    if up + down and (sentence.up > up or sentence.down > down):
        yield Ungrounded("direction", sentence.text)


def _beside(sentence: Sentence, known: Sequence[Sentence]) -> list[Sentence]:
    """The sentences of the text that cover a sentence of the answer, the best first."""
    left, found = set(sentence.words), list[Sentence]()
    figures = {number for number, _ in sentence.numbers}
    while left and len(found) < 3:
        best = max(
            known,
            key=lambda one: (
                len(left & one.words),
                len(figures & {number for number, _ in one.numbers}),
                -abs(len(one.words) - len(sentence.words)),
            ),
            default=None,
        )
        if best is None or best in found:
            break
        gain = len(left & best.words)
        if found and gain < max(3, LEAST_GAIN * len(sentence.words)):
            break
        found.append(best)
        left -= best.words
    return found


def _numbers(sentence: Sentence, beside: Sequence[Sentence]) -> Iterable[Ungrounded]:
    units: dict[str, set[str]] = {}
    for one in beside:
        for number, unit in one.numbers:
            units.setdefault(number, set()).add(unit)
    for number, unit in sentence.numbers:
        if number not in units:
            yield Ungrounded("number", number)
        elif unit and unit not in units[number] and units[number] != {""}:
            yield Ungrounded("unit", f"{number} {unit}")


def new_names(text: str, known: str) -> Iterable[str]:
    """Words of content in a text (as ``plain`` gives it) that stand nowhere in another."""
    held = {word[:5] for word in re.findall(r"[^\W\d_\u4e00-\u9fff]+", known)}
    for word in re.findall(r"[^\W\d_\u4e00-\u9fff]{4,}", text):
        if word[:5] not in held and not COMMON.fullmatch(word) and not _direction(word):
            yield word
    chinese = COMMON.sub(" ", text)
    new = {
        number
        for number in range(len(chinese) - 1)
        if re.fullmatch(r"[\u4e00-\u9fff]{2}", chinese[number : number + 2])
        and chinese[number : number + 2] not in known
        and not _direction(chinese[number : number + 2])
    }
    for number in sorted(new):
        if number + 1 in new and not NOT.search(chinese[number : number + 3]):
            yield chinese[number : number + 3]


def _direction(word: str) -> bool:
    return bool(UP.search(word) or DOWN.search(word))


def doubles(questions: Sequence[str]) -> set[int]:
    """Positions of questions that nearly repeat an earlier one."""
    plains = list(map(plain, questions))
    first: dict[str, int] = {}
    for number, text in enumerate(plains):
        first.setdefault(text, number)
    again = {number for number, text in enumerate(plains) if first[text] != number}
    distinct = list(first)
    near = near_pairs(distinct, ALIKE)
    return again | {max(first[distinct[a]], first[distinct[b]]) for a, b in near}


def leaked(questions: Sequence[str], held_out: Sequence[str]) -> set[int]:
    """Positions of questions that repeat, or nearly, one that a model is measured by."""
    kept = {plain(text) for text in held_out}
    own = list(map(plain, questions))
    distinct = list(dict.fromkeys([*kept, *own]))
    near = {
        distinct[other]
        for a, b in near_pairs(distinct, ALIKE)
        for one, other in ((a, b), (b, a))
        if distinct[one] in kept
    }
    return {number for number, text in enumerate(own) if text in kept or text in near}
