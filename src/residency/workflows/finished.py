"""A finished run: opened, its facts, its trained model and what that answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residency.core.errors import UserError
from residency.core.files import read_json
from residency.core.run_folder import Run
from residency.core.types import Note, Prediction, RawNote, RunFacts
from residency.recipe import Recipe, read_yaml
from residency.tasks.examples import question
from residency.tasks.families import of

if TYPE_CHECKING:
    from residency.models.predictors import Trained
    from residency.tasks.card import Card


def open_run(folder: Path | str) -> tuple[Run, Recipe]:
    """A finished run and its recipe, from its folder."""
    found = Run(Path(folder))
    manifest, path = found.manifest, found.folder / "recipe.yaml"
    root = found.folder / manifest.root  # runs of earlier versions keep a whole path
    return found, Recipe.from_mapping(read_yaml(path), root, where=str(path))


def artefact_of(folder: Path | str) -> Path:
    """The trained model of a run's folder (or the artefact itself, or that of a model in a Triton
    repository)."""
    folder = Path(folder)
    for own in (folder, folder / "1" / "artefact"):
        if (own / "artefact.json").is_file():
            return own
    Run(folder).manifest  # noqa: B018 - says what is wrong with the folder
    found = [path.parent for path in folder.glob("train/*/artefact.json")]
    if not found:
        raise UserError(f"{folder}: has no trained model yet; finish it with residency run.")
    return max(found, key=lambda path: int(path.name.partition("-")[0]))


def finished_facts(run: Run) -> RunFacts:
    """What the report of a finished run was made from."""
    return read_json(run.folder / "facts.json", RunFacts)


def predict(run: Run | Path | str, notes: Iterable[Note | RawNote | str]) -> Iterator[Prediction]:
    """Answers of a run's model, one per note, in order, in constant memory. Identified notes stay
    in memory only.

    A generative model is given the note's turns or columns where it has some, else its text as the
    question. The model is loaded, and its faults are raised, before the first answer is asked for.
    """
    from residency.models import predictors

    folder = run.folder if isinstance(run, Run) else run
    return answers(predictors.trained(artefact_of(folder)), notes)


def answers(predictor: Trained, notes: Iterable[Note | RawNote | str]) -> Iterator[Prediction]:
    """The same of a model that is loaded."""
    return predictor.predict(
        question(
            Note(id=str(number), text=note, profile="pseudonymised")
            if isinstance(note, str)
            else note,
            predictor.card,
        )
        for number, note in enumerate(notes)
    )


def told(card: Card, said: Prediction) -> tuple[dict[str, Any], dict[str, float]]:
    """What an answer holds, as ``residency predict`` writes it into a row, and how likely the model
    takes each label to be, the likeliest first."""
    found = {} if said.answer is None else of(card).columns(said.answer)
    chances = of(card).chances(said.answer).items()
    return found, dict(sorted(chances, key=lambda pair: -pair[1]))
