"""From a recipe to a measured model: data, then each stage, then each evaluation task, then the
report.

``python -m residency.workflows.run RUN ROOT OUT STAGE`` is one of several processes at a stage,
started under torchrun by a run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residency.core.errors import ResidencyError, UserError
from residency.core.files import read_json, write_jsonl
from residency.core.progress import Silent, Tracker
from residency.core.run_folder import Run, packages
from residency.core.types import StageResult
from residency.corpus.ledger import FOR_TRAINING, LedgerEntry
from residency.models.artefact import FILE, Artefact
from residency.recipe import Recipe, read_yaml
from residency.train import processes
from residency.train.stage import Stage
from residency.workflows.evaluate import measure, write_data, write_report
from residency.workflows.finished import open_run
from residency.workflows.material import (
    Material,
    TaskOnData,
    joined_examples,
    material_of,
    read_data,
    task_on_data,
    training_examples,
)
from residency.workflows.steps import (
    EvaluationTask,
    Inputs,
    evaluation_tasks,
    hash_files,
    read_inputs,
    stage_step,
    stage_steps,
    start_of,
    steps_of_run,
    under_way,
)

if TYPE_CHECKING:
    from residency.train.items import Items
    from residency.train.job import TrainingJob


def run(recipe: Recipe, runs: Path | str = "runs", tracker: Tracker | None = None) -> Run:
    """Run a recipe; what is there already is not done again. Returns the run, whose folder holds
    ``report.html``."""
    processes.check(recipe.launch)
    if not processes.first():
        join_training(recipe, Path(runs))
    try:
        inputs = read_inputs(recipe, Path(runs))
        steps, done = steps_of_run(inputs), Run(inputs.folder)
        with under_way(done, steps, inputs) as unfinished:
            if unfinished:
                tracker = tracker or Silent()
                material = material_of(inputs, read_data(recipe, tracker), tracker)
                train = train_stage if processes.world() == 1 else train_together
                stages = [partial(train, material, n) for n in range(len(recipe.stages))]
                asked = [partial(measure_task, material, one) for one in evaluation_tasks(recipe)]
                report = partial(report_on_run, material)
                for step, action in zip(
                    steps, (partial(write_data, material), *stages, *asked, report), strict=True
                ):
                    done.do(step, action)
    finally:
        processes.shared(lambda: None)  # under torchrun, the others end
    return done


def explain(recipe: Recipe, runs: Path | str = "runs") -> list[tuple[str, str]]:
    """For each step whether it will run, and what about it changed; reads no row."""
    inputs = read_inputs(recipe, Path(runs))
    return [(step.name, Run(inputs.folder).explain(step)) for step in steps_of_run(inputs)]


def trained_systems(inputs: Inputs) -> dict[str, Path]:
    """Name -> artefact of every trained system: ``tuned``, or of several stages each."""
    folders = [inputs.folder / step.into for step in stage_steps(inputs)]
    return {"tuned" if len(folders) == 1 else folder.name: folder for folder in folders}


def measure_task(material: Material, asked: EvaluationTask, folder: Path) -> None:
    """Measure the base and every trained system on one task."""
    one = task_on_data(material, asked.task, asked.data, asked.name)
    several = len(evaluation_tasks(material.inputs.recipe)) > 1
    title = f" on {one.card.name}" if several else ""
    measure(material, one, trained_systems(material.inputs), folder, title)


def report_on_run(material: Material, folder: Path) -> None:
    """Write the report on all that was measured."""
    inputs = material.inputs
    first, *_ = evaluation_tasks(inputs.recipe)
    one = task_on_data(material, first.task, first.data, first.name)
    measured = [step for step in steps_of_run(inputs) if step.name.startswith("eval/")]
    write_report(material, one, trained_systems(inputs), measured, None, folder)


def train_stage(material: Material, number: int, folder: Path) -> None:
    """Train a stage, counted from 0, in this process or in several that are started for it."""
    inputs, tracker = material.inputs, material.tracker
    stage, launch = inputs.recipe.stages[number], inputs.recipe.launch
    if launch.processes > 1 and processes.world() == 1 and stage.needs_base:
        tracker.start(f"training in {launch.processes} processes")
        folders = (inputs.folder, inputs.recipe.root, folder)
        given = [*(str(path.resolve()) for path in folders), str(number)]
        processes.start(launch.processes, "residency.workflows.run", given)
        tracker.end()
        return
    from residency.train.items import limits

    tracker.start(f"training {stage.title(number + 1)}")
    scratch = Run(inputs.folder).scratch(stage_step(inputs, number))
    scratch.mkdir(parents=True, exist_ok=True)
    result, items = trainer_of(stage)(job_of_stage(material, number, scratch, folder))
    if processes.first():
        write_jsonl(folder / "ledger.jsonl", _entries(items))
        best = f"best {result.metric} {result.best:.3f} at epoch {result.best_epoch:g}"
        said = [best if result.best else "last model kept", *limits(items.proof)]
        tracker.end("; ".join(said))


def trainer_of(stage: Stage) -> Callable[[TrainingJob], tuple[StageResult, Items]]:
    """What trains a stage: a network, or what needs no base."""
    if not stage.needs_base:
        from residency.train import lexical

        return lexical.train
    from residency.train import trainer

    return trainer.train


def train_together(material: Material, number: int, folder: Path) -> None:
    """Under torchrun: train a stage with the other processes, which wait to be told of it."""
    processes.shared(lambda: (str(folder), number))
    train_stage(material, number, folder)


def join_training(recipe: Recipe, runs: Path) -> None:
    """Under torchrun, in every process but the first: train what that one trains, then end."""

    def nothing() -> tuple[str, int] | None:
        return None

    material: Material | None = None
    while (order := processes.shared(nothing)) is not None:
        if material is None:
            corpora = read_data(recipe, Silent())
            material = material_of(read_inputs(recipe, runs), corpora, Silent())
        train_stage(material, order[1], Path(order[0]))
    raise SystemExit(0)


def _entries(items: Items) -> list[LedgerEntry]:
    """What became of rows on their way to the model, for the ledger."""
    whole = "longer than the model reads at once"
    found = [
        LedgerEntry(file="", line=0, id=id, status="windowed", reason=whole, count=count)
        for id, count in items.windowed.items()
    ]
    found += [
        LedgerEntry(file="", line=0, status="repaired", reason=FOR_TRAINING + why, count=count)
        for why, count in items.changed.items()
    ]
    return found + [
        LedgerEntry(file="", line=0, id=id, status="rejected", reason=FOR_TRAINING + why)
        for id, why in items.rejected.items()
    ]


def job_of_stage(material: Material, number: int, work: Path, out: Path) -> TrainingJob:
    """Everything that a stage needs to be trained: its rows, cards and settings.

    Raises ``UserError`` where several tasks are not answered in one way.
    """
    from residency.train.job import TrainingJob

    inputs, recipe = material.inputs, material.inputs.recipe
    stage = recipe.stages[number]
    tasks = recipe.tasks_of(stage)
    chosen = [task_on_data(material, task, stage.data or "", task.name) for task in tasks]
    first, general = chosen[0], _general_task(material, stage)
    _check_answers(number, stage, chosen, general)
    others = {one.card.name: one.card for one in (*chosen[1:], *([general] if general else []))}
    others.pop(first.card.name, None)
    method: Any = stage.configured
    if dictionaries := getattr(method, "dictionaries", ()):
        paths = tuple(str(recipe.root / name) for name in dictionaries)
        method = method.model_copy(update={"dictionaries": paths})
    if adapter := getattr(method, "adapter", None):
        method = method.model_copy(update={"adapter": str(recipe.root / adapter)})
    return TrainingJob(
        stage=stage.model_copy(update={"method": method}),
        name=stage.title(number + 1),
        base=inputs.base,
        card=first.card,
        more=tuple(others.values()),
        train=training_examples(material, stage, chosen, general),
        dev=joined_examples(chosen, "dev"),
        seed=recipe.seed,
        profile=material.profile,
        work=work,
        out=out,
        progress=material.tracker.update,
        measured=material.tracker.measured,
        output=first.output,
        limits=first.task.limits,
        generate=first.task.generate,
        max_rejected=recipe.data[first.data].max_rejected,
        start=start_of(inputs, number),
        forecast=True,
        shard=recipe.launch.shard and processes.world() > 1,
    )


def _general_task(material: Material, stage: Stage) -> TaskOnData | None:
    """The task whose card asks replayed rows: the one of their data, else the stage's own."""
    if stage.replay is None:
        return None
    recipe, data = material.inputs.recipe, stage.replay.data
    own = recipe.tasks_of(stage)
    task = next((task for task in (*own, *recipe.tasks) if task.data == data), own[0])
    return task_on_data(material, task, data, task.name)


def _check_answers(
    number: int, stage: Stage, tasks: Sequence[TaskOnData], general: TaskOnData | None
) -> None:
    """Raises ``UserError`` where the rows of a stage are not answered in one way."""

    def way(one: TaskOnData) -> tuple[object, ...]:
        return (one.output, one.task.limits, one.task.generate)

    first = tasks[0]
    alike = ("text", first.task.limits, first.task.generate)
    if len(tasks) > 1 and any(way(one) != alike for one in tasks):
        raise UserError(
            f"stages[{number}].tasks: several tasks in one stage must all be answered in words, "
            "with the same limits and generate; name one of them, or set output: text."
        )
    if general and stage.replay:
        head, outputs = first.head, first.head.outputs(first.card)
        if (general.head, general.head.outputs(general.card)) != (head, outputs):
            raise UserError(
                f"stages[{number}].replay.data: {stage.replay.data} is answered in another way "
                "than the stage's task."
            )


# A finished run once more, from its own record.


def recorded_recipe(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a finished run, as its manifest has it.

    Raises ``UserError`` for a run that was not finished, and where its data is another than it was.
    """
    before, recipe = open_run(folder)
    manifest = before.manifest
    if manifest.status != "done":
        raise UserError(
            f"{folder}: this run was not finished; go on with residency run and its recipe."
        )
    files = hash_files(recipe, folder.parent / ".digests.json")
    changed = sorted(name for name, known in manifest.inputs.items() if files.get(name) != known)
    if changed:
        raise UserError(
            f"{folder}: {changed[0]} is not what it was when the run was made; restore it."
        )
    path = folder / "recipe.yaml"
    return Recipe.from_mapping(read_yaml(path), recipe.root, overrides, str(path))


def compare_weights(before: Path, after: Path) -> list[str]:
    """For each stage whether both runs made the same weights, in words; where not, which packages
    are others now."""
    lines, same = [], True
    for path in sorted(before.glob(f"train/*/{FILE}")):
        stage = path.parent.name
        other = after / "train" / stage / FILE
        if not other.is_file():
            lines.append(f"{stage}: not trained again")
            continue
        old, new = read_json(path, Artefact), read_json(other, Artefact)
        weights = {*old.weights, *new.weights}
        equal = all(old.files.get(name) == new.files.get(name) for name in weights)
        lines.append(f"{stage}: {'the same weights, bit for bit' if equal else 'other weights'}")
        same = same and equal
    if not same:
        then = Run(before).manifest.packages
        lines += [
            f"{name} {then.get(name, 'missing')} -> {now}"
            for name, now in packages().items()
            if then.get(name) != now
        ]
    return lines


def main(folder: Path, root: Path, out: Path, stage: int) -> None:
    """Under torchrun: train a stage (counted from 0) of a run that has written its recipe, into a
    folder that the run commits."""
    recipe = Recipe.from_mapping(read_yaml(folder / "recipe.yaml"), root)
    try:
        inputs = read_inputs(recipe, folder.parent, folder)
        material = material_of(inputs, read_data(recipe, Silent()), Silent())
        train_stage(material, stage, out)
    finally:
        processes.leave()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    except ResidencyError as error:
        print(f"{processes.MARK}{error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)  # the others may wait for a message that will not come
