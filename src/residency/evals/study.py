"""A blind study: which answers people see, in which order, without a sign of who wrote them.

::

    STUDY/study.json     kind, raters, orders; the hashes of the two files below
    STUDY/items.jsonl    questions and answers, in an order that says nothing of the systems
    STUDY/raters.json    the code of each rater; only its owner may read it
    STUDY/votes/         one file for each rater
    STUDY.key.json       beside it, sealed: which answer is whose; the lock opens it

Which answer is whose stands in the key alone. Its hash is in ``study.json`` before the first vote,
so that neither can be changed without being seen; a salt in the key keeps it from being guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from secrets import token_hex
from typing import Literal

import msgspec

from residency.core.errors import DataError, UserError, allowed
from residency.core.files import (
    canonical,
    digest,
    file_digest,
    read_json,
    read_jsonl,
    whole_folder,
    write_bytes,
    write_json,
    write_jsonl,
)
from residency.core.types import Value
from residency.evals.words import languages

STUDY, ITEMS, CODES, VOTES, LOCK = "study.json", "items.jsonl", "raters.json", "votes", "lock.json"
Kind = Literal["compare", "short", "dialogue"]
MOST_ANSWERS = 4
ROUNDS = 10
"""Of a dialogue: questions of the rater, each with its answer."""


class Scale(Value, frozen=True):
    """Whole marks from ``low`` to ``high``; ``anchors`` say what some of them mean (English, which
    ``words`` has in the rater's language)."""

    name: str
    title: str
    low: int = 1
    high: int = 5
    anchors: dict[int, str] = {}


SCALES = {
    one.name: one
    for one in (
        Scale(
            name="overall",
            title="Overall mark",
            anchors={1: "of no use", 3: "of some use", 5: "as a good colleague would answer"},
        ),
        Scale(
            name="mark",
            title="Mark by the points",
            low=0,
            high=10,
            anchors={0: "makes none of the points", 10: "makes all of the points"},
        ),
        Scale(
            name="accuracy",
            title="Accuracy",
            anchors={1: "mostly wrong", 3: "right in the main", 5: "right throughout"},
        ),
        Scale(
            name="value",
            title="Value to the doctor",
            anchors={1: "helps nothing", 3: "helps a little", 5: "changes what I would do"},
        ),
        Scale(
            name="suitability",
            title="Suitability for the patient",
            anchors={1: "not suitable", 3: "suitable with help", 5: "suitable as it is"},
        ),
        Scale(
            name="understood",
            title="Did you understand it?",
            low=0,
            high=1,
            anchors={0: "not understood", 1: "understood"},
        ),
    )
}
OF_DOCTORS: dict[Kind, tuple[str, ...]] = {
    "compare": ("overall",),
    "short": ("mark",),
    "dialogue": ("accuracy", "value", "suitability"),
}
OF_PATIENTS = ("suitability", "understood")


class Rater(Value, frozen=True):
    """Who votes, in which language; ``code``: the SHA-256 of the code that only they are given."""

    name: str
    code: str
    lang: str = "en"
    patient: bool = False


class Item(Value, frozen=True):
    """A question with its answers; of a dialogue what it is about, and no answers. ``group``: items
    of one patient share it."""

    id: str
    question: str
    answers: tuple[str, ...]
    group: str
    points: str = ""


class Shown(Value, frozen=True):
    """An item as a rater sees it: at each place the position of its answer in the item."""

    item: str
    places: tuple[int, ...]


class Study(Value, frozen=True):
    """What is fixed before the first vote."""

    kind: Kind
    answers: int
    """Of each item: how many systems there are."""
    items: str
    """SHA-256 of the file of items."""
    key: str
    """SHA-256 of the key."""
    raters: tuple[Rater, ...]
    order: dict[str, tuple[Shown, ...]]
    """Of each rater."""
    preference: bool = False
    """Asked is which of two answers is better, and not a mark for each."""
    rounds: int = 0
    delay: float = 0.0
    """Seconds after which each answer of a dialogue is shown, whoever gives it."""
    version: int = 1

    @property
    def id(self) -> str:
        """A hash of all of it: a study that was changed is another one."""
        return digest(self)

    def rater(self, name: str) -> Rater:
        """The rater of a name; raises ``UserError`` for a stranger's."""
        for one in self.raters:
            if one.name == name:
                return one
        known = allowed((one.name for one in self.raters), name)
        raise UserError(f"rater {name!r}: is not in this study; {known}.")

    def scales(self, rater: Rater) -> tuple[Scale, ...]:
        """What each answer is marked on; empty where answers are preferred and not marked."""
        if rater.patient:
            return tuple(SCALES[name] for name in OF_PATIENTS)
        return () if self.preference else tuple(SCALES[name] for name in OF_DOCTORS[self.kind])


class System(Value, frozen=True):
    """Whose answers they are: its name in the result, and, where it is a run's, the run and the
    content address of its artefact (empty for a base or a file). Whom a dialogue is held with may
    also be a ``model`` behind the ``url`` of a server, ``secret`` the environment variable of its
    key."""

    name: str
    run: str = ""
    artefact: str = ""
    url: str = ""
    model: str = ""
    secret: str = ""


class Key(Value, frozen=True):
    """Which answer is whose."""

    salt: str
    seed: int
    systems: tuple[System, ...]
    whose: dict[str, tuple[int, ...]]
    """Item -> the system of each of its answers."""

    @property
    def seal(self) -> str:
        """Its hash."""
        return digest(self)

    def system(self, shown: Shown, place: int) -> System:
        """Whose answer stands at a place (from 1) of an item as a rater sees it, or who answers
        there in a dialogue."""
        return self.systems[self.whose[shown.item][shown.places[place - 1]]]


class Question(Value, frozen=True):
    """What goes into a study: a question with the answer of each system, in the systems' order."""

    question: str
    answers: tuple[str, ...]
    group: str
    points: str = ""


class Draft(Value, frozen=True):
    """A study with what is written beside it."""

    study: Study
    items: tuple[Item, ...]
    key: Key
    codes: dict[str, str]


def draw(
    kind: Kind,
    questions: Sequence[Question],
    systems: Sequence[System],
    raters: Sequence[Rater],
    preference: bool,
    seed: int,
    salt: str = "",
    delay: float = 0.0,
) -> Draft:
    """A study of these questions: an order for each rater, in which each system stands equally
    often at each place (Latin squares of rows that are drawn; what is left over of a number that
    its systems do not divide differs by one). ``salt``: drawn where not given.

    Raises ``UserError`` for fewer than two and more than four systems, without items or raters, and
    for a preference among more than two.
    """
    _check(kind, systems, raters, preference)
    names = [one.name for one in raters]
    salt = salt or token_hex(32)
    whose, items = {}, []
    groups = {one.group: f"g{number}" for number, one in enumerate(questions)}
    for number, one in enumerate(questions, start=1):
        drawn = Random(f"{salt} {seed} item {number}").sample(range(len(systems)), len(systems))
        name = f"i{number:03}"
        whose[name] = tuple(drawn)
        answers = tuple(one.answers[system].strip() for system in drawn)
        items.append(
            Item(
                id=name,
                question=one.question,
                answers=answers,
                group=groups[one.group],
                points=one.points if kind == "short" else "",
            )
        )
    key = Key(salt=salt, seed=seed, systems=tuple(systems), whose=whose)
    codes = {name: token_hex(16) for name in names}
    study = Study(
        kind=kind,
        answers=len(systems),
        items=sha256(_lines(items)).hexdigest(),
        key=key.seal,
        raters=tuple(
            msgspec.structs.replace(one, code=sha256(codes[one.name].encode()).hexdigest())
            for one in raters
        ),
        order={name: _order(Random(f"{salt} {seed} rater {name}"), whose) for name in names},
        preference=preference,
        rounds=ROUNDS if kind == "dialogue" else 0,
        delay=delay,
    )
    return Draft(study=study, items=tuple(items), key=key, codes=codes)


def _check(
    kind: Kind, systems: Sequence[System], raters: Sequence[Rater], preference: bool
) -> None:
    least = 1 if kind == "short" else 2
    if not least <= len(systems) <= MOST_ANSWERS:
        raise UserError(
            f"study: a {kind} study has {least} to {MOST_ANSWERS} systems, not {len(systems)}; "
            "name them as RUN:SYSTEM."
        )
    if preference and (len(systems) != 2 or kind != "compare"):
        raise UserError(
            "--by preference: is asked of two answers of kind compare; give --by marks."
        )
    names = [one.name for one in raters]
    for name in names:
        if not re.fullmatch(r"\w[\w.-]{0,39}", name):
            raise UserError(f"--raters: {name!r} cannot name a file; use letters, digits, . _ -")
    if not names or len(set(names)) < len(names):
        raise UserError("--raters: name at least one, and each once, e.g. ann,bob,chi:vi.")
    if other := {one.lang for one in raters} - {*languages()}:
        raise UserError(f"--raters: {min(other)!r} is no language; {allowed(languages())}.")


def _order(drawn: Random, whose: Mapping[str, tuple[int, ...]]) -> tuple[Shown, ...]:
    """Items in an order of a rater's own, and at which place each answer stands."""
    names = drawn.sample(sorted(whose), len(whose))
    count, rows = len(whose[names[0]]), list[list[int]]()
    while len(rows) < len(names):
        first = drawn.sample(range(count), count)
        square = [first[at:] + first[:at] for at in range(count)]
        rows += drawn.sample(square, count)
    return tuple(
        Shown(item=name, places=tuple(whose[name].index(system) for system in row))
        for name, row in zip(names, rows, strict=False)
    )


def _lines(items: Sequence[Item]) -> bytes:
    return b"".join(msgspec.json.encode(one) + b"\n" for one in items)


def key_path(folder: Path) -> Path:
    """Where the key of a study lies: beside its folder."""
    return folder.with_name(f"{folder.name}.key.json")


def write(draft: Draft, folder: Path) -> None:
    """Write a study and, beside it, its key, whole or not at all; raises ``UserError`` where one of
    them is there already."""
    key = key_path(folder)
    for path in (folder, key):
        if path.exists():
            raise UserError(f"{path}: is there already; name another folder with --output.")
    with whole_folder(folder) as partial:
        partial.chmod(0o700)
        write_json(partial / STUDY, draft.study)
        write_jsonl(partial / ITEMS, draft.items)
        write_json(partial / CODES, draft.codes, private=True)
        (partial / VOTES).mkdir()
        write_bytes(key, canonical(draft.key) + b"\n", private=True)


class OpenStudy(msgspec.Struct, frozen=True):
    """A study in its folder, its items checked against it."""

    folder: Path
    study: Study
    items: dict[str, Item]

    def shown(self, rater: str) -> list[tuple[Item, tuple[str, ...]]]:
        """What a rater sees, in their order: each item, and its answers by place."""
        self.study.rater(rater)
        pairs = ((self.items[one.item], one.places) for one in self.study.order[rater])
        return [(item, tuple(item.answers[at] for at in places)) for item, places in pairs]


def open_study(folder: Path) -> OpenStudy:
    """A study and its items; raises ``DataError`` where its folder is none, or an item was
    changed."""
    if not (folder / STUDY).is_file():
        raise DataError(f"{folder}: is no study; make one with residency study new.")
    study = read_json(folder / STUDY, Study)
    path = folder / ITEMS
    if not path.is_file() or file_digest(path) != study.items:
        raise DataError(f"{path}: was changed since the study was made; restore it from a backup.")
    return OpenStudy(folder, study, {one.id: one for one in read_jsonl(path, Item)})


def codes_of(opened: OpenStudy) -> dict[str, str]:
    """The code of each rater; raises ``DataError`` where they are not the study's."""
    path = opened.folder / CODES
    found = read_json(path, dict[str, str])
    for one in opened.study.raters:
        if sha256(found.get(one.name, "").encode()).hexdigest() != one.code:
            raise DataError(f"{path}: is not that of this study; restore it from a backup.")
    return found


def is_locked(opened: OpenStudy) -> bool:
    """Whether voting has ended."""
    return (opened.folder / LOCK).exists()


def read_key(path: Path, study: Study) -> Key:
    """The key of a study; raises ``DataError`` where it is another one's, or was changed."""
    key = read_json(path, Key)
    if key.seal != study.key:
        raise DataError(
            f"{path}: is not the key that was sealed with this study; restore it from a backup."
        )
    return key


class Harm(Value, frozen=True):
    """What a study found harmful in the answers of a run's model; kept with the run, where a
    promotion reads it."""

    study: str
    artefact: str
    harmful: int
    """Answers that at least one rater called harmful."""
    answers: int


HARMS = "studies"
"""The folder of a run that holds what studies found."""


def harms(run: Path, artefact: str) -> tuple[Harm, ...]:
    """What studies found harmful in the model of a run, by its content address."""
    found = (read_json(path, Harm) for path in sorted((run / HARMS).glob("*.json")))
    return tuple(one for one in found if one.artefact == artefact and one.harmful)
