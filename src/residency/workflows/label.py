"""Labelling from a recipe: give notes out, take them back, measure agreement, settle differences.

Everything lies in ``label.out``:

notes.jsonl               the notes that were given out, in their order
label/                    a round: tasks, files out and back, annotations/NAME.jsonl as pulled, history.jsonl of what changed
practice/  adjudication/  other rounds, the same way
agreement.html            the report
gold.jsonl  audit.jsonl   what was settled, and how
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import msgspec

from residency.core.errors import UserError, allowed
from residency.core.files import read_jsonl, write_json, write_jsonl
from residency.core.page import write_page
from residency.core.types import SHOWABLE, Note, Profile, Span, Spans, Value
from residency.core.zones import assert_outside
from residency.corpus import load, write
from residency.corpus.summary import strictest
from residency.label import adjudicate as settling
from residency.label import annotations as marks
from residency.label import practice as practising
from residency.label.adjudicate import ADJUDICATOR, Decision, Outcome
from residency.label.agreement import Agreement, agree
from residency.label.annotations import Annotation, Pulled, Task, merged, proved, releasable
from residency.label.campaign import ByModel, ByNotes, ByTerms, InFiles, Label
from residency.label.duration import Estimate, estimate
from residency.label.exchange import Exchange
from residency.label.guideline import guideline_page, guides, hints
from residency.label.interface import Code, read_codes
from residency.label.pages import agreement_page
from residency.label.simulate import simulate
from residency.label.studio import Project, check_profile
from residency.label.terms import Terms
from residency.recipe import Recipe
from residency.tasks.card import Card, load_card

ROUND, PRACTICE, DECIDE = "label", "practice", "adjudication"


class Sent(Value, frozen=True):
    """What was given out to one person."""

    annotator: str
    tasks: int
    where: str


class Desk:
    """The labelling of one recipe: its folder, its people and the ways to them."""

    def __init__(self, recipe: Recipe) -> None:
        if recipe.label is None:
            raise UserError(
                "label: the recipe has no such section; labelling needs it (which notes, by whom, "
                "where), see the guide's page "
                "on labelling."
            )
        self.recipe = recipe
        self.settings: Label = recipe.label
        self.folder = recipe.root / self.settings.out
        assert_outside(self.folder)

    @cached_property
    def card_name(self) -> str:
        """The card's name or file."""
        return self.settings.card or self.recipe.tasks[0].card

    @cached_property
    def card(self) -> Card:
        """The card; it must name its labels, since nobody has labelled anything that they could be
        taken from."""
        card = load_card(self.card_name, self.recipe.root)
        if card.family != "spans" or not card.labels:
            raise UserError(
                f"label.card: {self.card_name} does not name labels of spans; annotators need "
                "labels with definitions, so write a card "
                "(cards/my-card.yaml) and name it here."
            )
        return card

    @property
    def notes(self) -> list[Note]:
        """The notes that were given out; raises ``UserError`` where none were."""
        path = self.folder / "notes.jsonl"
        if not path.is_file():
            raise UserError(
                f"{self.folder}: nothing has been given out yet; begin with residency label push."
            )
        return list(read_jsonl(path, Note))

    @property
    def by_id(self) -> dict[str, Note]:
        """The notes by id."""
        return {note.id: note for note in self.notes}

    @property
    def profile(self) -> Profile:
        """The strictest profile among the notes."""
        return strictest(note.profile for note in self.notes)

    def annotations(self, round: str = ROUND) -> dict[str, dict[str, Annotation]]:
        """What was pulled, by annotator and note."""
        people = (ADJUDICATOR,) if round == DECIDE else self.settings.annotators
        return {name: marks.read(self.kept(round, name)) for name in people}

    def kept(self, round: str, name: str) -> Path:
        """The file of what was pulled from somebody."""
        return self.folder / round / "annotations" / f"{name}.jsonl"

    def tasks(self, round: str, name: str) -> list[Task]:
        """What was given out to somebody, in their order."""
        path = self.folder / round / "tasks" / f"{name}.jsonl"
        return list(read_jsonl(path, Task)) if path.is_file() else []

    def give(self, round: str, name: str, tasks: Sequence[Task], profile: Profile) -> Sent:
        """Give tasks to one person, by file or server; the list of what they were given is written
        first."""
        way = self.way(round, name)
        if isinstance(way, Project):
            check_profile(way.server, profile, way.where)
            way.check()
        write_jsonl(self.folder / round / "tasks" / f"{name}.jsonl", tasks)
        return Sent(
            annotator=name,
            tasks=len(tasks),
            where=way.push(tasks, marks.read(self.kept(round, name))),
        )

    def take(self, round: str, name: str) -> Pulled:
        """Take back what one person has done: proved, merged with what was taken before, earlier
        versions kept in history.jsonl.

        What stands in the way is named in the result, not raised: others' work is taken all the
        same.
        """
        tasks = {task.id: task for task in self.tasks(round, name)}
        before = marks.read(self.kept(round, name))
        try:
            found = list(self.way(round, name).pull(tasks))
        except UserError as error:
            _, pulled = merged(before, list(before.values()))
            return msgspec.structs.replace(
                pulled, annotator=name, trouble=str(error), of=len(tasks)
            )
        known = [one for one in found if one.task in tasks]
        last = {one.task: proved(one, name, tasks[one.task].text, self.card) for one in known}
        kept, pulled = merged(before, list(last.values()))
        if pulled.new or pulled.changed:
            changed = [
                before[note] for note, one in last.items() if note in before and before[note] != one
            ]
            marks.append(self.folder / round / "history.jsonl", changed)
            marks.write(self.kept(round, name), kept)
        return msgspec.structs.replace(
            pulled, annotator=name, of=len(tasks), unknown=len(found) - len(known)
        )

    def way(self, round: str, name: str) -> Exchange | Project:
        """How tasks come to somebody, and back."""
        settings = self.settings
        if isinstance(settings, InFiles):
            return Exchange(self.folder / round, name)
        if name == ADJUDICATOR:
            if settings.adjudicator is None:
                return Exchange(self.folder / round, name)
            server, where = settings.adjudicator, "label.adjudicator"
        else:
            number = settings.annotators.index(name)
            server, where = settings.servers[number], f"label.servers[{number}]"
        return Project(
            server,
            where,
            f"{self.recipe.name} / {round}",
            self.card,
            self.hints,
            self.codes,
            decides=round == DECIDE,
        )

    @cached_property
    def hints(self) -> dict[str, str]:
        """Label -> definition, in the language of the notes where the guideline has it."""
        told = guides(self.card_name, self.recipe.root)
        return hints(self.card, told.get(self.lang))

    @cached_property
    def lang(self) -> str:
        """The language that the recipe gives for the notes; the guideline is shown in it where
        there is one."""
        data = self.recipe.data.get(self.settings.data)
        return data.lang.partition("-")[0] if data else ""

    @cached_property
    def codes(self) -> list[Code]:
        """The terminology that codes are chosen from."""
        settings = self.settings
        return (
            read_codes(self.recipe.root / settings.codes, settings.code_columns)
            if settings.codes
            else []
        )

    def chosen(self) -> list[Note]:
        """The notes to give out: those of the recipe's data set, as many as it says, and all that
        were given out before."""
        settings = self.settings
        if settings.data not in self.recipe.data:
            raise UserError(
                f"label.data: {settings.data!r} is not an entry of data; "
                f"{allowed(self.recipe.data, settings.data)}."
            )
        data = self.recipe.data[settings.data].model_copy(update={"limit": None})
        corpus = load.load(data, settings.data, self.recipe.root, self.recipe.seed)
        given = self.by_id if (self.folder / "notes.jsonl").is_file() else {}
        new = [note for note in releasable(corpus.notes) if note.id not in given]
        for note in corpus.notes:
            if note.id in given and given[note.id].text != note.text:
                raise UserError(
                    f"label.data: the text of note {note.id} is no longer the one that was given "
                    "out, so offsets would not hold; restore "
                    "it, or choose another folder with label.out."
                )
        random.Random(self.recipe.seed).shuffle(new)
        most = len(new) if settings.limit is None else max(0, settings.limit - len(given))
        return [*given.values(), *new[:most]]

    def suggestions(self, notes: Sequence[Note]) -> dict[str, tuple[Span, ...]]:
        """What is marked beforehand, by note; raises ``UserError`` for a model of another card's
        labels."""
        how = self.settings.prelabel
        if isinstance(how, ByNotes):
            found = {note.id: note.spans for note in notes}
        elif isinstance(how, ByTerms):
            terms = Terms.read(self.recipe.root / how.path, self.card)
            found = {note.id: terms.find(note.text) for note in notes}
        elif isinstance(how, ByModel):
            from residency.workflows.finished import predict

            answers = (one.answer for one in predict(self.recipe.root / how.run, notes))
            found = {
                note.id: answer.spans if isinstance(answer, Spans) else ()
                for note, answer in zip(notes, answers, strict=True)
            }
        else:
            return {}
        for spans in found.values():
            if unknown := {span.label for span in spans} - set(self.card.names):
                raise UserError(
                    f"label.prelabel: label {sorted(unknown)[0]!r} is not in card "
                    f"{self.card.name}; allowed: {', '.join(self.card.names)}."
                )
        return found


def push(recipe: Recipe) -> list[Sent]:
    """Give the notes out: every annotator all of them, each in an order of their own. Doing it
    again adds what is new."""
    desk = Desk(recipe)
    notes = desk.chosen()
    if not notes:
        raise UserError(f"label.data: {desk.settings.data} holds no notes to label.")
    marks.check_unique(notes)
    write_jsonl(
        desk.folder / "notes.jsonl",
        (msgspec.structs.replace(note, spans=(), relations=()) for note in notes),
    )
    marked = desk.suggestions(notes)
    profile = strictest(note.profile for note in notes)
    sent = []
    for name in desk.settings.annotators:
        before = desk.tasks(ROUND, name)
        known = {task.id for task in before}
        new = [
            Task(
                id=n.id,
                text=n.text,
                lang=n.lang,
                suggestions=(marked[n.id],) if n.id in marked else (),
            )
            for n in notes
            if n.id not in known
        ]
        random.Random(f"{recipe.seed}/{name}").shuffle(new)
        sent.append(desk.give(ROUND, name, [*before, *new], profile))
    return sent


def pull(recipe: Recipe) -> tuple[list[Pulled], list[Estimate]]:
    """Take back what annotators have done so far, and say how long the rest will take."""
    desk = Desk(recipe)
    notes = desk.by_id
    pulled = [desk.take(ROUND, name) for name in desk.settings.annotators]
    found = [estimate(name, done, notes) for name, done in desk.annotations().items()]
    return pulled, [one for one in found if one is not None]


def agreement(recipe: Recipe) -> tuple[Agreement, Path]:
    """Measure agreement on what was pulled; writes ``agreement.html``, ``.md`` and ``.json``."""
    from residency.evals.plots import inline, score_plot

    desk = Desk(recipe)
    notes, given = desk.by_id, desk.annotations()
    found = agree(notes, given, desk.card.names, desk.settings.bootstrap, recipe.seed)
    plots = {}
    named = {one.metric: one for one in (*found.pooled, *found.alpha)}
    series = [
        ("strict F1", [named[f"strict_f1/{label}"] for label in desk.card.names]),
        ("alpha", [named[f"alpha/{label}"] for label in desk.card.names]),
    ]
    if (svg := score_plot(desk.card.names, series, "agreement")) is not None:
        plots["labels"] = inline(svg, "labels", "Agreement by label")
    rows = ("first", "second", "third", "last")
    if found.drift:
        by_person = [(one.annotator, one.periods) for one in found.drift[:4]][
            ::-1
        ]  # the legend lists the last first
        if (svg := score_plot(rows, by_person, "strict F1 with the others")) is not None:
            plots["drift"] = inline(svg, "drift", "Agreement over time")
    times = [
        one
        for name, done in given.items()
        if (one := estimate(name, done, notes)) is not None and one.left
    ]
    page = agreement_page(
        found, notes, desk.profile in SHOWABLE, times, plots, _caveats(desk, given)
    )
    write_json(desk.folder / "agreement.json", found)
    return found, write_page(page, desk.folder, "agreement")


def _caveats(desk: Desk, given: Mapping[str, Mapping[str, Annotation]]) -> list[str]:
    """What a reader must know before the figures."""
    found = []
    if desk.settings.prelabel.by != "nothing":
        found.append(
            "Annotators began from marks that were made beforehand. Those pull all of them the "
            "same way, so agreement is higher than it "
            "would be on bare notes."
        )
    for name, done in given.items():
        if not done:
            found.append(f"{name} has labelled nothing yet and is left out.")
        if faulty := sum(bool(one.faults) for one in done.values()):
            found.append(f"{faulty} annotations of {name} must be mended and do not count.")
        if skipped := sum(one.skipped for one in done.values()):
            found.append(f"{name} skipped {skipped} notes.")
    if all(note.origin.startswith("synthetic:") for note in desk.notes):
        found.append(
            "These notes are invented; where annotators are too, the figures show only that the "
            "road works."
        )
    return found


def adjudicate(recipe: Recipe) -> tuple[Outcome, Sent | None, Pulled | None]:
    """Settle what can be settled, give out what must be decided, and write gold and audit trail.
    Doing it again takes the decisions made in between."""
    desk = Desk(recipe)
    notes = desk.notes
    taken = desk.take(DECIDE, ADJUDICATOR) if desk.tasks(DECIDE, ADJUDICATOR) else None
    decided = desk.annotations(DECIDE)[ADJUDICATOR]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    outcome = settling.settle(notes, desk.annotations(), decided, now)
    if len([given for given in desk.annotations().values() if given]) < 2:
        raise UserError(
            "label: fewer than two annotators have labelled anything; pull again when they have."
        )
    trail = desk.folder / "audit.jsonl"
    before = list(read_jsonl(trail, Decision)) if trail.is_file() else []
    marks.append(trail, settling.new_lines(outcome.decisions, before))
    write.write_jsonl(outcome.gold, desk.folder / "gold.jsonl")
    sent = None
    if outcome.open:
        tasks = {task.id: task for task in desk.tasks(DECIDE, ADJUDICATOR)}
        tasks |= {task.id: task for task in settling.tasks(outcome.open, desk.by_id)}
        sent = desk.give(DECIDE, ADJUDICATOR, list(tasks.values()), desk.profile)
    return outcome, sent, taken


def practice(recipe: Recipe, gold: Path) -> tuple[list[Sent], list[practising.Feedback]]:
    """The practice round: gives ten notes out where that was not done, else takes them back and
    writes each annotator's feedback."""
    desk = Desk(recipe)
    settings = desk.settings
    kept = desk.folder / PRACTICE / "gold.jsonl"
    if not kept.is_file():
        known = _gold(recipe, gold)
        chosen = practising.draw(known, recipe.seed)
        sent = []
        for name in settings.annotators:
            tasks = [Task(id=note.id, text=note.text, lang=note.lang) for note in chosen]
            random.Random(f"{recipe.seed}/{name}").shuffle(tasks)
            sent.append(
                desk.give(PRACTICE, name, tasks, strictest(note.profile for note in chosen))
            )
        write_jsonl(kept, chosen)
        return sent, []
    chosen = list(read_jsonl(kept, Note))
    guide = guides(desk.card_name, recipe.root).get(desk.lang)
    told, troubles = [], []
    for name in settings.annotators:
        pulled = desk.take(PRACTICE, name)
        troubles += [pulled.trouble] if pulled.trouble else []
        show = strictest(note.profile for note in chosen) in SHOWABLE
        one = practising.feedback(
            name, chosen, marks.read(desk.kept(PRACTICE, name)), desk.card, guide, show
        )
        if one is not None:
            write_page(one.page, desk.folder / PRACTICE, f"feedback-{name}")
            told.append(one)
    if troubles and not told:
        raise UserError(troubles[0])
    return [], told


def _gold(recipe: Recipe, path: Path) -> list[Note]:
    """Notes of a JSON lines file whose answers are known."""
    from residency.core.part import parse

    data = {
        "format": "jsonl",
        "path": str(path.resolve()),
        "stop": 0,
        "profile": recipe.data[Desk(recipe).settings.data].profile,
    }
    corpus = load.load(parse(load.Data, data, "--gold"), "gold", recipe.root, recipe.seed)
    return list(corpus.notes)


def rehearse(recipe: Recipe) -> tuple[Agreement, Path, Outcome]:
    """The whole road with annotators that do not exist: the spans of the recipe's own notes are the
    truth that they err from.

    For the demo, and to try a recipe before people spend their time on it; needs ``via: files``.
    """
    desk = Desk(recipe)
    if not isinstance(desk.settings, InFiles):
        raise UserError(
            "label.via: invented annotators hand in files; set label.via=files and another "
            "label.out."
        )
    push(recipe)
    data = recipe.data[desk.settings.data]
    truth = {
        note.id: note
        for note in load.load(data, desk.settings.data, recipe.root, recipe.seed).notes
    }
    for name in desk.settings.annotators:
        tasks = desk.tasks(ROUND, name)
        made = {
            one.note: one
            for one in simulate([truth[task.id] for task in tasks], desk.card, name, recipe.seed)
        }
        Exchange(desk.folder / ROUND, name).answer(
            tasks, {id: (one.spans, one.at, one.seconds) for id, one in made.items()}
        )
    pull(recipe)
    found, page = agreement(recipe)
    outcome, _, _ = adjudicate(recipe)
    return found, page, outcome


def guideline(recipe: Recipe, lang: str, folder: Path | None = None) -> Path:
    """Write the card's guideline in a language, to print; returns the page."""
    desk = Desk(recipe)
    guide = guides(desk.card_name, recipe.root).get(lang)
    return write_page(
        guideline_page(desk.card, guide, lang), folder or desk.folder, f"guideline-{lang}"
    )
