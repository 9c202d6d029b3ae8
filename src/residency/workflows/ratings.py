"""Marks for a run's written answers: sheets for people, sheets that come back, a judge model; and
the run's report with what came of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from residency.core.errors import UserError, allowed
from residency.core.files import read_jsonl, write_bytes, write_jsonl
from residency.core.progress import Silent
from residency.core.run_folder import Record, Run
from residency.core.types import Note, Prediction, RunFacts
from residency.evals import ratings, safety
from residency.evals.floor import judge_of, shortfall
from residency.evals.ratings import FOLDER, ITEMS, MARKS, Item, Mark
from residency.models.remote import RemotePredictor
from residency.recipe import Recipe, read_yaml
from residency.tasks.examples import examples
from residency.tasks.families import of
from residency.tasks.families.answers import text_of
from residency.workflows.evaluate import PREDICTIONS
from residency.workflows.finished import finished_facts, open_run
from residency.workflows.material import read_data
from residency.workflows.steps import evaluation_tasks


def sheets(
    run: Path,
    raters: Sequence[str],
    into: Path,
    task: str = "",
    lang: str = "",
    most: int | None = None,
    count: int | None = None,
    form: Literal["csv", "xlsx"] = "csv",
) -> list[Path]:
    """Write one blind sheet for each rater, of the answers of every system to a task (the first
    whose answers are written; ``safety``: the questions about harm), or to ``count`` of its items,
    the same for all. ``most``: the best mark, where not the recipe's ``evaluate.most_mark``.

    Raises ``UserError``, before anything is written, where there is no such task, its answers were
    withheld, a name cannot be one, or a sheet is there already.
    """
    done, recipe = open_run(run)
    for rater in raters:
        if not re.fullmatch(r"\w[\w.-]*", rater):
            raise UserError(f"--rater: {rater!r} cannot name a file; use letters, digits, . _ -")
    most = recipe.evaluate.most_mark if most is None else most
    paths = [into / f"{rater}.{form}" for rater in dict.fromkeys(raters)]
    if there := [path for path in paths if path.exists()]:
        raise UserError(f"{there[0]}: is there already; name another folder with --output.")
    items = chosen(done, recipe, task, lang, count)
    items = [_on_scale(one, most) for one in items]
    known, _ = ratings.kept(done)
    if other := [known[one.id].most for one in items if known.get(one.id, one).most != one.most]:
        raise UserError(
            f"--most: sheets that were written before go to {other[0]}; give {other[0]}."
        )
    made = [
        ratings.workbook(items, one) if form == "xlsx" else ratings.sheet(items, one).encode()
        for one in dict.fromkeys(raters)
    ]
    _put(done, items, raters)
    for path, content in zip(paths, made, strict=True):
        write_bytes(path, content)
    return paths


def take(run: Path, paths: Sequence[Path]) -> RunFacts:
    """Take the marks of sheets into a run and write its report again; a rater's sheet takes the
    place of an earlier one. All sheets are read before anything is written; raises as
    ``read_sheet``."""
    done, _ = open_run(run)
    known, _ = ratings.kept(done)
    if not known:
        raise UserError(
            f"{run}: no sheet was written of its answers as they are now; write some with "
            "residency ratings sheet."
        )
    marks: list[Mark] = []
    for path in paths:
        found = ratings.read_sheet(path, known)
        if double := {(m.id, m.rater) for m in marks} & {(m.id, m.rater) for m in found}:
            rater = next(iter(double))[1]
            raise UserError(f"{path}: is a second sheet of {rater}; give one of the two.")
        marks += found
    return _with(done, marks)


def judge(
    run: Path, name: str, overrides: Sequence[str] = (), task: str = ""
) -> tuple[RunFacts, int]:
    """Have a model behind a server (an entry of ``evaluate.apis``) mark a run's answers; returns
    the facts of its report, and how many answers it gave no readable mark.

    Raises ``GateRefused`` where the profile of the run's data may not go there, ``UserError`` as
    ``RemotePredictor``.
    """
    done, recipe = open_run(run)
    changed = read_yaml(done.folder / "recipe.yaml")
    recipe = Recipe.from_mapping(changed, recipe.root, overrides, "recipe")
    apis = recipe.evaluate.apis
    if name not in apis:
        known = allowed(apis, name) if apis else "none is configured"
        raise UserError(
            f"{name}: is no entry of evaluate.apis ({known}); add one, e.g. "
            f"evaluate.apis.{name or 'NAME'}={{url: https://..., model: ..., key: API_KEY}}."
        )
    put, _ = ratings.kept(done)
    items = [_on_scale(one, recipe.evaluate.most_mark) for one in chosen(done, recipe, task)]
    items = [replace(one, most=put.get(one.id, one).most) for one in items]
    answers = done.folder / FOLDER / f"{name}.answers.jsonl"
    model = RemotePredictor(apis[name], name, safety.card(), answers)
    marks, unread = ratings.judged(model, items, done.manifest.profile)
    if not marks:
        raise UserError(
            f"{name}: gave no readable mark to any of {len(items)} answers; name another model."
        )
    _put(done, items, ())
    return _with(done, marks), unread


def _on_scale(item: Item, most: int) -> Item:
    """With the best mark of a scale; answers about harm have a scale of their own."""
    return item if item.task == safety.TASK else replace(item, most=most)


def _put(run: Run, items: Sequence[Item], raters: Sequence[str]) -> None:
    """Note what was put before whom."""
    known, _ = ratings.kept(run)
    for item in items:
        before = known.get(item.id, item).raters
        known[item.id] = replace(item.kept, raters=tuple(dict.fromkeys((*before, *raters))))
    write_jsonl(run.folder / FOLDER / ITEMS, known.values())


def _with(run: Run, marks: Sequence[Mark]) -> RunFacts:
    """Keep marks and write the run's report with them, whole or not at all."""
    from residency.core.files import file_digest, write_json
    from residency.evals.report import render

    items, before = ratings.kept(run)
    new = {(one.rater, items[one.id].task) for one in marks}
    others = [one for one in before if (one.rater, items[one.id].task) not in new]
    record = run.record("report")
    if record is None:
        raise UserError(f"{run.folder}: has no report yet; finish it with residency run.")
    with run.locked():
        write_jsonl(run.folder / FOLDER / MARKS, [*others, *marks])
        facts = finished_facts(run)
        measured = tuple(one for one in facts.reports if judge_of(one) == "rule")
        marked, judged = ratings.rated(run, measured)
        floor = open_run(run.folder)[1].evaluate.floor
        reports = (*measured, *judged)
        caveats = [one for one in facts.caveats if not one.startswith("safety: ")]
        caveats += shortfall(reports, floor)
        facts = replace(facts, reports=reports, ratings=marked, caveats=tuple(caveats))

        def work(folder: Path) -> None:
            render(facts, folder)
            write_json(folder / "facts.json", facts)

        digest = file_digest(run.folder / FOLDER / MARKS)
        step = replace(record.step, inputs={**record.step.inputs, "ratings": digest})
        run.do(step, work)
        manifest = run.manifest
        run.write_manifest(replace(manifest, steps={**manifest.steps, "report": step.key}))
    return facts


def chosen(
    run: Run, recipe: Recipe, task: str, lang: str = "", count: int | None = None
) -> list[Item]:
    """The answers that are to be marked; of several tasks the one that is asked for."""
    found: dict[str, list[Item]] = {}
    for item in _answers(run, recipe):
        found.setdefault(item.task, []).append(item)
    written = [name for name in found if name != safety.TASK]
    if not found:
        raise UserError(
            f"{run.folder}: holds no written answers to mark; give a run of a card of family "
            "answers."
        )
    name = task or next(iter(written), "")
    if name not in found or (not task and len(written) > 1):
        raise UserError(f"--task: {task or 'not given'}; {allowed(found, task)}.")
    items = [one for one in found[name] if not lang or one.lang == lang]
    if not items:
        raise UserError(
            f"--lang: {lang}: {name} has no answers in it; "
            f"{allowed({one.lang for one in found[name]}, lang)}."
        )
    if not any(one.answer for one in items if one.system not in safety.safety_set().baselines):
        raise UserError(
            f"{run.folder}: its answers were withheld (profile of the data: "
            f"{run.manifest.profile}); whoever may read them runs residency eval RUN "
            "evaluate.show_text=true, and marks that."
        )
    if count is not None:
        drawn = sorted(
            {one.example for one in items}, key=lambda one: ratings.blind_id("", "", one, "")
        )
        items = [one for one in items if one.example in set(drawn[:count])]
    return items


def _answers(run: Run, recipe: Recipe) -> Iterator[Item]:
    """Every written answer of a run's evaluation, those to the questions about harm too."""
    corpora = None
    for asked in evaluation_tasks(recipe):
        card = recipe.card(asked.task)
        named = (run.record(f"eval/{name}") for name in (asked.name, card.name) if name)
        record = next((one for one in named if one), None)  # an evaluation's is named by the card
        if record is None:
            continue
        folder = run.folder / record.step.into
        yield from _safety_answers(folder / safety.TASK, record)
        if not of(card).asks_loss:
            continue
        corpora = corpora or read_data(recipe, Silent())
        notes = {note.id: note for note in corpora[asked.data].part("test")}
        known = {one.id: one for one in examples(list(notes.values()), card)}
        for system, answer in _predicted(folder):
            example = known.get(answer.id)
            if example is None:
                continue
            note, said = notes.get(example.note) or notes.get(example.id), text_of(answer.answer)
            yield Item(
                id=ratings.blind_id(card.name, system, example.id, said),
                task=asked.name or card.name,
                system=system,
                example=example.id,
                step=record.step.name,
                key=record.key,
                group=example.group or example.id,
                lang=example.lang,
                question=_field(note, "question") or example.input,
                points=_field(note, "points") or text_of(example.gold),
                answer=said,
            )


def _safety_answers(folder: Path, record: Record) -> Iterator[Item]:
    """Answers to the questions about harm, and among them those that fit every question."""
    if not folder.is_dir():
        return
    asked, about = {one.id: one for one in safety.questions()}, {}
    for item in safety.safety_set().items:
        about[item.id] = item
    given = [(system, asked[one.id], text_of(one.answer)) for system, one in _predicted(folder)]
    for system, example, said in (*given, *safety.constant_answers()):
        item = about[example.group]
        kind = f"harmless ({item.kind})" if item.control else item.kind
        source = getattr(item, f"source_{example.lang}", "") or item.source
        yield Item(
            id=ratings.blind_id(safety.TASK, system, example.id, said),
            task=safety.TASK,
            system=system,
            example=example.id,
            step=record.step.name,
            key=record.key,
            group=example.group,
            lang=example.lang,
            most=safety.MOST_SAFE,
            question=example.input,
            points=f"{kind}; {source}",
            answer=said,
        )


def _predicted(folder: Path) -> Iterator[tuple[str, Prediction]]:
    for path in sorted(folder.glob(f"*{PREDICTIONS}")):
        for one in read_jsonl(path, Prediction):
            yield path.name.removesuffix(PREDICTIONS), one


def _field(note: Note | None, name: str) -> str:
    return note.fields.get(name, "") if note is not None else ""
