"""Labelling in the pages: who is let in, what each of them has before them, how far all are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from secrets import compare_digest
from unicodedata import category, normalize

from residency.core.errors import UserError
from residency.core.files import read_jsonl
from residency.core.types import Note, Value
from residency.label import browser, questions
from residency.label.adjudicate import ADJUDICATOR, Adjudication, stretch
from residency.label.agreement import TimeEstimate, estimate
from residency.label.annotations import Annotation, LabellingTask
from residency.label.browser import Addresses, Browser, Change, Work, key_of
from residency.label.campaign import InBrowser
from residency.label.guideline import LANGUAGES, Guide, guides
from residency.label.interface import Code, read_codes
from residency.label.pages import in_context
from residency.recipe import Recipe
from residency.workflows import label
from residency.workflows.label import DECIDE, PRACTICE, ROUND, LabellingSetup

MATCHES = 12
"""Codes that a search shows."""


class Item(Value, frozen=True):
    """An item of somebody's list."""

    key: str
    number: int
    task: LabellingTask
    work: Work


class Progress(Value, frozen=True):
    """How far one person is in a round."""

    name: str
    done: int
    """Skipped ones included."""
    skipped: int
    of: int
    left: TimeEstimate | None = None


def give_out(recipe: Recipe, path: Path, changes: Sequence[str] = ()) -> Addresses:
    """Give out what was not given yet, and make a code for everybody who has none. ``path``: the
    recipe's file.

    Raises ``UserError`` for a recipe that labels elsewhere.
    """
    to = label.open_labelling(recipe)
    if not isinstance(to.settings, InBrowser):
        raise UserError(
            f"label.via: is {to.settings.via}, and these pages are for browser; set "
            "label.via=browser and another label.out."
        )
    label.push(recipe)
    names = (*to.settings.annotators, ADJUDICATOR)
    return browser.let_in(to.folder, names, os.path.relpath(path.resolve(), to.folder), changes)


def opened(folder: Path) -> LabellingSetup:
    """The labelling whose addresses a folder holds, as its recipe says it now."""
    known = browser.addresses(folder)
    return setup(folder / known.recipe, known.changes)


def setup(path: Path, changes: tuple[str, ...] = ()) -> LabellingSetup:
    """The labelling of a recipe's file, read again where that was changed."""
    if not path.is_file():
        raise UserError(f"{path.name}: the recipe is not there any more.")
    return _setup(path.resolve(), changes, path.stat().st_mtime_ns)


@lru_cache(64)
def _setup(path: Path, changes: tuple[str, ...], _: int) -> LabellingSetup:
    return label.open_labelling(Recipe.load(path, changes))


def name_of(folder: Path, code: str) -> str:
    """Whom a code lets in; empty for nobody."""
    wanted, found = code.encode(), ""
    for name, one in browser.addresses(folder).codes.items():
        found = name if compare_digest(one.encode(), wanted) else found
    return found


def rounds(name: str) -> tuple[str, ...]:
    """The rounds that somebody takes part in, in their order."""
    return (DECIDE,) if name == ADJUDICATOR else (PRACTICE, ROUND)


def items(to: LabellingSetup, round: str, name: str) -> list[Item]:
    """What somebody was given in a round, with their own work on it."""
    way = Browser(to.folder / round, name, to.card)
    return [
        Item(key=key_of(task.id), number=number, task=task, work=way.work(task))
        for number, task in enumerate(_tasks(to, round, name), 1)
    ]


def _tasks(to: LabellingSetup, round: str, name: str) -> tuple[LabellingTask, ...]:
    path = to.folder / round / "tasks" / f"{name}.jsonl"
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else ()


@lru_cache(16)
def _read(path: Path, _: int) -> tuple[LabellingTask, ...]:
    return tuple(read_jsonl(path, LabellingTask))


def item(to: LabellingSetup, round: str, name: str, key: str) -> Item | None:
    """One item of somebody's own; None where they were given none of that key."""
    for number, task in enumerate(_tasks(to, round, name), 1):
        if key_of(task.id) == key:
            work = Browser(to.folder / round, name, to.card).work(task)
            return Item(key=key, number=number, task=task, work=work)
    return None


def place_of(round: str, task: LabellingTask) -> tuple[int, int] | None:
    """Where alone something is decided; None where the whole note is labelled."""
    return stretch(task.id) if round == DECIDE else None


def save(to: LabellingSetup, round: str, name: str, one: Item, change: Change) -> Work:
    """Keep an item as it is after a step."""
    way = Browser(to.folder / round, name, to.card)
    return way.save(one.task, change, place_of(round, one.task))


def next_open(found: Sequence[Item], after: int = 0) -> Item | None:
    """The next item that is not finished, from the beginning again where there is none behind."""
    left = [one for one in found if one.work.state == "open"]
    return next((one for one in left if one.number > after), left[0] if left else None)


def progress(name: str, found: Sequence[Item]) -> Progress:
    """How far somebody is, and how long the rest will take them."""
    finished = [one for one in found if one.work.state != "open"]
    done = {
        one.task.id: Annotation(
            note=one.task.id, annotator=name, at=one.work.at, seconds=one.work.seconds or None
        )
        for one in finished
    }
    notes = {
        one.task.id: Note(id=one.task.id, text=one.task.text, profile="pseudonymised")
        for one in found
    }
    return Progress(
        name=name,
        done=len(finished),
        skipped=sum(one.work.state == "skipped" for one in finished),
        of=len(found),
        left=estimate(name, done, notes) if len(finished) < len(found) else None,
    )


def standing(to: LabellingSetup) -> list[Progress]:
    """How far everybody is: the annotators, then whoever decides."""
    people = [(name, ROUND) for name in to.settings.annotators] + [(ADJUDICATOR, DECIDE)]
    return [progress(name, items(to, round, name)) for name, round in people]


def settle(to: LabellingSetup) -> Adjudication:
    """Take what everybody has done, settle what can be settled, give the rest out to be decided,
    and write gold."""
    label.pull(to.recipe)
    outcome, _, _ = label.adjudicate(to.recipe)
    return outcome


def guide(to: LabellingSetup, lang: str) -> Guide | None:
    """The guideline in a language, as its file says now."""
    return guides(to.card_name, to.recipe.root).get(lang if lang in LANGUAGES else "en")


def search(to: LabellingSetup, wanted: str) -> list[Code]:
    """Entries of the terminology that hold every word, whatever case and marks of letters; those
    whose code begins so come first, then the shortest names."""
    if not to.settings.codes or not (words := plain(wanted).split()):
        return []
    path = to.recipe.root / to.settings.codes
    if not path.is_file():
        read_codes(path, to.settings.code_columns)  # says so
    hits = [
        (not folded.startswith(words[0]), len(folded), one.code, one)
        for one, folded in _codes(path, to.settings.code_columns, path.stat().st_mtime_ns)
        if all(word in folded for word in words)
    ]
    return [one for *_, one in sorted(hits, key=lambda hit: hit[:3])[:MATCHES]]


@lru_cache(4)
def _codes(path: Path, columns: tuple[str, str], _: int) -> list[tuple[Code, str]]:
    found = read_codes(path, columns)
    return [(one, plain(f"{one.code} {one.name}")) for one in found]


def plain(text: str) -> str:
    """Small letters without their marks: ``Đái tháo`` is ``dai thao``."""
    bare = (letter for letter in normalize("NFD", text) if category(letter) != "Mn")
    return "".join(bare).casefold().replace("đ", "d")


def asked(to: LabellingSetup, answered: bool) -> list[tuple[questions.Question, str]]:
    """The questions that are open or answered, each with the place that it is about."""
    notes = label.read_notes(to.folder) if (to.folder / "notes.jsonl").is_file() else {}
    return [
        (one, in_context(notes[one.note].text, one.start, one.end))
        for one in questions.questions(to.folder)
        if bool(one.answer) is answered and one.note in notes
    ]


def asked_by(to: LabellingSetup, name: str) -> list[questions.Question]:
    """What somebody has asked."""
    return [one for one in questions.questions(to.folder) if one.annotator == name]
