"""A task on a data set of a recipe: the card with its labels, the examples of each part, and how it
is answered."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from residency.core.errors import DataError
from residency.core.types import Example, PartName
from residency.corpus.load import Corpus
from residency.models.base import Base
from residency.models.predictors import output_of
from residency.recipe import Recipe, Task
from residency.tasks.card import Card
from residency.tasks.examples import examples, fixed, unknown_labels
from residency.train.stage import Replay, Stage

if TYPE_CHECKING:
    from residency.models.artefact import Output


class Assignment:
    """A task on one of the recipe's data sets; reads nothing before it is asked."""

    def __init__(
        self,
        recipe: Recipe,
        corpora: Mapping[str, Corpus],
        base: Base,
        task: Task,
        data: str,
        name: str,
        known: Card | None = None,
    ) -> None:
        self.recipe, self.corpora, self.base = recipe, corpora, base
        self.task, self.data, self.name = task, data, name
        self.known = known
        """The card as a model learned it, where one is measured again."""

    @cached_property
    def card(self) -> Card:
        """The task's card, its labels fixed by the training notes of every data set that the task
        is trained on."""
        if self.known is not None:
            return self.known
        sets = [
            self.task.data,
            *(data for data in trained_on(self.recipe, self.task) if data != self.task.data),
        ]
        where = f"data.{self.task.data}"
        found = fixed(
            self.recipe.card(self.task),
            [note for data in sets for note in self.corpora[data].part("train")],
            where,
        )
        unknown = unknown_labels(self.corpora[self.data].notes, found)
        if unknown:
            raise DataError(
                f"data.{self.data}: label {unknown[0]!r} is not in card {found.name}; allowed: "
                f"{', '.join(found.names)}; "
                f"add it to the card, or rename it with data.{self.data}.labels."
            )
        return found.model_copy(update={"name": self.name}) if self.name else found

    @cached_property
    def output(self) -> Output:
        """How the task is answered: with a head, or in words."""
        return output_of(self.task.output, self.base, self.card)

    def part(self, name: PartName) -> list[Example]:
        """The examples of a part."""
        return examples(self.corpora[self.data].part(name), self.card)

    def test_part(self) -> list[Example]:
        """What is measured: the test part, or so many of it as the recipe wants, the same for every
        system and run."""
        return drawn(self.part("test"), self.recipe.evaluate.limit, self.recipe.seed)


def trained_on(recipe: Recipe, task: Task, *stages: Stage) -> list[str]:
    """The data sets that some stage (of all, or of those given) trains a task on."""
    return [
        stage.data or task.data
        for stage in stages or recipe.stages
        if task in recipe.tasks_of(stage)
    ]


def exams(recipe: Recipe) -> list[tuple[str, Task, str]]:
    """What every system is asked: each task on its own data, and on every other data set that a
    stage trains it on.

    Name, task and data of each; the name of the first of a task is the task's.
    """
    found = {(task.title, task.data): (task.name, task, task.data) for task in recipe.tasks}
    for task in recipe.tasks:
        for data in trained_on(recipe, task):
            found.setdefault((task.title, data), (f"{task.title}-{data}", task, data))
    return list(found.values())


def replayed(assignment: Assignment, own: int, replay: Replay, seed: int) -> list[Example]:
    """General rows to stand among ``own`` rows of a stage, drawn with the recipe's seed."""
    rows = assignment.part("train")
    wanted = min(len(rows), round(own * replay.share / (1 - replay.share)))
    return marked(drawn(rows, wanted, seed), replay.data)


def marked(rows: list[Example], data: str) -> list[Example]:
    """Rows of another data set among a stage's own, their ids told apart."""
    return [msgspec.structs.replace(row, id=f"{data}:{row.id}") for row in rows]


def replay_task(recipe: Recipe, stage: Stage) -> Task:
    """The task whose card asks replayed rows: the one of that data, else the stage's own."""
    assert stage.replay is not None
    own = recipe.tasks_of(stage)
    return next((task for task in (*own, *recipe.tasks) if task.data == stage.replay.data), own[0])


def drawn(rows: list[Example], most: int | None, seed: int) -> list[Example]:
    """All rows, or so many of them, in their order."""
    if most is None or len(rows) <= most:
        return rows
    chosen = set(random.Random(seed).sample(range(len(rows)), most))
    return [row for number, row in enumerate(rows) if number in chosen]
