"""What each step of a run depends on: keys from hashes of files and from the recipe alone, so that
no row is read to know what has to be done."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from residency.core.errors import UserError
from residency.core.files import digest, file_digest, read_json, sha256, write_text
from residency.core.run_folder import (
    SCHEMA,
    Manifest,
    Run,
    Step,
    hardware,
    memoised_digests,
    now,
    packages,
)
from residency.core.types import DataSummary, Value
from residency.core.zones import assert_outside
from residency.corpus import load
from residency.corpus.summary import strictest
from residency.evals import ratings
from residency.locale.segment import SYLLABLES
from residency.models.base import NO_BASE, Base, resolve
from residency.recipe import Recipe, Task
from residency.tasks.card import Card
from residency.tasks.families import of
from residency.train import processes
from residency.train.stage import Stage
from residency.workflows.finished import artefact_of


class Inputs(Value, frozen=True):
    """What the steps of a run depend on."""

    recipe: Recipe
    folder: Path
    """The run's."""
    base: Base
    files: dict[str, str]
    """Data file, as the recipe names it -> SHA-256."""


class EvaluationTask(Value, frozen=True):
    """A task that every system is measured on, and the data set whose test part is asked."""

    name: str
    """What its folder and the report call it; empty: as its card is called."""
    task: Task
    data: str


def read_inputs(recipe: Recipe, runs: Path, folder: Path | None = None) -> Inputs:
    """Hash every data file and find the base on this machine; ``runs`` keeps the hashes for the
    next time, ``folder`` takes the place of the run's own.

    Raises ``UserError`` where a file or the base is missing.
    """
    files = hash_files(recipe, runs / ".digests.json")
    base = base_of(recipe)
    own = folder or folder_of(recipe, runs)
    return Inputs(recipe=recipe.settled(base), folder=own, base=base, files=files)


def folder_of(recipe: Recipe, runs: Path) -> Path:
    """The folder of a recipe's run among ``runs``; another recipe, another folder."""
    return runs / f"{recipe.name}-{recipe.digest[:8]}"


def base_of(recipe: Recipe, weights: bool = True) -> Base:
    """The base of a recipe; ``NO_BASE`` where nothing starts from one.

    A base of joined words marks spans by syllables, unless the recipe names its segmenter: a joined
    word is one slot, so where a label begins inside one no model can say so.
    """
    if not recipe.needs_base:
        return NO_BASE
    found = resolve(recipe.base, recipe.root, weights)
    heads = (of(recipe.card(task)).classifier for task in recipe.tasks)
    joins = found.segmenter and recipe.base.segmenter == "auto"
    if joins and any(head is not None and head.by_token for head in heads):
        return replace(found, segmenter=SYLLABLES)
    return found


def baselines_of(recipe: Recipe, card: Card) -> tuple[str, ...]:
    """What the trained systems of a recipe are compared with on a card."""
    if recipe.evaluate.baselines != "auto":
        return recipe.evaluate.baselines
    left_out = () if recipe.needs_base else ("base", "crf")  # there is none; it is one
    return tuple(name for name in of(card).baselines if name not in left_out)


def hash_files(recipe: Recipe, memo: Path | None = None) -> dict[str, str]:
    """Data file -> SHA-256, for all data sets of a recipe; remembered in ``memo``."""
    found = {
        path for name, data in recipe.data.items() for path in load.files(data, recipe.root, name)
    }
    before = {recipe.root / data.history for data in recipe.data.values() if data.history}
    hashes = memoised_digests(sorted(found | {path for path in before if path.is_file()}), memo)
    return {load.relative_name(path, recipe.root): hash for path, hash in hashes.items()}


def trained_on(recipe: Recipe, task: Task, *stages: Stage) -> list[str]:
    """The data sets that some stage (of all, or of those given) trains a task on."""
    return [
        stage.data or task.data
        for stage in stages or recipe.stages
        if task in recipe.tasks_of(stage)
    ]


def evaluation_tasks(recipe: Recipe) -> list[EvaluationTask]:
    """What every system is measured on: each task on its own data, and on every other data set that
    a stage trains it on."""
    found = {
        (task.title, task.data): EvaluationTask(name=task.name, task=task, data=task.data)
        for task in recipe.tasks
    }
    for task in recipe.tasks:
        for data in trained_on(recipe, task):
            other = EvaluationTask(name=f"{task.title}-{data}", task=task, data=data)
            found.setdefault((task.title, data), other)
    return list(found.values())


def steps_of_run(inputs: Inputs) -> list[Step]:
    """All steps of a run in their order: the data, each stage, each evaluation task, the report."""
    data, stages = data_step(inputs), stage_steps(inputs)
    tasks = evaluation_tasks(inputs.recipe)
    trained = [step.key for step in stages]
    asked = [evaluation_step(inputs.recipe, one, trained, len(tasks) > 1) for one in tasks]
    return [data, *stages, *asked, report_step(inputs.recipe, data, asked, inputs.folder)]


def data_step(inputs: Inputs) -> Step:
    """The step that reads and splits the data."""
    return Step(
        name="data", settings=_data_settings(inputs.recipe), inputs=inputs.files, into="data"
    )


def stage_steps(inputs: Inputs) -> list[Step]:
    """The steps of all stages."""
    return [stage_step(inputs, number) for number in range(len(inputs.recipe.stages))]


def stage_step(inputs: Inputs, number: int) -> Step:
    """The step of a stage, counted from 0. What cannot change its result is left out."""
    recipe, stage = inputs.recipe, inputs.recipe.stages[number]
    base = inputs.base if stage.needs_base else NO_BASE
    settings = recipe.settings["stages"][number]
    settings.pop("track")
    kept = {"data", "output", "limits", "generate"}
    tasks = {
        task.title: {
            **task.model_dump(mode="json", include=kept),
            "card": recipe.card(task).model_dump(mode="json"),
        }
        for task in recipe.tasks_of(stage)
    }
    about = {
        "base": base.digest,
        "base.segmenter": base.segmenter,
        "base.window": str(base.window),
        "base.quantise": base.quantise,
        "base.dtype": base.dtype,
    }
    if base.chat_template:
        about["base.chat_template"] = sha256(base.chat_template.encode())
    into = f"train/{stage.title(number + 1)}"
    return Step(
        name=into,
        settings={**_data_settings(recipe), "stage": settings, "tasks": tasks},
        inputs={**inputs.files, **about, **_start_inputs(inputs, number)},
        into=into,
    )


def _start_inputs(inputs: Inputs, number: int) -> dict[str, str]:
    """Hashes of what a stage goes on from."""
    root, stage, found = inputs.recipe.root, inputs.recipe.stages[number], {}
    if stage.start == "previous" and number:
        found["start"] = stage_step(inputs, number - 1).key
    elif stage.start not in ("base", "previous"):
        found["start"] = file_digest(artefact_of(root / stage.start) / "artefact.json")
    for name in getattr(stage.method, "dictionaries", ()):
        if not (root / name).is_file():
            raise UserError(
                f"stages[{number}].method.dictionaries: {root / name} does not exist; name a file "
                "with a term a line."
            )
        found[f"dictionary {name}"] = file_digest(root / name)
    adapter = getattr(stage.method, "adapter", None)
    if adapter is not None:
        files = sorted((root / adapter).glob("adapter_*"))
        if not files:
            raise UserError(
                f"stages[{number}].method.adapter: {root / adapter} holds no adapter; give a "
                "folder with adapter_config.json and adapter_model.safetensors."
            )
        found["adapter"] = digest({path.name: file_digest(path) for path in files})
    return found


def start_of(inputs: Inputs, number: int) -> Path | None:
    """The artefact that a stage goes on from; None: the base."""
    name = inputs.recipe.stages[number].start
    if name == "base" or (name == "previous" and not number):
        return None
    if name == "previous":
        return inputs.folder / stage_step(inputs, number - 1).into
    return artefact_of(inputs.recipe.root / name)


def evaluation_step(
    recipe: Recipe, asked: EvaluationTask, trained: Sequence[str], several: bool = False
) -> Step:
    """The step that measures every system on one task; ``trained``: the keys of the stages,
    ``several``: whether there are other such steps."""
    into = f"eval/{asked.name or recipe.card(asked.task).name}"
    kept = {k: v for k, v in recipe.settings["evaluate"].items() if k != "floor"}
    settings = {"evaluate": kept, "seed": recipe.seed}
    if recipe.evaluate.baselines != "auto":  # a run of an earlier version stands as it is
        settings["baselines"] = "as named"
    settings |= {"data": asked.data} if several else {}
    settings |= {"shots": asked.task.shots} if asked.task.shots else {}
    key = trained[0] if len(trained) == 1 else digest(trained)
    return Step(name=into, settings=settings, inputs={"train": key}, into=into)


def report_step(
    recipe: Recipe, data: Step, asked: Sequence[Step], folder: Path | None = None
) -> Step:
    """The step that writes the report on what was measured, and on the marks that a run's folder
    holds."""
    measured = {"eval" if len(asked) == 1 else step.name: step.key for step in asked}
    marks = folder / ratings.FOLDER / ratings.MARKS if folder else None
    if marks is not None and marks.is_file():
        measured["ratings"] = file_digest(marks)
    settings = {"recipe": recipe.settings}
    return Step(name="report", settings=settings, inputs={"data": data.key, **measured})


def _data_settings(recipe: Recipe) -> dict[str, Any]:
    return {"data": recipe.settings["data"], "seed": recipe.seed}


def is_finished(run: Run, steps: Sequence[Step]) -> bool:
    """Whether a run is done with exactly these steps, all of their files there."""
    if not (run.folder / "manifest.json").is_file():
        return False
    before = run.manifest
    keys = {step.name: step.key for step in steps}
    return (before.status, before.steps) == ("done", keys) and all(map(run.is_done, steps))


@contextmanager
def under_way(run: Run, steps: Sequence[Step], inputs: Inputs) -> Iterator[bool]:
    """Hold a run while its steps are done, and keep its manifest; yields false where the run is
    finished and nothing has to be done."""
    assert_outside(run.folder)
    with run.locked():
        if is_finished(run, steps):
            run.done = {step.name: "cached" for step in steps}
            yield False
            return
        before = (run.folder / "manifest.json").is_file()
        created = run.manifest.created if before else now()
        write_text(run.folder / "recipe.yaml", inputs.recipe.yaml())
        run.write_manifest(_manifest(inputs, run, steps, created, "running"))
        try:
            yield True
        except Exception:
            # a full disk may refuse this too; the first error is the one to tell
            with suppress(UserError):
                run.write_manifest(_manifest(inputs, run, steps, created, "failed"))
            raise
        run.clear_scratch()
        run.write_manifest(_manifest(inputs, run, steps, created, "done"))


def _manifest(
    inputs: Inputs, run: Run, steps: Sequence[Step], created: str, status: str
) -> Manifest:
    """The run's manifest; its profile is what the recipe says until the data was read."""
    recipe, read = inputs.recipe, run.folder / "data/summary.json"
    profiles = (
        [data.profile for data in read_json(read, list[DataSummary])]
        if status == "done"
        else [data.profile for data in recipe.data.values()]
    )
    return Manifest(
        schema=SCHEMA,
        name=recipe.name,
        recipe_digest=recipe.digest,
        root=os.path.relpath(recipe.root, run.folder.resolve()),
        created=created,
        code=packages().get("residency", ""),
        packages=packages(),
        hardware=hardware(),
        inputs=inputs.files,
        profile=strictest(profiles),
        status=status,
        steps={step.name: step.key for step in steps},
        launch=processes.described(recipe.launch),
    )
