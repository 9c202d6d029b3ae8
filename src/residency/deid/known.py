"""The identifiers that a hospital's database holds of the patient of a note, found however the note
writes them.

Key and text are compared in one normal form (``squeeze``): ``Nguyễn Văn An`` is found as NGUYEN VAN
AN, nguyen-van-an or NguyenVanAn, 0912.345.678 as 0912 345 678, 陈秀兰 as 陳秀蘭. Names are also
found in another order, with initials, by their parts and in pinyin; addresses by their places.
Where a part is also an ordinary word, what stands around it decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cache, lru_cache
from html import unescape
from itertools import accumulate, permutations, product
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

from residency.core.types import Value
from residency.deid.columns import under
from residency.deid.dates import DateMention, dates_of, find_dates
from residency.deid.find import STRUCTURED, UNDECIDED, Finding
from residency.deid.names.lists import name_data
from residency.deid.squeeze import CONFUSED, Squeezed, squeeze, squeezed
from residency.deid.view import View, narrow, plain, small
from residency.deid.words import is_one_word

NAMES = frozenset({"name", "relative", "clinician"})
CODES = frozenset({"record", "admission", "national_id", "insurance", "phone", "account", "plate"})
DATES = frozenset({"birth_date", "date"})
SHORTEST_CODE = 4
WIDEST_GAP, WIDEST_GAP_IN_LONG, LONG = 5, 24, 8
"""Signs that may stand in a row between two of an identifier; in one of so many signs."""
Test = Literal[
    "", "ordered", "swapped", "initials", "misread",
    "capital", "common", "cued", "place", "han", "titled",
]  # fmt: skip


class Variant(Value, frozen=True):
    """One way to write an identifier."""

    key: str
    """In its normal form."""
    kind: str
    test: Test = ""
    """What else must hold where it stands. ``ordered``: the signs at ``capitals`` are capitals;
    ``swapped``: or all are small; ``initials``: capitals, and parted; ``misread``: a digit in one
    word; ``capital``, ``common``, ``cued``, ``place``, ``han``, ``titled``: see ``_fits``."""
    code: bool = False
    """Looked for where O is 0, I and l are 1."""
    part: str = ""
    """What of the key is looked for first: one look for many variants."""
    marked: str = ""
    """With its marks: where the text has others, it is another word (``định đặt`` is not Đình
    Đạt)."""
    capitals: tuple[int, ...] = ()


class KnownFinder:
    """Finds one patient's identifiers."""

    name = STRUCTURED

    def __init__(self, identifiers: Sequence[tuple[str, str]], lang: str) -> None:
        every = dict.fromkeys(
            one for kind, value in identifiers for one in variants(kind, value, lang)
        )
        self.by_part: dict[tuple[bool, str], list[Variant]] = {}
        for one in every:
            self.by_part.setdefault((one.code, one.part or one.key), []).append(one)
        self.keys = frozenset(one.key for one in every if not _is_pair(one))
        """Normal forms: what no surrogate may hold. Two initials are somebody only in a cell."""
        dates = (value for kind, value in identifiers if kind in DATES)
        self.days = frozenset(day for value in dates for day in days_of(value, lang))

    def find(self, text: str, lang: str) -> Iterator[Finding]:
        """Where the identifiers stand; dates of the row (birth) in whatever form."""
        view = View(text, lang)
        return (one for one in self.search(view, dates_of(view)) if one.by != UNDECIDED)

    def search(self, view: View, dates: Iterable[DateMention]) -> Iterator[Finding]:
        """The same in a text whose other forms and dates are there already, and what is
        undecided."""
        yield from self._places(view)
        for mention in dates if self.days else ():
            if mention.value in self.days and mention.precision == "day":
                yield Finding(mention.start, mention.end, "birth_date", STRUCTURED, 2)

    def written(self, view: View) -> Iterator[Finding]:
        """Where the identifiers stand that are no dates."""
        return (one for one in self._places(view) if one.by != UNDECIDED and one.kind not in DATES)

    def _places(self, view: View) -> Iterator[Finding]:
        if not self.by_part:
            return
        form = squeezed(view)
        for (code, part), those in self.by_part.items():
            within = form.code if code else form.text
            if part in within:
                for one in those:
                    if (at := within.find(one.key)) >= 0:
                        yield from _standing(view, form, within, one, at)


@lru_cache(maxsize=64)  # the notes of a patient follow each other
def known_finder(identifiers: tuple[tuple[str, str], ...], lang: str) -> KnownFinder:
    """What finds the identifiers of one row: (kind, value) each."""
    return KnownFinder(identifiers, lang)


# Where they stand


def _standing(view: View, form: Squeezed, within: str, one: Variant, at: int) -> Iterator[Finding]:
    """Where a way to write an identifier stands by itself, from a place of the squeezed text on
    where it stands."""
    length, place, text = len(one.key), form.places.item, view.folded
    gap = WIDEST_GAP if length < LONG else WIDEST_GAP_IN_LONG
    while at >= 0:
        start, end = place(at), place(at + length - 1) + 1
        at = within.find(one.key, at + 1)
        if (
            one.kind == "phone"
            and one.key[0] != "0"
            and (lead := LEAD.search(text, max(0, start - 12), start))
        ):
            start = lead.start()
        if (start and _is_one(text[start - 1], text[start])) or (
            end < len(text) and _is_one(text[end - 1], text[end])
        ):
            continue
        if end - start > length + gap and _gap(text[start:end]) > gap:
            continue
        sure = _fits(one, view, start, end)
        if sure is not False:
            yield Finding(start, end, one.kind, STRUCTURED if sure else UNDECIDED)


LEAD = re.compile(
    r"(?<![\do])(?:(?:(?:\+|00|oo)[ .-]?\d{1,3}|\(\+?\d{1,3}\))[ .)-]*(?:\(?[0o]\)?)?|84|86|1"
    r"|\(?[0o])[ .)-]*\Z"
)
"""What may stand before the digits of a phone number: a country's code, and a nought."""


def _gap(found: str) -> int:
    """The longest run of signs that are no letters and digits."""
    return max(map(len, re.findall(r"[\W_]+", found)), default=0)


def _is_one(left: str, right: str) -> bool:
    """Whether two signs belong to one word or number."""
    return (left.isdigit() and right.isdigit()) or is_one_word(left, right)


def _fits(one: Variant, view: View, start: int, end: int) -> bool | None:
    """Whether a variant is meant at a place; None where nothing around it tells."""
    found = view.shown[start:end]
    if one.kind in NAMES and _is_term(found, view.shown, end):
        return None
    if not one.test and not one.marked:
        return True
    if one.marked and not _marks_of(found) <= _marks_of(one.marked):
        return False
    if not one.test:
        return None if one.kind in NAMES and _is_phrase(found, view, start) else True
    if one.test in ("han", "titled"):
        return _in_chinese(one, view.shown, start, end)
    if one.test in ("ordered", "swapped"):
        return _in_order(one, view, start, end)
    if one.test == "misread":
        return len(found) == len(one.key) and any(map(str.isdigit, found))
    if one.test == "initials":
        return _as_initials(one, found, view.shown, start)
    cue, capital = _cue_before(view.shown, start), _is_capital(found[0])
    if one.test == "place":
        return (capital and cue == "place") or (None if capital else False)
    if one.marked and _marks_of(found) != _marks_of(one.marked):
        unmarked = view.unmarked_at(start, end) or (
            cue in ("strong", "weak") and _is_capital(found[0])
        )
        if not unmarked or not found.isascii():
            return False
    if cue == "strong" and (capital or not _vetoed(view, start, end)):
        return True
    if not capital:
        if cue != "weak" or one.test == "cued":
            return False
        return True if one.test == "capital" and not _vetoed(view, start, end) else None
    if cue == "weak" or one.test == "capital":
        return True
    if one.test == "common" and not one.marked and _within_sentence(view.shown, start, end):
        return True
    if one.test != "common":
        return False
    told = _does_as_people(view, end) or AGED.match(view.shown, end)
    return True if told and not _vetoed(view, start, end) else None


def _is_term(found: str, text: str, end: int) -> bool:
    """Whether a name is part of a term here: of a disease called after somebody (``Graves
    disease``, ``a Baker cyst``), of a Chinese drug."""
    if found[-1] >= "\u3400":
        return text.startswith(tuple(_data()["han_terms"]), end) or bool(DOSE.match(text, end))
    *before, last = found.split()
    eponym = last.lower() in _eponyms() and len("".join(before)) < 2
    return eponym and _eponymous().match(text, end) is not None


DOSE = re.compile(r"\s?\d+(?:\.\d+)?\s?(?:[mk]?g|ml|克|毫克|毫升|片|枚|粒|丸)(?![a-z])")
"""What stands behind a drug or a herb."""


@cache
def _eponyms() -> frozenset[str]:
    return frozenset(name_data("en")["vetoes"])


@cache
def _eponymous() -> re.Pattern[str]:
    return re.compile(rf"(?:['’]s|s['’]?)?[ \-](?:{'|'.join(_data()['eponymous'])})(?!\w)", re.I)


def _is_phrase(found: str, view: View, start: int) -> bool:
    """Whether two words of a Vietnamese name, not both with a capital, may be ordinary ones (``đau
    thái dương``, ``dịp Quốc khánh``)."""
    words = ["".join(filter(str.isalpha, word)) for word in found.split()]
    if len(words) != 2 or not all(words) or _is_capital(words[1][0]):
        return False
    if _cue_before(view.shown, start):
        return False
    ordinary = [squeeze(word) in common(view.lang) for word in words]
    return any(ordinary) if _is_capital(words[0][0]) else all(ordinary)


def _does_as_people(view: View, end: int) -> bool:
    """Whether what stands behind a word is what people do, are or are to each other: ``Hope was
    tearful``, ``Sơn (con trai)``."""
    return _doing(view.lang).match(view.low, end) is not None


@cache
def _doing(lang: str) -> re.Pattern[str]:
    words = _data()["doing"].get(lang) or ["(?!)"]
    return re.compile(rf"[ ](?:{'|'.join(words)})(?!\w)")


def _in_order(one: Variant, view: View, start: int, end: int) -> bool | None:
    """Whether the words of a name in another order than its own are meant: in capitals, behind what
    leads to a person, or in small letters where one of them is no ordinary word (``o'brien mark``,
    and not ``o'brien will need``)."""
    found = view.shown[start:end]
    letters = _letters(found)
    if len(letters) != len(one.key):
        return False
    if not found.islower():
        return all(_is_capital(letters[at]) for at in one.capitals)
    if len(one.capitals) > 2 or len(one.key) > 15:
        return True
    if _cue_before(view.shown, start) in ("strong", "weak"):
        return True
    if one.test == "ordered":
        return False
    return None if MODAL.search(found) and SMALL.match(view.shown, end) else True


MODAL, SMALL = re.compile(r"[^\W\d_] (?:will|may)\Z"), re.compile(r" [a-z]")
"""A given name that behind a subject is a verb, and a word in small letters behind it."""


@lru_cache(maxsize=1 << 12)
def _marks_of(text: str) -> Counter[str]:
    """The marks of a text, wherever they stand (``hòa`` is hoà)."""
    return Counter(
        sign for sign in normalize("NFD", small(text)) if sign == "đ" or "\u0300" <= sign < "\u0370"
    )


def _is_capital(sign: str) -> bool:
    """Whether a sign is a capital, also one in another dress (``ᵀ``, ``Ｔ``)."""
    return normalize("NFKC", sign)[:1].isupper()


def _letters(found: str) -> list[str]:
    """The signs of what was found, one for each of its normal form."""
    read = unescape(found) if "&" in found else found
    return [sign for sign in read for _ in squeeze(sign)]


def _as_initials(one: Variant, found: str, text: str, start: int) -> bool | None:
    letters = _letters(found)
    alone = len(one.capitals) == len(one.key)
    if alone and "." in found and _cue_before(text, start) in ("strong", "weak"):
        return True
    if len(letters) != len(one.key) or not all(_is_capital(letters[at]) for at in one.capitals):
        return False
    if re.match(r"\w\W*\n", found):  # 4,4 mmol/L. and a line that begins with the name
        return False
    if alone:
        if _in_longer(text, start, start + len(found)):
            return False
        cued = len(found) > 1 and _cue_before(text, start) in ("strong", "weak")
        if "." in found or cued or (len(found) > 1 and AGED.match(text, start + len(found))):
            return True
        return _in_cell(found, text, start) if _is_cell(text, start, start + len(found)) else False
    enough = len(letters) > 4 or len(one.capitals) > 2  # LTHoa, TVAn
    parted = not all(map(str.isalnum, found))
    return parted or (enough and not all(map(str.isupper, letters)))


AGED = re.compile(
    r"(?:[ ,;]*[ \t|/]+|[,;、])[ ]*"
    r"(?:\d{1,3}[ ]?(?:[|\t]|(?i:tuổi|tuoi|t|y|yo|yrs?|岁|[mf]|nam|nữ|nu)(?!\w))"
    r"|(?i:nam|nữ|nu|[mf]|男|女)[ ]?[|\t,/])"
)
"""An age or a sex, behind what is called by its initials."""


def _in_longer(text: str, start: int, end: int) -> bool:
    """Whether initials are part of more of them (``T.T`` in ``P.T.T.N.``) or of a code
    (``HH-0382465``)."""
    before = re.search(r"(?<!\w)\w\.\Z", text[max(0, start - 3) : start])
    return before is not None or BEHIND_LETTERS.match(text, end) is not None


BEHIND_LETTERS = re.compile(r"\.\w(?!\w)|[\-_.]?(?!(?:19|20)\d\d(?!\d))\d{3}")
"""Another initial, or the number of a code, which a year of birth is not."""


def _is_cell(text: str, start: int, end: int) -> bool:
    """Whether what stands here is a whole cell of a table; a line's first or last has a border on
    one side."""
    before, behind = text[:start].rstrip(" ")[-1:], text[end:].lstrip(" ")[:1]
    return {before, behind} <= {"\t", "|", "\n", ""} and not {before, behind} <= {"\n", ""}


def _in_cell(found: str, text: str, start: int) -> bool | None:
    """Whether a cell of initials is the patient: two letters that are no abbreviation of the ward,
    or more in a column that says name."""
    below = under(
        text.lower(), NAME_HEAD, re.compile(rf"\s*(?P<v>{re.escape(found.lower())})\.?\s*")
    )
    if any(place[0] == start for place in below):
        return True
    letters = "".join(filter(str.isalpha, found))
    return True if len(letters) == 2 and letters not in _abbreviations() else None


def _is_pair(one: Variant) -> bool:
    return one.test == "initials" and len(one.key) == 2


@cache
def _abbreviations() -> frozenset[str]:
    return frozenset(_data()["abbreviations"])


NAME_HEAD = re.compile(
    r"[\s*]*(?:(?:patient|pt)?(?:['’]?s)? ?(?:name|initials)|patient|pt|(?:họ(?: và)? "
    r"|ho (?:va )?)?tên(?: bn)?|ho (?:va )?ten"
    r"|bn|bệnh nhân|người bệnh|benh nhan|(?:患者|病人)?姓名|患者|病人)[\s*:]*"
)
"""What stands above the names of patients."""


WORDS_BEFORE = re.compile(r"(?<!\w)(?:([^\W\d_]+)[ ])?([^\W\d_]+)[ .:,'’\"“(\t|]*\Z")


def _cue_before(text: str, start: int) -> str:
    """What the words before a place lead to: ``strong`` or ``weak`` to a person, ``place``, or
    nothing."""
    match = WORDS_BEFORE.search(plain(text[max(0, start - 24) : start]))
    if not match:
        return ""
    cues = _cues()
    return cues.get(f"{match[1]} {match[2]}") or cues.get(match[2], "")


def _vetoed(view: View, start: int, end: int) -> bool:
    """Whether a word in small letters makes an ordinary one with the next (``hạ sốt``)."""
    behind = re.match(r"[ ]([^\W\d_]+)", view.low[end : end + 12])
    return behind is not None and f"{view.low[start:end]} {behind[1]}" in _vetoes()


def _within_sentence(text: str, start: int, end: int) -> bool:
    """Whether a capitalised word stands alone within a sentence: a word in small letters before it,
    no other capitalised one behind it."""
    before = re.search(r"[a-z,] \Z", text[max(0, start - 2) : start])
    if text[start:end].lower() in MONTHS and WHEN.search(text[max(0, start - 8) : start]):
        return False
    return (
        bool(before)
        and not re.match(r"-|[ ]?[A-Z0-9]", text[end : end + 2])
        and not text[start:end].isupper()
    )


MONTHS = frozenset({"april", "may", "june", "august"})
WHEN = re.compile(
    r"(?:^|[^a-z])(?:in|since|by|until|till|of|last|next|early|late|mid|this|from|during) \Z"
)
"""What stands before a month."""


def _in_chinese(one: Variant, text: str, start: int, end: int) -> bool | None:
    """Whether Chinese signs that are also a word, or of a name that is not whole, are meant."""
    before, behind = text[max(0, start - 5) : start].rstrip(" :：\t"), text[end : end + 3].lstrip()
    data = _data()
    if one.test == "titled" and before.endswith(("老", "小", "阿")):
        return not before.endswith(("大小", "中小", "从小", "缩小", "较小"))
    if behind.startswith(tuple(data["han_after"])):
        return True
    word = one.key in _set_of_words("zh")
    if not HAN_SIGN.match(text, start - 1 if start else len(text)) and one.test == "han":
        if HAN_AGED.match(text, end) and one.kind in NAMES:
            return True
        if not word and len(one.key) > 1 and not HAN_SIGN.match(text, end):
            return True  # alone between signs
    if one.kind == "address":
        native = not word and NATIVE.match(text, end) is not None
        return True if native or before.endswith(tuple(data["han_places"])) else None
    if one.test == "han" and before.endswith(tuple(data["han_before"])):
        return True
    return None if one.test == "han" and len(one.key) > 1 else False


HAN_SIGN, NATIVE = re.compile("[\u3400-\u9fff]"), re.compile("籍|人(?![民员工群体口])")
HAN_AGED = re.compile(
    r"[，,、;；：:|\s]{1,3}(?:性别[:：]?)?(?:[男女](?![性人子童孩])|\d{1,3}\s?岁)"
)
"""A sex or an age, behind what is a name then."""


# What is looked for


@cache
def _data() -> Mapping[str, Any]:
    import yaml

    found: Mapping[str, Any] = yaml.safe_load(
        (Path(__file__).parent / "data/known.yaml").read_text("utf-8")
    )
    return found


@cache
def _cues() -> dict[str, str]:
    """Words before a place, plain -> what they lead to."""
    data = _data()
    named = (("places", "place"), ("weak", "weak"), ("strong", "strong"))
    return {plain(word): cue for key, cue in named for word in data[key]}


@cache
def _vetoes() -> frozenset[str]:
    return frozenset(name_data("vi")["vetoes"])


@cache
def common(lang: str) -> frozenset[str]:
    """Plain words that are names and common words alike."""
    words: set[str] = set()
    for own in (lang,) if lang in ("vi", "en") else ("vi", "en"):
        for name in ("common", "ambiguous", "stops", "words"):
            words.update(map(squeeze, name_data(own).get(name, ())))
        eponyms = {squeeze(word) for word in name_data(own)["vetoes"]} if own == "en" else set()
        words -= eponyms.difference(map(squeeze, name_data("en")["ambiguous"]))
        words.update(map(squeeze, _data()["words"][own]))
    return frozenset(words)


@cache
def _set(name: str) -> frozenset[str]:
    """A list of the data, in normal form."""
    return frozenset(map(squeeze, _data()[name]))


@lru_cache(maxsize=1 << 10)  # clinicians and places come again
def variants(kind: str, value: str, lang: str) -> tuple[Variant, ...]:
    """The ways in which an identifier may be written."""
    return tuple(_variants(kind, value, lang))


def _variants(kind: str, value: str, lang: str) -> Iterator[Variant]:
    bare = narrow(normalize("NFC", value)).strip()
    if kind in NAMES:
        yield from _name_variants(kind, bare, lang)
    elif kind in CODES:
        yield from _code_variants(kind, bare, lang)
    elif kind == "address":
        yield from _address_variants(bare, lang)
    elif kind == "birth_date":
        yield from _day_variants(bare, lang)
    elif kind == "email" and "@" in bare:
        yield from _email_variants(bare)
    elif kind not in DATES and len(key := squeeze(bare)) >= SHORTEST_CODE:
        yield Variant(key, kind)


def _day_variants(value: str, lang: str) -> Iterator[Variant]:
    """A day of birth in digits, which may be badly read or parted (``l2/O3/1 960``)."""
    for day in days_of(value, lang):
        year, months, days = (
            f"{day.year}",
            {f"{day:%m}", f"{day.month}"},
            {f"{day:%d}", f"{day.day}"},
        )
        for month, number in product(sorted(months), sorted(days)):
            yield Variant(f"{year}年{month}月{number}", "birth_date", code=True)
            if len(month) == len(number) == 2 or len(month + number) > 2:
                orders = [(year, month, number), (number, month, year)]
                orders += [(month, number, year)] if lang == "en" else []
                yield from (Variant("".join(o), "birth_date", code=True) for o in orders)


COUNTRY = re.compile(
    r"\A\s*(?:\+|00)\s*(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|\d{3})"
)


AREA = re.compile(r"\(?0\d{2,3}\)?[ .\-]+(\d[\d .\-]{6,9})")
"""A number with an area's code before it, without which it is dialled nearby."""


def _code_variants(kind: str, value: str, lang: str) -> Iterator[Variant]:
    key = squeeze(value).translate(CONFUSED)
    if len(key) < SHORTEST_CODE or not any(map(str.isdigit, squeeze(value))):
        return
    yield Variant(key, kind, code=True)
    digits = re.sub(r"\D", "", squeeze(value))
    if kind == "phone" and len(digits) >= 8:
        local = re.sub(r"\D", "", COUNTRY.sub("", value))
        if len(digits) == len(local):
            local = re.sub(r"^1(?=\d{10}$)" if lang == "en" else r"^(?:84|86)(?=\d{8})", "", local)
        yield Variant(local.lstrip("0"), kind, code=True)
        near = local[-7:] if lang == "en" and len(local) == 10 else ""
        if parted := AREA.fullmatch(value.strip()):
            near = re.sub(r"\D", "", parted[1])
        if len(near) > 6 and near[0] not in "01":
            yield Variant(near, kind, code=True)
    elif digits != key and len(digits) >= 6:
        yield Variant(digits, kind, code=True)


def _email_variants(value: str) -> Iterator[Variant]:
    """As it is, and spoken: ``b.odell (at) example [dot] org``."""
    login, _, host = value.rpartition("@")
    if (bare := login.partition("+")[0]) and bare != login:
        yield from _email_variants(f"{bare}@{host}")
    spoken = (("at", "dot"), ("acong", "cham"), ("amoc", "cham"), ("圈a", "点"), ("艾特", "点"))
    logins, hosts = ([squeeze(part) for part in re.split(r"\.", one)] for one in (login, host))
    part = max(hosts, key=len)
    for at, dot in spoken:
        for join, left, right in product(("", at), ("", dot), ("", dot)):
            yield Variant(left.join(logins) + join + right.join(hosts), "email", part=part)
    if len(key := squeeze(login)) >= 5 and (key != login or any(map(str.isdigit, login))):
        yield Variant(key, "email")


# Names


def _name_variants(kind: str, name: str, lang: str) -> Iterator[Variant]:
    family, comma, given = name.partition(",")
    if comma and squeeze(given):
        name = f"{given} {family}"
    words = [word for word in re.split(r"[\s,·・./;()]+", name) if squeeze(word)]
    words = _untitled(words)
    if not words:
        return
    if any("\u3040" <= sign < "\ue000" for sign in name):
        yield from _eastern(kind, words, lang)
        return
    vietnamese = lang == "vi" and all(SYLLABLE.fullmatch(plain(word)) for word in words)
    for spelled in _spellings(words):
        yield from _western(kind, spelled, lang, vietnamese)


def _untitled(words: list[str]) -> list[str]:
    """A name without titles before it and numbers of generations behind; a title may be a given
    name too (``Trâm Anh``)."""
    titles, behind = _set("titles"), _set("generations")
    first, last = 0, len(words)
    while first < last - 1 and squeeze(words[first]) in titles:
        first += 1
    while last > first + 1 and squeeze(words[last - 1]) in behind:
        last -= 1
    return words[first:last]


SYLLABLE = re.compile(
    r"(?:ngh|ch|gh|gi|kh|ng|nh|ph|qu|th|tr|[bcdghklmnpqrstvx])?[aeiouy]{1,3}(?:ch|ng|nh|[cmnpt])?"
)
GERMAN = str.maketrans(
    {
        "ä": "ae",
        "ö": "oe",
        "ü": "ue",
        "å": "aa",
        "ø": "oe",
        "Ä": "Ae",
        "Ö": "Oe",
        "Ü": "Ue",
        "Å": "Aa",
        "Ø": "Oe",
    }
)


def _spellings(words: list[str]) -> Iterator[list[str]]:
    """A name as it is, with the letters of German and the Nordic languages written as two, and the
    other way round."""
    yield words
    wide = [word.translate(GERMAN) for word in words]
    slim = [re.sub("(?i)(?<=[aou])e|(?<=a)a", "", word) for word in words]
    for other in (wide, slim):
        if other != words and all(map(squeeze, other)):
            yield other


def _western(kind: str, words: list[str], lang: str, vietnamese: bool) -> Iterator[Variant]:
    """A name whose words stand apart, given name first or last."""
    keys = [squeeze(word) for word in words]
    count = len(keys)
    if count > 1:
        ordinary = not vietnamese and not common(lang).isdisjoint(keys)
        ordinary = ordinary and (lang == "en" or common(lang).issuperset(keys))
        rare = not common(lang).issuperset(keys)
        yield from _orders(kind, keys, words, vietnamese, ordinary, rare)
        yield from _shortened(kind, keys, small(" ".join(words)))
        if len(pieces := [key for key in map(squeeze, re.split(HYPHEN, words[0])) if key]) > 1:
            yield from _shortened(kind, [*pieces, *keys[1:]])  # M.-K. Olsen
    if vietnamese:
        yield from _misread(kind, keys[-1])
        yield _alone(kind, words[-1], lang, "common" if keys[-1] in common(lang) else "capital")
        if count > 1:
            yield _alone(kind, words[0], lang, "cued")
        return
    pieces = [piece for word in words for piece in (word, *re.split(HYPHEN, word))]
    particles = _set("particles")
    for piece in dict.fromkeys(pieces):
        key = squeeze(piece)
        if len(key) > 1 and (key not in particles or count == 1):
            yield from _misread(kind, key)
            known = key in common(lang) or (lang == "vi" and key in common("en"))
            yield Variant(key, kind, "common" if known else "cued" if len(key) < 3 else "")


HYPHEN = "[\\-\u2010-\u2015]"


def _misread(kind: str, key: str) -> Iterator[Variant]:
    """A word in which a letter was read as the digit that looks like it (``J0hn``)."""
    read = key.translate(CONFUSED)
    if len(key) > 2 and read != key and sum(map(str.isalpha, read)) > 1:
        yield Variant(read, kind, "misread", code=True)


def _alone(kind: str, word: str, lang: str, test: Test) -> Variant:
    return Variant(squeeze(word), kind, test, marked=small(word))


def _orders(
    kind: str, keys: list[str], words: list[str], vietnamese: bool, ordinary: bool, rare: bool
) -> Iterator[Variant]:
    """The words of a name in every order, or but some of them: another order than its own with
    capitals only, where some are ordinary words or there are but two; in small letters too where
    one of them (``rare``) is no ordinary word."""
    count = len(keys)
    every = range(count)
    chosen: list[tuple[int, ...]] = (
        [*permutations(every)]
        if count < 4
        else [
            tuple(every),
            (count - 1, *range(count - 1)),
            (*range(1, count), 0),
            tuple(reversed(every)),
        ]
    )
    if count > 2:
        chosen += [(0, count - 1), (count - 1, 0)]
        chosen += [tuple(range(first, count)) for first in range(1, count - 1)]
        chosen += [tuple(range(last)) for last in range(2, count)] if not vietnamese else []
    for places in chosen:
        key = "".join(keys[at] for at in places)
        if len(key) < 4:
            continue
        loose = len(places) == count > 2 or not vietnamese
        marked = "" if loose else small(" ".join(words[at] for at in places))
        own = places == tuple(sorted(places))
        parted = count > len(places) and any(len(keys[at]) == 1 for at in places)
        other = not own and (ordinary or vietnamese)
        test: Test = "ordered" if other or parted else ""
        if test and rare and count == len(places):
            test = "swapped"
        starts = (0, *accumulate(len(keys[at]) for at in places[:-1])) if test else ()
        lower = {start for start, at in zip(starts, places, strict=False) if words[at][0].islower()}
        starts = tuple(start for start in starts if start not in lower)
        part = max((keys[at] for at in places), key=len)
        yield Variant(key, kind, test, part=part, marked=marked, capitals=starts)


def _shortened(kind: str, keys: list[str], marked: str = "") -> Iterator[Variant]:
    """With initials: ``L.T. Hoa``, ``LTHoa``, ``Lê T Hoa``, ``Hoa LT``, ``J Smith``, ``Smith JA``,
    ``John S.``."""
    first, *middle, last = keys
    heads = "".join(key[0] for key in middle)
    forms = [
        [first[0], *heads, last],
        [last, first[0], *heads],
        [first[0], last],
        [last, first[0]],
        [first, last[0]],
        [first, *heads, last],
        [last[0], *heads, first],
        [*heads, last],
        [last, first, *heads],
        [first, *heads, last[0]],
    ]
    if len(middle) > 1:
        forms += [
            [first, middle[0], *heads[1:], last],
            [first[0], *heads[:-1], middle[-1], last],
            [first[0], middle[-1], last],
        ]
    elif middle:
        forms += [[first[0], middle[0], last]]
    forms += [[first[0], *heads, last[0]], [first[0], last[0]]]
    for form in forms:
        if len(form) < 2 or (all(len(piece) > 1 for piece in form)):
            continue
        ends = [0]
        for piece in form:
            ends.append(ends[-1] + len(piece))
        longest = max(form, key=len)
        part = longest if len(longest) > 1 else ""
        capitals = tuple(ends[:-1])
        yield Variant("".join(form), kind, "initials", part=part, marked=marked, capitals=capitals)


def _eastern(kind: str, words: list[str], lang: str) -> Iterator[Variant]:
    """A name in Chinese, Japanese or Korean signs: whole, by its parts where something around them
    tells, in pinyin."""
    keys = [squeeze(word) for word in words]
    whole = "".join(keys)
    han = all("\u3400" <= sign < "\ua000" for sign in whole)
    if len(keys) > 1:
        yield from (Variant("".join(order), kind) for order in permutations(keys[:4]))
        ordinary = _set_of_words("zh")
        for key in (key for key in keys if len(key) > 1):
            yield Variant(key, kind, "han" if len(key) < 3 and key in ordinary else "")
    word = whole in _set_of_words("zh")
    yield Variant(whole, kind, "han" if word or len(whole) == 1 else "")
    if not han or not 2 <= len(whole) <= 4 or len(keys) > 2:
        return
    cut = (
        len(keys[0])
        if len(keys) == 2
        else 2
        if whole[:2] in name_data("zh")["compound"] and len(whole) > 2
        else 1
    )
    yield Variant(whole[:cut], kind, "titled")
    if len(whole) - cut > 1:
        yield Variant(whole[cut:], kind, "han")
    for family, given in _sounds(whole, cut):
        name = [family, *given]
        for form in ([family, "".join(given)], ["".join(given), family], [*given, family], name):
            key = "".join(form)
            capitals = (0, len(form[0])) if len(form) == 2 else (0,)
            yield Variant(
                key, kind, "initials" if len(key) < 6 else "", part=family, capitals=capitals
            )
        yield from _shortened(kind, ["".join(given), family])
        letters = "".join(sound[0] for sound in name)
        for key in {letters, letters[1:] + letters[0]}:
            yield Variant(key, kind, "initials", capitals=tuple(range(len(key))))
        if len(key := "".join(given)) > 5:
            yield Variant(key, kind)
        yield Variant(family, kind, "cued")


@cache
def _set_of_words(lang: str) -> frozenset[str]:
    return frozenset(map(squeeze, (*_data()["words"][lang], *name_data(lang)["vetoes"])))


@lru_cache(maxsize=1 << 10)
def _sounds(name: str, cut: int) -> list[tuple[str, tuple[str, ...]]]:
    """(family, given) of a Chinese name in pinyin, plain, as its signs may be read."""
    from pypinyin import Style, pinyin

    found = [
        list(dict.fromkeys(map(squeeze, sounds)))
        for sounds in pinyin(name, Style.NORMAL, heteronym=True)
    ]
    wide = [
        [*sounds, *(s.replace("v", u) for s in sounds if "v" in s for u in ("u", "yu"))]
        for sounds in found
    ]
    read = list(product(*wide))[:12]
    return [("".join(one[:cut]), one[cut:]) for one in read]


# Addresses

POSTCODE = re.compile(
    r"(?<![\w-])(?:\d{5}(?:-?\d{4})?|\d{6}|[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}|[A-Z]\d[A-Z]\s?\d[A-Z]\d)(?![\w-])"
)
HAN_UNIT = re.compile(
    r"([\u3400-\u9fff]{1,8}?)(特别行政区|自治区|自治州|新区|省|市|州|盟|区|县|旗|镇|乡|街道|村|小区|社区|新村|花园|大道|路|街|巷|弄|胡同)"
)
HAN_PLACES = frozenset("省市区县镇乡村州") | {"自治区", "新区"}


def _address_variants(value: str, lang: str) -> Iterator[Variant]:
    yield from (Variant(squeeze(code[0]), "address") for code in POSTCODE.finditer(value))
    parts = re.split(r"[,，;；\n、]|\s[-–]\s", value)
    for key in map(squeeze, (value, *(part for part in parts if re.search(r"\d", part)))):
        if len(key) >= (8 if key.isascii() else 5):
            yield Variant(key, "address")
    for part in parts:
        yield from _streets(part)
        yield from _places(part, lang)
    seen = 0
    for match in HAN_UNIT.finditer(squeeze(value)):
        if match.start() != seen and len(match[1]) > 5:
            continue
        seen = match.end()
        if len(match[0]) > 2:
            yield Variant(
                match[0], "address", "" if len(match[0]) > 3 or match[2] in HAN_PLACES else "han"
            )
        if number := re.match(r"\d+(?:组|号|队|社|栋|室)", match.string[match.end() :]):
            yield Variant(match[0] + number[0], "address")
        if match[2] in HAN_PLACES and len(match[1]) > 1:
            yield Variant(match[1], "address", "han" if len(match[1]) < 3 else "")


def _streets(part: str) -> Iterator[Variant]:
    """A street with its number: its kind in any of its spellings, or without."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)?", part)
    for at, word in enumerate(words):
        kinds = next((kinds for kinds in _data()["streets"] if word.lower() in kinds), None)
        numbers = [n for n, one in enumerate(words[:at]) if one[0].isdigit()]
        if not kinds or not at or (numbers and numbers[-1] == at - 1):
            continue
        core = "".join(map(squeeze, words[(numbers[-1] + 1 if numbers else 0) : at]))
        number = squeeze(words[numbers[-1]]) if numbers else ""
        for kind in (*kinds, ""):
            if len(key := number + core + kind) >= 6 and (number or kind):
                yield Variant(key, "address", part=core)
            if kind and len(core + kind) >= 6:
                yield Variant(core + kind, "address", part=core)
        if len(core) > 4 and core not in common("en"):
            yield Variant(core, "address", "place")


def _places(part: str, lang: str) -> Iterator[Variant]:
    """The place that a part of an address names, without its number and unit."""
    every = [word for word in re.split(r"[\s.]+", part) if word]
    words = [word for word in every if not any(map(str.isdigit, word))]
    units = _set("units")
    while words and (squeeze("".join(words[:2])) in units or squeeze(words[0]) in units):
        words = words[2:] if squeeze("".join(words[:2])) in units and len(words) > 2 else words[1:]
    key = squeeze("".join(words))
    if not key or key[0] >= "\u3400" or key in _set("countries") or len(key) < 3:
        return
    marked = (
        " ".join(map(small, words))
        if lang == "vi" and all(SYLLABLE.fullmatch(plain(w)) for w in words)
        else ""
    )
    ordinary = key in common(lang) or (bool(marked) and len(words) == 1) or len(key) < 4
    yield Variant(key, "address", "place" if ordinary else "", marked=marked)
    numbers = [squeeze(word) for word in every if word[0].isdigit()]
    if numbers and len(key) > 5:
        yield Variant(numbers[-1] + key, "address", part=key, marked=marked)


def days_of(value: str, lang: str) -> Iterator[date]:
    """The days that a value of the row may mean; several where day and month could be either."""
    try:
        yield date.fromisoformat(value.strip()[:10])
    except ValueError:
        for own in dict.fromkeys((lang, "vi", "en")):
            for mention in find_dates(value, own):
                if mention.value is not None and mention.precision == "day":
                    yield mention.value
