"""Labelling from a recipe: give notes out, take them back, measure agreement, settle
differences.

Everything lies in ``label.out``:

notes.jsonl               the notes that were given out, in their order
label/                    a round: tasks, files out and back, annotations/NAME.jsonl as pulled,
                          history.jsonl of what changed
practice/  adjudication/  other rounds, the same way
agreement.html            the report
gold.jsonl  audit.jsonl   what was settled, and how
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from residency.core.errors import UserError, allowed
from residency.core.files import read_jsonl, write_json, write_jsonl
from residency.core.page import write_page
from residency.core.types import SHOWABLE, Note, Profile, Span, Value
from residency.core.zones import assert_outside
from residency.corpus import history, load, write
from residency.corpus.summary import strictest
from residency.label import adjudicate as settling
from residency.label import annotations as marks
from residency.label import practice as practising
from residency.label.adjudicate import ADJUDICATOR, Adjudication, Decision
from residency.label.agreement import Agreement, TimeEstimate, agree, estimate
from residency.label.annotations import Annotation, LabellingTask, Pulled, merge, prove, releasable
from residency.label.browser import Browser
from residency.label.campaign import ByModel, ByNotes, ByTerms, InBrowser, InLabelStudio, Label
from residency.label.exchange import Exchange
from residency.label.follow import Followed, follow, followed_tasks, moved_annotation
from residency.label.guideline import guideline_page, guides, hints
from residency.label.interface import read_codes
from residency.label.pages import agreement_page
from residency.label.prelabel import TermFinder
from residency.label.simulate import simulate
from residency.label.studio import Project, check_profile
from residency.recipe import Recipe
from residency.tasks.card import Card, load_card
from residency.tasks.families import check_marks_spans, of
from residency.tasks.families.spans import spans_of

ROUND, PRACTICE, DECIDE = "label", "practice", "adjudication"


class Sent(Value, frozen=True):
    """What was given out to one person."""

    annotator: str
    tasks: int
    where: str


class LabellingSetup(Value, frozen=True):
    """The labelling of one recipe: its settings, its folder and what is labelled."""

    recipe: Recipe
    settings: Label
    folder: Path
    card_name: str
    """The card's name or file."""
    card: Card


def open_labelling(recipe: Recipe) -> LabellingSetup:
    """The labelling of a recipe, its card read; that must name its labels, since nobody has
    labelled anything that they could be taken from."""
    settings = recipe.label
    if settings is None:
        raise UserError(
            "label: the recipe has no such section; labelling needs it (which notes, by whom, "
            "where), see the guide's page on labelling."
        )
    folder = recipe.root / settings.out
    assert_outside(folder)
    name = settings.card or recipe.tasks[0].card
    card = load_card(name, recipe.root)
    unfit = (
        f"label.card: {name} does not name labels of spans; annotators need labels with "
        "definitions, so write a card (cards/my-card.yaml) and name it here."
    )
    check_marks_spans(of(card).classifier, unfit)
    if not card.labels:
        raise UserError(unfit)
    return LabellingSetup(
        recipe=recipe, settings=settings, folder=folder, card_name=name, card=card
    )


def read_notes(folder: Path) -> dict[str, Note]:
    """The notes that were given out, by id in their order; raises ``UserError`` where none were."""
    path = folder / "notes.jsonl"
    if not path.is_file():
        raise UserError(
            f"{folder}: nothing has been given out yet; begin with residency label push."
        )
    return {note.id: note for note in read_jsonl(path, Note)}


def read_annotations(to: LabellingSetup) -> dict[str, dict[str, Annotation]]:
    """What was pulled in the round of labelling, by annotator and note."""
    return {name: marks.read(_kept(to.folder, ROUND, name)) for name in to.settings.annotators}


def _kept(folder: Path, round: str, name: str) -> Path:
    """The file of what was pulled from somebody."""
    return folder / round / "annotations" / f"{name}.jsonl"


def _tasks(folder: Path, round: str, name: str) -> list[LabellingTask]:
    """What was given out to somebody, in their order."""
    path = folder / round / "tasks" / f"{name}.jsonl"
    return list(read_jsonl(path, LabellingTask)) if path.is_file() else []


def give(
    to: LabellingSetup, round: str, name: str, tasks: Sequence[LabellingTask], profile: Profile
) -> Sent:
    """Give tasks to one person, by file or server; the list of what they were given is written
    first."""
    way = _exchange(to, round, name)
    if isinstance(way, Project):
        check_profile(way.server, profile, way.where)
        way.check()
    write_jsonl(to.folder / round / "tasks" / f"{name}.jsonl", tasks)
    where = way.push(tasks, marks.read(_kept(to.folder, round, name)))
    return Sent(annotator=name, tasks=len(tasks), where=where)


def take(to: LabellingSetup, round: str, name: str) -> Pulled:
    """Take back what one person has done: proved, merged with what was taken before, earlier
    versions kept in history.jsonl.

    What stands in the way is named in the result, not raised: others' work is taken all the same.
    """
    kept_in = _kept(to.folder, round, name)
    tasks = {task.id: task for task in _tasks(to.folder, round, name)}
    before = marks.read(kept_in)
    replace = msgspec.structs.replace
    try:
        found = list(_exchange(to, round, name).pull(tasks))
    except UserError as error:
        _, pulled = merge(before, list(before.values()))
        return replace(pulled, annotator=name, trouble=str(error), of=len(tasks))
    known = [one for one in found if one.task in tasks]
    last = {one.task: prove(one, name, tasks[one.task].text, to.card) for one in known}
    kept, pulled = merge(before, list(last.values()))
    if pulled.new or pulled.changed:
        changed = [
            before[note] for note, one in last.items() if note in before and before[note] != one
        ]
        marks.append(to.folder / round / "history.jsonl", changed)
        marks.write(kept_in, kept)
    return replace(pulled, annotator=name, of=len(tasks), unknown=len(found) - len(known))


def _exchange(to: LabellingSetup, round: str, name: str) -> Exchange | Browser | Project:
    """How tasks come to somebody, and back."""
    settings, folder = to.settings, to.folder / round
    if isinstance(settings, InBrowser):
        return Browser(folder, name, to.card)
    if not isinstance(settings, InLabelStudio):
        return Exchange(folder, name)
    if name == ADJUDICATOR:
        if settings.adjudicator is None:
            return Exchange(folder, name)
        server, where = settings.adjudicator, "label.adjudicator"
    else:
        number = settings.annotators.index(name)
        server, where = settings.servers[number], f"label.servers[{number}]"
    root, codes = to.recipe.root, settings.codes
    return Project(
        server,
        where,
        f"{to.recipe.name} / {round}",
        to.card,
        hints(to.card, guides(to.card_name, root).get(_lang(to))),
        read_codes(root / codes, settings.code_columns) if codes else [],
        decides=round == DECIDE,
    )


def _lang(to: LabellingSetup) -> str:
    """The language that the recipe gives for the notes; the guideline is shown in it where there is
    one."""
    data = to.recipe.data.get(to.settings.data)
    return data.lang.partition("-")[0] if data else ""


def _choose_notes(to: LabellingSetup) -> list[Note]:
    """The notes to give out: those of the recipe's data set, as many as it says, and all that were
    given out before."""
    settings, recipe = to.settings, to.recipe
    if settings.data not in recipe.data:
        raise UserError(
            f"label.data: {settings.data!r} is not an entry of data; "
            f"{allowed(recipe.data, settings.data)}."
        )
    data = recipe.data[settings.data].model_copy(update={"limit": None})
    corpus = load.load(data, settings.data, recipe.root, recipe.seed)
    given = _follow_notes(to, {note.id: note for note in corpus.notes})
    new = [note for note in releasable(corpus.notes) if note.id not in given]
    random.Random(recipe.seed).shuffle(new)
    most = len(new) if settings.limit is None else max(0, settings.limit - len(given))
    return [*given.values(), *new[:most]]


def _follow_notes(to: LabellingSetup, current: Mapping[str, Note]) -> dict[str, Note]:
    """The notes that were given out, as they are now. Where some were amended, merged or deleted,
    tasks and annotations follow: labels move with the text, or are asked again."""
    path = to.folder / "notes.jsonl"
    if not path.is_file():
        return {}
    given, data = read_notes(to.folder), to.recipe.data[to.settings.data]
    moved = history.moved_notes(load.files(data, to.recipe.root, to.settings.data))
    found = follow(list(given.values()), current, moved)
    if found.now or found.gone:
        for name in to.settings.annotators:
            if not take(to, ROUND, name).trouble or not isinstance(to.settings, InLabelStudio):
                _follow_one(to, name, given, found)
                continue
            raise UserError(
                f"label: notes of {name} were amended, and what they have done cannot be had; "
                "start their server, then push again."
            )
        bare = (msgspec.structs.replace(note, spans=(), relations=()) for note in found.notes)
        write_jsonl(path, bare)
    return {note.id: note for note in found.notes}


def _follow_one(to: LabellingSetup, name: str, given: Mapping[str, Note], found: Followed) -> None:
    """Tasks and annotations of one person on the notes as they are now. What is written last leads
    here again, if this is cut off."""
    kept_in, folder = _kept(to.folder, ROUND, name), to.folder / ROUND
    done, again = dict[str, Annotation](), dict[str, Annotation]()
    for id, one in marks.read(kept_in).items():
        text = given[id].text if id in given else ""
        if id in found.now and all(text[s.start : s.end] == s.quote for s in one.spans):
            now = found.now[id]
            moved, stands = moved_annotation(one, text, found.edits[id], now)
            (done if stands else again)[now] = moved
        elif id not in found.gone:
            done[id] = one
    changed = {*found.now, *found.gone}
    for path in (folder / "out" / f"{name}.jsonl", folder / "back" / f"{name}.jsonl"):
        if path.is_file():
            rows = read_jsonl(path, dict)
            write_jsonl(path, [row for row in rows if row.get("id") not in changed])
    Browser(folder, name, to.card).forget(changed)
    if (past := folder / "history.jsonl").is_file():
        write_jsonl(past, [a for a in read_jsonl(past, Annotation) if a.note not in found.gone])
    tasks = followed_tasks(_tasks(to.folder, ROUND, name), found, again)
    write_jsonl(folder / "tasks" / f"{name}.jsonl", tasks)
    marks.write(kept_in, done)


def _suggestions(to: LabellingSetup, notes: Sequence[Note]) -> dict[str, tuple[Span, ...]]:
    """What is marked beforehand, by note; raises ``UserError`` for a model of another card's
    labels."""
    how = to.settings.prelabel
    if isinstance(how, ByNotes):
        found = {note.id: note.spans for note in notes}
    elif isinstance(how, ByTerms):
        terms = TermFinder.read(to.recipe.root / how.path, to.card)
        found = {note.id: terms.find(note.text) for note in notes}
    elif isinstance(how, ByModel):
        from residency.workflows.finished import predict

        answers = (one.answer for one in predict(to.recipe.root / how.run, notes))
        found = {note.id: spans_of(one) for note, one in zip(notes, answers, strict=True)}
    else:
        return {}
    for spans in found.values():
        if unknown := {span.label for span in spans} - set(to.card.names):
            raise UserError(
                f"label.prelabel: label {sorted(unknown)[0]!r} is not in card {to.card.name}; "
                f"allowed: {', '.join(to.card.names)}."
            )
    return found


def _shuffled(tasks: list[LabellingTask], recipe: Recipe, name: str) -> list[LabellingTask]:
    """Tasks in the order of one annotator."""
    random.Random(f"{recipe.seed}/{name}").shuffle(tasks)
    return tasks


def push(recipe: Recipe) -> list[Sent]:
    """Give the notes out: every annotator all of them, each in an order of their own. Doing it
    again adds what is new."""
    to = open_labelling(recipe)
    notes = _choose_notes(to)
    if not notes:
        raise UserError(f"label.data: {to.settings.data} holds no notes to label.")
    marks.check_unique(notes)
    bare = (msgspec.structs.replace(note, spans=(), relations=()) for note in notes)
    write_jsonl(to.folder / "notes.jsonl", bare)
    given = {name: _tasks(to.folder, ROUND, name) for name in to.settings.annotators}
    had = {name: {task.id for task in tasks} for name, tasks in given.items()}
    marked = _suggestions(to, [n for n in notes if any(n.id not in ids for ids in had.values())])
    profile = strictest(note.profile for note in notes)
    sent = []
    for name, before in given.items():
        new = [
            LabellingTask(
                id=n.id,
                text=n.text,
                lang=n.lang,
                suggestions=(marked[n.id],) if n.id in marked else (),
            )
            for n in notes
            if n.id not in had[name]
        ]
        sent.append(give(to, ROUND, name, [*before, *_shuffled(new, recipe, name)], profile))
    return sent


def pull(recipe: Recipe) -> tuple[list[Pulled], list[TimeEstimate]]:
    """Take back what annotators have done so far, and say how long the rest will take."""
    to = open_labelling(recipe)
    notes = read_notes(to.folder)
    pulled = [take(to, ROUND, name) for name in to.settings.annotators]
    found = [estimate(name, done, notes) for name, done in read_annotations(to).items()]
    return pulled, [one for one in found if one is not None]


def agreement(recipe: Recipe) -> tuple[Agreement, Path]:
    """Measure agreement on what was pulled; writes ``agreement.html``, ``.md`` and ``.json``."""
    to = open_labelling(recipe)
    notes, given = read_notes(to.folder), read_annotations(to)
    found = agree(notes, given, to.card.names, to.settings.bootstrap, recipe.seed)
    times = [
        one
        for name, done in given.items()
        if (one := estimate(name, done, notes)) is not None and one.left
    ]
    show = strictest(note.profile for note in notes.values()) in SHOWABLE
    caveats = _caveats(to.settings, notes, given)
    plots = _agreement_plots(found, to.card.names)
    page = agreement_page(found, notes, show, times, plots, caveats)
    write_json(to.folder / "agreement.json", found)
    return found, write_page(page, to.folder, "agreement")


def _agreement_plots(found: Agreement, labels: Sequence[str]) -> dict[str, str]:
    """The page's plots as SVG, by name; those for which there are points."""
    from residency.evals.plots import inline, score_plot

    plots = {}
    named = {one.metric: one for one in (*found.pooled, *found.alpha)}
    series = [
        ("strict F1", [named[f"strict_f1/{label}"] for label in labels]),
        ("alpha", [named[f"alpha/{label}"] for label in labels]),
    ]
    if (svg := score_plot(labels, series, "agreement")) is not None:
        plots["labels"] = inline(svg, "labels", "Agreement by label")
    if found.drift:
        rows = ("first", "second", "third", "last")
        # the legend lists the last first
        by_person = [(one.annotator, one.periods) for one in found.drift[:4]][::-1]
        if (svg := score_plot(rows, by_person, "strict F1 with the others")) is not None:
            plots["drift"] = inline(svg, "drift", "Agreement over time")
    return plots


def _caveats(
    settings: Label, notes: Mapping[str, Note], given: Mapping[str, Mapping[str, Annotation]]
) -> list[str]:
    """What a reader must know before the figures."""
    found = []
    if settings.prelabel.by != "nothing":
        found.append(
            "Annotators began from marks that were made beforehand. Those pull all of them the "
            "same way, so agreement is higher than it would be on bare notes."
        )
    for name, done in given.items():
        if not done:
            found.append(f"{name} has labelled nothing yet and is left out.")
        if faulty := sum(bool(one.faults) for one in done.values()):
            found.append(f"{faulty} annotations of {name} must be mended and do not count.")
        if skipped := sum(one.skipped for one in done.values()):
            found.append(f"{name} skipped {skipped} notes.")
    if all(note.origin.startswith("synthetic:") for note in notes.values()):
        found.append(
            "These notes are invented; where annotators are too, the figures show only that the "
            "road works."
        )
    return found


def adjudicate(recipe: Recipe) -> tuple[Adjudication, Sent | None, Pulled | None]:
    """Settle what can be settled, give out what must be decided, and write gold and audit trail.
    Doing it again takes the decisions made in between."""
    to = open_labelling(recipe)
    notes, given = read_notes(to.folder), read_annotations(to)
    before_tasks = _tasks(to.folder, DECIDE, ADJUDICATOR)
    taken = take(to, DECIDE, ADJUDICATOR) if before_tasks else None
    decided = marks.read(_kept(to.folder, DECIDE, ADJUDICATOR))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    outcome = settling.settle(list(notes.values()), given, decided, now)
    if sum(bool(done) for done in given.values()) < 2:
        raise UserError(
            "label: fewer than two annotators have labelled anything; pull again when they have."
        )
    trail = to.folder / "audit.jsonl"
    before = list(read_jsonl(trail, Decision)) if trail.is_file() else []
    marks.append(trail, settling.new_lines(outcome.decisions, before))
    write.write_jsonl(outcome.gold, to.folder / "gold.jsonl")
    sent = None
    if outcome.open:
        tasks = {task.id: task for task in before_tasks}
        tasks |= {task.id: task for task in settling.tasks(outcome.open, notes)}
        profile = strictest(note.profile for note in notes.values())
        sent = give(to, DECIDE, ADJUDICATOR, list(tasks.values()), profile)
    return outcome, sent, taken


def practice(recipe: Recipe, gold: Path) -> tuple[list[Sent], list[practising.Feedback]]:
    """The practice round: gives ten notes out where that was not done, else takes them back and
    writes each annotator's feedback."""
    to = open_labelling(recipe)
    kept = to.folder / PRACTICE / "gold.jsonl"
    if kept.is_file():
        return [], _feedback(to, list(read_jsonl(kept, Note)))
    chosen = practising.draw(_read_gold(to, gold), recipe.seed)
    profile = strictest(note.profile for note in chosen)
    sent = []
    for name in to.settings.annotators:
        tasks = [LabellingTask(id=note.id, text=note.text, lang=note.lang) for note in chosen]
        sent.append(give(to, PRACTICE, name, _shuffled(tasks, recipe, name), profile))
    write_jsonl(kept, chosen)
    return sent, []


def _feedback(to: LabellingSetup, chosen: list[Note]) -> list[practising.Feedback]:
    """Take the practice round back, and write a page for each annotator who has done it."""
    guide = guides(to.card_name, to.recipe.root).get(_lang(to))
    show = strictest(note.profile for note in chosen) in SHOWABLE
    found, troubles = [], []
    for name in to.settings.annotators:
        pulled = take(to, PRACTICE, name)
        troubles += [pulled.trouble] if pulled.trouble else []
        done = marks.read(_kept(to.folder, PRACTICE, name))
        one = practising.feedback(name, chosen, done, to.card, guide, show)
        if one is not None:
            write_page(one.page, to.folder / PRACTICE, f"feedback-{name}")
            found.append(one)
    if troubles and not found:
        raise UserError(troubles[0])
    return found


def _read_gold(to: LabellingSetup, path: Path) -> list[Note]:
    """Notes of a JSON lines file whose answers are known."""
    from residency.core.part import parse

    profile = to.recipe.data[to.settings.data].profile
    data = {"format": "jsonl", "path": str(path.resolve()), "stop": 0, "profile": profile}
    corpus = load.load(parse(load.Data, data, "--gold"), "gold", to.recipe.root, to.recipe.seed)
    return list(corpus.notes)


def rehearse(recipe: Recipe) -> tuple[Agreement, Path, Adjudication]:
    """The whole road with annotators that do not exist: the spans of the recipe's own notes are the
    truth that they err from.

    For the demo, and to try a recipe before people spend their time on it; not with
    ``via: label_studio``.
    """
    to = open_labelling(recipe)
    if isinstance(to.settings, InLabelStudio):
        raise UserError(
            "label.via: invented annotators hand in files; set label.via=files and another "
            "label.out."
        )
    push(recipe)
    data = to.settings.data
    corpus = load.load(recipe.data[data], data, recipe.root, recipe.seed)
    truth = {note.id: note for note in corpus.notes}
    for name in to.settings.annotators:
        tasks = _tasks(to.folder, ROUND, name)
        made = simulate([truth[task.id] for task in tasks], to.card, name, recipe.seed)
        if not isinstance(way := _exchange(to, ROUND, name), Project):
            way.answer(tasks, {one.note: one for one in made})
    pull(recipe)
    found, page = agreement(recipe)
    outcome, _, _ = adjudicate(recipe)
    return found, page, outcome


def guideline(recipe: Recipe, lang: str, folder: Path | None = None) -> Path:
    """Write the card's guideline in a language, to print; returns the page."""
    to = open_labelling(recipe)
    page = guideline_page(to.card, guides(to.card_name, recipe.root).get(lang), lang)
    return write_page(page, folder or to.folder, f"guideline-{lang}")
