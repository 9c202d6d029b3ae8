"""Checks that a value must pass after its form: checksums, and word lists that tell a place from
what only looks like one.

A check takes (value, text, where it begins) and gives what of the value is meant, by offsets from
its beginning (the first may be negative: the name before a word), or None where it is nothing. The
word lists stand in the rule packs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from residency.deid.names.lists import name_data
from residency.deid.packs import read_pack, word_set, words
from residency.deid.view import plain


@cache
def _leads_by_first() -> dict[str, tuple[str, ...]]:
    """Words that lead to a name, in their order, by their first sign."""
    found: dict[str, list[str]] = {}
    for lead in words("zh", "leads"):
        found.setdefault(lead[0], []).append(lead)
    return {first: tuple(leads) for first, leads in found.items()}


def _leads_in(name: str) -> list[str]:
    """The words that lead to a name and may stand in it."""
    known = _leads_by_first()
    return [lead for sign in known.keys() & set(name) for lead in known[sign]]


Meant = tuple[int, int] | None
"""What of a value is meant, by offsets from its beginning."""


def _luhn(value: str, text: str, start: int) -> Meant:
    from stdnum import luhn

    return (0, len(value)) if luhn.is_valid("".join(filter(str.isdigit, value))) else None


def _iban(value: str, text: str, start: int) -> Meant:
    """The checksum of ISO 13616; countries' own formats are not asked."""
    from stdnum import iban

    return (0, len(value)) if iban.is_valid(value, check_country=False) else None


def _ric(value: str, text: str, start: int) -> Meant:
    """The checksum of a Chinese identity number; its county table rejects valid ones and is not
    asked."""
    from stdnum.cn import ric

    compact = "".join(value.split()).upper()
    return (0, len(value)) if ric.calc_check_digit(compact) == compact[-1] else None


def _ric15(value: str, text: str, start: int) -> Meant:
    from calendar import monthrange

    year, month, day = 1900 + int(value[6:8]), int(value[8:10]), int(value[10:12])
    return (0, len(value)) if 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1] else None


def _vi_address(value: str, text: str, start: int) -> Meant:
    """An address has two parts, or one that is named (street, ward, district); a bare number is a
    room or a dose."""
    parts, units = word_set("vi", "address"), word_set("vi", "units")
    found = plain(value).replace(",", " ").replace(".", " ").split()
    before = plain(text[max(0, start - 14) : start]).rpartition("\n")[2].split()
    if found and found[0] == "tp" and before and before[-1] in word_set("vi", "before_total"):
        return None
    pairs = {(*before[-1:], *found[:1]), tuple(found[:2])}
    if not pairs.isdisjoint(_not_units()) or GENE.match(text, start):
        return None
    last = value.rstrip(" ,.-\n").rpartition(" ")[2]
    if not found or (found[-1] in units and last.islower()):
        return None
    if len(found) > 1 and found[1] in units and found[1] != "ho":
        return None
    capitals = (word for word in value.replace(",", " ").split() if word[0].isupper())
    if all(plain(word) in parts for word in capitals):
        return None
    if found[0] in word_set("vi", "loose") and "," not in value and len(found) < 3:
        return None
    if len(found[0]) == 1 and "." not in value[:3] and (found[0] != "q" or "," not in value):
        return None
    return 0, len(value.rstrip(" ,-\n"))


GENE = re.compile(r"TP\d")
"""A gene that looks like a city."""
VOWEL = re.compile("[aeiouy]")


@cache
def _not_units() -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(pair.split()) for pair in word_set("vi", "not_units"))


def _vi_street(value: str, text: str, start: int) -> Meant:
    """A number and a street of two words at least, or with a second part: one capitalised word is a
    drug or a unit."""
    parts = word_set("vi", "address")
    street, comma, rest = value.partition(",")
    found = [word for word in street.split()[1:] if plain(word) not in parts]
    if any(len(word) == 1 for word in found) or (len(found) < 2 and not comma) or "\n" in street:
        return None
    if found and plain(found[0]) in word_set("vi", "not_streets"):
        return None
    if found and found[0].isupper() and not VOWEL.search(plain(found[0])):
        return None  # an abbreviation
    named = any(plain(word).strip(".") in parts for word in rest.split())
    if comma and len(found) < 2 and not named:
        return None
    return 0, len(value.rstrip(" ,-\n"))


def _vi_organisation(value: str, text: str, start: int) -> Meant:
    """The head (``bệnh viện``), what it is for (``đa khoa khu vực``) and its own name; not a
    department (``phòng khám Nội``), and not what leads to a hospital (``ra viện``)."""
    folded = plain(value)
    head = next(word for word in _heads() if folded.startswith(word))
    before = plain(text[max(0, start - 8) : start]).strip().rpartition(" ")[2]
    led = {"vien": "before_hospital", "truong": "before_school"}.get(head)
    if led and before in word_set("vi", led):
        return None
    end = _vi_named(value, len(head), head not in word_set("vi", "short_heads"))
    return (0, end) if end else None


def _vi_named(value: str, at: int, sure: bool) -> int:
    """Where the name of an organisation ends that begins behind its head; 0 where there is none."""
    ends = word_set("vi", "not_names")
    shout, calm = value.isupper(), not any(sign.isupper() for sign in value[at:])
    end = taken = own = 0
    for word in value[at:].split():
        at = value.index(word, at) + len(word)
        key = plain(word).strip(SIGNS)
        number = key[:1].isdigit()
        name = word[:1].isupper() or number or word[0] in '“"' or calm
        if not key:
            continue
        within = own and word[:1].islower() and not calm
        trade = _among("trades", word, value) and not within
        if trade and (key not in ends or sure or taken):
            taken += 1
            end = at if word[:1].isupper() or own else end
            own += calm and own > 0
        elif not name or ((shout or calm) and key in ends) or (number and (len(key) > 4 or calm)):
            break
        elif not own and not taken and _among("wards", word, value):
            return 0
        else:
            own += 1
            end = at
            if calm and own == 3:
                break
    if calm and (not (taken or sure) or own < 2):
        return 0
    return len(value[:end].rstrip(" .,&-–")) if own else 0


def _among(name: str, word: str, value: str) -> bool:
    """Whether a word is in a list; where the whole value has marks, with the right ones (Phú is not
    phụ)."""
    if value.isascii():
        return plain(word).strip(SIGNS) in word_set("vi", name)
    return word.lower().strip(SIGNS) in words("vi", name)


SIGNS = '.,&"”“'


@cache
def _heads() -> tuple[str, ...]:
    """Words with which an organisation begins, the longest first."""
    (cues,) = (rule["cues"] for rule in read_pack("vi")["rules"] if rule["id"] == "organisation")
    return tuple(sorted(set(map(plain, cues)), key=len, reverse=True))


def _zh_address(value: str, text: str, start: int) -> Meant:
    leads = _leads_by_first().get(value[:1], ())
    cut = next((len(lead) for lead in leads if value.startswith(lead) and len(lead) > 1), 0)
    bare = value[cut:].strip(" 。，,；")
    if len(bare) < 3 or bare.startswith(words("zh", "not_places")) or bare.endswith("科"):
        return None
    return cut, len(value)


def _back(text: str, start: int, reach: int) -> str:
    """The Chinese signs directly before a place."""
    first = start
    while first > 0 and start - first < reach and "\u4e00" <= text[first - 1] <= "\u9fff":
        first -= 1
    return text[first:start]


def _led(name: str, least: int) -> str:
    """What of a name stands behind the last word that leads to one; some names begin with such a
    sign."""
    cut = 0
    for lead in _leads_in(name):
        place = name.rfind(lead)
        if 0 <= place <= len(name) - len(lead) - least and not name.startswith(
            words("zh", "not_leads"), place
        ):
            cut = max(cut, place + len(lead))
    return name[cut:]


def _zh_road(value: str, text: str, start: int) -> Meant:
    """A road with its number, back to a mark or to a word that leads to a place."""
    name = _led(_back(text, start, 16), 2)
    if len(name) < 2 or name.startswith(words("zh", "not_places")):
        return None
    return -len(name), len(value)


def _zh_village(value: str, text: str, start: int) -> Meant:
    """A village or quarter within another unit (``石桥镇李家村``): the name of one unit alone may
    be an ordinary word."""
    name = _led(_back(text, start, 16), 2)
    within = any(unit in name[1:] for unit in words("zh", "units"))
    if not within or name.startswith(words("zh", "not_places")):
        return None
    return -len(name), len(value)


def _zh_organisation(value: str, text: str, start: int) -> Meant:
    """The name before ``医院`` and the like: signs back to a mark, or a word that leads to one."""
    whole = _back(text, start, 14)
    cut, sure = 0, words("zh", "sure_leads")
    for lead in _leads_in(whole):
        place = whole.rfind(lead)
        end, least = place + len(lead), 0 if lead in sure else 2
        inner = whole.startswith(words("zh", "not_leads"), place)
        if place < 0 or len(whole) - end < least or inner:
            continue
        if len(lead) > 1 or place == 0 or len(whole) - place > 5 or lead in sure:
            cut = max(cut, end)
    name = whole[cut:]
    if len(name) < 2 or any(word in name for word in words("zh", "not_within")):
        return None
    if name.startswith(words("zh", "not_organisations")) or name.endswith(words("zh", "not_ends")):
        return None
    return -len(name), len(value)


def _en_organisation(value: str, text: str, start: int) -> Meant:
    """The capitalised words before ``Hospital`` and the like, without those that only lead to it
    (``The Hospital``)."""
    if not value[0].isupper():
        return _en_small(value, text, start)
    plains, keeps = word_set("en", "plain"), word_set("en", "plain_within")
    if "of" in value.split()[1:-1]:
        return 0, len(value)
    found = _capitalised(text, start)
    while found and (low := found[0].lower().strip("&")) in plains | {""} and low not in keeps:
        found.pop(0)
    if not found or all(word.lower() in plains for word in found):
        return None
    return -len(" ".join(found)) - 1, len(value)


@cache
def _en_words() -> frozenset[str]:
    """Words that stand capitalised and are of no name."""
    data = name_data("en")
    names = {word.lower() for word in data["more_families"]}
    return word_set("en", "plain") | _en_stops() | (frozenset(data["words"]) - names)


@cache
def _en_stops() -> frozenset[str]:
    return frozenset(word.lower() for word in name_data("en")["stops"])


def _en_place(value: str, text: str, start: int) -> Meant:
    """Capitalised words behind ``works at``, up to a sentence's end; one of them at least is no
    word of wards and plans."""
    end = value.find(". ") if ". " in value.replace("St. ", "St_ ") else len(value)
    value = value[:end].rstrip(".")
    heads = [word.lower().strip(".,'’") for word in value.split(" ") if word[:1].isupper()]
    known = [head in _en_words() for head in heads]
    if all(known) or len(heads) < 2 or (value.isupper() and any(known[:2])):
        return None
    return 0, len(value)


def _en_small(value: str, text: str, start: int) -> Meant:
    """An organisation in a line without capitals: the words before its kind, up to one that only
    leads to it."""
    line = text.rfind("\n", 0, start) + 1
    common = value.split(" ")[-1] in word_set("en", "common_places")
    if common or not text[line : start + len(value)].islower():
        return None
    found: list[str] = []
    for word in reversed(text[line:start].rstrip(" ").split(" ")[-4:]):
        if word in _en_stops() or not word[-1:].isalpha() or len(word) < 3:
            break
        found.insert(0, word)
    if all(word in _en_words() for word in found):
        return None
    return -len(" ".join(found)) - 1, len(value)


def _en_city(value: str, text: str, start: int) -> Meant:
    """The city before a state and its code."""
    before = text[:start].rstrip(" ,")
    found = _capitalised(before, len(before))
    return (len(before) - start - len(" ".join(found)), len(value)) if found else None


def _capitalised(text: str, end: int, ends: str = ".,;:!?)") -> list[str]:
    """The capitalised words of a name that ends here, in their order, ``of`` and the like within it
    too; one with a sign of ``ends`` behind it ends what stands before."""
    found: list[str] = []
    for word in reversed(text[max(0, end - 60) : end].rstrip(" ").rpartition("\n")[2].split(" ")):
        joins = found and word in ("of", "and", "the", "&", "for")
        if len(found) == 6 or not (word[:1].isupper() or joins):
            break
        if word[-1:] in ends and word not in ("St.", "Mt.", "Ft."):
            break
        found.insert(0, word)
    while found and not found[0][:1].isupper():
        found.pop(0)
    return found


CODED = re.compile(
    r"(?<![a-z])(?:snomed|sctid|loinc|rx ?norm|rxcui|pmid|pubmed|pmcid|doi|cpt|hcpcs|icd|nct|omim"
    r"|hgnc|mesh"
    r"|umls|atc|ndc|clinicaltrials|dbsnp|uniprot|refseq|meddra|hpo|cvx|unii|gtin|isbn|issn|orpha)"
    r"[a-z]{0,4}(?:[ \-]?(?:ct|cm|\d\d?|id|no|编码|代码|编号|码))*(?:[\s:#=.,;/|(]+|and|và|和|及"
    r"|[a-z]?\d[\w.\-]*)*\Z"
)
"""The name of a public code system, and codes of it, at the end of what stands before one."""


def coded(text: str, end: int) -> bool:
    """Whether a text up to a place ends with a public code system or codes of it (``SNOMED CT
    44054006``), in one line."""
    return CODED.search(text[max(0, end - 40) : end].lower().rpartition("\n")[2]) is not None


def _uncoded(value: str, text: str, start: int) -> Meant:
    """A number of a person, not a code of a public system."""
    return None if coded(text, start) else (0, len(value))


CHECKS: dict[str, Callable[[str, str, int], Meant]] = {
    "uncoded": _uncoded,
    "luhn": _luhn,
    "iban": _iban,
    "ric": _ric,
    "ric15": _ric15,
    "vi-address": _vi_address,
    "vi-organisation": _vi_organisation,
    "vi-street": _vi_street,
    "zh-address": _zh_address,
    "zh-road": _zh_road,
    "zh-village": _zh_village,
    "zh-organisation": _zh_organisation,
    "en-organisation": _en_organisation,
    "en-city": _en_city,
    "en-place": _en_place,
}
