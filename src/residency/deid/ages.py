"""Ages over 89 that no rule of a language finds: without a cue (``he is 92``) or read badly (``tu
ổi: 9l``); and years of birth that stand alone, which safe harbor does not leave."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from residency.deid.columns import under
from residency.deid.find import Finding
from residency.deid.view import View

OLD = re.compile(
    r"9(?:[ ]?\d|[ ]?[oil](?![a-z'’]))|1[01]\d"
    r"|[1il](?:[ ]?[0o](?=[\doil])|[ ]0[ ]|o[ ])(?:\d|[oil](?![a-z'’]))"
)
"""An age over 89 as it may have been read: parted, or with a letter for a digit."""
UNIT = re.compile(
    r"[ ]{0,3}(?:t ?u ?[ổo] ?i(?!\w)|[周虚]? ?[岁歲]|高龄)"
    r"|[ \-]{0,2}(?:y ?[./]? ?o(?!\w)|(?:years?|yrs?)[ \-]{0,2}(?:old|of age)|yo[fm](?!\w)"
    r"|y[ /]?[fm](?!\w))"
)
"""What stands behind an age; a blank within it may come from a bad reading."""
YEARS = re.compile(r"[ ]?t(?=[ ]?(?:[,;)\n]|nam(?!\w)|nữ)|[. ]?\Z|\.\s)")
CUE = re.compile(
    r"(?:(?<!\w)(?:t ?u ?[ổo] ?i|a ?g ?e(?: ?/ ?sex)?|a ?g ?ed)|年 ?[龄齡]|岁 ?数"
    r"|[现今享终]年|高寿|年[方近逾过])(?:\([^)\n\d]{1,8}\))?[ :=|(,]{0,4}\Z"
)
NO_UNIT = re.compile(
    r"(?!\d|[ ]?(?:[%°℃]|[./:]\d|个?月|天|日|周(?!岁)|次|公斤|斤|度|分|例)|[ ]?-?(?:m?g|m?l|mmhg"
    r"|kg|[cm]m"
    r"|lần|lan|tháng|thang|ngày|ngay|tuần|tuan|giờ|gio|phút|phut|th|f|h|bpm|beats|days?|hours?|hrs?"
    r"|months?|mos?|weeks?|wks?|min|minutes|lbs?|degrees|percent)(?![a-zà-ỹ]))"
)
KIN = "mother|father|mom|dad|mum|wife|husband|grandm\\w+|grandf\\w+|aunt|uncle|brother|sister"
LED = {
    "en": r"(?<!\w)d\.(?: at)? \Z|(?<!\w)(?:mrs?|ms|miss)\.? \w+(?:[ -]\w+)?(?:,| \() ?\Z"
    rf"|(?<!\w)(?:(?:he|she|pt|patient|{KIN})(?:['’]s|[ ](?:is|was))|(?:he|she)[ ](?:will"
    rf"|would)[ ]be|(?:{KIN}))"
    r",?(?:[ ](?:now|already|almost|nearly|currently|only|about))?[ ]\Z",
    "vi": r"(?<!\w)(?:bn|bệnh nhân|người bệnh|benh nhan|nguoi benh|cụ|(?:cụ )?(?:ông|bà)(?: (?:cụ"
    r"|nội|ngoại))?"
    r"|ong cu|ba cu|cu ong|cu ba|mẹ|bố|cha|má),?(?:[ ](?:nay|đã|năm nay|hiện|da))?[ ]\Z",
    "zh": r"(?:患者|病人|父亲?|母亲?|老人|祖[父母]|外[公婆]|爷爷|奶奶|太太|[男女]性?)(?:今年|现年?"
    r"|已|年)?[,、/]?[ ]?\Z",
}
FOLLOWED = {
    "en": r"[ ]?(?:[.;)](?!\d)|,(?!\d)|\n|\Z|(?:and|with|but|who|when|now|today|this|yet|so|lives?"
    r"|in|at|of|from)(?!\w))",
    "vi": r"[ ]?(?:,(?![\d])|\.(?:\s|\Z)|\n|\Z|(?:vào viện|nhập viện|vao vien|nhap vien|rồi|roi|bị"
    r"|có|tha|đtđ)(?!\w)"
    r"|[,/]?[ ]?(?:nam|nữ|nu)(?!\w))",
    "zh": r"[ ]?(?:[,;。、)](?!\d)|\n|\Z|了|/?[男女])",
}
SENTENCES = {lang: (re.compile(LED[lang]), re.compile(FOLLOWED[lang])) for lang in LED}
"""By language: what stands before an age that has neither cue nor unit, and what behind it."""
SEX = re.compile(r"[ ]?(?:(?:[WBH]|AA)[FM](?![\w/])|/ ?(?:[男女]|[FM](?![\w/])))")
SEX_APART = re.compile(r",[ ]?(?:F|M|female|male)(?!\w)")
SEX_CELL = re.compile(r"[ ]?[|\t][ ]?(?:F|M|Nam|NAM|nam|Nữ|NỮ|nữ|男|女)[ ]?(?:[|\t\n]|\Z)")
CELL_OF_SEX = re.compile(r"(?<!\d)(?<!\d )[|\t][ ]?(?:f|m|nam|nữ|男|女)[ ]?[|\t][ ]?\Z")
CELL_BEGINS, CELL_ENDS = re.compile(r"[|\t\n][ ]?\Z"), re.compile(r"[ ]?(?:[|\t\n]|\Z)")
ALONE = re.compile(r"(?:\A|[\n,;|(\-]|(?<!\w)(?:pt|patient))[ ]?\Z")


def ages(view: View) -> Iterator[Finding]:
    """Ages over 89, by what stands around each number that may be one."""
    low = view.low
    for start, stop, _ in view.numbers:
        torn = start > 0 and low[start - 1] in "oil"
        if stop - start > 3 or (low[start] not in "91" and not torn):
            continue
        while torn and start and low[start - 1] in "oil":
            start -= 1
        match = OLD.match(low, start)
        if match is None or match.end() < stop:
            continue
        before = low[max(0, start - 28) : start]
        if re.search(r"[a-zà-ỹ]\Z|\d[ .,/:\-]?\Z", before):
            continue
        if _is_age(view, match[0], before, start, match.end()):
            yield Finding(start, match.end(), "age", "rule:ages")


def _is_age(view: View, found: str, before: str, start: int, end: int) -> bool:
    """Whether a number is an age, by its unit, its cue, the sex behind it or its sentence."""
    low, shown = view.low, view.shown
    years = (
        not found.isdigit() and low.startswith("t", end) and not low[end + 1 : end + 2].isalnum()
    )
    if (
        years
        or UNIT.match(low, end)
        or (shown[end : end + 2].strip()[:1] == "t" and YEARS.match(low, end))
    ):
        return True
    if (CUE.search(before) and NO_UNIT.match(low, end)) or SEX.match(shown, end):
        return True
    if SEX_APART.match(shown, end) and ALONE.search(before):
        return True
    if SEX_CELL.match(shown, end) and CELL_BEGINS.search(before):
        return True
    if CELL_OF_SEX.search(before) and CELL_ENDS.match(shown, end):
        return True
    own = (view.lang,) if view.lang in SENTENCES else tuple(SENTENCES)
    return any(
        led.search(before) and follows.match(low, end)
        for led, follows in (SENTENCES[lang] for lang in own)
    )


YEAR = r"(?P<v>[1il][ ]?[89](?:[ ]?[\doil]){2}|2[ ]?[0o][ ]?[0-3oi][ ]?[\doil])"
NO_YEAR = r"(?![\d%]|[.,/\-]\d|[ ]?(?:g|gr|gram|gam|kg|ml|cc|hours|hrs|h)(?![a-z]))"
DIGITS = "〇零○一二三四五六七八九"
APART = r"[\s:=|(.,'’\-–/]{0,6}(?:(?:in|the year|year|nam|khoang|circa|ca?\.|about)[\s:]{1,2}){0,3}"
BORN = {
    "en": r"(?<![a-z])(?:d ?\.? ?o ?\.? ?b\.?|y ?\.? ?o ?\.? ?b\.?|(?:date|year|yr) of birth"
    r"|birth ?(?:year|date|day)|born|b\.)"
    rf"{APART}(?:{YEAR}|['’](?P<w>\d\d)){NO_YEAR}",
    "vi": r"(?<![a-z])(?:(?:nam |ngay |ngay thang nam )?sinh(?: (?:nam|vao|ngay))?|s\.? ?n\.?"
    r"|n\.? ?s\.?)"
    rf"{APART}{YEAR}{NO_YEAR}|(?<![a-z])(?:sinh nam|nam sinh"
    r"|sn:)[ :]{0,2}['’]?(?P<w>[2-9]\d)(?!\d|[.,/\-]\d|[ ]?(?:tuan|thang|tuoi))",
    "zh": rf"(?:出生(?:年份|日期|年月|时间|年)?|生年|诞?生)[于在]?[ :=|(]{{0,4}}(?:{YEAR}(?!\d)"
    rf"|(?P<w>[{DIGITS}]{{4}}))(?!\s?年?\s?\d{{1,2}}\s?[月.\-/])"
    rf"|(?<!\d)(?:{YEAR.replace('<v>', '<x>')}|(?P<y>\d\d|[{DIGITS}]{{4}}))\s?年?\s?(?:出 ?生"
    r"|生(?=人|[,;。.)\s、]|\Z))",
}
BEARERS = re.compile(
    r"(?<!\w)(?:(?:nữ|男|女)(?:性)?[ ,，/\-]{1,3}|(?:nam|male|female"
    rf"|[mf])[ ]?[,/\-][ ]?){YEAR}(?!\d|[/.\-]\d)(?=年?[ ]?(?:[,;.)\n|]|\Z))"
)
BEHIND_NAME = re.compile(rf"[ ]?[(,\-–][ ]?{YEAR}(?!\d|[/.\-]\d)")
BIRTHS = {lang: re.compile(pattern) for lang, pattern in BORN.items()}
HEAD_OF_BIRTHS = re.compile(
    r"[\s*]*(?:d\.?o\.?b\.?|yob|born|birth ?(?:year|date)|(?:year|date) of birth|nam sinh"
    r"|ngay sinh|sn|ns"
    r"|出生(?:年份|日期|年月|年)?|生年)[\s*]*"
)
CELL = re.compile(rf"\s*{YEAR}\s?年?\s*")


def years_of_birth(view: View, found: Iterable[Finding]) -> Iterator[Finding]:
    """Years of birth that stand alone: behind a cue or a sex, behind a name that was ``found``, in
    a column that says so. Whether such a year tells of an age over 89 the note alone may not
    say."""
    langs = {"en", *((view.lang,) if view.lang in BIRTHS else BIRTHS)}
    places = [match for lang in langs for match in BIRTHS[lang].finditer(view.folded)]
    places += BEARERS.finditer(view.low)
    named = (one.end for one in found if one.kind in ("name", "relative"))
    places += [match for end in named if (match := BEHIND_NAME.match(view.folded, end))]
    spans = [
        match.span(group)
        for match in places
        for group, year in match.groupdict().items()
        if year is not None
    ]
    spans += under(view.folded, HEAD_OF_BIRTHS, CELL)
    return (Finding(start, end, "birth_date", BIRTH_YEAR) for start, end in spans)


BIRTH_YEAR = "rule:birth-year"
