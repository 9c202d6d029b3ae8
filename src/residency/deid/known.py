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
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from html import unescape
from unicodedata import normalize

from residency.deid.columns import under
from residency.deid.dates import DateMention, dates_of
from residency.deid.find import STRUCTURED, UNDECIDED, Finding
from residency.deid.names.lists import known_data, name_data
from residency.deid.squeeze import Squeezed, squeeze, squeezed
from residency.deid.variants import (
    DATES,
    NAMES,
    Variant,
    common,
    days_of,
    variants,
    words_of_names,
)
from residency.deid.view import View, plain, small
from residency.deid.words import is_one_word

WIDEST_GAP, WIDEST_GAP_IN_LONG, LONG = 5, 24, 8
"""Signs that may stand in a row between two of an identifier; in one of so many signs."""


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
        return text.startswith(tuple(known_data()["han_terms"]), end) or bool(DOSE.match(text, end))
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
    return re.compile(
        rf"(?:['’]s|s['’]?)?[ \-](?:{'|'.join(known_data()['eponymous'])})(?!\w)", re.I
    )


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
    words = known_data()["doing"].get(lang) or ["(?!)"]
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
    return frozenset(known_data()["abbreviations"])


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
    data = known_data()
    if one.test == "titled" and before.endswith(("老", "小", "阿")):
        return not before.endswith(("大小", "中小", "从小", "缩小", "较小"))
    if behind.startswith(tuple(data["han_after"])):
        return True
    word = one.key in words_of_names("zh")
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


@cache
def _cues() -> dict[str, str]:
    """Words before a place, plain -> what they lead to."""
    data = known_data()
    named = (("places", "place"), ("weak", "weak"), ("strong", "strong"))
    return {plain(word): cue for key, cue in named for word in data[key]}


@cache
def _vetoes() -> frozenset[str]:
    return frozenset(name_data("vi")["vetoes"])
