"""What the generator of invented records knows, read from ``data/``: conditions, terms, and each
language's style."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from residency.core.errors import UserError, allowed

LANGS = ("vi", "zh", "en")
DATA = Path(__file__).parent / "data"

Names = tuple[str, ...]


class Drug(NamedTuple):
    """A medicine: names, strengths, route, and how often it is given."""

    key: str
    names: Names
    strengths: Names
    routes: Names
    """In hospital, and at home where that differs."""
    times: Names


class Test(NamedTuple):
    """A laboratory value (``ranges`` by ``-``, ``=``, ``+``) or a study (``findings``)."""

    key: str
    names: Names
    unit: str
    digits: int
    ranges: dict[str, tuple[float, float]]
    findings: dict[str, Names]


class Procedure(NamedTuple):
    """An operation, or care that is given."""

    names: Names
    operation: bool


class Past(NamedTuple):
    """An operation or illness of the past, and whom it fits."""

    names: Names
    operation: bool
    sex: str
    youngest: int
    never_with: frozenset[str]


class Allergen(NamedTuple):
    """An allergen, and the drugs that its carrier must not get."""

    names: Names
    avoid: frozenset[str]


class Condition(NamedTuple):
    """A disease with what goes with it."""

    key: str
    code: str
    names: Names
    standing_code: str
    standing_names: Names
    """Code and names as a long-standing illness."""
    ages: tuple[int, int]
    sex: str
    scale: str
    """Of the onset: hours, days, weeks, months or years."""
    systems: Names
    symptoms: Names
    signs: Names
    tests: tuple[tuple[str, str], ...]
    """(test, direction or finding)"""
    drugs: Names
    procedures: Names
    differential: Names
    comorbid: Names


Template = tuple[tuple[str, ...], ...]
"""Pieces: ``("text", words)``, ``("slot", name)`` or ``("number", low, high, "c" for Chinese
numerals)``."""


class NoteSection(NamedTuple):
    """A part of a note: its headings and sentences."""

    heads: Names
    full: tuple[Template, ...]
    terse: tuple[Template, ...]


class Style(NamedTuple):
    """How notes of a language are written."""

    words: dict[str, dict[str, str]]
    lists: dict[str, tuple[tuple[str, str], ...]]
    gaps: dict[str, Names]
    phrases: dict[str, Names]
    units: dict[str, str]
    routes: dict[str, Names]
    frequencies: dict[str, Names]
    doses: Names
    times: dict[str, tuple[Template, ...]]
    normal: tuple[tuple[str, Template], ...]
    sections: dict[str, NoteSection]


class Knowledge(NamedTuple):
    """All of it, in one language."""

    symptoms: dict[str, Names]
    signs: dict[str, Names]
    drugs: dict[str, Drug]
    tests: dict[str, Test]
    procedures: dict[str, Procedure]
    past: dict[str, Past]
    allergens: dict[str, Allergen]
    conditions: dict[str, Condition]
    denied: dict[str, frozenset[str]]
    """Symptoms that notes deny, each with those beside which it would contradict itself."""
    absent_signs: dict[str, frozenset[str]]
    style: Style


@cache
def knowledge(lang: str) -> Knowledge:
    """The knowledge in ``vi``, ``zh`` or ``en``; raises ``UserError`` for another language."""
    if lang not in LANGS:
        raise UserError(
            f"lang: {lang!r} is not a language of the generator of records; {allowed(LANGS, lang)}."
        )
    place, terms = LANGS.index(lang), _read("terms")
    flat = {
        kind: {key: _names(row, place) for key, row in terms[kind].items()}
        for kind in ("symptoms", "signs")
    }
    procedures = {
        key: Procedure(_names(row, place), kind == "operations")
        for kind in ("operations", "care")
        for key, row in terms[kind].items()
    }
    return Knowledge(
        flat["symptoms"],
        flat["signs"],
        {
            key: Drug(key, _names(names, place), _parts(strengths), _words(routes), _words(times))
            for key, (names, strengths, routes, times) in terms["drugs"].items()
        },
        {key: _lab(key, row, place) for key, row in terms["labs"].items()}
        | {key: _study(key, row, place) for key, row in terms["studies"].items()},
        procedures,
        {key: _past(row, place) for key, row in terms["past"].items()},
        {
            key: Allergen(_names(names, place), frozenset(_words(avoid)))
            for key, (names, avoid) in terms["allergens"].items()
        },
        {key: _condition(key, row, place) for key, row in _read("conditions").items()},
        {key: frozenset(_words(others)) for key, others in terms["denied"].items()},
        {key: frozenset(_words(others)) for key, others in terms["absent_signs"].items()},
        _style(_read(lang)),
    )


def _read(name: str) -> dict[str, Any]:
    text = (DATA / f"{name}.yaml").read_text("utf-8")
    value: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return value


def _parts(text: object) -> Names:
    return tuple(str(text).split("|"))


def _words(text: object) -> Names:
    return tuple(str(text).split())


def _names(row: object, place: int) -> Names:
    """One language's variants of ``vi|vi / zh / en``; a row in one piece serves all."""
    languages = str(row).split(" / ")
    return _parts(languages[place] if len(languages) > 1 else languages[0])


def _lab(key: str, row: list[Any], place: int) -> Test:
    names, unit, digits, *ranges = row
    bounds = [tuple(float(bound) for bound in str(pair).split("-")) for pair in ranges]
    by_direction = {sign: (low, high) for sign, (low, high) in zip("-=+", bounds, strict=True)}
    return Test(key, _names(names, place), _names(unit, place)[0], int(digits), by_direction, {})


def _study(key: str, row: dict[str, str], place: int) -> Test:
    findings = {name: _names(value, place) for name, value in row.items() if name != "names"}
    return Test(key, _names(row["names"], place), "", 0, {}, findings)


def _past(row: list[Any], place: int) -> Past:
    names, sex, kind, youngest, never_with = row
    return Past(
        _names(names, place), kind == "op", sex, int(youngest), frozenset(_words(never_with))
    )


def _condition(key: str, row: list[Any], place: int) -> Condition:
    codes, names, who, scale, systems, *lists = row
    code, _, standing_code = str(codes).partition(" ")
    variants = _names(names, place)
    symptoms, signs, tests, drugs, procedures, differential, comorbid = (
        _words(words) for words in lists
    )
    ages, _, sex = str(who).partition(" ")
    low, high = ages.split("-")
    results = tuple(
        (t[:-1], t[-1]) if t[-1] in "-=+" else (t.partition(".")[0], t.partition(".")[2])
        for t in tests
    )
    return Condition(
        key,
        code,
        tuple(name.rstrip("!") for name in variants if not name.endswith("~")),
        standing_code or code,
        tuple(name.rstrip("~") for name in variants if not name.endswith("!")),
        (int(low), int(high)),
        sex or "any",
        scale,
        _words(systems),
        symptoms,
        signs,
        results,
        drugs,
        procedures,
        differential,
        comorbid,
    )


_PIECE = re.compile(r"\{(\w+)\}|<(c?)(\d+)-(\d+)>")


def template(text: str) -> Template:
    """Take a sentence apart: words, ``{slots}`` and ``<low-high>`` numbers (``<c2-9>`` in Chinese
    numerals)."""
    pieces: list[tuple[str, ...]] = []
    at = 0
    for match in _PIECE.finditer(text):
        if match.start() > at:
            pieces.append(("text", text[at : match.start()]))
        slot, chinese, low, high = match.groups()
        pieces.append(("slot", slot) if slot else ("number", low, high, chinese))
        at = match.end()
    if at < len(text):
        pieces.append(("text", text[at:]))
    return tuple(pieces)


def _templates(lines: str) -> tuple[Template, ...]:
    return tuple(template(line) for line in lines.splitlines() if line)


def _style(value: dict[str, Any]) -> Style:
    times = value["times"]
    phrases: dict[str, tuple[Template, ...]] = {}
    for name, lines in times.items():
        scales = lines if isinstance(lines, dict) else {"": lines}
        for scale, line in scales.items():
            phrases[name + scale] = tuple(template(part) for part in _parts(line))
    normal = [line.split("> ", 1) for line in value["normal"].splitlines()]
    return Style(
        value["words"],
        {
            kind: tuple((first, last) for first, last in pairs)
            for kind, pairs in value["lists"].items()
        },
        {name: tuple(value[name]) for name in ("lab_gap", "study_gap", "drug_gap")},
        {
            name: _parts(value[name])
            for name in ("raised", "lowered", "usual", "operation_verb", "care_verb")
        },
        value["units"],
        {name: _parts(line) for name, line in value["route"].items()},
        {name: _parts(line) for name, line in value["freq"].items()},
        tuple(value["dose"].splitlines()),
        phrases,
        tuple((system, template(text)) for system, text in normal),
        {
            name: NoteSection(
                _parts(section.get("head", "")),
                _templates(section["full"]),
                _templates(section.get("terse", "")),
            )
            for name, section in value["sections"].items()
        },
    )
