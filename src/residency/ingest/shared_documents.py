"""Chinese shared documents (WS/T 500 and the formats of hospitals after it): CDA whose sections are
known by LOINC codes and whose words stand in their entries, each with the name of its data
element."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

ROOT = "2.16.156.10011."
"""What the object identifiers of the Chinese health standards begin with."""
ELEMENTS = f"{ROOT}2.2.1"
"""Catalogue of data elements (WS 363): its codes name what a value is."""
IDENTIFIERS = {
    f"{ROOT}1.3": "national_id",
    f"{ROOT}1.19": "insurance",
    **dict.fromkeys((f"{ROOT}1.{number}" for number in (10, 11, 12)), "admission"),
}
"""Root of an identifier -> its kind, where it is no record number: identity and health cards,
outpatient, emergency and admission numbers, which are of a visit and not of a person."""
SECTIONS = {
    "10154-3": "主诉",
    "10164-2": "现病史",
    "11348-0": "既往史",
    "29762-2": "个人史",
    "49033-4": "月经史",
    "10157-6": "家族史",
    "11369-6": "预防接种史",
    "56836-0": "输血史",
    "48765-2": "过敏史",
    "8716-3": "生命体征",
    "29545-1": "体格检查",
    "30954-2": "辅助检查",
    "11450-4": "主要健康问题",
    "29548-5": "诊断",
    "46241-6": "入院诊断",
    "11535-2": "出院诊断",
    "10219-4": "术前诊断",
    "10218-6": "术后诊断",
    "18776-5": "治疗计划",
    "8648-8": "住院过程",
    "46209-3": "医嘱",
    "10160-0": "用药",
    "47519-4": "手术操作",
    "59768-2": "手术操作",
    "59774-0": "麻醉",
    "48768-6": "费用",
}
"""LOINC code of a section -> how its title begins where the document gives none."""
PERSONS = ("assignedPerson", "relatedPerson", "associatedPerson", "subject", "playingEntity")
WHO = "characters left out: people named in entries (they are looked for in the note)"
SAME = "characters left out: entries that the narrative of their section holds"
LONG = 5
"""Characters from which on words are looked for in the narrative; a shorter value may stand there
by chance."""
TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
Reader = Callable[[Any], str]
"""What gives the words of an element that holds a narrative or an embedded document."""


def is_shared(root: Any) -> bool:
    """Whether a document is one of the Chinese standards."""
    roots = [one.get("root", "") for one in root.iterfind("{*}templateId")]
    code = root.find("{*}code")
    roots += [code.get("codeSystem", "")] if code is not None else []
    return any(one.startswith(ROOT) for one in roots)


def heading(section: Any) -> str:
    """The name of a section without a title, by its code."""
    code = section.find("{*}code")
    if code is None or (section.findtext("{*}title") or "").strip():
        return ""
    return SECTIONS.get(code.get("code", "")) or code.get("displayName", "").strip()


def entries(section: Any, named: str, said: str, words_of: Reader, left: Counter[str]) -> list[str]:
    """What the entries of a section say, a line for each value with the name of its element, save
    where that is the section's own (``named``). What its narrative (``said``) holds is counted."""
    lines: list[str] = []
    told = "".join(said.split())
    for entry in section.iterfind("{*}entry"):
        for label, words in _said(entry, words_of, left):
            solid = "".join(words.split())
            if len(solid) >= LONG and solid in told:
                left[SAME] += len(solid)
            else:
                lines.append(f"{label}：{words}" if label not in ("", named) else words)
    return lines


def _said(node: Any, words_of: Reader, left: Counter[str]) -> Iterator[tuple[str, str]]:
    """(name of the element, words) of what an entry and those inside of it say, in their order."""
    tag = node.tag.rpartition("}")[2]
    if tag in PERSONS:
        count = len("".join("".join(node.itertext()).split()))
        left.update({WHO: count} if count else {})
        return
    if tag in ("value", "text"):
        if words := _value(node, words_of):
            yield _label(node.getparent()), words
        return
    words = (node.text or "").strip() or (_coded(node) if tag == "code" else "")
    if words:
        yield "", words
    for child in node:
        yield from _said(child, words_of, left)
        if stray := (child.tail or "").strip():
            yield "", stray


def _label(observation: Any) -> str:
    code = observation.find("{*}code")
    return code.get("displayName", "").strip() if code is not None else ""


def _coded(code: Any) -> str:
    """The name of a code that is itself what is said, and does not name a value beside it."""
    own = code.get("codeSystem", "") != ELEMENTS and code.get("codeSystem")
    beside = code.getparent().find("{*}value") is not None
    return code.get("displayName", "").strip() if own and not beside else ""


def _value(node: Any, words_of: Reader) -> str:
    """A value in words: its text, the name of its code, its amount with the unit, yes or no; a
    time is none."""
    kind = node.get(TYPE, "").rpartition(":")[2]
    if "".join(node.itertext()).strip():
        return words_of(node)
    if kind == "TS":
        return ""
    value = str(node.get("value", "")).strip()
    if kind == "BL":
        return {"true": "是", "false": "否"}.get(value, value)
    amount = re.sub(r"\s+", " ", f"{value} {node.get('unit', '')}").strip() if value else ""
    named: str = node.get("displayName", "").strip()
    return named or amount or str(node.get("code", "")).strip()
