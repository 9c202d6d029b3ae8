"""What an answer in words states: which labels hold, which letters are right, which mark is given.

One reader for evaluation, serving and remote models. It drops what a model thinks before it
answers, takes the answer that it commits to, and knows negation and its scope in English,
Vietnamese and Chinese (``statements.yaml`` holds the words; rules after NegEx, Chapman et al. 2001,
doi:10.1006/jbin.2001.1029). An answer of which it is not sure cannot be read: it never guesses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from unicodedata import normalize

from residency.tasks import answer_repair, letters, negation, together
from residency.tasks.answer_repair import Names, fold

LONGEST = 6_000
"""Characters of an answer that are looked at: its last ones, where it commits itself."""

THOUGHT = re.compile(
    r"<(think|thinking|thought|reasoning|analysis|scratchpad)\b[^>]*>.*?(?:</\1\s*>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
THOUGHT_BEFORE = re.compile(
    r"\A.*</(?:think|thinking|thought|reasoning|analysis|scratchpad)\s*>",
    re.DOTALL | re.IGNORECASE,
)


class Reading(NamedTuple):
    """What an answer states."""

    labels: tuple[str, ...] | None
    """The labels that it says hold, in the order of the list; none of them: (); ``None`` where it
    cannot be read."""
    repairs: tuple[str, ...] = ()
    """In what its form differs from the one that was asked for (``tasks/answer_repair.py``)."""


def read_labels(
    answer: str,
    labels: Sequence[str],
    *,
    multiple: bool = False,
    language: str = "",
    titles: Sequence[str] = (),
) -> Reading:
    """The labels of ``labels`` that a written answer states: exactly one, or with ``multiple`` any
    number; ``titles`` are other words for them, in the same order.

    ``language`` (``vi``, ``zh``, ``en``) keeps to the words of that language and English; without
    it those of all three are known. What is hedged, contradicts itself, denies the only label that
    it names, or only mentions a letter cannot be read.
    """
    bare = answer.strip()
    if bare in labels:
        return Reading((bare,))
    words = without_thought(answer)
    names = Names(labels, titles)
    states, repairs = _stated(words, names, multiple, language)
    if states is None:
        return Reading(None)
    held = tuple(name for name, holds in states.items() if holds)
    if not multiple and len(held) != 1:
        return Reading(None)
    return Reading(held, answer_repair.unique(repairs))


def without_thought(answer: str) -> str:
    """An answer without what stands in ``<think>``, closed or not."""
    return THOUGHT_BEFORE.sub("", THOUGHT.sub("", answer)).strip()[-LONGEST:]


States = Mapping[str, bool]


def _stated(
    words: str, names: Names, multiple: bool, language: str
) -> tuple[States | None, list[str]]:
    """Whether each label that is named holds; ``None`` where the words cannot be read."""
    if words in names.names:
        return {words: True}, []
    found = _json(words, names, multiple, language)
    if found is not None:
        return found
    if (one := names.of(words)) is not None:
        return {one: True}, [answer_repair.LABEL]
    if all(name.isdecimal() for name in names.names) and names.names:
        value = read_mark(words, max(map(int, names.names)))
        if value is None and (level := LEVEL.search(normalize("NFKC", words))):
            value = float(level[1] or level[2])
        said = names.of(str(int(value))) if value is not None and value == int(value) else None
        return ({said: True} if said else None), [answer_repair.AROUND]
    languages = negation.chosen(language)
    if (sheet := together.sheet(words, names)) is not None:
        return sheet, [answer_repair.LINES]
    if multiple and (every := together.whole(words, names, languages)) is not None:
        return every, [answer_repair.AROUND]
    if letters.short(names.names):
        spoken = letters.spoken(names)
        told = negation.states(words, spoken, multiple, language) if spoken.names else None
        if told and (multiple or any(told.values())):
            return told, [answer_repair.AROUND]
        picked = letters.picked(words, names.names, multiple, language)
        return (None if picked is None else dict.fromkeys(picked, True)), [answer_repair.AROUND]
    if multiple and (listed := _pieces(words, names)):
        return listed
    words, rest = together.without_rest(words, languages)
    states = negation.states(words, names, multiple, language)
    if states == {} and multiple:
        return states, [answer_repair.NONE]
    if states and rest:
        states = {name: states.get(name, True) for name in names.names}
    ordered = states and {name: states[name] for name in names.names if name in states}
    return ordered, [answer_repair.AROUND]


def _pieces(words: str, names: Names) -> tuple[States, list[str]] | None:
    """Labels that stand alone between commas or on lines; ``None`` where other words do, too."""
    pieces = [
        piece
        for piece in re.split(r"[,，;；、|\n]", words.strip(answer_repair.TRIMMED + "[]"))
        if piece.strip(answer_repair.TRIMMED)
    ]
    found = [names.of(re.sub(r"^\s*\d+[.)]\s*", "", piece)) for piece in pieces]
    if not found or None in found:
        return None
    return {name: True for name in found if name}, [answer_repair.LINES]


def _json(
    words: str, names: Names, multiple: bool, language: str
) -> tuple[States | None, list[str]] | None:
    """What a JSON list or object in the words states; ``None`` where there is none about labels."""
    value, around = _first_value(words)
    if value is None:
        return None
    repairs = [answer_repair.AROUND] if around else []
    if isinstance(value, list) and all(isinstance(row, str) for row in value):
        if not multiple and len(value) != 1:
            return (None, []) if any(names.of(row) for row in value) else None
        rows = [row for row in value if isinstance(row, str)]
        return _listed(rows, names, repairs, language)
    if isinstance(value, dict) and not multiple and (one := _only(value, names)):
        return {one: True}, [*repairs, answer_repair.BY_LABEL]
    said = dict(_of_json(value, names, multiple, language))
    if not said:
        empty = isinstance(value, dict) and list(value.values()) == [[]]
        return ({}, repairs) if multiple and empty else None
    if None in said.values():
        return None, []
    kind = answer_repair.BY_LABEL if isinstance(value, dict) else answer_repair.LINES
    return {name: bool(holds) for name, holds in said.items()}, [*repairs, kind]


def _only(value: Mapping[object, object], names: Names) -> str | None:
    """The one label that stands alone behind a key, or the one with the highest of several
    chances."""
    found = {
        names.of(one) for key, one in value.items() if not DENIED.fullmatch(fold(str(key)))
    } - {None}
    if len(found) == 1 and not any(names.of(key) for key in value):
        return found.pop()
    chances = {names.of(key): one for key, one in value.items() if isinstance(one, float)}
    if len(chances) > 1 and len(chances) == len(value) and None not in chances:
        best = max(chances.values())
        top = [name for name, one in chances.items() if one == best]
        return top[0] if len(top) == 1 and 0 < best < 1 else None
    return None


def _first_value(words: str) -> tuple[object, bool]:
    """The first JSON object or list, mended where it has Python's quotes, and whether words stand
    around it; (None, False) for none."""
    decoder = json.JSONDecoder()
    for number, opening in enumerate(re.finditer(r"[\[{]", words)):
        if number >= answer_repair.MOST_TRIES:
            break
        try:
            value, end = decoder.raw_decode(words, opening.start())
        except (ValueError, RecursionError):
            continue
        around = re.sub(r"json|\W+", " ", words[: opening.start()] + words[end:]).strip()
        if value != [] or not around or ANSWERS.fullmatch(fold(around)):
            return value, bool(words[: opening.start()].strip() or words[end:].strip())
    braces = re.search(r"\{[^{}]{3,4000}\}", words)
    if braces is None or ":" not in normalize("NFKC", braces[0]):
        return None, False
    plain = braces[0].translate(answer_repair.PUNCTUATION)
    return answer_repair.mended(plain), braces[0] != words


def _listed(
    rows: Sequence[str], names: Names, repairs: list[str], language: str
) -> tuple[States | None, list[str]]:
    """The labels of a list, each once; what denies one is no label, unknown ones are left out."""
    found: dict[str, bool] = {}
    for row in rows:
        name = names.of(row)
        if name is None:
            denied = negation.states(row, names, True, language)
            if denied and not any(denied.values()):
                found.update(denied)
                continue
            repairs.append(answer_repair.UNKNOWN)
            continue
        if name != row:
            repairs.append(answer_repair.LABEL)
        if name in found:
            repairs.append(answer_repair.TWICE)
        found[name] = True
    return (None if rows and not found else found), repairs


ANSWERS = re.compile(
    r"answers?|labels?|findings?|result|diagnos[ie]s|class|classification|prediction|present|"
    r"positive|choices?|options?|selected|category|đáp án|câu trả lời|nhãn|kết quả|chẩn đoán|"
    r"decision|verdict|trả lời|dap an|tra loi|nhan|ket qua|phân loại|phan loai|ý định|回答|意图"
    r"|类别|分级|yes|true|có|dương tính|đúng|有|存在|阳性|正确|"
    r"答案|标签|结果|诊断|分类|选项|correct|final[_ ]answer|output|categories|conclusion"
)
DENIED = re.compile(
    r"absent|negative|excluded|eliminated|ruled[_ ]out|not[_ ]present|denied|wrong|incorrect|"
    r"no|false|loại trừ|không|không có|âm tính|sai|不存在|阴性|排除|无|没有|否认|错误"
)


def _of_json(
    value: object, names: Names, multiple: bool, language: str, holds: bool = True, depth: int = 0
) -> Iterator[tuple[str, bool | None]]:
    """The labels that a JSON value names with whether they hold; ``None`` where it does not say."""
    if depth > 5:
        return
    if isinstance(value, str):
        said, _ = _stated(value, names, multiple, language)
        yield from ((name, one == holds) for name, one in (said or {}).items())
    elif isinstance(value, list):
        for row in value:
            yield from _of_json(row, names, multiple, language, holds, depth + 1)
    elif isinstance(value, dict):
        texts = {key: one for key, one in value.items() if isinstance(one, str)}
        named = next((name for one in texts.values() if (name := names.of(one))), None)
        marks = [one for one in map(_truth, value.values()) if one is not None]
        if named and len(marks) == 1 and not any(names.of(key) for key in value):
            yield named, marks[0] == holds
            return
        for key, inner in value.items():
            if (name := names.of(key)) is not None:
                truth = False if inner is None else _truth(inner)  # null: not found
                yield name, None if truth is None else truth == holds
            elif DENIED.fullmatch(fold(str(key))) and isinstance(inner, list):
                yield from _of_json(inner, names, multiple, language, False, depth + 1)
            elif ANSWERS.fullmatch(fold(str(key)).removeprefix("final_")) or isinstance(
                inner, dict
            ):
                yield from _of_json(inner, names, multiple, language, holds, depth + 1)


TRUE = frozenset(
    [
        "true",
        "yes",
        "y",
        "present",
        "positive",
        "1",
        "có",
        "dương",
        "tính",
        "đúng",
        "有",
        "是",
        "阳性",
        "存在",
        "对",
        "真",
        "correct",
        "+",
        "right",
    ]
) | {"dương tính"}
FALSE = frozenset(
    [
        "false",
        "no",
        "n",
        "absent",
        "negative",
        "0",
        "none",
        "không",
        "âm",
        "sai",
        "无",
        "否",
        "没有",
        "阴性",
        "不存在",
        "错",
        "假",
        "incorrect",
        "-",
        "wrong",
        "không_có",
        "không_thấy",
    ]
) | {"âm tính", "không có", "not present", "not seen", "không thấy", "未见", "不是"}


def _truth(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return bool(value) if value in (0, 1) else None
    if isinstance(value, dict):
        found = [one for one in map(_truth, value.values()) if one is not None]
        return found[0] if len(found) == 1 else None
    said = fold(value) if isinstance(value, str) else ""
    return True if said in TRUE else False if said in FALSE else None


LAST_CUE = re.compile(
    r"(?:\b(?:final|total|overall)(?: (?:mark|score|grade|rating))?|tổng(?: điểm)?|"
    r"điểm (?:cuối cùng|tổng)|最终(?:得分|分数|评分)?|总分)(?: is| là|为|是)?[^\w\n]{0,6}"
    r"(\d{1,3}(?:[.,]\d{1,2})?)(?![\d]|[.,]\d)",
    re.IGNORECASE,
)
LEVEL = re.compile(
    r"\A[\W_]*(\d{1,2})(?:\s*[,;(]|\.\s|\s-\s)(?!.*\d)|"
    r"(?:\b(?:level|esi|grade|class|stage|category|triage|cấp|mức|độ)(?: phân loại)?|"
    r"级别?|等级|分级|[评定分]为)"
    r"\s*(?:is|là|为|:|=)?\s*(\d{1,2})(?!.*\d)",
    re.IGNORECASE | re.DOTALL,
)
NUMBER = r"(?<![\d.,/])(\d{1,3}(?:[.,]\d{1,2})?)(?![\d]|[.,]\d)"
MARK_CUE = re.compile(
    r"(?:\b(?:final |total |overall )?(?:mark|score|grade|rating|points?|total)"
    r"(?: awarded| given| is| was| of| would be|s)*|điểm(?: số)?(?: là| cho| tổng| cuối cùng)*|"
    r"chấm|cho|tổng điểm|(?:最终|总|综合)?(?:得分|分数|评分|打分|成绩|总分)|给|打|"
    r"\b(?:give|award|rate|assign|earn|get|receive|deserve|merit)s?"
    r"(?: (?:it|this|the answer|this answer|that))?(?: (?:a|an))?)"
    r"\W{0,12}?(?:là|is|a|为|是|应?为)?\W{0,8}?" + NUMBER,
    re.IGNORECASE,
)
OUT_OF = re.compile(
    NUMBER + r"\s*(?:/|out of|of|trên|\s*分\s*[/(（]?\s*满分)\s*(\d{1,3})(?![\d]|[.,]\d)", re.I
)
UNIT = re.compile(NUMBER + r"\s*(?:điểm|分(?![之钟析])|points?\b|marks?\b)", re.IGNORECASE)
RANGE = re.compile(
    r"\d\s*(?:-|–|~|到|至|或|or|to|hoặc|đến|and)\s*\d|between|khoảng|approximately|大约|左右|之间"
)


def read_mark(answer: str, most: int = 10) -> float | None:
    """The mark between 0 and ``most`` that a written answer gives; ``None`` where there is none,
    two that differ, or one on another scale. Numbers of lists and of what was covered are none."""
    words = normalize("NFKC", without_thought(answer))
    words = re.sub(r"[*_`]+", "", words)
    whole = re.fullmatch(r"\W*" + NUMBER + r"\s*(?:điểm|分|points?|marks?)?\W*", words, re.I)
    if whole:
        return _within(whole[1], most)
    last = None
    for pattern in (LAST_CUE, MARK_CUE, OUT_OF, UNIT):
        found = []
        for match in pattern.finditer(words):
            tail = re.match(
                r"\s*(?:/|out of|trên|分?\s*[/(]?\s*满分)\s*(\d+)", words[match.end() :]
            )
            scale = int(tail[1]) if tail else int(match[2]) if pattern is OUT_OF else most
            around = words[max(0, match.start(1) - 12) : match.end() + 6]
            if re.search(r"(?:\bof|\bof the|trong(?: số)?|中的?)\s*$", words[: match.start(1)]):
                continue
            if pattern is OUT_OF and scale != most:
                continue
            unsure = scale != most or RANGE.search(around) is not None
            found.append(None if unsure else _within(match[1], most))
        if found:
            last = found
            break
    return last[-1] if last and len(set(last)) == 1 else None


def _within(number: str, most: int) -> float | None:
    value = float(number.replace(",", "."))
    return value if 0 <= value <= most else None
