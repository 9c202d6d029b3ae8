"""A run's report once more: in another language, or, for those who may read the notes, with their
text, in a folder that is marked."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from residency.core.errors import UserError
from residency.core.files import disk_errors, read_json, write_text
from residency.core.progress import Silent, Tracker
from residency.core.run_folder import Run
from residency.core.types import AnswerItem, Example, Profile, Report, RunFacts, StageResult
from residency.evals.words import languages, words_of
from residency.models.base import silent
from residency.recipe import Recipe
from residency.tasks.codec import in_words
from residency.workflows.evaluate import able_systems, predictor_of, questions_with_shots
from residency.workflows.finished import finished_facts, open_run
from residency.workflows.material import (
    Material,
    TaskOnData,
    material_of,
    measured_examples,
    read_data,
    task_on_data,
)
from residency.workflows.run import trained_systems
from residency.workflows.steps import evaluation_tasks, read_inputs

SHOWN = "report-with-notes"
"""The folder, in a run's, of the report that quotes notes."""
NOTICE = (
    "This copy shows text of notes (profile: {profile}), for those who may read them: keep it on "
    "this machine, under the rules of the notes, and delete it when it has been read."
)


def report(
    run: Run | Path | str,
    language: str | None = None,
    show: bool = False,
    tracker: Tracker | None = None,
) -> Path:
    """Write the report of a finished run again, into a folder of its own in the run; the path of
    its page.

    ``show``: with the text around errors, and answers, whatever the profile of the data; the folder
    is its owner's alone, ignored by git, and says what it holds. Written answers that the run did
    not keep are asked for again, those that are shown. Raises ``UserError`` for a language that
    reports are not written in, a folder that is no run of a recipe, and data that has changed
    since.
    """
    from residency.evals.report import render

    done, recipe = open_run(run.folder if isinstance(run, Run) else run)
    facts = finished_facts(done)
    facts = replace(facts, language=words_of(language or facts.language).code)
    folder = done.folder / (SHOWN if show else f"report-{facts.language}")
    if show:
        if not facts.show_text:
            facts = _with_text(done, recipe, facts, tracker or Silent())
        caveat = NOTICE.format(profile=done.manifest.profile)
        facts = replace(facts, caveats=(caveat, *facts.caveats))
        _mark(folder, done.manifest.profile)
    render(facts, folder)
    return folder / "report.html"


def _mark(folder: Path, profile: Profile) -> None:
    """A folder that says what it holds, that only its owner may enter, and that git leaves
    alone."""
    with disk_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    every = [words_of(code) for code in languages()]
    told = [words.said(NOTICE.format(profile=profile)) for words in every]
    write_text(folder / "NOTICE.txt", "\n\n".join(told) + "\n")
    write_text(folder / ".gitignore", "*\n")


def _with_text(done: Run, recipe: Recipe, facts: RunFacts, tracker: Tracker) -> RunFacts:
    """What a report shows where notes may be quoted, from the data as it is now."""
    if not any(done.folder.glob("train/*/artefact.json")):
        raise UserError(
            f"{done.folder}: is an evaluation or a comparison; notes are shown of a run itself: "
            "give the folder of the run."
        )
    inputs = read_inputs(recipe, done.folder.parent, done.folder)
    material = material_of(inputs, read_data(recipe, tracker), tracker)
    reports = list(facts.reports)
    for asked in evaluation_tasks(inputs.recipe):
        one = task_on_data(material, asked.task, asked.data, asked.name)
        test = measured_examples(one, inputs.recipe)
        for at, found in enumerate(reports):
            if (found.task, found.part) == (one.card.name, "test"):
                reports[at] = _report_with_text(material, one, test, found)
    stages = [
        read_json(path / "stage.json", StageResult) for path in trained_systems(inputs).values()
    ]
    return replace(facts, reports=tuple(reports), stages=tuple(stages), show_text=True)


def _report_with_text(
    material: Material, one: TaskOnData, test: list[Example], found: Report
) -> Report:
    """The results of a system with the text around its errors, or with its answers."""
    from residency.evals.measure import data_digest, window

    if data_digest(test) != found.data_digest:
        raise UserError(
            f"data.{one.data}: has changed since this run, so its examples cannot be shown; run "
            "the recipe again with residency run."
        )
    by_id = {example.id: example for example in test}
    errors = tuple(
        replace(error, text=window(by_id[error.example].input, error.start, error.end))
        for error in found.errors
    )
    return replace(found, errors=errors, answers=_answers(material, one, by_id, found))


def _answers(
    material: Material, one: TaskOnData, by_id: dict[str, Example], found: Report
) -> tuple[AnswerItem, ...]:
    """The written answers that a report shows, asked for again: a run did not keep them."""
    from residency.evals.examples_view import ANSWERS_SHOWN

    shown, name = found.answers[:ANSWERS_SHOWN], found.system.name
    if not shown:
        return ()
    asked = [by_id[item.example] for item in shown]
    seed = material.inputs.recipe.seed
    questions = questions_with_shots(one, asked, seed).get(name, asked)
    material.tracker.start(f"asking {name} again", len(asked))
    with silent():
        able = able_systems(one, trained_systems(material.inputs))
        predictor = predictor_of(material, one, able, name)
        answers = list(predictor.predict(questions))
    material.tracker.end()
    return tuple(
        replace(
            item,
            input=example.input,
            gold=in_words(example.gold, one.card),
            answer=in_words(answer.answer, one.card),
        )
        for item, example, answer in zip(shown, asked, answers, strict=True)
    )
