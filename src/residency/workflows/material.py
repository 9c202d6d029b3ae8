"""What the steps of a run work with: the data sets, read once, and each task on its data."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from residency.core.errors import DataError, UserError
from residency.core.progress import Tracker
from residency.core.types import PARTS, SHOWABLE, Example, PartName, Profile, Value
from residency.corpus import load
from residency.corpus.load import Corpus
from residency.corpus.reader import told
from residency.corpus.summary import strictest
from residency.models.predictors import output_of
from residency.recipe import Recipe, Task
from residency.tasks.card import Card
from residency.tasks.examples import examples, fixed, unknown_labels
from residency.tasks.families import head_of
from residency.tasks.heads import Head
from residency.train.stage import Stage
from residency.workflows.steps import Inputs, trained_on

if TYPE_CHECKING:
    from residency.models.artefact import Output


class Material(Value, frozen=True):
    """What the steps of a run work with."""

    inputs: Inputs
    corpora: dict[str, Corpus]
    profile: Profile
    """The strictest among all notes."""
    tracker: Tracker

    @property
    def show_text(self) -> bool:
        """Whether a report may quote notes."""
        asked = self.inputs.recipe.evaluate.show_text
        return self.profile in SHOWABLE if asked == "auto" else bool(asked)


class TaskOnData(Value, frozen=True):
    """A task on a data set: its card with the labels fixed, and how it is answered."""

    task: Task
    data: str
    corpus: Corpus
    card: Card
    output: Output

    @property
    def head(self) -> Head:
        """What answers it."""
        return head_of(self.card, self.output)


def material_of(inputs: Inputs, corpora: dict[str, Corpus], tracker: Tracker) -> Material:
    """What the steps of a run work with, from its data sets as ``read_data`` gives them."""
    profile = strictest(note.profile for corpus in corpora.values() for note in corpus.notes)
    return Material(inputs=inputs, corpora=corpora, profile=profile, tracker=tracker)


def read_data(recipe: Recipe, tracker: Tracker) -> dict[str, Corpus]:
    """Read every data set of a recipe, the tracker told of the rows as they are read."""
    tracker.start("reading the data")
    corpora = {
        name: load.load(
            data, name, recipe.root, recipe.seed, partial(tracker.update, words=f"rows of {name}")
        )
        for name, data in recipe.data.items()
    }
    counts = {part: sum(len(one.part(part)) for one in corpora.values()) for part in PARTS}
    tracker.end(", ".join(f"{count} {part}" for part, count in counts.items()))
    return corpora


def task_on_data(material: Material, task: Task, data: str = "", name: str = "") -> TaskOnData:
    """A task on its data set, or on another, its card called ``name`` where one is given. Its
    labels are fixed by the training notes of every data set that the task is trained on.

    Raises ``DataError`` for a label in the data that the card does not have.
    """
    recipe, chosen = material.inputs.recipe, data or task.data
    sets = dict.fromkeys((task.data, *trained_on(recipe, task)))
    notes = [note for one in sets for note in material.corpora[one].part("train")]
    card = fixed(recipe.card(task), notes, f"data.{task.data}")
    corpus = material.corpora[chosen]
    if unknown := unknown_labels(corpus.notes, card):
        raise DataError(
            f"data.{chosen}: {told(unknown[0])} is not in card {card.name}; allowed: "
            f"{', '.join(card.names)}; add it to the card, or rename it with data.{chosen}.labels."
        )
    output = output_of(task.output, material.inputs.base, card)
    called = card.model_copy(update={"name": name}) if name else card
    return TaskOnData(task=task, data=chosen, corpus=corpus, card=called, output=output)


def examples_of(one: TaskOnData, part: PartName) -> list[Example]:
    """The examples of a part."""
    return examples(one.corpus.part(part), one.card)


def measured_examples(one: TaskOnData, recipe: Recipe) -> list[Example]:
    """What is measured: the test part, or so many of it as the recipe wants, the same for every
    system and run. Raises ``UserError`` where there is none."""
    found = draw(examples_of(one, "test"), recipe.evaluate.limit, recipe.seed)
    if not found:
        raise UserError(
            f"data.{one.data}.test: there is nothing to measure on; give a test part, or path with "
            "shares."
        )
    return found


def training_examples(
    material: Material, stage: Stage, tasks: Sequence[TaskOnData], general: TaskOnData | None
) -> list[Example]:
    """What a stage learns from: the training parts of its tasks, and general rows among them."""
    rows = joined_examples(tasks, "train")
    if general is None or stage.replay is None:
        return rows
    share, seed = stage.replay.share, material.inputs.recipe.seed
    replayed = examples_of(general, "train")
    wanted = min(len(replayed), round(len(rows) * share / (1 - share)))
    return [*rows, *tag_ids(draw(replayed, wanted, seed), general.data)]


def joined_examples(tasks: Sequence[TaskOnData], part: PartName) -> list[Example]:
    """A part of several tasks, the ids of all but the first told apart."""
    found = [examples(one.corpus.part(part), one.card) for one in tasks]
    others = zip(tasks[1:], found[1:], strict=True)
    return [*found[0], *(row for one, rows in others for row in tag_ids(rows, one.data))]


def tag_ids(rows: Sequence[Example], data: str) -> list[Example]:
    """Rows of another data set among a stage's own, their ids told apart."""
    return [msgspec.structs.replace(row, id=f"{data}:{row.id}") for row in rows]


def draw(rows: list[Example], most: int | None, seed: int) -> list[Example]:
    """All rows, or so many of them, in their order."""
    if most is None or len(rows) <= most:
        return rows
    chosen = set(random.Random(seed).sample(range(len(rows)), most))
    return [row for number, row in enumerate(rows) if number in chosen]
