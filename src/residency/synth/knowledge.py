"""What the generator of invented records knows, read from ``data/``: conditions, terms, and each
language's style."""

from __future__ import annotations

import re
from collections.abc import Set
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

    def fits(self, age: int, sex: str, conditions: Set[str]) -> bool:
        """Whether a patient of these conditions may have had it."""
        may = self.sex in ("any", sex) and age >= self.youngest
        return may and self.never_with.isdisjoint(conditions)


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
    familial: Names
    """Diseases that are said to run in families."""
    common: Names
    """Long-standing diseases that many have."""
    style: Style


@cache
def knowledge(lang: str) -> Knowledge:
    """The knowledge in ``vi``, ``zh`` or ``en``; raises ``UserError`` for another language."""
    if lang not in LANGS:
        raise UserError(
            f"lang: {lang!r} is not a language of the generator of records; {allowed(LANGS, lang)}."
        )
    place, terms = LANGS.index(lang), read_data("terms")

    def named(kind: str) -> dict[str, Names]:
        return {key: _names(row, place) for key, row in terms[kind].items()}

    def beside(kind: str) -> dict[str, frozenset[str]]:
        return {key: frozenset(_words(others)) for key, others in terms[kind].items()}

    return Knowledge(
        symptoms=named("symptoms"),
        signs=named("signs"),
        drugs={
            key: Drug(key, _names(names, place), _parts(strengths), _words(routes), _words(times))
            for key, (names, strengths, routes, times) in terms["drugs"].items()
        },
        tests={
            **{key: _lab(key, row, place) for key, row in terms["labs"].items()},
            **{key: _study(key, row, place) for key, row in terms["studies"].items()},
        },
        procedures={
            key: Procedure(names, kind == "operations")
            for kind in ("operations", "care")
            for key, names in named(kind).items()
        },
        past={key: _past(row, place) for key, row in terms["past"].items()},
        allergens={
            key: Allergen(_names(names, place), frozenset(_words(avoid)))
            for key, (names, avoid) in terms["allergens"].items()
        },
        conditions={
            key: _condition(key, row, place) for key, row in read_data("conditions").items()
        },
        denied=beside("denied"),
        absent_signs=beside("absent_signs"),
        familial=_words(terms["familial"]),
        common=_words(terms["common"]),
        style=_style(read_data(lang)),
    )


@cache
def read_data(name: str) -> dict[str, Any]:
    """A file of ``data/``."""
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
    symptoms, signs, tests, *others = map(_words, lists)
    ages, _, sex = str(who).partition(" ")
    low, high = map(int, ages.split("-"))
    return Condition(
        key,
        code,
        tuple(name.rstrip("!") for name in variants if not name.endswith("~")),
        standing_code or code,
        tuple(name.rstrip("~") for name in variants if not name.endswith("!")),
        (low, high),
        sex or "any",
        scale,
        _words(systems),
        symptoms,
        signs,
        tuple(map(_outcome, tests)),
        *others,
    )


def _outcome(test: str) -> tuple[str, str]:
    """``crp+`` -> (crp, +), ``ct.mass`` -> (ct, mass)."""
    name, _, finding = test.partition(".")
    return (test[:-1], test[-1]) if test[-1] in "-=+" else (name, finding)


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
    phrases: dict[str, tuple[Template, ...]] = {}
    for name, lines in value["times"].items():
        for scale, line in (lines if isinstance(lines, dict) else {"": lines}).items():
            phrases[name + scale] = tuple(map(template, _parts(line)))
    normal = (line.split("> ", 1) for line in value["normal"].splitlines())
    words = ("raised", "lowered", "usual", "operation_verb", "care_verb")
    sections = {
        name: NoteSection(
            _parts(section.get("head", "")),
            _templates(section["full"]),
            _templates(section.get("terse", "")),
        )
        for name, section in value["sections"].items()
    }
    return Style(
        words=value["words"],
        lists={kind: tuple(map(tuple, pairs)) for kind, pairs in value["lists"].items()},
        gaps={name: tuple(value[name]) for name in ("lab_gap", "study_gap", "drug_gap")},
        phrases={name: _parts(value[name]) for name in words},
        units=value["units"],
        routes={name: _parts(line) for name, line in value["route"].items()},
        frequencies={name: _parts(line) for name, line in value["freq"].items()},
        doses=tuple(value["dose"].splitlines()),
        times=phrases,
        normal=tuple((system, template(text)) for system, text in normal),
        sections=sections,
    )
