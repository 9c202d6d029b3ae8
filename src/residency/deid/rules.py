"""Rules: identifiers that have a form, language by language, each with its own examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from residency.core.types import Value
from residency.deid.dates import find_dates
from residency.deid.find import Finding, Words, narrow, plain, small
from residency.deid.names import Names

FOLDER = Path(__file__).parent / "rules"
LANGUAGES = ("vi", "zh", "en")


class Rule(Value, frozen=True):
    """One form of one kind of identifier."""

    id: str
    kind: str
    pattern: str
    hint: tuple[str, ...] = ()
    """The rule is tried only where one of these (small letters) stands in the text."""
    cues: tuple[str, ...] = ()
    """Words at which the pattern begins; where given, it is tried nowhere else."""
    check: str = ""
    priority: int = 0
    positive: tuple[str, ...] = ()
    """Texts with what is found in [brackets]."""
    negative: tuple[str, ...] = ()


@cache
def rules(pack: str) -> tuple[Rule, ...]:
    """The rules of ``common`` or of a language."""
    import msgspec
    import yaml

    found = yaml.safe_load((FOLDER / f"{pack}.yaml").read_text("utf-8"))
    macros = list(found.get("macros", {}).items())
    for one in found["rules"]:
        for name, meant in reversed(macros):  # one may be made of those above it
            one["pattern"] = one["pattern"].replace(f"<{name}>", meant)
    return tuple(msgspec.convert(one, Rule) for one in found["rules"])


@cache
def packs(lang: str) -> Rules:
    """What finds the identifiers of a language; of all three where it is another or not known."""
    return Rules(lang if lang in LANGUAGES else "")


class Rules:
    """Rules, dates and names of one language."""

    def __init__(self, lang: str) -> None:
        self.name, self.lang = f"rules:{lang or 'all'}", lang
        own = [lang] if lang else list(LANGUAGES)
        self.rules = [
            (
                rule,
                _compiled(rule),
                CHECKS.get(rule.check),
                f"rule:{pack}/{rule.id}",
                Words(rule.cues) if rule.cues else None,
            )
            for pack in ("common", *own)
            for rule in rules(pack)
        ]
        self.names = [Names(one) for one in own]

    def find(self, text: str, lang: str) -> Iterator[Finding]:
        """Findings of every rule, of dates and of names; they may overlap."""
        shown = narrow(text)
        low = small(shown)
        for rule, pattern, check, by, cues in self.rules:
            if rule.hint and not any(word in low for word in rule.hint):
                continue
            starts = sorted({start for start, _ in cues.find(low)}) if cues else ()
            matches = _at(pattern, shown, starts) if cues else pattern.finditer(shown)
            yield from _findings(matches, shown, rule, check, by)
        for mention in find_dates(text, lang):
            yield Finding(start=mention.start, end=mention.end, kind="date", by="rule:dates", priority=1)
        for names in self.names:
            yield from names.find(shown, low)


def _at(pattern: Any, text: str, starts: Iterable[int]) -> Iterator[Any]:
    reach = 0
    for start in starts:
        if start >= reach and (match := pattern.match(text, start)):
            reach = match.end()
            yield match


def _compiled(rule: Rule) -> Any:
    import regex

    return regex.compile(rule.pattern.strip(), regex.VERSION0)


def _findings(
    matches: Iterable[Any],
    text: str,
    rule: Rule,
    check: Callable[[str, str, int], tuple[int, int] | None] | None,
    by: str,
) -> Iterator[Finding]:
    for match in matches:
        start, end = match.span()
        if "v" in match.re.groupindex and match.group("v") is not None:
            start, end = match.span("v")
        if check is not None:
            found = check(text[start:end], text, start)
            if found is None:
                continue
            start, end = start + found[0], start + found[1]
        if start < end:
            yield Finding(start=start, end=end, kind=rule.kind, by=by, priority=rule.priority)


# Checks: (value, text, where it begins) -> what of the value is meant, or None where it is nothing.


def _luhn(value: str, text: str, start: int) -> tuple[int, int] | None:
    from stdnum import luhn

    digits = "".join(sign for sign in value if sign.isdigit())
    return (0, len(value)) if luhn.is_valid(digits) else None


def _ric(value: str, text: str, start: int) -> tuple[int, int] | None:
    """The checksum of a Chinese identity number; its county table rejects valid ones and is not asked."""
    from stdnum.cn import ric

    compact = "".join(value.split()).upper()
    return (0, len(value)) if ric.calc_check_digit(compact) == compact[-1] else None


def _ric15(value: str, text: str, start: int) -> tuple[int, int] | None:
    from calendar import monthrange

    year, month, day = 1900 + int(value[6:8]), int(value[8:10]), int(value[10:12])
    return (0, len(value)) if day <= monthrange(year, month)[1] else None


UNITS_VI = frozenset({"mg", "ml", "vien", "lan", "giuong", "phong", "khoa"})
ADDRESS_VI = frozenset(
    [
        "so",
        "nha",
        "thon",
        "xom",
        "ap",
        "to",
        "tdp",
        "khu",
        "ngo",
        "ngach",
        "hem",
        "kiet",
        "lo",
        "duong",
        "pho",
        "phuong",
        "xa",
        "quan",
        "huyen",
        "tp",
        "tinh",
        "thanh",
        "thi",
        "tran",
        "p",
        "q",
        "h",
        "x",
        "tt",
        "kp",
        "can",
        "chung",
    ]
)


def _vi_address(value: str, text: str, start: int) -> tuple[int, int] | None:
    """An address has two parts, or one that is named (street, ward, district); a bare number is a room or a dose."""
    words = plain(value).replace(",", " ").replace(".", " ").split()
    if not words or words[-1] in UNITS_VI or (len(words) > 1 and words[1] in UNITS_VI):
        return None
    capitals = [word for word in value.replace(",", " ").split() if word[0].isupper() and plain(word) not in ADDRESS_VI]
    if not capitals or (
        words[0] in ("h", "x", "to", "khu", "lo", "so", "p", "q", "tt", "pho") and "," not in value and len(words) < 3
    ):
        return None
    if words[0] in ("p", "h", "x", "q") and "." not in value[:3] and "," not in value:
        return None
    return 0, len(value.rstrip(" ,-\n"))


def _vi_street(value: str, text: str, start: int) -> tuple[int, int] | None:
    """A number and a street of two words at least, or with a second part: one capitalised word is a drug or a unit."""
    street, comma, _ = value.partition(",")
    words = [word for word in street.split()[1:] if plain(word) not in ADDRESS_VI]
    if any(len(word) == 1 for word in words) or (len(words) < 2 and not comma) or "\n" in street:
        return None
    if (
        comma
        and not any(plain(word).strip(".") in ADDRESS_VI for word in value.split(",", 1)[1].split())
        and len(words) < 2
    ):
        return None
    return 0, len(value.rstrip(" ,-\n"))


WARDS_VI = frozenset(
    [
        "noi",
        "ngoai",
        "san",
        "nhi",
        "tim",
        "da",
        "mat",
        "rang",
        "tai",
        "mui",
        "hong",
        "than",
        "xuong",
        "ung",
        "than",
        "phuc",
        "hoi",
        "chan",
        "cap",
        "hoi",
        "tuyen",
        "da",
        "y",
    ]
)


def _vi_organisation(value: str, text: str, start: int) -> tuple[int, int] | None:
    """Not the department of a clinic (``phòng khám Nội``)."""
    words = plain(value).split()
    return None if words[0] in WARDS_VI and len(words) < 3 else (0, len(value))


NOT_PLACES = (
    "住院",
    "来自",
    "本市",
    "我市",
    "我院",
    "外院",
    "门诊",
    "病区",
    "社区",
    "院区",
    "地区性",
    "小区域",
    "市区",
    "郊区",
    "城区",
    "灾区",
    "疫区",
    "牧区",
    "山区",
    "农村",
    "乡村",
    "城镇",
    "本地",
    "当地",
    "外地",
)


def _zh_address(value: str, text: str, start: int) -> tuple[int, int] | None:
    cut = next((len(lead) for lead in LEADS if value.startswith(lead) and len(lead) > 1), 0)
    bare = value[cut:].strip(" 。，,；")
    if len(bare) < 3 or bare.startswith(NOT_PLACES) or bare.endswith("科"):
        return None
    return cut, len(value)


def _zh_road(value: str, text: str, start: int) -> tuple[int, int] | None:
    """A road with its number, back to a mark or to a word that leads to a place."""
    first = start
    while first > 0 and start - first < 12 and text[first - 1] >= "\u4e00":
        first -= 1
    name = text[first:start]
    cut = max(
        (name.rfind(lead) + len(lead) for lead in LEADS if 0 <= name.rfind(lead) <= len(name) - len(lead) - 2),
        default=0,
    )
    return (cut - len(name), len(value)) if len(name) - cut >= 2 else None


NOT_ORGANISATIONS = (
    "医院",
    "我医院",
    "本医院",
    "外医院",
    "当地",
    "上级",
    "下级",
    "基层",
    "综合",
    "专科",
    "某",
    "该",
    "外院",
    "多家",
    "附近",
    "就近",
    "其他",
    "其它",
    "各",
    "私人",
    "县级",
    "市级",
    "省级",
    "三甲",
    "二甲",
)
LEADS = (
    "就诊于",
    "住院于",
    "转诊至",
    "就职于",
    "毕业于",
    "转入",
    "转至",
    "转往",
    "送至",
    "送往",
    "送到",
    "前往",
    "来到",
    "曾在",
    "曾于",
    "后在",
    "后于",
    "遂至",
    "遂到",
    "求诊于",
    "于",
    "在",
    "到",
    "至",
    "由",
    "从",
    "往",
    "去",
    "赴",
    "经",
    "是",
    "为",
    "来",
    "曾",
    "即",
)


def _zh_organisation(value: str, text: str, start: int) -> tuple[int, int] | None:
    """The name before ``医院`` and the like: signs back to a mark, or to a word that leads to a name."""
    first = start
    while first > 0 and start - first < 14 and text[first - 1] >= "\u4e00":
        first -= 1
    name, cut = text[first:start], 0
    for lead in LEADS:
        place = name.rfind(lead)
        if place >= 0 and len(name) - place - len(lead) >= 2 and (len(lead) > 1 or place == 0 or len(name) - place > 5):
            cut = max(cut, place + len(lead))
    name = name[cut:]
    if len(name) < 2 or name.startswith(NOT_ORGANISATIONS) or name.endswith(NOT_ENDS):
        return None
    return cut - (start - first), len(value)


NOT_ENDS = ("我", "本", "该", "外", "当地", "上级", "其他", "其它", "某", "入", "出", "转", "住")


PLAIN_EN = frozenset(
    {
        "the",
        "this",
        "our",
        "that",
        "in",
        "at",
        "her",
        "his",
        "their",
        "your",
        "outside",
        "local",
        "hospital",
        "clinic",
        "home",
        "health",
        "follow",
        "from",
        "outpatient",
        "inpatient",
        "general",
        "high",
        "middle",
        "pain",
        "wound",
        "eye",
        "hospice",
        "university",
        "primary",
        "elementary",
        "regional",
        "community",
        "medical",
        "nursing",
        "discharge",
        "admitted",
    }
)


def _en_organisation(value: str, text: str, start: int) -> tuple[int, int] | None:
    words, cut = value.split(" "), 0
    while (
        words
        and words[0].lower() in PLAIN_EN
        and words[0].lower() not in ("general", "community", "university", "regional")
    ):
        cut += len(words.pop(0)) + 1
    if len(words) < 2 or all(word.lower() in PLAIN_EN or not word[:1].isupper() for word in words[:-1]):
        return None
    return cut, len(value)


CHECKS: dict[str, Callable[[str, str, int], tuple[int, int] | None]] = {
    "luhn": _luhn,
    "ric": _ric,
    "ric15": _ric15,
    "vi-address": _vi_address,
    "vi-organisation": _vi_organisation,
    "vi-street": _vi_street,
    "zh-address": _zh_address,
    "zh-road": _zh_road,
    "zh-organisation": _zh_organisation,
    "en-organisation": _en_organisation,
}
