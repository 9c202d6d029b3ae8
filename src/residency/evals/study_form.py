"""A rater's form: one HTML file that needs no network, and the votes of the file that it saves."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from residency.core.errors import DataError
from residency.core.files import read_json
from residency.core.page import environment, style
from residency.core.types import Value
from residency.evals.formats import language_of
from residency.evals.study import OpenStudy, Rater
from residency.evals.votes import LONGEST, Vote, fault_of
from residency.evals.words import words_of

TEMPLATES = Path(__file__).parent / "templates"
WORDS = Path(__file__).parent / "data/study"
FIELD = re.compile(r"(i\d+)\.(\w+)(?:\.(\d+))?")
"""Item, what is said of it, and at which place."""


class Filled(Value, frozen=True):
    """What a form saves: the fields as they stand in the page."""

    study: str
    rater: str
    code: str
    fields: dict[str, str]


def form(opened: OpenStudy, name: str, code: str) -> str:
    """The form of a rater, in their language, with their items in their order. It loads nothing,
    runs its own script alone (content security policy) and says nothing of the systems."""
    from markupsafe import Markup, escape

    def language(text: str) -> Markup:
        found = language_of(text)
        return Markup(f' lang="{escape(found)}"') if found else Markup("")

    made = environment(TEMPLATES)
    rater = opened.study.rater(name)
    made.filters["language"] = language
    made.globals["_"] = words_of(rater.lang, WORDS)
    script = (TEMPLATES / "study_form.js").read_text("utf-8")
    look = style() + (TEMPLATES / "study_form.css").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(look)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return made.get_template("study_form.html.jinja").render(
        study=opened.study.id,
        rater=rater,
        code=code,
        shown=opened.shown(name),
        scales=opened.study.scales(rater),
        policy=policy,
        script=script,
        style=look,
        longest=LONGEST,
    )


def _source(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def read_form(path: Path, opened: OpenStudy) -> tuple[Filled, list[Vote], list[str]]:
    """A file that a form saved: whose it is, the votes that are whole, and the items that lack
    something. Raises ``DataError`` for a file that is none, another study's (an older one's too),
    or holds what the form does not ask."""
    try:
        found = read_json(path, Filled)
    except DataError:
        raise DataError(
            f"{path}: is no file that a form of residency study saved; give the one that its "
            "button saves (NAME.votes.json)."
        ) from None
    if found.study != opened.study.id:
        raise DataError(
            f"{path}: is of another study, or of this one before it was made again; have the form "
            "of this study filled in."
        )
    rater = opened.study.rater(found.rater)
    read = [(name, value, _field(name, path, opened)) for name, value in found.fields.items()]
    votes, lacking = [], []
    for shown in opened.study.order[rater.name]:
        mine = [
            (what, place, value) for _, value, (item, what, place) in read if item == shown.item
        ]
        vote = vote_of(shown.item, mine, opened, rater)
        if vote is None or fault_of(opened, rater, vote):
            lacking.append(shown.item)
        else:
            votes.append(vote)
    return found, votes, lacking


def _field(name: str, path: Path, opened: OpenStudy) -> tuple[str, str, int]:
    parts = FIELD.fullmatch(name)
    if parts is None or parts[1] not in opened.items or len(parts[3] or "") > 2:
        raise DataError(f"{path}: holds a field that its form does not have; save the form again.")
    return parts[1], parts[2], int(parts[3] or 0)


def vote_of(
    item: str, given: list[tuple[str, int, str]], opened: OpenStudy, rater: Rater
) -> Vote | None:
    """A vote from the fields of an item; ``None`` where one holds what cannot be a vote."""
    scales = {one.name: dict[int, str]() for one in opened.study.scales(rater)}
    rest: dict[str, str] = {}
    harmful = []
    for what, place, value in given:
        if what in scales:
            scales[what][place] = value
        elif what == "harmful":
            harmful.append(place)
        else:
            rest[what] = value
    choice = rest.get("choice")
    try:
        return msgspec.convert(
            {
                "type": "vote",
                "item": item,
                "choice": int(choice) if choice and choice.isdecimal() else choice,
                "marks": {name: _places(marks) for name, marks in scales.items() if marks},
                "harmful": sorted(harmful),
                "comment": rest.get("comment", "").strip(),
            },
            Vote,
        )
    except (msgspec.ValidationError, ValueError):
        return None


def _places(marks: Mapping[int, str]) -> list[int]:
    """Marks by place; raises ``ValueError`` where a place between has none."""
    if sorted(marks) != list(range(1, len(marks) + 1)):
        raise ValueError("a place has no mark")
    return [int(marks[place]) for place in sorted(marks)]
