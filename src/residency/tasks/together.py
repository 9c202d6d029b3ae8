"""What an answer states of all its labels together: "all but effusion", "the rest are absent", and
sheets that give each label a verdict. The words are those of ``statements.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from residency.tasks.answer_repair import Names, fold
from residency.tasks.negation import word

SIGNS = "。.,;!！ \t\r\n\"'`“”‘’*-"
NUMBERS = {
    number: count
    for count, words in enumerate(
        ("two both hai 两 二", "three ba 三", "four bốn 四", "five năm 五", "six sáu 六"), start=2
    )
    for number in words.split()
}
JOINED = re.compile(r"\s*(?:[,;、/&+]|\band\b|\bvà\b|和|及|与)\s*")
VERDICTS = {
    True: r"true|t|yes|y|present|positive|correct|right|detected|có|đúng|đ|dương tính|有|是|对|"
    r"正确|阳性|存在|\+|✓|✔|☑|√|✅|x(?=\])|1",
    False: r"false|f|no|n|absent|negative|incorrect|wrong|none|not (?:present|seen|detected)|"
    r"không(?: có| thấy)?|sai|s|âm tính|无|没有|否|错误?|不正确|不对|阴性|不存在|未见|"
    r"[-−–]|✗|✘|❌|×|☒|❎|✖|✕|0",
}


def whole(words: str, names: Names, languages: tuple[str, ...]) -> dict[str, bool] | None:
    """What words that are about all labels and no more say: all hold, none, all but some."""
    text = fold(words).strip(SIGNS)
    if (cue := word("commit", languages).match(text)) is not None:
        text = text[cue.end() :].strip(" :")
    every, fails = word("every", languages).pattern, word("every_fails", languages).pattern
    but = word("all_but", languages).pattern
    behind = r"(?: (?:apply|hold|(?:are|is) (?:present|true|correct|right)))?"
    text = re.sub(r"^có (?=tất cả|cả )", "", text)
    for holds, verdict in ((False, fails), (True, every)):
        for pattern in (
            rf"(?P<all>{verdict})(?:\s*,?\s*(?:{but})\s*(?P<x>.+?))?(?:外|以外|之外)?{behind}",
            rf"(?:{but})\s*(?P<x>[^,]+?)(?:\s*ra|以外|之外|外)?\s*[,]?\s*(?P<all>{verdict})",
        ):
            found = re.fullmatch(pattern, text)
            if found is None or not _counts(found["all"], len(names.names)):
                continue
            apart = [names.of(one) for one in JOINED.split(found["x"] or "") if one]
            if None not in apart:
                return {name: (name not in apart) == holds for name in names.names}
    return None


def _counts(said: str, labels: int) -> bool:
    """Whether a number that is said with "all" is that of the labels."""
    numbers = re.findall(
        r"\d+|\b(?:two|both|three|four|five|six|hai|ba|bốn|năm|sáu)\b|[两二三四五六]", said
    )
    return all(int(NUMBERS.get(one, one)) == labels for one in numbers)


def without_rest(text: str, languages: tuple[str, ...]) -> tuple[str, bool | None]:
    """A text without the clause that judges what it does not name, and whether that holds."""
    for kind, holds in (("rest_fails", False), ("rest_holds", True)):
        found = re.search(word(kind, languages).pattern, text, re.IGNORECASE)
        if found is not None:
            return f"{text[: found.start()]} {text[found.end() :]}".strip(" ,;，；、"), holds
    return text, None


def sheet(words: str, names: Names) -> Mapping[str, bool] | None:
    """The verdicts of an answer that is nothing but labels with a verdict each, on lines, between
    commas or in a table; ``None`` for any other."""
    if (lists := _lists(words, names)) is not None:
        return lists
    found: dict[str, bool] = {}
    rows = re.split(r"\n|[,;，；、。]|\s\|\s(?=[^|]*\|[^|]*\Z)", words.strip(SIGNS))
    table = [n for n, row in enumerate(rows) if re.fullmatch(r"[\s|:+-]*-{2,}[\s|:+-]*", row)]
    rows = rows[table[0] + 1 :] if table and table[0] <= 1 else rows
    short = any(len(one) == 1 for one in names.names)
    for row in rows:
        if not row.strip(SIGNS + "|"):
            continue
        read = _verdict(
            row
            if short
            else re.sub(
                r"([:=|]\s*)[cC]\s*$", r"\1có", re.sub(r"([:=|]\s*)[kK]\s*$", r"\1không", row)
            )
        )
        name = names.of(read[0]) if read else None
        if read is None or name is None or name in found:
            return None
        found[name] = read[1]
    return found if len(found) > 1 else None


def _lists(words: str, names: Names) -> Mapping[str, bool] | None:
    """ "Correct: A, C. Incorrect: B": two headings with the names below each and nothing else."""
    found: dict[str, bool] = {}
    text = fold(re.sub(r"[*_`#]+", "", words)).strip(SIGNS)
    pieces = re.split(rf"(?:^|[.;。\n]\s*)({'|'.join(VERDICTS.values())})\s*:", text)
    if len(pieces) != 5 or pieces[0].strip():
        return None
    for heading, below in zip(pieces[1::2], pieces[2::2], strict=True):
        holds = re.fullmatch(VERDICTS[True], heading) is not None
        for one in re.split(rf"\n|{JOINED.pattern}", below.strip(SIGNS)):
            if not one.strip(SIGNS):
                continue
            if (name := names.of(one)) is None or name in found:
                return None
            found[name] = holds
    return found or None


TICKED = re.compile(
    r"\s*(?:[-*•]\s+)?(?:[\[(]\s*(?P<x>[x✓✔√]?)\s*[\])]|(?P<on>[●◉☑✅])|[○◯☐])\s*(?P<name>.+)"
)


@cache
def _row() -> re.Pattern[str]:
    said = "|".join(rf"(?P<v{int(holds)}>{one})" for holds, one in VERDICTS.items())
    mark = re.compile(said).pattern
    return re.compile(
        r"\s*(?:[-*•]\s+|\d{1,2}[.)]\s+)?\|?\s*(?P<name>[^|:=]+?)"
        rf"\s*(?:[|:=)\].]|->|→|\s[-–—]\s|(?=[\[(（✓✔☑√✅✗✘❌×☒❎]))\s*[\[(]?\s*(?:{mark})\s*[\])]?\s*\|?\W*"
    )


def _verdict(row: str) -> tuple[str, bool] | None:
    row = re.sub(r"[*_`]+", "", fold(row).replace("\ufe0f", ""))
    if (ticked := TICKED.fullmatch(row)) is not None:
        return ticked["name"], bool(ticked["x"] or ticked["on"])
    found = _row().fullmatch(row)
    return (found["name"].strip(" ([").strip(), found["v1"] is not None) if found else None
