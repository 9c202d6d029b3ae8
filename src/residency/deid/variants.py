"""The ways in which an identifier of the row may be written: names in other orders, with initials,
by their parts, in pinyin; numbers and mail; days; addresses by their places."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from functools import cache, lru_cache
from itertools import accumulate, permutations, product
from typing import Literal
from unicodedata import normalize

from residency.core.types import Value
from residency.deid.dates import find_dates
from residency.deid.names.lists import known_data, name_data
from residency.deid.squeeze import CONFUSED, squeeze
from residency.deid.view import narrow, plain, small

NAMES = frozenset({"name", "relative", "clinician"})
CODES = frozenset({"record", "admission", "national_id", "insurance", "phone", "account", "plate"})
DATES = frozenset({"birth_date", "date"})
SHORTEST_CODE = 4
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


@cache
def common(lang: str) -> frozenset[str]:
    """Plain words that are names and common words alike."""
    words: set[str] = set()
    for own in (lang,) if lang in ("vi", "en") else ("vi", "en"):
        for name in ("common", "ambiguous", "stops", "words"):
            words.update(map(squeeze, name_data(own).get(name, ())))
        eponyms = {squeeze(word) for word in name_data(own)["vetoes"]} if own == "en" else set()
        words -= eponyms.difference(map(squeeze, name_data("en")["ambiguous"]))
        words.update(map(squeeze, known_data()["words"][own]))
    return frozenset(words)


@cache
def _listed(name: str) -> frozenset[str]:
    """A list of the data, in normal form."""
    return frozenset(map(squeeze, known_data()[name]))


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
    titles, behind = _listed("titles"), _listed("generations")
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
    particles = _listed("particles")
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
        ordinary = words_of_names("zh")
        for key in (key for key in keys if len(key) > 1):
            yield Variant(key, kind, "han" if len(key) < 3 and key in ordinary else "")
    word = whole in words_of_names("zh")
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
def words_of_names(lang: str) -> frozenset[str]:
    return frozenset(map(squeeze, (*known_data()["words"][lang], *name_data(lang)["vetoes"])))


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
        kinds = next((kinds for kinds in known_data()["streets"] if word.lower() in kinds), None)
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
    units = _listed("units")
    while words and (squeeze("".join(words[:2])) in units or squeeze(words[0]) in units):
        words = words[2:] if squeeze("".join(words[:2])) in units and len(words) > 2 else words[1:]
    key = squeeze("".join(words))
    if not key or key[0] >= "\u3400" or key in _listed("countries") or len(key) < 3:
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
