"""A blind study, from finished answers to who is preferred: made, given out as forms, taken back,
locked, read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from secrets import randbits
from typing import Any

import msgspec

from residency.core.errors import DataError, UserError, allowed
from residency.core.files import (
    disk_errors,
    read_jsonl,
    write_bytes,
    write_json,
    write_jsonl,
)
from residency.core.page import Page, Section, write_page
from residency.core.types import Value
from residency.evals import study_form
from residency.evals.formats import interval, number, percent, probability
from residency.evals.preferences import (
    ITEM_SD,
    RATER_SD,
    Estimate,
    Judged,
    StudyResult,
    power,
    result,
)
from residency.evals.study import (
    HARMS,
    Harm,
    Key,
    Kind,
    OpenStudy,
    Question,
    Rater,
    System,
    codes_of,
    draw,
    key_path,
    open_study,
    write,
)
from residency.evals.votes import (
    Lock,
    cast,
    dialogue,
    lock,
    progress,
    read,
    read_lock,
    replaced,
    standing,
)
from residency.ops.proof import address
from residency.workflows import dialogues
from residency.workflows.finished import artefact_of, open_run
from residency.workflows.ratings import chosen

RESULT = "result"
TRAINED = "tuned"


class Made(Value, frozen=True):
    """A study that was made: how many items it has and were left out because an answer names a
    system, and how often it would find a preference of 60 to 40, with its raters and with two
    more."""

    items: int
    left_out: int
    power: float
    power_with_two_more: float
    slowest: float = 0.0
    """Seconds of the slowest answer that was measured for a dialogue; 0: none was."""
    delay: float = 0.0


class Source(Value, frozen=True):
    """Answers of a system: question -> (question, answer, points, group)."""

    system: System
    answers: dict[str, Question]
    names: tuple[str, ...] = ()
    """What would say who answered."""


def new(
    systems: Sequence[str],
    into: Path,
    raters: Sequence[str],
    patients: Sequence[str] = (),
    items: int = 100,
    kind: Kind = "compare",
    by: str = "",
    task: str = "",
    lang: str = "",
    questions: Path | None = None,
    seed: int | None = None,
    delay: float | None = None,
) -> Made:
    """Fix a study's items, systems, orders and raters, and seal which answer is whose.

    ``systems``: ``RUN`` (alone: all of its systems; among several: the trained one),
    ``RUN:SYSTEM``, or ``NAME=FILE`` with answers of ``residency predict`` to the rows of
    ``questions`` (``NAME`` may be a run's folder); for dialogues ``RUN``, ``RUN:base`` or
    ``NAME=URL#MODEL``. ``raters``, ``patients``: ``NAME`` or ``NAME:LANGUAGE``. ``by``: marks or
    preference; where not given, a preference between two and marks for more. ``delay``: of
    dialogues, seconds until an answer is shown; measured where not given.

    Raises ``UserError``, and writes nothing, where systems, items or raters do not make a study.
    """
    voters = [_rater(one, False) for one in raters] + [_rater(one, True) for one in patients]
    if kind == "dialogue":
        found = _talkers(systems, _questions(questions))
    else:
        found = [one for name in systems for one in _sources(name, systems, task, lang, questions)]
    names = [one.system.name for one in found]
    if len(set(names)) < len(names):
        raise UserError("study: two systems have one name; name each once, as RUN:SYSTEM.")
    seed = randbits(64) if seed is None else seed
    ready, left_out = _drawn(found, items, seed)
    if kind == "short" and (lacking := sum(not one.points for one in ready)):
        raise UserError(
            f"--kind short: {lacking} of {items} questions have no points to mark by; give them in "
            "the column points, or take --kind compare."
        )
    preference = by == "preference" or (not by and kind == "compare" and len(found) == 2)
    each, slowest = [one.system for one in found], 0.0
    if kind != "dialogue":
        delay = 0.0
    elif delay is None:
        slowest = dialogues.slowest(each, ready[0].question, len(voters))
        delay = dialogues.delay_for(slowest)
    write(draw(kind, ready, each, voters, preference, seed, delay=delay), into)
    return Made(
        slowest=slowest,
        delay=delay,
        items=items,
        left_out=left_out,
        power=power(items, len(voters)),
        power_with_two_more=power(items, len(voters) + 2),
    )


def _talkers(systems: Sequence[str], asked: dict[str, Question]) -> list[Source]:
    """Whom dialogues are held with: they have no answers yet."""
    empty = {id: _with(one, "") for id, one in asked.items()}
    return [Source(system=dialogues.system_of(name), answers=empty) for name in systems]


def _drawn(found: Sequence[Source], items: int, seed: int) -> tuple[list[Question], int]:
    """So many questions that all systems answered, and how many were left out since an answer
    names a system."""
    common = [
        id
        for id, one in found[0].answers.items()
        if all(id in s.answers and s.answers[id].question == one.question for s in found)
    ]
    telling = _telling(found)
    kept = [id for id in common if not any(telling(one.answers[id].answers[0]) for one in found)]
    if not 1 <= items <= len(kept):
        raise UserError(
            f"--items: {items}: there are {len(kept)} questions that all of {len(found)} systems "
            f"answered ({len(common) - len(kept)} more have an answer that names a system); give 1 "
            f"to {len(kept)}."
        )
    drawn = Random(f"{seed} questions").sample(kept, items)
    ready = [
        msgspec.structs.replace(
            found[0].answers[id], answers=tuple(one.answers[id].answers[0] for one in found)
        )
        for id in drawn
    ]
    return ready, len(common) - len(kept)


def _rater(text: str, patient: bool) -> Rater:
    name, _, lang = text.strip().partition(":")
    return Rater(name=name, lang=lang or "en", code="", patient=patient)


def _system(name: str) -> System:
    """What a name stands for: a run, whose model the result is kept with, or only a name."""
    folder = Path(name)
    if not folder.is_dir():
        return System(name=name)
    artefact = artefact_of(folder)
    return System(name=folder.name, run=str(folder.resolve()), artefact=address(artefact))


def _sources(
    name: str, systems: Sequence[str], task: str, lang: str, questions: Path | None
) -> list[Source]:
    """The answers that a name stands for."""
    if "=" in name:
        who, _, file = name.partition("=")
        system = _system(who)
        asked = _questions(questions)
        given = {id: str(row.get("answer") or "") for id, row in _rows(Path(file))}
        if strange := given.keys() - asked.keys():
            raise DataError(
                f"{file}: {len(strange)} of its answers are to no row of {questions}; give the "
                "questions that they were given to."
            )
        answers = {id: _with(asked[id], text) for id, text in given.items()}
        return [Source(system=system, answers=answers, names=_names(system))]
    folder, _, only = name.partition(":")
    run, recipe = open_run(folder)
    artefact = artefact_of(folder)
    by_system: dict[str, dict[str, Question]] = {}
    for one in chosen(run, recipe, task, lang):
        by_system.setdefault(one.system, {})[one.example] = Question(
            question=one.question, answers=(one.answer,), group=one.group, points=one.points
        )
    trained = next((one for one in (TRAINED, artefact.name) if one in by_system), "")
    wanted = [only or trained] if only or len(systems) > 1 else list(by_system)
    if wanted[0] not in by_system:
        known = allowed(by_system, only)
        raise UserError(f"{name}: has no written answers of {only or 'its model'}; {known}.")
    base = recipe.base.id if recipe.base is not None else ""
    found = []
    for each in wanted:
        own = each == trained
        system = System(
            name=each if len(systems) == 1 else f"{run.folder.name}:{each}",
            run=str(run.folder.resolve()) if own else "",
            artefact=address(artefact) if own else "",
        )
        told = (run.folder.name, base, Path(base).name, base.rpartition(":")[2])
        found.append(Source(system=system, answers=by_system[each], names=told))
    return found


def _names(system: System) -> tuple[str, ...]:
    return (system.name, Path(system.run).name)


def _telling(found: Iterable[Source]) -> Any:
    """Whether a text names a system: what runs, bases and files are called, as a word."""
    names = {name for one in found for name in one.names if len(name) > 3}
    known = "|".join(map(re.escape, sorted(names)))
    return re.compile(rf"(?<!\w)(?:{known})(?!\w)", re.I).search if known else lambda _: None


def _with(question: Question, answer: str) -> Question:
    return msgspec.structs.replace(question, answers=(answer,))


def _questions(path: Path | None) -> dict[str, Question]:
    """Questions by id: JSON lines with ``question`` (or ``text``), ``id``, ``points``,
    ``patient``."""
    if path is None:
        raise UserError("--questions: name the file of the questions (JSON lines: id, question).")
    found = {}
    for id, row in _rows(path):
        text = str(row.get("question") or row.get("text") or "").strip()
        if not text:
            raise DataError(f"{path}: row {id} has no question; write it in the field question.")
        found[id] = Question(
            question=text,
            answers=("",),
            group=str(row.get("patient") or id),
            points=str(row.get("points") or ""),
        )
    return found


def _rows(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Rows of JSON lines by their id; of a row without one its number. Raises ``DataError`` for a
    line that is no row and an id that stands twice."""
    seen = set[str]()
    for place, row in enumerate(read_jsonl(path, dict[str, Any]), start=1):
        id = str(row.get("id", place))
        if id in seen:
            raise DataError(
                f"{path}: the id of row {place} stands there twice; give each row its own."
            )
        seen.add(id)
        yield id, row


def forms(folder: Path, into: Path) -> list[Path]:
    """Write each rater's form into a folder; raises ``UserError`` for dialogues, whose answers are
    not there yet, and where one is there already."""
    opened = open_study(folder)
    if opened.study.kind == "dialogue":
        raise UserError(
            f"{folder}: dialogues are held with a served model; a form of a file cannot hold them."
        )
    codes = codes_of(opened)
    paths = {into / f"{one.name}.html": one.name for one in opened.study.raters}
    if there := [path for path in paths if path.exists()]:
        raise UserError(f"{there[0]}: is there already; name another folder with --output.")
    for path, name in paths.items():
        write_bytes(path, study_form.form(opened, name, codes[name]).encode())
    return list(paths)


class Taken(Value, frozen=True):
    """What came of a form's file."""

    rater: str
    votes: int
    new: int
    lacking: tuple[str, ...]
    """Items without a whole vote."""


def take(folder: Path, path: Path) -> Taken:
    """Take the votes of a file that a form saved; those that lack something are left and named.
    Taking a file again changes nothing."""
    opened = open_study(folder)
    filled, votes, lacking = study_form.read_form(path, opened)
    if not votes:
        raise DataError(f"{path}: holds no whole vote yet; have it filled in and saved again.")
    new = sum(cast(opened, filled.rater, filled.code, one) for one in votes)
    return Taken(rater=filled.rater, votes=len(votes), new=new, lacking=tuple(lacking))


def end(folder: Path, key: Path | None = None) -> tuple[Lock, dict[str, int]]:
    """Lock a study; the lock, and how many items each rater voted on."""
    opened = open_study(folder)
    made = lock(opened, key or key_path(folder.absolute()))
    return made, dict(progress(opened))


def judged(opened: OpenStudy, key: Key) -> list[Judged]:
    """The votes that count, each with its systems by place."""
    found = []
    for rater in opened.study.raters:
        lines = read(opened, rater.name)
        votes = standing(lines)
        for shown in opened.study.order[rater.name]:
            if shown.item not in votes:
                continue
            item, places = opened.items[shown.item], range(1, opened.study.answers + 1)
            said = [
                "".join(one.text for one in dialogue(lines, shown.item, place) if one.turn % 2)
                for place in places
            ]
            lengths = [len(item.answers[at] or said[n]) for n, at in enumerate(shown.places)]
            found.append(
                Judged(
                    item=item.id,
                    group=item.group,
                    rater=rater.name,
                    systems=tuple(key.system(shown, place).name for place in places),
                    lengths=tuple(lengths),
                    vote=votes[shown.item],
                )
            )
    return found


def read_result(folder: Path) -> tuple[StudyResult, Path]:
    """What a locked study says, and the page of its report; what was found harmful is noted with
    the runs whose models answered, where a promotion looks. Raises ``UserError`` before the
    lock."""
    opened = open_study(folder)
    key = read_lock(opened).key
    votes = judged(opened, key)
    scales = {
        one.name: (one.low, one.high)
        for rater in opened.study.raters
        for one in opened.study.scales(rater)
    }
    found = result(votes, scales)
    again = sum(replaced(read(opened, one.name)) for one in opened.study.raters)
    into = folder / RESULT
    write_json(into / "result.json", found)
    said = [
        {
            "system": system,
            "item": one.item,
            "rater": one.rater,
            "harmful": place in one.vote.harmful,
        }
        | {"comment": one.vote.comment}
        for one in votes
        if one.vote.comment
        for place, system in enumerate(one.systems, start=1)
    ]
    write_jsonl(into / "comments.jsonl", said, private=True)
    _note_harm(opened, key, found)
    return found, write_page(page(found, opened, again), into)


def _note_harm(opened: OpenStudy, key: Key, found: StudyResult) -> None:
    harmful = {one.name: one for one in found.harmful}
    for system in key.systems:
        one, run = harmful.get(system.name), Path(system.run)
        if one is None or not system.artefact or not run.is_dir():
            continue
        with disk_errors(run):
            write_json(
                run / HARMS / f"{opened.study.id[:16]}.json",
                Harm(
                    study=opened.study.id[:16],
                    artefact=system.artefact,
                    harmful=round(one.value * one.n),
                    answers=one.n,
                ),
            )


def _cell(one: Estimate, digits: int = 3) -> str:
    return f"{number(one.value, digits)} {interval(one.low, one.high, digits)}".rstrip()


def page(found: StudyResult, opened: OpenStudy, again: int) -> Page:
    """The report: who is preferred, in words and figures. No comment and no answer is shown."""
    study = opened.study
    verdicts = [f"{one.verdict} ({one.scale})" for one in found.preferences]
    wanted = sum(len(study.order[one.name]) for one in study.raters)
    caveats = [
        "One rater only: the intervals are over items alone and say nothing of other raters."
    ] * (found.raters == 1)
    if found.votes < wanted:
        caveats.append(f"{wanted - found.votes} of {wanted} votes were never cast.")
    bad = [one for one in found.harmful if one.value]
    caveats += [
        f"{one.name}: {round(one.value * one.n)} of {one.n} answers were called harmful; a model "
        "with such answers is not promoted."
        for one in bad
    ]
    return Page(
        title="Blind study",
        eyebrow=f"{study.kind}, study {study.id[:16]}",
        lead=". ".join(verdicts) + "." * bool(verdicts),
        facts=(
            ("items", str(found.items)),
            ("raters", str(found.raters)),
            ("votes", str(found.votes)),
            ("votes changed", str(again)),
            ("neither good", str(found.neither)),
        ),
        caveats=tuple(caveats),
        sections=tuple(one for one in _sections(found) if one.rows),
    )


def _sections(found: StudyResult) -> list[Section]:
    return [
        Section(
            title="Preferences",
            text="Share: of all votes, ties count half. Chance: that the first is preferred where "
            "one of the two is (Davidson's model). Intervals: 95 %, over items and raters; p "
            "corrected for the number of pairs (Holm).",
            columns=("pair", "scale", "won, lost, equal", "share", "chance", "p"),
            rows=tuple(
                (
                    f"{one.a}, {one.b}",
                    one.scale,
                    f"{one.wins}, {one.losses}, {one.equal}",
                    _cell(one.share),
                    _cell(one.chance),
                    probability(one.p) if one.p is not None else "",
                )
                for one in found.preferences
            ),
            numeric=(3, 4, 5),
        ),
        _estimates("Strengths", "log-strength", found.strengths, "Against the mean of all."),
        _estimates("Marks", "mean mark", found.marks, "Intervals over items and raters."),
        Section(
            title="Harmful answers",
            text="Answers that a rater called harmful; exact 95 % interval over answers.",
            columns=("system", "answers", "share", "votes"),
            rows=tuple(
                (
                    one.name,
                    f"{round(one.value * one.n)} of {one.n}",
                    f"{percent(one.value)} [{percent(one.low)}, {percent(one.high)}]",
                    str(found.harms.get(one.name, 0)),
                )
                for one in found.harmful
            ),
            numeric=(1, 2, 3),
        ),
        _estimates(
            "Order and length",
            "odds",
            found.effects,
            "Odds of being preferred; 1 is no effect. Each system stood at each place equally "
            "often, so the order favours none.",
        ),
        Section(
            title="Agreement",
            text="Krippendorff's alpha for ordinal data; 1 is full agreement, 0 that of chance.",
            columns=("scale", "alpha", "units"),
            rows=tuple((one.name, _cell(one), str(one.n)) for one in found.agreement),
            numeric=(1, 2),
        ),
    ]


def _estimates(
    title: str, column: str, found: dict[str, tuple[Estimate, ...]], text: str
) -> Section:
    rows = [(one.name, scale, _cell(one)) for scale, each in found.items() for one in each]
    return Section(
        title=title, text=text, columns=("", "scale", column), rows=tuple(rows), numeric=(2,)
    )


def expected(made: Made, raters: int) -> str:
    """What a study can find, in a sentence with its assumptions."""
    return (
        f"{made.items} items with {raters} rater{'s' * (raters > 1)} find a preference of 60 to 40 "
        f"in {percent(made.power)} of studies, with {raters + 2} in "
        f"{percent(made.power_with_two_more)} (simulated: two systems, no ties, log-odds that "
        f"differ by {ITEM_SD} from item to item and {RATER_SD} from rater to rater)"
    )


def common_delay(made: Made) -> str:
    """When answers of dialogues are shown, and why then."""
    why = f" (the slowest that was measured took {made.slowest:.1f} s)" * bool(made.slowest)
    return f"every answer of a dialogue is shown after {made.delay:g} s{why}"
