"""The worlds that the rules are measured on: whole, exact, large enough, and apart from one another
and from the rules' lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import residency.deid
from residency.synth.clinical_notes import LABELS
from residency.synth.hospital_notes import WORLD, notes, world
from residency.synth.planting import PIECES

WORLDS = Path(__file__).parent / "worlds"
BLIND = ("validation", "test")
LANGUAGES = ("vi", "zh", "en")
WITH_IDENTIFIERS = ("headers", "lines", "inserts", "footers")
CASES = [(lang, name) for lang in LANGUAGES for name in BLIND]
EVERY_KIND = {
    *(
        "name",
        "relative",
        "clinician",
        "organisation",
        "address",
        "birth_date",
        "date",
        "age",
        "phone",
        "email",
        "url",
    ),
    *("national_id", "insurance", "record", "admission", "account", "plate", "other"),
}


def load(lang: str, name: str) -> Any:
    return world(lang, WORLD if name == "development" else WORLDS / name)


def templates(data: Any) -> list[str]:
    return [template for key in (*WITH_IDENTIFIERS, "clinical") for template in data.get(key, ())]


def plainly(text: str) -> str:
    return " ".join(text.replace("^", "").casefold().split())


def own(data: Any) -> dict[str, set[str]]:
    """What must stand in one set only."""
    slots = data.get("slots", {})
    organisations = {v for s in slots.values() if s["kind"] == "organisation" for v in s["values"]}
    towns = {v for s in slots.values() if s["kind"] == "address" for v in s["values"]}
    names = {name for listed in data.get("full_names", {}).values() for name in listed}
    found = {
        "full names": names,
        "streets": set(data["streets"]),
        "wards and towns": {*data["wards"], *(town.rpartition("^")[2] for town in towns)},
        "organisations": organisations | set(data.get("organisations", ())),
        "templates": set(templates(data)),
    }
    return {key: {plainly(value) for value in values} for key, values in found.items()}


def texts(value: Any) -> Iterator[str]:
    """Every text of a YAML document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from texts(key)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif value is not None:
        yield str(value)


def of_the_rules(lang: str) -> set[str]:
    """Every entry of the lists of names and places that the rules and the surrogates use, whole and
    line by line."""
    folder = Path(residency.deid.__file__).parent
    files = [*(folder / "names").glob(f"{lang}*.yaml"), folder / "data/surrogates.yaml"]
    found: set[str] = set()
    for text in (t for file in files for t in texts(yaml.safe_load(file.read_text("utf-8")))):
        found |= {plainly(text), *(plainly(piece) for piece in re.split(r"[\n,;|、，]+", text))}
    return found


@pytest.mark.parametrize(("lang", "name"), CASES)
def test_a_world_holds_sixty_templates_with_identifiers_and_twenty_without(
    lang: str, name: str
) -> None:
    data = load(lang, name)
    assert sum(len(set(data[key])) for key in WITH_IDENTIFIERS) >= 60
    assert len(set(data["clinical"])) >= 20


@pytest.mark.parametrize(("lang", "name"), CASES)
def test_clinical_lines_hold_no_identifier_and_labels_of_records_only(lang: str, name: str) -> None:
    for template in load(lang, name)["clinical"]:
        pieces = PIECES.split(template)
        assert all(piece[1:3] in ("n:", "f:") for piece in pieces if piece.startswith("{"))
        assert all(piece[2:-1] in LABELS for piece in pieces if piece.startswith("[["))
        assert template.count("[[") == template.count("]]")


@pytest.mark.parametrize(("lang", "name"), CASES)
def test_marks_and_labels_are_where_they_are_said_to_be(lang: str, name: str) -> None:
    kinds: Counter[str] = Counter()
    for planted in notes(lang, 150, seed=3, folder=WORLDS / name):
        text = planted.note.text
        assert not re.search(r"\{|\}|\[\[|\]\]", text)
        end = 0
        for mark in planted.marks:
            assert mark.start >= end, "marks in order, none inside another"
            end = mark.end
            assert text[mark.start : mark.end] == text[mark.start : mark.end].strip() != ""
            assert "^" not in text[mark.start - 1 : mark.end]
            kinds[mark.kind] += 1
        for span in planted.note.spans:
            assert span.quote == text[span.start : span.end] != ""
            assert not any(
                span.start < mark.end and mark.start < span.end for mark in planted.marks
            )
    assert set(kinds) == EVERY_KIND


@pytest.mark.parametrize(("lang", "name"), CASES)
def test_every_template_can_be_drawn(lang: str, name: str) -> None:
    data = load(lang, name)
    used = {
        piece[1:-1].partition(":")[0]
        for t in templates(data)
        for piece in PIECES.split(t)
        if piece[:1] == "{"
    }
    assert not set(data["slots"]) - used, "a list that no template uses"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_three_sets_share_no_full_name_street_place_organisation_or_template(lang: str) -> None:
    sets = {name: own(load(lang, name)) for name in ("development", *BLIND)}
    for one, other in (
        ("development", "validation"),
        ("development", "test"),
        ("validation", "test"),
    ):
        for what in sets[one]:
            shared = sets[one][what] & sets[other][what]
            assert not shared, f"{what} of {one} and {other}"


@pytest.mark.parametrize(("lang", "name"), CASES)
def test_the_rules_lists_hold_no_full_name_street_ward_or_organisation_of_a_blind_set(
    lang: str, name: str
) -> None:
    rules = of_the_rules(lang)
    assert rules
    for what, values in own(load(lang, name)).items():
        shared = values & rules
        assert not shared, what


@pytest.mark.parametrize("lang", LANGUAGES)
def test_half_of_the_given_names_of_the_test_set_are_in_no_list_of_the_rules(lang: str) -> None:
    rules = {word for text in of_the_rules(lang) for word in (text, *text.split())}
    data = load(lang, "test")
    given = {plainly(name) for name in (*data["male"], *data["female"])}
    assert len(given - rules) * 2 >= len(given)


def test_a_line_in_another_style_keeps_its_marks() -> None:
    typed = {
        style: sum(
            planted.note.text[mark.start : mark.end]
            == change(planted.note.text[mark.start : mark.end])
            for planted in notes("vi", 60, seed=5, folder=WORLDS / "test")
            for mark in planted.marks
            if mark.kind == "clinician"
        )
        for style, change in (("upper", str.upper), ("lower", str.lower))
    }
    assert min(typed.values()) > 0
