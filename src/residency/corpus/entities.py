"""Entities as JSON writes them: dicts whose keys have names, or lists of start, end and label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from residency.core.part import Part
from residency.corpus.reader import require
from residency.corpus.span_repair import Raw

NOT_A_NUMBER = "offset of a span is not a whole number"
NO_END = "span has neither an end nor a quote"
ALIASES = {
    "start": ("start_idx", "start_offset", "startOffset", "begin", "start_pos", "start_char"),
    "end": ("end_idx", "end_offset", "endOffset", "end_pos", "end_char", "stop"),
    "label": ("type", "label_type", "entity_type", "entity_group", "tag", "category"),
    "quote": ("quote", "entity", "mention", "word", "surface"),
}
"""What else the keys are called where they have not the names of the settings, and these were not
given on purpose."""
NOT_A_SPAN = "span is neither a dict nor a list of start, end and label"


class EntityKeys(Part):
    """What the keys of an entity are called."""

    start: str = "start"
    """Where it begins, from 0."""
    end: str = "end"
    """Where it is absent, the end follows from the quote."""
    label: str = "label"
    """What it is."""
    quote: str = "text"
    """The text of the span; without it offsets cannot be proved."""


def read_entities(
    value: object, keys: EntityKeys, where: str, setting: str
) -> tuple[Raw, ...] | str:
    """The entities of one row, or why there are none.

    Offsets may be strings of digits. Raises ``DataError`` for a dict without its start or label.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        return "entities are not a list"
    return tuple(_entity(item, keys, where, setting, number) for number, item in enumerate(value))


def _entity(item: object, keys: EntityKeys, where: str, setting: str, number: int) -> Raw:
    if isinstance(item, Mapping):
        return _from_mapping(item, keys, where, setting, number)
    if isinstance(item, list) and len(item) >= 3 and isinstance(item[2], str):
        start, end = _offset(item[0]), _offset(item[1])
        if start is None or end is None:
            return _bad(item[2], NOT_A_NUMBER)
        return Raw(fragments=((start, end),), label=item[2], key=str(number))
    return _bad("", NOT_A_SPAN)


def _from_mapping(
    item: Mapping[str, Any], keys: EntityKeys, where: str, setting: str, number: int
) -> Raw:
    start_key, end_key, label_key, quote_key = (name_of(item, keys, key) for key in ALIASES)
    wanted = ((start_key, f"{setting}.start"), (label_key, f"{setting}.label"))
    require(where, "key of an entity", item, wanted)
    label, quote = item[label_key], item.get(quote_key)
    if not isinstance(label, str) or not label:
        return _bad("", "span has no label")
    quote = quote if isinstance(quote, str) else ""
    start = _offset(item[start_key])
    end = _offset(item[end_key]) if end_key in item else None
    if start is None or (end_key in item and end is None):
        return _bad(label, NOT_A_NUMBER)
    if end is None and not quote:
        return _bad(label, NO_END)
    attributes, score = item.get("attributes"), item.get("score")
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    return Raw(
        fragments=((start, start + len(quote) if end is None else end),),
        label=label,
        quote=quote,
        code=_string(item.get("code")),
        attributes=tuple(a for a in attributes if isinstance(a, str))
        if isinstance(attributes, list)
        else (),
        by=_string(item.get("by")),
        score=float(score) if is_number and score is not None else None,
        key=str(number),
    )


def name_of(item: Mapping[str, Any], keys: EntityKeys, key: str) -> str:
    """What a key of an entity is called in it."""
    named: str = getattr(keys, key)
    if named in item or key in keys.model_fields_set:
        return named
    return next((name for name in ALIASES[key] if name in item), named)


def looks_like_entities(value: object) -> bool:
    """Whether a value is a list of spans, whatever their keys are called."""
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, Mapping):
        ends = ({*ALIASES[key], key} & set(first) for key in ("start", "end"))
        return all(ends)
    return (
        isinstance(first, list)
        and len(first) > 2
        and None not in (_offset(first[0]), _offset(first[1]))
        and isinstance(first[2], str)
    )


def _bad(label: str, fault: str) -> Raw:
    return Raw(fragments=(), label=label, fault=fault)


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _offset(value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if value.strip().isdecimal() and len(value) < 19 else None
    if isinstance(value, float) and value.is_integer():  # as pandas writes a column that has gaps
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
