"""Invented addresses in the form of others. Every part (number, street, place, state, postcode) has
one surrogate for a patient, so that a part alone agrees with the whole."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from residency.deid.draws import Draw
from residency.deid.names.lists import LETTER, any_of
from residency.deid.persons import data
from residency.deid.view import narrow, plain

POSTCODE = re.compile(
    r"(?<![\w\-])(?:\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}"
    r"|[A-Z]\d[A-Z][ \-]?\d[A-Z]\d)\Z"
)
"""A postcode of the United States, Britain or Canada at the end."""
STATE = re.compile(r"(?<![\w'])[A-Z]{2}(?=,?\s*(?:\d|\Z))")
HAN = "\u4e00-\u9fff"


@cache
def _pattern(lang: str) -> re.Pattern[str]:
    """The words of an address that name something, and its numbers."""
    if lang == "zh":
        unit = "号楼|号院|特别行政区|自治[区州县旗]|街道|社区|小区|单元|大道|[省市区县旗镇乡村屯庄寨路街巷弄组号栋幢楼层室]"  # noqa: E501
        return re.compile(
            rf"(?<=\d)(?:{unit})+|(?P<name>[{HAN}]{{1,8}}?)(?P<unit>{unit})|\d+|(?P<rest>[{HAN}]+)"
        )
    unit = any_of(data()[lang]["units"])
    name = rf"(?!(?i:{unit})(?![{LETTER}]))[{LETTER}][{LETTER}'’.\-]*"
    return re.compile(rf"(?<![{LETTER}])(?P<name>{name}(?:[ ]{name})*)|\d+")


def address(value: str, lang: str, secret: bytes, attempt: str = "0") -> str:
    """An address in the form of another."""
    own = "zh" if any("\u4e00" <= sign <= "\u9fff" for sign in value) else lang
    own = "vi" if own == "vi" else "zh" if own == "zh" else "en"
    shown, tail, post = narrow(value), "", None
    if own == "en":
        shown = value.rstrip()
        post = POSTCODE.search(shown)
        if post:
            shown, tail = shown[: post.start()], value[post.start() :]
    region = Draw(secret, "address/region").choice(data()["en"]["regions"])

    def part(match: re.Match[str]) -> str:
        found = match.group()
        if own == "zh" and not match["name"] and not match["rest"] and not found.isdigit():
            return found  # what a number is of
        if found.isdigit():
            return _number(found, Draw(secret, f"address/{found}/{attempt}"))
        return _named(match, own, secret, attempt)

    if own == "en":
        shown = STATE.sub(lambda _: "\0", shown) if post or STATE.search(shown) else shown
    made = _pattern(own).sub(part, shown).replace("\0", region[0])
    return made + (_postcode(tail, region[1], secret) if post else "")


def _named(match: re.Match[str], own: str, secret: bytes, attempt: str) -> str:
    """Another name for a street or place."""
    name, lists = match["name"] or match.group(), data()[own]
    groups: dict[str, Any] = match.groupdict()
    unit = groups.get("unit") or ""
    key = plain(name)
    if own == "zh":
        if name.endswith(tuple("第一二三四五六七八九十")) and len(name) < 3:
            return match.group()
        street = unit in ("路", "街", "巷", "弄", "大道")
    else:
        behind = match.string[match.end() :].lstrip(" ").lower()
        before = plain(match.string[: match.start()]).rstrip(" .")
        types = lists["units"][:31]
        street = (
            before.endswith(("duong", "pho", "ngo", "hem"))
            if own == "vi"
            else re.match("|".join(types), behind) is not None and not before.endswith(",")
        )
    drawn = Draw(secret, f"address/{key}/{attempt}")
    pool = [one for one in lists["streets" if street else "places"] if plain(one) != key]
    new: str = drawn.choice(pool)
    if name.isupper() and len(name) > 1:
        new = new.upper()
    elif name.islower():
        new = new.lower()
    if own == "vi" and key == name.lower():
        pairs = zip(new, plain(new), strict=True)
        new = "".join(low.upper() if sign.isupper() else low for sign, low in pairs)
    return new + unit


def _number(found: str, rng: Draw) -> str:
    """As many digits; no leading zero where there was none."""
    lead = found[0] if found[0] == "0" else str(1 + rng.below(9))
    return lead + "".join(str(rng.below(10)) for _ in found[1:])


def _postcode(value: str, lead: str, secret: bytes) -> str:
    """A postcode for a postcode: one of the United States lies in the state of the address."""
    bare = value.strip()
    rng = Draw(secret, f"address/post/{plain(bare)[:5]}")
    if bare[:5].isdigit():
        more = Draw(secret, f"address/post/{bare}")
        new = lead + f"{rng.below(100):02d}"
        new += "-" + f"{more.below(10**4):04d}" if len(bare) > 5 else ""
    else:
        new = "".join(
            str(rng.below(10)) if s.isdigit() else rng.choice("ABDEFGHJLN") if s.isalpha() else s
            for s in bare
        )
    return value.replace(bare, new)
