"""What a model has to say to those who label: what to label next, and which labels are likely
wrong."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from residency.core.errors import UserError
from residency.core.files import read_jsonl, write_jsonl
from residency.core.page import Page, Section, write_page
from residency.core.part import parse
from residency.core.progress import Silent, Tracker
from residency.core.types import SHOWABLE, Note, Span
from residency.corpus import load, write
from residency.corpus.summary import strictest
from residency.label.active import Choice, choose, uncertainty
from residency.label.suspects import (
    Place,
    Suspect,
    SuspectRow,
    find_suspects,
    rank_suspects,
    settle,
)
from residency.models.base import Base, silent
from residency.recipe import Recipe
from residency.tasks.card import Card
from residency.tasks.examples import examples, fixed
from residency.tasks.families import check_marks_spans, of
from residency.train.stage import Stage
from residency.workflows.steps import base_of

if TYPE_CHECKING:
    from residency.models.crf import CrfPredictor
    from residency.models.encoder import EncoderPredictor
    from residency.models.tokens import Marginals

FOLDS = 5


def fit_on_notes(
    base: Base, card: Card, notes: Sequence[Note], stage: Stage, seed: int
) -> EncoderPredictor | CrfPredictor:
    """A model trained on notes, in memory only; the card's labels must be fixed."""
    from residency.models.predictors import marker
    from residency.train.job import TrainingJob
    from residency.workflows.run import trainer_of

    with tempfile.TemporaryDirectory(prefix="residency-") as folder, silent():
        job = TrainingJob(
            stage=stage,
            name="fold",
            base=base,
            card=card,
            train=examples(notes, card),
            dev=[],
            seed=seed,
            profile=strictest(note.profile for note in notes),
            work=Path(folder) / "work",
            out=Path(folder) / "model",
        )
        job.out.mkdir()
        trainer_of(job.stage)(job)
        return marker(job.out, "label errors: needs a card of family spans.")


def cross_validate(
    base: Base,
    card: Card,
    notes: Sequence[Note],
    stage: Stage,
    seed: int = 0,
    folds: int = FOLDS,
    tracker: Tracker | None = None,
) -> list[Marginals]:
    """What models believe of each note that did not learn from it, nor from another note of its
    group.

    Raises ``UserError`` where there are fewer groups than folds.
    """
    tracker = tracker or Silent()
    groups = sorted({note.group or note.id for note in notes})
    if len(groups) < folds:
        raise UserError(
            f"folds: {folds} need as many patients or documents, and the notes have {len(groups)}; "
            "give fewer folds or more notes."
        )
    random.Random(seed).shuffle(groups)
    fold_of = {group: number % folds for number, group in enumerate(groups)}
    found: dict[int, Marginals] = {}
    tracker.start("cross-validating", folds)
    for fold in range(folds):
        inside = [fold_of[note.group or note.id] == fold for note in notes]
        learned = [note for note, held in zip(notes, inside, strict=True) if not held]
        asked = [number for number, held in enumerate(inside) if held]
        model = fit_on_notes(base, card, learned, stage, seed + fold)
        found |= zip(asked, model.marginals(notes[number].text for number in asked), strict=True)
        tracker.update(fold + 1)
    tracker.end(f"{len(notes)} notes, {folds} folds")
    return [found[number] for number in range(len(notes))]


def next_notes(
    run: Path,
    pool: Path,
    output: Path,
    count: int,
    at_random: float,
    tracker: Tracker | None = None,
) -> list[Choice]:
    """Choose notes of a pool that a run's model would learn most from, against what it has learned
    already; writes them as JSON lines, and beside them why each was chosen (``OUTPUT.why.jsonl``).

    Raises ``UserError`` for a run whose model does not mark spans, or a pool that holds only what
    was learned.
    """
    from residency.models.artefact import read
    from residency.models.predictors import marker
    from residency.workflows.finished import artefact_of, open_run

    tracker = tracker or Silent()
    artefact = artefact_of(run)
    unfit = (
        f"{run}: its model does not mark spans with a head, so it cannot say how sure it is; give "
        "one that does."
    )
    check_marks_spans(read(artefact).head, unfit)
    _, recipe = open_run(run)
    task = recipe.tasks[0]
    learned = load.load(recipe.data[task.data], task.data, recipe.root, recipe.seed)
    data = {"format": "jsonl", "path": str(pool.resolve()), "stop": 0}
    notes = list(load.load(parse(load.Data, data, "--pool"), "pool", Path.cwd(), recipe.seed).notes)
    known = {note.text for note in learned.notes}
    fresh = [note for note in notes if note.text not in known]
    if not fresh:
        raise UserError(f"{pool}: holds no note that the run has not seen; give unlabelled ones.")
    tracker.start("reading the pool", len(fresh))
    doubts = []
    with silent():
        model = marker(artefact, unfit)
        for one in model.marginals(note.text for note in fresh):
            doubts.append(uncertainty(one.log_probabilities))
            tracker.update(len(doubts))
    chosen = choose(
        fresh,
        doubts,
        count,
        [note.text for note in learned.part("train")],
        at_random,
        seed=recipe.seed,
    )
    tracker.end(f"{len(fresh)} notes")
    by_id = {note.id: note for note in fresh}
    write.write_jsonl((by_id[one.note] for one in chosen), output)
    write_jsonl(output.with_name(f"{output.name}.why.jsonl"), chosen)
    return chosen


def label_errors(
    recipe: Recipe, output: Path, share: float, folds: int, tracker: Tracker | None = None
) -> tuple[list[Suspect], Path]:
    """List the places of the training part whose labels are likely wrong; writes ``errors.jsonl``
    and a page.

    Raises ``UserError`` where the task does not mark spans, or the base cannot.
    """
    task, stage = recipe.tasks[0], recipe.stages[0]
    notes = load.load(recipe.data[task.data], task.data, recipe.root, recipe.seed).part("train")
    base = base_of(recipe)
    card = recipe.card(task)
    unfit = (
        "label errors: needs a card of family spans and a base that is an encoder, such as "
        "bundled:tiny-encoder."
    )
    check_marks_spans(of(card).classifier, unfit)
    if base.architecture != "encoder":
        raise UserError(unfit)
    card = fixed(card, notes, f"data.{task.data}")
    stage = stage.model_copy(update={"stop": None, "track": ()})
    beliefs = cross_validate(base, card, notes, stage, recipe.seed, folds, tracker)
    every = (
        one
        for note, belief in zip(notes, beliefs, strict=True)
        for one in find_suspects(note, belief.slots, belief.log_probabilities, card.names)
    )
    spans = sum(len(note.spans) for note in notes)
    found = rank_suspects(every, share, spans)
    write_jsonl(output / "errors.jsonl", (_bare(one) for one in found))
    show = strictest(note.profile for note in notes) in SHOWABLE
    return found, write_page(
        _errors_page(found, {note.id: note for note in notes}, show, spans), output, "errors"
    )


def _bare(one: Suspect) -> SuspectRow:
    """A suspect without text."""

    def places(spans: Sequence[Span]) -> tuple[Place, ...]:
        return tuple(Place(start=s.start, end=s.end, label=s.label) for s in spans)

    return SuspectRow(
        note=one.note,
        start=one.start,
        end=one.end,
        score=round(one.score, 4),
        labelled=places(one.labelled),
        believed=places(one.believed),
    )


def mend_labels(recipe: Recipe, errors: Path, output: Path) -> tuple[int, int]:
    """Write the notes of a recipe with the labels that were decided on in an ``errors.jsonl``;
    returns how many places were decided on, and how many wait. Raises ``UserError`` where nothing
    was decided.
    """
    rows = list(read_jsonl(errors, SuspectRow))
    decided = sum(bool(row.decision) for row in rows)
    if not decided:
        raise UserError(
            f"{errors}: nothing is decided in it; write accept or reject into decision, or decide "
            "in residency ui."
        )
    task = recipe.tasks[0]
    notes = load.load(recipe.data[task.data], task.data, recipe.root, recipe.seed).notes
    write.write_jsonl(settle(notes, rows), output)
    return decided, len(rows) - decided


def _errors_page(found: Sequence[Suspect], notes: dict[str, Note], show: bool, spans: int) -> Page:
    def describe(marks: tuple[Span, ...]) -> str:
        return "; ".join(f"{span.label} {span.start} to {span.end}" for span in marks) or "-"

    def around(one: Suspect) -> str:
        text, start, end = notes[one.note].text, one.start, one.end
        return f"{text[max(0, start - 40) : start]}[{text[start:end]}]{text[end : end + 40]}"

    columns = ("note", "labelled", "the model says", "log odds", *(("text",) if show else ()))
    rows = [
        (
            one.note,
            describe(one.labelled),
            describe(one.believed),
            f"{one.score:.1f}",
            *((around(one),) if show else ()),
        )
        for one in found
    ]
    return Page(
        title="Labels that are likely wrong",
        eyebrow=f"{len(found)} places, {spans:,} labelled spans",
        lead="Each model was trained on other notes than those that it judges. The list says where "
        "to look first, not what is right: "
        "a small model is often sure and wrong.",
        sections=(
            Section(title="Most suspicious first", columns=columns, rows=tuple(rows), numeric=(3,)),
        ),
    )
